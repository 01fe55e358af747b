/**
 * The subcommand `record bochs`.
 *
 * @module
 */
import { recordBochsScenarios } from "../../traces/bochs/scenario_recorder.ts";
import { defineCommand, EXIT, FORCE, OUTPUT } from "../command.ts";
import { UsageError } from "../errors.ts";
import { loadScenarios } from "../scenario_inputs.ts";
import { reportWritten, writeTrace } from "../trace_output.ts";

/** Records scenarios on Bochs. */
export const recordBochsCommand = defineCommand({
  name: "record bochs",
  summary: "Record scenarios on Bochs' SVM, a third opinion beside QEMU's and the manual's",
  details:
    "Each scenario is a Bochs of its own (2.7, with its debugger and its terminal display), led by " +
    "the debugger's commands; it takes a second. GIF after a #VMEXIT, and registers after a shutdown, " +
    "are unknown in the trace. Cases that need a hypervisor beneath L1, an NMI or RFLAGS are left out, " +
    "and named.",
  operands: { usage: "", min: 0, max: 0 },
  options: [
    OUTPUT,
    {
      name: "scenario",
      kind: "list",
      value: "SCENARIO",
      doc: "Scenarios: files, or built-in names",
    },
    {
      name: "cpu",
      kind: "text",
      value: "MODEL",
      choices: ["ryzen", "zambezi"],
      doc: "The processor that Bochs is to be (ryzen)",
    },
    FORCE,
  ],
  needs: ["run"],
  examples: [
    { line: "record bochs --scenario cases.txt -o bochs.vmtape", doc: "Ask Bochs about cases" },
    {
      line: "record bochs --scenario cases.txt --cpu zambezi -o zambezi.vmtape",
      doc: "The same, on a processor without AVX-512",
    },
  ],
  async run(context, { options }) {
    if (options.scenario.length === 0) {
      throw new UsageError("Say what to run: --scenario FILE, or a built-in name");
    }
    const scenarios = await loadScenarios(options.scenario);
    let interrupted = false;
    const written = await writeTrace(context, options, async (open) => {
      const writer = open({ source: "bochs" });
      using progress = context.progress("cases", scenarios.length);
      let count = 0;
      const result = await recordBochsScenarios(
        scenarios,
        { write: (event) => writer.write(event), close() {} },
        {
          signal: context.signal,
          ...(options.cpu === undefined ? {} : { cpu: options.cpu }),
          onRecorded: () => progress.update(++count),
        },
      );
      progress.done();
      for (const { name, reason } of result.skipped) context.note(`${name}: ${reason}`);
      context.note(`${result.recorded} cases recorded on Bochs ${result.version}`);
      interrupted = result.ended === "interrupted";
    });
    reportWritten(context, options.output, written, {
      ended: interrupted ? "interrupted" : "done",
    });
    return interrupted ? EXIT.interrupted : EXIT.ok;
  },
});
