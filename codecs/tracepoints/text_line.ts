/**
 * A line of a log as somebody pasted it, without what is not the log's: colours
 * of grep and less, quote marks of mail, and what the kernel's own log and those
 * who collect it put before each line.
 *
 * @module
 */

/** A line without its wrappings. */
export interface CleanLine {
  /** What the tracer printed. */
  readonly text: string;
  /** Nanoseconds that the kernel's log has before it; undefined where it has none. */
  readonly time: number | undefined;
  /** Thread that printed it, where the kernel's log says it. */
  readonly pid: number | undefined;
}

const ESC = "\\u001b";

/** Colours and other commands of a terminal; as bytes, and as programs show them that do not obey. */
const COLOURS = new RegExp(
  `(?:${ESC}|\\u009b|\\^\\[|ESC|\\u241b)(?:\\[[0-9;?]*[A-Za-z]|\\([A-Z0-9]|\\][^\\u0007${ESC}]*(?:\\u0007|${ESC}\\\\))`,
  "g",
);

/** The same whose first byte got lost, which copying from a terminal does; only where they are many. */
const BARE_COLOURS = /\[(?:\d{1,3}(?:;\d{1,3})*)?m(?:\[K)?|\[K/g;
const HAS_BARE_COLOURS = /\[\d{1,3}(?:;\d{1,3})+m/;

const ODD_SPACES = /[\u00a0\u2000-\u200b\u202f\u3000\ufeff\t]/g;
const QUOTES = /^(?:\s*(?:>|&gt;))+ ?/;

/** Month and day, as syslog and dmesg have them. */
const DAY = "(?:[A-Z][a-z]{2} )?[A-Z][a-z]{2} *\\d{1,2}";
const CLOCK = "\\d\\d:\\d\\d(?::\\d\\d(?:[.,]\\d+)?)?";
const ISO = `\\d{4}-\\d\\d-\\d\\d[T ]${CLOCK}(?: ?(?:Z|[+-]\\d\\d:?\\d\\d))?`;

/** What may stand before a line, one after the other; `s` and `f` are its time, `us` too, `pid` a thread. */
const BEFORE: readonly RegExp[] = [
  // The priority, as the kernel's log has it, and as dmesg -x spells it out.
  /^\s*<\d{1,3}>/,
  /^\s*[a-z0-9]+\s*:(?:emerg|alert|crit|err|warn|notice|info|debug)\s*: /,
  // /dev/kmsg.
  /^\d{1,3},\d+,(?<us>\d+),[-c+](?:,[^;]*)?;/,
  // printk's time, and with dmesg -d how long it is since the line before.
  /^\s*\[\s*(?<s>\d+)\.(?<f>\d{6})(?:\s*<\s*[\d.]+>)?\] ?/,
  // The thread or CPU, with CONFIG_PRINTK_CALLER.
  /^\s*\[\s*T(?<pid>\d+)\] ?/,
  /^\s*\[\s*C\d+\] ?/,
  // Times of a wall clock or since the line before, which do not say when the event was.
  /^\s*\[\s*\+\s*\d+\.\d+\] ?/,
  new RegExp(`^\\s*\\[(?:${ISO}|${DAY} ${CLOCK}(?: \\d{4})?)\\] ?`),
  new RegExp(`^\\s*(?:${ISO}|${DAY} ${CLOCK}|\\d{9,11}\\.\\d+) (?:\\S+ )?kernel:\\s?`),
  new RegExp(`^\\s*${ISO} `),
  /^\s*\S{1,64} kernel:\s?/,
  /^\s*kernel:\s?/,
];

/** What mail makes of `=` and of hard spaces when it may only send ASCII (quoted-printable). */
const ENCODED: readonly (readonly [RegExp, string])[] = [[/=3D/g, "="], [/(?:=C2)?=A0/g, " "]];

/**
 * Whether a line goes on in the next one, as mail breaks it that may only send ASCII: `=` at its end,
 * which is no operator.
 *
 * @param line The line.
 */
export function isSoftBroken(line: string): boolean {
  return /[^=!<>]=\r?$/.test(line);
}

/** The number of the line, as `cat -n` prints it. */
const NUMBERED = /^\s*\d+\t/;

/** The name of the file, and the number of the line, that grep prints. */
const GREP =
  /^(?:[\w./-]+[:-])?\d+[:-](?=\s*\S.*\[\d{3,}\])|^[\w./-]*\.(?:txt|log|trace)[:-](?=\s*\S)/;

/**
 * Takes off a line what is not the tracer's.
 *
 * @param line The line.
 * @returns What is left, and what was learned.
 */
export function cleanLine(line: string): CleanLine {
  let text = line.replace(COLOURS, "").replace(NUMBERED, "");
  for (const [code, plain] of ENCODED) text = text.replace(code, plain);
  if (HAS_BARE_COLOURS.test(text)) text = text.replace(BARE_COLOURS, "");
  text = text.replace(ODD_SPACES, " ").replace(QUOTES, "").trimEnd().replace(GREP, "");
  let time: number | undefined, pid: number | undefined;
  for (let again = true; again;) {
    again = false;
    for (const prefix of BEFORE) {
      const match = prefix.exec(text);
      if (match === null) continue;
      const { s, f, us, pid: thread } = match.groups ?? {};
      if (s !== undefined) time = Number(s) * 1e9 + Number(f) * 1e3;
      if (us !== undefined) time = Number(us) * 1e3;
      if (thread !== undefined) pid = Number(thread);
      text = text.slice(match[0].length);
      again = true;
    }
  }
  return { text, time, pid };
}

/** Whether a thread's name, as it was read, may hold something that {@linkcode cleanLine} takes off. */
export function isWrapped(bytes: Uint8Array, start: number, end: number): boolean {
  // The kernel has 15 characters for a name.
  if (end - start > 15) return true;
  const first = bytes[start]!;
  if (first === 0x3e || first === 0x5b || first === 0x26 || first >= 0x80) return true;
  if (first === 0x3c && bytes[start + 1]! >= 0x30 && bytes[start + 1]! <= 0x39) return true;
  for (let at = start; at < end; at++) {
    const c = bytes[at]!;
    if (c === 0x1b || c === 0x5e) return true;
  }
  return false;
}
