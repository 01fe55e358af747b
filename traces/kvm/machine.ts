/**
 * One virtual machine with one vCPU on KVM: what userspace asks of it, call by call.
 *
 * @module
 */
import type { Image } from "../../engine/event.ts";
import type { Cpuid } from "../../engine/svm/cpuid.ts";
import { VMCB_SIZE } from "../../engine/svm/vmcb_fields.ts";
import { MEMORY_SIZE } from "../scenarios/base.ts";
import type { Scenario } from "../scenarios/scenario.ts";
import type { VmNestedState, VmRegs, VmRun, VmSregs } from "../scenarios/vm.ts";
import { cpuidOf, cutCpuid } from "./cpuid.ts";
import { errnoText, KvmError } from "./error.ts";
import { type Alarm, ERRNO, type Libc, type Mapping } from "./libc.ts";
import { seenImage, setSegment } from "./seen_image.ts";
import { Struct } from "./struct.ts";
import {
  type DEBUGREGS_FIELDS,
  type EVENTS_FIELDS,
  IOCTL,
  KVM_EXIT_IO,
  KVM_LAYOUTS,
  type KvmIoctlName,
  type NESTED_FIELDS,
  type REGS_FIELDS,
  RUN,
  type SREGS2_FIELDS,
} from "./structs.ts";

/** Slot 0 as system management mode sees it: its own address space. */
const SMM_SLOT = 1 << 16;
const MSR_VM_HSAVE_PA = 0xc001_0117;
const MSR_PAT = 0x277;
/** KVM_STATE_NESTED_FORMAT_SVM. */
const FORMAT_SVM = 1;
/** Entries of CPUID that KVM may support. */
const CPUID_ENTRIES = 200;
/**
 * How long L2 may run: so many ticks of so many milliseconds. When the host
 * stands still for a while its clock jumps, but that is one tick, however long,
 * and does not stop a run that had no time to end.
 */
const TICKS = 10;
const TICK_MS = 100;

/** Everything that is read of a vCPU before it goes. */
export interface SavedState {
  /** KVM_GET_REGS. */
  readonly regs: Struct<typeof REGS_FIELDS>;
  /** KVM_GET_SREGS2. */
  readonly sregs: Struct<typeof SREGS2_FIELDS>;
  /** KVM_GET_DEBUGREGS. */
  readonly debug: Struct<typeof DEBUGREGS_FIELDS>;
  /** KVM_GET_VCPU_EVENTS. */
  readonly events: Struct<typeof EVENTS_FIELDS>;
  /** KVM_GET_MP_STATE. */
  readonly mpState: Uint8Array<ArrayBuffer>;
  /** KVM_GET_NESTED_STATE. */
  readonly nested: Struct<typeof NESTED_FIELDS>;
  /** VM_HSAVE_PA. */
  readonly hsave: bigint;
  /** The page attribute table. */
  readonly pat: bigint;
  /** errno of KVM_GET_SREGS2. */
  readonly sregs_errno: number;
  /** errno of KVM_GET_NESTED_STATE. */
  readonly errno: number;
}

/** A virtual machine with one vCPU. */
export class KvmMachine implements Disposable {
  /** L1's processor, and what KVM could offer it. */
  readonly cpuid: Cpuid;
  /** The latter. */
  readonly hostCpuid: Cpuid;
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
   * @param processor What a scenario takes from L1's processor.
   * @throws {KvmError} `call`.
   */
  constructor(
    libc: Libc,
    kvm: number,
    alarm: Alarm,
    smm: boolean,
    processor: Pick<Scenario, "cpuid" | "physicalBits">,
  ) {
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
    this.hostCpuid = cpuidOf(cpuid.bytes);
    cutCpuid(cpuid.bytes, processor);
    this.cpuid = cpuidOf(cpuid.bytes);
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

  /** KVM_GET_SREGS, changed, KVM_SET_SREGS; errno. */
  setSregs({ segments, ...registers }: VmSregs): number {
    const sregs = new Struct(KVM_LAYOUTS.kvm_sregs);
    this.#must(this.#vcpu, "KVM_GET_SREGS", sregs.bytes);
    for (const name of ["cs", "ds", "es", "fs", "gs", "ss"] as const) {
      const segment = segments[name];
      if (segment !== undefined) setSegment(sregs.part(name), segment);
    }
    for (const name of ["cr0", "cr3", "cr4", "efer"] as const) sregs.set(name, registers[name]);
    return this.#try("KVM_SET_SREGS", sregs.bytes);
  }

  /** KVM_SET_REGS, all others 0; errno. */
  setRegs(values: VmRegs): number {
    const regs = new Struct(KVM_LAYOUTS.kvm_regs);
    for (const name of ["rip", "rax", "rsp", "rflags"] as const) regs.set(name, values[name]);
    return this.#try("KVM_SET_REGS", regs.bytes);
  }

  /** Sets VM_HSAVE_PA. */
  setHsave(value: bigint): void {
    this.#setMsr(MSR_VM_HSAVE_PA, value);
  }

  /** KVM_SET_NESTED_STATE; errno. */
  setNestedState({ flags, vmcb_pa, state }: VmNestedState): number {
    const { size } = KVM_LAYOUTS.kvm_nested_state;
    const nested = new Struct(
      KVM_LAYOUTS.kvm_nested_state,
      state === undefined ? size : size + VMCB_SIZE,
    );
    nested.set("flags", flags);
    nested.set("format", FORMAT_SVM);
    nested.set("size", nested.bytes.length);
    nested.set("vmcb_pa", vmcb_pa);
    if (state !== undefined) nested.bytes.set(state, size);
    return this.#try("KVM_SET_NESTED_STATE", nested.bytes);
  }

  /** Queues an NMI. */
  nmi(): void {
    this.#try("KVM_NMI");
  }

  /** Queues an interrupt; errno. */
  interrupt(vector: number): number {
    const interrupt = new Struct(KVM_LAYOUTS.kvm_interrupt);
    interrupt.set("irq", vector);
    return this.#try("KVM_INTERRUPT", interrupt.bytes);
  }

  /** Queues an SMI; errno. */
  smi(): number {
    return this.#try("KVM_SMI");
  }

  /** Runs the vCPU until userspace is needed, or for {@linkcode TICKS} ticks. */
  run(): VmRun {
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

  /** KVM_RUN with immediate_exit: completes what waited for userspace. */
  complete(): void {
    const flag = new Uint8Array(1);
    flag[0] = 1;
    this.#libc.store(this.#run, RUN.immediate_exit, flag);
    this.#libc.ioctl(this.#vcpu, IOCTL.KVM_RUN);
    flag[0] = 0;
    this.#libc.store(this.#run, RUN.immediate_exit, flag);
  }

  /** Reads everything of the vCPU, as QEMU does before a migration. */
  save(): SavedState {
    const regs = new Struct(KVM_LAYOUTS.kvm_regs);
    this.#must(this.#vcpu, "KVM_GET_REGS", regs.bytes);
    const sregs = new Struct(KVM_LAYOUTS.kvm_sregs2);
    const sregs_errno = this.#try("KVM_GET_SREGS2", sregs.bytes);
    const debug = new Struct(KVM_LAYOUTS.kvm_debugregs);
    this.#must(this.#vcpu, "KVM_GET_DEBUGREGS", debug.bytes);
    const events = new Struct(KVM_LAYOUTS.kvm_vcpu_events);
    this.#must(this.#vcpu, "KVM_GET_VCPU_EVENTS", events.bytes);
    const mpState = new Struct(KVM_LAYOUTS.kvm_mp_state).bytes;
    this.#must(this.#vcpu, "KVM_GET_MP_STATE", mpState);
    const nested = this.#nestedBuffer();
    const errno = this.#try("KVM_GET_NESTED_STATE", nested.bytes);
    const hsave = this.#msr(MSR_VM_HSAVE_PA);
    const pat = this.#msr(MSR_PAT);
    return { regs, sregs, debug, events, mpState, nested, hsave, pat, sregs_errno, errno };
  }

  /**
   * Restores that, in the order of QEMU's kvm_arch_put_registers.
   *
   * @param saved What was read of another machine.
   * @returns errno of each call.
   */
  restore({ regs, sregs, debug, events, mpState, nested, hsave, pat }: SavedState) {
    const sregs_errno = this.#try("KVM_SET_SREGS2", sregs.bytes);
    const errno = this.#try("KVM_SET_NESTED_STATE", nested.bytes);
    const regs_errno = this.#try("KVM_SET_REGS", regs.bytes);
    this.#setMsr(MSR_VM_HSAVE_PA, hsave);
    this.#setMsr(MSR_PAT, pat);
    const events_errno = this.#try("KVM_SET_VCPU_EVENTS", events.bytes);
    this.#try("KVM_SET_MP_STATE", mpState);
    const debugregs_errno = this.#try("KVM_SET_DEBUGREGS", debug.bytes);
    return { sregs_errno, errno, regs_errno, events_errno, debugregs_errno };
  }

  /** Why KVM_RUN came back; the port of a KVM_EXIT_IO. */
  exit(): { exit: number; port: number } {
    this.#libc.load(this.#run, 0, this.#exit);
    const view = new DataView(this.#exit.buffer);
    const exit = view.getUint32(RUN.exit_reason, true);
    return { exit, port: exit === KVM_EXIT_IO ? view.getUint16(RUN.io_port, true) : 0 };
  }

  /** Everything that the ioctls show, as an image of layout `regs`. */
  look(): Image {
    const regs = new Struct(KVM_LAYOUTS.kvm_regs);
    this.#must(this.#vcpu, "KVM_GET_REGS", regs.bytes);
    const sregs = new Struct(KVM_LAYOUTS.kvm_sregs);
    this.#must(this.#vcpu, "KVM_GET_SREGS", sregs.bytes);
    const debug = new Struct(KVM_LAYOUTS.kvm_debugregs);
    this.#must(this.#vcpu, "KVM_GET_DEBUGREGS", debug.bytes);
    const events = new Struct(KVM_LAYOUTS.kvm_vcpu_events);
    this.#must(this.#vcpu, "KVM_GET_VCPU_EVENTS", events.bytes);
    const nested = this.#nestedBuffer();
    this.#must(this.#vcpu, "KVM_GET_NESTED_STATE", nested.bytes);
    return seenImage({ regs, sregs, debug, events, nested });
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

  /** All of guest memory. */
  get memory(): Uint8Array<ArrayBuffer> {
    return this.page(0, MEMORY_SIZE);
  }

  #nestedBuffer() {
    const nested = new Struct(
      KVM_LAYOUTS.kvm_nested_state,
      KVM_LAYOUTS.kvm_nested_state.size + 2 * VMCB_SIZE,
    );
    nested.set("size", nested.bytes.length);
    return nested;
  }

  #msr(index: number): bigint {
    const { kvm_msrs, kvm_msr_entry } = KVM_LAYOUTS;
    const msrs = new Struct(kvm_msrs, kvm_msrs.size + kvm_msr_entry.size);
    msrs.set("nmsrs", 1);
    const entry = new Struct(kvm_msr_entry, msrs.bytes.subarray(kvm_msrs.size));
    entry.set("index", index);
    this.#libc.ioctl(this.#vcpu, IOCTL.KVM_GET_MSRS, msrs.bytes);
    return entry.get("data");
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
