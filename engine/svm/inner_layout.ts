/**
 * The nested bookkeeping and the vCPU state inside the kernel, as a recorder
 * within it prints them when one of its functions returns.
 *
 * @module
 */
import type { Layout } from "../layout.ts";
import { C, V, VMCB01_AT, VMCB02_AT, VMCB12_AT } from "./machine.ts";
import { NOWHERE, type ViewField } from "./view_source.ts";

/** `none`: there is no VMCB, since L1 cleared EFER.SVME or never set it. */
const MSRPM = { 1: "host", 2: "merged", 3: "other", 4: "none" } as const;

/** Rows of `nested`, in the order they are printed. */
export const NESTED_FIELDS = [
  {
    name: "ret",
    offset: 0x00,
    size: 4,
    from: NOWHERE,
    doc: "Return value of the function, signed",
  },
  {
    name: "guest_mode",
    offset: 0x04,
    size: 1,
    from: { kind: "get", getter: "guestMode", place: { at: V.hflags, size: 1, mask: 1 } },
    doc: "L2 is the one that runs",
  },
  {
    name: "active",
    offset: 0x05,
    size: 1,
    from: { kind: "copy", at: V.active },
    values: { 1: "01", 2: "02" },
    doc: "Active VMCB: vmcb01 or vmcb02",
  },
  {
    name: "vmcb12_gpa",
    offset: 0x08,
    size: 8,
    from: { kind: "copy", at: V.vmcb12_gpa },
    doc: "Address of the current vmcb12",
  },
  {
    name: "last_vmcb12_gpa",
    offset: 0x10,
    size: 8,
    from: { kind: "copy", at: V.last_vmcb12_gpa },
    doc: "Address of the vmcb12 that vmcb02 was last made from; all ones for none",
  },
  {
    name: "ctl_ncr3",
    offset: 0x18,
    size: 8,
    from: { kind: "copy", at: VMCB12_AT + C.nested_cr3 },
    doc: "nCR3 in the cached vmcb12",
  },
  {
    name: "run_pending",
    offset: 0x20,
    size: 1,
    from: { kind: "copy", at: V.run_pending },
    doc: "A nested VMRUN was emulated and L2 has not run yet",
  },
  {
    name: "gif",
    offset: 0x21,
    size: 1,
    from: { kind: "get", getter: "gif", place: { at: VMCB01_AT + C.int_ctl, size: 4 } },
    doc: "Global interrupt flag",
  },
  {
    name: "mmu",
    offset: 0x22,
    size: 1,
    from: { kind: "get", getter: "mmu", place: { at: V.mmu, size: 1 } },
    values: { 1: "root", 2: "guest" },
    doc: "MMU context in use: root_mmu or guest_mmu",
  },
  {
    name: "walk",
    offset: 0x23,
    size: 1,
    from: { kind: "get", getter: "walkMmu", place: { at: V.walk_mmu, size: 1 } },
    values: { 1: "root", 2: "nested" },
    doc: "Page table walker in use: root_mmu's or nested_mmu's",
  },
  {
    name: "msrpm01",
    offset: 0x24,
    size: 1,
    from: { kind: "get", getter: "msrpm01", place: { at: VMCB01_AT + C.msrpm_base_pa, size: 8 } },
    values: MSRPM,
    doc: "MSR bitmap that vmcb01 points at",
  },
  {
    name: "msrpm02",
    offset: 0x25,
    size: 1,
    from: { kind: "get", getter: "msrpm02", place: { at: VMCB02_AT + C.msrpm_base_pa, size: 8 } },
    values: MSRPM,
    doc: "MSR bitmap that vmcb02 points at",
  },
  {
    name: "msrpm_recalc",
    offset: 0x26,
    size: 1,
    from: { kind: "copy", at: V.msrpm_recalc },
    doc: "The merged MSR bitmap must be rebuilt",
  },
] as const satisfies readonly ViewField[];

/** Rows of `cpu`, in the order they are printed. */
export const CPU_FIELDS = [
  {
    name: "cr0",
    offset: 0x28,
    size: 8,
    from: { kind: "copy", at: V.cr0 },
    doc: "CR0 as the guest sees it",
  },
  {
    name: "cr3",
    offset: 0x30,
    size: 8,
    from: { kind: "copy", at: V.cr3 },
    doc: "CR3 as the guest sees it",
  },
  {
    name: "cr4",
    offset: 0x38,
    size: 8,
    from: { kind: "copy", at: V.cr4 },
    doc: "CR4 as the guest sees it",
  },
  {
    name: "efer",
    offset: 0x40,
    size: 8,
    from: { kind: "copy", at: V.efer },
    doc: "EFER as the guest sees it",
  },
  {
    name: "rip",
    offset: 0x48,
    size: 8,
    from: { kind: "copy", at: V.rip },
    doc: "Instruction pointer",
  },
  { name: "rax", offset: 0x50, size: 8, from: { kind: "copy", at: V.rax }, doc: "RAX" },
  { name: "rsp", offset: 0x58, size: 8, from: { kind: "copy", at: V.rsp }, doc: "Stack pointer" },
  {
    name: "rflags",
    offset: 0x60,
    size: 8,
    from: { kind: "mixed", what: "rflags", low: "rflags" },
    doc: "Flags",
  },
  {
    name: "cpu_role",
    offset: 0x68,
    size: 8,
    from: { kind: "copy", at: V.root_cpu_role },
    doc: "root_mmu: CPU role, as KVM packs it",
  },
  {
    name: "root_role",
    offset: 0x70,
    size: 4,
    from: { kind: "copy", at: V.root_root_role },
    doc: "root_mmu: root role",
  },
  {
    name: "gcpu_role",
    offset: 0x78,
    size: 8,
    from: { kind: "copy", at: V.guest_cpu_role },
    doc: "guest_mmu: CPU role",
  },
  {
    name: "groot_role",
    offset: 0x80,
    size: 4,
    from: { kind: "copy", at: V.guest_root_role },
    doc: "guest_mmu: root role",
  },
  {
    name: "ncpu_role",
    offset: 0x88,
    size: 8,
    from: { kind: "copy", at: V.nested_cpu_role },
    doc: "nested_mmu: CPU role",
  },
  {
    name: "req",
    offset: 0x90,
    size: 8,
    from: { kind: "copy", at: V.requests },
    doc: "Pending KVM_REQ_* bits",
  },
  {
    name: "exc_pend",
    offset: 0x98,
    size: 1,
    from: { kind: "copy", at: V.exception_pending },
    doc: "An exception waits for delivery",
  },
  {
    name: "exc_inj",
    offset: 0x99,
    size: 1,
    from: { kind: "copy", at: V.exception_injected },
    doc: "An exception's delivery was interrupted",
  },
  {
    name: "exc_vec",
    offset: 0x9a,
    size: 1,
    from: { kind: "copy", at: V.exception_vector },
    doc: "Vector of the exception queued last",
  },
  {
    name: "int_inj",
    offset: 0x9b,
    size: 1,
    from: { kind: "copy", at: V.interrupt_injected },
    doc: "An interrupt's delivery was interrupted",
  },
  {
    name: "nmi_inj",
    offset: 0x9c,
    size: 1,
    from: { kind: "copy", at: V.nmi_injected },
    doc: "An NMI's delivery was interrupted",
  },
  {
    name: "nmi_l1l2",
    offset: 0x9d,
    size: 1,
    from: { kind: "copy", at: V.nmi_l1_to_l2 },
    doc: "The NMI under way was injected by L1",
  },
  {
    name: "soft",
    offset: 0x9e,
    size: 1,
    from: { kind: "copy", at: V.soft_int_injected },
    doc: "A soft interrupt under way was injected by L1",
  },
  {
    name: "hflags",
    offset: 0xa0,
    size: 4,
    from: { kind: "get", getter: "hflags", place: { at: V.hflags, size: 4 } },
    doc: "Guest mode (bit 0), SMM (bit 1)",
  },
  {
    name: "gva_role",
    offset: 0xa8,
    size: 8,
    from: NOWHERE,
    doc: "gva_walk: CPU role, of kernels with one walker",
  },
  {
    name: "ngpa_role",
    offset: 0xb0,
    size: 8,
    from: NOWHERE,
    doc: "ngpa_walk: CPU role, of the same kernels",
  },
  {
    name: "pdptrs_user",
    offset: 0xb8,
    size: 1,
    from: NOWHERE,
    doc: "The PDPTEs were set by userspace; the same kernels",
  },
] as const satisfies readonly ViewField[];

/** Rows of the inner view: `nested`, then `cpu`. */
export const INNER_FIELDS = [
  ...NESTED_FIELDS,
  ...CPU_FIELDS,
] as const satisfies readonly ViewField[];

/** Size of the inner view in bytes. */
export const INNER_SIZE = 0xc0;

/** Size of the view of a kernel whose MMUs have a CPU role each: what it lacks is left off. */
export const INNER_SIZE_THREE_ROLES = 0xa8;

/** The state inside the kernel that a recorder within it shows. */
export const INNER_LAYOUT: Layout = {
  name: "inner",
  size: INNER_SIZE,
  shorter: INNER_SIZE_THREE_ROLES,
  fields: INNER_FIELDS,
};
