import { ALIASES, POLICIES } from "../engine/policies/mod.ts";
import { checkPolicy, PolicyError } from "../engine/policy_check.ts";
import type { Policy } from "../engine/policy.ts";
import { FileError, oneLine, UsageError } from "./errors.ts";
import { didYouMean } from "./suggest.ts";
import { watch } from "./watchdog.ts";

/** Names of the built-in policies. */
export const POLICY_NAMES: readonly string[] = [...Object.keys(POLICIES), ...Object.keys(ALIASES)];

/** What the help says about a policy that is no built-in one. */
export const OWN_POLICY =
  "a name (`upstream` is the newest kernel modelled), or a module such as ./mine.ts whose default export is a policy";

function isModule(name: string): boolean {
  return /[/\\]|\.[cm]?[jt]s$/.test(name);
}

async function importPolicy(path: string): Promise<Policy> {
  let module: Record<string, unknown>;
  try {
    const file = await Deno.realPath(path);
    module = await import(new URL(`file://${encodeURI(file)}`).href);
  } catch (error) {
    const why = error instanceof Deno.errors.NotFound ? "No such file" : (error as Error).message;
    throw new FileError(path, `Cannot load the policy ${path}: ${oneLine(why)}`, { cause: error });
  }
  try {
    return watch(checkPolicy(module["default"] ?? module["policy"]));
  } catch (error) {
    if (!(error instanceof PolicyError)) throw error;
    throw new FileError(path, `${path} exports no policy: ${error.message}`, { cause: error });
  }
}

/**
 * The policy of a name.
 *
 * @param name A built-in policy, or a module that exports one.
 * @returns The policy.
 * @throws {UsageError} When there is no such policy.
 * @throws {FileError} When a module cannot be loaded or exports none.
 */
export async function loadPolicy(name: string): Promise<Policy> {
  if (Object.hasOwn(POLICIES, name)) return POLICIES[name]!;
  if (Object.hasOwn(ALIASES, name)) return ALIASES[name]!;
  if (isModule(name)) return await importPolicy(name);
  throw new UsageError(
    `Unknown policy ${JSON.stringify(name)}${didYouMean(name, POLICY_NAMES)}`,
  );
}
