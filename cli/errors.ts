/**
 * From whatever was thrown to the one line and the exit status that the user
 * gets.
 *
 * @module
 */
import { visible } from "../codecs/visible.ts";
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
  /** Name of the file it is about. */
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

/** A part of a run that is none, or not as it was printed. */
export class ShardError extends Error {
  /** Name of the class. */
  override readonly name = "ShardError";
  /** Path of the shard that cannot be read or merged. */
  readonly path: string;
  /** What is wrong, in a word of this program. */
  readonly code: "damaged" | "unsupported";

  /**
   * @param path The file.
   * @param message What is wrong.
   * @param code The same in a word.
   */
  constructor(path: string, message: string, code: "damaged" | "unsupported" = "damaged") {
    super(message);
    this.path = path;
    this.code = code;
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

interface Row {
  /** The word for programs, where the error brings none. */
  readonly code: string;
  readonly status: number;
  /** Statuses of some of the error's own codes. */
  readonly byCode?: Readonly<Record<string, number>>;
}

/** Errors that bring no exit status along, by the name of their class. */
const CLASSES: Readonly<Record<string, Row>> = {
  UsageError: { code: "usage", status: EXIT.usage },
  FileError: { code: "file", status: EXIT.usage },
  InterruptedError: { code: "interrupted", status: EXIT.interrupted },
  UnknownPolicyError: { code: "usage", status: EXIT.usage },
  UnknownFieldError: { code: "usage", status: EXIT.usage },
  QemuError: { code: "qemu", status: EXIT.usage },
  HuntError: { code: "hunt", status: EXIT.usage },
  BochsError: { code: "bochs", status: EXIT.usage },
  GdbError: { code: "qemu", status: EXIT.usage },
  SkipListError: { code: "usage", status: EXIT.usage },
  ScenarioError: { code: "scenario", status: EXIT.usage },
  ShardError: {
    code: "damaged",
    status: EXIT.damaged,
    byCode: { unsupported: EXIT.version },
  },
  LabRecordError: { code: "damaged", status: EXIT.damaged },
  ReplayError: { code: "damaged", status: EXIT.damaged },
  TooManyVcpusError: { code: "damaged", status: EXIT.damaged },
  TooManyRunsError: { code: "usage", status: EXIT.usage },
  CompareLimitError: { code: "usage", status: EXIT.usage },
  TracepointError: {
    code: "damaged",
    status: EXIT.damaged,
    byCode: { unsupported: EXIT.version, compression: EXIT.version },
  },
};

/** The row of an error that this program knows, completed by what the error itself says. */
function knownError(error: Error): Row | undefined {
  const { code, exitStatus } = error as { code?: unknown; exitStatus?: unknown };
  const row = Object.hasOwn(CLASSES, error.name) ? CLASSES[error.name] : undefined;
  const word = typeof code === "string" ? code : row?.code;
  if (typeof exitStatus === "number") return { code: word ?? "error", status: exitStatus };
  if (!row) return undefined;
  return { code: word ?? row.code, status: row.byCode?.[word ?? ""] ?? row.status };
}

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
  if (error instanceof Deno.errors.NotCapable) return oneLine(error.message);
  return undefined;
}

const NEEDS_ALL = /Requires all access to "[^"]*", run again with the --allow-all flag/g;

const NEEDS_MORE =
  /Requires (?:net|run|read|write|env|sys) access to "[^"]*", run again with the (--allow-\w+) flag/g;

/**
 * Text without line breaks, and without what only means something to Deno or to the system. Control
 * characters, which a damaged file may hold, are escaped: a terminal would obey them.
 */
export function oneLine(text: string): string {
  const line = text
    .replace(NEEDS_MORE, "Deno was not told to allow this: run it as deno run $1 cli/main.ts …")
    .replace(NEEDS_ALL, 'Deno keeps it from this program; use "-" and let the shell redirect it')
    .replace(/ \(os error \d+\)/g, "")
    .replace(/\s*[\r\n]+\s*/g, " ")
    .trim()
    .replace(/\p{Cc}/gu, (c) => `\\x${c.charCodeAt(0).toString(16).padStart(2, "0")}`);
  return visible(line);
}

function detailsOf(error: Error): Record<string, string | number> {
  const out: Record<string, string | number> = {};
  for (const [key, value] of Object.entries(error)) {
    if (["name", "code", "message", "exitStatus"].includes(key)) continue;
    if (typeof value === "bigint") out[key] = `0x${value.toString(16)}`;
    else if (typeof value === "string" || (typeof value === "number" && value >= 0)) {
      out[key] = value;
    }
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
    const known = knownError(error);
    if (known && known.status !== EXIT.internal) {
      const place = error.name === "ReplayError" ? ` (event ${details["event"]})` : "";
      return { ...known, message: oneLine(error.message) + place, details };
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
