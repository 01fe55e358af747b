/**
 * What decides the answers about a logged run. Runs that are alike in it need to be carried out once only.
 *
 * A VMRUN of a guest at work comes again and again from another place in L2's code, and with another
 * address in the #VMEXIT's information. Hypervisor and processor copy those and go by none of them.
 *
 * @module
 */
import { createHash } from "node:crypto";
import { ContentNumbers, MOST_CONTENTS } from "../content_numbers.ts";
import type { Image } from "../event.ts";
import { copyImage, fieldNamed, readField, writeField } from "../image/fields.ts";
import type { Capabilities } from "../svm/machine.ts";
import { wordAt } from "../svm/page_word.ts";
import { VMCB_LAYOUT } from "../svm/vmcb_fields.ts";
import type { LoggedRun } from "./logged_runs.ts";

/** Fields of the recorded #VMEXIT that are L1's to look at. */
export const TOLD_TO_L1: readonly string[] = ["control.exit_info_1", "control.exit_info_2"];
/** Where L2 begins. */
export const L2_RIP = "save.rip";

const TOLD = new Set(TOLD_TO_L1.flatMap(wordsOf));
const [RIP_LOW, RIP_HIGH] = wordsOf(L2_RIP) as [number, number];
const NONE: ReadonlySet<number> = new Set();
const RIP: ReadonlySet<number> = new Set([RIP_LOW, RIP_HIGH]);

function wordsOf(name: string): number[] {
  const { offset } = fieldNamed(VMCB_LAYOUT, name);
  return [offset >> 2, (offset >> 2) + 1];
}

/** Words of an image that are looked at one by one; one with more of them is digested. */
const MOST_WORDS = 256;
/** Gives texts numbers; there are few. */
class Names {
  readonly #known = new Map<string, number>();
  #last = 0;

  of(text: string): number {
    let id = this.#known.get(text);
    if (id === undefined) {
      if (this.#known.size === MOST_CONTENTS) this.#known.clear();
      this.#known.set(text, id = ++this.#last);
    }
    return id;
  }
}

const names = new Names();
const contents = new ContentNumbers();
const ofCaps = new WeakMap<Capabilities, number>();
const ofMemory = new WeakMap<LoggedRun["memory"], number>();
const ofImage = new WeakMap<Image, number>();
const ofMask = new WeakMap<Uint8Array, number>();

function numberOf<T extends object>(
  known: WeakMap<T, number>,
  of: T,
  text: (of: T) => string,
): number {
  let id = known.get(of);
  if (id === undefined) known.set(of, id = names.of(text(of)));
  return id;
}

/** A number for what a machine can do. */
export function numberOfCaps(caps: Capabilities): number {
  return numberOf(ofCaps, caps, textOfCaps);
}

/** A number for pages of guest memory. */
export function numberOfMemory(memory: LoggedRun["memory"]): number {
  return numberOf(ofMemory, memory, textOfMemory);
}

/** A number for what is known of an image. */
export function numberOfMask(known: Uint8Array): number {
  return numberOf(ofMask, known, textOfMask);
}

function textOfCaps({ physicalBits, npt, cpuid, processor }: Capabilities): string {
  return ["caps", physicalBits, npt, cpuid?.key, processor?.name].join("|");
}

function textOfMemory(memory: LoggedRun["memory"]): string {
  const hash = createHash("sha256");
  for (const [at, { bytes, known }] of memory) {
    hash.update(`${at} ${bytes.length} ${known === undefined}`).update(bytes);
    if (known !== undefined) hash.update(known);
  }
  return `memory|${hash.digest("base64")}`;
}

function textOfMask(known: Uint8Array): string {
  return `mask|${known.length}|${createHash("sha256").update(known).digest("base64")}`;
}

function textOfImage({ bytes, known }: Image): string {
  const hash = createHash("sha256").update(bytes);
  if (known !== undefined) hash.update(known);
  return `image|${bytes.length}|${known === undefined}|${hash.digest("base64")}`;
}

/** Words of what is being looked at, one after the other. */
class Words {
  list = new Int32Array(4096);
  length = 0;

  add(word: number): void {
    this.list[this.length++] = word;
  }

  addWide(value: bigint | undefined): void {
    if (value === undefined) {
      this.add(0);
      return;
    }
    this.add(1);
    this.add(Number(BigInt.asIntN(32, value)));
    this.add(Number(BigInt.asIntN(32, value >> 32n)));
  }

  /** Adds an image but for some words. */
  addImage(image: Image | undefined, without: ReadonlySet<number>): void {
    if (image === undefined) {
      this.add(0);
      return;
    }
    const start = this.length;
    if (this.#addWords(image, without)) return;
    this.length = start;
    this.add(1);
    this.add(numberOf(ofImage, image, textOfImage));
  }

  /** Of what is not known, bytes are 0. */
  #addWords(image: Image, without: ReadonlySet<number>): boolean {
    const { known, knownWords } = image;
    if (known === undefined || knownWords === undefined || knownWords.length > MOST_WORDS) {
      return false;
    }
    const { list } = this;
    let at = this.length;
    list[at++] = 2;
    list[at++] = numberOfMask(known);
    for (let i = 0; i < knownWords.length; i++) {
      const word = knownWords[i] as number;
      if (!without.has(word)) list[at++] = wordOf(image, word);
    }
    this.length = at;
    return true;
  }
}

const scratch = new Words();

/** A word of an image that may not be there. */
function wordOf(image: Image | undefined, word: number): number {
  const bytes = image?.bytes, at = 4 * word;
  if (bytes === undefined || at + 4 > bytes.length) return 0;
  return wordAt(bytes, at);
}

/** Whether a #VMEXIT shows anything of L2's RIP. */
function showsRip({ bytes, known }: Image): boolean {
  const from = 4 * RIP_LOW;
  for (let i = from; i < from + 8 && i < bytes.length; i++) {
    if (known === undefined || known[i] !== 0) return true;
  }
  return false;
}

/** Adds all but vmcb12, before and after, and L2's RIP. */
function addNamed(
  { caps, kvm, way, stopped, rip, vmcb12Gpa, check, regs, exit, memory }: LoggedRun,
) {
  scratch.add(numberOfCaps(caps));
  scratch.add((kvm ? 1 : 0) | (way === "rsm" ? 2 : 0) | (stopped ? 4 : 0) | (exit ? 8 : 0));
  scratch.addWide(rip);
  scratch.addWide(vmcb12Gpa);
  scratch.add(check === undefined ? 0 : names.of(`check|${check.id}|${check.text}`));
  scratch.add(memory.size === 0 ? 0 : numberOfMemory(memory));
  scratch.addImage(regs, NONE);
  scratch.addImage(exit?.regs, NONE);
}

/** Numbers for what decides about a logged run: those of two runs are the same where that is. */
export class LoggedContent {
  readonly #words: Int32Array;
  readonly #toExit: number;
  /** Of all but what is only copied where L2 runs and stops. */
  readonly entered: number;
  #refused = 0;
  #all = 0;

  /** @param run The run. */
  constructor(run: LoggedRun) {
    const { exit, vmcb12, l2rip } = run;
    scratch.length = 0;
    addNamed(run);
    // Where the #VMEXIT shows L2's RIP, that is held against what was there before.
    const shows = exit?.vmcb12 !== undefined && showsRip(exit.vmcb12);
    scratch.addImage(vmcb12, shows ? NONE : RIP);
    scratch.addImage(exit?.vmcb12, TOLD);
    scratch.add(l2rip === undefined ? 0 : 1);
    if (shows) scratch.addWide(l2rip);
    const entered = scratch.length;
    for (const word of TOLD) scratch.add(wordOf(exit?.vmcb12, word));
    this.#toExit = scratch.length;
    if (!shows) {
      scratch.addWide(l2rip);
      for (const word of RIP) scratch.add(wordOf(vmcb12, word));
    }
    this.#words = scratch.list.slice(0, scratch.length);
    this.entered = contents.of(this.#words, entered);
  }

  /** Of all but what is only copied where L2 never runs. */
  get refused(): number {
    if (this.#refused === 0) this.#refused = contents.of(this.#words, this.#toExit);
    return this.#refused;
  }

  /** Of everything in it but its place in the trace. */
  get all(): number {
    if (this.#all === 0) this.#all = contents.of(this.#words, this.#words.length);
    return this.#all;
  }
}

// Several replays look at one run.
const ofRun = new WeakMap<LoggedRun, LoggedContent>();

/** A logged run's content, in numbers. */
export function contentOf(run: LoggedRun): LoggedContent {
  let content = ofRun.get(run);
  if (content === undefined) ofRun.set(run, content = new LoggedContent(run));
  return content;
}

/** Values that are like none that a kernel or a processor sets, nor like one another. */
const OTHERS = [
  [0x2e1f_6b4d_0a93n, 0x15c8_37d2_4e61n, 0x43a7_90fe_b825n, 0x6d02_c419_573bn],
  [0x5b90_1e7c_d348n, 0x3264_a8f5_91bcn, 0x0af3_5d26_7ec9n, 0x78d1_42b9_6057n],
] as const;

/**
 * A logged run with other values in what is only copied, none like another. What two policies part in
 * alike with either, they part in with any.
 *
 * @param run The run.
 * @returns Two with the same {@linkcode LoggedContent.entered}.
 */
export function withOtherCopies(run: LoggedRun): LoggedRun[] {
  const { exit, vmcb12, l2rip } = run;
  const shows = exit?.vmcb12 !== undefined && showsRip(exit.vmcb12);
  return OTHERS.map(([rip, left, ...told]) => ({
    ...run,
    ...(shows ? {} : {
      vmcb12: withValues(vmcb12, [L2_RIP], [rip]),
      l2rip: l2rip === undefined ? undefined : left,
    }),
    exit: exit && { ...exit, vmcb12: exit.vmcb12 && withValues(exit.vmcb12, TOLD_TO_L1, told) },
  }));
}

/** An image with other values in fields, as far as they are known. */
function withValues(image: Image, names: readonly string[], values: readonly bigint[]): Image {
  // What is digested counts whole.
  if (image.known === undefined) return image;
  const copy = copyImage(image);
  names.forEach((name, i) => {
    const row = fieldNamed(VMCB_LAYOUT, name);
    const { known } = readField(image, row);
    writeField(copy.bytes, row, values[i]! & known);
  });
  return copy;
}
