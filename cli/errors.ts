/**
 * From whatever was thrown to the one line and the exit status that the user
 * gets.
 *
 * @module
 */
import { EXIT } from "./command.ts";

/** The command line is wrong. */
export class UsageError extends Error {
  /** Name of the class. */
  override readonly name = "UsageError";
}

/** A file cannot be opened, read or written. */
export class FileError extends Error {
  /** Name of the class. */
  override readonly name = "FileError";
  /** The file. */
  readonly path: string;

  /**
   * @param path The file.
   * @param message What is wrong and what to do.
   * @param options Cause of the error.
   */
  constructor(path: string, message: string, options?: ErrorOptions) {
    super(message, options);
    this.path = path;
  }
}

/** Ctrl-C. */
export class InterruptedError extends Error {
  /** Name of the class. */
  override readonly name = "InterruptedError";

  /** @param message What was done before it. */
  constructor(message = "Interrupted") {
    super(message);
  }
}

/** What the user gets to know. */
export interface Failure {
  /** Exit status. */
  readonly status: number;
  /** A word for programs. */
  readonly code: string;
  /** One line for people. */
  readonly message: string;
  /** Offsets, lines, names: whatever the error carries. */
  readonly details: Readonly<Record<string, string | number>>;
}

type Row = readonly [name: RegExp, code: string, status: number];

/** Error classes by name, so that errors of other realms and copies count too. First match wins. */
const CLASSES: readonly Row[] = [
  [/^UsageError$/, "usage", EXIT.usage],
  [/^FileError$/, "file", EXIT.usage],
  [/^InterruptedError$/, "interrupted", EXIT.interrupted],
  [/Version\w*Error$|Unsupported\w*Error$/, "unsupported_version", EXIT.version],
  [/^(Scenario|Case|Policy|Unknown|Step)\w*Error$/, "usage", EXIT.usage],
  [
    /^(Trace|Format|Container|Block|Damaged|Lab|Import|Event|Record)\w*Error$/,
    "damaged",
    EXIT.damaged,
  ],
];

/** What the operating system says, in words of this program. */
const SYSTEM: Readonly<Record<string, string>> = {
  ENOENT: "No such file or directory",
  EACCES: "Permission denied",
  EPERM: "Permission denied",
  EROFS: "The file system is read-only",
  EISDIR: "It is a directory",
  ENOTDIR: "A part of the path is not a directory",
  EEXIST: "It exists already",
  ENOSPC: "No space left on the device",
  EDQUOT: "The disk quota is used up",
  EFBIG: "The file would grow too large",
  ENAMETOOLONG: "The name is too long",
  ELOOP: "Too many symbolic links",
  EMFILE: "Too many open files",
  EIO: "The device failed to read or write",
  ETXTBSY: "It is being executed",
};

/** The system's code of an error, such as `ENOENT`, where it has one. */
export function systemCode(error: unknown): string | undefined {
  if (!(error instanceof Error)) return undefined;
  const code = (error as { code?: unknown }).code;
  if (typeof code === "string" && /^E[A-Z0-9]+$/.test(code)) return code;
  if (error instanceof Deno.errors.NotFound) return "ENOENT";
  if (error instanceof Deno.errors.PermissionDenied) return "EACCES";
  if (error instanceof Deno.errors.AlreadyExists) return "EEXIST";
  if (error instanceof Deno.errors.IsADirectory) return "EISDIR";
  if (error instanceof Deno.errors.NotADirectory) return "ENOTDIR";
  return undefined;
}

/**
 * Words for a failure of the operating system.
 *
 * @param error What was thrown.
 * @returns The words, or undefined when it is no such failure.
 */
export function systemReason(error: unknown): string | undefined {
  const code = systemCode(error);
  if (code !== undefined) return SYSTEM[code] ?? `The system says ${code}`;
  if (error instanceof Deno.errors.NotCapable) {
    return `This program was not permitted to: ${oneLine(error.message)}`;
  }
  return undefined;
}

/** Text without line breaks. */
export function oneLine(text: string): string {
  return text.replace(/\s*[\r\n]+\s*/g, " ").trim();
}

function detailsOf(error: Error): Record<string, string | number> {
  const out: Record<string, string | number> = {};
  for (const [key, value] of Object.entries(error)) {
    if (key === "name" || key === "code" || key === "message") continue;
    if (typeof value === "bigint") out[key] = `0x${value.toString(16)}`;
    else if (typeof value === "string" || typeof value === "number") out[key] = value;
  }
  return out;
}

/**
 * What the user gets to know about something that was thrown.
 *
 * @param error What was thrown.
 * @returns Exit status, code and message.
 */
export function failureOf(error: unknown): Failure {
  if (error instanceof Error) {
    const details = detailsOf(error);
    for (const [pattern, code, status] of CLASSES) {
      if (pattern.test(error.name)) {
        return { status, code, message: oneLine(error.message), details };
      }
    }
    const reason = systemReason(error);
    if (reason !== undefined) {
      return { status: EXIT.usage, code: "file", message: reason, details };
    }
  }
  const text = error instanceof Error ? `${error.name}: ${error.message}` : String(error);
  return {
    status: EXIT.internal,
    code: "internal",
    message: `Internal error, please report it with the command line: ${oneLine(text)} ` +
      `(VMTAPE_DEBUG=1 shows where)`,
    details: {},
  };
}
