/**
 * The valid base that every scenario changes: guest memory and L1's state as
 * the lab sets them up before a case.
 *
 * @module
 */
import { SAVE_AREA, SAVE_FIELDS, VMCB_SIZE } from "../../engine/svm/vmcb_fields.ts";
import { offsets } from "../../engine/layout.ts";

/** Size of guest memory in bytes: 16 MiB. */
export const MEMORY_SIZE = 16 << 20;
/** Memory below this address is zeroed before a case is set up. */
export const FRESH_BELOW = 0x80000;
/** L1's code: `vmrun; out 0x80, al; jmp`. */
export const L1_CODE = 0x8000;
/** L2's code: `vmmcall; hlt; jmp`. */
export const L2_CODE = 0x9000;
/** vmcb12. */
export const VMCB12_GPA = 0x10000;
/** vmcb12's save area. */
export const SAVE_GPA: number = VMCB12_GPA + SAVE_AREA;
/** L1's host save area (VM_HSAVE_PA). */
export const HSAVE_GPA = 0x20000;
/** L1's MSR permission map for L2. */
export const MSRPM_GPA = 0x30000;
/** L1's I/O permission map for L2. */
export const IOPM_GPA = 0x34000;
/** L2's four-level page tables. */
export const L2_TABLES = 0x40000;
/** PAE page tables: the PDPT, four directories behind it. */
export const PAE_TABLES = 0x50000;
/** Nested page tables, not used unless a scenario points at them. */
export const NPT_TABLES = 0x60000;
/** Where the SMI handler begins: SMBASE 0x30000, entry point 0x8000. */
export const SMM_CODE = 0x38000;
/** The SMRAM state save area. */
export const SMRAM_GPA = 0x3fe00;
/** L1's four-level page tables. */
export const L1_TABLES = 0x1000;

/** Memory that can be written. */
export interface MemoryWriter {
  /**
   * Stores bytes.
   *
   * @param gpa Guest physical address of the first byte.
   * @param bytes The bytes, valid during the call; they do not cross the end of memory, but may cross
   * pages.
   */
  write(gpa: number, bytes: Uint8Array): void;
}

/** L1's registers before VMRUN that a scenario can change. */
export interface L1State {
  /** RAX: the guest physical address of vmcb12. */
  rax: bigint;
  /** Instruction pointer. */
  rip: bigint;
  /** Flags. */
  rflags: bigint;
  /** Control register 0. */
  cr0: bigint;
  /** Control register 3. */
  cr3: bigint;
  /** Control register 4. */
  cr4: bigint;
  /** Extended feature enables. */
  efer: bigint;
  /** VM_HSAVE_PA. */
  hsave: bigint;
  /** Whether CS is a 32-bit code segment (L1 in PAE mode) instead of a 64-bit one. */
  pae: boolean;
}

/**
 * L1's registers in the base.
 *
 * @returns A fresh object.
 * @example
 * ```ts
 * import { baseL1 } from "@vmtape/vmtape/traces";
 * if (baseL1().cr3 !== 0x1000n) throw new Error();
 * ```
 */
export function baseL1(): L1State {
  return {
    rax: BigInt(VMCB12_GPA),
    rip: BigInt(L1_CODE),
    rflags: 2n,
    cr0: 0x80000011n,
    cr3: BigInt(L1_TABLES),
    cr4: 0x20n,
    efer: 0x1500n,
    hsave: BigInt(HSAVE_GPA),
    pae: false,
  };
}

/** RSP of L1 in the base. */
export const L1_RSP = 0x7800n;

/** One segment register, its attributes packed to 12 bits as in a VMCB. */
export interface BaseSegment {
  /** Selector. */
  readonly selector: number;
  /** Type, S, DPL, P (bits 0 to 7) and AVL, L, DB, G (bits 8 to 11). */
  readonly attrib: number;
  /** Limit in bytes. */
  readonly limit: number;
  /** Base address. */
  readonly base: bigint;
}

/**
 * L1's segment registers. The lab sets the first six; the rest are what a new vCPU has.
 *
 * @param pae Whether L1 runs in 32-bit PAE mode.
 * @returns One row per segment register.
 * @example
 * ```ts
 * import { baseSegments } from "@vmtape/vmtape/traces";
 * if (baseSegments(false).cs.attrib !== 0xa9b) throw new Error();
 * ```
 */
export function baseSegments(
  pae: boolean,
): Record<
  "es" | "cs" | "ss" | "ds" | "fs" | "gs" | "gdtr" | "ldtr" | "idtr" | "tr",
  BaseSegment
> {
  const data = { selector: 0x10, attrib: 0xc93, limit: 0xffffffff, base: 0n };
  const table = { selector: 0, attrib: 0, limit: 0xffff, base: 0n };
  return {
    es: data,
    cs: { selector: 8, attrib: pae ? 0xc9b : 0xa9b, limit: 0xffffffff, base: 0n },
    ss: data,
    ds: data,
    fs: data,
    gs: data,
    gdtr: table,
    ldtr: { ...table, attrib: 0x82 },
    idtr: table,
    tr: { ...table, attrib: 0x83 },
  };
}

/** `vmrun; out 0x80, al; jmp` back. */
const L1_BYTES = Uint8Array.of(0x0f, 0x01, 0xd8, 0xe6, 0x80, 0xeb, 0xf9);
/** `vmmcall; hlt; jmp` to the HLT. */
const L2_BYTES = Uint8Array.of(0x0f, 0x01, 0xd9, 0xf4, 0xeb, 0xfc);
/** `out 0x81, al; vmmcall; hlt; jmp` to the HLT: the port write stops L2 so that an SMI can hit it. */
const L2_RSM_BYTES = Uint8Array.of(0xe6, 0x81, 0x0f, 0x01, 0xd9, 0xf4, 0xeb, 0xfd);
/** `out 0x82, al; rsm`: the port write gives the scenario a turn while the handler runs. */
const SMM_BYTES = Uint8Array.of(0xe6, 0x82, 0x0f, 0xaa);

/**
 * The pages of the base that are not zero, by guest physical address.
 *
 * @returns A map in order of address. It and its pages are shared: they must not be changed.
 * @example
 * ```ts
 * import { basePages } from "@vmtape/vmtape/traces";
 * if (basePages().get(0x8000)?.[0] !== 0x0f) throw new Error();
 * ```
 */
export function basePages(): ReadonlyMap<number, Uint8Array> {
  return PAGES;
}

function buildPages(): ReadonlyMap<number, Uint8Array> {
  const sparse = new Map<number, Uint8Array>();
  const page = (gpa: number): Uint8Array => {
    let at = sparse.get(gpa);
    if (!at) sparse.set(gpa, at = new Uint8Array(VMCB_SIZE));
    return at;
  };
  const w64 = (gpa: number, value: bigint) => {
    const at = page(gpa & ~0xfff);
    new DataView(at.buffer).setBigUint64(gpa & 0xfff, value, true);
  };
  longTables(w64, L1_TABLES);
  longTables(w64, L2_TABLES);
  longTables(w64, NPT_TABLES);
  paeTables(w64);
  page(L1_CODE).set(L1_BYTES);
  page(L2_CODE).set(L2_BYTES);
  fillVmcb12(page(VMCB12_GPA));
  return new Map([...sparse].sort(([a], [b]) => a - b));
}

const PAGES = buildPages();

type Write64 = (gpa: number, value: bigint) => void;

/** Four levels, identity, 2 MiB pages over the first GiB. */
function longTables(w64: Write64, root: number): void {
  w64(root, BigInt(root + 0x1000) | 7n);
  w64(root + 0x1000, BigInt(root + 0x2000) | 7n);
  for (let i = 0; i < 512; i++) w64(root + 0x2000 + i * 8, (BigInt(i) << 21n) | 0x87n);
}

/** A PDPT and four directories, identity, 2 MiB pages over 4 GiB. */
function paeTables(w64: Write64): void {
  for (let p = 0; p < 4; p++) {
    const directory = PAE_TABLES + 0x1000 * (p + 1);
    w64(PAE_TABLES + p * 8, BigInt(directory) | 1n);
    for (let i = 0; i < 512; i++) {
      w64(directory + i * 8, (BigInt(p) << 30n) | (BigInt(i) << 21n) | 0x83n);
    }
  }
}

function fillVmcb12(page: Uint8Array): void {
  const view = new DataView(page.buffer);
  const at = offsets(SAVE_FIELDS, SAVE_AREA);
  const u32 = (offset: number, value: number) => view.setUint32(offset, value, true);
  const u64 = (offset: number, value: bigint) => view.setBigUint64(offset, value, true);
  u32(0x0c, 0x91000000); // HLT, MSR_PROT, SHUTDOWN
  u32(0x10, 0x3); // VMRUN, VMMCALL
  u64(0x40, BigInt(IOPM_GPA));
  u64(0x48, BigInt(MSRPM_GPA));
  u32(0x58, 1); // ASID
  const segment = (offset: number, selector: number, attrib: number, limit: number, base = 0n) => {
    view.setUint16(offset, selector, true);
    view.setUint16(offset + 2, attrib, true);
    u32(offset + 4, limit);
    u64(offset + 8, base);
  };
  segment(at.es_selector, 0x10, 0xc93, 0xffffffff);
  segment(at.cs_selector, 0x8, 0xa9b, 0xffffffff);
  segment(at.ss_selector, 0x10, 0xc93, 0xffffffff);
  segment(at.ds_selector, 0x10, 0xc93, 0xffffffff);
  segment(at.fs_selector, 0, 0xc93, 0xffffffff);
  segment(at.gs_selector, 0, 0xc93, 0xffffffff);
  segment(at.gdtr_selector, 0, 0, 0, 0x4000n);
  segment(at.ldtr_selector, 0, 0x82, 0);
  segment(at.idtr_selector, 0, 0, 0, 0x5000n);
  segment(at.tr_selector, 0x18, 0x8b, 0x67, 0x6000n);
  u64(at.efer, 0x1500n);
  u64(at.cr4, 0x20n);
  u64(at.cr3, BigInt(L2_TABLES));
  u64(at.cr0, 0x80000031n);
  u64(at.dr7, 0x400n);
  u64(at.dr6, 0xffff0ff0n);
  u64(at.rflags, 2n);
  u64(at.rip, BigInt(L2_CODE));
  u64(at.rsp, 0x7000n);
  u64(at.rax, 0x1234n);
  u64(at.g_pat, 0x0007040600070406n);
}

/**
 * Writes the base into memory: zeroes below {@linkcode FRESH_BELOW}, tables, code and vmcb12.
 *
 * @param memory Where to.
 * @param zeroed Whether memory is known to be all zeroes, so that only what is not need be written.
 * @example
 * ```ts
 * import { writeBase } from "@vmtape/vmtape/traces";
 * const seen: number[] = [];
 * writeBase({ write: (gpa) => seen.push(gpa) }, true);
 * if (!seen.includes(0x10000)) throw new Error();
 * ```
 */
export function writeBase(memory: MemoryWriter, zeroed = false): void {
  const base = basePages();
  const empty = new Uint8Array(VMCB_SIZE);
  if (!zeroed) {
    for (let gpa = 0; gpa < FRESH_BELOW; gpa += VMCB_SIZE) {
      memory.write(gpa, base.get(gpa) ?? empty);
    }
    return;
  }
  for (const [gpa, bytes] of base) memory.write(gpa, bytes);
}

/**
 * Writes what `entry=rsm` needs on top: an L2 that stops at a port write, and the SMI handler.
 *
 * @param memory Where to.
 * @example
 * ```ts
 * import { writeRsmCode } from "@vmtape/vmtape/traces";
 * const seen: number[] = [];
 * writeRsmCode({ write: (gpa) => seen.push(gpa) });
 * if (seen.join() !== `${0x9000},${0x38000}`) throw new Error();
 * ```
 */
export function writeRsmCode(memory: MemoryWriter): void {
  memory.write(L2_CODE, L2_RSM_BYTES);
  memory.write(SMM_CODE, SMM_BYTES);
}
