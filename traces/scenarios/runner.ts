/**
 * Leading a machine through scenarios, step by step as the lab's program does,
 * and telling what happened as events, in the order in which it happened.
 *
 * @module
 */
import type { EventOf, Image, TraceEvent } from "../../engine/event.ts";
import { offsets } from "../../engine/layout.ts";
import { REGS_FIELDS } from "../../engine/svm/regs_layout.ts";
import { VMCB_SIZE } from "../../engine/svm/vmcb_fields.ts";
import { baseSegments, L1_RSP, VMCB12_GPA } from "./base.ts";
import {
  changedState,
  l1Regs,
  l2Image,
  l2Registers,
  NESTED_FLAGS,
  restoredState,
  rsmEvent,
  VMRUN_LENGTH,
} from "./inputs.ts";
import { type InputPage, inputPages, lateMemory, memoryEvent, PageMasks } from "./input_pages.ts";
import { ImageArena } from "./image_arena.ts";
import type { LateChange, Scenario } from "./scenario.ts";
import { bytesOf } from "./scenario_memory.ts";
import type { ScenarioVm, VmRun } from "./vm.ts";

/** Runs one scenario after another on one machine. */
export class ScenarioRunner {
  readonly #vm: ScenarioVm;
  readonly #images = new ImageArena();
  readonly #masks = new PageMasks();

  /**
   * @param vm What they run on.
   */
  constructor(vm: ScenarioVm) {
    this.#vm = vm;
  }

  /**
   * Runs one scenario. The machine has done what an event tells when it is handed out, and the
   * scenario is over when the last one was.
   *
   * @param scenario The scenario.
   * @param again Whether it is one round of many: pages that hold already what they are set to are
   * left alone then, as a guest in a loop does not write its tables anew either.
   * @returns The events, in order; their images stay as they are.
   */
  *run(scenario: Scenario, again = false): Generator<TraceEvent, void, undefined> {
    const vm = this.#vm;
    const begins = vm.begin(scenario);
    if (begins) yield { kind: "session", vcpu: 0, meta: vm.session };
    yield { kind: "case", vcpu: 0, name: scenario.name, spec: scenario.spec };
    if (vm.unmodelled !== undefined) {
      yield { kind: "unmodelled", vcpu: 0, what: `goes on after: ${vm.unmodelled}` };
    }
    for (const page of inputPages(scenario, begins, this.#images)) {
      if (again && page.whole !== undefined && vm.holds(page.gpa, page.whole)) continue;
      yield this.#fill(page);
    }
    const refused = this.#setUp(scenario);
    if (scenario.nmi) {
      vm.nmi();
      yield { kind: "inject", vcpu: 0, what: "nmi" };
    }
    if (scenario.irq !== 0) {
      note(refused, "IRQ_ERR", vm.interrupt(scenario.irq));
      yield { kind: "inject", vcpu: 0, what: "irq", vector: scenario.irq >>> 0 };
    }
    const pre = withErrors(vm.look("pre", ["vmcb12"]), refused);
    if (pre !== undefined) yield pre;
    vm.reports();
    const regs = l1Regs(scenario, pre?.regs, begins, sregsRefused(pre), this.#images);
    if (scenario.entry === "setstate") yield this.#restore(scenario, regs);
    else yield this.#vmrun(scenario, regs, pre, begins);
    let run = vm.run();
    yield* vm.reports();
    if (scenario.entry === "rsm") run = yield* this.#handleSmi(scenario, run);
    else if (scenario.entry === "mid" || scenario.entry === "migrate") {
      run = yield* this.#goOn(scenario, run);
    }
    const post = vm.look("post", ["vmcb12"], run);
    if (post !== undefined) yield post;
  }

  /** Sets a page; the event that tells of it. */
  #fill({ gpa, whole, written }: InputPage): EventOf<"memory"> {
    if (whole !== undefined) {
      this.#vm.fill(gpa, whole);
      return memoryEvent(gpa, { bytes: whole });
    }
    if (written === undefined) return memoryEvent(gpa, { bytes: NOTHING });
    this.#vm.overlay(gpa, written);
    return memoryEvent(gpa, this.#masks.image(written));
  }

  /** Sets L1 up; the errno of each call that was refused, as the lab names them. */
  #setUp(scenario: Scenario): Record<string, string> {
    const vm = this.#vm;
    const { l1 } = scenario;
    const refused: Record<string, string> = {};
    const { cs, ds, es, fs, gs, ss } = baseSegments(l1.pae);
    const { cr0, cr3, cr4, efer, rip, rax, rflags } = l1;
    note(
      refused,
      "SREGS_ERR",
      vm.setSregs({ cr0, cr3, cr4, efer, segments: { cs, ds, es, fs, gs, ss } }),
    );
    note(refused, "REGS_ERR", vm.setRegs({ rip, rax, rsp: L1_RSP, rflags }));
    vm.setHsave(l1.hsave);
    const flags = scenario.gif ? NESTED_FLAGS.gif : 0;
    note(refused, "NSTATE_ERR", vm.setNestedState({ flags, vmcb_pa: 0n }));
    return refused;
  }

  #vmrun(
    scenario: Scenario,
    regs: Image,
    pre: EventOf<"regs"> | undefined,
    begins: boolean,
  ): EventOf<"vmrun"> {
    const { rip, rax } = scenario.l1;
    // What an earlier run left in memory is its outcome, no input.
    const inBase = rax === BigInt(VMCB12_GPA) && (begins || !scenario.keepmem);
    return {
      kind: "vmrun",
      vcpu: 0,
      rip: rip + BigInt(VMRUN_LENGTH),
      vmcb12_gpa: rax,
      regs,
      ...(inBase ? { vmcb12: pre?.vmcb12 ?? { bytes: this.#vm.page(VMCB12_GPA) } } : {}),
    };
  }

  #restore(scenario: Scenario, l1: Image): EventOf<"setstate"> {
    const vm = this.#vm;
    const vmcb12 = vm.page(VMCB12_GPA);
    const l2 = l2Registers(vmcb12);
    const sregs_errno = vm.setSregs({ ...l2, segments: {} });
    vm.setRegs(l2);
    const flags = NESTED_FLAGS.guestMode | (scenario.gif ? NESTED_FLAGS.gif : 0) |
      (scenario.pending ? NESTED_FLAGS.runPending : 0);
    const state = restoredState(scenario, vmcb12);
    const vmcb_pa = scenario.l1.rax;
    const errno = vm.setNestedState({ flags, vmcb_pa, state });
    return {
      kind: "setstate",
      vcpu: 0,
      ...(sregs_errno === undefined ? {} : { sregs_errno }),
      ...(errno === undefined ? {} : { errno }),
      flags,
      vmcb_pa,
      state: { bytes: state },
      regs: l2Image(l2),
      l1,
    };
  }

  /** L2 stopped: an SMI, a look while its handler runs, and RSM. */
  *#handleSmi(scenario: Scenario, stopped: VmRun): Generator<TraceEvent, VmRun, undefined> {
    const vm = this.#vm;
    const mid = vm.look("mid", [], stopped);
    if (mid === undefined) return stopped;
    yield mid;
    vm.smi();
    yield { kind: "inject", vcpu: 0, what: "smi" };
    const run = vm.run();
    yield* vm.reports();
    const smm = vm.look("smm", ["vmcb12", "hsave", "smram"], run);
    if (smm !== undefined) {
      const handler = inSmm(smm);
      const { smram } = smm;
      if (handler) yield { kind: "smi", vcpu: 0, ...(smram ? { smram } : {}) };
      yield smm;
      yield* this.#change(scenario.late);
      if (handler) yield rsmEvent(scenario.late, smram);
    }
    const last = vm.run();
    yield* vm.reports();
    return last;
  }

  /** L2 stopped: what is changed meanwhile, what arrives, and on, here or on another machine. */
  *#goOn(scenario: Scenario, stopped: VmRun): Generator<TraceEvent, VmRun, undefined> {
    const vm = this.#vm;
    const mid = vm.look("mid", ["vmcb12"], stopped);
    if (mid === undefined) return stopped;
    yield mid;
    if (scenario.entry === "migrate") yield* this.#migrate(scenario);
    else yield* this.#change(scenario.late);
    if (scenario.midNmi) {
      vm.nmi();
      yield { kind: "inject", vcpu: 0, what: "nmi" };
    }
    if (scenario.midIrq !== 0) {
      vm.interrupt(scenario.midIrq);
      yield { kind: "inject", vcpu: 0, what: "irq", vector: scenario.midIrq >>> 0 };
    }
    const run = vm.run();
    yield { kind: "run", vcpu: 0 };
    yield* vm.reports();
    return run;
  }

  *#migrate({ late, pending }: Scenario): Generator<TraceEvent, void, undefined> {
    const vm = this.#vm;
    vm.complete();
    yield { kind: "run", vcpu: 0, immediate: 1 };
    yield { kind: "save", vcpu: 0, ...vm.save() };
    yield* lateMemory(late, this.#images, this.#masks);
    const state = changedState(late);
    const set = pending ? NESTED_FLAGS.runPending : 0;
    const memory = late.filter(({ gpa }) => gpa !== undefined);
    const restored = vm.restore({ memory, state, set });
    yield {
      kind: "restore",
      vcpu: 0,
      ...restored,
      ...(set === 0 ? {} : { set }),
      ...(state === undefined ? {} : { changed: state }),
    };
    yield* vm.reports();
    const seen = vm.look("restored", []);
    if (seen !== undefined) yield seen;
  }

  /** Writes to memory on the way. */
  *#change(late: readonly LateChange[]): Generator<TraceEvent, void, undefined> {
    for (const change of late) {
      if (change.gpa !== undefined) this.#vm.write(change.gpa, bytesOf(change));
    }
    yield* lateMemory(late, this.#images, this.#masks);
  }
}

const NOTHING = new Uint8Array(VMCB_SIZE);

function note(refused: Record<string, string>, name: string, errno: number | undefined): void {
  if (errno !== undefined && errno !== 0) refused[name] = String(errno);
}

const SMM_AT = offsets(REGS_FIELDS).smm;

function inSmm({ regs }: EventOf<"regs">): boolean {
  return regs?.bytes[SMM_AT] === 1;
}

/** Whether KVM refused the control registers that L1 was to have. */
function sregsRefused(pre: EventOf<"regs"> | undefined): boolean {
  const errors = pre?.extra?.["setup_errors"];
  return typeof errors === "object" && errors !== null && "SREGS_ERR" in errors;
}

function withErrors(
  event: EventOf<"regs"> | undefined,
  refused: Readonly<Record<string, string>>,
): EventOf<"regs"> | undefined {
  if (event === undefined || Object.keys(refused).length === 0) return event;
  return { ...event, extra: { ...event.extra, setup_errors: refused } };
}
