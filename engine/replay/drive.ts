/**
 * Feeding a trace's inputs to a vCPU: one event after another, as the recorded
 * side received them.
 *
 * @module
 */
import { VmtapeError } from "../error.ts";
import type { EventOf, Image, TraceEvent } from "../event.ts";
import { offsets } from "../layout.ts";
import { fitImage, overlayImage } from "../image/fields.ts";
import { PAGE_SIZE } from "../svm/memory.ts";
import { cpuidOfMeta } from "../svm/cpuid.ts";
import { REGS_FIELDS, REGS_LAYOUT } from "../svm/regs_layout.ts";
import { processorOfSession, vmrunRipOfSession } from "../processors/session.ts";
import { type Capabilities, V } from "../svm/machine.ts";
import {
  clearNestedState,
  createVcpu,
  interrupt,
  look,
  queueNmi,
  queueSmi,
  setHsave,
  setNestedState,
  setRegs,
  setSregs,
} from "../kvm/ioctls.ts";
import { type RestoreErrnos, restoreVcpu, type SavedVcpu, saveVcpu } from "../kvm/migrate.ts";
import { REQ } from "../kvm/constants.ts";
import { goOnFromExit, runVcpu } from "../kvm/run.ts";
import type { Observer, Vcpu } from "../kvm/vcpu.ts";
import type { Policy } from "../policy.ts";

const R = offsets(REGS_FIELDS);

/** What a session says of its machine, where the trace says nothing. */
const DEFAULTS: Capabilities = { physicalBits: 40, npt: true, memory: 16 << 20 };

/**
 * An input that the engine cannot carry out, with the place and what to do.
 *
 * @example
 * ```ts
 * import { Driver, ReplayError, UPSTREAM } from "@vmtape/vmtape/engine";
 * const meta = { capabilities: { physical_bits: 99 } };
 * let caught: unknown;
 * try {
 *   new Driver(UPSTREAM).feed({ kind: "session", vcpu: 0, meta }, 7);
 * } catch (error) {
 *   caught = error;
 * }
 * if (!(caught instanceof ReplayError) || caught.event !== 7) throw new Error();
 * ```
 */
export class ReplayError extends VmtapeError {
  /** Name of the class, for those who cannot use instanceof. */
  override readonly name = "ReplayError";
  /** Number of the event in the trace, from 0. */
  readonly event: number;

  /**
   * Names the event.
   *
   * @param message What is wrong and what to do.
   * @param event Number of the event in the trace.
   */
  constructor(message: string, event: number) {
    super(message);
    this.event = event;
  }
}

/**
 * The machine a session describes.
 *
 * @param meta The session's metadata: `npt`, and `capabilities` with `physical_bits`, `cpuid` (see
 * {@linkcode cpuidOfMeta}), `host_cpuid`, `host_physical_bits`, `memory` (bytes) and `resident` (the address below
 * which all of it was touched beforehand).
 * @returns What it says; 40 address bits, nested paging and 16 MiB where it says nothing.
 * @example
 * ```ts
 * import { capabilitiesOf } from "@vmtape/vmtape/engine";
 * const caps = capabilitiesOf({ npt: 0, capabilities: { physical_bits: 48 } });
 * if (caps.npt || caps.physicalBits !== 48 || caps.memory !== 16 << 20) throw new Error();
 * ```
 */
export function capabilitiesOf(meta: Readonly<Record<string, unknown>> | undefined): Capabilities {
  const caps = meta?.["capabilities"];
  const given = (typeof caps === "object" && caps !== null ? caps : {}) as Record<string, unknown>;
  const number = (value: unknown, otherwise: number) =>
    typeof value === "number" ? value : otherwise;
  const npt = meta?.["npt"];
  const resident = given["resident"], host = given["host_physical_bits"];
  const cpuid = cpuidOfMeta(given["cpuid"]), offered = cpuidOfMeta(given["host_cpuid"]);
  return {
    physicalBits: cpuid?.physicalBits ?? number(given["physical_bits"], DEFAULTS.physicalBits),
    ...(cpuid === undefined ? {} : { cpuid }),
    ...(offered === undefined ? {} : { hostCpuid: offered }),
    ...(typeof host === "number" ? { hostPhysicalBits: host } : {}),
    memory: number(given["memory"], DEFAULTS.memory),
    npt: npt === undefined ? DEFAULTS.npt : npt === 1 || npt === true || npt === "on",
    processor: processorOfSession(meta),
    vmrunRip: vmrunRipOfSession(meta),
    ...(typeof resident === "number" ? { resident } : {}),
  };
}

/** Guest memory that is modelled at most, in bytes. */
const MOST_MEMORY = 2 ** 31;

/** Pages of guest memory that a session sets at most: a few lines of a log could ask for all there is. */
const MOST_PAGES = 4096;

/** Events that wait to be put in before a run at most. */
const MOST_QUEUED = 4096;

/** Outcomes that follow each other at most: recorded runs have a few dozen. */
export const MOST_OUTCOMES = 1024;

/** The error of outcomes that are more than a run has. */
export function tooManyOutcomes(index: number): ReplayError {
  return new ReplayError(
    `More than ${MOST_OUTCOMES} outcomes follow each other, which no run has`,
    index,
  );
}

/** Refuses a machine that a trace claims and that nothing here was made for. */
function modelled(caps: Capabilities, event: number): Capabilities {
  const { physicalBits, memory } = caps;
  if (!Number.isInteger(physicalBits) || physicalBits < 32 || physicalBits > 52) {
    throw new ReplayError(
      `The session says ${physicalBits} physical address bits; replay models 32 to 52`,
      event,
    );
  }
  if (!(memory >= 0 && memory <= MOST_MEMORY)) {
    throw new ReplayError(
      `The session says ${memory} bytes of guest memory; replay models up to ${MOST_MEMORY}`,
      event,
    );
  }
  return { ...caps, memory: Math.ceil(memory / PAGE_SIZE) * PAGE_SIZE };
}

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

/**
 * Runs one vCPU's inputs under a policy.
 *
 * @example
 * ```ts
 * import { builtinScenarios, recordScenarios } from "@vmtape/vmtape/traces";
 * import { Driver, UPSTREAM } from "@vmtape/vmtape/engine";
 * const driver = new Driver(UPSTREAM);
 * const failed: string[] = [];
 * driver.observer = { step() {}, check: (id) => failed.push(id), warn() {}, inner() {} };
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
  #queued: EventOf<"inject">[] = [];
  #running = false;
  /** Pages that the session set. */
  #pages = 0;
  /** Outcomes since the last event of another kind. */
  #outcomes = 0;

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
    switch (event.kind) {
      case "session":
        this.vcpu = createVcpu(modelled(capabilitiesOf(event.meta), index), this.policy, this.vcpu);
        this.#running = false;
        this.#queued = [];
        this.saved = this.restored = undefined;
        this.#pages = 0;
        break;
      case "case":
        this.#running = false;
        break;
      case "memory":
        if (event.gpa !== undefined && event.data !== undefined) {
          this.#page(Number(event.gpa), event.data, index);
        }
        break;
      case "inject":
        this.#inject(event, index);
        break;
      case "vmrun":
        if (event.regs !== undefined) this.#vmrun(event, event.regs, index);
        break;
      case "setstate":
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
    this.#listened(runVcpu);
    this.ran = true;
  }

  #listened(run: (v: Vcpu) => void): void {
    const v = this.#machine();
    v.observer = this.observer;
    run(v);
    v.observer = undefined;
  }

  #machine(): Vcpu {
    return this.vcpu ??= createVcpu(DEFAULTS, this.policy);
  }

  /** Sets a page from outside. */
  #page(gpa: number, image: Image, event: number): void {
    const v = this.#machine();
    if (v.memory.backed(gpa, PAGE_SIZE) && !v.memory.written(gpa / PAGE_SIZE | 0)) {
      if (this.#pages++ === MOST_PAGES) {
        throw new ReplayError(
          `The session sets more than ${MOST_PAGES} pages of guest memory, which replay keeps at most`,
          event,
        );
      }
    }
    writePage(v, gpa, image);
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
    loadRegs(v, regs);
    this.#start(v);
    this.run();
  }

  /** Queues what was injected before the run, and looks, as userspace did. */
  #start(v: Vcpu): void {
    for (const event of this.#queued) this.#queue(event);
    this.#queued = [];
    look(v);
    this.ready?.(v);
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
    if (regs !== undefined) {
      const r = new Reader(regs);
      setSregs(v, {
        cr0: r.u64(R.cr0),
        cr3: r.u64(R.cr3),
        cr4: r.u64(R.cr4),
        efer: r.u64(R.efer),
        segments: {},
      });
      setRegs(v, {
        rip: r.u64(R.rip),
        rsp: r.u64(R.rsp),
        rax: r.u64(R.rax),
        rflags: r.u64(R.rflags),
      });
    }
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

/** Registers as they are laid out now; those that a run cannot begin without have to be there. */
function wholeRegs(image: Image, event: number): Image {
  if (image.bytes.length < R.hsave_pa) {
    throw new ReplayError(
      `The registers have ${image.bytes.length} bytes, too few to begin from; record them whole`,
      event,
    );
  }
  return fitImage(REGS_LAYOUT, image);
}

/** Writes what is known of a page into guest memory. */
export function writePage(v: Vcpu, gpa: number, image: Image): void {
  if (!v.memory.backed(gpa, PAGE_SIZE)) return;
  const { bytes, known } = image;
  if (known === undefined && bytes.length === PAGE_SIZE && gpa % PAGE_SIZE === 0) {
    v.memory.replace(gpa, bytes);
    return;
  }
  overlayImage(v.memory.writable(gpa), image);
}

/** Reads fields of a `regs` image. */
class Reader {
  readonly #bytes: Uint8Array;
  readonly #known: Uint8Array | undefined;
  readonly #view: DataView;

  constructor(image: Image) {
    this.#bytes = image.bytes;
    this.#known = image.known;
    this.#view = new DataView(image.bytes.buffer, image.bytes.byteOffset);
  }

  u64(at: number): bigint {
    return this.#view.getBigUint64(at, true);
  }

  copy64(v: Vcpu, to: number, at: number): void {
    v.set32(to, this.#view.getUint32(at, true));
    v.set32(to + 4, this.#view.getUint32(at + 4, true));
  }

  u8(at: number): number {
    return this.#bytes[at] as number;
  }

  knows(at: number): boolean {
    return this.#known === undefined || this.#known[at] === 0xff;
  }

  segment(at: number): { selector: number; attrib: number; limit: number; base: bigint } {
    return {
      selector: this.#view.getUint16(at, true),
      attrib: this.#view.getUint16(at + 2, true),
      limit: this.#view.getUint32(at + 4, true),
      base: this.#view.getBigUint64(at + 8, true),
    };
  }
}

const SEGMENT_AT = [
  ["es", R.es_selector],
  ["cs", R.cs_selector],
  ["ss", R.ss_selector],
  ["ds", R.ds_selector],
  ["fs", R.fs_selector],
  ["gs", R.gs_selector],
] as const;

/** Loads L1's registers as userspace does: control registers and segments, the others, VM_HSAVE_PA, GIF. */
export function loadRegs(v: Vcpu, image: Image): void {
  const r = new Reader(image);
  const segments: Record<string, ReturnType<Reader["segment"]>> = {};
  for (const [name, at] of SEGMENT_AT) {
    if (r.knows(at + 4)) segments[name] = r.segment(at);
  }
  const sregs = { cr0: r.u64(R.cr0), cr3: r.u64(R.cr3), cr4: r.u64(R.cr4), efer: r.u64(R.efer) };
  // What KVM refused to load left no trace in the vCPU, and so none in the recording.
  setSregs(v, r.knows(R.cr0) ? { ...sregs, segments } : undefined);
  setRegs(v, { rip: r.u64(R.rip), rax: r.u64(R.rax), rsp: r.u64(R.rsp), rflags: r.u64(R.rflags) });
  for (let i = 0; i < 16; i++) {
    if (r.knows(i * 8)) r.copy64(v, V.rax + i * 8, i * 8);
  }
  setHsave(v, r.knows(R.hsave_pa) ? r.u64(R.hsave_pa) : 0x20000n);
  clearNestedState(v, !r.knows(R.gif) || r.u8(R.gif) !== 0);
}
