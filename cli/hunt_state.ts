/**
 * The folder of a hunt: what it goes on from, and what it found.
 *
 * @module
 */
import type { HuntState } from "../traces/hunt/mod.ts";
import type { Context } from "./context.ts";
import { FileError, UsageError } from "./errors.ts";
import { readText } from "./files.ts";
import { writeWhole } from "./whole_file.ts";

/** What two parts of a hunt have in common. */
export interface HuntSettings {
  /** Version of the file. */
  readonly format: 2;
  /** Version of the program: another model, other findings. */
  readonly version: string;
  /** Names of the kernel and of what it is held against, and on which processor. */
  readonly kernel: string;
  /** The latter. */
  readonly against: string;
  /** The processor beneath; empty for the lab's. */
  readonly processor: string;
  /** Whether the kernel uses nested paging itself. */
  readonly npt: boolean;
  /** Seed of the cases. */
  readonly seed: number;
  /** Where answers come from: a command, `live`, or a file of records. */
  readonly source: string;
}

const STATE = "hunt.json";

/**
 * Reads what an earlier part of a hunt came to.
 *
 * @param folder The hunt's folder.
 * @param settings Those of this part.
 * @returns It; undefined when there is none.
 * @throws {UsageError} When it was another hunt.
 * @throws {FileError} When it cannot be read.
 */
export async function readState(
  folder: string,
  settings: HuntSettings,
): Promise<HuntState | undefined> {
  const path = `${folder}/${STATE}`;
  if (!await Deno.stat(path).then(() => true, () => false)) return undefined;
  let file: { readonly settings?: unknown; readonly state?: HuntState };
  try {
    file = JSON.parse(await readText(path));
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
    throw new FileError(path, `${path} is not what a hunt wrote; --force begins another`);
  }
  if (JSON.stringify(file?.settings) !== JSON.stringify(settings) || file.state === undefined) {
    throw new UsageError(
      `${folder} holds another hunt: ${JSON.stringify(file?.settings)}; name another folder, or ` +
        "begin anew with --force",
    );
  }
  return file.state;
}

/**
 * Keeps what there is so far, and the smallest cases as a file of scenarios.
 *
 * @param context The program.
 * @param folder The hunt's folder.
 * @param settings What is hunted.
 * @param state What there is.
 */
export function writeState(
  context: Context,
  folder: string,
  settings: HuntSettings,
  state: HuntState,
): void {
  const text = JSON.stringify({ settings, state });
  writeWhole(context, { output: `${folder}/${STATE}`, force: true }, text + "\n");
  const cases = state.findings.map(({ title, small, unit }) =>
    [`# ${title}`, ...(small ?? unit), ""].join("\n")
  );
  writeWhole(context, { output: `${folder}/findings.cases`, force: true }, cases.join("\n"));
}
