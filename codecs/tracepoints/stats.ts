/**
 * What reading a tracepoint log came across.
 *
 * @module
 */

/** Forms of a tracepoint log. */
export type TracepointForm =
  /** Text of tracefs `trace` or `trace_pipe`. */
  | "ftrace"
  /** Text of `trace-cmd report`. */
  | "trace-cmd"
  /** Text of `perf script`. */
  | "perf"
  /** Binary file of `trace-cmd record`. */
  | "trace.dat"
  /** The kernel's own log: `tp_printk`. */
  | "printk"
  /** Records without anything before their names. */
  | "bare";

/** Something that was passed over, and why. */
export interface TracepointIssue {
  /** Line, from 1, in a text. */
  readonly line?: number;
  /** Byte offset, in a binary file. */
  readonly offset?: number;
  /** What is wrong with it. */
  readonly what: string;
}

/** Counts of an import; they grow while it runs. */
export interface TracepointStats {
  /** Form of the log; nothing before it is known. */
  form: TracepointForm | undefined;
  /** Version of the file format, compression, clock, kernel and the like, where the log says. */
  origin: Record<string, string | number>;
  /** Nanoseconds that the last digit of a time stands for. */
  resolution: number | undefined;
  /** Bytes read, after decompression of .gz. */
  bytes: number;
  /** Lines read, in a text. */
  lines: number;
  /** Imported records by name of the tracepoint. */
  events: Record<string, number>;
  /** Of the skipped records, those whose name the reader came to know, by name. */
  others: Record<string, number>;
  /** Records of VMX by name, which are passed over: the vmcs is not what this program knows. */
  vmx: Record<string, number>;
  /**
   * Lines or records passed over: comments and other tracepoints; not those of VMX, malformed ones
   * and marks.
   */
  skipped: number;
  /** Lines that are the rest of the record before them, as mail breaks them. */
  continued: number;
  /** Lines that name a tracepoint that is read, and cannot be. */
  malformed: number;
  /** Records that the source says were lost; marks without a number add nothing. */
  lost: number;
  /** Marks of lost records. */
  lostMarks: number;
  /** The first {@linkcode MOST_ISSUES} of what was malformed or odd. */
  issues: TracepointIssue[];
}

/** How many issues are kept; all are counted. */
export const MOST_ISSUES = 20;

/**
 * Counts of nothing yet.
 *
 * @returns The counts, to be added to.
 * @example
 * ```ts
 * import { emptyTracepointStats } from "@vmtape/vmtape/codecs";
 * if (emptyTracepointStats().lines !== 0) throw new Error();
 * ```
 */
export function emptyTracepointStats(): TracepointStats {
  return {
    form: undefined,
    origin: {},
    resolution: undefined,
    bytes: 0,
    lines: 0,
    events: {},
    others: {},
    vmx: {},
    skipped: 0,
    continued: 0,
    malformed: 0,
    lost: 0,
    lostMarks: 0,
    issues: [],
  };
}

/** Keeps an issue, if there is room. */
export function noteIssue(stats: TracepointStats, issue: TracepointIssue): void {
  if (stats.issues.length < MOST_ISSUES) stats.issues.push(issue);
}
