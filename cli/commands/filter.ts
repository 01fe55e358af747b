/**
 * The subcommand `filter`.
 *
 * @module
 */
import { failedOnly, filterTrace } from "../../codecs/container/edit.ts";
import type { TraceEvent } from "../../engine/event.ts";
import { defineCommand, EXIT, FORCE, OUTPUT } from "../command.ts";
import { UsageError } from "../errors.ts";
import { plural } from "../../engine/plural.ts";
import { globMatches } from "../glob.ts";
import { openTrace } from "../inputs.ts";
import { reportWritten, writeTrace } from "../trace_output.ts";

type Test = (events: readonly TraceEvent[], more: boolean) => boolean | undefined;

function caseTest(patterns: readonly string[]): Test {
  return (events) =>
    events.some((event) =>
      event.kind === "case" && patterns.some((pattern) => globMatches(pattern, event.name ?? ""))
    );
}

/** Keeps some scenarios of a trace. */
export const filter = defineCommand({
  name: "filter",
  summary: "Write some of a trace's scenarios into a trace of its own, which replays",
  details:
    "Sessions and memory are always kept, and so is what a scenario that is kept goes on from " +
    "(keepvm). Several conditions have to hold together. Ends with 1 when none is kept.",
  operands: { usage: "TRACE", min: 1, max: 1 },
  options: [
    { name: "failed-only", kind: "flag", doc: "Keep those in which a VMRUN failed" },
    { name: "case", kind: "list", value: "NAME", doc: "Keep those of these names; * is any text" },
    OUTPUT,
    FORCE,
  ],
  examples: [
    { line: "filter run.vmtape --failed-only -o failed.vmtape", doc: "What went wrong" },
    { line: "filter run.vmtape --case 'efer_*' -o efer.vmtape", doc: "One group of cases" },
  ],
  async run(context, { options, operands: [path = ""] }) {
    const tests: Test[] = [];
    if (options["failed-only"]) tests.push(failedOnly);
    if (options.case.length > 0) tests.push(caseTest(options.case));
    if (tests.length === 0) throw new UsageError("What to keep? Say --failed-only or --case NAME");
    const trace = await openTrace(path);
    let scenarios = 0;
    let asked = 0;
    let undecided = 0;
    const keep: Test = (events, more) => {
      if (!events.some(({ kind }) => kind === "case" || kind === "vmrun")) return false;
      scenarios++;
      const found = tests.map((test) => test(events, more));
      if (found.includes(false)) return false;
      if (found.includes(undefined)) undecided++;
      else asked++;
      return found.includes(undefined) ? undefined : true;
    };
    const written = await writeTrace(
      context,
      options,
      (open) => filterTrace(trace, open(trace.header.meta, trace.header), keep),
    );
    context.note(`${asked} of ${scenarios} scenarios are as asked`);
    if (undecided > 0) {
      context.note(`${plural(undecided, "more was", "more were")} too long to be held, and kept`);
    }
    reportWritten(context, options.output, written, { scenarios, asked, undecided });
    return asked + undecided > 0 ? EXIT.ok : EXIT.differs;
  },
});
