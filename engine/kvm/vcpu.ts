/**
 * A vCPU under a policy: the machine state, what it reports while it runs, and
 * what KVM_RUN hands to userspace.
 *
 * @module
 */
import { Buffer } from "node:buffer";
import { hexOf } from "../hex.ts";
import { type Capabilities, Machine, S, V } from "../svm/machine.ts";
import type { Outcome, Policy, Step, Way } from "../policy.ts";
import type { KernelTraits } from "../kernels/traits.ts";
import type { ImageBuffer } from "../svm/image_buffer.ts";
import { copyWords } from "../svm/copy_words.ts";
import { REQ } from "./constants.ts";
import {
  copyLoose,
  type KvmRunResult,
  LOOSE_FIELDS,
  type LooseState,
  looseState,
  NOTHING,
  PENDING,
} from "./loose_state.ts";

/** Makes an image of what is inside the kernel as a transition function returns. */
export interface Viewer {
  /** Bytes of the image. */
  readonly size: number;
  /** Fills it in: through the vCPU's methods alone, and what follows from what they gave. */
  fill(v: Vcpu, ret: number, into: ImageBuffer): void;
}

/** An image that is known without the state that it shows. */
export interface ShownImage {
  /** Fills it in. */
  fill(into: ImageBuffer): void;
}

/** Looks at a vCPU that userspace has set up, before it runs. */
export interface Looker {
  /** The view that it wants of what userspace sees; `ret` is 0. */
  readonly viewer: Viewer;
  /**
   * Looks. Where what the viewer would show is handed over, of the vCPU only guest memory is as it is
   * at that moment.
   */
  look(v: Vcpu, shown?: ShownImage): void;
}

/** What becomes of words of the state before something is told. */
export interface Noted {
  /** Number of the page of guest memory that the work area becomes a copy of first; or -1. */
  readonly mapped: number;
  /**
   * Three numbers for each word that was set, each once: its number; what it is a copy of, by the number
   * of a word as it was at the beginning, guest memory's behind those of the state, or -1; and what it
   * is where it is no copy, which is the same each time.
   */
  readonly set: Int32Array;
  /** What is told then. */
  readonly tell: ((observer: Observer, v: Vcpu) => void) | undefined;
}

/** What is known of something that happens again. */
export interface Repeated {
  /** What became of words of the state meanwhile, and what is told. */
  readonly notes: readonly Noted[];
  /** Whether what a word of the state is, by its number, decides anything or is copied anywhere. */
  dependsOn(word: number): boolean;
}

/** Receives what happens inside, as it happens. */
export interface Observer {
  /** The view that it wants of what is inside, if it is always the same one. */
  readonly viewer?: Viewer;
  /** Who looks before a VMRUN is carried out, if anyone does. */
  readonly looker?: Looker;
  /**
   * What happens is about to happen as it did before, and is not told: what is known of it. It is
   * the same object each time.
   */
  follows?(repeated: Repeated, v: Vcpu): void;
  /** A transition begins. */
  begin?(way: Way, v: Vcpu): void;
  /** A transition is over; those that it contains were over before. */
  end?(way: Way, outcome: Outcome, v: Vcpu): void;
  /** A step is about to run. */
  step?(step: Step, v: Vcpu): void;
  /** A consistency check failed. */
  check(id: string, text: string): void;
  /** A kernel assertion did not hold; or a step went wrong, which is then named. */
  warn(text: string, step?: Step): void;
  /** The model met what it does not model. */
  unmodelled?(what: string): void;
  /** The active VMCB changed: to vmcb01 or vmcb02. */
  switched?(to: 1 | 2, v: Vcpu): void;
  /**
   * A transition function returned; `ret` is its return value. What the viewer would show is handed
   * over where it is known.
   */
  inner(
    at: "vmrun" | "vmexit" | "rsm" | "setstate",
    ret: number,
    v: Vcpu,
    shown?: ShownImage,
  ): void;
}

/** How far a run is that enters the guest again and again. */
export interface Entered {
  /** How often the guest was entered before. */
  readonly entries: number;
  /** How often in a row without progress. */
  readonly same: number;
  /** What progress is told by, at the last entry. */
  readonly seen: number;
}

/** Fields of a vCPU that a copy does not take: its policy, who listens or stands in, what it works with. */
type OwnFields = "policy" | "observer" | "standIn" | "exiting" | "tools";
/** What is computed from the bytes, or from what the fields refer to. */
type ComputedFields = "looseKey" | "paging" | "longMode" | "code64" | "paePaging" | "traits";
/** Names of all fields of a vCPU that a machine has not. */
type Fields = {
  [K in Exclude<keyof Vcpu, keyof Machine>]: Vcpu[K] extends (...args: never[]) => unknown ? never
    : K;
}[Exclude<keyof Vcpu, keyof Machine>];
type Never<T extends never> = T;
/** Fields in none of the lists: one more, and this does not compile, since a copy would lose it. */
export type UnlistedFields = Never<
  Exclude<Fields, keyof LooseState | OwnFields | ComputedFields>
>;

/**
 * Something that each vCPU works with: made when it is first needed, and used again in every run. It
 * is no state: a copy of the vCPU makes its own.
 *
 * @example
 * ```ts
 * import { Tool, UPSTREAM, Vcpu } from "@vmtape/vmtape/engine";
 * const BUFFER = new Tool(() => new Uint8Array(16));
 * const v = new Vcpu({ physicalBits: 40, npt: true, memory: 1 << 24 }, UPSTREAM);
 * if (BUFFER.of(v) !== BUFFER.of(v) || BUFFER.of(v) === BUFFER.of(v.fork(UPSTREAM))) throw new Error();
 * ```
 */
export class Tool<T extends object> {
  static #count = 0;
  readonly #index = Tool.#count++;
  readonly #make: (v: Vcpu) => T;

  /**
   * Says how it is made.
   *
   * @param make Makes a vCPU's own.
   */
  constructor(make: (v: Vcpu) => T) {
    this.#make = make;
  }

  /**
   * A vCPU's own.
   *
   * @param v The vCPU.
   * @returns The same each time.
   */
  of(v: Vcpu): T {
    return (v.tools[this.#index] ??= this.#make(v)) as T;
  }
}

/**
 * One vCPU with the policy that handles its nested transitions.
 *
 * @example
 * ```ts
 * import { UPSTREAM, Vcpu } from "@vmtape/vmtape/engine";
 * const v = new Vcpu({ physicalBits: 40, npt: true, memory: 1 << 24 }, UPSTREAM);
 * v.request(6);
 * const copy = v.fork(UPSTREAM);
 * if (!copy.take(6) || copy.requested(6) || !v.requested(6)) throw new Error();
 * ```
 */
export class Vcpu extends Machine implements LooseState {
  /** How its nested transitions are handled. */
  policy: Policy;
  /** Who listens, if anyone. */
  observer: Observer | undefined;
  /** What it works with, by the number of a {@linkcode Tool}. */
  readonly tools: (object | undefined)[] = [];
  /** The last KVM_RUN's result. */
  readonly result: KvmRunResult = { rc: 0, errno: 0, exit: 0, port: 0 };
  /** An I/O instruction waits for userspace to have done its part: which (`waitingIo`), or -1. */
  pendingIo: bigint = -1n;
  /** Address of the vmcb12 that the transition under way is about. */
  vmcb12 = 0;
  /** What the function returned whose step failed last. */
  failedRet = 0;
  /** Whether the transition under way is a VMRUN, rather than RSM or a restore. */
  fromVmrun = false;
  /** Whether the VMRUN under way could not be skipped, so that KVM_RUN ends after it. */
  skipFailed = false;
  /** Code of an instruction that waits for the value of a device, if one does. */
  pendingDevice: Uint8Array | undefined;
  /**
   * What it goes on with: general registers and RIP as they were then, as in the vCPU area (136
   * bytes), the active VMCB (4,096) and the address of the fault, a big-endian double, -1 for none.
   */
  readonly pendingRegisters: Uint8Array = new Uint8Array(PENDING);
  /** Physical address of the #NPF under repair, which KVM's emulator need not look up again; or -1. */
  faultGpa: number = -1;
  /** What the model met and does not model, which ended the run; empty while all is well. */
  unmodelled = "";
  /**
   * Stands in for the processor, so that no guest code runs: leaves a #VMEXIT in the VMCB that was
   * entered, for KVM (`exit`) or past it for L1 (`l1`), or ends the run: at once (`stop`), or once L1
   * has the #VMEXIT (`last`).
   */
  standIn: ((v: Vcpu) => "exit" | "l1" | "stop" | "last") | undefined;
  /**
   * Called when the processor left the guest and nothing of the #VMEXIT is handled yet: with how far
   * the run is.
   */
  exiting: ((entered: Entered) => void) | undefined;
  /** KVM_STATE_NESTED_* flags of the state being restored. */
  restoreFlags = 0;
  /** State save area that RSM reads, while it does. */
  smram: Uint8Array | undefined;

  /**
   * Makes a vCPU with all of its state zero.
   *
   * @param caps What the processor and the hypervisor can do.
   * @param policy The policy.
   */
  constructor(caps: Capabilities, policy: Policy) {
    super(caps);
    this.policy = policy;
  }

  /**
   * A copy that shares guest memory until either writes it, under another policy.
   *
   * @param policy The policy of the copy.
   * @param into A vCPU that nobody needs any more, to become the copy instead of a new one.
   * @returns The copy; nobody listens to it.
   */
  fork(policy: Policy, into?: Vcpu): Vcpu {
    const reused = into !== undefined && into.bytes.length === this.bytes.length &&
      into.caps === this.caps;
    const copy = reused ? into : new Vcpu(this.caps, policy);
    copy.policy = policy;
    copy.observer = undefined;
    copy.exiting = undefined;
    copyWords(copy.words, this.words);
    copy.memory = this.memory.fork(copy.memory);
    copy.adopt(this);
    return copy;
  }

  /** Makes all of its state zero again, guest memory included. */
  reset(): void {
    this.restart();
    this.memory.reset();
    this.memory.resident = this.caps.resident ?? 0;
    this.observer = undefined;
  }

  /** Makes all of its state zero again but for guest memory; who listens goes on listening. */
  restart(): void {
    this.bytes.fill(0);
    this.standIn = this.exiting = undefined;
    this.adopt(NOTHING);
  }

  /** A copy of what is neither in the bytes nor in guest memory, for {@linkcode Vcpu.adopt}. */
  loose(): LooseState {
    const copy = looseState();
    copyLoose(copy, this);
    return copy;
  }

  /** That as text, the same for the same. */
  get looseKey(): string {
    const { result: { rc, errno, exit, port }, pendingRegisters } = this;
    const none = Buffer.compare(pendingRegisters, NOTHING.pendingRegisters) === 0;
    const waits = none ? "" : hexOf(pendingRegisters);
    const text = (value: LooseState[typeof LOOSE_FIELDS[number]]) =>
      value instanceof Uint8Array ? hexOf(value) : value;
    return [rc, errno, exit, port, waits, ...LOOSE_FIELDS.map((name) => text(this[name]))].join(
      "|",
    );
  }

  /**
   * Takes over what is neither in the bytes nor in guest memory.
   *
   * @param from Where from; pages that it refers to are shared, and nobody writes them.
   */
  adopt(from: LooseState): void {
    copyLoose(this, from);
  }

  /**
   * Sets a request bit.
   *
   * @param bit Its number, 0 to 63.
   */
  request(bit: number): void {
    if (bit < 32) this.or32(V.requests, 1 << bit);
    else this.or32(V.requests + 4, 1 << bit - 32);
  }

  /**
   * Clears a request bit.
   *
   * @param bit Its number, 0 to 63.
   */
  unrequest(bit: number): void {
    if (bit < 32) this.clear32(V.requests, 1 << bit);
    else this.clear32(V.requests + 4, 1 << bit - 32);
  }

  /**
   * Whether a request bit is set.
   *
   * @param bit Its number, 0 to 63.
   * @returns Whether it is.
   */
  requested(bit: number): boolean {
    const word = bit < 32 ? this.u32(V.requests) : this.u32(V.requests + 4);
    return (word >>> (bit & 31) & 1) === 1;
  }

  /**
   * Takes a request bit: whether it was set; it is clear afterwards.
   *
   * @param bit Its number, 0 to 63.
   * @returns Whether it was set.
   */
  take(bit: number): boolean {
    if (!this.requested(bit)) return false;
    this.unrequest(bit);
    return true;
  }

  /** Asks for event injection to be looked at before the next entry. */
  requestEvent(): void {
    this.or32(V.requests, 1 << REQ.EVENT);
  }

  /**
   * Ends the run at what the model does not model: what would follow is unknown.
   *
   * @param what What was met.
   */
  miss(what: string): void {
    if (this.unmodelled !== "") return;
    this.unmodelled = what;
    this.observer?.unmodelled?.(what);
  }

  /**
   * Reports a kernel assertion that does not hold.
   *
   * @param holds Whether it holds.
   * @param text The kernel's text.
   */
  assertThat(holds: boolean, text: string): void {
    if (!holds) this.observer?.warn(text);
  }

  /** What the kernel does beneath its steps. */
  get traits(): KernelTraits {
    return this.policy.kernel.traits;
  }

  /** Whether the guest has paging on (CR0.PG). */
  get paging(): boolean {
    return (this.u32(V.cr0) & 0x80000000) !== 0;
  }

  /** Whether the guest runs in long mode (EFER.LMA). */
  get longMode(): boolean {
    return (this.u32(V.efer) & 0x400) !== 0;
  }

  /** Whether the guest runs 64-bit code (is_64_bit_mode). */
  get code64(): boolean {
    return this.longMode && (this.u16(this.vmcb + S.cs_attrib) & 0x200) !== 0;
  }

  /** Whether the guest uses PAE paging: paging and CR4.PAE without long mode. */
  get paePaging(): boolean {
    return !this.longMode && (this.u32(V.cr4) & 0x20) !== 0 && this.paging;
  }
}
