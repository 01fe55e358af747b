/**
 * Modules with policies of the user's own. They are code of somebody's, and are only ever run in a
 * thread whose permissions are what the command line names; see {@linkcode threadEntry}.
 *
 * @module
 */

import { createHash } from "node:crypto";
import type { Command, Parsed } from "./command.ts";
import { offeringModule } from "./thread_modules.ts";

/** A module that can be loaded, by its name on the command line. */
type Loader = () => Promise<Readonly<Record<string, unknown>>>;

const loaders = new Map<string, Loader>();
const digests = new Map<string, string>();

/** Whether a policy's name is that of a module. */
export function isModule(name: string): boolean {
  return /[/\\]|\.[cm]?[jt]s$/.test(name);
}

/** The options that name policies. */
const NAMING: ReadonlySet<string> = new Set(["policy", "policies", "kernel", "against"]);

/** The modules with policies that a command line names. */
export function policyModules(command: Command, { options }: Parsed): string[] {
  const found = new Set<string>();
  for (const { name } of command.options) {
    if (!NAMING.has(name)) continue;
    const value = (options as Readonly<Record<string, unknown>>)[name];
    for (const one of Array.isArray(value) ? value : [value]) {
      if (typeof one === "string" && isModule(one)) found.add(one);
    }
  }
  return [...found];
}

/** Called by the entry of a thread, before anything else runs there: which modules it may load. */
export function offerModules(
  modules: Readonly<Record<string, Loader>>,
  texts: Readonly<Record<string, string>>,
): void {
  for (const [name, load] of Object.entries(modules)) loaders.set(name, load);
  for (const [name, digest] of Object.entries(texts)) digests.set(name, digest);
}

/** Digest of a module's text: what its steps refer to beside themselves is in it. */
export function moduleText(name: string): string | undefined {
  return digests.get(name);
}

/** How to load a module; undefined when this thread may not. */
export function moduleLoader(name: string): Loader | undefined {
  return loaders.get(name);
}

// Taken before a module can put something else in its place.
const later = setTimeout;
const astray = new Set<unknown>();

/** Notes what went wrong in a module outside of what is called of it; the main thread has been told. */
export function noteAstray(what: unknown): void {
  astray.add(what);
}

/**
 * Waits for what a module left behind at its loading, such as a rejected promise, so that it is told
 * before the command says anything. When something went wrong it does not return: the main thread
 * ends this one.
 */
export async function settled(): Promise<void> {
  for (let turn = 0; turn < 2; turn++) await new Promise((resolve) => later(resolve, 1));
  if (astray.size > 0) await new Promise(() => {});
}

/** A text as part of a program. */
function literal(text: string): string {
  return JSON.stringify(text).replace(
    /[\u2028\u2029]/g,
    (c) => c === "\u2028" ? "\\u2028" : "\\u2029",
  );
}

/**
 * The entry of a thread that may load modules. It knows them by value: what a program names in its
 * text is loaded without asking, and all that it imports, be it any file as text.
 *
 * @param thread The module that the thread runs.
 * @param modules Names of modules with policies, as on the command line.
 * @returns The entry's address.
 */
export function threadEntry(thread: URL, modules: readonly string[]): URL {
  if (modules.length === 0) return thread;
  const own = offeringModule(thread);
  const rows = modules.map((name) => `[${literal(name)}, ${literal(moduleAddress(name))}],`);
  const texts = modules.map((name) => `${literal(name)}: ${literal(textDigest(name))},`);
  const text = `import { offerModules } from ${literal(own.href)};\n` +
    `import ${literal(thread.href)};\n` +
    `const load = ([name, address]) => [name, () => import(address)];\n` +
    `offerModules(Object.fromEntries([${rows.join(" ")}].map(load)), { ${texts.join(" ")} });\n`;
  return new URL(`data:text/javascript,${encodeURIComponent(text)}`);
}

/** A digest of what is in a module's file; empty when it cannot be read, which loading it will tell. */
function textDigest(name: string): string {
  try {
    return createHash("sha256").update(Deno.readFileSync(name)).digest("hex");
  } catch {
    return "";
  }
}

/** The address of a module. */
export function moduleAddress(name: string): string {
  const path = name.startsWith("/") ? name : `${Deno.cwd()}/${name}`;
  return new URL(`file://${path.split("/").map(encodeURIComponent).join("/")}`).href;
}

/** Colours that Deno puts into some messages. */
// deno-lint-ignore no-control-regex
const COLOURS = /\x1b\[[\d;]*m/g;

/**
 * What somebody's code threw, in words: it may be anything.
 *
 * @param error What was thrown.
 * @param module Name of the module that was being loaded, if one was.
 */
export function reasonOf(error: unknown, module?: string): string {
  try {
    if (!(error instanceof Error)) return `It threw ${String(error)}`;
    const message = String(error.message).replace(COLOURS, "");
    const access = /^Requires (\w+) access(?: to (.*?))?, run again/.exec(message);
    if (access !== null) {
      const [, what, where = "anything"] = access;
      return `It asks for ${what} access to ${where}, which a policy does not have`;
    }
    if (message.startsWith("Module not found")) {
      // It may be one that the module imports.
      const own = module !== undefined && message.includes(`"${moduleAddress(module)}"`);
      return own ? "No such file" : message;
    }
    return `${String(error.name)}: ${message}`;
  } catch {
    return "It threw what cannot be shown";
  }
}
