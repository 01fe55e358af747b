/**
 * What consistency checks say of one vmcb12 after another. A check is asked again only where what it
 * reads is something else: most VMRUNs of a log agree in most of it.
 *
 * @module
 */
import { ContentNumbers } from "../content_numbers.ts";
import type { Image } from "../event.ts";
import type { Capabilities, Machine } from "../svm/machine.ts";
import { wordAt } from "../svm/page_word.ts";
import { VMCB_SIZE } from "../svm/vmcb_fields.ts";
import type { Check } from "./check.ts";
import { type CheckVerdict, checkVerdict } from "./check_verdict.ts";
import { halvesOf, machineOf, rowsOf } from "./witness.ts";

/** What is known of one check and the fields it reads. */
export interface Answer {
  /** What it says. */
  readonly verdict: CheckVerdict;
  /** What would have to be known to tell, once somebody asked. */
  needs: readonly string[] | undefined;
}

/** Answers about one check that are kept at most. */
const MOST_ANSWERS = 4096;

/** By the content of the fields that a check reads. */
const answers = new WeakMap<Machine, Map<Check, Map<number, Answer>>>();
const contents = new ContentNumbers();
const content = new Int32Array(VMCB_SIZE);

function answerOf(check: Check, caps: Capabilities, image: Image): Answer {
  const machine = machineOf(caps);
  let ofMachine = answers.get(machine);
  if (ofMachine === undefined) answers.set(machine, ofMachine = new Map());
  let known = ofMachine.get(check);
  if (known === undefined) ofMachine.set(check, known = new Map());
  const key = contentOf(check, image);
  let answer = known.get(key);
  if (answer === undefined) {
    if (known.size >= MOST_ANSWERS) known.clear();
    known.set(key, answer = { verdict: checkVerdict(check, caps, image), needs: undefined });
  }
  return answer;
}

/** The number of what the fields that a check reads hold, and of what is known of them. */
function contentOf(check: Check, image: Image): number {
  let at = 0;
  for (const row of rowsOf(check)) {
    const { low, high, knownLow, knownHigh } = halvesOf(image, row);
    content[at++] = low & knownLow;
    content[at++] = high & knownHigh;
    content[at++] = knownLow;
    content[at++] = knownHigh;
  }
  return contents.of(content, at);
}

/** What some checks say of an image. */
export interface Answers {
  /** What one of them says, by its place among them. */
  at(index: number): Answer;
}

/**
 * What checks say of an image.
 *
 * @param checks The checks.
 * @param caps What the processor and the hypervisor can do.
 * @param image vmcb12, as far as it is known.
 * @returns The answers, until somebody asks about another image.
 */
export function answersOf(checks: readonly Check[], caps: Capabilities, image: Image): Answers {
  const { known, knownWords } = image;
  if (known === undefined || knownWords === undefined) {
    return { at: (index) => answerOf(checks[index]!, caps, image) };
  }
  const machine = machineOf(caps);
  let ofMachine = asked.get(machine);
  if (ofMachine === undefined) asked.set(machine, ofMachine = new WeakMap());
  let images = ofMachine.get(known);
  if (images === undefined) ofMachine.set(known, images = new AskedImages(knownWords));
  return images.answersOf(checks, caps, image);
}

/** By what is known of images, which is the same object for most of a log's. */
const asked = new WeakMap<Machine, WeakMap<Uint8Array, AskedImages>>();

/** Images of which the same bits are known. */
class AskedImages {
  readonly #words: Uint16Array;
  /** What the known words of the last image are, and since which turn. */
  readonly #values: Uint32Array;
  readonly #since: Uint32Array;
  #turn = 0;
  readonly #sets = new WeakMap<readonly Check[], KeptAnswers>();

  constructor(words: Uint16Array) {
    this.#words = words;
    this.#values = new Uint32Array(words.length);
    this.#since = new Uint32Array(words.length);
  }

  answersOf(checks: readonly Check[], caps: Capabilities, image: Image): Answers {
    this.#take(image);
    let kept = this.#sets.get(checks);
    if (kept === undefined) {
      this.#sets.set(checks, kept = new KeptAnswers(checks, this.#words, this.#since));
    }
    kept.begin(caps, image, this.#turn);
    return kept;
  }

  #take({ bytes }: Image): void {
    const words = this.#words, values = this.#values, since = this.#since;
    const turn = this.#turn + 1;
    let another = this.#turn === 0;
    for (let i = 0; i < words.length; i++) {
      const value = wordAt(bytes, 4 * (words[i] as number));
      if (values[i] === value) continue;
      values[i] = value;
      since[i] = turn;
      another = true;
    }
    if (another) this.#turn = turn;
  }
}

/** What checks said of images of which the same bits are known. */
class KeptAnswers implements Answers {
  readonly #checks: readonly Check[];
  readonly #since: Uint32Array;
  /** For each check the places of the known words that it reads. */
  readonly #reads: readonly (readonly number[])[];
  readonly #answers: (Answer | undefined)[];
  /** The turns in which they were asked for. */
  readonly #asked: Uint32Array;
  #caps!: Capabilities;
  #image!: Image;
  #turn = 0;

  constructor(checks: readonly Check[], words: Uint16Array, since: Uint32Array) {
    this.#checks = checks;
    this.#since = since;
    this.#reads = checks.map((check) =>
      [...words.keys()].filter((place) => {
        const at = 4 * (words[place] as number);
        return rowsOf(check).some(({ offset, size }) => offset < at + 4 && at < offset + size);
      })
    );
    this.#answers = checks.map(() => undefined);
    this.#asked = new Uint32Array(checks.length);
  }

  begin(caps: Capabilities, image: Image, turn: number): void {
    this.#caps = caps;
    this.#image = image;
    this.#turn = turn;
  }

  at(index: number): Answer {
    const known = this.#answers[index];
    if (known !== undefined && !this.#stale(index)) return known;
    const answer = answerOf(this.#checks[index]!, this.#caps, this.#image);
    this.#answers[index] = answer;
    this.#asked[index] = this.#turn;
    return answer;
  }

  #stale(index: number): boolean {
    const asked = this.#asked[index] as number;
    if (asked === this.#turn) return false;
    const reads = this.#reads[index] as readonly number[], since = this.#since;
    for (let i = 0; i < reads.length; i++) {
      if ((since[reads[i] as number] as number) > asked) return true;
    }
    this.#asked[index] = this.#turn;
    return false;
  }
}
