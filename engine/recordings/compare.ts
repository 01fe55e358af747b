/**
 * Two recordings of the same thing: which runs stand for each other, and what differs in them.
 *
 * @module
 */
import type { AreaName } from "../diff/areas.ts";
import { areaNamed } from "../diff/areas.ts";
import type { FieldDifference, RunDifference } from "../diff/run_difference.ts";
import type { Incident } from "../diff/transitions.ts";
import { diffImages } from "../image/diff.ts";
import { fieldNamed, fits, readField } from "../image/fields.ts";
import type { Field } from "../layout.ts";
import { INNER_LAYOUT } from "../svm/inner_layout.ts";
import { align } from "./align.ts";
import type { RecordedPart, RecordedRun, RunOutline } from "./recorded_run.ts";

/** Two runs that stand for each other and differ. */
export interface PairDifference extends RunDifference {
  /** Number of the event that began the other recording's run. */
  readonly otherEvent: number;
}

/** Which runs of two recordings stand for each other. */
export interface RecordingsAlignment {
  /** Pairs of indices of runs. */
  readonly pairs: readonly (readonly [number, number])[];
  /** By what they were aligned: scenarios by name, or VMRUNs by vCPU and sequence. */
  readonly by: "scenario" | "sequence";
  /**
   * Of VMRUNs: what those that stand for each other have in common. 0: rip and the address of
   * vmcb12; 1: rip within its page; 2: nothing but the order.
   */
  readonly sign: 0 | 1 | 2;
  /** Whether the alignment is the longest there is. */
  readonly longest: boolean;
  /** The first runs, at most ten, that stand alone: in the first recording, and in the other. */
  readonly alone: readonly [readonly RunOutline[], readonly RunOutline[]];
}

/** Runs that stand alone are named up to this many. */
const MOST_NAMED = 10;
/** Least share of runs that align by a sign; with fewer, a less particular one is tried. */
const ENOUGH = 0.5;

/** Roles that kernels pack in two ways, so that one of each says nothing. */
const ROOT_ROLES: ReadonlySet<string> = new Set(["root_role", "groot_role"]);
const GVA_ROLE = fieldNamed(INNER_LAYOUT, "gva_role");

/** Whether an image of the nested bookkeeping is of a kernel with one walker, which packs roles in its own way. */
function oneWalker({ image }: RecordedPart): boolean {
  return readField(image, GVA_ROLE).known !== 0n;
}

/** Areas that are compared, by layout. */
function rowsOf(area: AreaName, a: RecordedPart, b: RecordedPart): FieldDifference[] {
  const { layout, omit } = areaNamed(area);
  if (!fits(layout, a.image) || !fits(layout, b.image)) return [];
  const packed = area === "nested" && oneWalker(a) !== oneWalker(b);
  return diffImages(layout, a.image, b.image, { onlyKnown: true }).flatMap((row) => {
    if (omit?.has(row.field) || packed && ROOT_ROLES.has(row.field)) return [];
    const field: Field = layout.fields.find(({ name }) => name === row.field) ??
      { name: row.field, offset: row.offset, size: row.size, doc: "Reserved" };
    return [{
      area,
      field,
      a: row.a,
      b: row.b,
      differing: row.differing,
      stepA: undefined,
      stepB: undefined,
      when: a.moment ?? b.moment,
      carried: false,
      origin: undefined,
      needs: [],
    }];
  });
}

/** Parts of the same area that follow each other in both runs stand for each other. */
function fieldsOf(a: RecordedRun, b: RecordedRun): FieldDifference[] {
  const seen = new Set<string>();
  const out: FieldDifference[] = [];
  const next = new Map<AreaName, number>();
  for (const part of a.parts) {
    const from = next.get(part.area) ?? 0;
    const at = b.parts.findIndex((other, i) => i >= from && other.area === part.area);
    if (at < 0) continue;
    next.set(part.area, at + 1);
    for (const row of rowsOf(part.area, part, b.parts[at]!)) {
      const name = `${row.area} ${row.field.name}`;
      // A field that stays different is one difference.
      if (seen.has(name)) continue;
      seen.add(name);
      out.push(row);
    }
  }
  return out;
}

function sameReports(a: readonly Incident[], b: readonly Incident[]): boolean {
  const name = ({ kind, id, text }: Incident) => kind === "check" && id !== "" ? id : text;
  return a.length === b.length && a.every((report, i) => name(report) === name(b[i]!));
}

/** The sequences of two vCPUs, aligned by the most particular sign that enough of them share. */
function alignRuns(a: readonly RunOutline[], b: readonly RunOutline[]) {
  let best = align([], []);
  let sign: RecordingsAlignment["sign"] = 0;
  for (const level of [0, 1, 2] as const) {
    const numbers = new Map<string, number>();
    const number = (run: RunOutline) => {
      const sign = run.signs[level] ?? run.signs.at(-1) ?? "";
      const known = numbers.get(sign);
      if (known !== undefined) return known;
      numbers.set(sign, numbers.size);
      return numbers.size - 1;
    };
    const found = align(a.map(number), b.map(number));
    if (found.pairs.length > best.pairs.length) {
      best = found;
      sign = level;
    }
    if (best.pairs.length >= ENOUGH * Math.min(a.length, b.length)) break;
  }
  return { ...best, sign };
}

/**
 * Aligns two recordings.
 *
 * @param a Outlines of the runs of the first, in order.
 * @param b Outlines of the runs of the other.
 * @returns Which stand for each other.
 * @example
 * ```ts
 * import { alignRecordings, type RunOutline } from "@vmtape/vmtape/engine";
 * const run = (event: number, scenario: string): RunOutline => (
 *   { event, vcpu: 0, scenario, spec: undefined, signs: [scenario] }
 * );
 * const { pairs, by } = alignRecordings([run(0, "a"), run(9, "b")], [run(0, "b")]);
 * if (pairs.join() !== "1,0" || by !== "scenario") throw new Error();
 * ```
 */
export function alignRecordings(
  a: readonly RunOutline[],
  b: readonly RunOutline[],
): RecordingsAlignment {
  const named = a.some((run) => run.scenario !== undefined) &&
    b.some((run) => run.scenario !== undefined);
  const found = named ? alignByName(a, b) : alignByVcpu(a, b);
  const { pairs, longest, sign } = found;
  const alone = [
    leftOver(a, pairs.map(([i]) => i)),
    leftOver(b, pairs.map(([, j]) => j)),
  ] as const;
  return { pairs, longest, sign, by: named ? "scenario" : "sequence", alone };
}

/**
 * What differs between two runs that stand for each other.
 *
 * @param a The first recording's run.
 * @param b The other's.
 * @param names What the recordings are called in findings.
 * @param number Number of the pair.
 * @returns The difference; undefined when there is none, as far as was recorded.
 */
export function pairDifference(
  a: RecordedRun,
  b: RecordedRun,
  names: readonly [string, string],
  number: number,
): PairDifference | undefined {
  const fields = fieldsOf(a, b);
  const same = sameReports(a.reports, b.reports);
  if (fields.length === 0 && same && a.end === b.end) return undefined;
  const check = [...a.reports, ...b.reports].find(({ kind }) => kind === "check")?.id;
  return {
    event: a.event,
    otherEvent: b.event,
    run: number,
    scenario: a.scenario,
    spec: a.spec,
    policies: names,
    fields,
    reports: same ? undefined : [a.reports, b.reports],
    reportsOrigin: undefined,
    ends: [a.end, b.end],
    parting: { after: "", a: "", b: "", way: "", check },
  };
}

function leftOver(runs: readonly RunOutline[], paired: readonly number[]): RunOutline[] {
  const known = new Set(paired);
  const out: RunOutline[] = [];
  for (let i = 0; i < runs.length && out.length < MOST_NAMED; i++) {
    if (!known.has(i)) out.push(runs[i]!);
  }
  return out;
}

/** The n-th run of a scenario stands for the n-th of the same name. */
function alignByName(a: readonly RunOutline[], b: readonly RunOutline[]) {
  const places = new Map<string, number[]>();
  b.forEach((run, j) => {
    const name = run.scenario ?? "";
    const list = places.get(name);
    if (list === undefined) places.set(name, [j]);
    else list.push(j);
  });
  const used = new Map<string, number>();
  const pairs = a.flatMap((run, i): [number, number][] => {
    const name = run.scenario ?? "";
    const count = used.get(name) ?? 0;
    used.set(name, count + 1);
    const j = places.get(name)?.[count];
    return j === undefined ? [] : [[i, j]];
  });
  return { pairs, longest: true, sign: 0 as const };
}

function alignByVcpu(a: readonly RunOutline[], b: readonly RunOutline[]) {
  const placesOf = (runs: readonly RunOutline[]) => {
    const places = new Map<number, number[]>();
    runs.forEach((run, i) => {
      const list = places.get(run.vcpu);
      if (list === undefined) places.set(run.vcpu, [i]);
      else list.push(i);
    });
    return places;
  };
  const x = placesOf(a), y = placesOf(b);
  const pairs: [number, number][] = [];
  let longest = true;
  let sign: RecordingsAlignment["sign"] = 0;
  for (const [vcpu, mine] of x) {
    const theirs = y.get(vcpu) ?? [];
    const found = alignRuns(mine.map((i) => a[i]!), theirs.map((j) => b[j]!));
    longest &&= found.longest;
    sign = Math.max(sign, found.sign) as typeof sign;
    for (const [i, j] of found.pairs) pairs.push([mine[i]!, theirs[j]!]);
  }
  return { pairs: pairs.sort(([i], [j]) => i - j), longest, sign };
}

/**
 * Brings the runs of two recordings together that stand for each other, while both are read once
 * more. Only those are kept whose partner has not come yet.
 *
 * @param pairs Pairs of indices of runs.
 * @param a The first recording's runs, in order.
 * @param b The other's.
 * @returns The pairs of runs.
 * @example
 * ```ts
 * import { pairUp } from "@vmtape/vmtape/engine";
 * async function* runs() {}
 * for await (const _ of pairUp([], runs(), runs())) throw new Error();
 * ```
 */
export async function* pairUp(
  pairs: readonly (readonly [number, number])[],
  a: AsyncIterable<RecordedRun>,
  b: AsyncIterable<RecordedRun>,
): AsyncGenerator<readonly [RecordedRun, RecordedRun]> {
  const partner = new Map(pairs);
  const wanted = new Set(partner.values());
  const waiting = new Map<number, RecordedRun>();
  const others = b[Symbol.asyncIterator]();
  let next = 0, i = 0;
  for await (const run of a) {
    const j = partner.get(i++);
    if (j === undefined) continue;
    while (!waiting.has(j)) {
      const { value, done } = await others.next();
      if (done) break;
      if (wanted.has(next)) waiting.set(next, value);
      next++;
    }
    const other = waiting.get(j);
    waiting.delete(j);
    if (other !== undefined) yield [run, other];
  }
  await others.return?.();
}
