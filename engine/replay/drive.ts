/**
 * Feeding a trace's inputs to a vCPU: one event after another, as the recorded
 * side received them.
 *
 * @module
 */
import type { EventOf, Image, TraceEvent } from "../event.ts";
import { overlayImage } from "../image/fields.ts";
import { REQ } from "../kvm/constants.ts";
import {
  createVcpu,
  interrupt,
  look,
  looked,
  queueNmi,
  queueSmi,
  setNestedState,
} from "../kvm/ioctls.ts";
import { type RestoreErrnos, restoreVcpu, type SavedVcpu, saveVcpu } from "../kvm/migrate.ts";
import { goOnFromExit, runVcpu } from "../kvm/run.ts";
import type { Observer, Vcpu } from "../kvm/vcpu.ts";
import type { Paths, RunPaths } from "../paths/paths.ts";
import type { Policy } from "../policy.ts";
import type { ImageBuffer } from "../svm/image_buffer.ts";
import { MAPPED_AT } from "../svm/machine.ts";
import { PAGE_SIZE } from "../svm/memory.ts";
import { GivenPages } from "./given_pages.ts";
import { loadAndRun, loadL2Regs, loadRegs, wholeRegs, writePage } from "./load_regs.ts";
import { MOST_OUTCOMES, ReplayError, tooManyOutcomes } from "./replay_error.ts";
import { capabilitiesOf, DEFAULTS, modelled } from "./session_machine.ts";

/** Pages of guest memory that a session sets at most: a few lines of a log could ask for all there is. */
const MOST_PAGES = 4096;

/** Events that wait to be put in before a run at most. */
const MOST_QUEUED = 4096;

/**
 * Whether two policies do the same up to the first #VMEXIT of a run that begins in L1: they differ in
 * steps and checks alone.
 *
 * @param a One.
 * @param b The other.
 */
export function sharesEntry({ kernel: a, processor }: Policy, other: Policy): boolean {
  const b = other.kernel;
  return a.traits === b.traits && a.mmu === b.mmu && a.reserves === b.reserves &&
    processor === other.processor;
}

/** How often a run goes on at most, after an SMI or for userspace: recorded ones do a few times. */
const MOST_GOES = 256;

/**
 * Runs one vCPU's inputs under a policy.
 *
 * @example
 * ```ts
 * import { builtinScenarios, recordScenarios } from "@vmtape/vmtape/traces";
 * import { Driver, UPSTREAM } from "@vmtape/vmtape/engine";
 * const driver = new Driver(UPSTREAM);
 * const failed: string[] = [];
 * driver.observer = { check: (id) => failed.push(id), warn() {}, inner() {} };
 * let index = 0;
 * for await (const event of recordScenarios(builtinScenarios("eventinj-left"), UPSTREAM)) {
 *   driver.feed(event, index++);
 * }
 * if (!driver.ran || !failed.includes("asid-zero")) throw new Error(failed.join());
 * ```
 */
export class Driver {
  /** What the inputs are carried out under. */
  readonly policy: Policy;
  /** The vCPU; made by the first session, or by the first input without one. */
  vcpu: Vcpu | undefined;
  /** Paths that runs are known to take; every run is carried out step by step when left out. */
  paths: RunPaths | undefined;
  /** Who listens to the vCPU while it runs. */
  observer: Observer | undefined;
  /** Called when userspace has set up the vCPU and looks at it, before it runs. */
  ready: ((v: Vcpu) => void) | undefined;
  /** Whether KVM_RUN was called since userspace last looked. */
  ran = false;
  /** What the last KVM_SET_NESTED_STATE returned. */
  setStateErrno = 0;
  /** What was last read of the vCPU by a save, and is to be restored. */
  saved: SavedVcpu | undefined;
  /** What the last restore came to: errnos, and the nested state that was handed in. */
  restored: (RestoreErrnos & { readonly nested: SavedVcpu["nested"] }) | undefined;
  /** The paths that the vCPU ran on, as long as it is as they left it. */
  #ranOn: Paths | undefined;
  #queued: EventOf<"inject">[] = [];
  #running = false;
  /** Pages that the session set. */
  #pages = 0;
  readonly #given = new GivenPages();
  /** Outcomes since the last event of another kind. */
  #outcomes = 0;
  /** How often the run under way went on: each time may bring forth outcomes, which are kept. */
  #goes = 0;
  /** Number of the event that was fed last. */
  #index = 0;

  /**
   * Begins before the trace's first event.
   *
   * @param policy The policy.
   */
  constructor(policy: Policy) {
    this.policy = policy;
  }

  /**
   * Carries out an input; events of other roles are ignored, though a few bytes may hold millions of
   * outcomes.
   *
   * @param event The event.
   * @param index Its number in the trace, for messages.
   * @throws {ReplayError} When the input lacks what is needed to carry it out.
   */
  feed(event: TraceEvent, index: number): void {
    this.#rest();
    this.#index = index;
    switch (event.kind) {
      case "memory":
        if (event.gpa !== undefined && event.data !== undefined) {
          this.#page(Number(event.gpa), event.data, index);
        }
        break;
      case "session":
        this.vcpu = createVcpu(modelled(capabilitiesOf(event.meta), index), this.policy, this.vcpu);
        this.#goes = 0;
        this.#running = false;
        this.#queued = [];
        this.saved = this.restored = undefined;
        this.#pages = 0;
        break;
      case "case":
        this.#goes = 0;
        this.#running = false;
        break;
      case "inject":
        this.#inject(event, index);
        break;
      case "vmrun":
        this.#goes = 0;
        if (event.regs !== undefined) this.#vmrun(event, event.regs, index);
        break;
      case "setstate":
        this.#goes = 0;
        this.#setState(event, index);
        break;
      case "rsm":
        this.run();
        break;
      case "run":
        if (event.immediate === 1) runVcpu(this.#machine(), true);
        else this.run();
        break;
      case "save":
        this.saved = saveVcpu(this.#machine());
        break;
      case "restore":
        this.#restore(event, index);
        break;
      case "check":
      case "warn":
      case "inner":
      case "switch":
        if (++this.#outcomes > MOST_OUTCOMES) throw tooManyOutcomes(index);
        return;
      default:
        break;
    }
    this.#outcomes = 0;
  }

  /**
   * A driver at the same place of the trace with a copy of the vCPU, under
   * another policy: what that policy would do from this state.
   *
   * @param policy The policy.
   * @param spare A driver that nobody needs any more, whose vCPU is used again.
   * @returns The driver; nobody listens to it.
   */
  fork(policy: Policy, spare?: Driver): Driver {
    const copy = new Driver(policy);
    copy.vcpu = this.vcpu?.fork(policy, spare?.vcpu);
    copy.ran = this.ran;
    copy.setStateErrno = this.setStateErrno;
    copy.saved = this.saved;
    copy.restored = this.restored;
    copy.#queued = [...this.#queued];
    copy.#running = this.#running;
    copy.#pages = this.#pages;
    return copy;
  }

  /**
   * Carries out a VMRUN, and what other policies would do from the same state. Up to the first
   * #VMEXIT, which is where a policy first has a say, it is the same for all and done once.
   *
   * @param event The VMRUN, with L1's registers.
   * @param index Its number in the trace, for messages.
   * @param others The other policies, which do beneath their steps what this one does (see
   * {@linkcode sharesEntry}); who listens to each; and a driver that nobody needs any more.
   * @returns A driver for each, behind the VMRUN.
   * @throws {ReplayError} When the input lacks what is needed to carry it out.
   */
  feedForked(
    event: EventOf<"vmrun">,
    index: number,
    others: readonly {
      readonly policy: Policy;
      readonly observer: Observer;
      readonly spare: Driver | undefined;
    }[],
  ): Driver[] {
    let made: Driver[] | undefined;
    const forkAll = () =>
      others.map(({ policy, observer, spare }) => {
        const driver = this.fork(policy, spare);
        driver.observer = observer;
        return driver;
      });
    let goOn: (driver: Driver) => void = () => {};
    this.ready = (v) => {
      if (v.guestMode || v.requested(REQ.GET_NESTED_STATE_PAGES)) {
        // Steps run before L1 does.
        made = forkAll();
        goOn = (driver) => driver.run();
        return;
      }
      v.exiting = (entered) => {
        v.exiting = undefined;
        made = forkAll();
        goOn = (driver) => driver.#listened((copy) => goOnFromExit(copy, entered));
      };
    };
    this.feed(event, index);
    this.ready = undefined;
    if (this.vcpu !== undefined) this.vcpu.exiting = undefined;
    // Without an exit there was nothing for a policy to do.
    made ??= forkAll();
    for (const driver of made) {
      driver.#running = true;
      goOn(driver);
      driver.ran = true;
    }
    return made;
  }

  /** Whether nothing waits to be put in, so that the vCPU is all there is. */
  get resting(): boolean {
    return this.#queued.length === 0 && this.saved === undefined;
  }

  /** What else than the vCPU there is while it rests, as a number. */
  get phase(): number {
    return this.setStateErrno * 4 + (this.ran ? 2 : 0) + (this.#running ? 1 : 0);
  }

  /** Puts that back. */
  set phase(phase: number) {
    this.setStateErrno = Math.floor(phase / 4);
    this.ran = (phase & 2) !== 0;
    this.#running = (phase & 1) !== 0;
    this.#queued = [];
  }

  /** Runs the vCPU until userspace is needed. */
  run(): void {
    const paths = this.paths?.run;
    this.#rest();
    if (paths === undefined) this.#go(runVcpu);
    else this.#goOn(paths, runVcpu);
  }

  /**
   * Has userspace look at the vCPU.
   *
   * @param look What it does; always the same.
   * @param into Where it makes an image of what it sees.
   */
  look(look: (v: Vcpu) => void, into: ImageBuffer): void {
    const v = this.#machine(), { paths } = this;
    const done = this.#ranOn?.then(v, look, into) === true;
    this.#rest();
    if (done) return;
    if (paths === undefined) look(v);
    else paths.look.run(v, look, into);
  }

  /** Something else is about to be done with the vCPU than what goes on from a run. */
  #rest(): void {
    this.#ranOn?.rest();
    this.#ranOn = undefined;
  }

  #goOn(paths: Paths, run: (v: Vcpu) => void): void {
    paths.pages = this.#given.numbers;
    this.#go(run, paths);
    this.#ranOn = paths;
  }

  #go(run: (v: Vcpu) => void, paths?: Paths): void {
    if (++this.#goes > MOST_GOES) {
      throw new ReplayError(`A run goes on more than ${MOST_GOES} times`, this.#index);
    }
    this.#listened(run, paths);
    this.ran = true;
  }

  #listened(run: (v: Vcpu) => void, paths?: Paths): void {
    const v = this.#machine();
    v.observer = this.observer;
    if (paths === undefined) run(v);
    else paths.run(v, run);
    v.observer = undefined;
  }

  #machine(): Vcpu {
    return this.vcpu ??= createVcpu(DEFAULTS, this.policy);
  }

  /** Sets a page from outside. */
  #page(gpa: number, image: Image, event: number): void {
    const v = this.#machine(), { memory } = v;
    if (!memory.backed(gpa, PAGE_SIZE) || this.#given.holds(memory, gpa, image)) return;
    if (!memory.written(gpa / PAGE_SIZE | 0) && this.#pages++ === MOST_PAGES) {
      throw new ReplayError(
        `The session sets more than ${MOST_PAGES} pages of guest memory, which replay keeps at most`,
        event,
      );
    }
    writePage(v, gpa, image);
    if (image.known === undefined) this.#given.set(memory, gpa, image);
  }

  #inject(event: EventOf<"inject">, index: number): void {
    if (!this.#running) {
      if (this.#queued.length === MOST_QUEUED) {
        throw new ReplayError(`More than ${MOST_QUEUED} events wait for one run`, index);
      }
      // Whoever reads the trace may use the object again.
      this.#queued.push({ ...event });
      return;
    }
    this.#queue(event);
    if (event.what === "smi") this.run();
  }

  #queue(event: EventOf<"inject">): void {
    const v = this.#machine();
    if (event.what === "nmi") queueNmi(v);
    else if (event.what === "irq") interrupt(v, event.vector ?? 0);
    else if (event.what === "smi") queueSmi(v);
  }

  #vmrun(event: EventOf<"vmrun">, given: Image, index: number): void {
    const v = this.#machine();
    const regs = wholeRegs(given, index);
    if (event.vmcb12 !== undefined && event.vmcb12_gpa !== undefined) {
      this.#page(Number(event.vmcb12_gpa & ~0xfffn), event.vmcb12, index);
    }
    const { paths } = this;
    const step = paths === undefined || regs.known !== undefined || this.ready !== undefined ||
      this.#queued.length !== 0;
    if (step) {
      loadRegs(v, regs);
      this.#start(v);
      this.run();
      return;
    }
    v.bytes.set(regs.bytes, MAPPED_AT);
    this.#running = true;
    const known = this.observer?.looker === undefined ? paths.vmrun : paths.seen;
    this.#goOn(known, loadAndRun);
  }

  /** Queues what was injected before the run, and looks, as userspace did. */
  #start(v: Vcpu): void {
    for (const event of this.#queued) this.#queue(event);
    this.#queued = [];
    look(v);
    looked(v);
    this.ready?.(v);
    this.observer?.looker?.look(v);
    this.#running = true;
  }

  #restore(event: EventOf<"restore">, index: number): void {
    const v = this.#machine();
    const saved = this.saved;
    if (saved === undefined) return;
    this.saved = undefined;
    const { state } = saved.nested;
    const handed = state?.slice();
    if (handed !== undefined && event.changed !== undefined) {
      if (event.changed.bytes.length > handed.length) {
        throw new ReplayError("More of the nested state was changed than there is", index);
      }
      overlayImage(handed, event.changed);
    }
    const nested = { ...saved.nested, flags: saved.nested.flags | (event.set ?? 0), state: handed };
    if (event.resident !== undefined) v.memory.resident = Number(event.resident);
    v.observer = this.observer;
    this.restored = { ...restoreVcpu(v, saved, nested), nested };
    v.observer = undefined;
    // Userspace looks before it goes on.
    this.ran = true;
  }

  #setState(event: EventOf<"setstate">, index: number): void {
    const v = this.#machine();
    const { state } = event;
    if (state === undefined || state.known !== undefined || state.bytes.length !== PAGE_SIZE) {
      throw new ReplayError(
        "The nested state handed in is not in the trace; record it whole to replay it",
        index,
      );
    }
    const regs = event.regs && wholeRegs(event.regs, index);
    if (event.l1 !== undefined) loadRegs(v, wholeRegs(event.l1, index));
    this.#start(v);
    if (regs !== undefined) loadL2Regs(v, regs);
    v.observer = this.observer;
    this.setStateErrno = setNestedState(
      v,
      event.flags ?? 1,
      event.vmcb_pa ?? 0n,
      state.bytes,
    );
    v.observer = undefined;
    this.run();
  }
}
