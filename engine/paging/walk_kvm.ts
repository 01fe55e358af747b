/**
 * KVM's software walk of a guest's page tables (paging_tmpl.h). It does not
 * allocate.
 *
 * @module
 */
import type { GuestMemory } from "../svm/memory.ts";
import {
  accessError,
  allowed,
  fail,
  PF,
  READ,
  setBits,
  type Stage2,
  type Walk,
  WALK_OK,
  WALK_STAGE2,
  type WalkMode,
  word,
  WRITE,
} from "./walk.ts";

const HIGH = 0x1_0000_0000;

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
