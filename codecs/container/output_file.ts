/**
 * Files that get their name when they are whole.
 *
 * @module
 */

import { TraceError } from "../errors.ts";

/** Ends the name of a file while it is written. */
export const PART = ".part";

/** Most files of that name, left by writers that were killed, that stay beside a file. */
const MOST_PARTS = 100;

/** Names that a file may have while it is written, in order of preference. */
export function* partNames(path: string): Generator<string> {
  yield path + PART;
  for (let i = 2; i <= MOST_PARTS; i++) yield `${path}${PART}${i}`;
}

/**
 * Opens a file to be written under a name that nobody else has: what is there is never opened, so
 * that no link is followed and no two writers mix.
 *
 * @param path The name that it will have.
 * @returns The name that it has until then, and the file.
 * @throws {TraceError} `exists` when all names are taken; whatever the system says.
 */
export function openPart(path: string): [part: string, file: Deno.FsFile] {
  for (const part of partNames(path)) {
    try {
      return [part, Deno.openSync(part, { write: true, createNew: true })];
    } catch (error) {
      if (!(error instanceof Deno.errors.AlreadyExists)) throw error;
    }
  }
  throw new TraceError(
    "exists",
    `${path}${PART} and ${MOST_PARTS - 1} more are there; recover or remove them`,
  );
}

/** Whether a name is taken, be it by a link that leads nowhere. */
export function isThere(path: string): boolean {
  try {
    Deno.lstatSync(path);
    return true;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}

/**
 * Whether a file is a device or a pipe, which cannot be written under another name first.
 *
 * @throws {Deno.errors.IsADirectory} When it is a folder.
 */
export function isSpecial(path: string): boolean {
  let info: Deno.FileInfo;
  try {
    info = Deno.statSync(path);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
  if (info.isDirectory) throw new Deno.errors.IsADirectory(path);
  return !info.isFile;
}

/**
 * Gives a whole file its name. What is there under it, a link too, is replaced, never written
 * through.
 *
 * @param part Its name while it was written.
 * @param path The name.
 * @param force Whether a file that is there is replaced.
 * @returns Whether it has it; if not, another file does.
 */
export function giveName(part: string, path: string, force: boolean): boolean {
  if (!force) {
    // Unlike a look and a renaming, a link is made or not made: of two writers one is told.
    try {
      Deno.linkSync(part, path);
      Deno.removeSync(part);
      return true;
    } catch (error) {
      if (error instanceof Deno.errors.AlreadyExists) return false;
      // Some file systems have no links.
      if (isThere(path)) return false;
    }
  }
  Deno.renameSync(part, path);
  return true;
}
