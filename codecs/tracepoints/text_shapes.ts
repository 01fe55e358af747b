/**
 * What may stand before a tracepoint's name, besides the columns that
 * {@linkcode readHead} reads: one row for each shape.
 *
 * @module
 */
import type { LineHead } from "./ftrace_head.ts";
import type { TracepointForm } from "./stats.ts";

/** One shape of what stands before a tracepoint's name. */
export interface TextShape {
  /** Name, for tables. */
  readonly name: string;
  /** What prints it. */
  readonly form: TracepointForm;
  /**
   * All of what stands before the name. Its groups: `task`, `pid`, `cpu`; and the time as `s` and
   * `f` (seconds and their fraction), `us` or `ticks`.
   */
  readonly before: RegExp;
  /** What stands after the record's text and is not of it. */
  readonly after?: RegExp;
}

const TASK = "\\s*(?<task>\\S.*?)";
const SECONDS = "(?<s>\\d+)\\.(?<f>\\d{1,9})";
/** CPU and flags in one column: `5d..1.`; the CPU is not padded. */
const LATENCY = `${TASK}-(?<pid>\\d+)\\s+(?<cpu>\\d+)[^\\s\\d]\\S{2,10}`;
/** The subsystem, as perf prints it. */
const KVM = "(?:[a-z_]+:)?";

/** All shapes, in the order they are tried. */
export const TEXT_SHAPES: readonly TextShape[] = [
  {
    name: "latency format of tracefs, and what an oops dumps",
    form: "ftrace",
    before: new RegExp(`^${LATENCY}\\s+(?<us>\\d+)us[ +!#*@$]?\\s*:\\s*$`),
  },
  {
    name: "latency format of tracefs, other clocks",
    form: "ftrace",
    before: new RegExp(`^${LATENCY}\\s+(?<ticks>\\d+)\\s*:\\s*$`),
  },
  {
    name: "latency format of tracefs, verbose",
    form: "ftrace",
    before: new RegExp(
      `^${TASK}\\s+(?<pid>\\d+)\\s+(?<cpu>\\d+)\\s+\\S+\\s+[0-9a-f]{8}\\s+[0-9a-f]{8,16}\\s+` +
        "\\[[0-9a-f]+\\]\\s+(?<ms>\\d+\\.\\d+)ms\\s+\\(\\+[\\d.]+ms\\):\\s*$",
    ),
  },
  {
    name: "trace-cmd report -l",
    form: "trace-cmd",
    before: new RegExp(`^${LATENCY}\\s+${SECONDS}:\\s*$`),
  },
  {
    name: "function_graph",
    form: "ftrace",
    before: new RegExp(
      `^(?:\\s*${SECONDS}\\s*\\|)?\\s*(?:(?<cpu>\\d+)\\)\\s*)?` +
        "(?:(?<task>\\S[^|]*?)-(?<pid>\\d+)\\s*\\|)?(?:[^/]*\\|)?\\s*/\\*\\s*$",
    ),
    after: /\s*\*\/\s*$/,
  },
  {
    name: "perf script without times",
    form: "perf",
    before: /^\s*(?<task>\S.*?)\s+(?:\d+\/)?(?<pid>\d+)\s+(?:\[(?<cpu>\d+)\]\s+)?[a-z_]+:$/,
  },
  {
    name: "without threads",
    form: "perf",
    before: new RegExp(
      `^\\s*(?:(?:\\d+/)?(?<pid>\\d+)\\s+)?(?:\\[(?<cpu>\\d+)\\]\\s+)?${SECONDS}:\\s+(?:\\d+\\s+)?${KVM}$`,
    ),
  },
  {
    name: "without times",
    form: "ftrace",
    before: /^\s*(?:(?<task>\S.*?)-(?<pid>\d+)\s+)?\[(?<cpu>\d{3,})\](?:\s+[^\s\d:]\S{2,9})?\s+$/,
  },
  { name: "the record alone", form: "bare", before: new RegExp(`^\\s*${KVM}$`) },
];

/** How long it is since the record before, which `trace-cmd report --ts-diff` prints after the time. */
export const SINCE = /(?<=:\s*)\(\+?-?\d+\)\s*$/;

/**
 * Reads what stands before a tracepoint's name.
 *
 * @param before That part of the line, cleaned.
 * @param into Filled in: what was not found is unknown.
 * @returns The shape, or undefined.
 */
export function readShape(before: string, into: LineHead): TextShape | undefined {
  for (const shape of TEXT_SHAPES) {
    const match = shape.before.exec(before);
    if (match === null) continue;
    const { task, pid, cpu, s, f, us, ms, ticks } = match.groups ?? {};
    into.name = task;
    into.pid = pid === undefined ? -1 : Number(pid);
    into.cpu = cpu === undefined ? -1 : Number(cpu);
    into.form = shape.form;
    into.time = NaN;
    into.resolution = 1;
    if (s !== undefined && f !== undefined) {
      into.resolution = 10 ** (9 - f.length);
      into.time = Number(s) * 1e9 + Number(f) * into.resolution;
    } else if (us !== undefined) {
      into.resolution = 1000;
      into.time = Number(us) * 1000;
    } else if (ms !== undefined) {
      into.resolution = 1000;
      into.time = Math.round(Number(ms) * 1000) * 1000;
    } else if (ticks !== undefined) into.time = Number(ticks);
    return into.pid <= 0x7fffffff && into.cpu <= 0xffff ? shape : undefined;
  }
  return undefined;
}
