/**
 * Where two vCPUs differ in a few words of their state alone, so that it can be told of a path whether
 * it makes a difference which of them goes it.
 *
 * @module
 */
import { Buffer } from "node:buffer";
import { sameShort } from "../kvm/loose_state.ts";
import type { Vcpu } from "../kvm/vcpu.ts";
import { DEVICES_AT, SHADOW_AT, SHADOW_PAGE_WORDS, STATE_SIZE } from "../svm/machine.ts";
import { type GuestMemory, PAGE_SIZE } from "../svm/memory.ts";
import { DifferingWords } from "./differing_words.ts";

/** Words in which they may differ at most. */
const MOST_WORDS = 32;

/** The state of a vCPU as bytes and words, the hypervisor's own page tables apart. */
interface Parts {
  readonly of: Uint8Array;
  readonly state: Uint8Array;
  readonly rest: Uint8Array;
}

function partsOf({ bytes }: Vcpu, before: Parts | undefined): Parts {
  if (before?.of === bytes) return before;
  return {
    of: bytes,
    state: bytes.subarray(0, STATE_SIZE),
    rest: bytes.subarray(DEVICES_AT),
  };
}

/** Compares two vCPUs again and again, between their runs. */
export class BegunAlike {
  readonly #differing = new DifferingWords(STATE_SIZE);
  readonly #memory = new SameMemory();
  #a: Parts | undefined;
  #b: Parts | undefined;

  /**
   * The words of the state in which two vCPUs differ.
   *
   * @param va One, which waits for nothing.
   * @param vb The other, with the same capabilities.
   * @returns Their numbers; undefined when they are many, or when anything else is not the same.
   */
  words(va: Vcpu, vb: Vcpu): readonly number[] | undefined {
    if (!sameShort(va, vb) || va.bytes.length !== vb.bytes.length) return undefined;
    const a = this.#a = partsOf(va, this.#a), b = this.#b = partsOf(vb, this.#b);
    const some = this.#differing.find(a.state, b.state, va.words, vb.words);
    const found: number[] = [];
    for (let i = 0; i < some.length; i++) {
      const word = some[i] as number;
      if (va.words[word] !== vb.words[word]) found.push(word);
    }
    const same = found.length <= MOST_WORDS && this.#memory.same(va.memory, vb.memory) &&
      Buffer.compare(a.rest, b.rest) === 0 && sameShadowPages(va, vb) &&
      Buffer.compare(va.pendingRegisters, vb.pendingRegisters) === 0;
    return same ? found : undefined;
  }
}

/** Whether shadow pages are the same; nobody reads what is left in free ones. */
function sameShadowPages({ words: a, bytes: x }: Vcpu, { words: b, bytes: y }: Vcpu): boolean {
  for (let at = SHADOW_AT >> 2; at < DEVICES_AT >> 2; at += SHADOW_PAGE_WORDS) {
    if (a[at] === 0 && b[at] === 0) continue;
    const from = at * 4, to = from + SHADOW_PAGE_WORDS * 4;
    if (Buffer.compare(x.subarray(from, to), y.subarray(from, to)) !== 0) return false;
  }
  return true;
}

/** Compares two guest memories again and again; pages that nobody could write since are not looked at. */
class SameMemory {
  #a: GuestMemory | undefined;
  #b: GuestMemory | undefined;
  /** For each page that was the same, how often each memory had given it out by then, and 1. */
  #versions: [Uint32Array, Uint32Array] = [new Uint32Array(0), new Uint32Array(0)];

  /** Whether all of it is the same. */
  same(a: GuestMemory, b: GuestMemory): boolean {
    if (a.size !== b.size || a.resident !== b.resident) return false;
    if (this.#a !== a || this.#b !== b) {
      this.#a = a;
      this.#b = b;
      const pages = a.size / PAGE_SIZE;
      this.#versions = [new Uint32Array(pages), new Uint32Array(pages)];
    }
    const numbers = a.pages(), others = b.pages(), [x, y] = this.#versions;
    if (numbers.length !== others.length) return false;
    for (let i = 0; i < numbers.length; i++) {
      const number = numbers[i] as number;
      if (others[i] !== number) return false;
      const p = (a.versions[number] as number) + 1, q = (b.versions[number] as number) + 1;
      if (x[number] === p && y[number] === q) continue;
      const page = a.page(number * PAGE_SIZE), other = b.page(number * PAGE_SIZE);
      if (page !== other && Buffer.compare(page, other) !== 0) return false;
      x[number] = p;
      y[number] = q;
    }
    return true;
  }
}
