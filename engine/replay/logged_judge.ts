/**
 * Holding what a log shows of single transitions against what a policy makes of them. What is unknown
 * is filled in in several ways: only what comes out the same in each is said of the policy.
 *
 * @module
 */
import { mismatchOf, type MismatchValues } from "./agreement.ts";
import type { Image } from "../event.ts";
import { diffImages } from "../image/diff.ts";
import type { Vcpu } from "../kvm/vcpu.ts";
import type { Policy } from "../policy.ts";
import { builtIn } from "../steps/built_in.ts";
import { ImageBuffer } from "../svm/image_buffer.ts";
import { wordAt } from "../svm/page_word.ts";
import { REGS_LAYOUT } from "../svm/regs_layout.ts";
import { VMCB_LAYOUT, VMCB_SIZE } from "../svm/vmcb_fields.ts";
import { VARIANTS } from "./fill_unknown.ts";
import {
  assumptionOf,
  evidenceOf,
  LoggedDriver,
  ranL2,
  type Reached,
  seenOutcome,
} from "./logged_driver.ts";
import { exitCodeOf, type LoggedRun } from "./logged_runs.ts";
import { checksAtRsm, Printed, type Prints, printsOf } from "./printed.ts";
import { type StepTrail, StepTrailer } from "./step_trail.ts";
import {
  applyQuirks,
  comparedOfVmcb12,
  dropInvalidEvent,
  keptOfRegs,
  leaveRegs,
  leaveVmcb12,
  strayInterrupt,
  withQuirks,
} from "./vmexit_defines.ts";
import { regsBytes } from "./views.ts";

/** A contradiction in a logged run, wherever in the log that is. */
export interface Found {
  /** Which event of the run it is about. */
  readonly at: "start" | "check" | "exit";
  /** What differs. */
  readonly field: string;
  /** What was recorded. */
  readonly recorded: string;
  /** What the replay gives. */
  readonly replayed: string;
  /** Both as values, where they are those of a field of an image. */
  readonly values?: MismatchValues;
}

/** What a logged run came to under a policy. */
export interface Judgment {
  /** L2 ran and stopped, or what is said does not depend on it. */
  readonly exited: boolean;
  /** No state is known that fits. */
  readonly unexplained: boolean;
  /** What the policy prints of it, where its checks fail. */
  readonly prints: Prints | undefined;
  /** Whether that is what each way of filling in prints; else it is what the first one does. */
  readonly certain: boolean;
  /** What contradicts it. */
  readonly found: readonly Found[];
  /** Whether the first way of filling in leaves what the #VMEXIT shows. */
  readonly fits: boolean;
  /** The steps of each way of filling in that was tried, where they are noted and are all that it depends on. */
  readonly trails: readonly StepTrail[] | undefined;
}

/** What a judge does beside judging. */
export interface JudgeOptions {
  /** It tries every way of filling in, though the first one contradicts nothing. */
  readonly whole?: boolean;
  /** It notes the steps. */
  readonly trails?: boolean;
}

/** Judges logged runs under one policy. */
export class LoggedJudge {
  /** Whether it is known of the policy what it goes by. */
  readonly builtIn: boolean;
  readonly #policy: Policy;
  readonly #driver: LoggedDriver;
  readonly #whole: boolean;
  readonly #trails: boolean;
  readonly #checksAtRsm: boolean;
  /** The run that was looked at last. */
  #unit: LoggedRun | undefined;
  /** What came of each way of filling in that was tried: how far, what is left, and what was printed. */
  readonly #results: Reached[] = [];
  readonly #pages: readonly Uint8Array[] = Array.from(
    { length: VARIANTS },
    () => new Uint8Array(VMCB_SIZE),
  );
  readonly #left: Uint8Array[] = [];
  readonly #regs: ImageBuffer[] = [];
  readonly #printed: (Printed | StepTrailer)[] = [];

  /**
   * @param policy The policy.
   * @param options What it does beside judging.
   */
  constructor(policy: Policy, { whole = false, trails = false }: JudgeOptions = {}) {
    this.#policy = policy;
    this.#driver = new LoggedDriver(policy, 0);
    this.builtIn = builtIn(policy);
    this.#whole = whole || !this.builtIn;
    this.#trails = trails && this.builtIn;
    this.#checksAtRsm = checksAtRsm(policy);
  }

  /**
   * Judges one logged run.
   *
   * What is said against a policy holds for every way of filling in. So where the first way
   * contradicts nothing, the others have no say.
   *
   * @param unit The run.
   */
  judge(unit: LoggedRun): Judgment {
    if (unit.way === "rsm") {
      return {
        exited: false,
        unexplained: false,
        prints: undefined,
        certain: true,
        found: [...this.#resumed(unit)],
        fits: false,
        trails: undefined,
      };
    }
    const found = [...this.#checks(unit)];
    this.#begin(unit);
    return (this.#whole ? undefined : this.#judgeFirst(unit, found)) ?? this.#judgeAll(unit, found);
  }

  /**
   * Makes it certain what the policy prints of a run whose checks fail: what each way of filling in
   * the unknown prints.
   *
   * @param unit The run.
   * @param judgment What was judged of it.
   */
  settle(unit: LoggedRun, judgment: Judgment): Judgment {
    this.#begin(unit);
    const prints = this.#tryAll(unit) ? this.#prints(unit) : undefined;
    return { ...judgment, prints, certain: true, trails: this.#trailed() };
  }

  /** Nothing was tried of a run yet, unless it was looked at last. */
  #begin(unit: LoggedRun): void {
    if (unit === this.#unit) return;
    this.#unit = unit;
    this.#results.length = this.#left.length = this.#printed.length = 0;
  }

  /** Judges a run by the first way alone; undefined where that does not do. */
  #judgeFirst(unit: LoggedRun, found: readonly Found[]): Judgment | undefined {
    if (this.#results.length === 0 && !this.#try(unit, 0)) return undefined;
    const [progress] = this.#results as [Reached];
    if (unit.exit !== undefined && !this.#fits(unit, progress)) return undefined;
    const prints = this.#prints(unit);
    return {
      exited: progress === "exited",
      unexplained: false,
      prints,
      certain: prints === undefined,
      found,
      fits: unit.exit !== undefined,
      trails: this.#trailed(),
    };
  }

  /** Whether the first way leaves what the recorded #VMEXIT shows. */
  #fits(unit: LoggedRun, progress: Reached): boolean {
    const [page] = this.#pages as [Uint8Array];
    const { vmcb12, regs } = unit.exit!;
    const ran = progress === "exited";
    // What the quirks make unknown is asked for here, which is stricter.
    const now = progress === "entered" || strayInterrupt(unit) !== undefined
      ? undefined
      : withQuirks(unit, page);
    const same = now !== undefined &&
      (vmcb12 === undefined || shows(vmcb12, now, comparedOfVmcb12(unit, ran, vmcb12, now))) &&
      (regs === undefined || shows(regs, this.#left[0]!, ran ? keptOfRegs(unit) : undefined));
    return same || this.#exit(unit, progress, [page], this.#left).next().done === true;
  }

  /** Judges a run by all ways. */
  #judgeAll(unit: LoggedRun, found: Found[]): Judgment {
    if (!this.#tryAll(unit)) return { ...UNEXPLAINED, found, trails: this.#trailed() };
    const results = this.#results;
    const [progress] = results as [Reached];
    const alike = results.every((one) => one === progress);
    if (alike && unit.exit !== undefined) {
      found.push(...this.#exit(unit, progress, this.#pages, this.#left));
    }
    const exited = alike && progress === "exited";
    const prints = this.#prints(unit), trails = this.#trailed();
    return { exited, unexplained: false, prints, certain: true, found, fits: false, trails };
  }

  /** Carries a run out in the ways of filling in that were not tried; whether a state is known for each. */
  #tryAll(unit: LoggedRun): boolean {
    for (let i = this.#results.length; i < VARIANTS; i++) if (!this.#try(unit, i)) return false;
    return true;
  }

  /** Carries a run out in one way of filling in; whether a state is known. */
  #try(unit: LoggedRun, variant: number): boolean {
    const state = assumptionOf(unit, variant);
    if (state === undefined) return false;
    const driver = this.#driver;
    driver.observer = undefined;
    const observer = this.#trails ? new StepTrailer() : watched(unit) ? new Printed() : undefined;
    if (observer !== undefined) this.#printed.push(driver.observer = observer);
    this.#results.push(driver.runFrom(unit, state, unit.exit?.regs === undefined));
    const vcpu = driver.vcpu as Vcpu;
    this.#pages[variant]!.set(vcpu.memory.page(driver.vmcb12));
    if (unit.exit?.regs !== undefined) {
      const into = this.#regs[variant] ??= new ImageBuffer(REGS_LAYOUT.size);
      this.#left.push(regsBytes(vcpu, into));
    }
    return true;
  }

  /** The steps of the ways that were tried, where they are noted. */
  #trailed(): readonly StepTrail[] | undefined {
    if (!this.#trails) return undefined;
    return this.#printed.flatMap((one) => one instanceof StepTrailer ? [one.trail()] : []);
  }

  /** What was printed in the ways that were tried, where the checks failed in each. */
  #prints(unit: LoggedRun): Prints | undefined {
    const refused = watched(unit) && this.#results.every((progress) => progress === "refused");
    return refused ? printsOf(this.#printed) : undefined;
  }

  /**
   * What the recorded #VMEXIT contradicts.
   *
   * @param unit The run.
   * @param progress How far it came, in each way of filling in alike.
   * @param pages vmcb12 as each of them leaves it.
   * @param left L1's registers as each of them leaves them, where the #VMEXIT shows them.
   */
  *#exit(
    unit: LoggedRun,
    progress: Reached,
    pages: readonly Uint8Array[],
    left: readonly Uint8Array[],
  ): Generator<Found> {
    const at = "exit";
    if (progress === "entered") {
      yield { at, field: "exit", recorded: "VMRUN refused", replayed: "L2 runs" };
      return;
    }
    const stray = strayInterrupt(unit);
    if (stray !== undefined) {
      const field = "exit.vmcb12 control.exit_int_info";
      const recorded = `interrupt 0x${stray.toString(16)} was delivered to L2`;
      yield { at, field, recorded, replayed: "L1 intercepts interrupts, and injected no such" };
    }
    const { vmcb12: seen, regs: seenRegs } = unit.exit!;
    if (seen !== undefined) {
      const vmcb12 = agreeing(pages, seen.knownWords);
      if (progress === "exited") leaveVmcb12(unit, vmcb12);
      applyQuirks(unit, progress === "refused", vmcb12);
      dropInvalidEvent(seen, vmcb12);
      for (const row of diffImages(VMCB_LAYOUT, seen, vmcb12, { onlyKnown: true })) {
        yield { at, field: `exit.vmcb12 ${row.field}`, ...mismatchOf(row) };
      }
    }
    if (seenRegs !== undefined) {
      const regs = agreeing(left);
      if (progress === "exited") leaveRegs(unit, regs);
      for (const row of diffImages(REGS_LAYOUT, seenRegs, regs, { onlyKnown: true })) {
        yield { at, field: `exit.${row.field}`, ...mismatchOf(row) };
      }
    }
  }

  /** An entry by RSM: the policy checks vmcb12 there, or it does not. */
  *#resumed(unit: LoggedRun): Generator<Found> {
    const { check } = unit;
    const field = "rsm";
    if (check !== undefined && !this.#checksAtRsm) {
      const recorded = `check failed: ${check.text}`;
      yield { at: "check", field, recorded, replayed: "vmcb12 is not checked, and L2 runs" };
    } else if (check !== undefined && unit.exit !== undefined) {
      const recorded = "L1 received a #VMEXIT";
      yield { at: "exit", field, recorded, replayed: "the vCPU shuts down" };
    } else if (check === undefined && ranL2(unit) && this.#checksAtRsm) {
      const { verdict, check: failed } = seenOutcome(unit, this.#policy.kernel.checks);
      if (verdict !== "fails") return;
      const replayed = `check failed: ${failed}, and the vCPU shuts down`;
      yield { at: "start", field, recorded: "L2 ran", replayed };
    }
  }

  /** Whether the bits that were seen contradict what the recorded side made of them. */
  *#checks(unit: LoggedRun): Generator<Found> {
    const refused = unit.check !== undefined ||
      exitCodeOf(unit) === 0xffffffff;
    if (!refused && !ranL2(unit)) return;
    const { verdict, check } = seenOutcome(unit, this.#policy.kernel.checks);
    const at = unit.check ? "check" : unit.exit ? "exit" : "start";
    const recorded = refused
      ? `check failed: ${unit.check?.text ?? "not recorded which"}`
      : "L2 ran";
    const unreadable = evidenceOf(unit).unreadable === true;
    if (refused && verdict === "passes" && !unreadable) {
      yield { at, field: "check", recorded, replayed: "all checks pass" };
    } else if (!refused && verdict === "fails") {
      yield { at, field: "check", recorded, replayed: `check failed: ${check}` };
    } else if (verdict === "fails" && unit.check?.id !== undefined && check !== unit.check.id) {
      const order = this.#policy.kernel.checks.checks.map((row) => row.id);
      if (order.indexOf(check ?? "") < order.indexOf(unit.check.id)) {
        yield { at, field: "check", recorded, replayed: `check failed: ${check}` };
      }
    }
  }
}

/** What is said of a run for which no state is known that fits. */
const UNEXPLAINED = {
  exited: false,
  unexplained: true,
  prints: undefined,
  certain: true,
  fits: false,
} as const;

/** Whether it counts what a policy prints of a run. */
function watched({ kvm, check }: LoggedRun): boolean {
  return kvm && check !== undefined;
}

/** Whether an image is, in all that is known of another but for bits that are none of `kept`, like that. */
function shows(seen: Image, now: Uint8Array, kept: Uint8Array | undefined): boolean {
  const { bytes, known, knownWords } = seen;
  if (bytes.length !== now.length || bytes.length % 4 !== 0) return false;
  if (known === undefined || knownWords === undefined) {
    for (let at = 0; at < bytes.length; at += 4) {
      if (differs(bytes, now, at, known, kept)) return false;
    }
    return true;
  }
  for (let i = 0; i < knownWords.length; i++) {
    if (differs(bytes, now, 4 * (knownWords[i] as number), known, kept)) return false;
  }
  return true;
}

/** Whether a word of two images is another in the bits that count. */
function differs(
  a: Uint8Array,
  b: Uint8Array,
  at: number,
  known: Uint8Array | undefined,
  kept: Uint8Array | undefined,
): boolean {
  let apart = wordAt(a, at) ^ wordAt(b, at);
  if (apart === 0) return false;
  if (known !== undefined) apart &= wordAt(known, at);
  if (kept !== undefined) apart &= wordAt(kept, at);
  return apart !== 0;
}

/**
 * What several images agree in; the rest of them is unknown.
 *
 * @param images The images, of one length.
 * @param words Numbers of the 32-bit words that are asked for; of others nothing is said. All when left out.
 */
export function agreeing(images: readonly Uint8Array[], words?: Uint16Array): Image {
  const [first = new Uint8Array(0), ...others] = images;
  const { length } = first;
  const bytes = new Uint8Array(length), known = new Uint8Array(length);
  const agree = (from: number, to: number) => {
    for (let i = from; i < to; i++) {
      let apart = 0;
      for (const other of others) apart |= first[i]! ^ other[i]!;
      known[i] = ~apart & 0xff;
      bytes[i] = first[i]! & ~apart;
    }
  };
  if (words === undefined) agree(0, length);
  else for (const word of words) agree(4 * word, Math.min(4 * word + 4, length));
  return { bytes, known };
}
