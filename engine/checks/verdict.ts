/**
 * What sets of consistency checks would say of a vmcb12 of which only a part is known.
 *
 * An answer has three values. A check fails or passes only if it does so
 * whatever the unknown bits are.
 *
 * @module
 */
import type { Image } from "../event.ts";
import { fieldMask, fieldNamed, readField } from "../image/fields.ts";
import type { Check } from "./check.ts";
import type { Capabilities } from "../svm/machine.ts";
import { VMCB_LAYOUT } from "../svm/vmcb_fields.ts";
import { type Answer, type Answers, answersOf } from "./answers.ts";
import { type CheckVerdict, checkVerdict } from "./check_verdict.ts";
import { decided, LEAST_BITS } from "./witness.ts";

/** What a recording says of the checks themselves, beyond the bits it shows. */
export interface Evidence {
  /** Ids of checks that passed. */
  readonly passed?: ReadonlySet<string>;
  /** Id of the check that failed. */
  readonly failed?: string | undefined;
  /** VMRUN was refused with no check failing: the MSR permission map could not be read. */
  readonly unreadable?: boolean;
}

/** What a set of checks comes to with one vmcb12. */
export interface SetOutcome {
  /** What it says. */
  readonly verdict: CheckVerdict;
  /** The first check that certainly fails, when one does. */
  readonly check: string | undefined;
}

/** What a set of checks says of one vmcb12. */
export interface SetVerdict extends SetOutcome {
  /**
   * What would have to be known to tell: names of fields, of what L1's CPUID says (`cpu.la57`; `cpu.pa`,
   * its address width), and of what lies outside the VMCB.
   */
  readonly needs: readonly string[];
}

/** Names of the fields of a check that are not wholly known. */
function unknownFields(check: Check, image: Image): string[] {
  return check.reads.filter((name) => {
    const row = fieldNamed(VMCB_LAYOUT, name);
    return readField(image, row).known !== fieldMask(row);
  });
}

/** What of L1's CPUID would settle a check: `cpu.NAME` for each feature without which it would fail, `cpu.pa`. */
function unknownCpuid(check: Check, caps: Capabilities, image: Image): string[] {
  const { cpuid } = caps;
  if (cpuid === undefined) return [];
  const most = decided(caps, true);
  const fails = (changed: Capabilities) => checkVerdict(check, changed, image) !== "passes";
  const names = (check.cpuid ?? []).filter((name) =>
    !cpuid.knows(name) &&
    fails({ ...most, cpuid: most.cpuid!.set(name, !most.cpuid!.has(name)) })
  ).map((name) => `cpu.${name}`);
  if (cpuid.physicalBits === undefined) {
    const narrow = most.cpuid!.withPhysicalBits(LEAST_BITS);
    if (fails({ ...most, cpuid: narrow, physicalBits: LEAST_BITS })) names.push("cpu.pa");
  }
  return names;
}

/**
 * What a set of checks says of a vmcb12.
 *
 * @param checks The set, in order.
 * @param caps What the processor and the hypervisor can do.
 * @param image vmcb12, as far as it is known.
 * @param evidence What is known of the checks from elsewhere.
 * @returns What it says, and what it would take to know more.
 * @example
 * ```ts
 * import { CHECKS_6_12, setVerdict, VMCB_SIZE } from "@vmtape/vmtape/engine";
 * const caps = { physicalBits: 48, npt: true, memory: 1 << 24 };
 * const unseen = { bytes: new Uint8Array(VMCB_SIZE), known: new Uint8Array(VMCB_SIZE) };
 * const { verdict, needs } = setVerdict(CHECKS_6_12.checks, caps, unseen);
 * if (verdict !== "unknown" || !needs.includes("save.cr4")) throw new Error();
 * ```
 */
export function setVerdict(
  checks: readonly Check[],
  caps: Capabilities,
  image: Image,
  evidence: Evidence = {},
): SetVerdict {
  const open: number[] = [];
  const answers = answersOf(checks, caps, image);
  const { verdict, check } = outcomeOf(checks, answers, evidence, open);
  const needs = new Set<string>();
  if (verdict !== "fails") {
    for (const index of open) {
      for (const name of needsOf(answers.at(index), checks[index]!, caps, image)) needs.add(name);
    }
  }
  return { verdict, check, needs: [...needs] };
}

/**
 * The same, without what would have to be known to tell.
 *
 * @param checks The set, in order.
 * @param caps What the processor and the hypervisor can do.
 * @param image vmcb12, as far as it is known.
 */
export function setOutcome(
  checks: readonly Check[],
  caps: Capabilities,
  image: Image,
): SetOutcome {
  return outcomeOf(checks, answersOf(checks, caps, image), {});
}

/** What a set says; which of its checks cannot be told goes into `open`. */
function outcomeOf(
  checks: readonly Check[],
  answers: Answers,
  evidence: Evidence,
  open?: number[],
): SetOutcome {
  let known = true;
  for (let i = 0; i < checks.length; i++) {
    const { id } = checks[i] as Check;
    if (id === evidence.failed) return { verdict: "fails", check: id };
    if (evidence.passed?.has(id)) continue;
    const { verdict } = answers.at(i);
    if (verdict === "fails") return { verdict, check: id };
    if (verdict === "passes") continue;
    known = false;
    open?.push(i);
  }
  return { verdict: known ? "passes" : "unknown", check: undefined };
}

/** What would have to be known for a check that cannot be told. */
function needsOf(
  answer: Answer,
  check: Check,
  caps: Capabilities,
  image: Image,
): readonly string[] {
  return answer.needs ??= [
    ...unknownFields(check, image),
    ...unknownCpuid(check, caps, image),
    ...(check.beyond === undefined ? [] : [check.beyond]),
  ];
}
