/**
 * Logged runs that are shown whole, as a debugger sees them, and differ only in registers that are copied.
 *
 * Where all of vmcb12 is seen, hardly any VMRUN is like another: L2's registers are others each time, and
 * L1's. Hypervisor and processor copy those and go by none of them. What a #VMEXIT leaves in such a word
 * is what was there before, or what L2 left. So a run that contradicts nothing speaks for those like it
 * whose #VMEXIT shows what was there before wherever its own does.
 *
 * @module
 */
import { CHECK_SETS } from "../checks/sets.ts";
import { ContentNumbers } from "../content_numbers.ts";
import type { Image } from "../event.ts";
import { fieldNamed } from "../image/fields.ts";
import type { Layout } from "../layout.ts";
import { C } from "../svm/machine.ts";
import { wordAt } from "../svm/page_word.ts";
import { REGS_LAYOUT } from "../svm/regs_layout.ts";
import { VMCB_LAYOUT } from "../svm/vmcb_fields.ts";
import { numberOfCaps, numberOfMask, numberOfMemory, TOLD_TO_L1 } from "./logged_content.ts";
import { exitCodeOf, type LoggedRun } from "./logged_runs.ts";

/** Registers of L2 in vmcb12, but for those that some check reads. */
const OF_L2 = [
  ...["rip", "rsp", "rax", "cr2", "fs_base", "gs_base", "kernel_gs_base"],
  ...["star", "lstar", "cstar", "sfmask", "sysenter_cs", "sysenter_esp", "sysenter_eip"],
].map((name) => `save.${name}`)
  .filter((name) =>
    !CHECK_SETS.some(({ checks }) => checks.some(({ reads }) => reads.includes(name)))
  );

/** Registers of L1's. Its RAX is vmcb12's address. */
const OF_L1 = [
  ...["rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp", "cr2"],
  ...["r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"],
];

/** Numbers of the words of fields of 8 bytes. */
function wordsOf(layout: Layout, names: readonly string[]): number[] {
  return names.flatMap((name) => {
    const word = fieldNamed(layout, name).offset >> 2;
    return [word, word + 1];
  });
}

/** Words of an image: those that are only copied, and the others. */
class Split {
  readonly copied: readonly number[];
  readonly others: Uint16Array;

  constructor(layout: Layout, names: readonly string[]) {
    this.copied = wordsOf(layout, names);
    const copied = new Set(this.copied);
    const all = Array.from({ length: layout.size >> 2 }, (_, word) => word);
    this.others = Uint16Array.from(all.filter((word) => !copied.has(word)));
  }
}

const BEFORE = new Split(VMCB_LAYOUT, OF_L2);
const AFTER = new Split(VMCB_LAYOUT, [...OF_L2, ...TOLD_TO_L1]);
const REGS = new Split(REGS_LAYOUT, OF_L1);
/** Where words of L1's registers begin among places. */
const REGS_AT = VMCB_LAYOUT.size >> 2;

const INVALID = 0xffffffff;
const EVENT_VALID = 0x80000000;

/** A logged run that is shown whole. */
interface Whole {
  readonly before: Image;
  readonly after: Image;
  readonly regs: Image | undefined;
  readonly regsAfter: Image | undefined;
}

/** A run that L2 went through and that is shown whole; undefined for others, and where events are about. */
function wholeOf(run: LoggedRun): Whole | undefined {
  const { way, check, exit, vmcb12: before, regs } = run;
  const after = exit?.vmcb12;
  if (way !== "vmrun" || check !== undefined || after === undefined) return undefined;
  if (!isWhole(VMCB_LAYOUT, before) || !isWhole(VMCB_LAYOUT, after)) return undefined;
  if (exitCodeOf(run) === INVALID) return undefined;
  // An event that is injected anew is told by L2's RIP.
  if (wordAt(before.bytes, C.event_inj) !== 0) return undefined;
  if ((wordAt(after.bytes, C.exit_int_info) & EVENT_VALID) !== 0) return undefined;
  const regsAfter = exit?.regs;
  if (!showsCopied(regs) || !showsCopied(regsAfter)) return undefined;
  return { before, after, regs, regsAfter };
}

function isWhole(layout: Layout, { bytes, known }: Image): boolean {
  return known === undefined && bytes.length === layout.size;
}

const whetherShown = new WeakMap<Uint8Array, boolean>();

/** Whether an image of L1's registers, if there is one, shows all of those that are only copied. */
function showsCopied(image: Image | undefined): boolean {
  if (image === undefined) return true;
  const { bytes, known } = image;
  if (bytes.length !== REGS_LAYOUT.size) return false;
  if (known === undefined) return true;
  let shown = whetherShown.get(known);
  if (shown === undefined) {
    shown = REGS.copied.every((word) => wordAt(known, 4 * word) === 0xffffffff);
    whetherShown.set(known, shown);
  }
  return shown;
}

const contents = new ContentNumbers();
const scratch = new Int32Array(2 * (VMCB_LAYOUT.size + REGS_LAYOUT.size));
const numbers = new WeakMap<LoggedRun, number>();

/**
 * A number for all of a logged run that is shown whole but for registers that are only copied.
 *
 * @param run The run, in which L2 ran.
 * @returns The number, the same for the same; 0 for a run that is not shown whole.
 */
export function copiedContentOf(run: LoggedRun): number {
  let number = numbers.get(run);
  if (number === undefined) numbers.set(run, number = find(run));
  return number;
}

function find(run: LoggedRun): number {
  const whole = wholeOf(run);
  if (whole === undefined) return 0;
  const { caps, kvm, stopped, l2rip, rip, vmcb12Gpa, memory } = run;
  let at = 0;
  const add = (word: number) => scratch[at++] = word;
  const addWide = (value: bigint | undefined) => {
    add(value === undefined ? 0 : 1);
    add(Number(BigInt.asIntN(32, value ?? 0n)));
    add(Number(BigInt.asIntN(32, (value ?? 0n) >> 32n)));
  };
  add(numberOfCaps(caps));
  add((kvm ? 1 : 0) | (stopped ? 2 : 0) | (l2rip === undefined ? 0 : 4));
  addWide(rip);
  addWide(vmcb12Gpa);
  add(memory.size === 0 ? 0 : numberOfMemory(memory));
  const addImage = (image: Image | undefined, { others }: Split) => {
    if (image === undefined) {
      add(-1);
      return;
    }
    const { bytes, known } = image;
    add(known === undefined ? 0 : numberOfMask(known));
    for (let i = 0; i < others.length; i++) add(wordAt(bytes, 4 * (others[i] as number)));
  };
  addImage(whole.before, BEFORE);
  addImage(whole.after, AFTER);
  addImage(whole.regs, REGS);
  addImage(whole.regsAfter, REGS);
  return contents.of(scratch, at);
}

/** Whether a run's #VMEXIT shows at a place what was there before. */
function staysAt({ before, after, regs, regsAfter }: Whole, place: number): boolean {
  return place < REGS_AT
    ? sameWord(before, after, place)
    : regs === undefined || regsAfter === undefined || sameWord(regs, regsAfter, place - REGS_AT);
}

function sameWord(a: Image, b: Image, word: number): boolean {
  return wordAt(a.bytes, 4 * word) === wordAt(b.bytes, 4 * word);
}

/**
 * Places at which a run's #VMEXIT shows what was there before, so that the one or the other may be copied
 * there.
 *
 * @param run The run, for which {@linkcode copiedContentOf} has a number.
 * @param among Places to look at; all when left out.
 */
export function openPlaces(run: LoggedRun, among: readonly number[] = PLACES): readonly number[] {
  const whole = wholeOf(run);
  return whole === undefined ? [] : among.filter((place) => staysAt(whole, place));
}

const PLACES: readonly number[] = [
  ...BEFORE.copied,
  ...REGS.copied.map((word) => REGS_AT + word),
];

/**
 * Whether a run's #VMEXIT shows what was there before wherever another's does.
 *
 * @param run The run.
 * @param open The other's {@linkcode openPlaces}.
 */
export function staysOpen(run: LoggedRun, open: readonly number[]): boolean {
  const whole = wholeOf(run);
  return whole !== undefined && open.every((place) => staysAt(whole, place));
}
