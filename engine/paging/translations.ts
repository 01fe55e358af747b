/**
 * Translations that the processor made, for as long as walking the tables again
 * would give the same.
 *
 * A processor's own TLB may keep what the tables no longer say. This one does
 * not: it forgets everything when a register that a walk depends on changes, and
 * when a page is written that was read as a table.
 *
 * @module
 */
import type { Machine } from "../svm/machine.ts";
import type { GuestMemory } from "../svm/memory.ts";
import type { PagingRegisters } from "./paging.ts";
import { type Walk, WALK_OK } from "./walk.ts";

/** Entries, a power of two. */
const SIZE = 64;

/** What an entry is for: an access, and who makes it. */
function kindOf(access: number, who: number): number {
  return access << 2 | who;
}

/** The entry where a page's translation for such accesses would be. */
function slotOf(page: number, kind: number): number {
  return (page ^ kind << 2) & SIZE - 1;
}

/** What translating depends on beside the tables. */
export interface TranslationSource extends PagingRegisters {
  /** The machine whose tables they are. */
  readonly m: Machine;
}

/** Remembers where pages of linear addresses lead. */
export class Translations {
  /** Whether anything may be remembered: not while the hypervisor changes its own tables. */
  enabled = false;
  /** Entries of another epoch do not count. */
  #epoch = 1;
  #tableWrites = -1;
  #cr0 = 0;
  #cr3 = 0;
  #cr4 = 0;
  #efer = 0;
  readonly #epochs = new Int32Array(SIZE);
  readonly #pages = new Int32Array(SIZE);
  readonly #highs = new Int32Array(SIZE);
  readonly #kinds = new Int32Array(SIZE);
  readonly #found = new Float64Array(SIZE);

  /** Forgets everything: another vCPU runs, or the hypervisor did. */
  flush(memory: GuestMemory): void {
    this.#epoch++;
    memory.generation++;
  }

  /** Looks for a translation; fills `out` when there is one. */
  find(
    r: TranslationSource,
    lo: number,
    hi: number,
    access: number,
    who: number,
    out: Walk,
  ): boolean {
    if (
      r.m.memory.tableWrites !== this.#tableWrites || r.cr3 !== this.#cr3 || r.cr0 !== this.#cr0 ||
      r.cr4 !== this.#cr4 || r.efer !== this.#efer
    ) {
      this.#epoch++;
      return false;
    }
    const page = lo >>> 12;
    const kind = kindOf(access, who);
    const at = slotOf(page, kind);
    if (
      this.#epochs[at] !== this.#epoch || this.#pages[at] !== page ||
      this.#highs[at] !== (hi | 0) || this.#kinds[at] !== kind
    ) return false;
    out.outcome = WALK_OK;
    out.gpa = (this.#found[at] as number) + (lo & 0xfff);
    return true;
  }

  /** Remembers one that was made. */
  add(r: TranslationSource, lo: number, hi: number, access: number, who: number, out: Walk): void {
    if (!this.enabled) return;
    const { tableWrites } = r.m.memory;
    if (tableWrites !== this.#tableWrites) {
      // The walk itself marked entries as accessed: what else is known may be of those before.
      this.#epoch++;
      this.#tableWrites = tableWrites;
    }
    this.#cr0 = r.cr0;
    this.#cr3 = r.cr3;
    this.#cr4 = r.cr4;
    this.#efer = r.efer;
    const page = lo >>> 12;
    const kind = kindOf(access, who);
    const at = slotOf(page, kind);
    this.#epochs[at] = this.#epoch;
    this.#pages[at] = page;
    this.#highs[at] = hi | 0;
    this.#kinds[at] = kind;
    this.#found[at] = out.gpa - (lo & 0xfff);
  }
}
