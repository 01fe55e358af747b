/**
 * The engine as a machine that scenarios run on.
 *
 * @module
 */
import { Buffer } from "node:buffer";
import type { EventOf, Image, TraceEvent } from "../../engine/event.ts";
import { overlayImage } from "../../engine/image/fields.ts";
import { Paths } from "../../engine/paths/paths.ts";
import type { Policy } from "../../engine/policy.ts";
import { PAGE_SIZE } from "../../engine/svm/memory.ts";
import {
  type Capabilities,
  S,
  sameCapabilities,
  VMCB01_AT,
  VMCB02_AT,
} from "../../engine/svm/machine.ts";
import { INNER_SIZE } from "../../engine/svm/inner_layout.ts";
import { REGS_SIZE } from "../../engine/svm/regs_layout.ts";
import { VMCB_SIZE } from "../../engine/svm/vmcb_fields.ts";
import {
  clearNestedState,
  createVcpu,
  interrupt,
  queueNmi,
  queueSmi,
  setHsave,
  setNestedState,
  setRegs,
  setSregs,
} from "../../engine/kvm/ioctls.ts";
import { restoreVcpu, type SavedVcpu, saveVcpu } from "../../engine/kvm/migrate.ts";
import { runVcpu } from "../../engine/kvm/run.ts";
import type { Vcpu } from "../../engine/kvm/vcpu.ts";
import { capabilitiesOf } from "../../engine/replay/session_machine.ts";
import { ImageBuffer, innerView, regsBytes, vmcb02Used } from "../../engine/replay/views.ts";
import { ImageArena } from "./image_arena.ts";
import { VMRUN_LENGTH } from "./inputs.ts";
import { labCapabilities } from "./lab_processor.ts";
import { lookEvent } from "./look.ts";
import type { Scenario } from "./scenario.ts";
import { bytesOf } from "./scenario_memory.ts";
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
} from "./vm.ts";

/** vCPUs that are kept: few scenarios have another processor than the others. */
const SPARES = 4;

/**
 * Scenarios that a vCPU goes through before paths are looked for: random ones come in short
 * sequences, and recording a path makes all that is not recorded slower.
 */
const FEW = 8;

/** How the emulator runs scenarios. */
export interface EmulatedOptions {
  /** Whether the hypervisor uses nested paging itself (kvm_amd.npt). */
  readonly npt: boolean;
  /** Whether reports from inside hold vmcb01 and vmcb02 as well. */
  readonly full?: boolean;
  /** Whether they tell when the active VMCB changes. */
  readonly switches?: boolean;
}

/** A virtual machine of the engine under a policy. */
export class EmulatedVm implements ScenarioVm {
  /** What is run on: a kernel and how it handles an entry that fails. */
  readonly policy: Policy;
  /** The vCPU, once there is one. */
  vcpu: Vcpu | undefined;
  /** What it met and does not model, since it was new. */
  unmodelled: string | undefined;
  readonly #options: EmulatedOptions;
  readonly #images = new ImageArena();
  readonly #regs = new ImageBuffer(REGS_SIZE);
  readonly #inner = new ImageBuffer(INNER_SIZE);
  /** What runs are known to do, of a vCPU that goes through many: those of others are all different. */
  readonly #paths: Paths;
  /** Scenarios that the vCPU went through. */
  #scenarios = 0;
  /** The last vCPUs, each of other capabilities: one that comes again is made of what it was. */
  readonly #spares: Vcpu[] = [];
  #reports: TraceEvent[] = [];
  #saved: SavedVcpu | undefined;
  #cpu: Pick<Scenario, "cpuid" | "physicalBits"> = { cpuid: [], physicalBits: undefined };
  /** VMRUNs of L1 that are no event of their own, since the scenario's input tells of them. */
  #told = 0;
  /** For each page that was set: what it was made to hold, and its version then. */
  readonly #held: (Uint8Array | undefined)[] = [];
  readonly #versions: number[] = [];

  /**
   * @param policy The policy.
   * @param options How scenarios are run.
   */
  constructor(policy: Policy, options: EmulatedOptions) {
    this.policy = policy;
    this.#options = options;
    this.#paths = new Paths(policy);
  }

  /** Metadata of a session. */
  get session(): Readonly<Record<string, unknown>> {
    const { policy } = this;
    return {
      source: "emulator",
      kernel: policy.name,
      npt: this.#options.npt ? 1 : 0,
      capabilities: labCapabilities(this.#cpu),
      shows: SHOWN_PAGES,
      policy: policy.name,
      // Of switches a session is silent unless it says that it sees them.
      ...(this.#options.switches ? { sees: ["check", "warn", "inner", "switch"] } : {}),
      ...(policy.processor === undefined ? {} : { processor_model: policy.processor.name }),
    };
  }

  /** Makes a new vCPU, unless the scenario goes on with the one there is. */
  begin(scenario: Scenario): boolean {
    this.#told = scenario.entry === "setstate" ? 0 : 1;
    this.#reports = [];
    this.#scenarios++;
    if (this.vcpu !== undefined && scenario.keepvm) {
      this.vcpu.unmodelled = "";
      return false;
    }
    this.#scenarios = 1;
    this.#cpu = scenario;
    // What a replay will make of the session is what is run here.
    this.vcpu = this.#create(capabilitiesOf(this.session));
    this.#held.length = 0;
    this.unmodelled = undefined;
    this.#observe(this.vcpu);
    return true;
  }

  #create(caps: Capabilities): Vcpu {
    const spares = this.#spares;
    const spare = spares.find((v) => sameCapabilities(v.caps, caps));
    const v = createVcpu(caps, this.policy, spare);
    if (spare === undefined && spares.unshift(v) > SPARES) spares.pop();
    return v;
  }

  /** A copy of a page. */
  page(gpa: number): Uint8Array {
    return this.#images.copy(this.#v.memory.page(gpa));
  }

  /** Whether a page holds these bytes. */
  holds(gpa: number, bytes: Uint8Array): boolean {
    const { memory } = this.#v;
    const at = gpa / PAGE_SIZE;
    if (this.#held[at] === bytes && this.#versions[at] === memory.versions[at]) return true;
    if (Buffer.compare(memory.page(gpa), bytes) !== 0) return false;
    this.#hold(at, bytes);
    return true;
  }

  /** Makes a page hold these bytes. */
  fill(gpa: number, bytes: Uint8Array): void {
    const { memory } = this.#v;
    const at = gpa / PAGE_SIZE;
    if (this.#held[at] === bytes && this.#versions[at] === memory.versions[at]) return;
    memory.share(gpa, bytes);
    this.#hold(at, bytes);
  }

  /** Writes bytes of a page. */
  overlay(gpa: number, page: PartialPage): void {
    overlayPage(this.#v.memory.writable(gpa), page);
  }

  /** Writes bytes. */
  write(gpa: number, bytes: Uint8Array): void {
    this.#v.memory.writeBytes(gpa, bytes);
  }

  /** KVM_SET_SREGS. */
  setSregs(sregs: VmSregs): number {
    return setSregs(this.#v, sregs);
  }

  /** KVM_SET_REGS, which is never refused. */
  setRegs(regs: VmRegs): number {
    setRegs(this.#v, regs);
    return 0;
  }

  /** VM_HSAVE_PA. */
  setHsave(value: bigint): void {
    setHsave(this.#v, value);
  }

  /** KVM_SET_NESTED_STATE. */
  setNestedState({ flags, vmcb_pa, state }: VmNestedState): number {
    return state === undefined
      ? clearNestedState(this.#v, (flags & 0x100) !== 0)
      : setNestedState(this.#v, flags, vmcb_pa, state);
  }

  /** KVM_NMI. */
  nmi(): void {
    queueNmi(this.#v);
  }

  /** KVM_INTERRUPT. */
  interrupt(vector: number): number {
    return interrupt(this.#v, vector);
  }

  /** KVM_SMI. */
  smi(): void {
    queueSmi(this.#v);
  }

  /** KVM_RUN. */
  run(): VmRun {
    const v = this.#v;
    if (this.#scenarios > FEW) this.#paths.run(v, runVcpu);
    else runVcpu(v);
    const { rc, errno } = v.result;
    return { rc, errno };
  }

  /** KVM_RUN with immediate_exit. */
  complete(): void {
    runVcpu(this.#v, true);
  }

  /** Reads all state of the vCPU. */
  save(): Partial<EventOf<"save">> {
    this.#saved = saveVcpu(this.#v);
    return { sregs_errno: 0, errno: 0 };
  }

  /** Restores it into a new one. */
  restore({ memory, state, set }: VmChanges): Partial<EventOf<"restore">> {
    const v = this.#v;
    const saved = this.#saved as SavedVcpu;
    for (const change of memory) v.memory.writeBytes(change.gpa as number, bytesOf(change));
    const handed = saved.nested.state?.slice();
    if (handed !== undefined && state !== undefined) overlayImage(handed, state);
    const nested = { ...saved.nested, flags: saved.nested.flags | set, state: handed };
    // The lab copies all memory, zeroes too.
    v.memory.resident = v.caps.memory;
    const errnos = restoreVcpu(v, saved, nested);
    return {
      ...errnos,
      resident: BigInt(v.caps.memory),
      flags: nested.flags,
      ...(handed === undefined ? {} : { state: { bytes: handed } }),
    };
  }

  /** What the ioctls show. */
  look(phase: LookPhase, pages: readonly ShownPage[], run?: VmRun): EventOf<"regs"> {
    const v = this.#v;
    const { exit, port } = v.result;
    const regs = { bytes: this.#images.copy(regsBytes(v, this.#regs)) };
    return lookEvent(phase, pages, { regs, run, exit, port, page: (gpa) => this.page(gpa) });
  }

  /** What happened inside. */
  reports(): readonly TraceEvent[] {
    const reports = this.#reports;
    this.#reports = [];
    return reports;
  }

  #hold(at: number, bytes: Uint8Array): void {
    this.#held[at] = bytes;
    this.#versions[at] = this.#v.memory.versions[at] as number;
  }

  get #v(): Vcpu {
    return this.vcpu as Vcpu;
  }

  #observe(v: Vcpu): void {
    const full = this.#options.full === true;
    const add = (event: TraceEvent) => void this.#reports.push(event);
    const image = ({ bytes, known }: Image): Image => {
      const copy = this.#images.copy(bytes);
      return known === undefined ? { bytes: copy } : { bytes: copy, known };
    };
    const vmcb = (at: number) => ({
      bytes: this.#images.copy(v.bytes.subarray(at, at + VMCB_SIZE)),
    });
    v.observer = {
      begin: (way) => {
        if (way !== "vmrun" || this.#told-- > 0) return;
        add({ kind: "vmrun", vcpu: 0, rip: v.u64(VMCB01_AT + S.rip) + BigInt(VMRUN_LENGTH) });
      },
      check: (check, text) => add({ kind: "check", vcpu: 0, check, text }),
      warn: (text) => add({ kind: "warn", vcpu: 0, text }),
      ...(this.#options.switches && {
        switched: (to) => add({ kind: "switch", vcpu: 0, to }),
      }),
      unmodelled: (what) => {
        this.unmodelled = what;
        add({ kind: "unmodelled", vcpu: 0, what });
      },
      inner: (at, ret) => {
        const inner = image(innerView(v, ret, this.#inner));
        if (!full) add({ kind: "inner", vcpu: 0, at, inner });
        else {
          const vmcb01 = vmcb(VMCB01_AT);
          if (!vmcb02Used(v)) add({ kind: "inner", vcpu: 0, at, inner, vmcb01 });
          else add({ kind: "inner", vcpu: 0, at, inner, vmcb01, vmcb02: vmcb(VMCB02_AT) });
        }
      },
    };
  }
}
