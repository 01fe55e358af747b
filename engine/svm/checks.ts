/**
 * The consistency checks of VMRUN, as tables: the order of the rows is the
 * order of evaluation, and evaluation stops at the first failure.
 *
 * @module
 */
import { C, type Machine, S } from "./machine.ts";

/** Where a check belongs: on the save area, on the control area, or on loading CR3. */
export type CheckGroup = "save" | "control" | "cr3";

/** One consistency check. */
export interface Check {
  /** Stable id; never reused for another meaning. */
  readonly id: string;
  /** The kernel's own text of it, newest first; it changes from kernel to kernel. */
  readonly texts: readonly string[];
  /** Where it belongs. */
  readonly group: CheckGroup;
  /** Fields it reads, as `save.NAME` and `control.NAME`. */
  readonly reads: readonly string[];
  /** What it forbids, in one line. */
  readonly doc: string;
  /** What it reads outside the VMCB; what {@linkcode Check.fails} forbids may then be allowed. */
  readonly beyond?: string;
  /** It is only made when nested state was restored. */
  readonly restore?: boolean;
  /**
   * Whether it fails. Checks of the group `cr3` are made by the step that loads
   * CR3, which knows what lies beyond the VMCB.
   *
   * @param m The machine.
   * @param at Byte offset of the VMCB image in `m.bytes`.
   */
  fails(m: Machine, at: number): boolean;
}

const EFER_LME = 1 << 8, EFER_LMA = 1 << 10, EFER_SVME = 1 << 12;
const CR0_PG = 1 << 31, CR0_PE = 1, CR0_NW = 1 << 29, CR0_CD = 1 << 30;
const CR4_PAE = 1 << 5;

/** CR4 bits that the modelled CPU offers its guests; PKE (bit 22) only under nested paging. */
const CR4_VALID = 0x0035_1fff;
const CR4_PKE = 1 << 22;
/** EFER bits that the modelled CPU offers: SCE, LME, LMA, NX, SVME, LMSLE. */
const EFER_VALID = 0x3d01;

const MSRPM_SIZE = 0x2000;
const IOPM_SIZE = 0x3000;

/** Whether long mode paging is asked for, where further rules apply. */
function longPaging(m: Machine, at: number): boolean {
  return (m.u32(at + S.efer) & EFER_LME) !== 0 && (m.u32(at + S.cr0) & CR0_PG) !== 0;
}

function illegal(m: Machine, at: number): boolean {
  return m.u32(at + 4) >>> m.caps.physicalBits - 32 !== 0;
}

function bitmapIllegal(m: Machine, at: number, size: number): boolean {
  if (illegal(m, at)) return true;
  const last = (m.u32(at + 4) * 0x1_0000_0000) + ((m.u32(at) & ~0xfff) >>> 0) + size - 1;
  return last >= 2 ** m.caps.physicalBits;
}

/** Whether PDPTEs may be loaded from guest memory: PAE paging, not long mode (EFER.LMA), no nested paging. */
function paeWithoutNp(m: Machine, at: number): boolean {
  return (m.u32(at + C.nested_ctl) & 1) === 0 && (m.u32(at + S.cr4) & CR4_PAE) !== 0 &&
    (m.u32(at + S.cr0) & CR0_PG) !== 0 && (m.u32(at + S.efer) & EFER_LMA) === 0;
}

function check(
  group: CheckGroup,
  id: string,
  text: string | readonly string[],
  reads: readonly string[],
  doc: string,
  fails: (m: Machine, at: number) => boolean,
): Check {
  return { id, group, reads, doc, texts: typeof text === "string" ? [text] : text, fails };
}

/** Checks of Linux 6.12 (stable), as KVM makes them. */
export const LINUX_6_12: readonly Check[] = [
  check(
    "save",
    "efer-svme",
    "!(save->efer & EFER_SVME)",
    ["save.efer"],
    "EFER.SVME is clear",
    (m, at) => (m.u32(at + S.efer) & EFER_SVME) === 0,
  ),
  check(
    "save",
    "cr0-nw-without-cd",
    "(save->cr0 & X86_CR0_CD) == 0 && (save->cr0 & X86_CR0_NW)",
    ["save.cr0"],
    "CR0.NW is set and CR0.CD is clear",
    (m, at) => (m.u32(at + S.cr0) & (CR0_CD | CR0_NW)) === CR0_NW,
  ),
  check(
    "save",
    "cr0-high",
    "save->cr0 & ~0xffffffffULL",
    ["save.cr0"],
    "A bit of CR0[63:32] is set",
    (m, at) => m.u32(at + S.cr0 + 4) !== 0,
  ),
  check(
    "save",
    "dr6-high",
    "!kvm_dr6_valid(save->dr6)",
    ["save.dr6"],
    "A bit of DR6[63:32] is set",
    (m, at) => m.u32(at + S.dr6 + 4) !== 0,
  ),
  check(
    "save",
    "dr7-high",
    "!kvm_dr7_valid(save->dr7)",
    ["save.dr7"],
    "A bit of DR7[63:32] is set",
    (m, at) => m.u32(at + S.dr7 + 4) !== 0,
  ),
  check(
    "save",
    "lme-pg-without-pae",
    "!(save->cr4 & X86_CR4_PAE)",
    ["save.efer", "save.cr0", "save.cr4"],
    "EFER.LME and CR0.PG are set and CR4.PAE is clear",
    (m, at) => longPaging(m, at) && (m.u32(at + S.cr4) & CR4_PAE) === 0,
  ),
  check(
    "save",
    "lme-pg-without-pe",
    "!(save->cr0 & X86_CR0_PE)",
    ["save.efer", "save.cr0"],
    "EFER.LME and CR0.PG are set and CR0.PE is clear",
    (m, at) => longPaging(m, at) && (m.u32(at + S.cr0) & CR0_PE) === 0,
  ),
  check(
    "save",
    "lme-pg-cr3",
    "!kvm_vcpu_is_legal_cr3(vcpu, save->cr3)",
    ["save.efer", "save.cr0", "save.cr3"],
    "EFER.LME and CR0.PG are set and CR3 has a bit beyond the physical address width",
    (m, at) => longPaging(m, at) && illegal(m, at + S.cr3),
  ),
  check(
    "save",
    "cs-l-and-d",
    "(save->cs.attrib & SVM_SELECTOR_L_MASK) && (save->cs.attrib & SVM_SELECTOR_DB_MASK)",
    ["save.efer", "save.cr0", "save.cs_attrib"],
    "EFER.LME and CR0.PG are set and CS.L and CS.D are both set",
    (m, at) => longPaging(m, at) && (m.u16(at + S.cs_attrib) & 0x600) === 0x600,
  ),
  check(
    "save",
    "cr4-reserved",
    ["!__kvm_is_valid_cr4(vcpu, save->cr4)", "!kvm_is_valid_cr4(vcpu, save->cr4)"],
    ["save.cr4"],
    "A reserved bit of CR4 is set",
    (m, at) =>
      m.u32(at + S.cr4 + 4) !== 0 ||
      (m.u32(at + S.cr4) & ~(m.caps.npt ? CR4_VALID | CR4_PKE : CR4_VALID)) !== 0,
  ),
  check(
    "save",
    "efer-reserved",
    "!kvm_valid_efer(vcpu, save->efer)",
    ["save.efer"],
    "A reserved bit of EFER is set",
    (m, at) => m.u32(at + S.efer + 4) !== 0 || (m.u32(at + S.efer) & ~EFER_VALID) !== 0,
  ),
  check(
    "control",
    "vmrun-intercept",
    [
      "!vmcb12_is_intercept(control, INTERCEPT_VMRUN)",
      "!vmcb_is_intercept(control, INTERCEPT_VMRUN)",
    ],
    ["control.intercept_word4"],
    "VMRUN is not intercepted",
    (m, at) => (m.u32(at + C.intercept_word4) & 1) === 0,
  ),
  check(
    "control",
    "asid-zero",
    "control->asid == 0",
    ["control.asid"],
    "The ASID is 0",
    (m, at) => m.u32(at + C.asid) === 0,
  ),
  check(
    "control",
    "np-without-npt",
    "(control->nested_ctl & SVM_NESTED_CTL_NP_ENABLE) && !npt_enabled",
    ["control.nested_ctl"],
    "Nested paging is asked for and the hypervisor has none",
    (m, at) => (m.u32(at + C.nested_ctl) & 1) !== 0 && !m.caps.npt,
  ),
  check(
    "control",
    "ncr3-legal",
    "(control->nested_ctl & SVM_NESTED_CTL_NP_ENABLE) && !kvm_vcpu_is_legal_gpa(vcpu, control->nested_cr3)",
    ["control.nested_ctl", "control.nested_cr3"],
    "Nested paging is asked for and nCR3 has a bit beyond the physical address width",
    (m, at) => (m.u32(at + C.nested_ctl) & 1) !== 0 && illegal(m, at + C.nested_cr3),
  ),
  check(
    "control",
    "msrpm-address",
    "!nested_svm_check_bitmap_pa(vcpu, control->msrpm_base_pa, MSRPM_SIZE)",
    ["control.msrpm_base_pa"],
    "The MSR permission map reaches beyond the physical address width",
    (m, at) => bitmapIllegal(m, at + C.msrpm_base_pa, MSRPM_SIZE),
  ),
  check(
    "control",
    "iopm-address",
    "!nested_svm_check_bitmap_pa(vcpu, control->iopm_base_pa, IOPM_SIZE)",
    ["control.iopm_base_pa"],
    "The I/O permission map reaches beyond the physical address width",
    (m, at) => bitmapIllegal(m, at + C.iopm_base_pa, IOPM_SIZE),
  ),
  check(
    "control",
    "vnmi-without-nmi-intercept",
    "(control->int_ctl & V_NMI_ENABLE_MASK) && !vmcb12_is_intercept(control, INTERCEPT_NMI)",
    ["control.int_ctl", "control.intercept_word3"],
    "Virtual NMIs are asked for and NMIs are not intercepted",
    (m, at) => (m.u32(at + C.int_ctl) & 1 << 26) !== 0 && (m.u32(at + C.intercept_word3) & 2) === 0,
  ),
  check(
    "cr3",
    "cr3-legal",
    "!kvm_vcpu_is_legal_cr3(vcpu, cr3)",
    ["save.cr3"],
    "CR3 has a bit beyond the physical address width",
    (m, at) => illegal(m, at + S.cr3),
  ),
  {
    ...check(
      "cr3",
      "pdptrs",
      "!load_pdptrs(vcpu, cr3)",
      ["control.nested_ctl", "save.cr4", "save.cr0", "save.efer"],
      "A PDPTE of a PAE guest has a reserved bit set, or cannot be read",
      paeWithoutNp,
    ),
    beyond: "guest memory at save.cr3",
  },
  {
    ...check(
      "cr3",
      "pdptrs-pages",
      "!load_pdptrs(vcpu, vcpu->arch.cr3)",
      ["control.nested_ctl", "save.cr4", "save.cr0", "save.efer"],
      "The same, when nested state pages are loaded after a restore",
      paeWithoutNp,
    ),
    beyond: "guest memory at save.cr3",
    restore: true,
  },
];

/** Check sets by name. */
export const CHECK_SETS: Readonly<Record<string, readonly Check[]>> = {
  "linux-6.12": LINUX_6_12,
};

/**
 * The check that a kernel's text stands for.
 *
 * @param text The text, as a tracepoint prints it.
 * @returns The check, or undefined when no set knows the text.
 * @example
 * ```ts
 * import { checkByText } from "@vmtape/vmtape/engine";
 * if (checkByText("control->asid == 0")?.id !== "asid-zero") throw new Error();
 * ```
 */
export function checkByText(text: string): Check | undefined {
  for (const set of Object.values(CHECK_SETS)) {
    for (const row of set) if (row.texts.includes(text)) return row;
  }
  return undefined;
}
