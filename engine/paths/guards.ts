/**
 * Words that a path depends on, and a tree of them: which path a state goes.
 *
 * @module
 */
import type { Machine } from "../svm/machine.ts";
import { wordAt } from "../svm/page_word.ts";
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
  return wordAt(memory.page(gpa), gpa % PAGE_SIZE);
}

/** Value of a word. */
export function valueOf(m: Machine, number: WordNumber): number {
  const { words } = m;
  if (number < 0) return m.memory.allocated((-1 - number) * PAGE_SIZE) ? 1 : 0;
  return number < words.length
    ? words[number] as number
    : peek(m.memory, (number - words.length) * 4);
}

/** Words and their values, in the order in which they are read. */
export interface Guards {
  readonly numbers: readonly WordNumber[];
  readonly values: readonly number[];
}

interface Node<T> {
  /** Words that every path from here depends on alike: number and value of each. */
  guards: Int32Array;
  /** Word that parts the paths behind them; undefined where there is one path, which ends here. */
  branch: WordNumber | undefined;
  children: Map<number, Node<T>>;
  path: T | undefined;
}

const PAGE_WORDS = PAGE_SIZE / 4;
/** Places at which states left the tree that are remembered at most. */
const MOST_LEFT = 1 << 12;

/** Which path a state goes, if it is known. */
export class GuardTree<T> {
  #root: Node<T> | undefined;
  /** Where states left the tree, each as a number that another place is unlikely to have. */
  readonly #left = new Set<number>();
  #leftAt = 0;

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
    const { words, memory } = m;
    const stateWords = words.length;
    let sum = 1, pageAt = 0, page = memory.page(0);
    while (node !== undefined) {
      const { guards } = node;
      for (let i = 0; i < guards.length; i += 2) {
        const number = guards[i] as number;
        let value: number;
        if (number >= stateWords) {
          const word = number - stateWords;
          const gpa = word * 4 - (word & PAGE_WORDS - 1) * 4;
          if (gpa !== pageAt) page = memory.page(pageAt = gpa);
          value = wordAt(page, (word & PAGE_WORDS - 1) * 4);
        } else if (number >= 0) value = words[number] as number;
        else value = memory.allocated((-1 - number) * PAGE_SIZE) ? 1 : 0;
        if ((value | 0) !== guards[i + 1]) return this.#leave(sum, number, value);
      }
      const { branch, children, path }: Node<T> = node;
      if (branch === undefined) return path;
      const value = valueOf(m, branch);
      node = children.get(value);
      if (node === undefined) return this.#leave(sum, branch, value);
      sum = Math.imul(sum, 31) + (value | 0) | 0;
    }
    return this.#leave(0, 0, 0);
  }

  #leave(branches: number, number: WordNumber, value: number): undefined {
    this.#leftAt = Math.imul(Math.imul(branches, 0x9e3779b1) + number, 0x85ebca6b) + (value | 0) |
      0;
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
  add({ numbers, values }: Guards, path: T): boolean {
    const leaf = (from: number): Node<T> => ({
      guards: Int32Array.from(
        { length: 2 * (numbers.length - from) },
        (_, i) => (i % 2 === 0 ? numbers : values)[from + (i >> 1)] as number,
      ),
      branch: undefined,
      children: new Map(),
      path,
    });
    let node = this.#root;
    if (node === undefined) {
      this.#root = leaf(0);
      return true;
    }
    for (let at = 0;;) {
      let i = 0;
      for (; i < node.guards.length; i += 2, at++) {
        if (node.guards[i] !== numbers[at]) return false;
        if (node.guards[i + 1] !== ((values[at] as number) | 0)) break;
      }
      if (i < node.guards.length) {
        split(node, i);
        node.children.set(values[at] as number, leaf(at + 1));
        return true;
      }
      if (node.branch === undefined || node.branch !== numbers[at]) return false;
      const value = values[at++] as number;
      const child: Node<T> | undefined = node.children.get(value);
      if (child === undefined) {
        node.children.set(value, leaf(at));
        return true;
      }
      node = child;
    }
  }
}

/** Parts a node at one of its words. */
function split<T>(node: Node<T>, at: number): void {
  const { guards, branch, children, path } = node;
  const behind: Node<T> = { guards: guards.slice(at + 2), branch, children, path };
  node.branch = guards[at] as number;
  node.children = new Map([[(guards[at + 1] as number) >>> 0, behind]]);
  node.guards = guards.slice(0, at);
  node.path = undefined;
}
