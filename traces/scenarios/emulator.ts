/**
 * Runs scenarios on the model, step by step as the lab's program runs them on
 * a kernel, and records what it sees as a lab record.
 *
 * @module
 */
import type { GuestMemory } from "../../engine/svm/memory.ts";
import { C, S, V, VMCB01_AT, VMCB02_AT, VMCB12_AT } from "../../engine/svm/machine.ts";
import { QEMU_7_2 } from "../../engine/processors/qemu_7_2.ts";
import { vmrunRipOfSession } from "../../engine/processors/session.ts";
import type { Policy } from "../../engine/policy.ts";
import type { Observer, Vcpu } from "../../engine/kvm/vcpu.ts";
import { HOST } from "../../engine/kvm/constants.ts";
import { gif } from "../../engine/kvm/control.ts";
import { rflags } from "../../engine/kvm/regs.ts";
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
} from "../../engine/kvm/ioctls.ts";
import { runVcpu } from "../../engine/kvm/run.ts";
import type { LabEvent, LabInner, LabRecord, LabState, WordMap } from "../../codecs/lab/record.ts";
import {
  baseSegments,
  FRESH_BELOW,
  HSAVE_GPA,
  L1_CODE,
  L1_RSP,
  MEMORY_SIZE,
  SMRAM_GPA,
  VMCB12_GPA,
} from "./base.ts";
import { bytesOf, type Scenario, setUpMemory } from "./scenario.ts";

/** How scenarios are run. */
export interface EmulatorOptions {
  /** Whether the hypervisor uses nested paging itself (kvm_amd.npt). */
  readonly npt: boolean;
  /** Whether records hold vmcb01 and vmcb02 as well. */
  readonly full?: boolean;
}

const hex = (value: bigint | number) => value.toString(16);

function words(bytes: Uint8Array, from: number, size: number): WordMap {
  const view = new DataView(bytes.buffer, bytes.byteOffset + from, size);
  const out: Record<string, string> = {};
  for (let at = 0; at < size; at += 8) {
    const value = view.getBigUint64(at, true);
    if (value !== 0n) out[hex(at).padStart(3, "0")] = hex(value).padStart(16, "0");
  }
  return out;
}

function mapName(v: Vcpu, vmcb: number): string {
  const map = v.u32(vmcb + C.msrpm_base_pa);
  if (map === HOST.MSRPM) return "host";
  // With SVM off the merged map is freed; a VMCB may still point at where it was.
  return map === HOST.MERGED_MSRPM && v.u8(V.nested_initialized) !== 0 ? "merged" : "other";
}

/** The state inside the kernel, as the lab prints it. */
export function innerState(at: string, ret: number, v: Vcpu, full: boolean): LabInner {
  const h = (field: number) => hex(v.u64(field));
  const w = (field: number) => hex(v.u32(field));
  const b = (field: number) => hex(v.u8(field));
  const bookkeeping: LabInner = {
    at,
    nested: {
      ret: String(ret),
      guest_mode: v.guestMode ? "1" : "0",
      active: v.u32(V.active) === 2 ? "02" : "01",
      vmcb12_gpa: h(V.vmcb12_gpa),
      last_vmcb12_gpa: h(V.last_vmcb12_gpa),
      ctl_ncr3: h(VMCB12_AT + C.nested_cr3),
      run_pending: b(V.run_pending),
      gif: gif(v) ? "1" : "0",
      mmu: v.u8(V.mmu) === 1 ? "guest" : "root",
      walk: v.u8(V.walk_mmu) === 1 ? "nested" : "root",
      msrpm01: mapName(v, VMCB01_AT),
      msrpm02: v.u8(V.nested_initialized) === 0 ? "none" : mapName(v, VMCB02_AT),
      msrpm_recalc: b(V.msrpm_recalc),
    },
    cpu: {
      cr0: h(V.cr0),
      cr3: h(V.cr3),
      cr4: h(V.cr4),
      efer: h(V.efer),
      rip: h(V.rip),
      rax: h(V.rax),
      rsp: h(V.rsp),
      rflags: hex(BigInt(v.u32(v.vmcb + S.rflags + 4)) << 32n | BigInt(rflags(v) >>> 0)),
      cpu_role: h(V.root_cpu_role),
      root_role: w(V.root_root_role),
      gcpu_role: h(V.guest_cpu_role),
      groot_role: w(V.guest_root_role),
      ncpu_role: h(V.nested_cpu_role),
      req: h(V.requests),
      exc_pend: b(V.exception_pending),
      exc_inj: b(V.exception_injected),
      exc_vec: String(v.u32(V.exception_vector)),
      int_inj: b(V.interrupt_injected),
      nmi_inj: b(V.nmi_injected),
      nmi_l1l2: b(V.nmi_l1_to_l2),
      soft: b(V.soft_int_injected),
      hflags: w(V.hflags),
    },
  };
  if (!full) return bookkeeping;
  const areas = {
    ctl01: words(v.bytes, VMCB01_AT, 0x400),
    sav01: words(v.bytes, VMCB01_AT + 0x400, 0x300),
  };
  if (v.u8(V.nested_initialized) === 0 || mapName(v, VMCB02_AT) === "other") {
    return { ...bookkeeping, ...areas };
  }
  return {
    ...bookkeeping,
    ...areas,
    ctl02: words(v.bytes, VMCB02_AT, 0x400),
    sav02: words(v.bytes, VMCB02_AT + 0x400, 0x300),
  };
}

/** What userspace sees through the ioctls. */
export function userspaceState(v: Vcpu): LabState {
  look(v);
  const h = (field: number) => hex(v.u64(field));
  const cs = v.u16(v.vmcb + S.cs_attrib);
  const forExit = v.u8(V.vmexit_pending) !== 0 && v.u8(V.exception_pending) === 0 &&
    v.u8(V.exception_injected) === 0;
  const vector = v.u32(forExit ? V.vmexit_vector : V.exception_vector);
  const soft = vector === 3 || vector === 4;
  const pending = v.u8(forExit ? V.vmexit_pending : V.exception_pending);
  const injected = forExit ? 0 : v.u8(V.exception_injected);
  const error = v.u32(forExit ? V.vmexit_error : V.exception_error);
  const interrupted = v.u8(V.interrupt_injected) !== 0 && v.u8(V.interrupt_soft) === 0;
  return {
    rip: h(V.rip),
    rax: h(V.rax),
    rsp: h(V.rsp),
    rflags: hex(BigInt(v.u32(v.vmcb + S.rflags + 4)) << 32n | BigInt(rflags(v) >>> 0)),
    cr0: h(V.cr0),
    cr2: h(V.cr2),
    cr3: h(V.cr3),
    cr4: h(V.cr4),
    efer: h(V.efer),
    dr6: h(V.dr6),
    dr7: h(V.dr7),
    cs: `${hex(v.u16(v.vmcb + S.cs_selector))}/${cs >> 9 & 1}/${cs >> 10 & 1}`,
    ss: hex(v.u16(v.vmcb + S.ss_selector)),
    gif: gif(v) ? 1 : 0,
    guest_mode: v.guestMode ? 1 : 0,
    run_pending: v.guestMode && v.u8(V.run_pending) !== 0 ? 1 : 0,
    smm: v.smm ? 1 : 0,
    trip: 0,
    vmcb_pa: v.guestMode ? h(V.vmcb12_gpa) : "0",
    ev_exc: `${soft ? 0 : injected | pending}/${soft ? 0 : pending}/${hex(vector)}/${hex(error)}`,
    ev_int: `${interrupted ? 1 : 0}/${v.u8(V.interrupt_vector)}`,
    ev_nmi: `${v.u8(V.nmi_injected)}/${v.u32(V.nmi_pending)}/${v.u8(V.nmi_masked)}`,
  };
}

function page(memory: GuestMemory, gpa: number, size: number): WordMap {
  const bytes = new Uint8Array(size);
  for (let i = 0; i < size; i++) bytes[i] = memory.read8(gpa + i);
  return words(bytes, 0, size);
}

/** Where a scenario stands when a listener looks: the points at which userspace has a turn. */
export type EmulatorPoint = "pre" | "mid" | "smm" | "post";

/** Runs scenarios one after another, keeping the virtual machine where they ask for it. */
export class Emulator {
  /** The policy. */
  readonly policy: Policy;
  /** How scenarios are run. */
  readonly options: EmulatorOptions;
  /** The vCPU of the last scenario. */
  vcpu: Vcpu | undefined;
  #events: LabEvent[] = [];

  /**
   * @param policy The policy.
   * @param options How scenarios are run.
   */
  constructor(policy: Policy, options: EmulatorOptions) {
    this.policy = policy;
    this.options = options;
  }

  /**
   * Runs one scenario.
   *
   * @param scenario The scenario.
   * @returns What was seen, as the lab records it.
   */
  run(scenario: Scenario): LabRecord {
    const v = this.#machine(scenario);
    const refused = this.#setUp(v, scenario);
    const pre = {
      ...userspaceState(v),
      vmcb12: page(v.memory, VMCB12_GPA, 4096),
      ...(Object.keys(refused).length > 0 ? { setup_errors: refused } : {}),
    };
    this.#events = [];
    v.observer = this.#observer();
    let setstate: { sregs_errno: number; errno: number } | undefined;
    if (scenario.entry === "setstate") setstate = restoreState(v, scenario);
    runVcpu(v);
    let mid: LabState | undefined, smm: LabState | undefined;
    if (scenario.entry === "rsm") {
      mid = { ...userspaceState(v), rc: v.result.rc, port: "0", ...exitOf(v) };
      queueSmi(v);
      runVcpu(v);
      smm = {
        ...userspaceState(v),
        rc: v.result.rc,
        port: "0",
        ...exitOf(v),
        vmcb12: page(v.memory, VMCB12_GPA, 4096),
        hsave: page(v.memory, HSAVE_GPA, 4096),
        smram: page(v.memory, SMRAM_GPA, 512),
      };
      for (const change of scenario.late) v.memory.writeBytes(change.gpa, bytesOf(change));
      runVcpu(v);
    }
    v.observer = undefined;
    const post: LabState = {
      ...userspaceState(v),
      rc: v.result.rc,
      errno: v.result.errno,
      ...exitOf(v),
      vmcb12: page(v.memory, VMCB12_GPA, 4096),
    };
    return {
      case: scenario.name,
      spec: scenario.spec,
      kernel: this.policy.name,
      npt: this.options.npt ? 1 : 0,
      events: this.#events,
      pre,
      ...(mid ? { mid } : {}),
      ...(smm ? { smm } : {}),
      ...(setstate ? { setstate } : {}),
      post,
    } as LabRecord;
  }

  #machine(scenario: Scenario): Vcpu {
    if (this.vcpu === undefined || !scenario.keepvm) {
      this.vcpu = createVcpu(
        {
          physicalBits: 40,
          npt: this.options.npt,
          memory: MEMORY_SIZE,
          resident: FRESH_BELOW,
          processor: QEMU_7_2,
          vmrunRip: vmrunRipOfSession({ source: "emulator", policy: this.policy.name }),
        },
        this.policy,
      );
    }
    return this.vcpu;
  }

  /** Sets the vCPU up as userspace does; gives the errno of each ioctl that was refused, as the lab names them. */
  #setUp(v: Vcpu, scenario: Scenario): Record<string, string> {
    const refused: Record<string, string> = {};
    const note = (name: string, errno: number) => {
      if (errno !== 0) refused[name] = String(errno);
    };
    const memory = v.memory;
    const l1 = scenario.l1;
    setUpMemory(scenario, { write: (gpa, bytes) => memory.writeBytes(gpa, bytes) });
    const { cs, ds, es, fs, gs, ss } = baseSegments(l1.pae);
    const sregs = setSregs(v, {
      cr0: l1.cr0,
      cr3: l1.cr3,
      cr4: l1.cr4,
      efer: l1.efer,
      segments: { cs, ds, es, fs, gs, ss },
    });
    note("SREGS_ERR", sregs);
    setRegs(v, { rip: l1.rip, rax: l1.rax, rsp: L1_RSP, rflags: l1.rflags });
    setHsave(v, l1.hsave);
    note("NSTATE_ERR", clearNestedState(v, scenario.gif));
    if (scenario.nmi) queueNmi(v);
    if (scenario.irq !== 0) interrupt(v, scenario.irq);
    return refused;
  }

  #observer(): Observer {
    const events = this.#events;
    const full = this.options.full === true;
    return {
      step() {},
      check: (_id, text) => events.push({ check_failed: text }),
      warn: (text) => events.push({ warn: text }),
      inner: (at, ret, v) => events.push(innerState(at, ret, v, full)),
    };
  }
}

function exitOf(v: Vcpu): { exit: number; port?: string } {
  const r = v.result;
  return r.exit === 2 ? { exit: r.exit, port: hex(r.port) } : { exit: r.exit };
}

function restoreState(v: Vcpu, scenario: Scenario): { sregs_errno: number; errno: number } {
  const m = v.memory;
  const save = VMCB12_GPA + 0x400;
  const word = (at: number) => m.read64(save + at);
  const sregs_errno = setSregs(v, {
    cr0: word(0x158),
    cr3: word(0x150),
    cr4: word(0x148),
    efer: word(0xd0),
    segments: {},
  });
  setRegs(v, { rip: word(0x178), rsp: word(0x1d8), rax: word(0x1f8), rflags: 2n });
  const state = new Uint8Array(4096);
  const page = m.page(VMCB12_GPA);
  state.set(page.subarray(0, 0x400));
  state.set(page.subarray(0x400, 0x698), 0x400);
  const view = new DataView(state.buffer, 0x400);
  const l1 = scenario.l1;
  for (
    const [at, value] of [
      [0xd0, l1.efer],
      [0x148, l1.cr4],
      [0x150, l1.cr3],
      [0x158, l1.cr0],
      [0x160, 0x400n],
      [0x168, 0xffff0ff0n],
      [0x170, l1.rflags],
      [0x178, BigInt(L1_CODE + 3)],
      [0x1d8, L1_RSP],
      [0x1f8, l1.rax],
    ] as const
  ) view.setBigUint64(at, value, true);
  for (const change of scenario.late) state.set(bytesOf(change), 0x400 + change.offset);
  const flags = 1 | (scenario.gif ? 0x100 : 0);
  return { sregs_errno, errno: setNestedState(v, flags, l1.rax, state) };
}
