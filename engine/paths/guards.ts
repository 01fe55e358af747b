/**
 * Words that a path depends on, and a tree of them: which path a state goes.
 *
 * @module
 */
import type { Machine } from "../svm/machine.ts";
import { Arena } from "./arena.ts";
import { type GuestMemory, PAGE_SIZE } from "../svm/memory.ts";

/**
 * Number of a word: that of the state's; behind those, guest memory's; negative, whether a page is
 * allocated.
 */
export type WordNumber = number;

/** Number of the word of guest memory at an address that is a multiple of 4. */
export function memoryWord(stateWords: number, gpa: number): WordNumber {
  return stateWords + gpa / 4;
}

/** Number that stands for whether the page that holds an address is allocated. */
export function allocatedWord(gpa: number): WordNumber {
  return -1 - Math.floor(gpa / PAGE_SIZE);
}

/** A word of guest memory; the address is backed. */
export function peek(memory: GuestMemory, gpa: number): number {
  return memory.words(gpa)[gpa % PAGE_SIZE >> 2] as number;
}

/** Value of a word. */
export function valueOf(m: Machine, number: WordNumber): number {
  const { words } = m;
  if (number < 0) return m.memory.allocated((-1 - number) * PAGE_SIZE) ? 1 : 0;
  return number < words.length
    ? words[number] as number
    : peek(m.memory, (number - words.length) * 4);
}

/** Words and their values, in the order in which they are read: number and value of each. */
export type Guards = Int32Array;

/** Words and their values, to be asked whether they hold: those of the state first. */
export class GuardList {
  readonly #sorted: Int32Array;
  /** Where those begin that are not of the state. */
  readonly #others: number;

  /**
   * Sorts them.
   *
   * @param guards Number and value of each.
   * @param stateWords Words of a state.
   * @param arena Where they are kept.
   */
  constructor(guards: Guards, stateWords: number, arena: Arena) {
    const sorted = this.#sorted = arena.take(guards.length);
    this.#others = putSorted(guards, stateWords, sorted, 0);
  }

  /** Whether all of them hold in a state. */
  holdsIn(m: Machine): boolean {
    const sorted = this.#sorted, others = this.#others;
    return hold(m, sorted, 0, others, sorted.length);
  }
}

/**
 * Puts guards into a list, those of the state first.
 *
 * @param guards Number and value of each.
 * @param stateWords Words of a state.
 * @param list Where they belong.
 * @param at From which place on.
 * @returns Where the others begin.
 */
export function putSorted(
  guards: Guards,
  stateWords: number,
  list: Int32Array,
  at: number,
): number {
  let first = at, last = at + guards.length;
  for (let i = 0; i < guards.length; i += 2) {
    const number = guards[i] as number, value = guards[i + 1] as number;
    if (number >= 0 && number < stateWords) {
      list[first++] = number;
      list[first++] = value;
    } else {
      list[--last] = value;
      list[--last] = number;
    }
  }
  return last;
}

/**
 * Whether guards hold in a state.
 *
 * @param m The state.
 * @param list A list in which they are.
 * @param from Where those of the state begin.
 * @param others Where the others begin.
 * @param end Where they end.
 */
export function hold(
  m: Machine,
  list: Int32Array,
  from: number,
  others: number,
  end: number,
): boolean {
  return !differs(m.words, list, from, others) && !othersDiffer(m, list, others, end);
}

interface Node<T> {
  /** Words that every path from here depends on alike: number and value of each. */
  guards: Int32Array;
  /** The same, to be asked, once somebody did. */
  list: GuardList | undefined;
  /** Word that parts the paths behind them; undefined where there is one path, which ends here. */
  branch: WordNumber | undefined;
  children: Map<number, Node<T>> | undefined;
  path: T | undefined;
}

const PAGE_WORDS = PAGE_SIZE / 4;
const NONE = new Int32Array(0);
/** Places at which states left the tree that are remembered at most. */
const MOST_LEFT = 1 << 12;

/** Which path a state goes, if it is known. */
export class GuardTree<T> {
  #root: Node<T> | undefined;
  /** Where states left the tree, each as a number that another place is unlikely to have. */
  readonly #left = new Set<number>();
  #leftAt = 0;
  readonly #arena: Arena;

  /**
   * Knows none yet.
   *
   * @param arena Where guards are kept.
   */
  constructor(arena: Arena = new Arena()) {
    this.#arena = arena;
  }

  /** Whether another state left the tree where the one did that was looked for last. */
  get again(): boolean {
    if (this.#left.has(this.#leftAt)) return true;
    if (this.#left.size === MOST_LEFT) this.#left.clear();
    this.#left.add(this.#leftAt);
    return false;
  }

  /**
   * Looks for the path of a state.
   *
   * @param m The state.
   * @returns The path; undefined when none is known.
   */
  find(m: Machine): T | undefined {
    let node = this.#root;
    const { words } = m;
    let sum = 1;
    while (node !== undefined) {
      const list: GuardList = node.list ??= new GuardList(
        node.guards,
        words.length,
        this.#arena,
      );
      if (!list.holdsIn(m)) return this.#leave(sum, m, node.guards);
      const { branch, children, path }: Node<T> = node;
      if (branch === undefined) return path;
      const value = valueOf(m, branch);
      node = children?.get(value);
      if (node === undefined) return this.#leave(sum, m, Int32Array.of(branch, ~value));
      sum = Math.imul(sum, 31) + (value | 0) | 0;
    }
    return this.#leave(0, m, NONE);
  }

  /** Notes where a state left the tree: behind which branches, and at which of some guards. */
  #leave(branches: number, m: Machine, guards: Int32Array): undefined {
    let number = 0, value = 0;
    for (let i = 0; i < guards.length; i += 2) {
      number = guards[i] as number;
      value = valueOf(m, number) | 0;
      if (value !== guards[i + 1]) break;
    }
    this.#leftAt = Math.imul(Math.imul(branches, 0x9e3779b1) + number, 0x85ebca6b) + value | 0;
    return undefined;
  }

  /**
   * Adds a path.
   *
   * @param guards What it depends on.
   * @param path The path.
   * @returns Whether it could be added: not where another that depends on the same so far goes on
   * with another word, or where it is known.
   */
  add(given: Guards, path: T): boolean {
    const leaf = (from: number): Node<T> => ({
      guards: given.subarray(from),
      list: undefined,
      branch: undefined,
      children: undefined,
      path,
    });
    let node = this.#root;
    if (node === undefined) {
      this.#root = leaf(0);
      return true;
    }
    for (let at = 0;;) {
      let i = 0;
      for (; i < node.guards.length; i += 2, at += 2) {
        if (node.guards[i] !== given[at]) return false;
        if (node.guards[i + 1] !== given[at + 1]) break;
      }
      const value = (given[at + 1] as number) >>> 0;
      if (i < node.guards.length) {
        split(node, i).set(value, leaf(at + 2));
        return true;
      }
      if (node.branch === undefined || node.branch !== given[at]) return false;
      at += 2;
      const child: Node<T> | undefined = node.children?.get(value);
      if (child === undefined) {
        node.children?.set(value, leaf(at));
        return true;
      }
      node = child;
    }
  }
}

/** Whether one of some words of the state is another. */
function differs(words: Uint32Array, guards: Int32Array, from: number, end: number): boolean {
  let i = from;
  // Most often none is: several at a time cost less than one after the other.
  for (const last = end - 7; i < last; i += 8) {
    const bits = ((words[guards[i] as number] as number) ^ (guards[i + 1] as number)) |
      ((words[guards[i + 2] as number] as number) ^ (guards[i + 3] as number)) |
      ((words[guards[i + 4] as number] as number) ^ (guards[i + 5] as number)) |
      ((words[guards[i + 6] as number] as number) ^ (guards[i + 7] as number));
    if (bits !== 0) return true;
  }
  for (; i < end; i += 2) {
    if (((words[guards[i] as number] as number) | 0) !== guards[i + 1]) return true;
  }
  return false;
}

/** Whether a word of memory is another, or another page is allocated. */
function othersDiffer(
  { words, memory }: Machine,
  guards: Int32Array,
  from: number,
  end: number,
): boolean {
  const stateWords = words.length;
  let pageAt = 0, page = memory.words(0);
  for (let i = from; i < end; i += 2) {
    const number = guards[i] as number;
    let value: number;
    if (number < 0) value = memory.allocated((-1 - number) * PAGE_SIZE) ? 1 : 0;
    else {
      const word = number - stateWords, at = word & PAGE_WORDS - 1;
      const gpa = (word - at) * 4;
      if (gpa !== pageAt) page = memory.words(pageAt = gpa);
      value = page[at] as number;
    }
    if ((value | 0) !== guards[i + 1]) return true;
  }
  return false;
}

/** Parts a node at one of its words; what its children are from then on. */
function split<T>(node: Node<T>, at: number): Map<number, Node<T>> {
  const { guards, branch, children, path } = node;
  const behind: Node<T> = {
    guards: guards.subarray(at + 2),
    list: undefined,
    branch,
    children,
    path,
  };
  node.branch = guards[at] as number;
  const parted = node.children = new Map([[(guards[at + 1] as number) >>> 0, behind]]);
  node.guards = guards.subarray(0, at);
  node.list = undefined;
  node.path = undefined;
  return parted;
}
