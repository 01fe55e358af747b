/**
 * One virtual machine with one vCPU on KVM, and what scenarios do with it: the
 * lab's machine, made by the same calls in the same order.
 *
 * @module
 */
import type { LabState, WordMap } from "../../codecs/lab/record.ts";
import { wordsOf } from "../../codecs/lab/views.ts";
import {
  type BaseSegment,
  baseSegments,
  HSAVE_GPA,
  L1_CODE,
  L1_RSP,
  MEMORY_SIZE,
  SMRAM_GPA,
  VMCB12_GPA,
} from "../scenarios/base.ts";
import { bytesOf, type Scenario, setUpMemory } from "../scenarios/scenario.ts";
import { cutCpuid } from "./cpuid.ts";
import { errnoText, KvmError } from "./error.ts";
import { type Alarm, ERRNO, type Libc, type Mapping } from "./libc.ts";
import { Struct } from "./struct.ts";
import { IOCTL, KVM_EXIT_IO, KVM_LAYOUTS, type KvmIoctlName, RUN } from "./structs.ts";

/** Slot 0 as system management mode sees it: its own address space. */
const SMM_SLOT = 1 << 16;
const MSR_VM_HSAVE_PA = 0xc001_0117;
const NESTED = { guestMode: 1, runPending: 2, gif: 0x100, svm: 1 } as const;
/** Entries of CPUID that KVM may support. */
const CPUID_ENTRIES = 200;
/**
 * How long L2 may run: so many ticks of so many milliseconds. When the host
 * stands still for a while its clock jumps, but that is one tick, however long,
 * and does not stop a run that had no time to end.
 */
const TICKS = 10;
const TICK_MS = 100;
/** Of vmcb12's save area, what is copied into L1's for KVM_SET_NESTED_STATE. */
const SAVE_AREA = 0x400;
const COPIED_SAVE = 0x298;

/** What KVM_RUN came back with. */
export interface RunResult {
  /** Return value. */
  readonly rc: number;
  /** errno; 0 when it went well. */
  readonly errno: number;
}

/** A virtual machine with one vCPU. */
export class KvmMachine implements Disposable {
  /** Physical address bits of its processor. */
  readonly physicalBits: number;
  readonly #libc: Libc;
  readonly #alarm: Alarm;
  readonly #vm: number;
  readonly #vcpu: number;
  readonly #run: Mapping;
  readonly #memory: Mapping;
  readonly #exit = new Uint8Array(64);

  /**
   * Creates it.
   *
   * @param libc The C library.
   * @param kvm KVM's device.
   * @param alarm Ends what runs too long.
   * @param smm Whether to give it memory in system management mode.
   * @throws {KvmError} `call`.
   */
  constructor(libc: Libc, kvm: number, alarm: Alarm, smm: boolean) {
    this.#libc = libc;
    this.#alarm = alarm;
    this.#vm = this.#must(kvm, "KVM_CREATE_VM");
    this.#memory = libc.map(MEMORY_SIZE);
    const region = new Struct(KVM_LAYOUTS.kvm_userspace_memory_region);
    region.set("memory_size", MEMORY_SIZE);
    region.set("userspace_addr", this.#memory.address);
    this.#must(this.#vm, "KVM_SET_USER_MEMORY_REGION", region.bytes);
    if (smm) {
      region.set("slot", SMM_SLOT);
      this.#must(this.#vm, "KVM_SET_USER_MEMORY_REGION", region.bytes);
    }
    this.#vcpu = this.#must(this.#vm, "KVM_CREATE_VCPU");
    this.#run = libc.map(this.#must(kvm, "KVM_GET_VCPU_MMAP_SIZE"), this.#vcpu);
    const { size } = KVM_LAYOUTS.kvm_cpuid_entry2;
    const cpuid = new Struct(
      KVM_LAYOUTS.kvm_cpuid2,
      KVM_LAYOUTS.kvm_cpuid2.size + CPUID_ENTRIES * size,
    );
    cpuid.set("nent", CPUID_ENTRIES);
    this.#must(kvm, "KVM_GET_SUPPORTED_CPUID", cpuid.bytes);
    this.physicalBits = cutCpuid(cpuid.bytes);
    this.#must(this.#vcpu, "KVM_SET_CPUID2", cpuid.bytes);
  }

  /** Ends it. */
  [Symbol.dispose](): void {
    const libc = this.#libc;
    libc.unmap(this.#run);
    libc.close(this.#vcpu);
    libc.close(this.#vm);
    libc.unmap(this.#memory);
  }

  /**
   * Sets memory and L1 up for a scenario, and queues its events.
   *
   * All memory that the base covers is written, also where it is zeroes already:
   * which pages the host has at hand decides what interrupts an event's delivery.
   *
   * @param scenario The scenario.
   * @returns Calls that KVM refused, with their errno, as the lab names them.
   */
  setUp(scenario: Scenario): Record<string, string> {
    const errors: Record<string, string> = {};
    const note = (name: string, errno: number) => {
      if (errno !== 0) errors[`${name}_ERR`] = String(errno);
    };
    setUpMemory(scenario, { write: (gpa, bytes) => this.write(gpa, bytes) });
    const { l1 } = scenario;
    const sregs = this.#sregs();
    const segments = baseSegments(l1.pae);
    for (const name of ["cs", "ds", "es", "fs", "gs", "ss"] as const) {
      setSegment(sregs.part(name), segments[name]);
    }
    for (const name of ["cr0", "cr3", "cr4", "efer"] as const) sregs.set(name, l1[name]);
    note("SREGS", this.#try("KVM_SET_SREGS", sregs.bytes));
    const { rip, rax, rflags } = l1;
    note("REGS", this.#setRegs({ rip, rax, rflags, rsp: L1_RSP }));
    this.#setMsr(MSR_VM_HSAVE_PA, l1.hsave);
    const nested = new Struct(KVM_LAYOUTS.kvm_nested_state);
    nested.set("flags", scenario.gif ? NESTED.gif : 0);
    nested.set("format", NESTED.svm);
    nested.set("size", nested.bytes.length);
    note("NSTATE", this.#try("KVM_SET_NESTED_STATE", nested.bytes));
    if (scenario.nmi) this.#try("KVM_NMI");
    if (scenario.irq !== 0) {
      const interrupt = new Struct(KVM_LAYOUTS.kvm_interrupt);
      interrupt.set("irq", scenario.irq);
      note("IRQ", this.#try("KVM_INTERRUPT", interrupt.bytes));
    }
    return errors;
  }

  /** Enters L2 through KVM_SET_NESTED_STATE; errno of both calls. */
  restore(scenario: Scenario): { sregs_errno: number; errno: number } {
    const { l1 } = scenario;
    const vmcb12 = this.page(VMCB12_GPA, 4096);
    const view = new DataView(vmcb12.buffer, SAVE_AREA);
    const l2 = (at: number) => view.getBigUint64(at, true);
    const sregs = this.#sregs();
    for (
      const [name, at] of [["cr0", 0x158], ["cr3", 0x150], ["cr4", 0x148], ["efer", 0xd0]] as const
    ) {
      sregs.set(name, l2(at));
    }
    const sregs_errno = this.#try("KVM_SET_SREGS", sregs.bytes);
    this.#setRegs({ rip: l2(0x178), rsp: l2(0x1d8), rax: l2(0x1f8), rflags: 2n });
    const { size } = KVM_LAYOUTS.kvm_nested_state;
    const nested = new Struct(KVM_LAYOUTS.kvm_nested_state, size + 4096);
    nested.set("flags", NESTED.guestMode | (scenario.gif ? NESTED.gif : 0));
    nested.set("format", NESTED.svm);
    nested.set("size", nested.bytes.length);
    nested.set("vmcb_pa", l1.rax);
    nested.bytes.set(vmcb12.subarray(0, SAVE_AREA + COPIED_SAVE), size);
    const save = new DataView(nested.bytes.buffer, size + SAVE_AREA);
    const l1State = [
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
    ] as const;
    for (const [at, value] of l1State) save.setBigUint64(at, BigInt.asUintN(64, value), true);
    for (const change of scenario.late) {
      nested.bytes.set(bytesOf(change), size + SAVE_AREA + change.offset);
    }
    return { sregs_errno, errno: this.#try("KVM_SET_NESTED_STATE", nested.bytes) };
  }

  /** Queues an SMI; errno. */
  smi(): number {
    return this.#try("KVM_SMI");
  }

  /** Runs the vCPU until userspace is needed, or for {@linkcode TICKS} ticks. */
  run(): RunResult {
    for (let ticks = 0;;) {
      const end = performance.now() + TICK_MS;
      this.#alarm.set(TICK_MS);
      const rc = this.#libc.ioctl(this.#vcpu, IOCTL.KVM_RUN);
      const errno = rc === 0 ? 0 : this.#libc.errno;
      this.#alarm.set(0);
      // Another signal than the timer's, such as that of Ctrl-C, is no tick.
      if (errno === ERRNO.EINTR && performance.now() >= end) ticks++;
      if (errno !== ERRNO.EINTR || ticks === TICKS) return { rc, errno };
    }
  }

  /** Why KVM_RUN came back. */
  exit(): { exit: number; port?: string } {
    this.#libc.load(this.#run, 0, this.#exit);
    const view = new DataView(this.#exit.buffer);
    const exit = view.getUint32(RUN.exit_reason, true);
    if (exit !== KVM_EXIT_IO) return { exit };
    return { exit, port: view.getUint16(RUN.io_port, true).toString(16) };
  }

  /** Everything that the ioctls show, in the lab's form. */
  look(): LabState {
    const regs = new Struct(KVM_LAYOUTS.kvm_regs);
    this.#must(this.#vcpu, "KVM_GET_REGS", regs.bytes);
    const sregs = this.#sregs();
    const debug = new Struct(KVM_LAYOUTS.kvm_debugregs);
    this.#must(this.#vcpu, "KVM_GET_DEBUGREGS", debug.bytes);
    const events = new Struct(KVM_LAYOUTS.kvm_vcpu_events);
    this.#must(this.#vcpu, "KVM_GET_VCPU_EVENTS", events.bytes);
    const nested = new Struct(
      KVM_LAYOUTS.kvm_nested_state,
      KVM_LAYOUTS.kvm_nested_state.size + 8192,
    );
    nested.set("size", nested.bytes.length);
    this.#must(this.#vcpu, "KVM_GET_NESTED_STATE", nested.bytes);
    const flags = nested.number("flags");
    const bit = (mask: number) => (flags & mask) === 0 ? 0 : 1;
    const hex = (value: bigint | number) => value.toString(16);
    const e = (name: Parameters<typeof events.number>[0]) => events.number(name);
    const cs = new Struct(KVM_LAYOUTS.kvm_segment, sregs.part("cs"));
    const ss = new Struct(KVM_LAYOUTS.kvm_segment, sregs.part("ss"));
    return {
      rip: hex(regs.get("rip")),
      rax: hex(regs.get("rax")),
      rsp: hex(regs.get("rsp")),
      rflags: hex(regs.get("rflags")),
      cr0: hex(sregs.get("cr0")),
      cr2: hex(sregs.get("cr2")),
      cr3: hex(sregs.get("cr3")),
      cr4: hex(sregs.get("cr4")),
      efer: hex(sregs.get("efer")),
      dr6: hex(debug.get("dr6")),
      dr7: hex(debug.get("dr7")),
      cs: `${hex(cs.number("selector"))}/${cs.number("l")}/${cs.number("db")}`,
      ss: hex(ss.number("selector")),
      gif: bit(NESTED.gif),
      guest_mode: bit(NESTED.guestMode),
      run_pending: bit(NESTED.runPending),
      smm: e("smi_smm"),
      trip: e("triple_fault_pending"),
      vmcb_pa: hex(nested.get("vmcb_pa")),
      ev_exc: `${e("exception_injected")}/${e("exception_pending")}/${hex(e("exception_nr"))}/${
        hex(e("exception_error_code"))
      }`,
      ev_int: `${e("interrupt_injected")}/${e("interrupt_nr")}`,
      ev_nmi: `${e("nmi_injected")}/${e("nmi_pending")}/${e("nmi_masked")}`,
    };
  }

  /** Bytes of guest memory. */
  page(gpa: number, size: number): Uint8Array<ArrayBuffer> {
    const bytes = new Uint8Array(size);
    this.#libc.load(this.#memory, gpa, bytes);
    return bytes;
  }

  /** Writes guest memory. */
  write(gpa: number, bytes: Uint8Array): void {
    this.#libc.store(this.#memory, gpa, bytes);
  }

  /** vmcb12 in memory. */
  get vmcb12(): WordMap {
    return wordsOf(this.page(VMCB12_GPA, 4096));
  }

  /** The host save area in memory. */
  get hsave(): WordMap {
    return wordsOf(this.page(HSAVE_GPA, 4096));
  }

  /** The SMRAM state save area. */
  get smram(): WordMap {
    return wordsOf(this.page(SMRAM_GPA, 512));
  }

  #sregs() {
    const sregs = new Struct(KVM_LAYOUTS.kvm_sregs);
    this.#must(this.#vcpu, "KVM_GET_SREGS", sregs.bytes);
    return sregs;
  }

  #setRegs(values: { rip: bigint; rax: bigint; rsp: bigint; rflags: bigint }): number {
    const regs = new Struct(KVM_LAYOUTS.kvm_regs);
    for (const name of ["rip", "rax", "rsp", "rflags"] as const) regs.set(name, values[name]);
    return this.#try("KVM_SET_REGS", regs.bytes);
  }

  #setMsr(index: number, value: bigint): void {
    const { kvm_msrs, kvm_msr_entry } = KVM_LAYOUTS;
    const msrs = new Struct(kvm_msrs, kvm_msrs.size + kvm_msr_entry.size);
    msrs.set("nmsrs", 1);
    const entry = new Struct(kvm_msr_entry);
    entry.set("index", index);
    entry.set("data", value);
    msrs.bytes.set(entry.bytes, kvm_msrs.size);
    // How many were taken; a value that KVM refuses is left as it is, as the lab does.
    this.#libc.ioctl(this.#vcpu, IOCTL.KVM_SET_MSRS, msrs.bytes);
  }

  /** errno of a call to the vCPU. */
  #try(name: KvmIoctlName, argument: Uint8Array<ArrayBuffer> | number = 0): number {
    return this.#libc.ioctl(this.#vcpu, IOCTL[name], argument) === 0 ? 0 : this.#libc.errno;
  }

  #must(fd: number, name: KvmIoctlName, argument: Uint8Array<ArrayBuffer> | number = 0): number {
    const result = this.#libc.ioctl(fd, IOCTL[name], argument);
    if (result >= 0) return result;
    const { errno } = this.#libc;
    throw new KvmError("call", `KVM refused ${name}: ${errnoText(errno)}`, errno);
  }
}

/** A segment register as KVM_SET_SREGS takes it, from its 12 packed attribute bits. */
function setSegment(bytes: Uint8Array<ArrayBuffer>, from: BaseSegment): void {
  const segment = new Struct(KVM_LAYOUTS.kvm_segment, bytes);
  const { selector, attrib, limit, base } = from;
  const bit = (at: number) => attrib >> at & 1;
  segment.set("base", base);
  segment.set("limit", limit);
  segment.set("selector", selector);
  segment.set("type", attrib & 15);
  segment.set("s", bit(4));
  segment.set("dpl", attrib >> 5 & 3);
  segment.set("present", bit(7));
  segment.set("avl", bit(8));
  segment.set("l", bit(9));
  segment.set("db", bit(10));
  segment.set("g", bit(11));
  segment.set("unusable", 0);
}

/** Non-zero words by offset. */
