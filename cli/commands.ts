/**
 * The table of subcommands.
 *
 * @module
 */
import type { Command } from "./command.ts";

/** A subcommand that is loaded when it is asked for, so that the others cost no start-up time. */
export interface CommandEntry {
  /** Name on the command line: a word, or two of which the first is a command too. */
  readonly name: string;
  /** What it does, in one line; the loaded command says the same. */
  readonly summary: string;
  /** Loads it. */
  load(): Promise<Command>;
}

/** All subcommands, in the order of the help. */
export const COMMANDS: readonly CommandEntry[] = [
  {
    name: "record",
    summary: "Run scenarios on the built-in emulator, and record what happens",
    load: async () => (await import("./commands/record.ts")).record,
  },
  {
    name: "record qemu",
    summary: "Record the nested transitions of a QEMU guest, or scenarios on QEMU's own SVM",
    load: async () => (await import("./commands/record_qemu.ts")).recordQemuCommand,
  },
  {
    name: "record bochs",
    summary: "Record scenarios on Bochs' SVM, a third opinion beside QEMU's and the manual's",
    load: async () => (await import("./commands/record_bochs.ts")).recordBochsCommand,
  },
  {
    name: "record kvm",
    summary: "Run scenarios on this machine's own KVM, and record what it really does",
    load: async () => (await import("./commands/record_kvm.ts")).recordKvmCommand,
  },
  {
    name: "import",
    summary: "Turn a recording of another tool into a trace",
    load: async () => (await import("./commands/import.ts")).importCommand,
  },
  {
    name: "info",
    summary: "Say what a trace holds",
    load: async () => (await import("./commands/info.ts")).info,
  },
  {
    name: "dump",
    summary: "Print the events of a trace, one a line",
    load: async () => (await import("./commands/dump.ts")).dump,
  },
  {
    name: "replay",
    summary: "Re-execute a trace, and hold the outcome against what was recorded",
    load: async () => (await import("./commands/replay.ts")).replay,
  },
  {
    name: "identify",
    summary: "Say which known policy and checks explain what was recorded",
    load: async () => (await import("./commands/identify.ts")).identifyCommand,
  },
  {
    name: "diff",
    summary: "Re-execute a trace under several policies, and say what they leave different and why",
    load: async () => (await import("./commands/diff.ts")).diff,
  },
  {
    name: "why",
    summary:
      "Say why a VMRUN failed: the check, the field and its bits, and what policies make of it",
    load: async () => (await import("./commands/why.ts")).why,
  },
  {
    name: "explain",
    summary: "Show one VMRUN step by step, under two policies side by side or under one",
    load: async () => (await import("./commands/explain.ts")).explain,
  },
  {
    name: "minimize",
    summary: "Find the smallest scenario that still shows a difference, as a line to send around",
    load: async () => (await import("./commands/minimize.ts")).minimizeCommand,
  },
  {
    name: "report",
    summary: "Write what policies do with a trace into a page to be looked at in a browser",
    load: async () => (await import("./commands/report.ts")).report,
  },
  {
    name: "top",
    summary: "Count L2's exits by reason, with the time in L2 and the time to handle them",
    load: async () => (await import("./commands/top.ts")).top,
  },
  {
    name: "stats",
    summary: "Measure what each kind of transition costs under each policy, in percentiles",
    load: async () => (await import("./commands/stats.ts")).stats,
  },
  {
    name: "export",
    summary: "Write a trace in another tool's format, such as Perfetto's",
    load: async () => (await import("./commands/export.ts")).exportCommand,
  },
  {
    name: "merge",
    summary: "Print what one run would have, from what runs with --shard printed",
    load: async () => (await import("./commands/merge.ts")).merge,
  },
  {
    name: "verify",
    summary: "Read all of a trace, and say what of it is intact",
    load: async () => (await import("./commands/verify.ts")).verify,
  },
  {
    name: "recover",
    summary: "Write a whole trace with everything that is intact in a damaged one",
    load: async () => (await import("./commands/recover.ts")).recover,
  },
  {
    name: "cat",
    summary: "Write the events of several traces into one, in order",
    load: async () => (await import("./commands/cat.ts")).cat,
  },
  {
    name: "cut",
    summary: "Write a range of a trace's events into a trace of its own, which replays",
    load: async () => (await import("./commands/cut.ts")).cut,
  },
  {
    name: "filter",
    summary: "Write some of a trace's scenarios into a trace of its own, which replays",
    load: async () => (await import("./commands/filter.ts")).filter,
  },
  {
    name: "checkpoint",
    summary: "Write a trace with the machine's state every so many events, to begin replays there",
    load: async () => (await import("./commands/checkpoint.ts")).checkpoint,
  },
  {
    name: "predict",
    summary: "Print what a kernel of a policy would do with scenarios, as the lab's records",
    load: async () => (await import("./commands/predict.ts")).predict,
  },
  {
    name: "compare",
    summary: "Count how far two recordings of the same cases agree",
    load: async () => (await import("./commands/compare.ts")).compareCommand,
  },
  {
    name: "scenarios",
    summary: "List the built-in scenarios, or print their cases",
    load: async () => (await import("./commands/scenarios.ts")).scenarios,
  },
  {
    name: "generate",
    summary: "Print random cases near the boundary of what is valid",
    load: async () => (await import("./commands/generate.ts")).generateCommand,
  },
  {
    name: "hunt",
    summary: "Ask a kernel about random cases, and say what it does that nobody has explained",
    load: async () => (await import("./commands/hunt.ts")).huntCommand,
  },
  {
    name: "completions",
    summary: "Print a completion script for a shell",
    load: async () => (await import("./commands/completions.ts")).completions,
  },
];
