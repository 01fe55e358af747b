/**
 * Random cases near the boundary of what is valid: one to four changes to the
 * valid base each, all ways in, alone and in sequences on one vCPU.
 *
 * @module
 */
import { type Mutation, MUTATIONS } from "./mutations.ts";
import { Random } from "./random.ts";
import { CR4 } from "../../engine/svm/bits.ts";
import { S } from "../../engine/svm/machine.ts";
import { SAVE_AREA } from "../../engine/svm/vmcb_fields.ts";
import { L2_CODE } from "../scenarios/base.ts";
import { lateWord } from "../scenarios/lab_case.ts";
import type { Entry } from "../scenarios/scenario.ts";
import type { Token } from "../scenarios/scenario_token.ts";
import { readToken } from "../scenarios/scenario_word.ts";

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

/** A write to vmcb12 or memory, as a word of a case has it. */
type Write = Extract<Token, { readonly kind: "write" }>;

/** Bytes from L2's first instruction on that mutations change. */
const MOST_CODE = 0x100;
/** Bytes of the write to a port with which an L2 stops on its way: OUT with an immediate. */
const PORT_WRITE = 2;

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
      const late = entry === "rsm" && random.chance(75);
      moveWrites(tokens, (write) => toLate(write, late));
    }
    if (entry === "migrate" && random.chance(30)) moveWrites(tokens, toState);
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
function toState(write: Write): string | undefined {
  return write.target === "control" ? lateWord({ ...write, target: "nested" }) : undefined;
}

/**
 * With `entry=rsm`, changes to vmcb12 and memory take effect before VMRUN or,
 * late, between the SMI and RSM. An L2 that stops on its way must still reach its port
 * write, so its code is always changed late, behind that instruction.
 */
function toLate(write: Write, late: boolean): string | undefined {
  const offset = Number(write.offset);
  if (write.target === "memory" && offset >= L2_CODE && offset < L2_CODE + MOST_CODE) {
    return lateWord({ ...write, offset: offset + PORT_WRITE });
  }
  return late && !withoutPae(write) ? lateWord(write) : undefined;
}

/**
 * Whether a change clears CR4.PAE of a 64-bit L2. Done late it makes a kernel
 * whose RSM checks nothing give the virtual machine up, and then no state can
 * be read any more; before VMRUN it fails a check.
 */
function withoutPae({ target, offset, value }: Write): boolean {
  return target === "save" && Number(offset) === S.cr4 - SAVE_AREA &&
    (value & BigInt(CR4.PAE)) === 0n;
}

/** Replaces the words of writes by others, where there is one. */
function moveWrites(words: string[], moved: (write: Write) => string | undefined): void {
  words.forEach((word, i) => {
    const token = readToken(word, refuse);
    if (token.kind === "write") words[i] = moved(token) ?? word;
  });
}

function refuse(message: string): never {
  throw new Error(`A mutation's word is not understood: ${message}`);
}
