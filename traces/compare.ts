/**
 * How far two streams of records agree: a prediction and a real kernel, two
 * runs, two kernels.
 *
 * @module
 */
import {
  AREA_KEYS,
  CPU_KEYS,
  type LabInner,
  type LabRecord,
  type LabState,
  NESTED_KEYS,
  STATE_FLAG_KEYS,
  STATE_HEX_KEYS,
  type WordMap,
} from "../codecs/lab_record.ts";
import type { Field } from "../engine/layout.ts";
import { SAVE_AREA, VMCB_LAYOUT } from "../engine/svm/vmcb_fields.ts";
import { parseScenario, ScenarioError, toLabCase } from "./scenario.ts";

/** What is compared, by group. */
export const GROUPS = {
  1: "failed checks and broken assertions",
  2: "inner states: number, order, nested, cpu",
  3: "vmcb01 and vmcb02",
  4: "what userspace sees, and vmcb12",
} as const;

/** Number of a group. */
export type Group = keyof typeof GROUPS;

const GROUP_NUMBERS: readonly Group[] = [1, 2, 3, 4];

/** One field that differs in one case. */
export interface Disagreement {
  /** Group it counts in. */
  readonly group: Group;
  /** Path of the field: `post.gif`, `vmexit.nested.run_pending`, `vmrun.vmcb02 control.event_inj`. */
  readonly field: string;
  /** Its value in the first record; absent when it has none. */
  readonly a?: string;
  /** Its value in the second. */
  readonly b?: string;
}

/** Two records of one case, compared. */
export interface CaseComparison {
  /** Everything that differs, in the order of the record. */
  readonly disagreements: readonly Disagreement[];
  /** Groups of which one of the records holds nothing. */
  readonly unknown: ReadonlySet<Group>;
}

/** Words of the control areas that hold host addresses, clocks or ASIDs. */
const HOST_WORDS: ReadonlySet<string> = new Set(["040", "048", "050", "058", "0b0"]);
/** CR3 in a save area: with shadow paging the host's root. */
const SHADOW_ROOT = "150";

/**
 * Compares two records of one case.
 *
 * Words that the lab documents as host-dependent are left out, and so are
 * tracepoints. Of a partial record, what it lacks is unknown and not compared, and so is what
 * one of the sources cannot see. When a record was stopped after its second, its events are
 * compared as far as both go.
 *
 * @param a The first record.
 * @param b The second.
 * @returns What differs.
 * @example
 * ```ts
 * import { compareRecords } from "@vmtape/vmtape";
 * const a = { case: "x", spec: "", kernel: "unified", npt: 1, events: [], post: { gif: 1 } };
 * const { disagreements } = compareRecords(a, { ...a, post: { gif: 0 } });
 * if (disagreements[0]?.field !== "post.gif") throw new Error();
 * ```
 */
export function compareRecords(a: LabRecord, b: LabRecord): CaseComparison {
  const found: Disagreement[] = [];
  const unknown = new Set<Group>();
  const cut = stopped(a) || stopped(b);
  const differ = (group: Group, field: string, x: string | undefined, y: string | undefined) => {
    if (x === y) return;
    found.push({
      group,
      field,
      ...(x === undefined ? {} : { a: x }),
      ...(y === undefined ? {} : { b: y }),
    });
  };
  const partial = a.partial === true || b.partial === true;
  const seen = (kind: string) =>
    [a, b].every(({ sees, partial }) => sees ? sees.includes(kind) : partial !== true);
  if (seen("check")) {
    texts("check", reports(a, "check_failed"), reports(b, "check_failed"), cut, differ);
  } else unknown.add(1);
  if (seen("warn")) texts("warn", reports(a, "warn"), reports(b, "warn"), cut, differ);
  if (seen("inner")) inners(a, b, cut, unknown, differ);
  else for (const group of [2, 3] as const) unknown.add(group);
  const { setstate } = a;
  for (const key of ["sregs_errno", "errno"] as const) {
    differ(4, `setstate.${key}`, setstate?.[key]?.toString(), b.setstate?.[key]?.toString());
  }
  for (const phase of ["mid", "smm", "post"] as const) {
    const x = a[phase];
    const y = b[phase];
    if (x && y) states(phase, x, y, partial, differ);
    else if (x || y) differ(4, phase, x && "present", y && "present");
  }
  return { disagreements: found, unknown };
}

type Differ = (group: Group, field: string, a: string | undefined, b: string | undefined) => void;

/** Whether the lab stopped the case after a second (KVM_RUN: EINTR). */
function stopped(record: LabRecord): boolean {
  return record.post?.rc === -1 && record.post.errno === 4;
}

function reports(record: LabRecord, key: "check_failed" | "warn"): string[] {
  return record.events.flatMap((event) =>
    key in event ? [(event as Readonly<Record<string, string>>)[key] ?? ""] : []
  );
}

function texts(
  field: string,
  a: readonly string[],
  b: readonly string[],
  cut: boolean,
  differ: Differ,
) {
  const length = cut ? Math.min(a.length, b.length) : Math.max(a.length, b.length);
  for (let i = 0; i < length; i++) {
    if (a[i] === b[i]) continue;
    differ(1, field, a[i], b[i]);
    return;
  }
}

function inners(
  a: LabRecord,
  b: LabRecord,
  cut: boolean,
  unknown: Set<Group>,
  differ: Differ,
): void {
  let one = a.events.filter((event): event is LabInner => "at" in event);
  let two = b.events.filter((event): event is LabInner => "at" in event);
  if (cut) {
    // Of a stopped record the last state may be incomplete, and the end is wherever it was stopped.
    const whole = (list: LabInner[]) =>
      list.at(-1)?.cpu ? list.length : Math.max(list.length - 1, 0);
    const length = Math.min(whole(one), whole(two));
    one = one.slice(0, length);
    two = two.slice(0, length);
  }
  const sequence = (list: readonly LabInner[]) => list.map((inner) => inner.at).join(" ") || "none";
  differ(2, "states", sequence(one), sequence(two));
  const shows = (list: readonly LabInner[]) =>
    list.length === 0 || list.some((x) => x.ctl01 ?? x.sav01);
  const areas = shows(one) && shows(two);
  if (!areas) unknown.add(3);
  else if (one.length !== two.length) differ(3, "states", `${one.length}`, `${two.length}`);
  const shadow = a.npt === 0 || b.npt === 0;
  for (let i = 0; i < Math.min(one.length, two.length); i++) {
    const x = one[i]!;
    const y = two[i]!;
    if (x.at !== y.at) break;
    for (const key of NESTED_KEYS) differ(2, `${x.at}.nested.${key}`, x.nested[key], y.nested[key]);
    for (const key of CPU_KEYS) differ(2, `${x.at}.cpu.${key}`, x.cpu?.[key], y.cpu?.[key]);
    if (!areas) continue;
    for (const key of AREA_KEYS) {
      const control = key.startsWith("ctl");
      const name = `${x.at}.vmcb${key.slice(3)}`;
      const skip = (offset: string) =>
        control ? HOST_WORDS.has(offset) : shadow && offset === SHADOW_ROOT;
      words(3, name, control ? 0 : SAVE_AREA, x[key], y[key], differ, skip);
    }
  }
}

const STATE_KEYS = [
  ...STATE_HEX_KEYS,
  "cs",
  "ss",
  ...STATE_FLAG_KEYS,
  "vmcb_pa",
  "ev_exc",
  "ev_int",
  "ev_nmi",
  "rc",
  "errno",
  "exit",
  "port",
] as const;

function states(
  phase: string,
  a: LabState,
  b: LabState,
  partial: boolean,
  differ: Differ,
): void {
  for (const key of STATE_KEYS) {
    if (partial && (a[key] === undefined || b[key] === undefined)) continue;
    differ(4, `${phase}.${key}`, a[key]?.toString(), b[key]?.toString());
  }
  for (const key of ["vmcb12", "hsave"] as const) {
    words(4, `${phase}.${key}`, 0, a[key], b[key], differ);
  }
  words(4, `${phase}.smram`, undefined, a.smram, b.smram, differ);
}

/** Fields of a VMCB by the 8-byte word they begin in or reach into. */
const FIELDS_BY_WORD = new Map<number, Field[]>();
for (const field of VMCB_LAYOUT.fields) {
  for (let at = field.offset & ~7; at < field.offset + field.size; at += 8) {
    const list = FIELDS_BY_WORD.get(at);
    if (list) list.push(field);
    else FIELDS_BY_WORD.set(at, [field]);
  }
}

/** Compares words; `base` is where they are within a VMCB, `undefined` when they are not of one. */
function words(
  group: Group,
  name: string,
  base: number | undefined,
  a: WordMap | undefined,
  b: WordMap | undefined,
  differ: Differ,
  skip: (offset: string) => boolean = () => false,
): void {
  if (!a && !b) return;
  if (!a || !b) return differ(group, name, a && "present", b && "present");
  for (const offset of [...new Set([...Object.keys(a), ...Object.keys(b)])].sort()) {
    const x = a[offset] ?? ZERO;
    const y = b[offset] ?? ZERO;
    if (x === y || skip(offset)) continue;
    if (base === undefined) differ(group, `${name}+0x${offset}`, x, y);
    else word(group, name, base + parseInt(offset, 16), x, y, differ);
  }
}

const ZERO = "0".repeat(16);

/** The fields of one word that differ, and what of it is in none. */
function word(group: Group, name: string, at: number, a: string, b: string, differ: Differ): void {
  const parted = (from: number, size: number) => {
    const start = 16 - 2 * (from + size);
    const x = a.slice(start, start + 2 * size);
    const y = b.slice(start, start + 2 * size);
    return [x, y] as const;
  };
  const covered = new Set<number>();
  for (const field of FIELDS_BY_WORD.get(at) ?? []) {
    const from = Math.max(field.offset, at) - at;
    const size = Math.min(field.offset + field.size, at + 8) - at - from;
    for (let i = 0; i < size; i++) covered.add(from + i);
    const [x, y] = parted(from, size);
    differ(group, `${name} ${field.name}`, short(x), short(y));
  }
  for (let i = 0; i < 8; i++) {
    const [x, y] = parted(i, 1);
    if (covered.has(i) || x === y) continue;
    return differ(group, `${name} ${place(at)}`, a, b);
  }
}

/** The name of bytes that no field covers. */
function place(at: number): string {
  const hex = (value: number) => `0x${value.toString(16).padStart(3, "0")}`;
  return at < SAVE_AREA ? `control+${hex(at)}` : `save+${hex(at - SAVE_AREA)}`;
}

function short(hex: string): string {
  return hex.replace(/^0+(?=.)/, "");
}

/** Which cases to leave out of the count. */
export type Skip = (record: LabRecord) => boolean;

/** A skip list that is not one. */
export class SkipListError extends Error {
  /** `SkipListError`. */
  override readonly name = "SkipListError";
}

/**
 * Reads a skip list: names of cases, or lists of them by recording, whose names
 * end in kernel and NPT setting (`A-unified-npt0`).
 *
 * @param json The parsed JSON.
 * @returns Whether a record is to be left out.
 * @throws {SkipListError} When it is neither.
 * @example
 * ```ts
 * import { skipList } from "@vmtape/vmtape";
 * const skip = skipList({ "A-unified-npt0": ["loops"] });
 * const record = { case: "loops", spec: "", kernel: "unified", npt: 0, events: [] };
 * if (!skip(record) || skip({ ...record, npt: 1 })) throw new Error();
 * ```
 */
export function skipList(json: unknown): Skip {
  if (isTexts(json)) {
    const names = new Set(json);
    return (record) => names.has(record.case);
  }
  if (typeof json !== "object" || json === null) {
    throw new SkipListError("A skip list is a JSON list of case names, or such lists by recording");
  }
  const lists = Object.entries(json).map(([key, names]) => {
    if (!isTexts(names)) {
      throw new SkipListError(`Skip list "${key}": expected a list of case names`);
    }
    return [key, new Set(names)] as const;
  });
  return ({ case: name, kernel, npt }) =>
    lists.some(([key, names]) => {
      const of = `${kernel}-npt${npt}`;
      return (key === of || key.endsWith(`-${of}`)) && names.has(name);
    });
}

function isTexts(value: unknown): value is string[] {
  return Array.isArray(value) && value.every((text) => typeof text === "string");
}

/** Agreement in one group. */
export interface GroupCount {
  /** Cases compared. */
  readonly cases: number;
  /** Those without a disagreement. */
  readonly agreed: number;
}

/** Agreement of the cases of one kernel, MMU mode and way in. */
export interface AgreementRow {
  /** Kernel or policy of the first stream. */
  readonly kernel: string;
  /** 1 with nested paging, 0 with shadow paging. */
  readonly npt: number;
  /** Way in. */
  readonly entry: "vmrun" | "rsm" | "setstate";
  /** Counts by group. */
  readonly groups: Readonly<Record<Group, GroupCount>>;
}

/** One case as an example of a disagreement. */
export interface Example {
  /** Name of the case. */
  readonly case: string;
  /** Value in the first stream. */
  readonly a?: string;
  /** Value in the second. */
  readonly b?: string;
}

/** A field that differs, over all cases. */
export interface FieldDisagreement {
  /** Group it counts in. */
  readonly group: Group;
  /** Path of the field. */
  readonly field: string;
  /** Cases in which it differs. */
  readonly count: number;
  /** The first few of them. */
  readonly examples: readonly Example[];
}

/** Two streams, compared. */
export interface ComparisonResult {
  /** Cases in both streams that were compared. */
  readonly compared: number;
  /** Of those, without any disagreement. */
  readonly agreed: number;
  /** Cases left out by the skip list. */
  readonly skipped: number;
  /** Names of cases only in the first stream. */
  readonly onlyA: readonly string[];
  /** Names of cases only in the second. */
  readonly onlyB: readonly string[];
  /** Names of cases whose specs differ, and which were not compared therefore. */
  readonly otherSpec: readonly string[];
  /** Names of the cases with a disagreement: of two runs of one kernel, a skip list. */
  readonly differing: readonly string[];
  /** Agreement over all cases, by group. */
  readonly groups: Readonly<Record<Group, GroupCount>>;
  /** The same by kernel, MMU mode and way in. */
  readonly rows: readonly AgreementRow[];
  /** Fields that differ, the most frequent first. */
  readonly disagreements: readonly FieldDisagreement[];
}

/** How to compare. */
export interface CompareOptions {
  /** Cases to leave out. */
  readonly skip?: Skip;
  /** How many example cases to keep for each field; 3 when left out. */
  readonly examples?: number;
}

type Counts = Record<Group, { cases: number; agreed: number }>;

function noCounts(): Counts {
  const none = () => ({ cases: 0, agreed: 0 });
  return { 1: none(), 2: none(), 3: none(), 4: none() };
}

/**
 * Compares two streams of records. Records of the same case are paired by name;
 * of several of one name, the first with the first. Streams in the same order
 * are compared without holding more than one pair.
 *
 * @param a The first stream, as a rule the real kernel's.
 * @param b The second.
 * @param options What to leave out.
 * @returns The agreement, and every disagreement by field.
 * @example
 * ```ts
 * import { compare } from "@vmtape/vmtape";
 * const a = { case: "x", spec: "", kernel: "unified", npt: 1, events: [], post: { gif: 1 } };
 * const result = await compare([a], [{ ...a, post: { gif: 0 } }]);
 * if (result.groups[4].agreed !== 0 || result.groups[1].agreed !== 1) throw new Error();
 * ```
 */
export async function compare(
  a: Iterable<LabRecord> | AsyncIterable<LabRecord>,
  b: Iterable<LabRecord> | AsyncIterable<LabRecord>,
  options: CompareOptions = {},
): Promise<ComparisonResult> {
  const tally = new Tally(options);
  const waitingA = new Map<string, LabRecord[]>();
  const waitingB = new Map<string, LabRecord[]>();
  const one = iterate(a);
  const two = iterate(b);
  try {
    for (;;) {
      const [x, y] = [await one.next(), await two.next()];
      if (x.done && y.done) break;
      if (
        !x.done && !y.done && x.value.case === y.value.case && !waitingA.has(x.value.case) &&
        !waitingB.has(x.value.case)
      ) {
        tally.pair(x.value, y.value);
        continue;
      }
      if (!x.done) {
        const other = take(waitingB, x.value.case);
        if (other) tally.pair(x.value, other);
        else put(waitingA, x.value);
      }
      if (!y.done) {
        const other = take(waitingA, y.value.case);
        if (other) tally.pair(other, y.value);
        else put(waitingB, y.value);
      }
    }
  } finally {
    await one.return?.();
    await two.return?.();
  }
  return tally.result([...waitingA.values()].flat(), [...waitingB.values()].flat());
}

function iterate(
  records: Iterable<LabRecord> | AsyncIterable<LabRecord>,
): Iterator<LabRecord> | AsyncIterator<LabRecord> {
  return Symbol.asyncIterator in records
    ? records[Symbol.asyncIterator]()
    : records[Symbol.iterator]();
}

function take(waiting: Map<string, LabRecord[]>, name: string): LabRecord | undefined {
  const list = waiting.get(name);
  const record = list?.shift();
  if (list?.length === 0) waiting.delete(name);
  return record;
}

function put(waiting: Map<string, LabRecord[]>, record: LabRecord): void {
  const list = waiting.get(record.case);
  if (list) list.push(record);
  else waiting.set(record.case, [record]);
}

class Tally {
  readonly #options: CompareOptions;
  readonly #fields = new Map<
    string,
    { group: Group; field: string; count: number; examples: Example[] }
  >();
  readonly #rows = new Map<string, Omit<AgreementRow, "groups"> & { groups: Counts }>();
  readonly #groups = noCounts();
  readonly #otherSpec: string[] = [];
  readonly #differing: string[] = [];
  #compared = 0;
  #agreed = 0;
  #skipped = 0;

  constructor(options: CompareOptions) {
    this.#options = options;
  }

  pair(a: LabRecord, b: LabRecord): void {
    const { skip, examples = 3 } = this.#options;
    if (skip?.(a) || skip?.(b)) {
      this.#skipped++;
      return;
    }
    if (!sameSpec(a, b)) {
      this.#otherSpec.push(a.case);
      return;
    }
    const { disagreements, unknown } = compareRecords(a, b);
    this.#compared++;
    if (disagreements.length === 0) this.#agreed++;
    else this.#differing.push(a.case);
    const differing = new Set(disagreements.map((d) => d.group));
    const row = this.#row(a);
    for (const group of GROUP_NUMBERS) {
      if (unknown.has(group)) continue;
      for (const counts of [this.#groups[group], row[group]]) {
        counts.cases++;
        if (!differing.has(group)) counts.agreed++;
      }
    }
    const seen = new Set<string>();
    for (const { group, field, ...values } of disagreements) {
      const key = `${group} ${field}`;
      if (seen.has(key)) continue;
      seen.add(key);
      let entry = this.#fields.get(key);
      if (!entry) this.#fields.set(key, entry = { group, field, count: 0, examples: [] });
      entry.count++;
      if (entry.examples.length < examples) entry.examples.push({ case: a.case, ...values });
    }
  }

  #row({ kernel, npt, spec }: LabRecord): Counts {
    const way = / entry=(rsm|setstate)(?= |$)/.exec(` ${spec}`)?.[1];
    const entry = way === "rsm" || way === "setstate" ? way : "vmrun";
    const key = `${kernel}/${npt}/${entry}`;
    let row = this.#rows.get(key);
    if (!row) this.#rows.set(key, row = { kernel, npt, entry, groups: noCounts() });
    return row.groups;
  }

  result(onlyA: readonly LabRecord[], onlyB: readonly LabRecord[]): ComparisonResult {
    return {
      compared: this.#compared,
      agreed: this.#agreed,
      skipped: this.#skipped,
      onlyA: onlyA.map((record) => record.case),
      onlyB: onlyB.map((record) => record.case),
      otherSpec: this.#otherSpec,
      differing: this.#differing,
      groups: this.#groups,
      rows: [...this.#rows.values()],
      disagreements: [...this.#fields.values()].sort((x, y) =>
        y.count - x.count || x.group - y.group || (x.field < y.field ? -1 : 1)
      ),
    };
  }
}

/** Whether two specs say the same, if need be in other words. */
function sameSpec(a: LabRecord, b: LabRecord): boolean {
  if (a.spec === b.spec) return true;
  try {
    const lines = [a, b].map(({ spec }) => toLabCase(parseScenario(`x ${spec}`)));
    return lines[0] === lines[1];
  } catch (error) {
    if (error instanceof ScenarioError) return false;
    throw error;
  }
}

/**
 * A comparison as text: the agreement by group, then what differs.
 *
 * @param result The comparison.
 * @param limit How many fields to list; all when left out.
 * @returns Lines, each ended by a line break.
 * @example
 * ```ts
 * import { compare, formatComparison } from "@vmtape/vmtape";
 * const text = formatComparison(await compare([], []));
 * if (!text.startsWith("0 cases compared")) throw new Error();
 * ```
 */
export function formatComparison(result: ComparisonResult, limit = Infinity): string {
  const { compared, agreed, skipped, onlyA, onlyB, otherSpec } = result;
  const lines = [
    `${compared} cases compared, ${agreed} agree in everything, ${skipped} left out by the skip list`,
  ];
  const names = (list: readonly string[]) =>
    list.slice(0, 5).join(", ") + (list.length > 5 ? ", …" : "");
  if (onlyA.length > 0) lines.push(`${onlyA.length} only in the first: ${names(onlyA)}`);
  if (onlyB.length > 0) lines.push(`${onlyB.length} only in the second: ${names(onlyB)}`);
  if (otherSpec.length > 0) {
    lines.push(`${otherSpec.length} with another spec: ${names(otherSpec)}`);
  }
  const table = [
    ["kernel", "npt", "entry", "cases", ...GROUP_NUMBERS.map((g) => `group ${g}`)],
    ...result.rows.map((row) => [row.kernel, `${row.npt}`, row.entry, ...counts(row.groups)]),
    ["all", "", "", ...counts(result.groups)],
  ];
  lines.push("", ...columns(table), "");
  for (const group of GROUP_NUMBERS) lines.push(`group ${group}: ${GROUPS[group]}`);
  const shown = result.disagreements.slice(0, limit);
  if (shown.length > 0) lines.push("");
  for (const { group, field, count, examples } of shown) {
    lines.push(`${count} × ${field} (group ${group})`);
    for (const example of examples) {
      lines.push(`    ${example.case}: ${example.a ?? "absent"} / ${example.b ?? "absent"}`);
    }
  }
  const left = result.disagreements.length - shown.length;
  if (left > 0) lines.push(`and ${left} more fields`);
  return lines.map((line) => line.trimEnd() + "\n").join("");
}

function counts(groups: Readonly<Record<Group, GroupCount>>): string[] {
  return [`${groups[1].cases}`, ...GROUP_NUMBERS.map((group) => percent(groups[group]))];
}

/** Rounded down, so that 100 % means all of them. */
function percent({ cases, agreed }: GroupCount): string {
  if (cases === 0) return "unknown";
  return `${(Math.floor(10000 * agreed / cases) / 100).toFixed(2)} %`;
}

function columns(table: readonly (readonly string[])[]): string[] {
  const widths = table[0]!.map((_, i) => Math.max(...table.map((row) => row[i]!.length)));
  return table.map((row) =>
    row.map((cell, i) => i < 3 ? cell.padEnd(widths[i]!) : cell.padStart(widths[i]!)).join("  ")
  );
}
