/**
 * Carrying out single transitions of a log that shows no memory: VMRUN as the
 * hypervisor handles it, then the #VMEXIT that L1 received.
 *
 * @module
 */
import type { Image } from "../event.ts";
import { fitImage, knownWordsOf, overlayImage } from "../image/fields.ts";
import { EXIT } from "../kvm/constants.ts";
import { createVcpu } from "../kvm/ioctls.ts";
import { goOnFromExit, runVcpu } from "../kvm/run.ts";
import { type Observer, Vcpu } from "../kvm/vcpu.ts";
import type { Policy } from "../policy.ts";
import { featuresOf, RULES_7_3 } from "../checks/cpu_rules.ts";
import { CHECKS_6_12 } from "../checks/linux_6_12.ts";
import { type Check, checkById, type CheckSet } from "../checks/sets.ts";
import { type Feature, LAB_CPUID } from "../svm/cpuid.ts";
import { copyWords } from "../svm/copy_words.ts";
import { C, type Capabilities, S, V, VMCB01_AT, VMCB02_AT } from "../svm/machine.ts";
import { PAGE_SIZE } from "../svm/memory.ts";
import { REGS_FIELDS } from "../svm/regs_layout.ts";
import {
  type Evidence,
  type SetOutcome,
  setOutcome,
  type SetVerdict,
  setVerdict,
} from "../checks/verdict.ts";
import { VMCB_LAYOUT, VMCB_SIZE } from "../svm/vmcb_fields.ts";
import { offsets } from "../layout.ts";
import {
  assume,
  type Assumption,
  LEFT_BITS,
  LEFT_WORDS,
  refill,
  sharedRegs,
} from "./fill_unknown.ts";
import { AskedPages, FewPages } from "./few_pages.ts";
import { type Entry, InterceptedVmruns } from "./intercepted_vmruns.ts";
import { loadRegs, writePage } from "./load_regs.ts";
import { exitCodeOf, type LoggedRun } from "./logged_runs.ts";

/** The checks of the kernels whose logs show failed checks. */
const RECORDED: readonly Check[] = CHECKS_6_12.checks;

const R = offsets(REGS_FIELDS);
/** Bytes of a VMRUN instruction. */
const VMRUN_LENGTH = 3n;
/** Exit code of a VMRUN that was refused, low half. */
const INVALID = 0xffffffff;
/** Where vmcb12 is put when the log does not say where it was. */
const SOMEWHERE = 0x10000n;
/** The machine's own tables need to know little memory: no guest code runs. */
const SMALL = 1 << 20;

/** Whether the log shows that L2 ran. */
export function ranL2(unit: LoggedRun): boolean {
  if (unit.check !== undefined) return false;
  const code = exitCodeOf(unit);
  return unit.stopped || code !== undefined && code !== INVALID;
}

/** What a log says of the checks themselves. */
export function evidenceOf(unit: LoggedRun): Evidence {
  if (!unit.kvm) return {};
  if (unit.check !== undefined) {
    const { id } = unit.check;
    const at = RECORDED.findIndex((check) => check.id === id);
    return { passed: passedBefore(Math.max(0, at)), failed: failedOf(unit) };
  }
  const all = RECORDED.length;
  if (exitCodeOf(unit) === INVALID) return { passed: passedBefore(all), unreadable: true };
  return ranL2(unit) ? { passed: passedBefore(all) } : {};
}

/** Id of the check that failed, or its text; undefined where none did. */
function failedOf({ kvm, check }: LoggedRun): string | undefined {
  return kvm ? check?.id ?? check?.text : undefined;
}

/** Ids of the checks before one of {@linkcode RECORDED}, by its place. */
const before: ReadonlySet<string>[] = [];

function passedBefore(at: number): ReadonlySet<string> {
  return before[at] ??= new Set(RECORDED.slice(0, at).map((check) => check.id));
}

/**
 * What a set of checks says of a logged run's vmcb12, with what the recorded kernel made of them.
 *
 * @param unit The logged run.
 * @param set The set.
 */
export function verdictOf(unit: LoggedRun, set: CheckSet): SetVerdict {
  let ofRun = verdicts.get(unit);
  if (ofRun === undefined) verdicts.set(unit, ofRun = new Map());
  let verdict = ofRun.get(set);
  if (verdict === undefined) {
    verdict = setVerdict(ofVmrun(set), unit.caps, unit.vmcb12, evidenceOf(unit));
    ofRun.set(set, verdict);
  }
  return verdict;
}

// Several replays look at one run.
const verdicts = new WeakMap<LoggedRun, Map<CheckSet, SetVerdict>>();

/**
 * What a set of checks says of the bits alone that were seen of a logged run's vmcb12.
 *
 * @param unit The logged run.
 * @param set The set.
 */
export function seenOutcome(unit: LoggedRun, set: CheckSet): SetOutcome {
  let ofRun = outcomes.get(unit);
  if (ofRun === undefined) outcomes.set(unit, ofRun = new Map());
  let outcome = ofRun.get(set);
  if (outcome === undefined) {
    ofRun.set(set, outcome = setOutcome(ofVmrun(set), unit.caps, unit.vmcb12));
  }
  return outcome;
}

const outcomes = new WeakMap<LoggedRun, Map<CheckSet, SetOutcome>>();

/** The checks of a set that VMRUN makes. */
function ofVmrun(set: CheckSet): readonly Check[] {
  let checks = checksOfVmrun.get(set);
  if (checks === undefined) {
    checksOfVmrun.set(set, checks = set.checks.filter((check) => check.restore !== true));
  }
  return checks;
}

const checksOfVmrun = new WeakMap<CheckSet, readonly Check[]>();

/**
 * A complete state that fits what a logged run shows.
 *
 * @param unit The logged run.
 * @param variant In which way the unknown is filled in.
 * @returns The state, or undefined when none is known.
 */
export function assumptionOf(unit: LoggedRun, variant: number): Assumption | undefined {
  // What L1 and its handler of SMIs left behind is not in a log.
  if (unit.way === "rsm") return undefined;
  let known = assumptions.get(unit);
  if (known === undefined) assumptions.set(unit, known = []);
  const { vmcb12, regs } = unit;
  if (!(0 in known)) known[0] = assume(RECORDED, unit.caps, vmcb12, regs, evidenceOf(unit), 0);
  const [first] = known;
  return known[variant] ??= first && refill(first, vmcb12, regs, variant);
}

// What was recorded decides, not a policy; several may look at one run.
const assumptions = new WeakMap<LoggedRun, (Assumption | undefined)[]>();

/** Features that decide about bits of CR4 and EFER. */
const OF_REGISTERS: readonly Feature[] = featuresOf([...RULES_7_3.cr4, ...RULES_7_3.efer]);

/**
 * A machine that fits what a logged run shows of L1's processor. Of what is unknown it has what CR4 and
 * EFER may need, unless the kernel refused one of them, and for the rest what the lab's machine has.
 */
function assumedCaps(unit: LoggedRun): Capabilities {
  const { caps } = unit;
  const check = failedOf(unit);
  const failed = check !== undefined && checkById(check)?.cpuid !== undefined;
  const known = failed ? assumedRefused : assumedPassed;
  let assumed = known.get(caps);
  if (assumed === undefined) known.set(caps, assumed = assumeCaps(caps, failed));
  return assumed;
}

const assumedRefused = new WeakMap<Capabilities, Capabilities>();
const assumedPassed = new WeakMap<Capabilities, Capabilities>();

function assumeCaps(caps: Capabilities, failed: boolean): Capabilities {
  if (caps.cpuid === undefined || caps.cpuid.whole) return { ...caps, memory: SMALL };
  let cpuid = caps.cpuid.withPhysicalBits(caps.physicalBits);
  for (const name of OF_REGISTERS) {
    if (!failed && !cpuid.knows(name)) cpuid = cpuid.set(name, name !== "lmsle_mbz");
  }
  return { ...caps, memory: SMALL, cpuid: cpuid.over(LAB_CPUID) };
}

/** Where a logged run's vmcb12 lies: where it was seen, or somewhere. */
export function vmcb12Of(unit: LoggedRun): bigint {
  return unit.vmcb12Gpa ?? SOMEWHERE;
}

/** How far a transition came. */
export type Reached =
  /** L1 has a #VMEXIT or an exception, and L2 never ran. */
  | "refused"
  /** L2 would run; the log does not show what it does. */
  | "entered"
  /** L2 ran, and L1 has its #VMEXIT. */
  | "exited";

/** Carries out logged runs under one policy. */
export class LoggedDriver {
  /** The policy. */
  readonly policy: Policy;
  /** In which way the unknown is filled in. */
  readonly variant: number;
  /** The vCPU, as the last logged run left it. */
  vcpu: Vcpu | undefined;
  /** Address of the last logged run's vmcb12. */
  vmcb12 = 0;
  /** Who listens to the vCPU while it runs. */
  observer: Observer | undefined;
  /** A vCPU that was created and did nothing yet. */
  #created: Vcpu | undefined;
  /** States at which runs begin. */
  readonly #intercepted = new InterceptedVmruns();
  /** vCPUs that nobody needs any more. */
  readonly #spare: Vcpu[] = [];

  /**
   * @param policy The policy.
   * @param variant In which way the unknown is filled in, below `VARIANTS`.
   */
  constructor(policy: Policy, variant: number) {
    this.policy = policy;
    this.variant = variant;
  }

  /**
   * Carries out one logged run, from a state of its own.
   *
   * @param unit The logged run.
   * @returns How far it came, or undefined when nothing is known that fits what was recorded.
   */
  run(unit: LoggedRun): Reached | undefined {
    const state = assumptionOf(unit, this.variant);
    return state === undefined ? undefined : this.runFrom(unit, state);
  }

  /**
   * Carries out one logged run.
   *
   * @param unit The logged run.
   * @param state The state to begin with.
   * @param toExit Whether it ends with L1's #VMEXIT: guest memory is as it is when the hypervisor has
   * gone on to enter L1, the vCPU is not.
   * @returns How far it came.
   */
  runFrom(unit: LoggedRun, state: Assumption, toExit = false): Reached {
    const gpa = vmcb12Of(unit);
    const caps = assumedCaps(unit);
    // L1's registers that were seen are others most of the time.
    const entry = sharedRegs(state.regs)
      ? { caps, regs: state.regs, rip: unit.rip, gpa }
      : undefined;
    const v = this.#fresh(caps), memory = v.memory as FewPages;
    this.vmcb12 = Number(gpa & ~0xfffn);
    if (unit.check?.id === "pdptrs") badPdptes(v, state);
    for (const [at, page] of unit.memory) writePage(v, at, page);
    if (v.memory.backed(this.vmcb12, PAGE_SIZE)) {
      writePage(v, this.vmcb12, { bytes: state.vmcb12 });
    }
    const known = entry && this.#intercepted.find(entry, memory);
    const from = known?.vcpu ?? this.#created as Vcpu;
    copyWords(v.words, from.words);
    v.adopt(from);
    let progress: Reached = "refused";
    const stopped = () => {
      if (!v.guestMode) return "stop";
      progress = "entered";
      if (!ranL2(unit) || unit.exit === undefined) return "stop";
      progress = "exited";
      leaveExit(v, unit, state);
      return toExit ? "last" : "l1";
    };
    if (known === undefined) {
      this.#toVmrun(v, unit, state, entry, stopped);
      runVcpu(v);
    } else {
      v.standIn = stopped;
      v.observer = this.observer;
      goOnFromExit(v, known.entered);
    }
    v.observer = undefined;
    v.standIn = v.exiting = undefined;
    return progress;
  }

  /** Has a vCPU execute VMRUN as it runs, and then L2 stop. */
  #toVmrun(
    v: Vcpu,
    unit: LoggedRun,
    state: Assumption,
    entry: Entry | undefined,
    stopped: NonNullable<Vcpu["standIn"]>,
  ): void {
    const asked = (v.memory as FewPages).asked = new AskedPages();
    this.#prepare(v, unit, state, entry?.gpa ?? vmcb12Of(unit));
    v.standIn = () => {
      leaveVmrun(v, unit);
      v.standIn = stopped;
      v.observer = this.observer;
      return "exit";
    };
    v.exiting = (entered) => {
      v.exiting = undefined;
      (v.memory as FewPages).asked = undefined;
      if (entry === undefined || asked.more) return;
      this.#intercepted.keep(v, entry, entered, asked.empty);
    };
  }

  /**
   * Hands over the vCPU that the last logged run left: the next is carried out on another.
   *
   * @returns The vCPU, to be given back when it is not needed any more.
   */
  take(): Vcpu | undefined {
    const v = this.vcpu;
    this.vcpu = undefined;
    return v;
  }

  /** Takes back a vCPU that it handed over, for another logged run. */
  giveBack(v: Vcpu): void {
    if (v.caps === this.#created?.caps) this.#spare.push(v);
  }

  /** A vCPU in whatever state, with memory of which nothing was written. */
  #fresh(caps: Capabilities): Vcpu {
    const { policy } = this;
    if (this.#created?.caps !== caps) {
      this.#created = createVcpu(caps, policy);
      this.#spare.length = 0;
      this.vcpu = undefined;
    }
    const v = this.vcpu ?? this.#spare.pop() ?? new Vcpu(caps, policy);
    if (v.memory instanceof FewPages) v.memory.begin();
    else v.memory = new FewPages(caps.physicalBits);
    this.vcpu = v;
    return v;
  }

  #prepare(v: Vcpu, unit: LoggedRun, state: Assumption, gpa: bigint): void {
    const regs = state.regs.slice();
    const view = new DataView(regs.buffer);
    if (unit.rip !== undefined) {
      view.setBigUint64(R.rip, BigInt.asUintN(64, unit.rip - VMRUN_LENGTH), true);
    }
    view.setBigUint64(R.rax, gpa, true);
    loadRegs(v, { bytes: regs });
    const { regs: seen } = unit;
    if (seen === undefined) return;
    v.set64(V.cr8, view.getBigUint64(R.cr8, true));
    for (const [to, from] of TABLES) {
      for (let i = 0; i < SEGMENT; i++) {
        const known = seen.known?.[from + i] ?? 0xff;
        if (known === 0xff) v.set8(VMCB01_AT + to + i, regs[from + i] as number);
      }
    }
  }
}

/** Bytes of a segment register in either layout. */
const SEGMENT = 16;
/** Registers that point at tables, in the save area and among the registers. */
const TABLES = [
  [S.gdtr_selector, R.gdtr_selector],
  [S.idtr_selector, R.idtr_selector],
  [S.ldtr_selector, R.ldtr_selector],
  [S.tr_selector, R.tr_selector],
] as const;

/** Leaves in vmcb01 that L1 executed VMRUN. */
function leaveVmrun(v: Vcpu, unit: LoggedRun): void {
  v.set32(VMCB01_AT + C.exit_code, EXIT.VMRUN);
  v.set32(VMCB01_AT + C.exit_code_hi, 0);
  v.set64(VMCB01_AT + C.exit_info_1, 0n);
  v.set64(VMCB01_AT + C.exit_info_2, 0n);
  v.set64(VMCB01_AT + C.exit_int_info, 0n);
  v.set64(VMCB01_AT + C.next_rip, unit.rip ?? v.u64(VMCB01_AT + S.rip) + VMRUN_LENGTH);
}

/** PDPTEs with reserved bits, for a check that is known to have found some. */
function badPdptes(v: Vcpu, state: Assumption): void {
  const cr3 = new DataView(state.vmcb12.buffer, state.vmcb12.byteOffset).getUint32(S.cr3, true);
  for (let i = 0; i < 4; i++) v.memory.write64(((cr3 & ~31) >>> 0) + 8 * i, 0xffff_ffff_ffff_ffffn);
}

/** Leaves in vmcb02 what L2 did, as far as the log tells. */
function leaveExit(v: Vcpu, { l2rip, exit }: LoggedRun, { l2 }: Assumption): void {
  v.set32(VMCB02_AT + C.event_inj, v.u32(VMCB02_AT + C.event_inj) & 0x7fffffff);
  const vmcb02 = v.bytes.subarray(VMCB02_AT, VMCB02_AT + VMCB_SIZE);
  if (l2 !== undefined) overlayImage(vmcb02, l2);
  if (l2rip !== undefined) v.set64(VMCB02_AT + S.rip, l2rip);
  if (exit?.vmcb12 !== undefined) overlayImage(vmcb02, leftIn(exit.vmcb12));
}

/** Of vmcb12 after a #VMEXIT what L2 left. */
function leftIn(seen: Image): Image {
  let left = lefts.get(seen);
  if (left !== undefined) return left;
  const { bytes, known, knownWords } = fitImage(VMCB_LAYOUT, seen);
  left = known === undefined
    ? { bytes, known: LEFT_BITS, knownWords: LEFT_WORDS }
    : { bytes, ...leftOf(known, knownWords) };
  lefts.set(seen, left);
  return left;
}

/** Of what is known of an image what L2 left. */
function leftOf(known: Uint8Array, knownWords: Uint16Array | undefined): Required<Mask> {
  let mask = leftMasks.get(known);
  if (mask === undefined) {
    const both = known.map((byte, at) => byte & LEFT_BITS[at]!);
    leftMasks.set(known, mask = { known: both, knownWords: knownWords ?? knownWordsOf(both) });
  }
  return mask;
}

type Mask = Pick<Image, "known" | "knownWords">;
// Most images of a log have what is known of them in common.
const leftMasks = new WeakMap<Uint8Array, Required<Mask>>();

// Each run is carried out several times.
const lefts = new WeakMap<Image, Image>();
