/**
 * The MSRs that KVM keeps for a vCPU and no VMCB holds: where in the vCPU area. Each is kept as what
 * differs from its value at reset (exclusive or), so that a vCPU in its reset state is all zero.
 *
 * @module
 */
import type { Field } from "../layout.ts";

/** An MSR of 8 bytes, or a run of MSRs. */
export interface MsrField extends Field {
  /** Its number; the first one's, of a run. */
  readonly msr: number;
  /** Its value at reset; 0 when left out. */
  readonly reset?: bigint;
}

/** Rows of them. */
export const MSR_FIELDS = [
  { name: "mce_banks", offset: 0x400, size: 1024, msr: 0x400, doc: "MC0_CTL to MC31_MISC" },
  { name: "mtrr_variable", offset: 0x800, size: 128, msr: 0x200, doc: "Variable MTRRs" },
  { name: "mtrr_fixed", offset: 0x880, size: 88, msr: 0x250, doc: "Fixed MTRRs, in order" },
  { name: "mtrr_def_type", offset: 0x8d8, size: 8, msr: 0x2ff, doc: "MTRRdefType" },
  {
    name: "pat",
    offset: 0x8e0,
    size: 8,
    msr: 0x277,
    reset: 0x0007_0406_0007_0406n,
    doc: "PAT as L1 set it, exclusive or its value at reset",
  },
  {
    name: "apic_base",
    offset: 0x8e8,
    size: 8,
    msr: 0x1b,
    reset: 0xfee0_0900n,
    doc: "APIC_BASE, exclusive or its value at reset",
  },
  {
    name: "misc_enable",
    offset: 0x8f0,
    size: 8,
    msr: 0x1a0,
    reset: 0x1800n,
    doc: "MISC_ENABLE, exclusive or its value at reset",
  },
  { name: "misc_features", offset: 0x8f8, size: 8, msr: 0x140, doc: "MISC_FEATURES_ENABLES" },
  { name: "mcg_status", offset: 0x900, size: 8, msr: 0x17a, doc: "MCG_STATUS" },
  { name: "power_ctl", offset: 0x908, size: 8, msr: 0x1fc, doc: "POWER_CTL" },
  { name: "tsc", offset: 0x910, size: 8, msr: 0x10, doc: "L1's TSC as it was last set" },
  { name: "tsc_adjust", offset: 0x918, size: 8, msr: 0x3b, doc: "TSC_ADJUST" },
  { name: "tsc_aux", offset: 0x920, size: 8, msr: 0xc0000103, doc: "TSC_AUX" },
  { name: "hwcr", offset: 0x928, size: 8, msr: 0xc0010015, doc: "HWCR" },
  { name: "vm_cr", offset: 0x930, size: 8, msr: 0xc0010114, doc: "VM_CR" },
  { name: "de_cfg", offset: 0x938, size: 8, msr: 0xc0011029, doc: "DE_CFG" },
  {
    name: "poll_control",
    offset: 0x940,
    size: 8,
    msr: 0x4b564d05,
    reset: 1n,
    doc: "KVM_POLL_CONTROL, exclusive or its value at reset",
  },
  { name: "wall_clock", offset: 0x948, size: 8, msr: 0x4b564d00, doc: "KVM_WALL_CLOCK" },
  { name: "system_time", offset: 0x950, size: 8, msr: 0x4b564d01, doc: "KVM_SYSTEM_TIME" },
  { name: "steal_time", offset: 0x958, size: 8, msr: 0x4b564d03, doc: "KVM_STEAL_TIME" },
  { name: "pv_eoi", offset: 0x960, size: 8, msr: 0x4b564d04, doc: "KVM_PV_EOI_EN" },
] as const satisfies readonly MsrField[];
