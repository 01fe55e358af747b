/**
 * Filling in what a log does not show: several ways to complete a vmcb12 and
 * L1's registers, all of them with what was recorded. What comes out the same
 * for each does not depend on the unknown.
 *
 * @module
 */
import type { Image } from "../event.ts";
import type { Field, Layout } from "../layout.ts";
import {
  fieldMask,
  fieldNamed,
  fitImage,
  knownWordsOf,
  overlayImage,
  readBigint,
  readField,
  writeField,
} from "../image/fields.ts";
import type { Check } from "../checks/sets.ts";
import type { Capabilities } from "../svm/machine.ts";
import { REGS_LAYOUT } from "../svm/regs_layout.ts";
import { wholeVerdicts } from "../checks/check_verdict.ts";
import type { Evidence } from "../checks/verdict.ts";
import { witness } from "../checks/witness.ts";
import { SAVE_AREA, VMCB_LAYOUT, VMCB_SIZE } from "../svm/vmcb_fields.ts";

/** A complete state that what was recorded allows. */
export interface Assumption {
  /** vmcb12. */
  readonly vmcb12: Uint8Array;
  /** L1's registers, of layout `regs`; shared where nothing was seen of them. */
  readonly regs: Uint8Array;
  /** What L2 leaves in its VMCB as it stops, where that is not what was there. */
  readonly l2: Image | undefined;
}

/** Bytes at the end of the address space that no memory backs. */
export const HOLE = 0x10000;

/** In how many ways the unknown is filled in. */
export const VARIANTS = 4;

/** A vmcb12 that passes all checks: L2 in 64-bit mode. */
const VALID: Readonly<Record<string, bigint>> = {
  "control.intercept_word4": 3n,
  "control.asid": 1n,
  "control.msrpm_base_pa": 0x30000n,
  "control.iopm_base_pa": 0x34000n,
  "save.es_attrib": 0xc93n,
  "save.cs_attrib": 0xa9bn,
  "save.ss_attrib": 0xc93n,
  "save.ds_attrib": 0xc93n,
  "save.fs_attrib": 0xc93n,
  "save.gs_attrib": 0xc93n,
  "save.tr_attrib": 0x8bn,
  "save.ldtr_attrib": 0x82n,
  "save.efer": 0x1500n,
  "save.cr4": 0x20n,
  "save.cr3": 0x40000n,
  "save.cr0": 0x80000011n,
  "save.dr7": 0x400n,
  "save.dr6": 0xffff0ff0n,
  "save.rflags": 2n,
  "save.g_pat": 0x0007040600070406n,
};

/** L1 in 64-bit mode, about to execute VMRUN. */
const L1: Readonly<Record<string, bigint>> = {
  rflags: 2n,
  cr0: 0x80000011n,
  cr3: 0x1000n,
  cr4: 0x20n,
  efer: 0x1500n,
  dr6: 0xffff0ff0n,
  dr7: 0x400n,
  hsave_pa: 0x20000n,
  cs_attrib: 0xa9bn,
  cs_limit: 0xffffffffn,
  gif: 1n,
};

/** L1 in 32-bit PAE mode, where loading CR3 loads PDPTEs too. */
const L1_PAE: Readonly<Record<string, bigint>> = {
  ...L1,
  efer: 0x1000n,
  cs_attrib: 0xc9bn,
  cr3: 0x2000n,
};

/** Fields without a say in what happens: any value is as good as another. */
const INERT =
  /^save\.(rip|rsp|rax|cr2|star|lstar|cstar|sfmask|kernel_gs_base|sysenter_|[defgs]s_base|last_)|^control\.(exit_|tsc_offset|next_rip|guest_instr)|^(r[a-d]x|r[sd]i|rbp|rsp|r\d+|cr2|dr[0-3])$/;

/** A value that depends on nothing but a name and a number. */
function arbitrary(name: string, seed: number): bigint {
  let h = Math.imul(seed, 0x9e3779b1);
  for (let i = 0; i < name.length; i++) h = Math.imul(h ^ name.charCodeAt(i), 0x85ebca6b);
  h ^= h >>> 15;
  const low = Math.imul(h, 0xc2b2ae35) >>> 0;
  // Canonical, and below any limit of addresses.
  return BigInt(low & 0x7fffffff);
}

function fill(row: Field, image: Image, bytes: Uint8Array, value: bigint): void {
  const seen = readField(image, row);
  writeField(bytes, row, seen.value | value & fieldMask(row) & ~seen.known);
}

/** What an image is filled up with. */
function fillingOf(layout: Layout, valueOf: (row: Field) => bigint): Uint8Array {
  const bytes = new Uint8Array(layout.size);
  for (const row of layout.fields) writeField(bytes, row, valueOf(row) & fieldMask(row));
  return bytes;
}

/** Fills up what is unknown of an image. */
function fillUp(layout: Layout, seen: Image, filling: Uint8Array): Uint8Array {
  const filled = filling.slice();
  overlayImage(filled, fitImage(layout, seen));
  return filled;
}

/** By variant. */
const VMCB_FILLINGS: Uint8Array[] = [];

function vmcbFilling(variant: number): Uint8Array {
  return VMCB_FILLINGS[variant] ??= fillingOf(VMCB_LAYOUT, (row) => {
    if (variant >= 2 && INERT.test(row.name)) return arbitrary(row.name, variant);
    // An event to inject that nobody saw may be there.
    if (variant === 2 && row.name === "control.event_inj") return 0x80000202n;
    return VALID[row.name] ?? 0n;
  });
}

/** Fields that L2 leaves as it stops: those of its save area, and the #VMEXIT's reason. */
const LEFT_BY_L2: ReadonlySet<Field> = new Set(
  VMCB_LAYOUT.fields.filter(({ name, offset, size }) =>
    size <= 8 &&
    (offset >= SAVE_AREA ||
      /^control\.exit_(code|code_hi|info_[12]|int_info|int_info_err)$/.test(name))
  ),
);

/** The bits of those fields. */
export const LEFT_BITS: Uint8Array = new Uint8Array(VMCB_SIZE);
for (const { offset, size } of LEFT_BY_L2) LEFT_BITS.fill(0xff, offset, offset + size);
/** Numbers of the words that they are in. */
export const LEFT_WORDS: Uint16Array = knownWordsOf(LEFT_BITS);

/** By variant. */
const L2_LEFT: Image[] = [];

function leftByL2(variant: number): Image | undefined {
  return variant < 2 ? undefined : L2_LEFT[variant] ??= arbitraryLeft(variant);
}

function arbitraryLeft(variant: number): Image {
  const bytes = new Uint8Array(VMCB_SIZE), known = new Uint8Array(VMCB_SIZE);
  for (const row of LEFT_BY_L2) {
    if (!INERT.test(row.name)) continue;
    writeField(bytes, row, arbitrary(row.name, variant + 8) & fieldMask(row));
    known.fill(0xff, row.offset, row.offset + row.size);
  }
  return { bytes, known, knownWords: knownWordsOf(known) };
}

/** By variant; those of a log that shows no registers apart. */
const REGS_FILLINGS: Record<"seen" | "unseen", Uint8Array[]> = { seen: [], unseen: [] };

function fillRegs(seen: Image | undefined, variant: number): Uint8Array {
  const fillings = REGS_FILLINGS[seen === undefined ? "unseen" : "seen"];
  const filling = fillings[variant] ??= regsFilling(seen !== undefined, variant);
  return seen === undefined ? filling : fillUp(REGS_LAYOUT, seen, filling);
}

/** Whether these are registers that every logged run begins with of which nothing was seen of them. */
export function sharedRegs(regs: Uint8Array): boolean {
  return REGS_FILLINGS.unseen.includes(regs);
}

function regsFilling(seen: boolean, variant: number): Uint8Array {
  const state = variant === 3 && !seen ? L1_PAE : L1;
  return fillingOf(REGS_LAYOUT, ({ name }) => {
    if (name === "gif") return BigInt(1 - variant % 2);
    return variant >= 2 && INERT.test(name) ? arbitrary(name, variant) : state[name] ?? 0n;
  });
}

/** Sets the unknown bits of the fields that a check reads so that it ends as asked. */
function settle(
  check: Check,
  caps: Capabilities,
  seen: Image,
  now: Image,
  fails: boolean,
): boolean {
  const rows = check.reads.map((name) => fieldNamed(VMCB_LAYOUT, name));
  const mixed = { bytes: now.bytes.slice(), known: new Uint8Array(VMCB_SIZE).fill(0xff) };
  for (const row of rows) {
    const { known } = readField(seen, row);
    writeField(mixed.known, row, known);
  }
  const values = witness(check, caps, mixed, fails);
  if (values === undefined) return false;
  for (const row of rows) writeField(now.bytes, row, values.get(row.name) ?? 0n);
  return true;
}

/** One input that was not seen, as one state has it, all others as another state has them. */
export interface Mixture {
  /** The input: `vmcb12 FIELD` or `L1 FIELD`. */
  readonly name: string;
  /** The state. */
  readonly state: Assumption;
}

/** What a logged run shows of the inputs. */
export interface Seen {
  /** vmcb12. */
  readonly vmcb12: Image;
  /** L1's registers. */
  readonly regs: Image | undefined;
}

/**
 * States between two that both fit what was seen: each with one of the unseen
 * inputs taken from the other.
 *
 * @param seen What was seen.
 * @param from Where all inputs but one come from.
 * @param other Where the one comes from.
 */
export function* mixtures(seen: Seen, from: Assumption, other: Assumption): Generator<Mixture> {
  for (const row of VMCB_LAYOUT.fields) {
    const value = readBigint(other.vmcb12, row);
    if (readBigint(from.vmcb12, row) === value) continue;
    if (readField(seen.vmcb12, row).known === fieldMask(row)) continue;
    const vmcb12 = from.vmcb12.slice();
    writeField(vmcb12, row, value);
    yield { name: `vmcb12 ${row.name}`, state: { ...from, vmcb12 } };
  }
  for (const row of REGS_LAYOUT.fields) {
    const value = readBigint(other.regs, row);
    if (readBigint(from.regs, row) === value) continue;
    const regs = from.regs.slice();
    writeField(regs, row, value);
    yield { name: `L1 ${row.name}`, state: { ...from, regs } };
  }
}

const MSRPM = fieldNamed(VMCB_LAYOUT, "control.msrpm_base_pa");

/**
 * A complete state with what was recorded.
 *
 * @param checks The checks of the kernel that was recorded, in order.
 * @param caps What the processor and the hypervisor can do.
 * @param vmcb12 vmcb12, as far as it was seen.
 * @param regs L1's registers, as far as they were seen.
 * @param evidence Which checks passed, and which failed.
 * @param variant Which of the {@linkcode VARIANTS} ways of filling in.
 * @returns The state, or undefined when no state is known that fits what was recorded.
 */
export function assume(
  checks: readonly Check[],
  caps: Capabilities,
  vmcb12: Image,
  regs: Image | undefined,
  evidence: Evidence,
  variant: number,
): Assumption | undefined {
  const now = { bytes: fillUp(VMCB_LAYOUT, vmcb12, vmcbFilling(variant)) };
  const failed = checks.find((check) => check.id === evidence.failed);
  if (evidence.failed !== undefined && failed === undefined) return undefined;
  // CR3 is loaded after the other checks: in long mode those have looked at it already.
  if (failed?.group === "cr3") leaveLongMode(vmcb12, now.bytes);
  if (failed !== undefined && !settle(failed, caps, vmcb12, now, true)) return undefined;
  let verdictOf = wholeVerdicts(caps, now.bytes);
  for (const check of checks) {
    if (check === failed) break;
    if (check.restore === true || evidence.passed?.has(check.id) === false) continue;
    if (verdictOf(check) !== "fails") continue;
    if (!settle(check, caps, vmcb12, now, false)) return undefined;
    verdictOf = wholeVerdicts(caps, now.bytes);
  }
  if (evidence.unreadable === true) {
    fill(MSRPM, vmcb12, now.bytes, (1n << BigInt(caps.physicalBits)) - BigInt(HOLE));
    verdictOf = wholeVerdicts(caps, now.bytes);
  }
  if (failed !== undefined && verdictOf(failed) === "passes") return undefined;
  return {
    vmcb12: now.bytes,
    regs: fillRegs(regs, variant),
    l2: leftByL2(variant),
  };
}

/**
 * The same state filled in in another way. The ways differ in fields that no check reads, so that
 * this is what {@linkcode assume} gives, where that gives the state.
 *
 * @param state The state, filled in in the first way.
 * @param vmcb12 vmcb12, as far as it was seen.
 * @param regs L1's registers, as far as they were seen.
 * @param variant Which of the {@linkcode VARIANTS} ways of filling in.
 */
export function refill(
  state: Assumption,
  vmcb12: Image,
  regs: Image | undefined,
  variant: number,
): Assumption {
  const words = apartFromFirst(variant);
  return {
    vmcb12: words.length === 0 ? state.vmcb12 : refilled(state.vmcb12, vmcb12, words, variant),
    regs: fillRegs(regs, variant),
    l2: leftByL2(variant),
  };
}

function refilled(
  first: Uint8Array,
  seen: Image,
  words: Uint16Array,
  variant: number,
): Uint8Array {
  const { known } = fitImage(VMCB_LAYOUT, seen);
  if (known === undefined) return first;
  const filling = vmcbFilling(variant), bytes = first.slice();
  for (let i = 0; i < words.length; i++) {
    for (let k = 0, at = 4 * words[i]!; k < 4; k++, at++) {
      bytes[at] = bytes[at]! & known[at]! | filling[at]! & ~known[at]!;
    }
  }
  return bytes;
}

/** By variant. */
const APART: Uint16Array[] = [];

/** Words of vmcb12 that are filled in otherwise than in the first way. */
function apartFromFirst(variant: number): Uint16Array {
  return APART[variant] ??= knownWordsOf(
    vmcbFilling(variant).map((byte, at) => byte ^ vmcbFilling(0)[at]!),
  );
}

function leaveLongMode(seen: Image, bytes: Uint8Array): void {
  const values: Readonly<Record<string, bigint>> = {
    "save.efer": 0x1000n,
    "save.cs_attrib": 0xc9bn,
    "save.cr3": 0x50000n,
  };
  for (const [name, value] of Object.entries(values)) {
    fill(fieldNamed(VMCB_LAYOUT, name), seen, bytes, value);
  }
}
