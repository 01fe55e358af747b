/**
 * The subcommand `minimize`.
 *
 * @module
 */
import { Differ, Findings, type RunDifference } from "../../engine/diff/mod.ts";
import { capabilitiesOf } from "../../engine/replay/drive.ts";
import type { Policy } from "../../engine/policy.ts";
import {
  type CaseText,
  minimizeCases,
  NotReproducedError,
} from "../../traces/scenarios/minimize.ts";
import { defineCommand, EXIT, FORCE } from "../command.ts";
import { EVENT, POLICIES_OPTION, policiesOf, PROCESSOR } from "../policy_options.ts";
import { STEP_LIMIT } from "../step_limit.ts";
import { UsageError } from "../errors.ts";
import { STANDARD } from "../files.ts";
import { openTrace } from "../inputs.ts";
import { writeWhole } from "../whole_file.ts";

/** What the trace says of the run that is to be shown. */
interface Found {
  readonly cases: readonly CaseText[];
  readonly npt: boolean;
  readonly difference: RunDifference | undefined;
  readonly keys: readonly string[];
  readonly findings: Findings;
}

async function find(path: string, event: number, policies: readonly Policy[]): Promise<Found> {
  const findings = new Findings();
  let cases: (CaseText | undefined)[] = [];
  let npt = true;
  let index = 0;
  let over: readonly (CaseText | undefined)[] | undefined;
  let difference: RunDifference | undefined;
  let keys: readonly string[] = [];
  let of = -1;
  const differ = new Differ(policies, (found) => {
    const added = findings.add(found);
    if (found.event === of) [difference, keys] = [found, added];
  }, {
    look: (run) => {
      if (over !== undefined || event >= index) return;
      over = [...cases];
      of = run.event;
    },
  });
  const trace = await openTrace(path);
  reading: for await (const block of trace.blocks()) {
    for (const next of block.shared()) {
      // What ends a run is fed before the next case is noted.
      differ.feed(next);
      if (over !== undefined) break reading;
      if (next.kind === "session") {
        cases = [];
        npt = capabilitiesOf(next.meta).npt;
      } else if (next.kind === "case") {
        const { name, spec } = next;
        cases.push(name === undefined || spec === undefined ? undefined : { name, spec });
      }
      index++;
    }
  }
  if (over === undefined) differ.finish();
  if (over === undefined) {
    throw new UsageError(
      event >= index
        ? `There is no event ${event}: the trace has ${index}`
        : `Event ${event} belongs to no VMRUN with its inputs; vmtape dump shows which events do`,
    );
  }
  const told = over.filter((one) => one !== undefined);
  if (told.length === 0 || told.length < over.length) {
    throw new UsageError(
      "The trace does not say how its scenarios were made, so they cannot be made smaller; " +
        "vmtape record and vmtape import --from lab write what does",
    );
  }
  return { cases: told, npt, difference, keys, findings };
}

/** The smallest scenario that still shows a difference. */
export const minimizeCommand = defineCommand({
  name: "minimize",
  summary: "Find the smallest scenario that still shows a difference, as a line to send around",
  details:
    "Starts from the scenario of an event that two policies end differently, and takes away cases, " +
    "changes and bits as long as the difference stays. What is printed, in the lab's case syntax, " +
    "has been run once more. Findings of the event are all kept, unless --finding names some.",
  operands: { usage: "TRACE", min: 1, max: 1 },
  options: [
    EVENT,
    { ...POLICIES_OPTION, required: true },
    PROCESSOR,
    STEP_LIMIT,
    {
      name: "finding",
      kind: "list",
      value: "TEXT",
      doc: "Keep only the findings whose title or id contains this",
    },
    { name: "output", short: "o", kind: "file", value: "FILE", doc: "File for the scenario" },
    FORCE,
  ],
  examples: [
    {
      line: "minimize run.vmtape --event 7 --policies early-exit,unified -o small.cases",
      doc: "What to send to a colleague",
    },
  ],
  async run(context, { options, operands: [path = ""] }) {
    const [a, b, ...more] = await policiesOf(options.policies, 2, options.processor);
    if (a === undefined || b === undefined || more.length > 0) {
      throw new UsageError("Two policies are compared at a time");
    }
    const found = await find(path, options.event, [a, b]);
    const { difference, keys, findings, cases, npt } = found;
    if (difference === undefined) {
      throw new UsageError(`Event ${options.event}: ${a.name} and ${b.name} end alike`);
    }
    const list = findings.list();
    const titled = keys.map((key) => list[findings.indexOf(key)]!);
    const kept = options.finding.length === 0
      ? titled
      : titled.filter(({ id, title }) =>
        options.finding.some((text) => id.includes(text) || title.includes(text))
      );
    if (kept.length === 0) {
      throw new UsageError(
        `No finding of event ${options.event} is like that; it shows: ` +
          titled.map(({ title }) => title).join("; "),
      );
    }
    const ids = kept.map(({ id }) => id);
    const small = await minimizeCases(cases, [a, b], { npt, ids }).catch((error) => {
      throw error instanceof NotReproducedError ? new UsageError(error.message) : error;
    });
    const comment = [
      `# ${a.name} and ${b.name} differ here, with npt=${npt ? "on" : "off"}:`,
      ...kept.map(({ title }) => `#   ${title}`),
      ...small.notes.filter((note) => note !== "").map((note) => `# ${note}`),
    ];
    const text = [...comment, ...small.lines].join("\n") + "\n";
    const { output, force } = options;
    if (output !== undefined && output !== STANDARD) {
      writeWhole(context, { output, force }, text);
    }
    if (context.json) {
      const { lines, notes, tried } = small;
      context.out.json({ lines, notes, tried, npt, findings: kept.map(({ title }) => title) });
    } else {
      for (const line of small.lines) context.out.line(line);
      for (const line of comment) context.note(line);
      context.note(`# Verified; ${small.tried} scenarios were tried`);
    }
    return EXIT.ok;
  },
});
