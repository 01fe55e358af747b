/**
 * The processor's own walk of page tables. It does not allocate.
 *
 * @module
 */
import type { GuestMemory } from "../svm/memory.ts";
import {
  accessError,
  allowed,
  fail,
  PF,
  setBits,
  type Stage2,
  type Walk,
  WALK_OK,
  type WalkMode,
  word,
  WRITE,
} from "./walk.ts";

const HIGH = 0x1_0000_0000;

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
