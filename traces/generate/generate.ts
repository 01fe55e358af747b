/**
 * Random cases near the boundary of what is valid: one to four changes to the
 * valid base each, all ways in, alone and in sequences on one vCPU.
 *
 * @module
 */
import { type Mutation, MUTATIONS } from "./mutations.ts";
import { Random } from "./random.ts";
import type { Entry } from "../scenarios/scenario.ts";

/** What to generate. */
export interface GenerateOptions {
  /** The same seed gives the same cases. Its low 32 bits count. */
  readonly seed: number;
  /** How many cases, sequences counted case by case. */
  readonly count: number;
  /** Ways in to use; all when left out. */
  readonly entries?: readonly Entry[];
  /** Names of mutations to leave out. */
  readonly without?: readonly string[];
  /** How many in a hundred cases begin a sequence on one vCPU; 8 when left out. */
  readonly sequences?: number;
}

/** How often each way in is taken. */
const ENTRIES = [
  { entry: "vmrun", weight: 8 },
  { entry: "rsm", weight: 2 },
  { entry: "setstate", weight: 2 },
  { entry: "mid", weight: 2 },
  { entry: "migrate", weight: 2 },
] as const;

/**
 * Generates cases in the lab's syntax.
 *
 * The first cases do not depend on `count`. Each name is unique: the seed, a
 * number and the names of the changes.
 *
 * @param options What to generate.
 * @returns Case lines, without line breaks.
 * @example
 * ```ts
 * import { generate, parseScenario } from "@vmtape/vmtape/traces";
 * const cases = [...generate({ seed: 1, count: 20 })].map((line) => parseScenario(line));
 * if (new Set(cases.map((scenario) => scenario.name)).size !== 20) throw new Error();
 * ```
 */
export function* generate(options: GenerateOptions): Generator<string> {
  const { seed, count, sequences = 8 } = options;
  const random = new Random(seed);
  const entries = ENTRIES.filter(({ entry }) => options.entries?.includes(entry) ?? true);
  let left = 0;
  for (let n = 0; n < count; n++) {
    const { entry } = random.weighted(entries);
    const follows = left > 0;
    if (follows) left--;
    else if (random.chance(sequences)) left = 1 + random.below(4);
    // In a sequence the undisturbed entry after a failed one shows what that left behind.
    const calm = left > 0 || follows;
    const changes = calm ? random.below(4) : 1 + random.below(4);
    const names: string[] = [];
    const tokens: string[] = [];
    const early: string[] = [];
    const usable = MUTATIONS.filter((mutation) =>
      mutation.entries?.includes(entry) !== false && !options.without?.includes(mutation.name)
    );
    for (let i = 0; i < changes; i++) {
      const mutation: Mutation = random.weighted(usable);
      if (names.includes(mutation.name)) continue;
      names.push(mutation.name);
      (mutation.early ? early : tokens).push(...mutation.tokens(random));
    }
    if (entry !== "vmrun" && entry !== "setstate") {
      moveLate(tokens, entry === "rsm" && random.chance(75));
    }
    if (entry === "migrate" && random.chance(30)) moveToState(tokens);
    tokens.push(...early);
    if (entry !== "vmrun") tokens.unshift(`entry=${entry}`);
    if (follows) {
      tokens.push("keepvm");
      if (random.chance(10)) tokens.push("keepmem");
    }
    yield [`g${seed >>> 0}_${n}_${names.join("+") || "base"}`, ...tokens].join(" ");
  }
}

/** With `entry=migrate`, changes to vmcb12's control area may hit the state on its way instead. */
function moveToState(tokens: string[]): void {
  tokens.forEach((token, i) => {
    if (/^c\./.test(token)) tokens[i] = `xn${token.slice(1)}`;
  });
}

/**
 * With `entry=rsm`, changes to vmcb12 and memory take effect before VMRUN or,
 * late, between the SMI and RSM. An L2 that stops on its way must still reach its port
 * write, so its code is always changed late, behind that instruction.
 */
function moveLate(tokens: string[], late: boolean): void {
  tokens.forEach((token, i) => {
    const moved = /^m\.(90[0-9a-f]{2})(.*)$/.exec(token);
    if (moved) tokens[i] = `xm.${(parseInt(moved[1]!, 16) + 2).toString(16)}${moved[2]}`;
    else if (late && /^[csm]\./.test(token) && !withoutPae(token)) tokens[i] = `x${token}`;
  });
}

/**
 * Whether a change clears CR4.PAE of a 64-bit L2. Done late it makes a kernel
 * whose RSM checks nothing give the virtual machine up, and then no state can
 * be read any more; before VMRUN it fails a check.
 */
function withoutPae(token: string): boolean {
  const cr4 = /^s\.148=([0-9a-f]+)$/.exec(token);
  return cr4 !== null && (parseInt(cr4[1]!.slice(-2), 16) & 0x20) === 0;
}
