/**
 * The subcommand `top`.
 *
 * @module
 */
import { readTrace } from "../../codecs/mod.ts";
import { type ExitRow, ExitStats, type TimeStats } from "../../engine/exit_stats.ts";
import { defineCommand, EXIT } from "../command.ts";
import type { Context } from "../context.ts";
import { UsageError } from "../errors.ts";
import { openChunks } from "../inputs.ts";
import { plural } from "../../engine/plural.ts";
import { formatTable } from "../table.ts";

/** Milliseconds between two looks at a recorder at work. */
const REFRESH = 1000;
const CLEAR = "\x1b[H\x1b[2J";

/** What rows are sorted by. */
const SORTS: Readonly<Record<string, (row: ExitRow) => number>> = {
  count: (row) => row.count,
  l2: (row) => row.l2.total,
  handling: (row) => row.handling.total,
};

const OPTIONS = [
  { name: "vcpu", kind: "number", value: "N", doc: "Only this vCPU" },
  { name: "per-vcpu", kind: "flag", doc: "A table for each vCPU" },
  {
    name: "sort",
    kind: "text",
    value: "BY",
    choices: Object.keys(SORTS),
    doc: "What comes first: the most exits, the most time in L2 or the most time to handle (count)",
  },
  { name: "limit", kind: "number", value: "N", doc: "So many reasons (all)" },
  { name: "follow", kind: "flag", doc: "Go on while a recorder writes, and show it every second" },
] as const;

function ms(value: number): string {
  return (value / 1e6).toFixed(3);
}

function us(value: number): string {
  return (value / 1e3).toFixed(2);
}

/** Total and mean, longest too; a dash for what no event shows. */
function timeCells({ known, total, max }: TimeStats): string[] {
  return known === 0 ? ["-", "-", "-"] : [ms(total), us(total / known), us(max)];
}

function tableOf(stats: ExitStats, by: string, limit: number): string {
  const value = SORTS[by]!;
  const rows = stats.rows().toSorted((a, b) => value(b) - value(a));
  const cells = rows.slice(0, limit).map((row) => [
    row.reason,
    String(row.count),
    `${(row.count / stats.exits * 100).toFixed(2)}%`,
    String(row.toL1),
    ...timeCells(row.l2),
    ...timeCells(row.handling),
  ]);
  const head = ["VM-EXIT", "Samples", "Samples%", "to L1"];
  const times = ["total ms", "mean us", "max us"];
  return formatTable([
    ...head,
    ...times.map((name) => `L2 ${name}`),
    ...times.map((name) => `handling ${name}`),
  ], cells);
}

function summary(stats: ExitStats, vcpu?: number): string {
  const { exits, entries, refused, duration, vcpus } = stats;
  const time = duration === undefined ? "the recording has no times" : `in ${ms(duration)} ms`;
  const who = vcpu === undefined ? plural(vcpus.length, "vCPU") : `vCPU ${vcpu}`;
  return `${plural(exits, "exit")} of L2 after ${plural(entries, "VMRUN")} (${refused} refused), ` +
    `${who}, ${time}`;
}

/** Counts for the whole, and for each vCPU. */
class Counts {
  readonly all: ExitStats;
  readonly each = new Map<number, ExitStats>();
  readonly #split: boolean;

  constructor(vcpu: number | undefined, split: boolean) {
    this.all = new ExitStats(vcpu);
    this.#split = split;
  }

  feed(event: Parameters<ExitStats["feed"]>[0]): void {
    this.all.feed(event);
    if (!this.#split) return;
    const vcpu = event.vcpu ?? 0;
    let stats = this.each.get(vcpu);
    if (stats === undefined) this.each.set(vcpu, stats = new ExitStats(vcpu));
    stats.feed(event);
  }
}

function print(context: Context, counts: Counts, by: string, limit: number): void {
  const { out } = context;
  out.line(summary(counts.all));
  if (counts.each.size === 0) {
    out.text(tableOf(counts.all, by, limit));
  } else {
    for (const [vcpu, stats] of [...counts.each].sort(([a], [b]) => a - b)) {
      out.line();
      out.line(summary(stats, vcpu));
      out.text(tableOf(stats, by, limit));
    }
  }
  if (counts.all.rows().some((row) => row.handling.known < row.count)) {
    out.line("Times count where both ends were seen; - where none was.");
  }
}

function json(stats: ExitStats) {
  const { exits, entries, refused, duration } = stats;
  return { exits, entries, refused, duration, unit: "ns", rows: stats.rows() };
}

/** Counts L2's exits by reason. */
export const top = defineCommand({
  name: "top",
  summary: "Count L2's exits by reason, with the time in L2 and the time to handle them",
  details:
    "L2's time is from its entry to the exit; handling is from the exit to the next entry of L2, by " +
    "L1 (to L1) or by the hypervisor below, whose entries only show where kvm_entry was traced. By " +
    "the recording's clock.",
  operands: { usage: "TRACE", min: 1, max: 1 },
  options: OPTIONS,
  examples: [
    { line: "top night.vmtape", doc: "Where did the time go?" },
    { line: "top run.vmtape --per-vcpu --sort handling --limit 5", doc: "vCPU by vCPU" },
    { line: "top run.vmtape --follow", doc: "Live, while a recorder writes" },
  ],
  async run(context, { options, operands: [path = ""] }) {
    const { follow, sort = "count", limit = Infinity, vcpu } = options;
    if (options["per-vcpu"] && vcpu !== undefined) {
      throw new UsageError("Options --per-vcpu and --vcpu exclude each other");
    }
    const counts = new Counts(vcpu, options["per-vcpu"]);
    const { signal } = follow ? context : {};
    const chunks = await openChunks(path, { follow, ...(signal ? { signal } : {}) });
    const trace = await readTrace(chunks, { unfinished: follow });
    const live = follow && Deno.stdout.isTerminal() && !context.json;
    using progress = context.progress("events");
    let events = 0, shown = 0;
    for await (const block of trace.blocks()) {
      for (const event of block.shared()) {
        counts.feed(event);
        events++;
      }
      if (!follow) progress.update(events);
      else if (live && performance.now() - shown >= REFRESH) {
        shown = performance.now();
        context.out.text(CLEAR);
        print(context, counts, sort, limit);
        context.out.flush();
      }
    }
    progress.done();
    if (live) context.out.text(CLEAR);
    if (context.json) {
      const vcpus = [...counts.each].map(([number, stats]) => ({ vcpu: number, ...json(stats) }));
      context.out.json({ ...json(counts.all), ...(vcpus.length > 0 ? { vcpus } : {}) });
    } else print(context, counts, sort, limit);
    return EXIT.ok;
  },
});
