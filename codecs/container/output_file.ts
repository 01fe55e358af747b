/**
 * Files that get their name when they are whole.
 *
 * @module
 */

/** Ends the name of a file while it is written. */
export const PART = ".part";

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
