/**
 * The subcommand `record kvm`.
 *
 * @module
 */
import { KvmRecorder, recordKvm } from "../../traces/kvm/mod.ts";
import { defineCommand, EXIT, FORCE, OUTPUT } from "../command.ts";
import { writeRecording } from "../recording.ts";
import { loadScenarios, SCENARIO_OPERANDS } from "../scenario_inputs.ts";

/** Runs scenarios on this machine's KVM, and records. */
export const recordKvmCommand = defineCommand({
  name: "record kvm",
  summary: "Run scenarios on this machine's own KVM, and record what it really does",
  details: "Needs an AMD processor with nested virtualization (kvm_amd nested=1), /dev/kvm, and " +
    "from Deno no more than the C library: --allow-ffi=/lib/x86_64-linux-gnu/libc.so.6. Who may use " +
    "tracefs (root) also gets the names of failed checks; to others they stay unknown. L1 is given " +
    "the processor that the emulator models.\n\nScenarios are files of cases, or names of " +
    "built-in ones; without any, all built-in ones are run. Ctrl-C ends the recording; what was " +
    "recorded is a whole trace.",
  operands: SCENARIO_OPERANDS,
  options: [
    OUTPUT,
    { name: "scenario", short: "s", kind: "list", value: "FILE…", doc: "Scenarios, as operands" },
    { name: "device", kind: "file", value: "FILE", doc: "KVM's device (/dev/kvm)" },
    { name: "no-tracepoints", kind: "flag", doc: "Leave tracefs alone" },
    FORCE,
  ],
  needs: ["ffi"],
  examples: [
    {
      line: "record kvm -o mine.vmtape",
      doc: "What does this kernel do with all built-in scenarios?",
    },
    {
      line: "record kvm --scenario cases.txt -o mine.vmtape && vmtape identify mine.vmtape",
      doc: "Which known kernel does it behave like?",
    },
  ],
  async run(context, { options, operands }) {
    const scenarios = await loadScenarios([...options.scenario, ...operands]);
    using recorder = new KvmRecorder(scenarios, {
      ...(options.device === undefined ? {} : { device: options.device }),
      tracepoints: !options["no-tracepoints"],
    });
    const { kernel, processor, checks } = recorder.host;
    context.note(`Linux ${kernel} on ${processor}`);
    if (!checks) context.note("Without tracefs: which checks fail stays unknown");
    await writeRecording(context, options, recordKvm(recorder, scenarios), {
      meta: { source: "kvm", kernel, processor },
      scenarios: scenarios.length,
    });
    return EXIT.ok;
  },
});
