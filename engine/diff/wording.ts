/**
 * Differences and findings in words: everything that turns a value into text for people is here.
 *
 * @module
 */
import { bitNames, formatDigits, formatValue } from "../image/format.ts";
import type { Field } from "../layout.ts";
import { type Check, checkById } from "../checks/sets.ts";
import type { Moment, RunDifference, RunRef, TwoValues } from "./run_difference.ts";
import type { SubjectId } from "./subjects.ts";
import type { Incident } from "./transitions.ts";

/** Two values of a field as text, and the names of the bits in which they differ. */
export interface ValueTexts {
  /** The first, or the one before. */
  readonly a: string;
  /** The other, or the one after. */
  readonly b: string;
  /** Names of the bits that differ, highest first; empty for a field without named bits. */
  readonly bits: readonly string[];
}

/** What a field is called, with its part of the state: `vmcb12 control.event_inj`. */
export function fieldText({ area, field }: TwoValues): string {
  return `${area} ${field.name}`;
}

/**
 * Two values of a field, with all their bits by name.
 *
 * @param values The values.
 * @returns The texts.
 * @example
 * ```ts
 * import { CONTROL_FIELDS, type TwoValues, valueTexts } from "@vmtape/vmtape/engine";
 * const field = CONTROL_FIELDS.find(({ name }) => name === "event_inj")!;
 * const [a, b] = [0x8000_0300n, 0n].map((value) => ({ value, known: 0xffff_ffffn }));
 * const values: TwoValues = { area: "vmcb12", field, a: a!, b: b!, differing: 0x8000_0300n };
 * const texts = valueTexts(values);
 * if (texts.a !== "0x80000300 [V type=EXEPT]" || texts.bits.join() !== "V,type") throw new Error();
 * ```
 */
export function valueTexts({ field, a, b, differing }: TwoValues): ValueTexts {
  return {
    a: formatValue(field, a),
    b: formatValue(field, b),
    bits: bitNames(field, differing),
  };
}

/**
 * Two values of a field in short: where bits that differ have names, these say more than the names
 * of all that are set, which are left out.
 *
 * @param values The values.
 * @returns The texts.
 */
export function shortTexts({ field, a, b, differing }: TwoValues): ValueTexts {
  const bits = bitNames(field, differing);
  const text = bits.length > 0 ? formatDigits : formatValue;
  return { a: text(field, a), b: text(field, b), bits };
}

/** Who does what, for a title. */
export interface Telling {
  /** The policy that leaves the field, or whose value is the odd one. */
  readonly odd: string;
  /** The other policy. */
  readonly other: string;
  /** When it happens, if that is known. */
  readonly moment: Moment | undefined;
  /** Whether a step of each policy wrote the field. */
  readonly bothWrite: boolean;
  /** All fields, the most frequent first. */
  readonly fields: readonly Field[];
}

/** How one subject is told. */
interface Words {
  /** What it is called. */
  readonly noun: string;
  /** Says that it differs. `when` follows a clause, such as ` after a failed consistency check`. */
  title(telling: Telling, when: string): string;
}

const WORDS: Readonly<Record<SubjectId, Words>> = {
  gif: {
    noun: "GIF",
    title: ({ odd }, when) => `GIF stays set${when || " after the run"} under ${odd}`,
  },
  eventinj: {
    noun: "EVENTINJ in vmcb12",
    title: ({ odd }, when) => `EVENTINJ stays in vmcb12${when} under ${odd}`,
  },
  msrpm01: {
    noun: "vmcb01's MSR bitmap",
    title: ({ odd }) =>
      `vmcb01 points at the merged MSR bitmap under ${odd}: L1 runs with L2's from then on`,
  },
  "msrpm-recalc": {
    noun: 'the MSR bitmap\'s "recalculate" flag',
    title: ({ odd }, when) => `The MSR bitmap's "recalculate" flag stays set${when} under ${odd}`,
  },
  "vmcb12-gpa": {
    noun: "the address of the vmcb12 in use",
    title: ({ odd, other }, when) =>
      `${other} clears the noted address of vmcb12${when}, ${odd} leaves it`,
  },
  "guest-mode": {
    noun: "guest mode",
    title: ({ odd, other }, when) => `${odd} is left in guest mode${when}, ${other} is not`,
  },
  "own-intercepts": {
    noun: "what L0 intercepts for itself",
    title: ({ odd, other }) => `L0 intercepts more for itself under ${odd} than under ${other}`,
  },
  housekeeping: {
    noun: "housekeeping of the vCPU",
    title: ({ odd, other }) =>
      `${odd} and ${other} ask for other housekeeping: steal time, intercepts, clean bits`,
  },
  "npt-walk": {
    noun: "the mode in which L1's nested page table is walked",
    title: ({ odd, other }) =>
      `L1's nested page table is walked as with CR0.WP set under ${odd}, not under ${other}`,
  },
  requests: {
    noun: "requests to the vCPU",
    title: (_, when) => `Other requests wait for the vCPU${when}`,
  },
  vmcb02: {
    noun: "vmcb02",
    title: ({ odd, other, moment }, when) =>
      moment !== undefined && FAILURES.has(moment)
        ? `vmcb02 has been filled already${when} under ${other}, not under ${odd}`
        : `vmcb02 is not the same${when}`,
  },
  pdptrs: {
    noun: "the cached PDPTRs",
    title: () => "The cached PDPTRs differ: they were loaded for another paging mode",
  },
  mmu: {
    noun: "the MMU's mode",
    title: () => "The MMU is set up for another paging mode",
  },
  ncr3: {
    noun: "the cached nCR3",
    title: ({ odd }, when) => `L1's nCR3 stays cached${when} under ${odd}`,
  },
  tracking: {
    noun: "the tracking of events that L1 injected",
    title: ({ odd }, when) => `An event that L1 injected stays tracked${when} under ${odd}`,
  },
  exit: {
    noun: "the #VMEXIT that L1 sees",
    title: ({ odd, other }) => `L1 sees another #VMEXIT under ${odd} than under ${other}`,
  },
  events: {
    noun: "queued events",
    title: (_, when) => `Other events are queued${when}`,
  },
  l1: {
    noun: "the registers",
    title: ({ fields }, when) => `The registers differ${when}: ${shortNames(fields)}`,
  },
  "saved-l1": {
    noun: "L1's registers in vmcb01",
    title: ({ odd, other, bothWrite }, when) =>
      bothWrite
        ? `vmcb01 holds other registers of L1${when}`
        : `${other} has saved L1 in vmcb01${when}, ${odd} has not`,
  },
  vmcb01: {
    noun: "vmcb01",
    title: ({ fields }, when) => `vmcb01 is not the same${when}: ${shortNames(fields)}`,
  },
  l2: {
    noun: "L2's registers in vmcb12",
    title: ({ fields }, when) => `vmcb12 holds other registers of L2${when}: ${shortNames(fields)}`,
  },
  other: {
    noun: "other state",
    title: ({ fields }, when) => `Other state differs${when}: ${shortNames(fields)}`,
  },
};

/** How many fields a title names. */
const NAMED = 3;

function shortNames(fields: readonly Field[]): string {
  const names = fields.slice(0, NAMED).map(({ name }) => name.replace(/^(save|control)\./, ""));
  return names.join(", ") + (fields.length > NAMED ? ", …" : "");
}

/** What a moment is called after a clause. */
const MOMENTS: Readonly<Record<Moment, string>> = {
  "entry": " after VMRUN",
  "failed check": " after a failed consistency check",
  "late failure": " after a late failure (CR3 or MSR bitmap)",
  "refused": " after a refused VMRUN",
  "#VMEXIT": " after a #VMEXIT",
  "RSM": " after RSM",
  "failed RSM": " after a failed RSM",
  "restore": " after restoring nested state",
  "failed restore": " after a failed restore of nested state",
  "pages": " after L2's pages were fetched",
};

const FAILURES: ReadonlySet<Moment> = new Set([
  "failed check",
  "late failure",
  "failed RSM",
  "failed restore",
]);

/** Says what a finding of one subject is. */
export function stateTitle(subject: SubjectId, telling: Telling): string {
  const { moment } = telling;
  return WORDS[subject].title(telling, moment === undefined ? "" : MOMENTS[moment]);
}

/** Says that a finding follows from what an earlier run left behind of a subject. */
export function followOnTitle(subject: SubjectId | undefined): string {
  const noun = subject === undefined ? "what an earlier run left" : WORDS[subject].noun;
  return `Follow-on of an earlier run: ${noun}`;
}

/** Says that too little was recorded to tell whether a finding is one. */
export function unsettledTitle(needs: Iterable<string>, title: string): string {
  return `Cannot tell without ${[...needs].join(", ")}: ${title}`;
}

/** The check of a report; undefined of a broken assertion. */
export function checkOf({ kind, id }: Incident): Check | undefined {
  return kind === "check" ? checkById(id) : undefined;
}

/** What a report is called where it is named in short: the check's id, or the assertion. */
export function reportName({ kind, id, text }: Incident): string {
  return kind === "check" ? id : `assertion ${text}`;
}

/** What was checked, or the assertion. */
function docsOf(reports: readonly Incident[]): string {
  return reports.map((report) =>
    checkOf(report)?.doc.replace(/^[AT]he? /, (word) => word.toLowerCase()) ?? reportName(report)
  ).join("; ");
}

/** Reports that begin with an assertion, whose text then stands alone. */
function assertionText([first, ...more]: readonly Incident[]): string {
  return [first?.text ?? "", ...more.map(reportName)].join(", ");
}

/** Ways that an outcome's title names. */
const WAYS: Readonly<Record<string, string>> = {
  rsm: " on RSM",
  setstate: " on restoring nested state",
};

/**
 * Says that two policies do not come to the same: one enters L2 and the other refuses, or the vCPU
 * ends otherwise.
 *
 * @param first The first run that shows it.
 * @param own What only one of the policies reported, under each.
 * @param way The way in which they come to differ; empty when none does.
 * @param checks How many checks failed in the runs that show it.
 * @returns The title.
 */
export function outcomeTitle(
  first: RunDifference,
  own: readonly [readonly Incident[], readonly Incident[]],
  way: string,
  checks: number,
): string {
  const [a, b] = first.policies;
  const [x, y] = own;
  const on = WAYS[way] ?? "";
  const what = (reports: readonly Incident[]) =>
    checks > 1 ? "a vmcb12 that fails its consistency checks" : docsOf(reports);
  const checked = ([0, 1] as const).map((side) =>
    (first.reports?.[side] ?? []).some(({ kind }) => kind === "check")
  );
  const asserts = (reports: readonly Incident[]) => reports.some(({ kind }) => kind === "warn");
  const entered = checked[0] === checked[1] ? undefined : checked[0] ? b : a;
  if (entered !== undefined && way === "vmrun" && failsAlike(first)) {
    const [checking, reports] = entered === b ? [a, x] : [b, y];
    return `Both refuse: ${checking} by a failed check (${
      what(reports)
    }), ${entered} later and without one`;
  }
  if (entered === b && !asserts(y)) return `${b} lets L2 in${on} where ${a} refuses: ${what(x)}`;
  if (entered === a && !asserts(x)) return `${a} lets L2 in${on} where ${b} refuses: ${what(y)}`;
  if (x.length === 0 && y.length === 0) return endTitle(first);
  const [odd, other, more] = x.length === 0 || y[0]?.kind === "warn" ? [b, a, y] : [a, b, x];
  if (more[0]?.step !== undefined) return `${odd} goes wrong${on}: ${assertionText(more)}`;
  if (x.length === 0 || y.length === 0) {
    return more[0]?.kind === "warn"
      ? `${odd} breaks an assertion${on} that ${other} keeps: ${assertionText(more)}`
      : `${odd} meets a second failure${on}, ${other} does not: ${docsOf(more)}`;
  }
  return `Both refuse${on}, for other reasons. ${a}: ${docsOf(x)}. ${b}: ${docsOf(y)}`;
}

/** Whether a VMRUN that fails a check under one policy fails under the other, too: it left the same exit code. */
function failsAlike({ fields, ends }: RunDifference): boolean {
  return ends[0] === ends[1] &&
    !fields.some(({ area, field }) =>
      area === "vmcb12" && field.name.startsWith("control.exit_code")
    );
}

function endTitle({ policies: [a, b], ends: [endA, endB] }: RunDifference): string {
  const goesOn = endA === "goes on in L1" || endA === "goes on in L2";
  const [odd, other, end, usual] = goesOn ? [b, a, endB, endA] : [a, b, endA, endB];
  return `The vCPU ${end} under ${odd}, where it ${usual} under ${other}`;
}

/**
 * Where two policies' steps part, in one line.
 *
 * @param difference The run's differences.
 * @returns The line.
 * @example
 * ```ts
 * import { builtinScenarios, recordScenarios } from "@vmtape/vmtape/traces";
 * import { Differ, EARLY_EXIT, partedText, UPSTREAM } from "@vmtape/vmtape/engine";
 * const lines: string[] = [];
 * const differ = new Differ([EARLY_EXIT, UPSTREAM], (difference) => lines.push(partedText(difference)));
 * for await (const event of recordScenarios(builtinScenarios("gif-left-set"), EARLY_EXIT)) {
 *   differ.feed(event);
 * }
 * differ.finish();
 * if (!lines[0]?.endsWith('linux-7.3 goes on with "require vmcb12 address"')) throw new Error(lines[0]);
 * ```
 */
export function partedText(difference: RunDifference): string {
  const { after, a, b } = difference.parting;
  const [first, other] = difference.policies;
  const step = (name: string) => name === "" ? "is done" : `goes on with "${name}"`;
  if (a === b) return "The steps are the same";
  const where = after === "" ? "At the beginning" : `After "${after}"`;
  return `${where} ${first} ${step(a)}, ${other} ${step(b)}`;
}

/**
 * A word for a shell, in quotes where it needs them.
 *
 * @param word The word.
 */
export function quoted(word: string): string {
  return /^[\w./,:@+-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`;
}

/**
 * The command that shows a finding's first run step by step.
 *
 * @param finding The finding.
 * @param trace Name of the trace.
 * @param named How a policy was named on the command line.
 * @returns The command.
 */
export function explainCommand(
  { policies, first }: {
    readonly policies: readonly string[];
    readonly first: Pick<RunRef, "event">;
  },
  trace: string,
  named: (policy: string) => string = (policy) => policy,
): string {
  const pair = quoted(policies.map(named).join(","));
  return `vmtape explain ${quoted(trace)} --event ${first.event} --policies ${pair}`;
}
