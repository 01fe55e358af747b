/**
 * A path as code: what its lists of numbers say, as two functions that the compiler can work on.
 *
 * @module
 */
import type { Vcpu } from "../kvm/vcpu.ts";
import type { ImageBuffer } from "../svm/image_buffer.ts";
import { type GuestMemory, PAGE_SIZE } from "../svm/memory.ts";
import type { Guards } from "./guards.ts";

/** What is done between the stages of a path. */
export interface Between {
  /** Ends a stage. */
  end(stage: number, v: Vcpu, into: ImageBuffer | undefined): void;
}

/** A path as two functions. */
export interface CompiledPath {
  /** Whether all guards hold. */
  readonly matches: (words: Uint32Array, memory: GuestMemory) => boolean;
  /** Does what the path does. */
  readonly follow: (
    words: Uint32Array,
    memory: GuestMemory,
    values: Uint32Array,
    path: Between,
    v: Vcpu,
    into: ImageBuffer | undefined,
  ) => void;
}

/** Words that are compared at a time. */
const AT_ONCE = 16;

/**
 * Compiles a path. The code is made of whole numbers alone.
 *
 * @param guards What it depends on.
 * @param stateWords Words of a state.
 * @param carried Its carried words, as `Path` has them.
 * @param program What it sets, as `Path` has it.
 * @param stages How many stages it has.
 * @param shown Slots whose values images need.
 * @returns The functions; undefined where code must not be made of text, or where the path copies
 * pages into the work area.
 */
export function compilePath(
  guards: Guards,
  stateWords: number,
  carried: Int32Array,
  program: Int32Array,
  stages: number,
  shown: ReadonlySet<number>,
): CompiledPath | undefined {
  const follow = followText(carried, program, stages, shown);
  if (follow === undefined) return undefined;
  try {
    return {
      matches: new Function("w", "m", matchText(guards, stateWords)) as CompiledPath["matches"],
      follow: new Function("w", "m", "c", "p", "v", "i", follow) as CompiledPath["follow"],
    };
  } catch (error) {
    if (error instanceof EvalError) return undefined;
    throw error;
  }
}

function matchText({ numbers, values }: Guards, stateWords: number): string {
  const state: string[] = [], memory: string[] = [], lines: string[] = [];
  const pages = new Map<number, string>();
  numbers.forEach((number, i) => {
    const value = (values[i] as number) | 0;
    if (number < 0) {
      const gpa = (-1 - number) * PAGE_SIZE;
      lines.push(`if (m.allocated(${gpa}) !== ${value === 1}) return false;`);
    } else if (number < stateWords) state.push(`(w[${number}] ^ ${value})`);
    else {
      const [name, at] = placeOf((number - stateWords) * 4, pages);
      memory.push(`(${name}[${at}] ^ ${value})`);
    }
  });
  return [
    ...together(state),
    ...lines,
    ...pagesText(pages),
    ...together(memory),
    "return true;",
  ].join("\n");
}

/** Lines that end where one of some words is not 0. */
function together(words: readonly string[]): string[] {
  const lines: string[] = [];
  for (let i = 0; i < words.length; i += AT_ONCE) {
    lines.push(`if ((${words.slice(i, i + AT_ONCE).join(" | ")}) !== 0) return false;`);
  }
  return lines;
}

/** The name of the page that holds an address, and the number of the word in it. */
function placeOf(gpa: number, pages: Map<number, string>): [string, number] {
  const page = Math.floor(gpa / PAGE_SIZE);
  let name = pages.get(page);
  if (name === undefined) pages.set(page, name = `q${pages.size}`);
  return [name, gpa % PAGE_SIZE >> 2];
}

function pagesText(pages: ReadonlyMap<number, string>): string[] {
  return [...pages].map(([page, name]) => `const ${name} = m.words(${page * PAGE_SIZE});`);
}

function followText(
  carried: Int32Array,
  program: Int32Array,
  stages: number,
  shown: ReadonlySet<number>,
): string | undefined {
  const lines: string[] = [];
  let list = carried, at = 0;
  const next = () => list[at++] as number;
  const times = (each: () => void) => {
    for (let n = next(); n > 0; n--) each();
  };
  const load = (from: string) => {
    const place = next(), slot = next();
    lines.push(`const s${slot} = ${from}[${place}];`);
    if (shown.has(slot)) lines.push(`c[${slot}] = s${slot};`);
  };
  times(() => load("w"));
  times(() => {
    const page = next();
    lines.push(`const q${page} = m.words(${page * PAGE_SIZE});`);
    times(() => load(`q${page}`));
  });
  const set = (words: string) => {
    times(() => lines.push(`${words}[${next()}] = s${next()};`));
    times(() => {
      let to = next();
      times(() => lines.push(`${words}[${to++}] = ${next()};`));
    });
  };
  list = program;
  at = 0;
  for (let stage = 0; stage < stages; stage++) {
    if (next() >= 0) return undefined;
    set("w");
    times(() => {
      const name = `p${stage}_${lines.length}`;
      lines.push(`const ${name} = m.writableWords(${next() * PAGE_SIZE});`);
      set(name);
    });
    lines.push(`p.end(${stage}, v, i);`);
  }
  return lines.join("\n");
}
