/**
 * The consistency checks of VMRUN that KVM makes in Linux 7.3.
 *
 * @module
 */
import { type Check, check } from "./check.ts";
import type { CheckSet } from "./check_set.ts";
import { cr4Reserved, eferReserved, RULES_7_3 } from "./cpu_rules.ts";
import { CHECKS_6_12 } from "./linux_6_12.ts";
import { C, type Machine } from "../svm/machine.ts";

const VALID = 0x80000000;
const TYPE_EXEPT = 3;

/** Types of EVENTINJ that KVM lets L1 inject: an interrupt, an NMI, an exception, a software interrupt. */
const TYPES: ReadonlySet<number> = new Set([0, 2, TYPE_EXEPT, 4]);

/**
 * Vectors of exceptions that can be injected: those there are, but NMI's and the coprocessor
 * segment overrun. #CP needs shadow stacks and #VC SEV-ES, which no guest of a nested hypervisor has.
 */
const EXCEPTIONS: ReadonlySet<number> = new Set(
  [0, 1, 3, 4, 5, 6, 7, 8, 10, 11, 12, 13, 14, 16, 17, 18, 19, 28, 30],
);

function illegalEvent(m: Machine, at: number): boolean {
  const event = m.u32(at + C.event_inj);
  if (event < VALID) return false;
  const type = event >>> 8 & 7;
  return !TYPES.has(type) || type === TYPE_EXEPT && !EXCEPTIONS.has(event & 0xff);
}

/** Texts that are worded otherwise than in 6.12. */
const TEXTS: Readonly<Record<string, string>> = {
  "ncr3-legal":
    "(control->misc_ctl & SVM_MISC_ENABLE_NP) && !kvm_vcpu_is_legal_gpa(vcpu, control->nested_cr3)",
};

/** Whose reserved bits are 7.3's own. */
const RESERVED: Readonly<Record<string, Check>> = {
  "cr4-reserved": cr4Reserved(RULES_7_3, "!__kvm_is_valid_cr4(vcpu, save->cr4)"),
  "efer-reserved": eferReserved(RULES_7_3, "!kvm_valid_efer(vcpu, save->efer)"),
};

const KEPT: readonly Check[] = CHECKS_6_12.checks
  // NP_ENABLE that L1's processor does not have is cut as vmcb12 is cached.
  .filter(({ id }) => id !== "np-without-npt")
  .map((row) => {
    const text = TEXTS[row.id];
    return RESERVED[row.id] ?? (text === undefined ? row : { ...row, texts: [text, ...row.texts] });
  });

const EVENT_INJ = check(
  "control",
  "event-inj",
  "!nested_svm_check_event_inj(vcpu, control->event_inj)",
  ["control.event_inj"],
  "EVENTINJ has a type that cannot be injected, or an exception's type with a vector that is none",
  illegalEvent,
);

const CHECKS: readonly Check[] = [
  ...KEPT.filter(({ group }) => group !== "cr3"),
  EVENT_INJ,
  ...KEPT.filter(({ group }) => group === "cr3"),
];

/** Checks of Linux 7.3, as KVM makes them of what it cached of vmcb12. */
export const CHECKS_7_3: CheckSet = { name: "linux-7.3", maker: "kvm", checks: CHECKS };
