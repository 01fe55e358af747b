/**
 * Policies by their names on the command line: built-in ones, and modules of the user's own.
 *
 * @module
 */
import { ALIASES, POLICIES } from "../engine/policies/mod.ts";
import { checkPolicy, PolicyError } from "../engine/policy_check.ts";
import type { Policy } from "../engine/policy.ts";
import { FileError, oneLine, UsageError } from "./errors.ts";
import { didYouMean } from "./suggest.ts";
import { isModule, moduleLoader, reasonOf } from "./policy_modules.ts";
import { watchEnd } from "./watchdog.ts";
import { watch } from "./watched_policy.ts";

/** Names of the built-in policies. */
export const POLICY_NAMES: readonly string[] = [...Object.keys(POLICIES), ...Object.keys(ALIASES)];

/** What the help says about a policy that is no built-in one. */
export const OWN_POLICY =
  "a name (`upstream` is the newest kernel modelled), or a module such as ./mine.ts whose default export is a policy";

async function importPolicy(path: string): Promise<Policy> {
  const fail = (why: string, cause?: unknown) =>
    new FileError(path, `Cannot load the policy ${path}: ${oneLine(why)}`, { cause });
  const load = moduleLoader(path);
  // Nobody runs code of others where it may do all that the program may.
  if (load === undefined) throw fail("This command takes built-in policies only");
  let module: Readonly<Record<string, unknown>>;
  try {
    module = await watchEnd(`The module ${path}`, load);
  } catch (error) {
    throw fail(reasonOf(error), error);
  }
  try {
    return watch(checkPolicy(module["default"] ?? module["policy"]));
  } catch (error) {
    // A property of it may be a function of its own, which throws whatever it likes.
    const why = error instanceof PolicyError ? error.message : reasonOf(error);
    throw new FileError(path, `${path} exports no policy: ${oneLine(why)}`, { cause: error });
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
