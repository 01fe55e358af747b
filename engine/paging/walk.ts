/**
 * Page table walks: the processor's own, and KVM's software walk of a guest's
 * tables (paging_tmpl.h). Neither allocates.
 *
 * @module
 */
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
  const page = memory.page(gpa);
  memory.tables[gpa / 4096 | 0] = memory.generation;
  const at = gpa & 0xfff;
  return ((page[at] as number) | (page[at + 1] as number) << 8 | (page[at + 2] as number) << 16 |
    (page[at + 3] as number) << 24) >>> 0;
}

function setBits(memory: GuestMemory, gpa: number, old: number, bits: number): void {
  if ((bits & ~old) !== 0) memory.writable(gpa)[gpa & 0xfff] = (old | bits) & 0xff;
}

const HIGH = 0x1_0000_0000;

function fail(out: Walk, error: number): boolean {
  out.outcome = WALK_FAULT;
  out.error = error;
  return false;
}

function accessError(mode: WalkMode, access: number, who: number): number {
  let error = who === USER ? PF.user : 0;
  if (access === WRITE) error |= PF.write;
  if (access === FETCH && (mode.noExecute || mode.smep)) error |= PF.fetch;
  return error;
}

function allowed(
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

/**
 * The processor's walk, as QEMU's mmu_translate does it: reserved bits give an
 * error code without the present bit, the PDPTEs of PAE are read from memory
 * every time and get Accessed bits, a table is accessed as a write in the
 * second stage.
 *
 * @param memory Memory with the tables.
 * @param physicalBits Width of physical addresses.
 * @param mode Paging mode.
 * @param root CR3.
 * @param lo Linear address, low half.
 * @param hi Linear address, high half.
 * @param access {@linkcode READ}, {@linkcode WRITE} or {@linkcode FETCH}.
 * @param who {@linkcode SUPERVISOR}, {@linkcode USER} or {@linkcode SUPERVISOR_AC}.
 * @param stage2 Translates the addresses of tables and of the result.
 * @param out Where it leads, or why not.
 * @returns Whether the walk succeeded; `out` says where to or why not.
 * @example
 * ```ts
 * import { GuestMemory, READ, SUPERVISOR, Walk, walkMode, walkProcessor } from "@vmtape/vmtape/engine";
 * const memory = new GuestMemory(1 << 20);
 * memory.write64(0x1000, 0x2003n);
 * memory.write64(0x2000 + 5 * 4, 0x7003n);
 * const out = new Walk();
 * const mode = walkMode(0x80000001, 0, 0);
 * if (!walkProcessor(memory, 40, mode, 0x1000, 0x5678, 0, READ, SUPERVISOR, (gpa) => gpa, out)) throw new Error();
 * if (out.gpa !== 0x7678) throw new Error();
 * ```
 */
export function walkProcessor(
  memory: GuestMemory,
  physicalBits: number,
  mode: WalkMode,
  root: number,
  lo: number,
  hi: number,
  access: number,
  who: number,
  stage2: Stage2,
  out: Walk,
): boolean {
  out.outcome = WALK_OK;
  const error = accessError(mode, access, who);
  let gpa = 0;
  if (mode.levels === 0) {
    gpa = hi * HIGH + lo;
    out.pageSize = 0x40000000;
  } else if (mode.levels === 2) {
    const entryGpa = (root >>> 0) - (root & 0xfff) + (lo >>> 20 & 0xffc);
    let at = stage2(entryGpa, WRITE, true, out);
    if (at < 0) return false;
    let pte = word(memory, at);
    if ((pte & 1) === 0) return fail(out, error);
    let rights = pte;
    if ((pte & 0x80) !== 0 && mode.largePages) {
      if ((pte & 0x200000) !== 0) return fail(out, error | PF.reserved);
      out.pageSize = 0x400000;
      gpa = (pte >>> 13 & 0xff) * HIGH + ((pte & 0xffc00000) >>> 0) + (lo & 0x3fffff);
    } else {
      setBits(memory, at, pte, 0x20);
      at = stage2(((pte & 0xfffff000) >>> 0) + (lo >>> 10 & 0xffc), WRITE, true, out);
      if (at < 0) return false;
      pte = word(memory, at);
      if ((pte & 1) === 0) return fail(out, error);
      rights &= pte;
      out.pageSize = 4096;
      gpa = ((pte & 0xfffff000) >>> 0) + (lo & 0xfff);
    }
    if (!allowed(mode, access, who, (rights & 2) !== 0, (rights & 4) !== 0, false)) {
      return fail(out, error | PF.present);
    }
    setBits(memory, at, pte, access === WRITE ? 0x60 : 0x20);
  } else {
    // Bits physicalBits to 51 of an entry, in its high half.
    let reserved = 0xfffff & ~((1 << physicalBits - 32) - 1);
    if (!mode.noExecute) reserved |= 1 << 31;
    let table = root;
    let rights = 7;
    let nx = false;
    let level = mode.levels;
    let at = 0;
    let pteLo = 0;
    let pteHi = 0;
    for (;; level--) {
      let entryGpa: number;
      if (level === 5) entryGpa = table - (table & 0xfff) + (hi >>> 16 & 0x1ff) * 8;
      else if (level === 4) entryGpa = table - (table & 0xfff) + (hi >>> 7 & 0x1ff) * 8;
      else if (level === 3) {
        if (mode.levels === 3) entryGpa = (table >>> 0) - (table & 31) + (lo >>> 30) * 8;
        else entryGpa = table + ((hi << 2 | lo >>> 30) & 0x1ff) * 8;
      } else if (level === 2) entryGpa = table + (lo >>> 21 & 0x1ff) * 8;
      else entryGpa = table + (lo >>> 12 & 0x1ff) * 8;
      at = stage2(entryGpa, WRITE, true, out);
      if (at < 0) return false;
      pteLo = word(memory, at);
      pteHi = word(memory, at + 4);
      if ((pteLo & 1) === 0) return fail(out, error);
      const pdpte = level === 3 && mode.levels === 3;
      // PAE's PDPTEs have reserved bits 63:52 as well.
      const mask = pdpte ? reserved | 0xfff00000 : reserved;
      if ((pteHi & mask) !== 0 || (level >= 4 && (pteLo & 0x80) !== 0)) {
        return fail(out, error | PF.reserved);
      }
      if (!pdpte) {
        rights &= pteLo;
        if ((pteHi & 1 << 31) !== 0) nx = true;
      }
      if (level === 1 || ((pteLo & 0x80) !== 0 && !pdpte)) break;
      setBits(memory, at, pteLo, 0x20);
      table = (pteHi & 0xfffff) * HIGH + ((pteLo & 0xfffff000) >>> 0);
    }
    const mask = level === 1 ? 0xfff : level === 2 ? 0x1fffff : 0x3fffffff;
    // Bit 12 of a large page's entry is PAT.
    if ((pteLo & mask & 0xffffe000) !== 0) return fail(out, error | PF.reserved);
    if (!allowed(mode, access, who, (rights & 2) !== 0, (rights & 4) !== 0, nx)) {
      return fail(out, error | PF.present);
    }
    setBits(memory, at, pteLo, access === WRITE ? 0x60 : 0x20);
    out.pageSize = mask + 1;
    gpa = (pteHi & 0xfffff) * HIGH + ((pteLo & 0xfffff000 & ~mask) >>> 0) + (lo & mask);
  }
  gpa = stage2(gpa, access, false, out);
  if (gpa < 0) return false;
  out.gpa = gpa;
  return true;
}

/** What KVM's walker needs to know about the tables it reads. */
export interface KvmWalkMode extends WalkMode {
  /** Root: CR3 or nCR3. Not used with 3 levels when `pdptrs` are given. */
  readonly root: number;
  /** Entries have 4 bytes and tables 1,024 of them, with more than 2 levels, which only inconsistent state asks for. */
  readonly narrow?: boolean;
  /** Cached PDPTEs, low and high halves in turn, for 3 levels; read from memory when left out. */
  readonly pdptrs?: Uint32Array;
}

function narrowIndex(level: number, lo: number, hi: number): number {
  if (level < 3) return level === 2 ? lo >>> 22 : lo >>> 12 & 0x3ff;
  return hi >>> 10 * (level - 3) & 0x3ff;
}

/**
 * KVM's software walk of a guest's tables (FNAME(walk_addr_generic) in
 * arch/x86/kvm/mmu/paging_tmpl.h, AMD rules, 1 GiB pages): tables outside memory
 * are a fault, reserved bits give present and reserved, Accessed and Dirty bits
 * are set once the whole walk succeeded.
 *
 * @param memory Memory with the tables.
 * @param physicalBits Width of physical addresses in the guest's CPUID.
 * @param mode Paging mode and root.
 * @param lo Address to translate, low half.
 * @param hi Address to translate, high half.
 * @param access {@linkcode READ}, {@linkcode WRITE} or {@linkcode FETCH}.
 * @param who {@linkcode SUPERVISOR}, {@linkcode USER} or {@linkcode SUPERVISOR_AC}.
 * @param stage2 Translates the addresses of tables and of the result.
 * @param out Where it leads, or why not.
 * @returns Whether the walk succeeded; `out` says where to or why not.
 * @example
 * ```ts
 * import { GuestMemory, READ, SUPERVISOR, Walk, walkKvm, walkMode } from "@vmtape/vmtape/engine";
 * const memory = new GuestMemory(1 << 20);
 * memory.write64(0x1000, 0x2003n);
 * memory.write64(0x2000 + 5 * 4, 0x7003n);
 * const out = new Walk();
 * const mode = { ...walkMode(0x80000001, 0, 0), root: 0x1000 };
 * if (!walkKvm(memory, 40, mode, 0x5678, 0, READ, SUPERVISOR, (gpa) => gpa, out)) throw new Error();
 * // Not written yet: KVM maps it for reading and executing only.
 * if (out.gpa !== 0x7678 || out.level !== 1 || out.access !== 1) throw new Error();
 * ```
 */
export function walkKvm(
  memory: GuestMemory,
  physicalBits: number,
  mode: KvmWalkMode,
  lo: number,
  hi: number,
  access: number,
  who: number,
  stage2: Stage2,
  out: Walk,
): boolean {
  out.outcome = WALK_OK;
  const error = accessError(mode, access, who);
  let table = mode.root;
  let level = mode.levels;
  if (level === 0) {
    const gpa = stage2(hi * HIGH + lo, access, false, out);
    if (gpa < 0 && out.outcome === WALK_STAGE2) return false;
    out.gpa = gpa < 0 ? out.stage2Address : gpa;
    return true;
  }
  let high = 0xfffff & ~((1 << physicalBits - 32) - 1);
  if (level === 3) {
    high = 0x7fffffff & ~((1 << physicalBits - 32) - 1);
    const index = lo >>> 30;
    let pdpteLo: number;
    let pdpteHi: number;
    if (mode.pdptrs !== undefined) {
      pdpteLo = mode.pdptrs[index * 2] as number;
      pdpteHi = mode.pdptrs[index * 2 + 1] as number;
    } else {
      const at = stage2(table - (table & 31) + index * 8, READ, true, out);
      if (at < 0) return out.outcome === WALK_STAGE2 ? false : fail(out, error);
      pdpteLo = word(memory, at);
      pdpteHi = word(memory, at + 4);
    }
    if ((pdpteLo & 1) === 0) return fail(out, error);
    table = (pdpteHi & 0xfffff) * HIGH + ((pdpteLo & 0xfffff000) >>> 0);
    level = 2;
  } else if (level === 2) table = table >>> 0;
  if (!mode.noExecute) high |= 1 << 31;
  const wide = mode.levels !== 2 && mode.narrow !== true;
  const top = level;
  let rights = 7;
  let nx = false;
  let pteLo = 0;
  let pteHi = 0;
  table -= table & 0xfff;
  for (;; level--) {
    let index: number;
    if (wide) {
      index = level === 5
        ? hi >>> 16 & 0x1ff
        : level === 4
        ? hi >>> 7 & 0x1ff
        : level === 3
        ? (hi << 2 | lo >>> 30) & 0x1ff
        : level === 2
        ? lo >>> 21 & 0x1ff
        : lo >>> 12 & 0x1ff;
    } else index = narrowIndex(level, lo, hi);
    const at = stage2(table + index * (wide ? 8 : 4), WRITE, true, out);
    if (at < 0) return out.outcome === WALK_STAGE2 ? false : fail(out, error);
    out.tables[level - 1] = table / 4096;
    out.tableAccess[level - 1] = rights & 6 | (nx ? 0 : 1);
    pteLo = word(memory, at);
    pteHi = wide ? word(memory, at + 4) : 0;
    if ((pteLo & 1) === 0) return fail(out, error);
    let large = (pteLo & 0x80) !== 0;
    let reservedLo = 0;
    if (wide) {
      if (level >= 4) reservedLo = 0x180;
      else if (large && level === 3) reservedLo = 0x3fffe000;
      else if (large && level === 2) reservedLo = 0x1fe000;
    } else if (large && level === 2 && mode.largePages) reservedLo = 0x3e0000;
    else large = false;
    if ((pteLo & reservedLo) !== 0 || (wide && (pteHi & high) !== 0)) {
      return fail(out, error | PF.reserved | PF.present);
    }
    out.entries[level - 1] = at;
    out.values[level - 1] = pteLo;
    rights &= pteLo;
    if ((pteHi & 1 << 31) !== 0) nx = true;
    if (level === 1 || large) break;
    table = (pteHi & 0xfffff) * HIGH + ((pteLo & 0xfffff000) >>> 0);
  }
  if (!allowed(mode, access, who, (rights & 2) !== 0, (rights & 4) !== 0, nx && mode.noExecute)) {
    return fail(out, error | PF.present);
  }
  const mask = wide
    ? level === 1 ? 0xfff : level === 2 ? 0x1fffff : 0x3fffffff
    : level === 1
    ? 0xfff
    : 0x3fffff;
  let gpa = (pteHi & 0xfffff) * HIGH + ((pteLo & 0xfffff000 & ~mask) >>> 0) + (lo & mask);
  if (!wide && level === 2) gpa += (pteLo >>> 13 & 0xf) * HIGH;
  out.pageSize = mask + 1;
  out.level = level;
  out.access = rights & 6 | (nx ? 0 : 1);
  // A page that was only read so far is mapped read-only, so that the first write shows.
  if (access !== WRITE && (pteLo & 0x40) === 0) out.access &= 5;
  gpa = stage2(gpa, access, false, out);
  if (gpa < 0) {
    if (out.outcome === WALK_STAGE2) return false;
    // The entry was fine and the page is not memory: the walk succeeded.
    gpa = out.stage2Address;
    out.outcome = WALK_OK;
  }
  for (let l = top; l >= level; l--) {
    const old = out.values[l - 1] as number;
    setBits(
      memory,
      out.entries[l - 1] as number,
      old,
      l === level && access === WRITE ? 0x60 : 0x20,
    );
  }
  out.gpa = gpa;
  return true;
}
