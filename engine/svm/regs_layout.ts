/**
 * The registers and flags of a vCPU as userspace sees them: what KVM_GET_REGS,
 * KVM_GET_SREGS, KVM_GET_DEBUGREGS, KVM_GET_VCPU_EVENTS and
 * KVM_GET_NESTED_STATE give, and what a debugger or an emulator shows of it.
 *
 * @module
 */
import type { Layout } from "../layout.ts";
import { C, V, VMCB01_AT } from "./machine.ts";
import { copyOf, got, NOWHERE, type ViewField } from "./view_source.ts";

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

const SEGMENTS = ["es", "cs", "ss", "ds", "fs", "gs", "gdtr", "ldtr", "idtr", "tr"] as const;

const PARTS = [
  { name: "selector", offset: 0, size: 2, doc: "selector" },
  { name: "attrib", offset: 2, size: 2, doc: "attributes, packed to 12 bits as in a VMCB" },
  { name: "limit", offset: 4, size: 4, doc: "limit" },
  { name: "base", offset: 8, size: 8, doc: "base" },
] as const;

const BEFORE_SEGMENTS = [
  { name: "rip", offset: 0x080, size: 8, from: copyOf(V.rip), doc: "Instruction pointer" },
  {
    name: "rflags",
    offset: 0x088,
    size: 8,
    from: { kind: "mixed", what: "rflags", low: "rflags" },
    doc: "Flags",
  },
  { name: "cr0", offset: 0x090, size: 8, from: copyOf(V.cr0), doc: "Control register 0" },
  { name: "cr2", offset: 0x098, size: 8, from: copyOf(V.cr2), doc: "Page fault address" },
  { name: "cr3", offset: 0x0a0, size: 8, from: copyOf(V.cr3), doc: "Page table root" },
  { name: "cr4", offset: 0x0a8, size: 8, from: copyOf(V.cr4), doc: "Control register 4" },
  { name: "cr8", offset: 0x0b0, size: 8, from: copyOf(V.cr8), doc: "Task priority" },
  { name: "efer", offset: 0x0b8, size: 8, from: copyOf(V.efer), doc: "Extended feature enables" },
  { name: "dr0", offset: 0x0c0, size: 8, from: copyOf(V.dr0), doc: "Breakpoint address 0" },
  { name: "dr1", offset: 0x0c8, size: 8, from: copyOf(V.dr1), doc: "Breakpoint address 1" },
  { name: "dr2", offset: 0x0d0, size: 8, from: copyOf(V.dr2), doc: "Breakpoint address 2" },
  { name: "dr3", offset: 0x0d8, size: 8, from: copyOf(V.dr3), doc: "Breakpoint address 3" },
  { name: "dr6", offset: 0x0e0, size: 8, from: copyOf(V.dr6), doc: "Debug status" },
  { name: "dr7", offset: 0x0e8, size: 8, from: copyOf(V.dr7), doc: "Debug control" },
  {
    name: "hsave_pa",
    offset: 0x0f0,
    size: 8,
    from: copyOf(V.hsave_msr),
    doc: "VM_HSAVE_PA: the host save area",
  },
  {
    name: "vmcb_pa",
    offset: 0x0f8,
    size: 8,
    from: { kind: "follow", what: "currentVmcb12Gpa", plus: 0 },
    doc: "Address of vmcb12 while in guest mode, else 0",
  },
] as const satisfies readonly ViewField[];

/** Offset of the first segment register in bytes; each takes 16. */
const SEGMENTS_AT = 0x100;

const AFTER_SEGMENTS = [
  {
    name: "gif",
    offset: 0x1a0,
    size: 1,
    from: got("gif", VMCB01_AT + C.int_ctl, 4),
    doc: "Global interrupt flag",
  },
  {
    name: "guest_mode",
    offset: 0x1a1,
    size: 1,
    from: got("guestMode", V.hflags, 1, 1),
    doc: "L2 is the one that runs",
  },
  {
    name: "run_pending",
    offset: 0x1a2,
    size: 1,
    from: got("runPendingOfL2", V.run_pending, 1),
    doc: "A nested VMRUN was emulated and L2 has not run yet",
  },
  {
    name: "smm",
    offset: 0x1a3,
    size: 1,
    from: got("smm", V.hflags, 1, 2),
    doc: "In system management mode",
  },
  { name: "triple_fault", offset: 0x1a4, size: 1, from: NOWHERE, doc: "A triple fault waits" },
  {
    name: "exception_injected",
    offset: 0x1a5,
    size: 1,
    from: got("exceptionInjected", V.exception_injected, 1),
    doc: "An exception's delivery was interrupted",
  },
  {
    name: "exception_pending",
    offset: 0x1a6,
    size: 1,
    from: got("exceptionPending", V.exception_pending, 1),
    doc: "An exception waits for delivery",
  },
  {
    name: "exception_vector",
    offset: 0x1a7,
    size: 1,
    from: got("exceptionVector", V.exception_vector, 4),
    doc: "Vector of the exception queued last",
  },
  {
    name: "exception_error",
    offset: 0x1a8,
    size: 4,
    from: got("exceptionError", V.exception_error, 8),
    doc: "Its error code",
  },
  {
    name: "interrupt_injected",
    offset: 0x1ac,
    size: 1,
    from: got("interruptInjected", V.interrupt_injected, 1),
    doc: "An interrupt's delivery was interrupted",
  },
  {
    name: "interrupt_vector",
    offset: 0x1ad,
    size: 1,
    from: copyOf(V.interrupt_vector),
    doc: "Vector of the interrupt queued last",
  },
  {
    name: "nmi_injected",
    offset: 0x1ae,
    size: 1,
    from: copyOf(V.nmi_injected),
    doc: "An NMI's delivery was interrupted",
  },
  { name: "nmi_pending", offset: 0x1af, size: 1, from: copyOf(V.nmi_pending), doc: "An NMI waits" },
  {
    name: "nmi_masked",
    offset: 0x1b0,
    size: 1,
    from: copyOf(V.nmi_masked),
    doc: "NMIs are masked",
  },
] as const satisfies readonly ViewField[];

/** Name of a row of the userspace view of a vCPU. */
export type RegsFieldName =
  | "rax"
  | "rcx"
  | "rdx"
  | "rbx"
  | "rsp"
  | "rbp"
  | "rsi"
  | "rdi"
  | "r8"
  | "r9"
  | "r10"
  | "r11"
  | "r12"
  | "r13"
  | "r14"
  | "r15"
  | "rip"
  | "rflags"
  | "cr0"
  | "cr2"
  | "cr3"
  | "cr4"
  | "cr8"
  | "efer"
  | "dr0"
  | "dr1"
  | "dr2"
  | "dr3"
  | "dr6"
  | "dr7"
  | "hsave_pa"
  | "vmcb_pa"
  | `${RegsSegment}_${"selector" | "attrib" | "limit" | "base"}`
  | "gif"
  | "guest_mode"
  | "run_pending"
  | "smm"
  | "triple_fault"
  | "exception_injected"
  | "exception_pending"
  | "exception_vector"
  | "exception_error"
  | "interrupt_injected"
  | "interrupt_vector"
  | "nmi_injected"
  | "nmi_pending"
  | "nmi_masked";

/** Name of a segment register, or of a register that holds a descriptor table's place. */
export type RegsSegment =
  | "es"
  | "cs"
  | "ss"
  | "ds"
  | "fs"
  | "gs"
  | "gdtr"
  | "ldtr"
  | "idtr"
  | "tr";

/** Rows of the userspace view of a vCPU. */
export const REGS_FIELDS: readonly (ViewField & { readonly name: RegsFieldName })[] = [
  ...GPRS.map((name, i) => (
    { name, offset: i * 8, size: 8, from: copyOf(V[name]), doc: name.toUpperCase() }
  )),
  ...BEFORE_SEGMENTS,
  ...SEGMENTS.flatMap((segment, i) =>
    PARTS.map(({ name, offset, size, doc }) => ({
      name: `${segment}_${name}` as const,
      offset: SEGMENTS_AT + 16 * i + offset,
      size,
      from: { kind: "follow", what: segment, plus: offset } as const,
      doc: `${segment.toUpperCase()} ${doc}`,
    }))
  ),
  ...AFTER_SEGMENTS,
];

/** Size of the userspace view in bytes. */
export const REGS_SIZE = 0x1b8;

/** The userspace view of a vCPU. */
export const REGS_LAYOUT: Layout = { name: "regs", size: REGS_SIZE, fields: REGS_FIELDS };
