/**
 * A path as code: what its lists of numbers say, as two functions that the compiler can work on.
 *
 * @module
 */
import type { Vcpu } from "../kvm/vcpu.ts";
import type { ImageBuffer } from "../svm/image_buffer.ts";
import { type GuestMemory, PAGE_SIZE } from "../svm/memory.ts";
import type { Guards } from "./guards.ts";
import type { PathList } from "./program.ts";

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
  readonly follow: Followed;
  /** Does what is left. */
  readonly followTail: Followed;
}

type Followed = (
  words: Uint32Array,
  memory: GuestMemory,
  list: Int32Array,
  values: Uint32Array,
  path: Between,
  v: Vcpu,
  into: ImageBuffer | undefined,
) => void;

/** Words that are compared at a time. */
const AT_ONCE = 16;

/**
 * Compiles a path. The code is made of whole numbers alone.
 *
 * @param guards What it depends on.
 * @param stateWords Words of a state.
 * @param list What it does.
 * @param stages How many stages are followed at once.
 * @param tail Whether there is one more.
 * @param shown Slots whose values images need.
 * @returns The functions; undefined where code must not be made of text, or where the path copies
 * pages into the work area.
 */
export function compilePath(
  guards: Guards,
  stateWords: number,
  list: PathList,
  stages: number,
  tail: boolean,
  shown: ReadonlySet<number>,
): CompiledPath | undefined {
  const texts = followTexts(list, stages, tail, shown);
  if (texts === undefined) return undefined;
  const made = (text: string) => new Function("w", "m", "l", "c", "p", "v", "i", text) as Followed;
  try {
    return {
      matches: new Function("w", "m", matchText(guards, stateWords)) as CompiledPath["matches"],
      follow: made(texts.follow),
      followTail: made(texts.tail),
    };
  } catch (error) {
    if (error instanceof EvalError) return undefined;
    throw error;
  }
}

function matchText(guards: Guards, stateWords: number): string {
  const state: string[] = [], memory: string[] = [], lines: string[] = [];
  const pages = new Map<number, string>();
  for (let i = 0; i < guards.length; i += 2) {
    const number = guards[i] as number, value = guards[i + 1] as number;
    if (number < 0) {
      const gpa = (-1 - number) * PAGE_SIZE;
      lines.push(`if (m.allocated(${gpa}) !== ${value === 1}) return false;`);
    } else if (number < stateWords) state.push(`(w[${number}] ^ ${value})`);
    else {
      const [name, at] = placeOf((number - stateWords) * 4, pages);
      memory.push(`(${name}[${at}] ^ ${value})`);
    }
  }
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

/** Numbers of a list, one after the other. */
class Numbers {
  readonly #list: Int32Array;
  #at: number;

  constructor(list: Int32Array, at: number) {
    this.#list = list;
    this.#at = at;
  }

  /** How many came before the next. */
  get at(): number {
    return this.#at;
  }

  next(): number {
    return this.#list[this.#at++] as number;
  }

  /** Has something done as often as the next number says. */
  times(each: () => void): void {
    for (let n = this.next(); n > 0; n--) each();
  }

  /** Goes through copies: place and slot of each. */
  copies(each: (place: number, slot: number) => void): void {
    this.times(() => {
      let place = this.next(), slot = this.next();
      this.times(() => each(place++, slot++));
    });
  }
}

function followTexts(
  { numbers, program: programAt }: PathList,
  stages: number,
  hasTail: boolean,
  shown: ReadonlySet<number>,
): { follow: string; tail: string } | undefined {
  // What images and the last stage are made of is left behind.
  const kept = new Set(shown);
  const program = new Numbers(numbers, programAt);
  const local = (slot: number) => `s${slot}`;
  const left = (slot: number) => {
    kept.add(slot);
    return `c[${slot}]`;
  };
  const lines: string[] = [], tail: string[] = [];
  for (let stage = 0; stage < stages; stage++) {
    if (!stageText(program, stage, local, lines)) return undefined;
  }
  if (hasTail && !stageText(program, stages, left, tail)) return undefined;
  const loads = loadText(new Numbers(numbers, 0), kept);
  return { follow: [...loads, ...lines].join("\n"), tail: tail.join("\n") };
}

function stageText(
  program: Numbers,
  stage: number,
  slotName: (slot: number) => string,
  lines: string[],
): boolean {
  if (program.next() >= 0) return false;
  const copies = (words: string) =>
    program.copies((place, slot) => lines.push(`${words}[${place}] = ${slotName(slot)};`));
  const constants = (words: string) =>
    program.times(() => {
      let to = program.next();
      program.times(() => lines.push(`${words}[${to++}] = ${program.next()};`));
    });
  constants("w");
  copies("w");
  program.times(() => {
    const name = `p${stage}_${lines.length}`, gpa = program.next() * PAGE_SIZE;
    lines.push(
      `const ${name} = m.writableWords(${gpa}); m.wroteConstants(${gpa}, l, ${program.at});`,
    );
    program.next();
    constants(name);
    const written = lines.push(`m.writable(${gpa});`);
    copies(name);
    if (lines.length === written) lines.pop();
  });
  lines.push(`p.end(${stage}, v, i);`);
  return true;
}

function loadText(carried: Numbers, kept: ReadonlySet<number>): string[] {
  const lines: string[] = [];
  const load = (from: string) =>
    carried.copies((place, slot) => {
      lines.push(`const s${slot} = ${from}[${place}];`);
      if (kept.has(slot)) lines.push(`c[${slot}] = s${slot};`);
    });
  load("w");
  carried.times(() => {
    const page = carried.next();
    lines.push(`const q${page} = m.words(${page * PAGE_SIZE});`);
    load(`q${page}`);
  });
  return lines;
}
