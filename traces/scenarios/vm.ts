/**
 * What scenarios run on: a virtual machine with one vCPU, as the program sees
 * it that made it. The emulator, this machine's KVM and a recording that is
 * read again are such machines; {@linkcode ScenarioRunner} leads them through
 * a scenario.
 *
 * @module
 */
import type { EventOf, Image, TraceEvent } from "../../engine/event.ts";
import { type BaseSegment, HSAVE_GPA, SMRAM_GPA, VMCB12_GPA } from "./base.ts";
import type { LateChange, Scenario } from "./scenario.ts";

/** What KVM_RUN came back with. */
export interface VmRun {
  /** 0, or -1 with `errno`. */
  readonly rc: number;
  /** errno of KVM_RUN. */
  readonly errno: number;
}

/** The points of a scenario at which the registers are looked at. */
export type LookPhase = "pre" | "mid" | "smm" | "restored" | "post";

/** Guest physical addresses of the pages that a look may show, by name. */
export const SHOWN_PAGES = { vmcb12: VMCB12_GPA, hsave: HSAVE_GPA, smram: SMRAM_GPA } as const;

/** Name of such a page. */
export type ShownPage = keyof typeof SHOWN_PAGES;

/** Control registers and segments, as KVM_SET_SREGS takes them. */
export interface VmSregs {
  /** CR0. */
  readonly cr0: bigint;
  /** CR3. */
  readonly cr3: bigint;
  /** CR4. */
  readonly cr4: bigint;
  /** EFER. */
  readonly efer: bigint;
  /** Segment registers to set; the others stay. */
  readonly segments: Readonly<Record<string, BaseSegment>>;
}

/** General registers, as KVM_SET_REGS takes them; all others are set to 0. */
export interface VmRegs {
  /** Instruction pointer. */
  readonly rip: bigint;
  /** RAX. */
  readonly rax: bigint;
  /** Stack pointer. */
  readonly rsp: bigint;
  /** Flags. */
  readonly rflags: bigint;
}

/** Nested state, as KVM_SET_NESTED_STATE takes it. */
export interface VmNestedState {
  /** KVM_STATE_NESTED_* flags. */
  readonly flags: number;
  /** Address of vmcb12. */
  readonly vmcb_pa: bigint;
  /** L2's control area and L1's save area, laid out as a VMCB; none outside guest mode. */
  readonly state?: Uint8Array;
}

/** A page of which only some bytes are meant. */
export interface PartialPage {
  /** All 4,096 bytes of it; those that are not meant are 0. */
  readonly bytes: Uint8Array;
  /** Offset and size of each stretch of those that are meant, one after the other; they may overlap. */
  readonly spans: readonly number[];
}

/**
 * Writes the bytes that are meant.
 *
 * @param to A page.
 * @param page What of it is meant.
 */
export function overlayPage(to: Uint8Array, { bytes, spans }: PartialPage): void {
  for (let i = 0; i < spans.length; i += 2) {
    const from = spans[i] as number, end = from + (spans[i + 1] as number);
    for (let at = from; at < end; at++) to[at] = bytes[at] as number;
  }
}

/** What is changed of a machine's state on its way to another one. */
export interface VmChanges {
  /** Writes to memory, in order. */
  readonly memory: readonly LateChange[];
  /** Bytes of the nested state, with the mask of those that are changed. */
  readonly state: Image | undefined;
  /** KVM_STATE_NESTED_* flags that are set. */
  readonly set: number;
}

/**
 * A virtual machine with one vCPU. Calls that KVM may refuse return its errno, 0 when it took them,
 * undefined when nobody knows.
 */
export interface ScenarioVm {
  /** Metadata of the session that {@linkcode ScenarioVm.begin} began. */
  readonly session: Readonly<Record<string, unknown>>;
  /** Of a model: what it met and does not model, since it was new, so that its state is unknown. */
  readonly unmodelled?: string | undefined;
  /**
   * Makes the machine ready for a scenario: a new one, unless the scenario goes on with this one.
   *
   * @param scenario The scenario.
   * @returns Whether it is a new one: its memory is all zero, its vCPU reset.
   */
  begin(scenario: Scenario): boolean;
  /** A page of guest memory, 4,096 bytes, which nobody changes any more. */
  page(gpa: number): Uint8Array;
  /** Whether a page is known to hold these bytes, which nobody changes any more. */
  holds(gpa: number, bytes: Uint8Array): boolean;
  /** Makes a page hold these bytes. */
  fill(gpa: number, bytes: Uint8Array): void;
  /** Writes bytes of a page. */
  overlay(gpa: number, page: PartialPage): void;
  /** Writes bytes, which may cross pages. */
  write(gpa: number, bytes: Uint8Array): void;
  /** KVM_GET_SREGS, changed, KVM_SET_SREGS. */
  setSregs(sregs: VmSregs): number | undefined;
  /** KVM_SET_REGS. */
  setRegs(regs: VmRegs): number | undefined;
  /** Sets VM_HSAVE_PA (KVM_SET_MSRS). */
  setHsave(value: bigint): void;
  /** KVM_SET_NESTED_STATE. */
  setNestedState(state: VmNestedState): number | undefined;
  /** KVM_NMI. */
  nmi(): void;
  /** KVM_INTERRUPT. */
  interrupt(vector: number): number | undefined;
  /** KVM_SMI. */
  smi(): void;
  /** KVM_RUN, until userspace is needed. */
  run(): VmRun;
  /** KVM_RUN with immediate_exit: only what waited for userspace is completed. */
  complete(): void;
  /** Reads all state of the vCPU; what the events that tell of it hold. */
  save(): Partial<EventOf<"save">>;
  /**
   * Tears the machine down and restores the state that was read into a new one, in QEMU's order.
   *
   * @param changes What is changed on the way.
   * @returns What the event that tells of it holds.
   */
  restore(changes: VmChanges): Partial<EventOf<"restore">>;
  /**
   * Everything that the ioctls show.
   *
   * @param phase The point of the scenario.
   * @param pages Pages to show besides.
   * @param run What KVM_RUN came back with before, where that is told.
   * @returns The event; undefined when it is not known what they show.
   */
  look(
    phase: LookPhase,
    pages: readonly ShownPage[],
    run?: VmRun,
  ): EventOf<"regs"> | undefined;
  /** What was seen of the inside since this was last asked, in order. */
  reports(): readonly TraceEvent[];
}
