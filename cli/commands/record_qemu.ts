/**
 * The subcommand `record qemu`.
 *
 * @module
 */
import type { TraceWriter } from "../../codecs/mod.ts";
import { parseGdbAddress } from "../../traces/qemu/gdb_address.ts";
import { GdbClient } from "../../traces/qemu/gdb_client.ts";
import { recordQemuGuest } from "../../traces/qemu/launch.ts";
import { type QemuRecordResult, recordQemu } from "../../traces/qemu/recorder.ts";
import { recordQemuScenarios } from "../../traces/qemu/scenario_recorder.ts";
import type { EventSink, RecordingEnd } from "../../traces/sink.ts";
import { defineCommand, EXIT, FORCE, OUTPUT, type Values } from "../command.ts";
import type { Context } from "../context.ts";
import { UsageError } from "../errors.ts";
import { loadScenarios } from "../scenario_inputs.ts";
import { reportWritten, writeTrace } from "../trace_output.ts";

const OPTIONS = [
  OUTPUT,
  { name: "attach", kind: "text", value: "HOST:PORT", doc: "Follow the guest of a running QEMU" },
  { name: "guest", kind: "file", value: "IMAGE", doc: "Boot an image in QEMU and follow it" },
  {
    name: "scenario",
    kind: "list",
    value: "SCENARIO",
    doc: "Run scenarios (files, or built-in names) on QEMU's own SVM",
  },
  {
    name: "at",
    kind: "list",
    value: "ADDR",
    doc: "Linear addresses of VMRUN; searched for when left out",
  },
  { name: "limit", kind: "number", doc: "Stop after so many VMRUNs" },
  { name: "seconds", kind: "number", doc: "Stop after so many seconds" },
  FORCE,
] as const;

type Options = Values<typeof OPTIONS>;

/** Share of #VMEXITs from which interrupts, the timer's above all, are worth a word. */
const MANY_INTERRUPTS = 0.1;

/** The trace is closed by who opened it, also when nothing was recorded. */
function sinkOf(writer: TraceWriter): EventSink {
  return { write: (event) => writer.write(event), close() {} };
}

function addresses(words: readonly string[]): bigint[] {
  return words.map((word) => {
    if (/^(0x)?[0-9a-f]{1,16}$/i.test(word)) return BigInt(`0x${word.replace(/^0x/i, "")}`);
    throw new UsageError(`Option --at needs hexadecimal addresses, not ${JSON.stringify(word)}`);
  });
}

function checkOptions(options: Options): void {
  const { attach, guest, scenario, at, limit, seconds } = options;
  const sources = [attach !== undefined, guest !== undefined, scenario.length > 0];
  if (sources.filter(Boolean).length !== 1) {
    throw new UsageError("Say one of --attach HOST:PORT, --guest IMAGE and --scenario SCENARIO");
  }
  const follows = scenario.length === 0;
  if (!follows && (at.length > 0 || limit !== undefined || seconds !== undefined)) {
    throw new UsageError("Options --at, --limit and --seconds are for --attach and --guest");
  }
}

async function runScenarios(context: Context, options: Options, sink: EventSink) {
  const scenarios = await loadScenarios(options.scenario);
  using progress = context.progress("cases", scenarios.length);
  let count = 0;
  const result = await recordQemuScenarios(scenarios, sink, {
    signal: context.signal,
    onRecorded: () => progress.update(++count),
  });
  progress.done();
  for (const { name, reason } of result.skipped) context.note(`${name}: ${reason}`);
  for (const { name, words } of result.crashes) context.warn(`${name}: QEMU crashed: ${words}`);
  context.note(`${result.recorded} cases recorded on QEMU ${result.version}`);
  return result;
}

async function follow(context: Context, options: Options, sink: EventSink) {
  const at = addresses(options.at);
  using progress = context.progress("VMRUNs", options.limit);
  const how = {
    signal: context.signal,
    onNote: (text: string) => context.note(text),
    onProgress: (count: number) => progress.update(count),
    ...(at.length > 0 ? { at } : {}),
    ...(options.limit === undefined ? {} : { limit: options.limit }),
    ...(options.seconds === undefined ? {} : { durationMs: options.seconds * 1000 }),
  };
  let result: QemuRecordResult;
  if (options.guest !== undefined) result = await recordQemuGuest(options.guest, sink, how);
  else {
    const gdb = await GdbClient.connect(parseGdbAddress(options.attach ?? ""));
    result = await recordQemu(gdb, sink, how);
  }
  progress.done();
  const { vmruns, exits, interrupts, vcpus, version } = result;
  context.note(`${vmruns} VMRUNs and ${exits} #VMEXITs of ${vcpus} vCPUs on QEMU ${version}`);
  if (interrupts > MANY_INTERRUPTS * exits) {
    const share = Math.round(100 * interrupts / exits);
    context.note(
      `${share} % of the #VMEXITs are interrupts: the guest's clock goes on while it is recorded; -icount shift=0 of QEMU holds it back`,
    );
  }
  return result;
}

/** Records from QEMU. */
export const recordQemuCommand = defineCommand({
  name: "record qemu",
  summary: "Record the nested transitions of a QEMU guest, or scenarios on QEMU's own SVM",
  details:
    "Follows every VMRUN of the guest of a stock QEMU (7.2 or newer, software emulation) through its " +
    "GDB stub, and lets it run on afterwards. What a debugger cannot see, such as GIF, is unknown in " +
    "the trace. Ctrl-C ends the recording; what was recorded is a whole trace.",
  operands: { usage: "", min: 0, max: 0 },
  options: OPTIONS,
  needs: ["run", "net"],
  examples: [
    {
      line: "record qemu --attach localhost:1234 -o guest.vmtape",
      doc: "Follow a guest that was started with -gdb tcp::1234",
    },
    {
      line: "record qemu --guest hypervisor.elf -o guest.vmtape",
      doc: "Boot an image and follow it",
    },
    { line: "record qemu --scenario cases.txt -o qemu.vmtape", doc: "Ask QEMU's SVM about cases" },
  ],
  async run(context, { options }) {
    checkOptions(options);
    let ended: RecordingEnd | undefined;
    const written = await writeTrace(context, options, async (open) => {
      const sink = sinkOf(open({ source: "qemu" }));
      const work = options.scenario.length > 0 ? runScenarios : follow;
      ({ ended } = await work(context, options, sink));
    });
    if (ended === "gone") {
      context.warn("QEMU went away before the end; the trace is whole until then");
    }
    reportWritten(context, options.output, written, { ended });
    return ended === "interrupted" ? EXIT.interrupted : EXIT.ok;
  },
});
