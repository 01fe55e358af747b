/**
 * Asking a kernel through a command such as the lab's.
 *
 * @module
 */
import { type LabRecord, parseLabRecord } from "../codecs/lab/record.ts";
import { type Ask, HuntError } from "../traces/hunt/mod.ts";
import { oneLine, systemReason, UsageError } from "./errors.ts";
import { orAborted } from "./until_aborted.ts";

/** A command that answers cases, and about which kernel. */
export interface LabCommand {
  /** The command and its first arguments; a file of cases, `--kernel` and `--npt` follow. */
  readonly words: readonly string[];
  /** The kernel, as the command calls it. */
  readonly kernel: string;
  /** Whether that kernel uses nested paging itself. */
  readonly npt: boolean;
  /** Folder for the files of cases. */
  readonly folder: string;
  /** Seconds that the command is given, whatever it is asked, and for each case. */
  readonly patience: readonly [number, number];
  /** Ctrl-C. */
  readonly signal: AbortSignal;
  /** Told of what the command says when it fails. */
  readonly note: (text: string) => void;
}

/** How much of that, in characters from the end. */
const SAID = 200;

/**
 * A kernel behind a command. What has no answer within its time counts as not answered: the command is
 * told of it by LAB_TIMEOUT, and has to end by itself.
 *
 * @param lab The command.
 * @throws {UsageError} By the function returned: when it cannot be started.
 * @throws {HuntError} By the function returned: when it prints what is no record.
 */
export function askLab(
  { words, kernel, npt, folder, patience, signal, note }: LabCommand,
): Ask {
  const [program = "", ...first] = words;
  return async (lines) => {
    if (lines.length === 0) return [];
    const file = `${folder}/cases.txt`;
    await Deno.writeTextFile(file, lines.join("\n") + "\n");
    const seconds = Math.ceil(patience[0] + patience[1] * lines.length);
    let child: Deno.ChildProcess;
    try {
      child = new Deno.Command(program, {
        args: [...first, file, "--kernel", kernel, "--npt", npt ? "1" : "0"],
        env: { LAB_TIMEOUT: `${seconds}` },
        stdin: "null",
        stdout: "piped",
        stderr: "piped",
      }).spawn();
    } catch (error) {
      throw new UsageError(`Cannot start ${program}: ${systemReason(error) ?? String(error)}`);
    }
    const output = child.output();
    const { stdout, stderr, success } = await orAborted(output, signal).catch((error) => {
      output.catch(() => {});
      try {
        child.kill();
      } catch {
        // It ended meanwhile.
      }
      throw error;
    });
    const records = answersIn(new TextDecoder().decode(stdout));
    if (records.length === 0 && !success) {
      note(`${program}: ${oneLine(new TextDecoder().decode(stderr)).slice(-SAID)}`);
    }
    return records;
  };
}

/**
 * Records up to the first that is none: the command may have been stopped while it wrote it. Of one
 * that says what cannot be (registers of a virtual machine that KVM has given up are nobody's; the
 * kernel may have been stopped while it printed), it is kept that there was one, with nothing behind it.
 *
 * @param text What the command printed, a line each.
 * @throws {HuntError} When there is no record at all in it.
 */
export function answersIn(text: string): LabRecord[] {
  const records: LabRecord[] = [];
  for (const [i, line] of text.split("\n").entries()) {
    if (line === "") continue;
    try {
      records.push(parseLabRecord(line, { line: i + 1 }));
    } catch (error) {
      const unread = unreadable(line);
      if (unread !== undefined) records.push(unread);
      else if (records.length > 0) break;
      else throw new HuntError(`What the kernel's command prints is no record: ${String(error)}`);
    }
  }
  return records;
}

function unreadable(line: string): LabRecord | undefined {
  try {
    const { case: name } = JSON.parse(line) as { readonly case?: unknown };
    if (typeof name !== "string") return undefined;
    return { case: name, spec: "", kernel: "", npt: 1, events: [] };
  } catch {
    return undefined;
  }
}
