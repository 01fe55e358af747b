/**
 * What consistency checks would say of a vmcb12 of which only a part is known.
 *
 * An answer has three values. A check fails or passes only if it does so
 * whatever the unknown bits are.
 *
 * @module
 */
import { ContentNumbers } from "../content_numbers.ts";
import type { Image } from "../event.ts";
import { fieldMask, fieldNamed, readField } from "../image/fields.ts";
import type { Check } from "./check.ts";
import { type Capabilities, type Machine, VMCB12_AT } from "../svm/machine.ts";
import { VMCB_LAYOUT, VMCB_SIZE } from "../svm/vmcb_fields.ts";
import { decided, halvesOf, LEAST_BITS, machineOf, Question, rowsOf } from "./witness.ts";

/** What a check, or a set of checks, says: `unknown` when what is known does not settle it. */
export type CheckVerdict = "passes" | "fails" | "unknown";

/** What a recording says of the checks themselves, beyond the bits it shows. */
export interface Evidence {
  /** Ids of checks that passed. */
  readonly passed?: ReadonlySet<string>;
  /** Id of the check that failed. */
  readonly failed?: string | undefined;
  /** VMRUN was refused with no check failing: the MSR permission map could not be read. */
  readonly unreadable?: boolean;
}

/** What a set of checks says of one vmcb12. */
export interface SetVerdict {
  /** What it says. */
  readonly verdict: CheckVerdict;
  /** The first check that certainly fails, when one does. */
  readonly check: string | undefined;
  /**
   * What would have to be known to tell: names of fields, of what L1's CPUID says (`cpu.la57`; `cpu.pa`,
   * its address width), and of what lies outside the VMCB.
   */
  readonly needs: readonly string[];
}

/**
 * What one check says of a vmcb12.
 *
 * @param check The check.
 * @param caps What the processor and the hypervisor can do.
 * @param image vmcb12, as far as it is known.
 * @returns Whether it fails whatever the unknown bits are, passes, or neither is certain.
 * @example
 * ```ts
 * import { checkByText, checkVerdict, VMCB_SIZE } from "@vmtape/vmtape/engine";
 * const caps = { physicalBits: 48, npt: true, memory: 1 << 24 };
 * const unseen = { bytes: new Uint8Array(VMCB_SIZE), known: new Uint8Array(VMCB_SIZE) };
 * const check = checkByText("control->asid == 0")!;
 * if (checkVerdict(check, caps, unseen) !== "unknown") throw new Error();
 * unseen.known.fill(0xff);
 * if (checkVerdict(check, caps, unseen) !== "fails") throw new Error();
 * ```
 */
export function checkVerdict(check: Check, caps: Capabilities, image: Image): CheckVerdict {
  const question = new Question(check, caps, image);
  if (question.witness(true) === undefined) return "passes";
  if (check.beyond !== undefined) return "unknown";
  return question.witness(false) === undefined ? "fails" : "unknown";
}

/**
 * What checks say of a vmcb12 of which all is known, as {@linkcode checkVerdict} does, without looking
 * for values.
 *
 * @param caps What the processor and the hypervisor can do.
 * @param bytes vmcb12, of a VMCB's size.
 * @returns Answers for a check at a time, until something else asks about checks.
 */
export function wholeVerdicts(
  caps: Capabilities,
  bytes: Uint8Array,
): (check: Check) => CheckVerdict {
  const least = machineOf(decided(caps, false)), most = machineOf(decided(caps, true));
  least.bytes.set(bytes, VMCB12_AT);
  most.bytes.set(bytes, VMCB12_AT);
  return (check) => {
    if (!check.fails(least, VMCB12_AT)) return "passes";
    if (check.beyond !== undefined) return "unknown";
    return check.fails(most, VMCB12_AT) ? "fails" : "unknown";
  };
}

/** What is known of one check and the fields it reads. */
interface Answer {
  readonly verdict: CheckVerdict;
  /** What would have to be known to tell, once somebody asked. */
  needs: readonly string[] | undefined;
}

/** Answers about one check that are kept at most; most VMRUNs of a log agree in what a check reads. */
const MOST_ANSWERS = 4096;

/** By the content of the fields that a check reads. */
const answers = new WeakMap<Machine, Map<Check, Map<number, Answer>>>();
const contents = new ContentNumbers();
const content = new Int32Array(VMCB_SIZE);

function answerOf(check: Check, caps: Capabilities, image: Image): Answer {
  const machine = machineOf(caps);
  let ofMachine = answers.get(machine);
  if (ofMachine === undefined) answers.set(machine, ofMachine = new Map());
  let known = ofMachine.get(check);
  if (known === undefined) ofMachine.set(check, known = new Map());
  const key = contentOf(check, image);
  let answer = known.get(key);
  if (answer === undefined) {
    if (known.size >= MOST_ANSWERS) known.clear();
    known.set(key, answer = { verdict: checkVerdict(check, caps, image), needs: undefined });
  }
  return answer;
}

/** The number of what the fields that a check reads hold, and of what is known of them. */
function contentOf(check: Check, image: Image): number {
  let at = 0;
  for (const row of rowsOf(check)) {
    const { low, high, knownLow, knownHigh } = halvesOf(image, row);
    content[at++] = low & knownLow;
    content[at++] = high & knownHigh;
    content[at++] = knownLow;
    content[at++] = knownHigh;
  }
  return contents.of(content, at);
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
  const needs = new Set<string>();
  let known = true;
  for (const check of checks) {
    if (check.id === evidence.failed) return { verdict: "fails", check: check.id, needs: [] };
    if (evidence.passed?.has(check.id)) continue;
    const answer = answerOf(check, caps, image);
    const { verdict } = answer;
    if (verdict === "fails") return { verdict, check: check.id, needs: [] };
    if (verdict === "passes") continue;
    known = false;
    answer.needs ??= [
      ...unknownFields(check, image),
      ...unknownCpuid(check, caps, image),
      ...(check.beyond === undefined ? [] : [check.beyond]),
    ];
    for (const name of answer.needs) needs.add(name);
  }
  return { verdict: known ? "passes" : "unknown", check: undefined, needs: [...needs] };
}
