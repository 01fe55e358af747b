/**
 * The bits of the control area's own fields: interrupt control, event
 * injection, enables, clean bits. Names are KVM's, else the manual's.
 *
 * @module
 */
import type { BitField } from "../layout.ts";
import { type Masks, masks } from "./bits.ts";

/** Values of `tlb_ctl` (KVM's TLB_CONTROL_*). */
export const TLB_CTL_VALUES: Readonly<Record<number, string>> = {
  0: "DO_NOTHING",
  1: "FLUSH_ALL_ASID",
  3: "FLUSH_ASID",
  7: "FLUSH_ASID_LOCAL",
};

/** Bits of `erap_ctl`: the return address predictor. */
export const ERAP_CTL_BITS = [
  { name: "ALLOW_LARGER_RAP", bit: 0 },
  { name: "CLEAR_RAP", bit: 1 },
] as const satisfies readonly BitField[];

/** Bits of `int_ctl` (KVM's V_*_MASK). */
export const INT_CTL_BITS = [
  { name: "V_TPR", bit: 0, width: 8 },
  { name: "V_IRQ", bit: 8 },
  { name: "V_GIF", bit: 9 },
  { name: "V_NMI_PENDING", bit: 11 },
  { name: "V_NMI_BLOCKING", bit: 12 },
  { name: "V_INTR_PRIO", bit: 16, width: 4 },
  { name: "V_IGN_TPR", bit: 20 },
  { name: "V_INTR_MASKING", bit: 24 },
  { name: "V_GIF_ENABLE", bit: 25 },
  { name: "V_NMI_ENABLE", bit: 26 },
  { name: "X2APIC_MODE", bit: 30 },
  { name: "AVIC_ENABLE", bit: 31 },
] as const satisfies readonly BitField[];

/**
 * Masks of the bits of `int_ctl`.
 *
 * @example
 * ```ts
 * import { INT_CTL } from "@vmtape/vmtape/engine";
 * if (INT_CTL.V_GIF_ENABLE !== 0x200_0000) throw new Error();
 * ```
 */
export const INT_CTL: Masks<typeof INT_CTL_BITS> = masks(INT_CTL_BITS);

/** Bits of `int_state`. */
export const INT_STATE_BITS = [
  { name: "INTERRUPT_SHADOW", bit: 0 },
  { name: "GUEST_INTERRUPT_MASK", bit: 1 },
] as const satisfies readonly BitField[];

/** Values of an event's `type` (KVM's SVM_EVTINJ_TYPE_*). */
export const EVENT_INJ_TYPES: Readonly<Record<number, string>> = {
  0: "INTR",
  2: "NMI",
  3: "EXEPT",
  4: "SOFT",
};

/** An event: `event_inj` and `exit_int_info` (APM vol. 2, 15.20). `EV`: it has an error code. */
export const EVENT_INJ_BITS = [
  { name: "vec", bit: 0, width: 8 },
  { name: "type", bit: 8, width: 3, values: EVENT_INJ_TYPES },
  { name: "EV", bit: 11 },
  { name: "V", bit: 31 },
] as const satisfies readonly BitField[];

/**
 * Masks of the parts of an event.
 *
 * @example
 * ```ts
 * import { EVENT_INJ } from "@vmtape/vmtape/engine";
 * if (EVENT_INJ.V !== 0x8000_0000 || EVENT_INJ.type !== 0x700) throw new Error();
 * ```
 */
export const EVENT_INJ: Masks<typeof EVENT_INJ_BITS> = masks(EVENT_INJ_BITS);

/** Bits of `nested_ctl` (KVM's SVM_NESTED_CTL_*). */
export const NESTED_CTL_BITS = [
  { name: "NP_ENABLE", bit: 0 },
  { name: "SEV_ENABLE", bit: 1 },
  { name: "SEV_ES_ENABLE", bit: 2 },
  { name: "GMET_ENABLE", bit: 3 },
  { name: "SSS_CHECK_ENABLE", bit: 4 },
  { name: "VTE_ENABLE", bit: 5 },
  { name: "RO_GPT_ENABLE", bit: 6 },
  { name: "INVLPGB_ENABLE", bit: 7 },
] as const satisfies readonly BitField[];

/**
 * Masks of the bits of `nested_ctl`.
 *
 * @example
 * ```ts
 * import { NESTED_CTL } from "@vmtape/vmtape/engine";
 * if (NESTED_CTL.NP_ENABLE !== 1) throw new Error();
 * ```
 */
export const NESTED_CTL: Masks<typeof NESTED_CTL_BITS> = masks(NESTED_CTL_BITS);

/** Bits of `virt_ext` (KVM's LBR_CTL_ENABLE_MASK, VIRTUAL_VMLOAD_VMSAVE_ENABLE_MASK). */
export const VIRT_EXT_BITS = [
  { name: "LBR_CTL_ENABLE", bit: 0 },
  { name: "VIRTUAL_VMLOAD_VMSAVE_ENABLE", bit: 1 },
  { name: "IBS_ENABLE", bit: 2 },
  { name: "PMC_ENABLE", bit: 3 },
] as const satisfies readonly BitField[];

/**
 * Masks of the bits of `virt_ext`.
 *
 * @example
 * ```ts
 * import { VIRT_EXT } from "@vmtape/vmtape/engine";
 * if (VIRT_EXT.LBR_CTL_ENABLE !== 1) throw new Error();
 * ```
 */
export const VIRT_EXT: Masks<typeof VIRT_EXT_BITS> = masks(VIRT_EXT_BITS);

/** The VMCB clean bits (APM vol. 2, 15.15.3; KVM's VMCB_*). */
export const CLEAN_BITS = [
  { name: "INTERCEPTS", bit: 0 },
  { name: "PERM_MAP", bit: 1 },
  { name: "ASID", bit: 2 },
  { name: "INTR", bit: 3 },
  { name: "NPT", bit: 4 },
  { name: "CR", bit: 5 },
  { name: "DR", bit: 6 },
  { name: "DT", bit: 7 },
  { name: "SEG", bit: 8 },
  { name: "CR2", bit: 9 },
  { name: "LBR", bit: 10 },
  { name: "AVIC", bit: 11 },
  { name: "CET", bit: 12 },
  { name: "SW", bit: 31 },
] as const satisfies readonly BitField[];

/**
 * Masks of the VMCB clean bits.
 *
 * @example
 * ```ts
 * import { CLEAN } from "@vmtape/vmtape/engine";
 * if (CLEAN.NPT !== 0x10) throw new Error();
 * ```
 */
export const CLEAN: Masks<typeof CLEAN_BITS> = masks(CLEAN_BITS);

/** Parts of `avic_physical_id`. */
export const AVIC_PHYSICAL_ID_BITS = [
  { name: "MAX_INDEX", bit: 0, width: 12 },
  { name: "TABLE", bit: 12, width: 40 },
] as const satisfies readonly BitField[];

/** Parts of `allowed_sev_features`. */
export const ALLOWED_SEV_FEATURES_BITS = [
  { name: "MASK", bit: 0, width: 62 },
  { name: "EN", bit: 63 },
] as const satisfies readonly BitField[];

/** Parts of `sw_reserved` as Hyper-V uses it (KVM's struct hv_vmcb_enlightenments). */
export const SW_RESERVED_BITS = [
  { name: "NESTED_FLUSH_HYPERCALL", bit: 0 },
  { name: "MSR_BITMAP", bit: 1 },
  { name: "ENLIGHTENED_NPT_TLB", bit: 2 },
  { name: "hv_vp_id", bit: 32, width: 32 },
  { name: "hv_vm_id", bit: 64, width: 64 },
  { name: "partition_assist_page", bit: 128, width: 64 },
] as const satisfies readonly BitField[];
