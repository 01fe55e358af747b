/**
 * Replaying logs that show single transitions and no memory: what is known is
 * held against what a policy makes of it, and the rest stays unknown.
 *
 * @module
 */
import { mismatchOf, type MismatchValues } from "./agreement.ts";
import type { Image } from "../event.ts";
import { diffImages } from "../image/diff.ts";
import type { Vcpu } from "../kvm/vcpu.ts";
import type { Policy } from "../policy.ts";
import { CHECK_SETS } from "../checks/sets.ts";
import { builtIn } from "../steps/built_in.ts";
import { REGS_LAYOUT } from "../svm/regs_layout.ts";
import { VMCB_LAYOUT, VMCB_SIZE } from "../svm/vmcb_fields.ts";
import type { CheckVerdict, SetVerdict } from "../checks/verdict.ts";
import { VARIANTS } from "./fill_unknown.ts";
import {
  assumptionOf,
  evidenceOf,
  LoggedDriver,
  ranL2,
  type Reached,
  verdictOf,
} from "./logged_driver.ts";
import { checksAtRsm, type OrderClaim, Printed, type Prints, printsOf } from "./printed.ts";
import { contentOf } from "./logged_content.ts";
import { exitCodeOf, type LoggedRun } from "./logged_runs.ts";
import { OpenClaims } from "./open_claims.ts";
import {
  applyQuirks,
  dropInvalidEvent,
  leaveRegs,
  leaveVmcb12,
  strayInterrupt,
} from "./vmexit_defines.ts";
import { regsBytes } from "./views.ts";

/** What one set of checks says of a log's VMRUNs. */
export interface SetCount {
  /** How many pass, fail, or cannot be told. */
  readonly verdicts: Readonly<Record<CheckVerdict, number>>;
  /** What would have to be known of those that cannot be told, with how often. */
  readonly needs: ReadonlyMap<string, number>;
}

/** What was found in transitions that a log shows without memory. */
export interface PartialResult {
  /** How many. */
  readonly transitions: number;
  /** How many of them contradict nothing that was recorded. */
  readonly agreed: number;
  /** How many no state is known for that fits what was recorded, such as a check of another kernel. */
  readonly unexplained: number;
  /** What each set of checks says, with what the recorded kernel made of them. */
  readonly sets: ReadonlyMap<string, SetCount>;
  /** How many fail under every set of checks, pass under every one, and neither. */
  readonly all: Readonly<Record<CheckVerdict, number>>;
  /** How many of them are of RSM, and whether the policy checks vmcb12 there. */
  readonly rsm: { readonly transitions: number; readonly checks: boolean };
}

/** Where a replay and the recording contradict each other. */
export interface Contradiction {
  /** Number of the event. */
  readonly event: number;
  /** What differs. */
  readonly field: string;
  /** What was recorded. */
  readonly recorded: string;
  /** What the replay gives. */
  readonly replayed: string;
  /** Both as values, where they are those of a field of an image. */
  readonly values?: MismatchValues;
}

/** A contradiction in a logged run, wherever in the log that is. */
interface Found extends Omit<Contradiction, "event"> {
  /** Which event of the run it is about. */
  readonly at: "start" | "check" | "exit";
}

/** What each set of checks says. */
type Verdicts = readonly (readonly [string, SetVerdict])[];

/** What a logged run came to, and every one like it comes to. */
interface Kept {
  readonly verdicts: Verdicts;
  /** L2 ran and stopped. */
  readonly exited: boolean;
  /** No state is known that fits. */
  readonly unexplained: boolean;
  readonly prints: Prints | undefined;
  readonly found: readonly Found[];
  /** How many of them are not counted yet. */
  more: number;
}

function contradictionOf({ event, check, exit }: LoggedRun, { at, ...rest }: Found): Contradiction {
  const where = at === "check" ? check?.event : at === "exit" ? exit?.event : event;
  return { event: where ?? event, ...rest };
}

/** How many logged runs are remembered. */
const KEPT = 16_384;

// Several replays look at one run. Checks do not depend on what is only copied.
const verdicts = new Map<number, Verdicts>();

/** What each set of checks says of a logged run. */
function verdictsOf(unit: LoggedRun): Verdicts {
  const { entered } = contentOf(unit);
  let known = verdicts.get(entered);
  if (known === undefined) {
    if (verdicts.size >= KEPT) verdicts.clear();
    known = CHECK_SETS.map((set) => [set.name, verdictOf(unit, set)] as const);
    verdicts.set(entered, known);
  }
  return known;
}

const NONE = { passes: 0, fails: 0, unknown: 0 };

/** Replays logged runs under one policy. */
export class PartialReplayer {
  readonly #policy: Policy;
  readonly #driver: LoggedDriver;
  /** vmcb12 as each way of filling in leaves it. */
  readonly #pages: readonly Uint8Array[] = Array.from(
    { length: VARIANTS },
    () => new Uint8Array(VMCB_SIZE),
  );
  readonly #report: (found: Contradiction) => void;
  readonly #sets = new Map<
    string,
    { verdicts: Record<CheckVerdict, number>; needs: Map<string, number> }
  >();
  readonly #all: Record<CheckVerdict, number> = { ...NONE };
  /** What logged runs came to, by their content: those like them need not be carried out again. */
  readonly #kept = new Map<number, Kept>();
  /** Whether it is known of the policy what it goes by. */
  readonly #builtIn: boolean;
  readonly #each: boolean;
  /** What the order of events says against the policy, once the log is known to show so much. */
  readonly #claims = new OpenClaims((claim, clean) => this.#claimed(claim, clean));
  #prints: Prints | undefined;
  #explained = true;
  #exited = false;
  readonly #checksAtRsm: boolean;
  #rsm = 0;
  /** Logged runs that were carried out: those that none before was like. */
  carriedOut = 0;
  #transitions = 0;
  #agreed = 0;
  #unexplained = 0;

  /**
   * Begins with nothing counted.
   *
   * @param policy The policy.
   * @param report Receives every contradiction.
   * @param each Whether every logged run is carried out, though one before was like it.
   */
  constructor(policy: Policy, report: (found: Contradiction) => void, each = false) {
    this.#policy = policy;
    this.#report = report;
    this.#driver = new LoggedDriver(policy, 0);
    this.#checksAtRsm = checksAtRsm(policy);
    this.#builtIn = builtIn(policy);
    this.#each = each;
  }

  /**
   * Takes one logged run.
   *
   * @param run The run.
   * @returns Whether nothing contradicts it, nor any with the same `LoggedContent.entered`.
   */
  take(unit: LoggedRun): boolean {
    this.#transitions++;
    if (unit.way === "rsm") this.#rsm++;
    const kept = this.#keptOf(unit);
    kept.more++;
    if (kept.unexplained) this.#unexplained++;
    for (const found of kept.found) this.#report(contradictionOf(unit, found));
    const clean = kept.found.length === 0;
    if (clean) this.#agreed++;
    this.#claims.add(unit, kept.prints, clean);
    return clean && kept.exited && this.#builtIn;
  }

  #keptOf(unit: LoggedRun): Kept {
    if (this.#each) {
      const kept = this.#carryOut(unit);
      this.#count(kept.verdicts, 1);
      return kept;
    }
    const content = contentOf(unit);
    const known = this.#builtIn
      ? this.#kept.get(content.entered) ?? this.#kept.get(content.refused)
      : this.#kept.get(content.all);
    if (known !== undefined) return known;
    if (this.#kept.size >= KEPT) {
      this.#countKept();
      this.#kept.clear();
    }
    const kept = this.#carryOut(unit);
    const { entered, refused, all } = content;
    this.#kept.set(!this.#builtIn ? all : kept.exited ? entered : refused, kept);
    return kept;
  }

  #carryOut(unit: LoggedRun): Kept {
    this.carriedOut++;
    this.#prints = undefined;
    this.#explained = true;
    this.#exited = false;
    const found = [...this.#contradictions(unit)];
    return {
      verdicts: verdictsOf(unit),
      unexplained: !this.#explained,
      exited: this.#exited,
      prints: this.#prints,
      found,
      more: 0,
    };
  }

  /** Something that the order of events says against the policy is certain. */
  #claimed({ event, field, recorded, replayed }: OrderClaim, clean: boolean): void {
    if (clean) this.#agreed--;
    this.#report({ event, field, recorded, replayed });
  }

  /** What was found; undefined when there was nothing to look at. */
  finish(): PartialResult | undefined {
    if (this.#transitions === 0) return undefined;
    this.#claims.finish();
    this.#countKept();
    return {
      transitions: this.#transitions,
      agreed: this.#agreed,
      unexplained: this.#unexplained,
      sets: this.#sets,
      all: this.#all,
      rsm: { transitions: this.#rsm, checks: this.#checksAtRsm },
    };
  }

  #countKept(): void {
    for (const kept of this.#kept.values()) {
      this.#count(kept.verdicts, kept.more);
      kept.more = 0;
    }
  }

  #count(verdicts: Verdicts, times: number): void {
    let every: CheckVerdict | undefined;
    for (const [set, { verdict, needs }] of verdicts) {
      let row = this.#sets.get(set);
      if (row === undefined) {
        this.#sets.set(set, row = { verdicts: { ...NONE }, needs: new Map() });
      }
      row.verdicts[verdict] += times;
      for (const name of needs) row.needs.set(name, (row.needs.get(name) ?? 0) + times);
      every = every === undefined || every === verdict ? verdict : "unknown";
    }
    this.#all[every ?? "unknown"] += times;
  }

  *#contradictions(unit: LoggedRun): Generator<Found> {
    if (unit.way === "rsm") {
      yield* this.#resumed(unit);
      return;
    }
    yield* this.#checks(unit);
    const watch = unit.kvm && unit.check !== undefined;
    const printed: Printed[] = [], results: Reached[] = [], left: Uint8Array[] = [];
    const driver = this.#driver;
    for (let i = 0; i < VARIANTS; i++) {
      const state = assumptionOf(unit, i);
      if (state === undefined) {
        this.#explained = false;
        return;
      }
      printed.push(new Printed());
      driver.observer = watch ? printed[i] : undefined;
      results.push(driver.runFrom(unit, state));
      const vcpu = driver.vcpu as Vcpu;
      this.#pages[i]!.set(vcpu.memory.page(driver.vmcb12));
      if (unit.exit?.regs !== undefined) left.push(regsBytes(vcpu));
    }
    if (watch && results.every((progress) => progress === "refused")) {
      this.#prints = printsOf(printed);
    }
    const { exit } = unit;
    const [progress] = results;
    this.#exited = results.every((one) => one === "exited");
    if (exit === undefined || results.some((other) => other !== progress)) return;
    if (progress === "entered") {
      const recorded = "VMRUN refused";
      yield { at: "exit", field: "exit", recorded, replayed: "L2 runs" };
      return;
    }
    const at = "exit";
    const stray = strayInterrupt(unit);
    if (stray !== undefined) {
      const field = "exit.vmcb12 control.exit_int_info";
      const recorded = `interrupt 0x${stray.toString(16)} was delivered to L2`;
      yield { at, field, recorded, replayed: "L1 intercepts interrupts, and injected no such" };
    }
    if (exit.vmcb12 !== undefined) {
      const vmcb12 = agreeing(this.#pages, exit.vmcb12.knownWords);
      if (progress === "exited") leaveVmcb12(unit, vmcb12);
      applyQuirks(unit, progress === "refused", vmcb12);
      dropInvalidEvent(exit.vmcb12, vmcb12);
      for (const row of diffImages(VMCB_LAYOUT, exit.vmcb12, vmcb12, { onlyKnown: true })) {
        const field = `exit.vmcb12 ${row.field}`;
        yield { at, field, ...mismatchOf(row) };
      }
    }
    if (exit.regs !== undefined) {
      const regs = agreeing(left);
      if (progress === "exited") leaveRegs(unit, regs);
      for (const row of diffImages(REGS_LAYOUT, exit.regs, regs, { onlyKnown: true })) {
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
      const { verdict, check: failed } = verdictOf(unit, this.#policy.kernel.checks, true);
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
    const { verdict, check } = verdictOf(unit, this.#policy.kernel.checks, true);
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
