/**
 * The subcommand `why`.
 *
 * @module
 */
import { quoted } from "../../engine/diff/wording.ts";
import { POLICIES } from "../../engine/policies/mod.ts";
import type { Policy } from "../../engine/policy.ts";
import {
  diagnose,
  type Diagnosis,
  FailureFinder,
  type FoundRun,
  type LeftBehind,
  LeftBehindBy,
  leftUnknown,
  type ReadField,
} from "../../engine/why/mod.ts";
import type { TraceFile } from "../../codecs/mod.ts";
import { defineCommand, EXIT } from "../command.ts";
import type { Context } from "../context.ts";
import { POLICIES_OPTION, policiesOf, PROCESSOR } from "../policy_options.ts";
import { STEP_LIMIT } from "../step_limit.ts";
import { UsageError } from "../errors.ts";
import { openTraceFile } from "../inputs.ts";
import { painter } from "../paint.ts";
import { formatTable } from "../table.ts";

const WAYS: Readonly<Record<FoundRun["way"], string>> = {
  vmrun: "VMRUN",
  rsm: "RSM",
  setstate: "KVM_SET_NESTED_STATE",
};

function hex(value: bigint | number | undefined): string {
  return value === undefined ? "?" : `0x${value.toString(16)}`;
}

/** An exit code; VMEXIT_INVALID as the manual writes it, in as many bits as were written. */
function exitText(code: bigint | undefined): string {
  return code === 0xffff_ffff_ffff_ffffn ? "-1" : hex(code);
}

function fieldText({ field, value, known, passesWith, bits }: ReadField): string {
  if (!known) return `${field}  ${value}  not recorded`;
  if (passesWith === undefined) return `${field}  ${value}`;
  const named = bits.length > 0 ? ` (${bits.join(" ")})` : "";
  return `${field}  ${value}, would pass with ${passesWith}${named}`;
}

function* headLines(
  { run, failed, check, recorded, answers }: Diagnosis,
): Generator<string> {
  const { event, vcpu, way, rip, gpa, scenario, spec, errno } = run;
  const where = [
    ...(rip === undefined ? [] : [`before rip ${hex(rip)}`]),
    ...(gpa === undefined ? [] : [`vmcb12 at ${hex(gpa)}`]),
    `vCPU ${vcpu}`,
  ].join(", ");
  const named = [scenario, spec].filter(Boolean).join(" ");
  const did = failed
    ? errno ? `was refused with errno ${errno}` : "failed"
    : run.exitCode === undefined
    ? "did not fail, as far as was recorded"
    : `did not fail: L1 received exit code ${hex(run.exitCode)}`;
  yield `${WAYS[way]} at event ${event} ${did}${named && ` (${named})`}`;
  yield `  ${where}`;
  if (!failed) return;
  yield "";
  if (check === undefined) {
    const early = way === "setstate" && answers.every(({ verdict }) => verdict === "passes");
    yield early
      ? "Refused by the ioctl's own conditions on flags, sizes and vmcb12's address: no check fails."
      : run.check === undefined
      ? "No failed check was recorded, and what was recorded of vmcb12 settles none."
      : `The failed check is of no kernel that is modelled: ${run.check.text}`;
    return;
  }
  const text = run.check?.text ?? check.texts[0] ?? "";
  yield `Check ${check.id}: ${check.doc}`;
  yield recorded
    ? `  The kernel says  ${text}`
    : `  Not recorded; worked out from vmcb12 (${text})`;
}

function* answerLines({ answers }: Diagnosis): Generator<string> {
  for (const { set, verdict, check, needs } of answers) {
    const text = verdict === "fails"
      ? `fails ${check}`
      : verdict === "passes"
      ? "passes"
      : `cannot tell: would need ${needs.join(", ")}`;
    yield `  ${set.padEnd(12)} ${text}`;
  }
}

function leftTable(left: readonly LeftBehind[]): string {
  const rows = left.map((row) => [
    row.policy,
    row.check === undefined ? row.outcome : `${row.outcome} (${row.check})`,
    exitText(row.exitCode),
    row.gif === undefined ? "?" : row.gif ? "1" : "0",
    hex(row.eventInj),
    row.guestMode === undefined ? "?" : row.guestMode ? "in L2" : "in L1",
    row.assertions.join("; "),
  ]);
  const head = ["policy", "outcome", "exit_code", "GIF", "EVENTINJ", "left", "assertions"];
  const some = rows.some((row) => row.at(-1) !== "");
  return formatTable(some ? head : head.slice(0, -1), rows);
}

function print(context: Context, found: Diagnosis, left: readonly LeftBehind[], path: string) {
  const { out } = context;
  const paint = painter(context.color);
  const [head = "", ...rest] = headLines(found);
  out.line(paint("bold", head));
  for (const line of rest) out.line(line);
  if (found.check !== undefined && found.failed) {
    for (const field of found.fields) out.line(`  ${fieldText(field)}`);
    out.line(`  Made by          ${found.madeBy.join(", ")}`);
  }
  out.line();
  out.line(paint("bold", "What each kernel's checks say of this vmcb12:"));
  for (const line of answerLines(found)) out.line(line);
  if (left.length > 0) {
    out.line();
    out.line(paint("bold", "What each policy leaves behind:"));
    out.text(leftTable(left));
    if (found.run.partial) {
      out.line("  ? depends on what was not recorded.");
      return;
    }
    out.line(
      paint(
        "cyan",
        `vmtape explain ${quoted(path)} --event ${found.run.event} --policies ` +
          `${left[0]!.policy},${left[1]?.policy ?? "architectural"}`,
      ),
    );
  } else if (found.run.partial) {
    out.line();
    out.line("Too little of it was recorded to carry it out under policies.");
  }
}

async function carriedOut(trace: TraceFile, policies: readonly Policy[], run: FoundRun) {
  const by = new LeftBehindBy(policies, run);
  for await (const block of trace.blocks({ from: run.session, to: run.last + 1 })) {
    for (const [number, next] of block.entries()) by.feed(next, number);
  }
  return by.finish();
}

/** What there is to say of a VMRUN; nothing but counts when none failed. */
interface Answer {
  readonly found?: Diagnosis;
  readonly left: readonly LeftBehind[];
  readonly runs: number;
  readonly failures: number;
}

/** Reads the trace once to find the run, and its session's events once more to carry it out. */
async function answer(
  context: Context,
  path: string,
  event: number | undefined,
  policies: readonly Policy[],
): Promise<Answer> {
  using file = await openTraceFile(path);
  const { trace } = file;
  const finder = new FailureFinder(event);
  using progress = context.progress("events");
  let events = 0;
  for await (const block of trace.blocks()) {
    for (const next of block.shared()) {
      finder.feed(next);
      events++;
    }
    progress.update(events);
    if (finder.done) break;
  }
  const run = finder.finish();
  const { runs, failures } = finder.counts;
  if (run === undefined) {
    if (event === undefined) return { left: [], runs, failures };
    throw new UsageError(
      event >= events
        ? `There is no event ${event}: the trace has ${events}`
        : `Event ${event} belongs to no VMRUN; vmtape dump shows which events do`,
    );
  }
  const left = run.partial ? leftUnknown(policies, run) : await carriedOut(trace, policies, run);
  progress.done();
  return { found: diagnose(run), left, runs, failures };
}

/** That nothing failed is an answer, too. */
function printNone(context: Context, runs: number): void {
  if (context.json) context.out.json({ failed: false, runs, failures: 0 });
  else if (runs === 0) context.out.line("The trace holds no VMRUN");
  else {
    const none = runs === 1
      ? "The trace's one VMRUN did not fail"
      : `None of ${runs} VMRUNs failed`;
    context.out.line(`${none}, as far as was recorded`);
    context.note("--event N asks about one that did not");
  }
}

/** Says why a VMRUN failed. */
export const why = defineCommand({
  name: "why",
  summary:
    "Say why a VMRUN failed: the check, the field and its bits, and what policies make of it",
  details:
    "Looks at the VMRUN (or RSM, or restore) that an event is part of, or at the last that failed. " +
    "Of a log, what was not recorded is unknown: a check that depends on it says what it would take " +
    "to tell. Ends with 1 when the VMRUN failed, and with 0 when it or, without --event, none did.",
  operands: { usage: "TRACE", min: 1, max: 1 },
  options: [
    {
      name: "event",
      short: "e",
      kind: "number",
      value: "N",
      doc: "Number of an event of the VMRUN (the last VMRUN that failed)",
    },
    { ...POLICIES_OPTION, doc: `${POLICIES_OPTION.doc} (the built-in ones)` },
    PROCESSOR,
    STEP_LIMIT,
  ],
  examples: [
    { line: "why night.vmtape", doc: "Why did the last VMRUN that failed do so?" },
    { line: "why run.vmtape --event 20 --json", doc: "The same of another one, for machines" },
  ],
  async run(context, { options, operands: [path = ""] }) {
    const policies = options.policies.length > 0
      ? await policiesOf(options.policies, 1, options.processor)
      : Object.values(POLICIES);
    const { found, left, runs, failures } = await answer(context, path, options.event, policies);
    if (found === undefined) {
      printNone(context, runs);
      return EXIT.ok;
    }
    if (context.json) {
      const { run, failed, check, recorded, fields, madeBy, answers } = found;
      const { event, last, vcpu, way, scenario, spec, rip, gpa, exitCode, errno } = run;
      context.out.json({
        ...{ event, last, vcpu, way, scenario, spec, rip, vmcb12_gpa: gpa, exitCode, errno },
        ...{ failed, runs, failures },
        check: check && { id: check.id, doc: check.doc, text: run.check?.text, recorded, madeBy },
        fields,
        answers,
        policies: left,
      });
    } else print(context, found, left, path);
    if (failures > 1 && options.event === undefined) {
      context.note(`The last of ${failures} that failed, of ${runs}; --event N asks about another`);
    }
    return found.failed ? EXIT.differs : EXIT.ok;
  },
});
