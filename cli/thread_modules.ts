/**
 * Where the modules are that threads run: files of their own, or parts of one file that holds the
 * whole program.
 *
 * @module
 */

const FILES = {
  share: new URL("./shares/worker.ts", import.meta.url),
  confined: new URL("./confined_thread.ts", import.meta.url),
} as const;

/** What a thread is for. */
export type ThreadName = keyof typeof FILES;

let bundle: URL | undefined;

/**
 * Says that the whole program is in one file: threads run that file, and are told by the fragment
 * of its address what they are for.
 *
 * @param file The file.
 */
export function bundledIn(file: URL): void {
  bundle = file;
}

/** The file that holds the whole program, if one does. */
export function bundleFile(): URL | undefined {
  return bundle;
}

/** The module that a thread runs. */
export function threadModule(name: ThreadName): URL {
  return bundle === undefined ? FILES[name] : new URL(`#${name}`, bundle);
}

/** The module whose `offerModules` a thread's own code sees. */
export function offeringModule(thread: URL): URL {
  return bundle === undefined ? new URL("./policy_modules.ts", import.meta.url) : thread;
}
