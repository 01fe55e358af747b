/**
 * The registers and flags of a vCPU as userspace sees them: what KVM_GET_REGS,
 * KVM_GET_SREGS, KVM_GET_DEBUGREGS, KVM_GET_VCPU_EVENTS and
 * KVM_GET_NESTED_STATE give, and what a debugger or an emulator shows of it.
 *
 * @module
 */
import type { Field, Layout } from "../layout.ts";

const GPRS = [
  "rax",
  "rcx",
  "rdx",
  "rbx",
  "rsp",
  "rbp",
  "rsi",
  "rdi",
  "r8",
  "r9",
  "r10",
  "r11",
  "r12",
  "r13",
  "r14",
  "r15",
] as const;

/** Rows of the userspace view of a vCPU. */
export const REGS_FIELDS = [
  ...GPRS.map((name, i) =>
    ({ name, offset: i * 8, size: 8, doc: name.toUpperCase() }) as const satisfies Field
  ),
  { name: "rip", offset: 0x080, size: 8, doc: "Instruction pointer" },
  { name: "rflags", offset: 0x088, size: 8, doc: "Flags" },
  { name: "cr0", offset: 0x090, size: 8, doc: "Control register 0" },
  { name: "cr2", offset: 0x098, size: 8, doc: "Page fault address" },
  { name: "cr3", offset: 0x0a0, size: 8, doc: "Page table root" },
  { name: "cr4", offset: 0x0a8, size: 8, doc: "Control register 4" },
  { name: "cr8", offset: 0x0b0, size: 8, doc: "Task priority" },
  { name: "efer", offset: 0x0b8, size: 8, doc: "Extended feature enables" },
  { name: "dr0", offset: 0x0c0, size: 8, doc: "Breakpoint address 0" },
  { name: "dr1", offset: 0x0c8, size: 8, doc: "Breakpoint address 1" },
  { name: "dr2", offset: 0x0d0, size: 8, doc: "Breakpoint address 2" },
  { name: "dr3", offset: 0x0d8, size: 8, doc: "Breakpoint address 3" },
  { name: "dr6", offset: 0x0e0, size: 8, doc: "Debug status" },
  { name: "dr7", offset: 0x0e8, size: 8, doc: "Debug control" },
  { name: "hsave_pa", offset: 0x0f0, size: 8, doc: "VM_HSAVE_PA: the host save area" },
  { name: "vmcb_pa", offset: 0x0f8, size: 8, doc: "Address of vmcb12 while in guest mode, else 0" },
  ...segment("es", 0x100),
  ...segment("cs", 0x110),
  ...segment("ss", 0x120),
  ...segment("ds", 0x130),
  ...segment("fs", 0x140),
  ...segment("gs", 0x150),
  ...segment("gdtr", 0x160),
  ...segment("ldtr", 0x170),
  ...segment("idtr", 0x180),
  ...segment("tr", 0x190),
  { name: "gif", offset: 0x1a0, size: 1, doc: "Global interrupt flag" },
  { name: "guest_mode", offset: 0x1a1, size: 1, doc: "L2 is the one that runs" },
  {
    name: "run_pending",
    offset: 0x1a2,
    size: 1,
    doc: "A nested VMRUN was emulated and L2 has not run yet",
  },
  { name: "smm", offset: 0x1a3, size: 1, doc: "In system management mode" },
  { name: "triple_fault", offset: 0x1a4, size: 1, doc: "A triple fault waits" },
  {
    name: "exception_injected",
    offset: 0x1a5,
    size: 1,
    doc: "An exception's delivery was interrupted",
  },
  { name: "exception_pending", offset: 0x1a6, size: 1, doc: "An exception waits for delivery" },
  { name: "exception_vector", offset: 0x1a7, size: 1, doc: "Vector of the exception queued last" },
  { name: "exception_error", offset: 0x1a8, size: 4, doc: "Its error code" },
  {
    name: "interrupt_injected",
    offset: 0x1ac,
    size: 1,
    doc: "An interrupt's delivery was interrupted",
  },
  { name: "interrupt_vector", offset: 0x1ad, size: 1, doc: "Vector of the interrupt queued last" },
  { name: "nmi_injected", offset: 0x1ae, size: 1, doc: "An NMI's delivery was interrupted" },
  { name: "nmi_pending", offset: 0x1af, size: 1, doc: "An NMI waits" },
  { name: "nmi_masked", offset: 0x1b0, size: 1, doc: "NMIs are masked" },
] as const satisfies readonly Field[];

/** Size of the userspace view in bytes. */
export const REGS_SIZE = 0x1b8;

/** The userspace view of a vCPU. */
export const REGS_LAYOUT: Layout = { name: "regs", size: REGS_SIZE, fields: REGS_FIELDS };

function segment<const N extends string>(name: N, offset: number) {
  const row = <const S extends string>(part: S, at: number, size: number, doc: string) => ({
    name: `${name}_${part}` as `${N}_${S}`,
    offset: offset + at,
    size,
    doc: `${name.toUpperCase()} ${doc}`,
  });
  return [
    row("selector", 0, 2, "selector"),
    row("attrib", 2, 2, "attributes, packed to 12 bits as in a VMCB"),
    row("limit", 4, 4, "limit"),
    row("base", 8, 8, "base"),
  ] as const;
}
