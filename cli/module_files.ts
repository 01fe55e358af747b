/**
 * The files of code that a policy's module is made of: its thread may read these and nothing else
 * that an import could name.
 *
 * @module
 */
import { UsageError } from "./errors.ts";
import { bundleFile } from "./thread_modules.ts";

/** Most files that one module may be made of, and the largest of them, in bytes. */
const MOST_FILES = 1000, LARGEST = 1 << 22;

/**
 * Texts that may name a module in a file. What only looks like one costs nothing: whoever names a
 * file of code could import it as well.
 */
const NAMES = /(["'`])((?:file:\/\/|\.{0,2}\/)[^"'`\n]*\.[cm]?[jt]sx?)\1/g;

/** Where the program's own code is: a module takes steps and kernels from it. */
const OWN = ["mod.ts", "deno.json", "engine", "codecs", "traces", "report", "cli", "links"];

function ownCode(): URL[] {
  const bundle = bundleFile();
  return bundle === undefined
    ? OWN.map((name) => new URL(`../${name}`, import.meta.url))
    : [bundle];
}

function pathOf(name: string, from: URL): URL | undefined {
  try {
    const url = new URL(name, from);
    return url.protocol === "file:" ? url : undefined;
  } catch {
    return undefined;
  }
}

/** The text of a file; empty when it cannot be read, which loading it will tell. */
function textOf(url: URL): string {
  let info;
  try {
    info = Deno.statSync(url);
    if (info.isFile && info.size <= LARGEST) return Deno.readTextFileSync(url);
  } catch {
    return "";
  }
  // What has no end would be loaded for ever.
  const path = decodeURIComponent(url.pathname);
  const what = info.isFile ? `of more than ${LARGEST >> 20} MiB` : "that is no regular file";
  throw new UsageError(`A policy's code cannot be in ${path}, a file ${what}`);
}

/**
 * The files that modules are made of: they themselves, the files of code that they name, and those
 * that these name; and the program's own code.
 *
 * @param modules Addresses of the modules.
 * @returns Paths.
 * @throws {UsageError} When one is no regular file, or too large for one of code.
 */
export function moduleFiles(modules: readonly string[]): string[] {
  const found = new Map<string, URL>();
  for (const address of modules) found.set(address, new URL(address));
  // A map goes on to what is added to it meanwhile.
  for (const url of found.values()) {
    for (const [, , name = ""] of textOf(url).matchAll(NAMES)) {
      const other = pathOf(name, url);
      if (other !== undefined && found.size < MOST_FILES) found.set(other.href, other);
    }
  }
  return [...ownCode(), ...found.values()].map((url) => decodeURIComponent(url.pathname));
}
