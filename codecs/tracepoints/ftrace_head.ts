/**
 * The part of a line before the tracepoint's name: thread, CPU, flags, time.
 * Read backwards from the name, since a thread's name may hold anything.
 *
 *     qemu-system-x86-31      [000] .....     3.617433: kvm_nested_vmexit: …   tracefs
 *     qemu-system-x86-31      (   30) [000] d..1.     3.617433: kvm_…          with record-tgid
 *     qemu-system-x86-31    [000]     3.617433: kvm_nested_vmexit:    …        trace-cmd report
 *           CPU 0/KVM  3412/3415 [002]  5161.124512:   kvm:kvm_exit: …         perf script
 *
 * @module
 */

import type { TracepointForm } from "./stats.ts";

/** What stands before the name. */
export class LineHead {
  /** CPU; -1 where it is not there. */
  cpu = 0;
  /** Thread; -1 where it is not there. */
  pid = 0;
  /** Nanoseconds; NaN where they are not there. */
  time = 0;
  /** Nanoseconds that the last digit of the time stands for. */
  resolution = 1000;
  /** Where the thread's name begins. */
  taskStart = 0;
  /** Where it ends. */
  taskEnd = 0;
  /** The thread's name, where it is not between those two. */
  name: string | undefined;
  /** What prints such lines. */
  form: TracepointForm = "ftrace";
}

const SPACE = 0x20, TAB = 0x09, COLON = 0x3a, DOT = 0x2e, DASH = 0x2d, SLASH = 0x2f;

function digit(c: number | undefined): boolean {
  return c !== undefined && c >= 0x30 && c <= 0x39;
}

/**
 * Reads the head of a line.
 *
 * @param bytes The line, or more than it.
 * @param lineStart Where the line begins.
 * @param nameStart Where the tracepoint's name begins.
 * @param into Filled in; holds nothing of use when the answer is no.
 * @returns Whether this is the head of a record.
 */
export function readHead(
  bytes: Uint8Array,
  lineStart: number,
  nameStart: number,
  into: LineHead,
): boolean {
  let at = nameStart - 1;
  let perf = false;
  into.name = undefined;
  if (bytes[at] === COLON) {
    // The subsystem, as perf prints it.
    at--;
    while (at >= lineStart && bytes[at] !== SPACE && bytes[at] !== TAB) at--;
    perf = true;
  }
  if (at < lineStart || (bytes[at] !== SPACE && bytes[at] !== TAB)) return false;
  at = back(bytes, at, lineStart);
  if (perf && at >= lineStart && digit(bytes[at])) {
    // The period, where perf was told to print it.
    while (at >= lineStart && digit(bytes[at])) at--;
    at = back(bytes, at, lineStart);
  }
  if (at < lineStart || bytes[at] !== COLON) return false;
  at = readTime(bytes, at - 1, lineStart, into);
  if (at < lineStart || bytes[at] !== SPACE) return false;
  at = back(bytes, at, lineStart);
  into.form = perf ? "perf" : "trace-cmd";
  into.cpu = -1;
  // perf leaves the CPU out when it recorded one thread only.
  if (perf && digit(bytes[at])) return readThread(bytes, at, lineStart, into);
  if (at >= lineStart && bytes[at] !== 0x5d) {
    const last = at;
    while (at >= lineStart && bytes[at] !== SPACE && last - at < 16) at--;
    at = back(bytes, at, lineStart);
    if (!perf) into.form = "ftrace";
  }
  if (at < lineStart || bytes[at] !== 0x5d) return false;
  const first = at - 1;
  let scale = 1, value = 0;
  for (at = first; at >= lineStart && digit(bytes[at]); at--, scale *= 10) {
    value += (bytes[at]! - 0x30) * scale;
  }
  if (at === first || at <= lineStart || bytes[at] !== 0x5b || value > 0xffff) return false;
  into.cpu = value;
  at = back(bytes, at - 1, lineStart);
  if (at >= lineStart && bytes[at] === 0x29) {
    // The thread group.
    while (at >= lineStart && bytes[at] !== 0x28) at--;
    at = back(bytes, at - 1, lineStart);
  }
  return readThread(bytes, at, lineStart, into);
}

/** A thread's number and name, ending at `at`. */
function readThread(bytes: Uint8Array, at: number, lineStart: number, into: LineHead): boolean {
  const first = at;
  let scale = 1, value = 0;
  for (; at >= lineStart && digit(bytes[at]); at--, scale *= 10) {
    value += (bytes[at]! - 0x30) * scale;
  }
  if (at === first || value > 0x7fffffff) return false;
  into.pid = value;
  if (at >= lineStart && bytes[at] === SLASH && into.form === "perf") {
    // Process and thread: the thread is the later one.
    at--;
    while (at >= lineStart && digit(bytes[at])) at--;
  }
  if (at >= lineStart && bytes[at] === DASH && digit(bytes[at + 1])) {
    at--;
  } else if (at >= lineStart && bytes[at] === SPACE) {
    into.form = "perf";
    at = back(bytes, at, lineStart);
  } else return false;
  into.taskEnd = at + 1;
  let start = lineStart;
  while (start <= at && (bytes[start] === SPACE || bytes[start] === TAB)) start++;
  into.taskStart = start;
  return start <= at;
}

/** Passes over blanks, backwards. */
function back(bytes: Uint8Array, at: number, lineStart: number): number {
  while (at >= lineStart && (bytes[at] === SPACE || bytes[at] === TAB)) at--;
  return at;
}

/** Seconds with a fraction, or a plain number of ticks, ending at `at`. */
function readTime(bytes: Uint8Array, at: number, lineStart: number, into: LineHead): number {
  let value = 0, scale = 1;
  const last = at;
  for (; at >= lineStart && digit(bytes[at]); at--, scale *= 10) {
    value += (bytes[at]! - 0x30) * scale;
  }
  if (at === last || last - at > 19) return -1;
  if (at < lineStart || bytes[at] !== DOT) {
    into.time = value;
    into.resolution = 1;
    return at;
  }
  if (last - at > 9) return -1;
  const unit = 1e9 / scale;
  const point = at--;
  let seconds = 0;
  for (scale = 1; at >= lineStart && digit(bytes[at]); at--, scale *= 10) {
    seconds += (bytes[at]! - 0x30) * scale;
  }
  if (at === point - 1) return -1;
  into.time = seconds * 1e9 + value * unit;
  into.resolution = unit;
  return at;
}
