/**
 * A path: what one way through the model does to a state, without the model.
 *
 * @module
 */
import {
  applyShort,
  type KvmRunResult,
  type Noted,
  type Observer,
  type ShortChange,
  type Vcpu,
} from "../kvm/vcpu.ts";
import { MAPPED_AT } from "../svm/machine.ts";
import { PAGE_SIZE } from "../svm/memory.ts";
import { wordAt } from "../svm/page_word.ts";
import type { WordNumber } from "./guards.ts";
import { sizeOf } from "./history.ts";

/** Words that a stage sets; places are numbers of words in the state, byte offsets in a page. */
export interface Writes {
  /** Places that are copied to, and which of the path's carried words each becomes. */
  readonly copied: readonly number[];
  readonly carried: readonly number[];
  /** Places that become the same each time, and what. */
  readonly set: readonly number[];
  readonly values: readonly number[];
}

/** Words of one page of guest memory that a stage sets. */
export interface PageWrites extends Writes {
  /** Number of the page. */
  readonly page: number;
}

/** What happens between one thing that is told and the next: first to words of the state. */
export interface Stage extends Writes {
  /** Number of a page that the work area becomes a copy of at first; or -1. */
  readonly mapped: number;
  readonly pages: readonly PageWrites[];
  /** What is neither in the bytes nor in memory, where it changed. */
  readonly loose: ShortChange | undefined;
  /** What KVM_RUN has to say by then, where that changed. */
  readonly result: KvmRunResult | undefined;
  /** What the observer is told then. */
  readonly tell: ((observer: Observer, v: Vcpu) => void) | undefined;
}

/** What an end takes up, in numbers of 32 bits. */
const END_SIZE = 32;

/** What follows the words of a stage. */
type End = Pick<Stage, "loose" | "result" | "tell">;

/**
 * What one way through the model does, as a list of numbers, so that little memory is touched:
 *
 * - carried words of the state: how many, then the number of each;
 * - carried words of memory: of how many pages, then for each its number, how many, and their offsets;
 * - for each stage the page that is mapped, or -1; its copies: how many, then place and carried word of each; its constants: how many
 *   stretches, then place, length and values of each; and the same of its pages: how many, then for
 *   each its number, copies and constants.
 */
export class Path {
  readonly #program: Int32Array;
  readonly #ends: readonly End[];
  readonly #values: Uint32Array;
  readonly #history: readonly Noted[] | undefined;

  /**
   * A path.
   *
   * @param stateWords Words of a state.
   * @param sources Words that are carried elsewhere, whatever they hold.
   * @param stages What happens, in order.
   * @param history What the observer learns of it afterwards, if it does.
   */
  constructor(
    stateWords: number,
    sources: readonly WordNumber[],
    stages: readonly Stage[],
    history?: readonly Noted[],
  ) {
    this.#history = history;
    const slots = new Map<WordNumber, number>();
    const program: number[] = [];
    const inState = sources.filter((number) => number < stateWords);
    program.push(inState.length, ...inState);
    const pages = Map.groupBy(
      sources.filter((number) => number >= stateWords),
      (number) => Math.floor((number - stateWords) * 4 / PAGE_SIZE),
    );
    program.push(pages.size);
    for (const number of inState) slots.set(number, slots.size);
    for (const [page, numbers] of pages) {
      program.push(page, numbers.length, ...numbers.map((n) => (n - stateWords) * 4 % PAGE_SIZE));
      for (const number of numbers) slots.set(number, slots.size);
    }
    const slotOf = (carried: number) => slots.get(sources[carried] as number) as number;
    for (const stage of stages) {
      program.push(stage.mapped);
      append(program, stage, slotOf, 1);
      program.push(stage.pages.length);
      for (const page of stage.pages) {
        program.push(page.page);
        append(program, page, slotOf, 4);
      }
    }
    this.#program = Int32Array.from(program);
    this.#values = new Uint32Array(sources.length);
    this.#ends = stages.map(({ loose, result, tell }) => ({ loose, result, tell }));
  }

  /** What it takes up, in numbers of 32 bits. */
  get size(): number {
    return this.#program.length + END_SIZE * this.#ends.length + sizeOf(this.#history ?? []);
  }

  /**
   * Does it.
   *
   * @param v A vCPU whose state goes this path.
   */
  follow(v: Vcpu): void {
    const { words, memory, observer } = v;
    const p = this.#program, values = this.#values, ends = this.#ends, history = this.#history;
    if (history !== undefined) observer?.follows?.(v);
    let at = 0, slot = 0;
    for (let n = p[at++] as number; n > 0; n--) values[slot++] = words[p[at++] as number] as number;
    for (let pages = p[at++] as number; pages > 0; pages--) {
      const page = memory.page((p[at++] as number) * PAGE_SIZE);
      for (let n = p[at++] as number; n > 0; n--) values[slot++] = wordAt(page, p[at++] as number);
    }
    for (let stage = 0; stage < ends.length; stage++) {
      const mapped = p[at++] as number;
      if (mapped >= 0) v.bytes.set(memory.page(mapped * PAGE_SIZE), MAPPED_AT);
      for (let n = p[at++] as number; n > 0; n--, at += 2) {
        words[p[at] as number] = values[p[at + 1] as number] as number;
      }
      for (let stretches = p[at++] as number; stretches > 0; stretches--) {
        let to = p[at++] as number;
        for (let n = p[at++] as number; n > 0; n--) words[to++] = p[at++] as number;
      }
      for (let pages = p[at++] as number; pages > 0; pages--) {
        const page = memory.writable((p[at++] as number) * PAGE_SIZE);
        for (let n = p[at++] as number; n > 0; n--, at += 2) {
          store(page, p[at] as number, values[p[at + 1] as number] as number);
        }
        for (let stretches = p[at++] as number; stretches > 0; stretches--) {
          let to = p[at++] as number;
          for (let n = p[at++] as number; n > 0; n--, to += 4) store(page, to, p[at++] as number);
        }
      }
      const { loose, result, tell } = ends[stage] as End;
      if (loose !== undefined) applyShort(v, loose);
      if (result !== undefined) copyResult(v.result, result);
      if (tell !== undefined && observer !== undefined) tell(observer, v);
    }
    if (history !== undefined) observer?.followed?.(history, v);
  }
}

/** Appends copies and constants; constants at places that follow one another become one stretch. */
function append(
  program: number[],
  { copied, carried, set, values }: Writes,
  slotOf: (carried: number) => number,
  size: number,
): void {
  program.push(copied.length);
  copied.forEach((place, i) => program.push(place, slotOf(carried[i] as number)));
  const count = program.length;
  program.push(0);
  const order = set.map((_, i) => i).sort((a, b) => (set[a] as number) - (set[b] as number));
  let length = -1, end = -1;
  for (const i of order) {
    const place = set[i] as number;
    if (place !== end) {
      program[count]!++;
      program.push(place, 0);
      length = program.length - 1;
    }
    program.push(values[i] as number);
    program[length]!++;
    end = place + size;
  }
}

function copyResult(to: KvmRunResult, { rc, errno, exit, port }: KvmRunResult): void {
  to.rc = rc;
  to.errno = errno;
  to.exit = exit;
  to.port = port;
}

function store(page: Uint8Array, at: number, value: number): void {
  page[at] = value;
  page[at + 1] = value >>> 8;
  page[at + 2] = value >>> 16;
  page[at + 3] = value >>> 24;
}
