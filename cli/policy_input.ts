/**
 * Policies by their names on the command line: built-in ones, and modules of the user's own.
 *
 * @module
 */
import { ALIASES, POLICIES } from "../engine/policies/mod.ts";
import { checkPolicy, PolicyError } from "../engine/policy_check.ts";
import { onProcessor, type Policy } from "../engine/policy.ts";
import { PROCESSORS } from "../engine/processors/mod.ts";
import { FileError, oneLine, UsageError } from "./errors.ts";
import { didYouMean } from "./suggest.ts";
import { isModule, moduleLoader, moduleText, reasonOf, settled } from "./policy_modules.ts";
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
    throw fail(reasonOf(error, path), error);
  }
  await settled();
  try {
    return await watchEnd(`The policy of ${path}`, () => {
      const policy = watch(checkPolicy(module["default"] ?? module["policy"]));
      // What a checkpoint is bound to; see policyFingerprint.
      return Promise.resolve(Object.assign(policy, { text: moduleText(path) }));
    });
  } catch (error) {
    // A property of it may be a function of its own, which throws whatever it likes.
    const why = error instanceof PolicyError ? error.message : reasonOf(error);
    throw new FileError(path, `${path} exports no policy: ${oneLine(why)}`, { cause: error });
  }
}

/** The policy of a name and, behind an `@`, the processor that it is to run on. */
function apart(name: string): { readonly policy: string; readonly processor: string | undefined } {
  const at = name.lastIndexOf("@");
  const processor = name.slice(at + 1);
  return at > 0 && Object.hasOwn(PROCESSORS, processor)
    ? { policy: name.slice(0, at), processor }
    : { policy: name, processor: undefined };
}

/**
 * The policy of a name.
 *
 * @param name A built-in policy, or a module that exports one; `NAME@PROCESSOR` puts it on a processor.
 * @param processor The processor for a policy that brings none, if one is chosen.
 * @returns The policy.
 * @throws {UsageError} When there is no such policy.
 * @throws {FileError} When a module cannot be loaded or exports none.
 */
export async function loadPolicy(name: string, processor?: string): Promise<Policy> {
  const given = apart(name);
  const policy = await namedPolicy(given.policy);
  return given.processor === undefined
    ? onChosen(policy, processor)
    : onProcessor(policy, PROCESSORS[given.processor]);
}

/** A policy on a chosen processor, unless it brings its own or none is chosen. */
export function onChosen(policy: Policy, processor: string | undefined): Policy {
  return policy.processor !== undefined || processor === undefined
    ? policy
    : onProcessor(policy, PROCESSORS[processor]);
}

/**
 * Several policies. One and the same on several processors goes by the whole of what was written.
 *
 * @param names Their names, as {@linkcode loadPolicy} takes them.
 * @param processor The processor for policies that bring none, if one is chosen.
 * @returns The policies, in order.
 * @throws {UsageError} When there is no such policy, or one is named twice.
 * @throws {FileError} When a module cannot be loaded or exports none.
 */
export async function loadPolicies(
  names: readonly string[],
  processor?: string,
): Promise<Policy[]> {
  const policies = await Promise.all(names.map((name) => loadPolicy(name, processor)));
  const twice = (name: string) => policies.filter((other) => other.name === name).length > 1;
  const named = policies.map((policy, i) =>
    twice(policy.name) && apart(names[i]!).processor !== undefined
      ? { ...policy, name: names[i]! }
      : policy
  );
  const seen = new Set<string>();
  for (const { name } of named) {
    if (seen.has(name)) throw new UsageError(`Policy ${JSON.stringify(name)} is named twice`);
    seen.add(name);
  }
  return named;
}

async function namedPolicy(name: string): Promise<Policy> {
  if (Object.hasOwn(POLICIES, name)) return POLICIES[name]!;
  if (Object.hasOwn(ALIASES, name)) return ALIASES[name]!;
  if (isModule(name)) return await importPolicy(name);
  throw new UsageError(
    `Unknown policy ${JSON.stringify(name)}${didYouMean(name, POLICY_NAMES)}`,
  );
}
