/**
 * Lines of a log that say that records were lost.
 *
 * @module
 */

/** What such a line says. */
export interface LossMark {
  /** CPU; -1 where it does not say. */
  readonly cpu: number;
  /** How many records; undefined where it does not say. */
  readonly count: number | undefined;
  /** Whether the number is one that cannot be, so that the line is damaged. */
  readonly absurd: boolean;
}

const MARKS: readonly RegExp[] = [
  /^\s*CPU:(?<cpu>\d+) \[(?:LOST (?:(?<count>\d+) )?EVENTS|(?:(?<dropped>\d+) )?EVENTS DROPPED)\]/,
  /\[(?<cpu>\d+)\]\s.*PERF_RECORD_LOST(?:_SAMPLES)?\s+lost\s+(?<count>\d+)/,
];

/** Most CPUs that a machine has. */
const MOST_CPUS = 0xffff;

/**
 * What a line says of lost records.
 *
 * @param line The line, cleaned.
 * @returns It, or undefined when it is no such line.
 */
export function lossMark(line: string): LossMark | undefined {
  for (const pattern of MARKS) {
    const groups = pattern.exec(line)?.groups;
    if (groups === undefined) continue;
    const text = groups["count"] ?? groups["dropped"];
    const cpu = Number(groups["cpu"]), count = text === undefined ? undefined : Number(text);
    const absurd = cpu > MOST_CPUS || count !== undefined && !Number.isSafeInteger(count);
    return { cpu, count, absurd };
  }
  // How much a buffer holds, and how much was written into it.
  const written = /entries-in-buffer\/entries-written: (\d+)\/(\d+)/.exec(line);
  if (written === null) return undefined;
  const there = Number(written[1]), all = Number(written[2]);
  if (all === there) return undefined;
  return { cpu: -1, count: all - there, absurd: !Number.isSafeInteger(all) || all < there };
}
