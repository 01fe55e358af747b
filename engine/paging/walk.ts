/**
 * What walks of page tables have in common: accesses and who makes them, what a
 * walk finds, and what rights allow.
 *
 * @module
 */
import { wordAt } from "../svm/page_word.ts";
import type { GuestMemory } from "../svm/memory.ts";

/** Kinds of access to memory. */
export const READ = 0;
/** A write. */
export const WRITE = 1;
/** An instruction fetch. */
export const FETCH = 2;

/** Bits of a page fault's error code (APM vol. 2, 8.4.2). */
export const PF = { present: 1, write: 2, user: 4, reserved: 8, fetch: 16 } as const;

/** What a failed walk is: nothing, a #PF, or a #GP for an address that is not canonical. */
export const WALK_OK = 0;
/** A page fault. */
export const WALK_FAULT = 1;
/** A table or the final address missed in the second stage. */
export const WALK_STAGE2 = 2;

/**
 * Outcome of a walk, reused from one to the next.
 *
 * @example
 * ```ts
 * import { GuestMemory, USER, Walk, walkMode, WALK_FAULT, walkProcessor, WRITE } from "@vmtape/vmtape/engine";
 * const out = new Walk();
 * const mode = walkMode(0x80000001, 0x10, 0);
 * const nothing = new GuestMemory(1 << 20);
 * if (walkProcessor(nothing, 40, mode, 0, 0x5000, 0, WRITE, USER, (gpa) => gpa, out)) throw new Error();
 * // A write of CPL 3 to a page that is not present.
 * if (out.outcome !== WALK_FAULT || out.error !== 6) throw new Error();
 * ```
 */
export class Walk {
  /** {@linkcode WALK_OK}, {@linkcode WALK_FAULT} or {@linkcode WALK_STAGE2}. */
  outcome: number = WALK_OK;
  /** Physical address, valid when the walk succeeded. */
  gpa = 0;
  /** Bytes of the page that maps it. */
  pageSize = 4096;
  /** Error code of the fault, {@linkcode PF} bits. */
  error = 0;
  /** Whether the second stage missed on a table rather than on the final address. */
  onTable = false;
  /** Address that missed in the second stage. */
  stage2Address = 0;
  /** Level of the entry that maps the page: 1 for 4 KiB. Filled by {@linkcode walkKvm}, as all below. */
  level = 0;
  /** What the page allows: 1 execute, 2 write (with Dirty set only), 4 user. */
  access = 0;
  /** Page numbers of the tables, by level less one. */
  readonly tables: Float64Array = new Float64Array(5);
  /** What the entries above a table allow, by its level less one. */
  readonly tableAccess: Uint8Array = new Uint8Array(5);
  /** Addresses of the entries, by level less one. */
  readonly entries: Float64Array = new Float64Array(5);
  /** Low halves of the entries as they were read. */
  readonly values: Uint32Array = new Uint32Array(5);
}

/** Paging mode of the tables to walk. */
export interface WalkMode {
  /** Levels: 2 (32-bit), 3 (PAE), 4 or 5 (long mode), 0 when paging is off. */
  readonly levels: number;
  /** CR0.WP. */
  readonly writeProtect: boolean;
  /** CR4.PSE: 4 MiB pages with 2 levels. */
  readonly largePages: boolean;
  /** EFER.NXE, and an entry format that has the bit. */
  readonly noExecute: boolean;
  /** CR4.SMEP. */
  readonly smep: boolean;
  /** CR4.SMAP. */
  readonly smap: boolean;
}

/** Who accesses: the supervisor. */
export const SUPERVISOR = 0;
/** CPL 3. */
export const USER = 1;
/** The supervisor with RFLAGS.AC set: SMAP does not apply. */
export const SUPERVISOR_AC = 2;

/** Second stage: turns a physical address of a table or page into one of memory, or -1 with `out` filled. */
export type Stage2 = (gpa: number, access: number, table: boolean, out: Walk) => number;

/** Little-endian 32-bit word of a page table, at an address that is a multiple of 4 and backed. */
export function word(memory: GuestMemory, gpa: number): number {
  memory.recorder?.readMemory(gpa, 4);
  const page = memory.page(gpa);
  memory.tables[gpa / 4096 | 0] = memory.generation;
  return wordAt(page, gpa & 0xfff);
}

/** Sets bits of a table's entry, of which the low byte is at an address. */
export function setBits(memory: GuestMemory, gpa: number, old: number, bits: number): void {
  if ((bits & ~old) !== 0) memory.write8(gpa, (old | bits) & 0xff);
}

/** A walk that ends in a page fault; false. */
export function fail(out: Walk, error: number): boolean {
  out.outcome = WALK_FAULT;
  out.error = error;
  return false;
}

/** What a page fault's error code says of the access itself. */
export function accessError(mode: WalkMode, access: number, who: number): number {
  let error = who === USER ? PF.user : 0;
  if (access === WRITE) error |= PF.write;
  if (access === FETCH && (mode.noExecute || mode.smep)) error |= PF.fetch;
  return error;
}

/** Whether the rights of a page's entries allow an access. */
export function allowed(
  mode: WalkMode,
  access: number,
  who: number,
  w: boolean,
  u: boolean,
  nx: boolean,
): boolean {
  if (who === USER) {
    if (!u) return false;
  } else if (access === FETCH) {
    if (mode.smep && u) return false;
  } else if (u && mode.smap && who !== SUPERVISOR_AC) return false;
  if (access === WRITE) return w || (who !== USER && !mode.writeProtect);
  return access !== FETCH || !nx;
}
