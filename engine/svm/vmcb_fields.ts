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

/** What there is to a field besides its name, place and size. */
type More = Pick<Field, "clean" | "bits" | "values">;

/** A row of a table below: name, offset, size, what it is, and more. */
type Listed<N extends string = string> = readonly [
  name: N,
  offset: number,
  size: number,
  doc: string,
  more?: More,
];

/** Name, offset, and the clean bit that covers the register. */
type ListedSegment<N extends string = string> = readonly [name: N, offset: number, clean?: number];

/**
 * The control area as a table: name, offset from the start of the VMCB, size in bytes, what it is, and
 * more. Literals alone, so that the names are types which a declaration can spell.
 */
export const CONTROL_ROWS = [
  ["intercept_cr", 0x000, 4, "CR reads (15:0) and writes (31:16) to intercept", {
    clean: 0,
    bits: INTERCEPT_CR_BITS,
  }],
  ["intercept_dr", 0x004, 4, "DR reads (15:0) and writes (31:16) to intercept", {
    clean: 0,
    bits: INTERCEPT_DR_BITS,
  }],
  ["intercept_exceptions", 0x008, 4, "Exception vectors to intercept", {
    clean: 0,
    bits: INTERCEPT_EXCEPTION_BITS,
  }],
  ["intercept_word3", 0x00c, 4, "Instructions and events to intercept, first word", {
    clean: 0,
    bits: INTERCEPT_WORD3_BITS,
  }],
  ["intercept_word4", 0x010, 4, "Instructions and events to intercept, second word", {
    clean: 0,
    bits: INTERCEPT_WORD4_BITS,
  }],
  ["intercept_word5", 0x014, 4, "Instructions and events to intercept, third word", {
    clean: 0,
    bits: INTERCEPT_WORD5_BITS,
  }],
  ["pause_filter_thresh", 0x03c, 2, "PAUSE filter threshold, TSC cycles", { clean: 0 }],
  ["pause_filter_count", 0x03e, 2, "PAUSE filter count", { clean: 0 }],
  ["iopm_base_pa", 0x040, 8, "Physical address of the I/O permission map", { clean: 1 }],
  ["msrpm_base_pa", 0x048, 8, "Physical address of the MSR permission map", { clean: 1 }],
  ["tsc_offset", 0x050, 8, "Added to the TSC as the guest reads it", { clean: 0 }],
  ["asid", 0x058, 4, "Address space identifier of the guest", { clean: 2 }],
  ["tlb_ctl", 0x05c, 1, "TLB flush to do at VMRUN", { values: TLB_CTL_VALUES }],
  ["erap_ctl", 0x05d, 1, "Return address predictor (ERAPS)", { bits: ERAP_CTL_BITS }],
  ["int_ctl", 0x060, 4, "Virtual interrupt control", { clean: 3, bits: INT_CTL_BITS }],
  ["int_vector", 0x064, 4, "Vector of the virtual interrupt", { clean: 3 }],
  ["int_state", 0x068, 4, "Interrupt shadow and virtual interrupt mask", {
    bits: INT_STATE_BITS,
  }],
  ["exit_code", 0x070, 4, "Reason of the #VMEXIT, low half", { values: EXIT_CODE_VALUES }],
  ["exit_code_hi", 0x074, 4, "Reason of the #VMEXIT, high half"],
  ["exit_info_1", 0x078, 8, "First word of information on the #VMEXIT"],
  ["exit_info_2", 0x080, 8, "Second word of information on the #VMEXIT"],
  ["exit_int_info", 0x088, 4, "Event whose delivery the #VMEXIT interrupted", {
    bits: EVENT_INJ_BITS,
  }],
  ["exit_int_info_err", 0x08c, 4, "Error code of that event"],
  ["nested_ctl", 0x090, 8, "Nested paging and SEV enables", { clean: 4, bits: NESTED_CTL_BITS }],
  ["avic_vapic_bar", 0x098, 8, "Guest physical address of the virtual APIC", { clean: 11 }],
  ["ghcb_gpa", 0x0a0, 8, "Guest physical address of the GHCB"],
  ["event_inj", 0x0a8, 4, "Event to inject at VMRUN", { bits: EVENT_INJ_BITS }],
  ["event_inj_err", 0x0ac, 4, "Error code of the event to inject"],
  ["nested_cr3", 0x0b0, 8, "nCR3: root of the nested page table", { clean: 4 }],
  ["virt_ext", 0x0b8, 8, "LBR virtualization and virtual VMLOAD/VMSAVE enables", {
    clean: 10,
    bits: VIRT_EXT_BITS,
  }],
  ["clean", 0x0c0, 4, "VMCB clean bits", { bits: CLEAN_BITS }],
  ["next_rip", 0x0c8, 8, "Address of the instruction after the intercepted one"],
  ["insn_len", 0x0d0, 1, "Number of instruction bytes fetched"],
  ["insn_bytes", 0x0d1, 15, "Instruction bytes fetched"],
  ["avic_backing_page", 0x0e0, 8, "AVIC backing page", { clean: 11 }],
  ["avic_logical_id", 0x0f0, 8, "AVIC logical table", { clean: 11 }],
  ["avic_physical_id", 0x0f8, 8, "AVIC physical table and highest index", {
    clean: 11,
    bits: AVIC_PHYSICAL_ID_BITS,
  }],
  ["vmsa_pa", 0x108, 8, "Physical address of the encrypted save area"],
  ["vmgexit_rax", 0x110, 8, "RAX at the VMGEXIT"],
  ["vmgexit_cpl", 0x118, 1, "CPL at the VMGEXIT"],
  ["bus_lock_counter", 0x120, 2, "Bus locks left before a #VMEXIT"],
  ["update_irr", 0x134, 4, "Requested interrupts are to be taken over"],
  ["allowed_sev_features", 0x138, 8, "SEV features that the guest may have", {
    bits: ALLOWED_SEV_FEATURES_BITS,
  }],
  ["guest_sev_features", 0x140, 8, "SEV features that the guest has"],
  ["requested_irr", 0x150, 32, "Interrupts requested of a guest with secure AVIC"],
  ["sw_reserved", 0x3e0, 32, "Reserved for the host's software (Hyper-V enlightenments)", {
    clean: 31,
    bits: SW_RESERVED_BITS,
  }],
] as const satisfies readonly Listed[];

/** The segment registers of the save area: name, offset, and the clean bit that covers it. */
export const SEGMENT_ROWS = [
  ["es", 0x00, 8],
  ["cs", 0x10, 8],
  ["ss", 0x20, 8],
  ["ds", 0x30, 8],
  ["fs", 0x40],
  ["gs", 0x50],
  ["gdtr", 0x60, 7],
  ["ldtr", 0x70],
  ["idtr", 0x80, 7],
  ["tr", 0x90],
] as const satisfies readonly ListedSegment[];

/** The save area beyond the segment registers, as a table like the control area's. */
export const SAVE_ROWS = [
  ["vmpl", 0x0ca, 1, "Virtual machine privilege level (SEV-SNP)"],
  ["cpl", 0x0cb, 1, "Current privilege level", { clean: 8 }],
  ["efer", 0x0d0, 8, "Extended feature enables", { clean: 5, bits: EFER_BITS }],
  ["perf_ctl0", 0x0e0, 8, "Performance event select 0"],
  ["perf_ctr0", 0x0e8, 8, "Performance counter 0"],
  ["perf_ctl1", 0x0f0, 8, "Performance event select 1"],
  ["perf_ctr1", 0x0f8, 8, "Performance counter 1"],
  ["perf_ctl2", 0x100, 8, "Performance event select 2"],
  ["perf_ctr2", 0x108, 8, "Performance counter 2"],
  ["perf_ctl3", 0x110, 8, "Performance event select 3"],
  ["perf_ctr3", 0x118, 8, "Performance counter 3"],
  ["perf_ctl4", 0x120, 8, "Performance event select 4"],
  ["perf_ctr4", 0x128, 8, "Performance counter 4"],
  ["perf_ctl5", 0x130, 8, "Performance event select 5"],
  ["perf_ctr5", 0x138, 8, "Performance counter 5"],
  ["cr4", 0x148, 8, "Control register 4", { clean: 5, bits: CR4_BITS }],
  ["cr3", 0x150, 8, "Control register 3: page table root", { clean: 5 }],
  ["cr0", 0x158, 8, "Control register 0", { clean: 5, bits: CR0_BITS }],
  ["dr7", 0x160, 8, "Debug control", { clean: 6, bits: DR7_BITS }],
  ["dr6", 0x168, 8, "Debug status", { clean: 6, bits: DR6_BITS }],
  ["rflags", 0x170, 8, "Flags", { bits: RFLAGS_BITS }],
  ["rip", 0x178, 8, "Instruction pointer"],
  ["instr_retired_ctr", 0x1c0, 8, "Instructions retired"],
  ["perf_ctr_global_sts", 0x1c8, 8, "Performance counter status"],
  ["perf_ctr_global_ctl", 0x1d0, 4, "Performance counter enables"],
  ["rsp", 0x1d8, 8, "Stack pointer"],
  ["s_cet", 0x1e0, 8, "Supervisor shadow stack control", { clean: 12, bits: S_CET_BITS }],
  ["ssp", 0x1e8, 8, "Shadow stack pointer", { clean: 12 }],
  ["isst_addr", 0x1f0, 8, "Interrupt shadow stack table", { clean: 12 }],
  ["rax", 0x1f8, 8, "Accumulator"],
  ["star", 0x200, 8, "SYSCALL selectors", { bits: STAR_BITS }],
  ["lstar", 0x208, 8, "SYSCALL target in 64-bit mode"],
  ["cstar", 0x210, 8, "SYSCALL target in compatibility mode"],
  ["sfmask", 0x218, 8, "SYSCALL flag mask"],
  ["kernel_gs_base", 0x220, 8, "GS base that SWAPGS loads"],
  ["sysenter_cs", 0x228, 8, "SYSENTER code selector"],
  ["sysenter_esp", 0x230, 8, "SYSENTER stack pointer"],
  ["sysenter_eip", 0x238, 8, "SYSENTER target"],
  ["cr2", 0x240, 8, "Page fault address", { clean: 9 }],
  ["g_pat", 0x268, 8, "Guest PAT under nested paging", { clean: 4, bits: PAT_BITS }],
  ["dbgctl", 0x270, 8, "Debug control MSR", { clean: 10, bits: DBGCTL_BITS }],
  ["br_from", 0x278, 8, "Last branch source", { clean: 10 }],
  ["br_to", 0x280, 8, "Last branch target", { clean: 10 }],
  ["last_excp_from", 0x288, 8, "Last exception source", { clean: 10 }],
  ["last_excp_to", 0x290, 8, "Last exception target", { clean: 10 }],
  ["dbgextnctl", 0x298, 8, "Debug extension control MSR", { clean: 10 }],
  ["spec_ctrl", 0x2e0, 8, "Speculation control MSR", { bits: SPEC_CTRL_BITS }],
  ["lbr_stack", 0x670, 256, "Last branch stack, sources and targets in MSR order", {
    clean: 10,
  }],
  ["lbr_select", 0x770, 8, "Last branch stack filter", { clean: 10 }],
  ["ibs_fetch_ctl", 0x778, 8, "IBS fetch control"],
  ["ibs_fetch_linaddr", 0x780, 8, "IBS fetch linear address"],
  ["ibs_op_ctl", 0x788, 8, "IBS execution control"],
  ["ibs_op_rip", 0x790, 8, "IBS operation address"],
  ["ibs_op_data", 0x798, 8, "IBS operation data, first word"],
  ["ibs_op_data2", 0x7a0, 8, "IBS operation data, second word"],
  ["ibs_op_data3", 0x7a8, 8, "IBS operation data, third word"],
  ["ibs_dc_linaddr", 0x7b0, 8, "IBS data linear address"],
  ["bp_ibstgt_rip", 0x7b8, 8, "IBS branch target"],
  ["ic_ibs_extd_ctl", 0x7c0, 8, "IBS fetch control, extended"],
] as const satisfies readonly Listed[];

/** A field of a table, under its name. */
export type Row<N extends string> = Field & { readonly name: N };

/** What there is to a segment register. */
export type SegmentPart = "selector" | "attrib" | "limit" | "base";

/** Name of a field of the control area. */
export type ControlFieldName = typeof CONTROL_ROWS[number][0];

/** Name of a field of the save area. */
export type SaveFieldName =
  | typeof SAVE_ROWS[number][0]
  | `${typeof SEGMENT_ROWS[number][0]}_${SegmentPart}`;

/** Rows of the control area; offsets from the start of the VMCB. */
export const CONTROL_FIELDS: readonly Row<ControlFieldName>[] = CONTROL_ROWS.map((r) => row(r));

/** Rows of the save area; offsets from the start of the save area. */
export const SAVE_FIELDS: readonly Row<SaveFieldName>[] = [
  ...SEGMENT_ROWS.flatMap((r) => segment(r)),
  ...SAVE_ROWS.map((r) => row(r)),
];

function row<N extends string>([name, offset, size, doc, more = {}]: Listed<N>): Row<N> {
  return { name, offset, size, ...more, doc };
}

function segment<N extends string>(
  [name, offset, clean]: ListedSegment<N>,
): Row<`${N}_${SegmentPart}`>[] {
  const covered = clean === undefined ? {} : { clean };
  const register = name.toUpperCase();
  return [
    row([`${name}_selector`, offset, 2, `${register} selector`, covered]),
    row([`${name}_attrib`, offset + 2, 2, `${register} attributes, packed to 12 bits`, {
      ...covered,
      bits: SEGMENT_ATTRIB_BITS,
    }]),
    row([`${name}_limit`, offset + 4, 4, `${register} limit`, covered]),
    row([`${name}_base`, offset + 8, 8, `${register} base`, covered]),
  ];
}

/** Name of a row of the whole VMCB. */
export type VmcbFieldName =
  | `control.${ControlFieldName}`
  | `save.${SaveFieldName}`;

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
