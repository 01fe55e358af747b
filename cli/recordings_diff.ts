/**
 * Comparing two recordings of the same thing, as `diff A B` does.
 *
 * @module
 */
import { type Finding, Findings, plainDifference, plainFinding } from "../engine/diff/mod.ts";
import { quoted } from "../engine/diff/wording.ts";
import {
  alignRecordings,
  type PairDifference,
  pairDifference,
  pairUp,
  type RecordedRun,
  RecordedRuns,
  type RecordingsAlignment,
  type RunOutline,
} from "../engine/recordings/mod.ts";
import { EXIT } from "./command.ts";
import type { Context } from "./context.ts";
import { diffLines, type DiffOutput, failsOn, markdownLines, runLines } from "./diff_output.ts";
import { UsageError } from "./errors.ts";
import { plural } from "../engine/plural.ts";
import { STANDARD } from "./files.ts";
import { inTrace, openTrace } from "./inputs.ts";

/** How the comparison is printed, and what it fails on. */
export interface RecordingsOptions {
  /** Whether every pair that differs is printed. */
  readonly runs: boolean;
  /** So many fields of a finding. */
  readonly limit: number | undefined;
  /** `markdown`, or text. */
  readonly format: string | undefined;
  /** What ends with status 1. */
  readonly "fail-on": string | undefined;
}

type Paths = readonly [string, string];

async function* runsOf(path: string, outlines: boolean): AsyncGenerator<RecordedRun> {
  try {
    const trace = await openTrace(path);
    let done: RecordedRun[] = [];
    const runs = new RecordedRuns((run) => done.push(run), outlines);
    for await (const block of trace.blocks()) {
      for (const event of block.shared()) {
        runs.feed(event);
        if (done.length === 0) continue;
        yield* done;
        done = [];
      }
    }
    runs.finish();
    yield* done;
  } catch (error) {
    throw inTrace(path, error);
  }
}

/** What the recordings are called: the end of their paths in which they differ. */
function namesOf([a, b]: Paths): Paths {
  const short = (path: string) => path.replace(/^.*\//, "").replace(/\.vmtape$/, "");
  return short(a) !== short(b) && short(a) !== "" && short(b) !== ""
    ? [short(a), short(b)]
    : a !== b
    ? [a, b]
    : [`${a} (first)`, `${b} (second)`];
}

/** What was found of two recordings. */
interface Comparison {
  readonly names: Paths;
  readonly runs: readonly [number, number];
  readonly alignment: RecordingsAlignment;
  readonly different: number;
  readonly broken: number;
  readonly findings: readonly Finding[];
  readonly partners: ReadonlyMap<number, number>;
}

function percent(part: number, whole: number): string {
  return whole === 0 ? "0 %" : `${(100 * part / whole).toFixed(1)} %`;
}

function alone(name: string, count: number, [first]: readonly RunOutline[]): string {
  const what = first?.scenario === undefined ? `event ${first?.event}` : first.scenario;
  return `Only in ${name}: ${plural(count, "run")}, the first ${what}`;
}

/** What VMRUNs that stand for each other have in common beside their place in the sequence. */
const SIGNS: Readonly<Record<RecordingsAlignment["sign"], string>> = {
  0: ", rip and vmcb12",
  1: " and rip within its page",
  2: " alone: rip and vmcb12 have little in common",
};

/** How well the recordings align, and how many runs differ. */
function* summary(found: Comparison): Generator<string> {
  const { names: [a, b], runs: [x, y], alignment, different, broken } = found;
  const { pairs, by, longest } = alignment;
  const share = percent(2 * pairs.length, x + y);
  const how = by === "scenario" ? "by scenario" : `by vCPU, sequence${SIGNS[alignment.sign]}`;
  yield `${a} and ${b}: ${plural(pairs.length, "run")} of ${x} and ${y} ${
    pairs.length === 1 ? "aligns" : "align"
  } ${how} (${share}), ` +
    `${different} of them ${different === 1 ? "differs" : "differ"}`;
  if (!longest) yield "They are too far apart for the best alignment: this one is near it";
  if (broken > 0) yield `${plural(broken, "pair")} lost events and are not compared`;
  if (x > pairs.length) yield alone(a, x - pairs.length, alignment.alone[0]);
  if (y > pairs.length) yield alone(b, y - pairs.length, alignment.alone[1]);
}

/** Outcomes first, then the most frequent. */
function sorted(findings: readonly Finding[]): Finding[] {
  const rank = ({ kind }: Finding) => kind === "outcome" ? 0 : 1;
  return findings.toSorted((a, b) => rank(a) - rank(b));
}

async function compare(paths: Paths, print: (difference: PairDifference) => void) {
  const outlines: [RunOutline[], RunOutline[]] = [[], []];
  for (const side of [0, 1] as const) {
    for await (const { event, vcpu, scenario, spec, signs } of runsOf(paths[side], true)) {
      outlines[side].push({ event, vcpu, scenario, spec, signs });
    }
    if (outlines[side].length === 0) {
      throw new UsageError(`${paths[side]} holds no VMRUN and no scenario to compare`);
    }
  }
  const names = namesOf(paths);
  const alignment = alignRecordings(...outlines);
  const findings = new Findings();
  const partners = new Map<number, number>();
  let different = 0, broken = 0, number = 0;
  const pairs = pairUp(alignment.pairs, runsOf(paths[0], false), runsOf(paths[1], false));
  for await (const [a, b] of pairs) {
    if (a.broken || b.broken) {
      broken++;
      continue;
    }
    const difference = pairDifference(a, b, names, number++);
    if (difference === undefined) continue;
    different++;
    findings.add(difference);
    partners.set(a.event, b.event);
    print(difference);
  }
  const runs = [outlines[0].length, outlines[1].length] as const;
  const list = sorted(findings.list());
  return { names, runs, alignment, different, broken, findings: list, partners };
}

/**
 * Compares two recordings and prints what differs.
 *
 * @param context Where to.
 * @param paths The recordings.
 * @param options How.
 * @returns The exit status.
 * @throws {UsageError} When one holds nothing to compare, or is standard input.
 */
export async function diffRecordings(
  context: Context,
  paths: Paths,
  options: RecordingsOptions,
): Promise<number> {
  if (paths.includes(STANDARD)) {
    throw new UsageError("Two recordings are read twice each: name files, not -");
  }
  const found = await compare(paths, (difference) => {
    if (!options.runs) return;
    if (context.json) context.out.json(plainDifference(difference));
    else for (const line of runLines(difference)) context.out.line(line);
  });
  const { names, runs, alignment, different, broken, findings, partners } = found;
  const output: DiffOutput = {
    result: {
      policies: names,
      events: 0,
      runs: alignment.pairs.length,
      different: [different],
      unsettled: [0],
      unmodelled: {},
      skipped: 0,
    },
    findings,
    trace: paths[0],
    policies: names,
    limit: options.limit,
    show: ({ first }) =>
      [first.event, partners.get(first.event) ?? 0].map((event, i) =>
        `vmtape dump ${quoted(paths[i]!)} --from ${event} --to ${event + 8} --fields`
      ).join("; "),
  };
  const [x, y] = runs;
  const left = x + y - 2 * alignment.pairs.length;
  if (context.json) {
    const { by, sign, longest, pairs } = alignment;
    context.out.json({
      recordings: names,
      runs,
      aligned: pairs.length,
      ...{ by, sign, longest, different, broken },
      alone: alignment.alone.map((list) =>
        list.map(({ event, scenario }) => ({ event, scenario }))
      ),
      findings: findings.map(plainFinding),
    });
  } else {
    const markdown = options.format === "markdown";
    for (const line of summary(found)) context.out.line(markdown ? `- ${line}` : line);
    const lines = markdown ? markdownLines(output) : diffLines(output, context.color);
    for (const line of lines) context.out.line(line);
  }
  const any = (options["fail-on"] ?? "any") === "any";
  return failsOn(output, options["fail-on"]) || any && left > 0 ? EXIT.differs : EXIT.ok;
}
