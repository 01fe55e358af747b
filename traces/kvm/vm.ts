/**
 * This machine's KVM as a machine that scenarios run on.
 *
 * @module
 */
import { Buffer } from "node:buffer";
import type { EventOf, TraceEvent } from "../../engine/event.ts";
import { overlayImage } from "../../engine/image/fields.ts";
import { VMCB_SIZE } from "../../engine/svm/vmcb_fields.ts";
import { outcomeEvents } from "../../codecs/lab/events.ts";
import { FRESH_BELOW, MEMORY_SIZE } from "../scenarios/base.ts";
import { lookEvent } from "../scenarios/look.ts";
import type { Scenario } from "../scenarios/scenario.ts";
import { NESTED_FLAGS } from "../scenarios/inputs.ts";
import { bytesOf } from "../scenarios/scenario_memory.ts";
import {
  type LookPhase,
  overlayPage,
  type PartialPage,
  type ScenarioVm,
  SHOWN_PAGES,
  type ShownPage,
  type VmChanges,
  type VmNestedState,
  type VmRegs,
  type VmRun,
  type VmSregs,
} from "../scenarios/vm.ts";
import type { KvmHost } from "./host.ts";
import type { Alarm, Libc } from "./libc.ts";
import { KvmMachine, type SavedState } from "./machine.ts";
import { KVM_LAYOUTS } from "./structs.ts";
import type { OwnTrace } from "./tracefs.ts";

/** What machines are made and watched with. */
export interface KvmTools {
  /** The C library. */
  readonly libc: Libc;
  /** KVM's device. */
  readonly kvm: number;
  /** Ends what runs too long. */
  readonly alarm: Alarm;
  /** Tracepoints, where they can be had. */
  readonly trace: OwnTrace | undefined;
}

/** Where `struct kvm_nested_state` has the two areas. */
const NESTED_DATA = KVM_LAYOUTS.kvm_nested_state.size;

/** A virtual machine of KVM, made anew as often as scenarios ask for it. */
export class KvmVm implements ScenarioVm, Disposable {
  readonly #tools: KvmTools;
  readonly #host: KvmHost;
  #machine: KvmMachine | undefined;
  #processor: Pick<Scenario, "cpuid" | "physicalBits"> = { cpuid: [], physicalBits: undefined };
  #saved: SavedState | undefined;

  /**
   * @param tools What machines are made with.
   * @param host What is known of the machine that KVM runs on.
   */
  constructor(tools: KvmTools, host: KvmHost) {
    this.#tools = tools;
    this.#host = host;
  }

  /** Metadata of a session. */
  get session(): Readonly<Record<string, unknown>> {
    const { kernel, processor, npt } = this.#host;
    const { cpuid, hostCpuid } = this.#m;
    return {
      source: "kvm",
      kernel,
      processor,
      ...(npt === undefined ? {} : { npt: npt ? 1 : 0 }),
      sees: this.#tools.trace === undefined ? [] : ["check"],
      capabilities: {
        physical_bits: cpuid.physicalBits,
        memory: MEMORY_SIZE,
        resident: FRESH_BELOW,
        cpuid: cpuid.toMeta(),
        host_cpuid: hostCpuid.toMeta(),
        host_physical_bits: hostCpuid.physicalBits,
      },
      shows: SHOWN_PAGES,
    };
  }

  /** Makes a new machine, unless the scenario goes on with the one there is. */
  begin(scenario: Scenario): boolean {
    if (this.#machine !== undefined && scenario.keepvm) return false;
    this.#processor = scenario;
    this.#renew();
    // Which pages the host has at hand decides what interrupts an event's delivery.
    this.write(0, new Uint8Array(FRESH_BELOW));
    return true;
  }

  /** A page of guest memory. */
  page(gpa: number): Uint8Array {
    return this.#m.page(gpa, VMCB_SIZE);
  }

  /** Whether a page holds these bytes. */
  holds(gpa: number, bytes: Uint8Array): boolean {
    return Buffer.compare(this.page(gpa), bytes) === 0;
  }

  /** Makes a page hold these bytes. */
  fill(gpa: number, bytes: Uint8Array): void {
    this.#m.write(gpa, bytes);
  }

  /** Writes bytes of a page. */
  overlay(gpa: number, page: PartialPage): void {
    const bytes = this.#m.page(gpa, VMCB_SIZE);
    overlayPage(bytes, page);
    this.#m.write(gpa, bytes);
  }

  /** Writes bytes. */
  write(gpa: number, bytes: Uint8Array): void {
    this.#m.write(gpa, bytes);
  }

  /** KVM_SET_SREGS. */
  setSregs(sregs: VmSregs): number {
    return this.#m.setSregs(sregs);
  }

  /** KVM_SET_REGS. */
  setRegs(regs: VmRegs): number {
    return this.#m.setRegs(regs);
  }

  /** VM_HSAVE_PA. */
  setHsave(value: bigint): void {
    this.#m.setHsave(value);
  }

  /** KVM_SET_NESTED_STATE. */
  setNestedState(state: VmNestedState): number {
    return this.#m.setNestedState(state);
  }

  /** KVM_NMI. */
  nmi(): void {
    this.#m.nmi();
  }

  /** KVM_INTERRUPT. */
  interrupt(vector: number): number {
    return this.#m.interrupt(vector);
  }

  /** KVM_SMI. */
  smi(): void {
    this.#m.smi();
  }

  /** KVM_RUN. */
  run(): VmRun {
    return this.#m.run();
  }

  /** KVM_RUN with immediate_exit. */
  complete(): void {
    this.#m.complete();
  }

  /** Reads all state of the vCPU. */
  save(): Partial<EventOf<"save">> {
    this.#saved = this.#m.save();
    const { sregs_errno, errno } = this.#saved;
    return { sregs_errno, errno };
  }

  /** Restores it into a new machine. */
  restore({ memory, state, set }: VmChanges): Partial<EventOf<"restore">> {
    const saved = this.#saved as SavedState;
    const image = this.#m.memory;
    this.#renew();
    this.write(0, image);
    for (const change of memory) this.write(change.gpa as number, bytesOf(change));
    const { nested } = saved;
    const handed = nested.bytes.subarray(NESTED_DATA, NESTED_DATA + VMCB_SIZE);
    if (state !== undefined) overlayImage(handed, state);
    const flags = nested.number("flags") | set;
    nested.set("flags", flags);
    return {
      ...this.#m.restore(saved),
      resident: BigInt(MEMORY_SIZE),
      flags,
      ...((flags & NESTED_FLAGS.guestMode) === 0 ? {} : { state: { bytes: handed.slice() } }),
    };
  }

  /** What the ioctls show. */
  look(phase: LookPhase, pages: readonly ShownPage[], run?: VmRun): EventOf<"regs"> {
    const regs = this.#m.look();
    const { exit, port } = this.#m.exit();
    return lookEvent(phase, pages, { regs, run, exit, port, page: (gpa) => this.page(gpa) });
  }

  /** What tracepoints told. */
  reports(): readonly TraceEvent[] {
    return this.#tools.trace?.take().flatMap(outcomeEvents) ?? [];
  }

  /** Ends the machine. */
  [Symbol.dispose](): void {
    this.#machine?.[Symbol.dispose]();
    this.#machine = undefined;
  }

  get #m(): KvmMachine {
    return this.#machine as KvmMachine;
  }

  #renew(): void {
    this[Symbol.dispose]();
    const { libc, kvm, alarm } = this.#tools;
    this.#machine = new KvmMachine(libc, kvm, alarm, this.#host.smm, this.#processor);
  }
}
