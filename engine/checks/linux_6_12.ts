/**
 * The consistency checks of VMRUN that KVM makes in Linux 6.12.
 *
 * @module
 */
import {
  bitmapIllegal,
  type Check,
  check,
  CR0_CD,
  CR0_NW,
  CR0_PE,
  CR4_PAE,
  EFER_SVME,
  illegal,
  IOPM_SIZE,
  longPaging,
  MSRPM_SIZE,
  paeWithoutNp,
} from "./check.ts";
import { cr4Reserved, eferReserved, RULES_6_12 } from "./cpu_rules.ts";
import type { CheckSet } from "./check_set.ts";
import { C, S } from "../svm/machine.ts";

const CHECKS: readonly Check[] = [
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
  cr4Reserved(RULES_6_12, [
    "!__kvm_is_valid_cr4(vcpu, save->cr4)",
    "!kvm_is_valid_cr4(vcpu, save->cr4)",
  ]),
  eferReserved(RULES_6_12, "!kvm_valid_efer(vcpu, save->efer)"),
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

/** Checks of Linux 6.12 (stable), as KVM makes them (nested_vmcb_check_save and its neighbours). */
export const CHECKS_6_12: CheckSet = { name: "linux-6.12", maker: "kvm", checks: CHECKS };
