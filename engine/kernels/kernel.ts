/**
 * What a kernel is: the checks it makes, what it caches of vmcb12, and the steps of every way.
 *
 * @module
 */
import type { CpuRules } from "../checks/cpu_rules.ts";
import type { CheckSet } from "../checks/check_set.ts";
import { fieldNamed } from "../image/fields.ts";
import type { Field } from "../layout.ts";
import { SAVE_AREA, VMCB_LAYOUT } from "../svm/vmcb_fields.ts";
import type { StepEntry, Way } from "../policy.ts";
import type { MmuTraits } from "./mmu_traits.ts";
import type { KernelTraits } from "./traits.ts";

/** The steps of each way, in order. */
export type Ways = Readonly<Record<Way, readonly StepEntry[]>>;

/** A hypervisor that carries out nested transitions; or hardware, which needs none to. */
export interface Kernel {
  /** Name, such as `linux-6.12`. */
  readonly name: string;
  /** What it is, in one line. */
  readonly doc: string;
  /** The consistency checks it makes. */
  readonly checks: CheckSet;
  /**
   * Fields of vmcb12 that it caches because its steps use them, as `control.NAME` and `save.NAME`.
   * What a check reads is cached as well, without being named here.
   */
  readonly uses: readonly string[];
  /** Which bits of CR4 and EFER it lets a guest have. */
  readonly reserves: CpuRules;
  /** What its MMU is like. */
  readonly mmu: MmuTraits;
  /** The steps of each way. */
  readonly ways: Ways;
  /** What it does beneath its steps. */
  readonly traits: KernelTraits;
}

/** Bytes that are copied together: where they begin in a VMCB, and how many. */
export interface CacheRange {
  /** Byte offset in the VMCB, a multiple of 4. */
  readonly at: number;
  /** Bytes, a multiple of 4. */
  readonly size: number;
}

/** What a kernel copies of vmcb12 before it checks and uses it. */
export interface CachePlan {
  /** The ranges of the control area. */
  readonly control: readonly CacheRange[];
  /** The ranges of the save area. */
  readonly save: readonly CacheRange[];
  /** Bytes of copied words of the control area that hold no field which is cached. */
  readonly gaps: readonly CacheGap[];
}

/** Bits of a word of the cache that stay clear. */
export interface CacheGap {
  /** Offset of the word in the VMCB. */
  readonly at: number;
  /** The bits. */
  readonly mask: number;
}

/** What is left of words that fields cover in part. */
function gapsOf(fields: Iterable<Field>): CacheGap[] {
  const left = new Map<number, number>();
  for (const { offset, size } of fields) {
    for (let at = offset; at < offset + size; at++) {
      const word = at & ~3;
      left.set(word, (left.get(word) ?? -1) & ~(0xff << 8 * (at & 3)));
    }
  }
  return [...left].filter(([, mask]) => mask !== 0).map(([at, mask]) => ({ at, mask }));
}

/** Ranges of whole words that hold fields, in order, those that touch made one. */
function rangesOf(fields: Iterable<Field>): CacheRange[] {
  const words = new Set<number>();
  for (const { offset, size } of fields) {
    for (let at = offset & ~3; at < offset + size; at += 4) words.add(at);
  }
  const ranges: { at: number; size: number }[] = [];
  for (const at of [...words].sort((a, b) => a - b)) {
    const last = ranges.at(-1);
    if (last !== undefined && last.at + last.size === at) last.size += 4;
    else ranges.push({ at, size: 4 });
  }
  return ranges;
}

const plans: WeakMap<Kernel, CachePlan> = new WeakMap();

/**
 * What a kernel caches of vmcb12: what its steps use and what its checks read. A check cannot read
 * what nobody cached.
 *
 * @param kernel The kernel.
 * @returns The ranges to copy.
 * @throws {RangeError} When a check reads, or the kernel uses, a field that the VMCB does not have.
 * @example
 * ```ts
 * import { cachePlan, KERNEL_6_12, S } from "@vmtape/vmtape/engine";
 * const covers = (at: number) =>
 *   cachePlan(KERNEL_6_12).save.some((range) => range.at <= at && at < range.at + range.size);
 * if (!covers(S.efer) || covers(S.rflags)) throw new Error();
 * ```
 */
export function cachePlan(kernel: Kernel): CachePlan {
  let plan = plans.get(kernel);
  if (plan === undefined) {
    const names = new Set(kernel.uses);
    for (const row of kernel.checks.checks) {
      // A check beside the areas' own is made where CR3 is loaded, from registers.
      if (row.group !== "cr3") { for (const name of row.reads) names.add(name); }
    }
    const fields = [...names].map((name) => fieldNamed(VMCB_LAYOUT, name));
    const control = fields.filter(({ offset }) => offset < SAVE_AREA);
    plan = {
      control: rangesOf(control),
      gaps: gapsOf(control),
      save: rangesOf(fields.filter(({ offset }) => offset >= SAVE_AREA)),
    };
    plans.set(kernel, plan);
  }
  return plan;
}
