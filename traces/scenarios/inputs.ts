/**
 * What a scenario hands to a machine, as the images that events hold: L1's
 * registers, nested state, and what RSM reads.
 *
 * @module
 */
import type { EventOf, Image } from "../../engine/event.ts";
import { overlayImage } from "../../engine/image/fields.ts";
import { offsets } from "../../engine/layout.ts";
import { REGS_FIELDS, REGS_SIZE, type RegsFieldName } from "../../engine/svm/regs_layout.ts";
import { SAVE_AREA, SAVE_FIELDS, VMCB_SIZE } from "../../engine/svm/vmcb_fields.ts";
import { baseSegments, L1_CODE, L1_RSP, SMRAM_GPA } from "./base.ts";
import type { ImageArena } from "./image_arena.ts";
import type { LateChange, Scenario } from "./scenario.ts";
import { bytesOf } from "./scenario_memory.ts";
import type { VmRegs } from "./vm.ts";

/** The VMRUN instruction's length in bytes. */
export const VMRUN_LENGTH = 3;

/** KVM_STATE_NESTED_* flags. */
export const NESTED_FLAGS = { guestMode: 1, runPending: 2, gif: 0x100 } as const;

const S = offsets(SAVE_FIELDS, SAVE_AREA);
const R = offsets(REGS_FIELDS);

/**
 * RSM, with the state save area as it reads it.
 *
 * @param late Writes that were made while the handler ran.
 * @param smram The state save area before them, if it was seen.
 * @returns The event.
 */
export function rsmEvent(late: readonly LateChange[], smram: Image | undefined): EventOf<"rsm"> {
  if (smram === undefined) return { kind: "rsm", vcpu: 0 };
  const bytes = smram.bytes.slice();
  for (const change of late) {
    const { gpa } = change;
    if (gpa === undefined) continue;
    bytesOf(change).forEach((byte, i) => {
      const at = gpa + i - SMRAM_GPA;
      if (at >= 0 && at < bytes.length) bytes[at] = byte;
    });
  }
  return { kind: "rsm", vcpu: 0, smram: { bytes } };
}

type Segments = ReturnType<typeof baseSegments>;
type SegmentName = keyof Segments;
/** Segment registers that setting up sets; the others are as a new vCPU has them. */
const SET: readonly SegmentName[] = ["es", "cs", "ss", "ds", "fs", "gs"];
const RESET: readonly SegmentName[] = ["gdtr", "ldtr", "idtr", "tr"];

/** Bytes of a `regs` image, each with its mask. */
class Regs {
  readonly bytes = new Uint8Array(REGS_SIZE);
  readonly known = new Uint8Array(REGS_SIZE);
  readonly words = new Uint32Array(this.bytes.buffer);
  readonly #view = new DataView(this.bytes.buffer);

  set(name: RegsFieldName, value: bigint): void {
    this.#view.setBigUint64(R[name], value, true);
    this.known.fill(0xff, R[name], R[name] + 8);
  }

  segment(name: SegmentName, { selector, attrib, limit, base }: Segments[SegmentName]): void {
    const at = R[`${name}_selector`];
    this.#view.setUint16(at, selector, true);
    this.#view.setUint16(at + 2, attrib, true);
    this.#view.setUint32(at + 4, limit, true);
    this.#view.setBigUint64(at + 8, base, true);
    this.known.fill(0xff, at, at + 16);
  }
}

/** What setting up hands in besides the scenario's own values, made once for each mode of L1. */
const given = [false, true].map((pae) => {
  const regs = new Regs();
  const segments = baseSegments(pae);
  regs.known.fill(0xff, 0, R.rip);
  regs.set("rsp", L1_RSP);
  for (const name of SET) regs.segment(name, segments[name]);
  return regs;
});

/** What a new vCPU has besides. */
const reset = [false, true].map((pae) => {
  const regs = new Regs();
  const segments = baseSegments(pae);
  for (const name of RESET) regs.segment(name, segments[name]);
  for (const name of ["dr0", "dr1", "dr2", "dr3", "cr8"] as const) regs.set(name, 0n);
  return regs;
});

const GENERAL = ["rax", "rip", "rflags"] as const;
const CONTROL = ["cr0", "cr3", "cr4", "efer"] as const;
/** From the first segment register to behind the sixth. */
const SEGMENTS_FROM = R.es_selector, SEGMENTS_TO = R.gdtr_selector;

/**
 * L1's registers before VMRUN: as they were handed in, corrected by what was read back.
 *
 * @param scenario The scenario.
 * @param seen What was read back, if it was.
 * @param begins Whether the machine is new.
 * @param refused Whether KVM refused the control registers and segments.
 * @param images Where its bytes are to be.
 * @returns An image of layout `regs`.
 */
export function l1Regs(
  scenario: Scenario,
  seen: Image | undefined,
  begins: boolean,
  refused: boolean,
  images: ImageArena,
): Image {
  const { l1 } = scenario;
  const mode = l1.pae ? 1 : 0;
  if (seen !== undefined && seen.known === undefined && !refused) {
    return { bytes: wholeL1(scenario, seen.bytes, begins, images) };
  }
  const bytes = new Uint8Array(REGS_SIZE), known = new Uint8Array(REGS_SIZE);
  const view = new DataView(bytes.buffer);
  const overlay = (image: Image) => {
    overlayImage(bytes, image);
    const mask = image.known;
    if (mask === undefined) known.fill(0xff);
    else for (let i = 0; i < known.length; i++) (known[i] as number) |= mask[i] as number;
  };
  const set = (name: RegsFieldName, value: bigint) => {
    view.setBigUint64(R[name], value, true);
    known.fill(0xff, R[name], R[name] + 8);
  };
  const handIn = () => {
    const from = given[mode] as Regs;
    bytes.set(from.bytes.subarray(0, R.rip));
    known.fill(0xff, 0, R.rip);
    for (const name of GENERAL) set(name, l1[name]);
    if (refused) {
      for (const name of CONTROL) {
        bytes.fill(0, R[name], R[name] + 8);
        known.fill(0, R[name], R[name] + 8);
      }
      return;
    }
    bytes.set(from.bytes.subarray(SEGMENTS_FROM, SEGMENTS_TO), SEGMENTS_FROM);
    known.fill(0xff, SEGMENTS_FROM, SEGMENTS_TO);
    for (const name of CONTROL) set(name, l1[name]);
  };
  handIn();
  set("hsave_pa", l1.hsave);
  if (begins) overlay(reset[mode] as Regs);
  if (seen !== undefined) {
    overlay(seen);
    set("hsave_pa", l1.hsave);
    // A vCPU that is taken out of L2 shows vmcb01's segments and flags, not those that were set.
    if (refused || !begins) handIn();
  }
  return known.includes(0) ? { bytes, known } : { bytes };
}

/** The same where everything was read back, and nothing refused. */
function wholeL1(
  { l1 }: Scenario,
  seen: Uint8Array,
  begins: boolean,
  images: ImageArena,
): Uint8Array {
  const bytes = images.copy(seen);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  view.setBigUint64(R.hsave_pa, l1.hsave, true);
  if (begins) return bytes;
  const { words: from } = given[l1.pae ? 1 : 0] as Regs;
  const words = new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.length >> 2);
  for (let i = 0; i < R.rip >> 2; i++) words[i] = from[i] as number;
  for (let i = SEGMENTS_FROM >> 2; i < SEGMENTS_TO >> 2; i++) words[i] = from[i] as number;
  for (const name of GENERAL) view.setBigUint64(R[name], l1[name], true);
  for (const name of CONTROL) view.setBigUint64(R[name], l1[name], true);
  return bytes;
}

/** Bytes of vmcb12's save area that are copied into L1's. */
const COPIED_SAVE = 0x298;

/**
 * What a scenario hands to KVM_SET_NESTED_STATE: vmcb12's control area, and L1's state in its
 * save area.
 *
 * @param scenario The scenario, `entry=setstate`.
 * @param vmcb12 The page that vmcb12 is in.
 * @returns The state, laid out as a VMCB.
 */
export function restoredState(scenario: Scenario, vmcb12: Uint8Array): Uint8Array {
  const state = new Uint8Array(VMCB_SIZE);
  state.set(vmcb12.subarray(0, SAVE_AREA + COPIED_SAVE));
  const view = new DataView(state.buffer);
  const { l1 } = scenario;
  const set = (offset: number, value: bigint) => view.setBigUint64(offset, value, true);
  set(S.efer, l1.efer);
  set(S.cr4, l1.cr4);
  set(S.cr3, l1.cr3);
  set(S.cr0, l1.cr0);
  set(S.dr7, 0x400n);
  set(S.dr6, 0xffff0ff0n);
  set(S.rflags, l1.rflags);
  set(S.rip, BigInt(L1_CODE + VMRUN_LENGTH));
  set(S.rsp, L1_RSP);
  set(S.rax, l1.rax);
  for (const change of scenario.late) {
    if (change.target === "hsave") state.set(bytesOf(change), SAVE_AREA + change.offset);
  }
  return state;
}

/**
 * What is written on the way to the nested state that goes to another machine.
 *
 * @param late The writes of the scenario.
 * @returns The bytes, with the mask of those that are written; undefined for none.
 */
export function changedState(late: readonly LateChange[]): Image | undefined {
  const to = late.filter(({ gpa, size }) => gpa === undefined && size > 0);
  if (to.length === 0) return undefined;
  const bytes = new Uint8Array(VMCB_SIZE), known = new Uint8Array(VMCB_SIZE);
  for (const change of to) {
    const at = change.offset + (change.target === "hsave" ? SAVE_AREA : 0);
    bytes.set(bytesOf(change), at);
    known.fill(0xff, at, at + change.size);
  }
  return { bytes, known };
}

/** L2's registers, which are set before KVM_SET_NESTED_STATE. */
export interface L2Registers extends VmRegs {
  /** CR0. */
  readonly cr0: bigint;
  /** CR3. */
  readonly cr3: bigint;
  /** CR4. */
  readonly cr4: bigint;
  /** EFER. */
  readonly efer: bigint;
}

/**
 * L2's registers, which a restore sets before the nested state: those of vmcb12.
 *
 * @param vmcb12 The page that vmcb12 is in.
 * @returns The registers.
 */
export function l2Registers(vmcb12: Uint8Array): L2Registers {
  const view = new DataView(vmcb12.buffer, vmcb12.byteOffset);
  const word = (name: keyof typeof S) => view.getBigUint64(S[name], true);
  return {
    cr0: word("cr0"),
    cr3: word("cr3"),
    cr4: word("cr4"),
    efer: word("efer"),
    rip: word("rip"),
    rsp: word("rsp"),
    rax: word("rax"),
    rflags: 2n,
  };
}

/**
 * The same as an image of layout `regs`.
 *
 * @param l2 The registers.
 * @returns The image; what is not set is not known.
 */
export function l2Image(l2: L2Registers): Image {
  const regs = new Regs();
  regs.known.fill(0xff, 0, R.rip);
  for (const name of [...CONTROL, ...GENERAL, "rsp"] as const) regs.set(name, l2[name]);
  return { bytes: regs.bytes, known: regs.known };
}
