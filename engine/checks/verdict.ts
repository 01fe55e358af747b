/**
 * What consistency checks would say of a vmcb12 of which only a part is known.
 *
 * An answer has three values. A check fails or passes only if it does so
 * whatever the unknown bits are.
 *
 * @module
 */
import type { Image } from "../event.ts";
import type { Field } from "../layout.ts";
import { fieldMask, fieldNamed, readBigint, readField, writeField } from "../image/fields.ts";
import type { Check } from "./sets.ts";
import type { Cpuid } from "../svm/cpuid.ts";
import { type Capabilities, Machine, VMCB12_AT } from "../svm/machine.ts";
import { VMCB_LAYOUT, VMCB_SIZE } from "../svm/vmcb_fields.ts";

/** What a check, or a set of checks, says: `unknown` when what is known does not settle it. */
export type CheckVerdict = "passes" | "fails" | "unknown";

/** What a recording says of the checks themselves, beyond the bits it shows. */
export interface Evidence {
  /** Ids of checks that passed. */
  readonly passed?: ReadonlySet<string>;
  /** Id of the check that failed. */
  readonly failed?: string | undefined;
  /** VMRUN was refused with no check failing: the MSR permission map could not be read. */
  readonly unreadable?: boolean;
}

/** What a set of checks says of one vmcb12. */
export interface SetVerdict {
  /** What it says. */
  readonly verdict: CheckVerdict;
  /** The first check that certainly fails, when one does. */
  readonly check: string | undefined;
  /**
   * What would have to be known to tell: names of fields, of what L1's CPUID says (`cpu.la57`; `cpu.pa`,
   * its address width), and of what lies outside the VMCB.
   */
  readonly needs: readonly string[];
}

/**
 * Values of a field that differ in its unknown bits, so chosen that a predicate
 * on bits holds for one of them if it holds for any. The first ones stay close
 * to what is there, so that other checks keep their answer.
 */
function* candidates(row: Field, there: bigint, known: bigint): Generator<bigint> {
  const unknown = fieldMask(row) & ~known;
  yield there;
  if (unknown === 0n) return;
  const base = there & known;
  yield base;
  yield base | unknown;
  const bits = unknownBits(unknown);
  for (const bit of bits) yield there ^ bit;
  for (const bit of bits) {
    yield base | bit;
    yield base | unknown & ~bit;
  }
}

/** How many of a field's candidates are tried while another field goes through all of its own. */
const EXTREMES = 3;

function unknownBits(unknown: bigint): bigint[] {
  const bits: bigint[] = [];
  for (let bit = 1n; bit <= unknown; bit <<= 1n) if ((unknown & bit) !== 0n) bits.push(bit);
  return bits;
}

const machines = new Map<string, Machine>();
// The same by the object: making the text takes longer than most checks.
const machinesByCaps = new WeakMap<Capabilities, Machine>();

function machineOf(caps: Capabilities): Machine {
  let machine = machinesByCaps.get(caps);
  if (machine === undefined) {
    const key = `${caps.physicalBits} ${caps.npt} ${caps.cpuid?.key}`;
    machine = machines.get(key);
    if (machine === undefined) {
      machine = new Machine({ ...caps, memory: 1 << 16 });
      machines.set(key, machine);
    }
    machinesByCaps.set(caps, machine);
  }
  return machine;
}

/** Widths that processors have: the least and the most. */
const LEAST_BITS = 32, MOST_BITS = 52;

/**
 * A machine with all of L1's CPUID decided that is unknown: with as little, or as much, as may be.
 * More never makes a check fail that would pass with less.
 */
function decided(caps: Capabilities, most: boolean): Capabilities {
  const { cpuid } = caps;
  if (cpuid === undefined || cpuid.whole) return caps;
  const known = most ? decidedMost : decidedLeast;
  let answer = known.get(caps);
  if (answer === undefined) known.set(caps, answer = decide(caps, cpuid, most));
  return answer;
}

const decidedMost = new WeakMap<Capabilities, Capabilities>();
const decidedLeast = new WeakMap<Capabilities, Capabilities>();

function decide(caps: Capabilities, cpuid: Cpuid, most: boolean): Capabilities {
  const width = cpuid.physicalBits ?? (most ? MOST_BITS : LEAST_BITS);
  return { ...caps, cpuid: cpuid.decided(most, width), physicalBits: width };
}

/** An image of a VMCB's size: what a short one lacks is unknown. */
function whole(image: Image): Image {
  const { size } = VMCB_LAYOUT;
  if (image.bytes.length === size) return image;
  const bytes = new Uint8Array(size), known = new Uint8Array(size);
  bytes.set(image.bytes.subarray(0, size));
  known.set((image.known ?? new Uint8Array(image.bytes.length).fill(0xff)).subarray(0, size));
  return { bytes, known };
}

/** A check's fields and what is known of them. */
class Question {
  readonly #check: Check;
  readonly #caps: Capabilities;
  #m: Machine;
  #page: Uint8Array;
  readonly #image: Image;
  readonly #rows: readonly Field[];

  constructor(check: Check, caps: Capabilities, image: Image) {
    this.#check = check;
    this.#image = whole(image);
    this.#caps = caps;
    this.#m = machineOf(caps);
    this.#page = this.#m.bytes.subarray(VMCB12_AT, VMCB12_AT + VMCB_SIZE);
    this.#rows = check.reads.map((name) => fieldNamed(VMCB_LAYOUT, name));
  }

  /**
   * Looks for unknown bits, of the image and of L1's CPUID, with which the check ends as asked.
   *
   * @returns The fields' values, or undefined when there are none.
   */
  witness(fails: boolean): ReadonlyMap<string, bigint> | undefined {
    this.#m = machineOf(decided(this.#caps, !fails));
    this.#page = this.#m.bytes.subarray(VMCB12_AT, VMCB12_AT + VMCB_SIZE);
    this.#page.set(this.#image.bytes);
    // One field goes through all candidates, the others through the extremes.
    for (let turn = 0; turn < Math.max(1, this.#rows.length); turn++) {
      if (this.#search(0, turn, fails)) {
        return new Map(this.#rows.map((row) => [row.name, readBigint(this.#page, row)]));
      }
    }
    return undefined;
  }

  #search(index: number, turn: number, fails: boolean): boolean {
    const row = this.#rows[index];
    if (row === undefined) return this.#check.fails(this.#m, VMCB12_AT) === fails;
    const there = readBigint(this.#image.bytes, row);
    const { known } = readField(this.#image, row);
    let tried = 0;
    for (const candidate of candidates(row, there, known)) {
      if (index !== turn && tried++ >= EXTREMES) break;
      writeField(this.#page, row, candidate);
      if (this.#search(index + 1, turn, fails)) return true;
    }
    return false;
  }
}

/**
 * Unknown bits with which a check fails, or passes.
 *
 * @param check The check.
 * @param caps What the processor and the hypervisor can do.
 * @param image vmcb12, as far as it is known.
 * @param fails Whether it shall fail.
 * @returns Values of the fields that the check reads, or undefined when there are none.
 */
export function witness(
  check: Check,
  caps: Capabilities,
  image: Image,
  fails: boolean,
): ReadonlyMap<string, bigint> | undefined {
  return new Question(check, caps, image).witness(fails);
}

/**
 * What one check says of a vmcb12.
 *
 * @param check The check.
 * @param caps What the processor and the hypervisor can do.
 * @param image vmcb12, as far as it is known.
 * @returns Whether it fails whatever the unknown bits are, passes, or neither is certain.
 * @example
 * ```ts
 * import { checkByText, checkVerdict, VMCB_SIZE } from "@vmtape/vmtape/engine";
 * const caps = { physicalBits: 48, npt: true, memory: 1 << 24 };
 * const unseen = { bytes: new Uint8Array(VMCB_SIZE), known: new Uint8Array(VMCB_SIZE) };
 * const check = checkByText("control->asid == 0")!;
 * if (checkVerdict(check, caps, unseen) !== "unknown") throw new Error();
 * unseen.known.fill(0xff);
 * if (checkVerdict(check, caps, unseen) !== "fails") throw new Error();
 * ```
 */
export function checkVerdict(check: Check, caps: Capabilities, image: Image): CheckVerdict {
  const question = new Question(check, caps, image);
  if (question.witness(true) === undefined) return "passes";
  if (check.beyond !== undefined) return "unknown";
  return question.witness(false) === undefined ? "fails" : "unknown";
}

/** What is known of one check and the fields it reads. */
interface Answer {
  readonly verdict: CheckVerdict;
  /** What would have to be known to tell, once somebody asked. */
  needs: readonly string[] | undefined;
}

/** Answers about one check that are kept at most; most VMRUNs of a log agree in what a check reads. */
const MOST_ANSWERS = 4096;

const answers = new WeakMap<Capabilities, Map<Check, Map<string, Answer>>>();

function answerOf(check: Check, caps: Capabilities, image: Image): Answer {
  let ofCaps = answers.get(caps);
  if (ofCaps === undefined) answers.set(caps, ofCaps = new Map());
  let known = ofCaps.get(check);
  if (known === undefined) ofCaps.set(check, known = new Map());
  const key = contentOf(check, image);
  let answer = known.get(key);
  if (answer === undefined) {
    if (known.size >= MOST_ANSWERS) known.clear();
    known.set(key, answer = { verdict: checkVerdict(check, caps, image), needs: undefined });
  }
  return answer;
}

/**
 * What {@linkcode checkVerdict} says, looked for once for each content of the fields that the check
 * reads and each object that stands for the processor.
 */
export function knownVerdict(check: Check, caps: Capabilities, image: Image): CheckVerdict {
  return answerOf(check, caps, image).verdict;
}

/** The fields that a check reads, and what is known of them, as text. */
function contentOf(check: Check, image: Image): string {
  let text = "";
  for (const name of check.reads) {
    const row = fieldNamed(VMCB_LAYOUT, name);
    // An image may be of another size than a VMCB is today.
    const { value, known } = readField(image, row);
    text += `${value.toString(36)}/${known.toString(36)} `;
  }
  return text;
}

/** Names of the fields of a check that are not wholly known. */
function unknownFields(check: Check, image: Image): string[] {
  return check.reads.filter((name) => {
    const row = fieldNamed(VMCB_LAYOUT, name);
    return readField(image, row).known !== fieldMask(row);
  });
}

/** What of L1's CPUID would settle a check: `cpu.NAME` for each feature without which it would fail, `cpu.pa`. */
function unknownCpuid(check: Check, caps: Capabilities, image: Image): string[] {
  const { cpuid } = caps;
  if (cpuid === undefined) return [];
  const most = decided(caps, true);
  const fails = (changed: Capabilities) => checkVerdict(check, changed, image) !== "passes";
  const names = (check.cpuid ?? []).filter((name) =>
    !cpuid.knows(name) &&
    fails({ ...most, cpuid: most.cpuid!.set(name, !most.cpuid!.has(name)) })
  ).map((name) => `cpu.${name}`);
  if (cpuid.physicalBits === undefined) {
    const narrow = most.cpuid!.withPhysicalBits(LEAST_BITS);
    if (fails({ ...most, cpuid: narrow, physicalBits: LEAST_BITS })) names.push("cpu.pa");
  }
  return names;
}

/**
 * What a set of checks says of a vmcb12.
 *
 * @param checks The set, in order.
 * @param caps What the processor and the hypervisor can do.
 * @param image vmcb12, as far as it is known.
 * @param evidence What is known of the checks from elsewhere.
 * @returns What it says, and what it would take to know more.
 * @example
 * ```ts
 * import { CHECKS_6_12, setVerdict, VMCB_SIZE } from "@vmtape/vmtape/engine";
 * const caps = { physicalBits: 48, npt: true, memory: 1 << 24 };
 * const unseen = { bytes: new Uint8Array(VMCB_SIZE), known: new Uint8Array(VMCB_SIZE) };
 * const { verdict, needs } = setVerdict(CHECKS_6_12.checks, caps, unseen);
 * if (verdict !== "unknown" || !needs.includes("save.cr4")) throw new Error();
 * ```
 */
export function setVerdict(
  checks: readonly Check[],
  caps: Capabilities,
  image: Image,
  evidence: Evidence = {},
): SetVerdict {
  const needs = new Set<string>();
  let known = true;
  for (const check of checks) {
    if (check.id === evidence.failed) return { verdict: "fails", check: check.id, needs: [] };
    if (evidence.passed?.has(check.id)) continue;
    const answer = answerOf(check, caps, image);
    const { verdict } = answer;
    if (verdict === "fails") return { verdict, check: check.id, needs: [] };
    if (verdict === "passes") continue;
    known = false;
    answer.needs ??= [
      ...unknownFields(check, image),
      ...unknownCpuid(check, caps, image),
      ...(check.beyond === undefined ? [] : [check.beyond]),
    ];
    for (const name of answer.needs) needs.add(name);
  }
  return { verdict: known ? "passes" : "unknown", check: undefined, needs: [...needs] };
}
