/**
 * The consistency checks of VMRUN that KVM makes in Linux 6.1.
 *
 * @module
 */
import type { Check } from "./check.ts";
import type { CheckSet } from "./check_set.ts";
import { cr4Reserved, eferReserved, RULES_6_1 } from "./cpu_rules.ts";
import { CHECKS_6_12 } from "./linux_6_12.ts";

function worded(id: string, text: string): Check {
  const row = CHECKS_6_12.checks.find((other) => other.id === id) as Check;
  return { ...row, texts: [text] };
}

/** Rows that are not 6.12's: worded otherwise, or by other rules. */
const OWN = new Map([
  worded("lme-pg-cr3", "kvm_vcpu_is_illegal_gpa(vcpu, save->cr3)"),
  worded("cr3-legal", "kvm_vcpu_is_illegal_gpa(vcpu, cr3)"),
  cr4Reserved(RULES_6_1, "!__kvm_is_valid_cr4(vcpu, save->cr4)"),
  eferReserved(RULES_6_1, "!kvm_valid_efer(vcpu, save->efer)"),
].map((row) => [row.id, row]));

/** Checks of Linux 6.1 (stable): those of 6.12 without virtual NMIs, which it does not know. */
export const CHECKS_6_1: CheckSet = {
  name: "linux-6.1",
  maker: "kvm",
  checks: CHECKS_6_12.checks.filter(({ id }) => id !== "vnmi-without-nmi-intercept")
    .map((row) => OWN.get(row.id) ?? row),
};
