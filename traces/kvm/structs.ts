/**
 * The structures that KVM's ioctls take on x86-64 (`linux/kvm.h`, `asm/kvm.h`),
 * as layout tables, and the numbers of the ioctls.
 *
 * @module
 */
import { type Field, type Layout, offsets } from "../../engine/layout.ts";

type Row<N extends string> = Field & { readonly name: N };

function f<const N extends string>(name: N, offset: number, size: number, doc: string): Row<N> {
  return { name, offset, size, doc };
}

/** `struct kvm_run`, what is used of the page that KVM_RUN shares; the union begins at 32. */
export const RUN_FIELDS = [
  f("immediate_exit", 1, 1, "Whether KVM_RUN comes back before the guest is entered"),
  f("exit_reason", 8, 4, "KVM_EXIT_* reason"),
  f("io_port", 34, 2, "Of KVM_EXIT_IO: the port"),
] as const;

/** `struct kvm_regs`. */
export const REGS_FIELDS = [
  f("rax", 0, 8, "RAX"),
  f("rbx", 8, 8, "RBX"),
  f("rcx", 16, 8, "RCX"),
  f("rdx", 24, 8, "RDX"),
  f("rsi", 32, 8, "RSI"),
  f("rdi", 40, 8, "RDI"),
  f("rsp", 48, 8, "RSP"),
  f("rbp", 56, 8, "RBP"),
  f("r8", 64, 8, "R8"),
  f("r9", 72, 8, "R9"),
  f("r10", 80, 8, "R10"),
  f("r11", 88, 8, "R11"),
  f("r12", 96, 8, "R12"),
  f("r13", 104, 8, "R13"),
  f("r14", 112, 8, "R14"),
  f("r15", 120, 8, "R15"),
  f("rip", 128, 8, "Instruction pointer"),
  f("rflags", 136, 8, "Flags"),
] as const;

/** `struct kvm_segment`. */
export const SEGMENT_FIELDS = [
  f("base", 0, 8, "Base address"),
  f("limit", 8, 4, "Limit in bytes"),
  f("selector", 12, 2, "Selector"),
  f("type", 14, 1, "Type"),
  f("present", 15, 1, "Present"),
  f("dpl", 16, 1, "Privilege level"),
  f("db", 17, 1, "Default size"),
  f("s", 18, 1, "Code or data, not system"),
  f("l", 19, 1, "64-bit code"),
  f("g", 20, 1, "Granularity"),
  f("avl", 21, 1, "For software"),
  f("unusable", 22, 1, "Not loaded"),
] as const;

/** `struct kvm_sregs`. */
export const SREGS_FIELDS = [
  f("cs", 0, 24, "Code segment"),
  f("ds", 24, 24, "Data segment"),
  f("es", 48, 24, "Extra segment"),
  f("fs", 72, 24, "FS"),
  f("gs", 96, 24, "GS"),
  f("ss", 120, 24, "Stack segment"),
  f("tr", 144, 24, "Task register"),
  f("ldt", 168, 24, "Local descriptor table"),
  f("gdt", 192, 16, "Global descriptor table"),
  f("idt", 208, 16, "Interrupt descriptor table"),
  f("cr0", 224, 8, "Control register 0"),
  f("cr2", 232, 8, "Page fault address"),
  f("cr3", 240, 8, "Page table root"),
  f("cr4", 248, 8, "Control register 4"),
  f("cr8", 256, 8, "Task priority"),
  f("efer", 264, 8, "Extended feature enables"),
  f("apic_base", 272, 8, "APIC base address"),
  f("interrupt_bitmap", 280, 32, "Interrupts that wait"),
] as const;

/** `struct kvm_sregs2`. */
export const SREGS2_FIELDS = [
  ...SREGS_FIELDS.filter(({ name }) => name !== "interrupt_bitmap"),
  f("flags", 280, 8, "1: the PDPTEs are valid"),
  f("pdptrs", 288, 32, "The four PDPTEs"),
] as const;

/** `struct kvm_mp_state`. */
export const MP_STATE_FIELDS = [f("mp_state", 0, 4, "KVM_MP_STATE_*")] as const;

/** `struct kvm_debugregs`. */
export const DEBUGREGS_FIELDS = [
  f("db", 0, 32, "Breakpoint addresses"),
  f("dr6", 32, 8, "Debug status"),
  f("dr7", 40, 8, "Debug control"),
  f("flags", 48, 8, "None defined"),
] as const;

/** `struct kvm_vcpu_events`. */
export const EVENTS_FIELDS = [
  f("exception_injected", 0, 1, "An exception's delivery was interrupted"),
  f("exception_nr", 1, 1, "Its vector"),
  f("exception_has_error_code", 2, 1, "Whether it has an error code"),
  f("exception_pending", 3, 1, "An exception waits for delivery"),
  f("exception_error_code", 4, 4, "Its error code"),
  f("interrupt_injected", 8, 1, "An interrupt's delivery was interrupted"),
  f("interrupt_nr", 9, 1, "Its vector"),
  f("interrupt_soft", 10, 1, "Whether an instruction caused it"),
  f("interrupt_shadow", 11, 1, "Interrupts are held off for one instruction"),
  f("nmi_injected", 12, 1, "An NMI's delivery was interrupted"),
  f("nmi_pending", 13, 1, "An NMI waits"),
  f("nmi_masked", 14, 1, "NMIs are masked"),
  f("sipi_vector", 16, 4, "Vector of a start-up interrupt"),
  f("flags", 20, 4, "Which fields are valid"),
  f("smi_smm", 24, 1, "In system management mode"),
  f("smi_pending", 25, 1, "An SMI waits"),
  f("smi_smm_inside_nmi", 26, 1, "The SMI hit an NMI's handler"),
  f("smi_latched_init", 27, 1, "An INIT waits"),
  f("triple_fault_pending", 28, 1, "A triple fault waits"),
  f("exception_has_payload", 55, 1, "Whether the exception has a payload"),
  f("exception_payload", 56, 8, "CR2 or DR6 of the exception"),
] as const;

/** `struct kvm_nested_state` with the header that SVM has. */
export const NESTED_FIELDS = [
  f("flags", 0, 2, "KVM_STATE_NESTED_*: guest mode 1, run pending 2, GIF 0x100"),
  f("format", 2, 2, "1 for SVM"),
  f("size", 4, 4, "Bytes of all of it"),
  f("vmcb_pa", 8, 8, "Guest physical address of vmcb12"),
  f("data", 128, 0, "In guest mode: L2's control area and L1's save area, 4,096 bytes"),
] as const;

/** `struct kvm_msrs`; its entries follow. */
export const MSRS_FIELDS = [f("nmsrs", 0, 4, "Number of entries")] as const;

/** `struct kvm_msr_entry`. */
export const MSR_ENTRY_FIELDS = [
  f("index", 0, 4, "Which MSR"),
  f("data", 8, 8, "Its value"),
] as const;

/** `struct kvm_cpuid2`; its entries follow. */
export const CPUID_FIELDS = [f("nent", 0, 4, "Number of entries")] as const;

/** `struct kvm_cpuid_entry2`. */
export const CPUID_ENTRY_FIELDS = [
  f("function", 0, 4, "EAX before"),
  f("index", 4, 4, "ECX before"),
  f("flags", 8, 4, "Whether the index counts"),
  f("eax", 12, 4, "EAX"),
  f("ebx", 16, 4, "EBX"),
  f("ecx", 20, 4, "ECX"),
  f("edx", 24, 4, "EDX"),
] as const;

/** `struct kvm_userspace_memory_region`. */
export const MEMORY_REGION_FIELDS = [
  f("slot", 0, 4, "Slot; address space 1 (system management mode) in the upper half"),
  f("flags", 4, 4, "KVM_MEM_*"),
  f("guest_phys_addr", 8, 8, "Where the guest sees it"),
  f("memory_size", 16, 8, "Bytes"),
  f("userspace_addr", 24, 8, "Where it is in this process"),
] as const;

/** `struct kvm_interrupt`. */
export const INTERRUPT_FIELDS = [f("irq", 0, 4, "Vector")] as const;

/** KVM's structures by name, with the sizes that a C compiler gives. */
export const KVM_LAYOUTS = {
  kvm_regs: { name: "kvm_regs", size: 144, fields: REGS_FIELDS },
  kvm_segment: { name: "kvm_segment", size: 24, fields: SEGMENT_FIELDS },
  kvm_sregs: { name: "kvm_sregs", size: 312, fields: SREGS_FIELDS },
  kvm_sregs2: { name: "kvm_sregs2", size: 320, fields: SREGS2_FIELDS },
  kvm_mp_state: { name: "kvm_mp_state", size: 4, fields: MP_STATE_FIELDS },
  kvm_debugregs: { name: "kvm_debugregs", size: 128, fields: DEBUGREGS_FIELDS },
  kvm_vcpu_events: { name: "kvm_vcpu_events", size: 64, fields: EVENTS_FIELDS },
  kvm_nested_state: { name: "kvm_nested_state", size: 128, fields: NESTED_FIELDS },
  kvm_msrs: { name: "kvm_msrs", size: 8, fields: MSRS_FIELDS },
  kvm_msr_entry: { name: "kvm_msr_entry", size: 16, fields: MSR_ENTRY_FIELDS },
  kvm_cpuid2: { name: "kvm_cpuid2", size: 8, fields: CPUID_FIELDS },
  kvm_cpuid_entry2: { name: "kvm_cpuid_entry2", size: 40, fields: CPUID_ENTRY_FIELDS },
  kvm_userspace_memory_region: {
    name: "kvm_userspace_memory_region",
    size: 32,
    fields: MEMORY_REGION_FIELDS,
  },
  kvm_interrupt: { name: "kvm_interrupt", size: 4, fields: INTERRUPT_FIELDS },
  kvm_run: { name: "kvm_run", size: 2352, fields: RUN_FIELDS },
} as const satisfies Readonly<Record<string, Layout>>;

/** Offsets within `struct kvm_run`. */
export const RUN: { readonly [K in typeof RUN_FIELDS[number]["name"]]: number } = offsets(
  RUN_FIELDS,
);

/** Letter of KVM's ioctls. */
const KVMIO = 0xae;
/** Direction bits of `_IO`, `_IOW`, `_IOR` and `_IOWR`. */
const DIRECTION = { none: 0, in: 1, out: 2, both: 3 } as const;

/** One ioctl: its number within KVM's, which way data goes, and which structure it takes. */
export interface KvmIoctl {
  /** Number within KVM's. */
  readonly nr: number;
  /** Which way the structure goes, as the kernel sees it. */
  readonly way: keyof typeof DIRECTION;
  /** Structure that the argument points to; left out for a plain number. */
  readonly takes?: keyof typeof KVM_LAYOUTS;
}

/** The ioctls in use, by name. */
export const KVM_IOCTLS = {
  KVM_GET_API_VERSION: { nr: 0x00, way: "none" },
  KVM_CREATE_VM: { nr: 0x01, way: "none" },
  KVM_CHECK_EXTENSION: { nr: 0x03, way: "none" },
  KVM_GET_VCPU_MMAP_SIZE: { nr: 0x04, way: "none" },
  KVM_GET_SUPPORTED_CPUID: { nr: 0x05, way: "both", takes: "kvm_cpuid2" },
  KVM_CREATE_VCPU: { nr: 0x41, way: "none" },
  KVM_SET_USER_MEMORY_REGION: { nr: 0x46, way: "in", takes: "kvm_userspace_memory_region" },
  KVM_RUN: { nr: 0x80, way: "none" },
  KVM_GET_REGS: { nr: 0x81, way: "out", takes: "kvm_regs" },
  KVM_SET_REGS: { nr: 0x82, way: "in", takes: "kvm_regs" },
  KVM_GET_SREGS: { nr: 0x83, way: "out", takes: "kvm_sregs" },
  KVM_SET_SREGS: { nr: 0x84, way: "in", takes: "kvm_sregs" },
  KVM_INTERRUPT: { nr: 0x86, way: "in", takes: "kvm_interrupt" },
  KVM_GET_MSRS: { nr: 0x88, way: "both", takes: "kvm_msrs" },
  KVM_SET_MSRS: { nr: 0x89, way: "in", takes: "kvm_msrs" },
  KVM_SET_CPUID2: { nr: 0x90, way: "in", takes: "kvm_cpuid2" },
  KVM_GET_MP_STATE: { nr: 0x98, way: "out", takes: "kvm_mp_state" },
  KVM_SET_MP_STATE: { nr: 0x99, way: "in", takes: "kvm_mp_state" },
  KVM_NMI: { nr: 0x9a, way: "none" },
  KVM_GET_VCPU_EVENTS: { nr: 0x9f, way: "out", takes: "kvm_vcpu_events" },
  KVM_SET_VCPU_EVENTS: { nr: 0xa0, way: "in", takes: "kvm_vcpu_events" },
  KVM_GET_DEBUGREGS: { nr: 0xa1, way: "out", takes: "kvm_debugregs" },
  KVM_SET_DEBUGREGS: { nr: 0xa2, way: "in", takes: "kvm_debugregs" },
  KVM_SMI: { nr: 0xb7, way: "none" },
  KVM_GET_NESTED_STATE: { nr: 0xbe, way: "both", takes: "kvm_nested_state" },
  KVM_SET_NESTED_STATE: { nr: 0xbf, way: "in", takes: "kvm_nested_state" },
  KVM_GET_SREGS2: { nr: 0xcc, way: "out", takes: "kvm_sregs2" },
  KVM_SET_SREGS2: { nr: 0xcd, way: "in", takes: "kvm_sregs2" },
} as const satisfies Readonly<Record<string, KvmIoctl>>;

/** Name of an ioctl in use. */
export type KvmIoctlName = keyof typeof KVM_IOCTLS;

/** Numbers as ioctl(2) takes them: direction, size, letter, number. */
export const IOCTL: Readonly<Record<KvmIoctlName, number>> = Object.fromEntries(
  Object.entries<KvmIoctl>(KVM_IOCTLS).map(([name, { nr, way, takes }]) => {
    const size = takes === undefined ? 0 : KVM_LAYOUTS[takes].size;
    return [name, (DIRECTION[way] << 30 | size << 16 | KVMIO << 8 | nr) >>> 0];
  }),
) as Record<KvmIoctlName, number>;

/** Capabilities that are asked for (KVM_CHECK_EXTENSION), by name. */
export const KVM_CAPS = {
  KVM_CAP_USER_MEMORY: 3,
  KVM_CAP_EXT_CPUID: 7,
  KVM_CAP_USER_NMI: 22,
  KVM_CAP_VCPU_EVENTS: 41,
  KVM_CAP_DEBUGREGS: 50,
  KVM_CAP_X86_SMM: 117,
  KVM_CAP_MULTI_ADDRESS_SPACE: 118,
  KVM_CAP_IMMEDIATE_EXIT: 136,
  KVM_CAP_NESTED_STATE: 157,
  KVM_CAP_SREGS2: 200,
} as const;

/** The KVM_EXIT_* reason of a port access. */
export const KVM_EXIT_IO = 2;
