/**
 * The VMCB field table: the control area (APM vol. 2, table B-1) and the state
 * save area (table B-2), under KVM's names.
 *
 * @module
 */
import type { Field, Layout } from "../layout.ts";
import {
  CR0_BITS,
  CR4_BITS,
  DBGCTL_BITS,
  DR6_BITS,
  DR7_BITS,
  EFER_BITS,
  PAT_BITS,
  RFLAGS_BITS,
  S_CET_BITS,
  SEGMENT_ATTRIB_BITS,
  SPEC_CTRL_BITS,
  STAR_BITS,
} from "./bits.ts";
import {
  ALLOWED_SEV_FEATURES_BITS,
  AVIC_PHYSICAL_ID_BITS,
  CLEAN_BITS,
  ERAP_CTL_BITS,
  EVENT_INJ_BITS,
  INT_CTL_BITS,
  INT_STATE_BITS,
  NESTED_CTL_BITS,
  SW_RESERVED_BITS,
  TLB_CTL_VALUES,
  VIRT_EXT_BITS,
} from "./control_bits.ts";
import { EXIT_CODE_VALUES } from "./exit_codes.ts";
import {
  INTERCEPT_CR_BITS,
  INTERCEPT_DR_BITS,
  INTERCEPT_EXCEPTION_BITS,
  INTERCEPT_WORD3_BITS,
  INTERCEPT_WORD4_BITS,
  INTERCEPT_WORD5_BITS,
} from "./intercepts.ts";

/** Offset of the state save area within a VMCB, in bytes. */
export const SAVE_AREA = 0x400;

/** Size of a VMCB page in bytes. */
export const VMCB_SIZE = 4096;

/** Rows of the control area; offsets from the start of the VMCB. */
export const CONTROL_FIELDS = [
  row("intercept_cr", 0x000, 4, "CR reads (15:0) and writes (31:16) to intercept", {
    clean: 0,
    bits: INTERCEPT_CR_BITS,
  }),
  row("intercept_dr", 0x004, 4, "DR reads (15:0) and writes (31:16) to intercept", {
    clean: 0,
    bits: INTERCEPT_DR_BITS,
  }),
  row("intercept_exceptions", 0x008, 4, "Exception vectors to intercept", {
    clean: 0,
    bits: INTERCEPT_EXCEPTION_BITS,
  }),
  row("intercept_word3", 0x00c, 4, "Instructions and events to intercept, first word", {
    clean: 0,
    bits: INTERCEPT_WORD3_BITS,
  }),
  row("intercept_word4", 0x010, 4, "Instructions and events to intercept, second word", {
    clean: 0,
    bits: INTERCEPT_WORD4_BITS,
  }),
  row("intercept_word5", 0x014, 4, "Instructions and events to intercept, third word", {
    clean: 0,
    bits: INTERCEPT_WORD5_BITS,
  }),
  row("pause_filter_thresh", 0x03c, 2, "PAUSE filter threshold, TSC cycles", { clean: 0 }),
  row("pause_filter_count", 0x03e, 2, "PAUSE filter count", { clean: 0 }),
  row("iopm_base_pa", 0x040, 8, "Physical address of the I/O permission map", { clean: 1 }),
  row("msrpm_base_pa", 0x048, 8, "Physical address of the MSR permission map", { clean: 1 }),
  row("tsc_offset", 0x050, 8, "Added to the TSC as the guest reads it", { clean: 0 }),
  row("asid", 0x058, 4, "Address space identifier of the guest", { clean: 2 }),
  row("tlb_ctl", 0x05c, 1, "TLB flush to do at VMRUN", { values: TLB_CTL_VALUES }),
  row("erap_ctl", 0x05d, 1, "Return address predictor (ERAPS)", { bits: ERAP_CTL_BITS }),
  row("int_ctl", 0x060, 4, "Virtual interrupt control", { clean: 3, bits: INT_CTL_BITS }),
  row("int_vector", 0x064, 4, "Vector of the virtual interrupt", { clean: 3 }),
  row("int_state", 0x068, 4, "Interrupt shadow and virtual interrupt mask", {
    bits: INT_STATE_BITS,
  }),
  row("exit_code", 0x070, 4, "Reason of the #VMEXIT, low half", { values: EXIT_CODE_VALUES }),
  row("exit_code_hi", 0x074, 4, "Reason of the #VMEXIT, high half"),
  row("exit_info_1", 0x078, 8, "First word of information on the #VMEXIT"),
  row("exit_info_2", 0x080, 8, "Second word of information on the #VMEXIT"),
  row("exit_int_info", 0x088, 4, "Event whose delivery the #VMEXIT interrupted", {
    bits: EVENT_INJ_BITS,
  }),
  row("exit_int_info_err", 0x08c, 4, "Error code of that event"),
  row("nested_ctl", 0x090, 8, "Nested paging and SEV enables", { clean: 4, bits: NESTED_CTL_BITS }),
  row("avic_vapic_bar", 0x098, 8, "Guest physical address of the virtual APIC", { clean: 11 }),
  row("ghcb_gpa", 0x0a0, 8, "Guest physical address of the GHCB"),
  row("event_inj", 0x0a8, 4, "Event to inject at VMRUN", { bits: EVENT_INJ_BITS }),
  row("event_inj_err", 0x0ac, 4, "Error code of the event to inject"),
  row("nested_cr3", 0x0b0, 8, "nCR3: root of the nested page table", { clean: 4 }),
  row("virt_ext", 0x0b8, 8, "LBR virtualization and virtual VMLOAD/VMSAVE enables", {
    clean: 10,
    bits: VIRT_EXT_BITS,
  }),
  row("clean", 0x0c0, 4, "VMCB clean bits", { bits: CLEAN_BITS }),
  row("next_rip", 0x0c8, 8, "Address of the instruction after the intercepted one"),
  row("insn_len", 0x0d0, 1, "Number of instruction bytes fetched"),
  row("insn_bytes", 0x0d1, 15, "Instruction bytes fetched"),
  row("avic_backing_page", 0x0e0, 8, "AVIC backing page", { clean: 11 }),
  row("avic_logical_id", 0x0f0, 8, "AVIC logical table", { clean: 11 }),
  row("avic_physical_id", 0x0f8, 8, "AVIC physical table and highest index", {
    clean: 11,
    bits: AVIC_PHYSICAL_ID_BITS,
  }),
  row("vmsa_pa", 0x108, 8, "Physical address of the encrypted save area"),
  row("vmgexit_rax", 0x110, 8, "RAX at the VMGEXIT"),
  row("vmgexit_cpl", 0x118, 1, "CPL at the VMGEXIT"),
  row("bus_lock_counter", 0x120, 2, "Bus locks left before a #VMEXIT"),
  row("update_irr", 0x134, 4, "Requested interrupts are to be taken over"),
  row("allowed_sev_features", 0x138, 8, "SEV features that the guest may have", {
    bits: ALLOWED_SEV_FEATURES_BITS,
  }),
  row("guest_sev_features", 0x140, 8, "SEV features that the guest has"),
  row("requested_irr", 0x150, 32, "Interrupts requested of a guest with secure AVIC"),
  row("sw_reserved", 0x3e0, 32, "Reserved for the host's software (Hyper-V enlightenments)", {
    clean: 31,
    bits: SW_RESERVED_BITS,
  }),
] as const;

/** Rows of the save area; offsets from the start of the save area. */
export const SAVE_FIELDS = [
  ...segment("es", 0x00, 8),
  ...segment("cs", 0x10, 8),
  ...segment("ss", 0x20, 8),
  ...segment("ds", 0x30, 8),
  ...segment("fs", 0x40),
  ...segment("gs", 0x50),
  ...segment("gdtr", 0x60, 7),
  ...segment("ldtr", 0x70),
  ...segment("idtr", 0x80, 7),
  ...segment("tr", 0x90),
  row("vmpl", 0x0ca, 1, "Virtual machine privilege level (SEV-SNP)"),
  row("cpl", 0x0cb, 1, "Current privilege level", { clean: 8 }),
  row("efer", 0x0d0, 8, "Extended feature enables", { clean: 5, bits: EFER_BITS }),
  ...counter("0", 0x0e0),
  ...counter("1", 0x0f0),
  ...counter("2", 0x100),
  ...counter("3", 0x110),
  ...counter("4", 0x120),
  ...counter("5", 0x130),
  row("cr4", 0x148, 8, "Control register 4", { clean: 5, bits: CR4_BITS }),
  row("cr3", 0x150, 8, "Control register 3: page table root", { clean: 5 }),
  row("cr0", 0x158, 8, "Control register 0", { clean: 5, bits: CR0_BITS }),
  row("dr7", 0x160, 8, "Debug control", { clean: 6, bits: DR7_BITS }),
  row("dr6", 0x168, 8, "Debug status", { clean: 6, bits: DR6_BITS }),
  row("rflags", 0x170, 8, "Flags", { bits: RFLAGS_BITS }),
  row("rip", 0x178, 8, "Instruction pointer"),
  row("instr_retired_ctr", 0x1c0, 8, "Instructions retired"),
  row("perf_ctr_global_sts", 0x1c8, 8, "Performance counter status"),
  row("perf_ctr_global_ctl", 0x1d0, 4, "Performance counter enables"),
  row("rsp", 0x1d8, 8, "Stack pointer"),
  row("s_cet", 0x1e0, 8, "Supervisor shadow stack control", { clean: 12, bits: S_CET_BITS }),
  row("ssp", 0x1e8, 8, "Shadow stack pointer", { clean: 12 }),
  row("isst_addr", 0x1f0, 8, "Interrupt shadow stack table", { clean: 12 }),
  row("rax", 0x1f8, 8, "Accumulator"),
  row("star", 0x200, 8, "SYSCALL selectors", { bits: STAR_BITS }),
  row("lstar", 0x208, 8, "SYSCALL target in 64-bit mode"),
  row("cstar", 0x210, 8, "SYSCALL target in compatibility mode"),
  row("sfmask", 0x218, 8, "SYSCALL flag mask"),
  row("kernel_gs_base", 0x220, 8, "GS base that SWAPGS loads"),
  row("sysenter_cs", 0x228, 8, "SYSENTER code selector"),
  row("sysenter_esp", 0x230, 8, "SYSENTER stack pointer"),
  row("sysenter_eip", 0x238, 8, "SYSENTER target"),
  row("cr2", 0x240, 8, "Page fault address", { clean: 9 }),
  row("g_pat", 0x268, 8, "Guest PAT under nested paging", { clean: 4, bits: PAT_BITS }),
  row("dbgctl", 0x270, 8, "Debug control MSR", { clean: 10, bits: DBGCTL_BITS }),
  row("br_from", 0x278, 8, "Last branch source", { clean: 10 }),
  row("br_to", 0x280, 8, "Last branch target", { clean: 10 }),
  row("last_excp_from", 0x288, 8, "Last exception source", { clean: 10 }),
  row("last_excp_to", 0x290, 8, "Last exception target", { clean: 10 }),
  row("dbgextnctl", 0x298, 8, "Debug extension control MSR", { clean: 10 }),
  row("spec_ctrl", 0x2e0, 8, "Speculation control MSR", { bits: SPEC_CTRL_BITS }),
  row("lbr_stack", 0x670, 256, "Last branch stack, sources and targets in MSR order", {
    clean: 10,
  }),
  row("lbr_select", 0x770, 8, "Last branch stack filter", { clean: 10 }),
  row("ibs_fetch_ctl", 0x778, 8, "IBS fetch control"),
  row("ibs_fetch_linaddr", 0x780, 8, "IBS fetch linear address"),
  row("ibs_op_ctl", 0x788, 8, "IBS execution control"),
  row("ibs_op_rip", 0x790, 8, "IBS operation address"),
  row("ibs_op_data", 0x798, 8, "IBS operation data, first word"),
  row("ibs_op_data2", 0x7a0, 8, "IBS operation data, second word"),
  row("ibs_op_data3", 0x7a8, 8, "IBS operation data, third word"),
  row("ibs_dc_linaddr", 0x7b0, 8, "IBS data linear address"),
  row("bp_ibstgt_rip", 0x7b8, 8, "IBS branch target"),
  row("ic_ibs_extd_ctl", 0x7c0, 8, "IBS fetch control, extended"),
] as const;

type Row<N extends string> = Field & { readonly name: N };

function row<const N extends string>(
  name: N,
  offset: number,
  size: number,
  doc: string,
  more: Pick<Field, "clean" | "bits" | "values"> = {},
): Row<N> {
  return { name, offset, size, ...more, doc };
}

function segment<const N extends string>(
  name: N,
  offset: number,
  clean?: number,
): readonly [Row<`${N}_selector`>, Row<`${N}_attrib`>, Row<`${N}_limit`>, Row<`${N}_base`>] {
  const covered = clean === undefined ? {} : { clean };
  const register = name.toUpperCase();
  return [
    row(`${name}_selector`, offset, 2, `${register} selector`, covered),
    row(`${name}_attrib`, offset + 2, 2, `${register} attributes, packed to 12 bits`, {
      ...covered,
      bits: SEGMENT_ATTRIB_BITS,
    }),
    row(`${name}_limit`, offset + 4, 4, `${register} limit`, covered),
    row(`${name}_base`, offset + 8, 8, `${register} base`, covered),
  ];
}

function counter<const N extends string>(
  index: N,
  offset: number,
): readonly [Row<`perf_ctl${N}`>, Row<`perf_ctr${N}`>] {
  return [
    row(`perf_ctl${index}`, offset, 8, `Performance event select ${index}`),
    row(`perf_ctr${index}`, offset + 8, 8, `Performance counter ${index}`),
  ];
}

/** Name of a row of the whole VMCB. */
export type VmcbFieldName =
  | `control.${typeof CONTROL_FIELDS[number]["name"]}`
  | `save.${typeof SAVE_FIELDS[number]["name"]}`;

/** The whole VMCB: control fields as `control.NAME`, save fields as `save.NAME`. */
export const VMCB_LAYOUT: Layout = {
  name: "vmcb",
  size: VMCB_SIZE,
  fields: [
    ...CONTROL_FIELDS.map((f: Field) => ({ ...f, name: `control.${f.name}` })),
    ...SAVE_FIELDS.map((f: Field) => ({
      ...f,
      name: `save.${f.name}`,
      offset: SAVE_AREA + f.offset,
    })),
  ],
};
