/**
 * Taking the differences of one run apart by their causes.
 *
 * @module
 */
import type { FieldDifference, RunDifference, RunRef } from "./run_difference.ts";
import { oddSide, type Subject, subjectOf } from "./subjects.ts";
import type { Incident } from "./transitions.ts";
import { checkOf, fieldText, reportName } from "./wording.ts";

/** What only one of the policies reported, under each; what comes again counts once. */
export type Own = readonly [readonly Incident[], readonly Incident[]];

/** A part of a run's differences that has one cause. */
export interface Part {
  /** What the finding is called that it belongs to. */
  readonly id: string;
  /** As of a finding. */
  readonly kind: "outcome" | "state" | "carried" | "unsettled";
  /** What the fields are about. */
  readonly subject?: Subject;
  /** The fields. */
  readonly fields: FieldDifference[];
  /** Of a follow-on: the run it comes from, and what that one's part is called. */
  readonly cause?: { readonly run: RunRef; readonly group: string };
}

/** Which parts the own differences of fields last went to. */
export interface OwnerBook {
  /** Notes which part a field's own difference went to. */
  own(name: string, part: string): void;
  /** The part that a follow-on comes from, by the name of its field; of reports alone there is none. */
  ownerOf(name: string | undefined): string;
}

/**
 * The parts of a run's differences, each with one cause.
 *
 * What they are called depends on what {@linkcode meaningOf} says, and on the owners, alone.
 *
 * @param difference The run's differences.
 * @param own What only one of the policies reported, from {@linkcode ownOf}.
 * @param owners Whom follow-ons are traced by.
 * @returns The parts, in the order in which they show.
 */
export function partsOf(
  difference: RunDifference,
  own: Own,
  owners: OwnerBook,
): Part[] {
  const parts = new Map<string, Part>();
  const put = (part: Omit<Part, "fields">, field?: FieldDifference) => {
    let found = parts.get(part.id);
    if (found === undefined) parts.set(part.id, found = { ...part, fields: [] });
    if (field !== undefined) found.fields.push(field);
    return part.id;
  };
  const { reportsOrigin } = difference;
  const { ends } = difference;
  const differs = namesOf(own[0]) !== namesOf(own[1]) || ends[0] !== ends[1];
  if (differs && reportsOrigin === undefined) {
    const id = outcomeId(difference, own);
    const owner = put({ id, kind: "outcome" });
    for (const field of difference.fields) {
      put({ id, kind: "outcome" }, field);
      owners.own(fieldText(field), owner);
    }
    return [...parts.values()];
  }
  const minor: FieldDifference[] = [];
  const putOwn = (subject: Subject, field: FieldDifference, id: string) => {
    owners.own(fieldText(field), put({ id, kind: "state", subject }, field));
  };
  const certainty = (field: FieldDifference) => Math.min(1, field.needs.length);
  for (const field of difference.fields.toSorted((x, y) => certainty(x) - certainty(y))) {
    const origin = field.origin ?? reportsOrigin;
    if (origin !== undefined) {
      const owner = owners.ownerOf(fieldText(field));
      const id = `carried|${owner}`;
      put({ id, kind: "carried", cause: { run: origin, group: owner } }, field);
      continue;
    }
    const subject = subjectOf(field);
    if (field.needs.length > 0) {
      // It goes with what is certain of its subject, where anything is.
      const certain = stateId(subject, field, difference);
      if (parts.has(certain)) put({ id: certain, kind: "state", subject }, field);
      else put({ id: `unsettled|${certain}`, kind: "unsettled", subject }, field);
    } else if (subject.minor) minor.push(field);
    else putOwn(subject, field, stateId(subject, field, difference));
  }
  for (const field of minor) {
    const subject = subjectOf(field);
    const major = [...parts.values()].find((part) =>
      part.kind === "state" && part.fields[0]?.when === field.when
    );
    putOwn(major?.subject ?? subject, field, major?.id ?? stateId(subject, field, difference));
  }
  if (parts.size === 0 && reportsOrigin !== undefined) {
    const owner = owners.ownerOf(undefined);
    put({
      id: `carried|${owner}`,
      kind: "carried",
      cause: { run: reportsOrigin, group: owner },
    });
  }
  return [...parts.values()];
}

/**
 * What decides which parts the differences of a run have, and what it is called that they belong to,
 * if it is known whom follow-ons come from: the same text for the same.
 *
 * @param difference The run's differences.
 * @param own What only one of the policies reported, from {@linkcode ownOf}.
 */
export function meaningOf(difference: RunDifference, own: Own): string {
  const { policies, fields, reportsOrigin, ends, parting: { way, check } } = difference;
  let text = `${policies.join("|")}\n${ends.join("|")}|${way}|${check ?? ""}|`;
  if (reportsOrigin !== undefined) text += "from before";
  for (const reports of own) {
    text += "\n";
    for (const report of reports) {
      text += `${reportName(report)}|${report.way}|${report.step ?? ""}\r`;
    }
  }
  for (let i = 0; i < fields.length; i++) {
    const field = fields[i] as FieldDifference;
    const { area, field: { name }, when, origin, needs } = field;
    text += `\n${area} ${name}|${when ?? ""}`;
    if (origin !== undefined) {
      text += "|from before";
      continue;
    }
    const subject = subjectOf(field);
    text += `|${subject.id}|${oddSide(subject, field)}`;
    for (let k = 0; k < needs.length; k++) text += `|${needs[k]}`;
  }
  return text;
}

function stateId(subject: Subject, field: FieldDifference, difference: RunDifference): string {
  const when = subject.timeless ? "any" : field.when ?? "between";
  return `${subject.id}|${when}|${difference.policies[oddSide(subject, field)]}`;
}

/** What each policy reported, less what both reported first. A VMRUN that is tried again and again meets the same each time. */
export function ownOf({ reports }: RunDifference): Own {
  const [x = [], y = []] = reports ?? [];
  let same = 0;
  while (same < x.length && same < y.length && x[same]?.text === y[same]?.text) same++;
  const once = (list: readonly Incident[]) =>
    list.slice(same).filter((report, i, all) =>
      all.findIndex((other) => reportName(other) === reportName(report)) === i
    );
  return [once(x), once(y)];
}

function namesOf(reports: readonly Incident[]): string {
  return reports.map(reportName).join(", ");
}

/** The way in which the outcomes come to differ. */
export function outcomeWay(difference: RunDifference, [x, y]: Own): string {
  return (x[0] ?? y[0])?.way || difference.parting.way;
}

function outcomeId(difference: RunDifference, own: Own): string {
  const [a, b] = difference.policies;
  const way = outcomeWay(difference, own);
  // A step that goes wrong is one mechanism, whatever the other policy does meanwhile.
  const wrong = own.findIndex(([first]) => first?.step !== undefined);
  if (wrong >= 0) {
    return `outcome|${way}|${difference.policies[wrong]}|${namesOf(own[wrong as 0 | 1])}`;
  }
  const [x, y] = own.map(mechanism);
  // A check that fails or does not says all; how the run ends then follows from it.
  const ends = x === y ? `|${difference.ends.join("|")}` : "";
  return `outcome|${way}|${a}:${x}|${b}:${y}${ends}`;
}

/** Consistency checks of vmcb12 refuse alike, whichever of them fails; those of CR3 are each their own. */
function mechanism(reports: readonly Incident[]): string {
  return reports.map((report) => {
    const group = checkOf(report)?.group;
    return group === undefined || group === "cr3" ? reportName(report) : "vmcb12";
  }).join();
}
