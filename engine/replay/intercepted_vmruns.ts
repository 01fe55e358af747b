/**
 * States of vCPUs at the #VMEXIT of L1's VMRUN: the hypervisor comes to it the same way each time, so
 * that a log's runs can begin there.
 *
 * @module
 */
import { type Entered, Vcpu } from "../kvm/vcpu.ts";
import { copyWords } from "../svm/copy_words.ts";
import type { Capabilities } from "../svm/machine.ts";
import type { FewPages } from "./few_pages.ts";

/** Hypervisors use a few vmcb12s and execute VMRUN at one place; the unknown is filled in in four ways. */
const MOST_KEPT = 16;

/** What such a state depends on. */
export interface Entry {
  /** What the processor and the hypervisor can do. */
  readonly caps: Capabilities;
  /** L1's registers, always the same bytes. */
  readonly regs: Uint8Array;
  /** Address after the VMRUN; undefined when it was not seen. */
  readonly rip: bigint | undefined;
  /** Guest physical address of vmcb12. */
  readonly gpa: bigint;
}

/** One of them. */
export interface Intercepted extends Entry {
  /** The vCPU; not to be changed. */
  readonly vcpu: Vcpu;
  /** How far the run was. */
  readonly entered: Entered;
  /** Numbers of pages of guest memory that have a part in it by being empty. */
  readonly empty: readonly number[];
}

/** Keeps such states, those that were asked for last. */
export class InterceptedVmruns {
  readonly #kept: Intercepted[] = [];

  /**
   * The state for an entry, if it is kept.
   *
   * @param entry The entry.
   * @param memory Guest memory.
   */
  find({ caps, regs, rip, gpa }: Entry, memory: FewPages): Intercepted | undefined {
    const kept = this.#kept;
    for (let i = 0; i < kept.length; i++) {
      const one = kept[i] as Intercepted;
      if (one.regs !== regs || one.caps !== caps || one.rip !== rip || one.gpa !== gpa) continue;
      if (one.empty.some((number) => memory.has(number))) continue;
      if (i > 0) {
        kept.splice(i, 1);
        kept.unshift(one);
      }
      return one;
    }
    return undefined;
  }

  /**
   * Keeps a vCPU's state.
   *
   * @param v The vCPU.
   * @param entry What it depends on.
   * @param entered How far the run is.
   * @param empty Numbers of pages of guest memory on which it depends, too: nothing was written to them.
   */
  keep(v: Vcpu, entry: Entry, entered: Entered, empty: Iterable<number>): void {
    const oldest = this.#kept.length < MOST_KEPT ? undefined : this.#kept.pop();
    const { caps } = v;
    const vcpu = oldest?.vcpu.caps === caps ? oldest.vcpu : new Vcpu(caps, v.policy);
    copyWords(vcpu.words, v.words);
    vcpu.adopt(v);
    this.#kept.unshift({ ...entry, vcpu, entered, empty: [...empty] });
  }
}
