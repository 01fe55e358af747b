/**
 * The subcommand `minimize`.
 *
 * @module
 */
import { Differ, type Finding } from "../../engine/diff/mod.ts";
import type { Policy } from "../../engine/policy.ts";
import {
  type CaseText,
  minimizeCases,
  type Minimized,
  minimizeLines,
  NotReproducedError,
  numbered,
  shownFindings,
} from "../../traces/scenarios/minimize.ts";
import { recordScenarios } from "../../traces/scenarios/record.ts";
import type { Scenario } from "../../traces/scenarios/scenario.ts";
import { parseScenario } from "../../traces/scenarios/scenario_reader.ts";
import { defineCommand, EXIT, FORCE } from "../command.ts";
import { UsageError } from "../errors.ts";
import { STANDARD } from "../files.ts";
import { findRun, type FoundRun, outcomeOfRun } from "../found_run.ts";
import { EVENT, POLICIES_OPTION, policiesOf, PROCESSOR } from "../policy_options.ts";
import { STEP_LIMIT } from "../step_limit.ts";
import { writeWhole } from "../whole_file.ts";

/** A small scenario, and what it shows. */
interface Shown {
  readonly small: Minimized;
  /** In what way, for a comment above it. */
  readonly what: string;
  /** What it shows, a line each. */
  readonly lines: readonly string[];
  /** What the run shows, and the scenario does not. */
  readonly left: readonly string[];
}

function titles(findings: readonly Finding[]): string[] {
  return findings.map(({ title }) => title);
}

/** The findings that are to be kept. */
function chosen(
  event: number,
  { findings, logged }: FoundRun,
  [a, b]: readonly [Policy, Policy],
  wanted: readonly string[],
): Finding[] {
  // What hangs on what was not recorded is no difference yet.
  const certain = findings.filter(({ kind }) => !logged || kind !== "unsettled");
  if (certain.length === 0) {
    throw new UsageError(
      findings.length > 0
        ? `Event ${event}: that ${a.name} and ${b.name} differ hangs on what was not recorded`
        : `Event ${event}: ${a.name} and ${b.name} end alike`,
    );
  }
  const kept = wanted.length === 0
    ? certain
    : certain.filter(({ id, title }) =>
      wanted.some((text) => id.includes(text) || title.includes(text))
    );
  if (kept.length === 0) {
    throw new UsageError(
      `No finding of event ${event} is like that; it shows: ${titles(certain).join("; ")}`,
    );
  }
  return kept;
}

function scenariosOf(cases: readonly CaseText[]): Scenario[] {
  return cases.map(({ name, spec }) => parseScenario(`${name} ${spec}`));
}

/** Of a log: the guess that shows the most of some findings, and which. */
async function best(
  { cases, npt }: FoundRun,
  policies: readonly [Policy, Policy],
  kept: readonly Finding[],
): Promise<{ cases: readonly CaseText[]; shown: readonly Finding[] }> {
  let most: { cases: readonly CaseText[]; shown: readonly Finding[] } | undefined;
  for (const guess of cases) {
    const ids = await shownFindings(scenariosOf(guess), policies, npt);
    const shown = kept.filter(({ id }) => ids.has(id));
    if (most === undefined || shown.length > most.shown.length) most = { cases: guess, shown };
  }
  if (most === undefined || most.shown.length === 0) {
    throw new UsageError(
      "What was recorded of the VMRUN does not show this difference on the machine of scenarios; " +
        `it shows: ${titles(kept).join("; ")}`,
    );
  }
  return most;
}

async function smallDifference(
  event: number,
  found: FoundRun,
  policies: readonly [Policy, Policy],
  wanted: readonly string[],
): Promise<Shown> {
  const kept = chosen(event, found, policies, wanted);
  const { npt } = found;
  const { cases, shown } = found.logged
    ? await best(found, policies, kept)
    : { cases: found.cases[0] ?? [], shown: kept };
  const small = await minimizeCases(cases, policies, { npt, ids: shown.map(({ id }) => id) });
  const [a, b] = policies;
  const left = titles(kept.filter((one) => !shown.includes(one)));
  return { small, what: `${a.name} and ${b.name} differ here`, lines: titles(shown), left };
}

/** What becomes of the last of some cases under a policy. */
async function outcomeOfLast(scenarios: readonly Scenario[], policy: Policy, npt: boolean) {
  const last = `${scenarios.length - 1}`;
  let outcome: ReturnType<typeof outcomeOfRun> | undefined;
  const differ = new Differ([policy, policy], () => {}, {
    look: (run) => {
      if (run.scenario === last) outcome = outcomeOfRun(run);
    },
  });
  for await (const event of recordScenarios(numbered(scenarios), policy, { npt })) {
    differ.feed(event);
  }
  differ.finish();
  return outcome;
}

async function smallOutcome(found: FoundRun, policy: Policy): Promise<Shown> {
  const { cases, npt, outcome, logged } = found;
  if (outcome.text === "cannot tell") {
    throw new UsageError(`What ${policy.name} makes of this VMRUN hangs on what was not recorded`);
  }
  // A log does not say what exit L1 is to receive of this machine.
  const same = logged ? "key" : "text";
  for (const guess of cases) {
    const small = await minimizeLines(
      guess,
      async (scenarios) => (await outcomeOfLast(scenarios, policy, npt))?.[same] === outcome[same],
    ).catch((error) => {
      if (error instanceof NotReproducedError) return undefined;
      throw error;
    });
    if (small === undefined) continue;
    return { small, what: `${policy.name} does this`, lines: [outcome.text], left: [] };
  }
  throw new UsageError(
    `The machine of scenarios does not show what becomes of this VMRUN under ${policy.name}: ` +
      outcome.text,
  );
}

/** The smallest scenario that still shows something. */
export const minimizeCommand = defineCommand({
  name: "minimize",
  summary: "Find the smallest scenario that still shows a difference, as a line to send around",
  details:
    "Starts from the scenario of an event that two policies end differently, and takes away cases, " +
    "changes and bits as long as the difference stays. What is printed, in the lab's case syntax, " +
    "has been run once more. Findings of the event are all kept, unless --finding names some. Under " +
    "one policy, what becomes of the VMRUN is kept: the checks that fail, or the exit that L1 " +
    "receives. Of a log, the scenario is made from what was recorded of vmcb12 and what that " +
    "implies; a finding that such a scenario does not show is named.",
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
    {
      line: "minimize night.vmtape --event 58 --policies linux-7.3",
      doc: "What a VMRUN of a log that failed comes down to",
    },
  ],
  async run(context, { options, operands: [path = ""] }) {
    const [a, b, ...more] = await policiesOf(options.policies, 1, options.processor);
    if (a === undefined || more.length > 0) {
      throw new UsageError("One policy or two are minimized for at a time");
    }
    if (b === undefined && options.finding.length > 0) {
      throw new UsageError("Option --finding is of a difference, and needs two policies");
    }
    const { event } = options;
    const found = await findRun(path, event, [a, b ?? a]);
    const shown = await (b === undefined
      ? smallOutcome(found, a)
      : smallDifference(event, found, [a, b], options.finding)).catch((error) => {
        throw error instanceof NotReproducedError ? new UsageError(error.message) : error;
      });
    const { small, what, lines, left } = shown;
    const { npt } = found;
    const comment = [
      `# ${what}, with npt=${npt ? "on" : "off"}:`,
      ...lines.map((line) =>
        `#   ${line}`
      ),
      ...small.notes.filter((note) => note !== "").map((note) => `# ${note}`),
    ];
    const text = [...comment, ...small.lines].join("\n") + "\n";
    const { output, force } = options;
    if (output !== undefined && output !== STANDARD) {
      writeWhole(context, { output, force }, text);
    }
    if (context.json) {
      const { notes, tried } = small;
      const kept = b === undefined ? { outcome: found.outcome.text } : { findings: lines, left };
      context.out.json({ lines: small.lines, notes, tried, npt, ...kept });
    } else {
      for (const line of small.lines) context.out.line(line);
      for (const line of comment) context.note(line);
      for (const line of left) {
        context.note(
          `# Not shown by any scenario of what was recorded: ${line}`,
        );
      }
      context.note(`# Verified; ${small.tried} scenarios were tried`);
    }
    return EXIT.ok;
  },
});
