/**
 * The lab's text of registers, bookkeeping and VMCB words, to and from the
 * images that trace events hold.
 *
 * @module
 */
import type { Image } from "../../engine/event.ts";
import { fitImage } from "../../engine/image/fields.ts";
import { type Field, offsets } from "../../engine/layout.ts";
import { CPU_FIELDS, INNER_LAYOUT, NESTED_FIELDS } from "../../engine/svm/inner_layout.ts";
import { REGS_FIELDS, REGS_LAYOUT } from "../../engine/svm/regs_layout.ts";
import { SAVE_AREA, VMCB_SIZE } from "../../engine/svm/vmcb_fields.ts";
import {
  type LabInner,
  type LabState,
  STATE_FLAG_KEYS,
  STATE_HEX_KEYS,
  type WordMap,
} from "./record.ts";

/** An image being filled, with the mask of what is known of it. */
class Draft {
  readonly bytes: Uint8Array;
  readonly known: Uint8Array;
  readonly #view: DataView;
  readonly #mask: DataView;

  constructor(size: number) {
    this.bytes = new Uint8Array(size);
    this.known = new Uint8Array(size);
    this.#view = new DataView(this.bytes.buffer);
    this.#mask = new DataView(this.known.buffer);
  }

  /** Sets `size` bytes, of which the bits of `mask` are known. */
  set(offset: number, size: number, value: bigint, mask = ~0n): void {
    if (BigInt.asUintN(8 * size, value) !== value) {
      throw new RangeError(`${value.toString(16)} does not fit ${size} bytes`);
    }
    switch (size) {
      case 1:
        this.#view.setUint8(offset, Number(value));
        this.#mask.setUint8(offset, Number(mask & 0xffn));
        break;
      case 2:
        this.#view.setUint16(offset, Number(value), true);
        this.#mask.setUint16(offset, Number(mask & 0xffffn), true);
        break;
      case 4:
        this.#view.setUint32(offset, Number(value), true);
        this.#mask.setUint32(offset, Number(mask & 0xffffffffn), true);
        break;
      default:
        this.#view.setBigUint64(offset, value, true);
        this.#mask.setBigUint64(offset, BigInt.asUintN(64, mask), true);
    }
  }
}

/** Reads an image with its mask. */
class Reader {
  readonly #view: DataView;
  readonly #mask: DataView | undefined;

  constructor(image: Image) {
    const { bytes, known } = image;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    this.#mask = known && new DataView(known.buffer, known.byteOffset, known.length);
  }

  /** The value, or `undefined` when not all of the bits of `mask` are known. */
  get(offset: number, size: number, mask = ~0n): bigint | undefined {
    const wanted = BigInt.asUintN(8 * size, mask);
    if (this.#mask && (read(this.#mask, offset, size) & wanted) !== wanted) return undefined;
    return read(this.#view, offset, size) & wanted;
  }
}

function read(view: DataView, offset: number, size: number): bigint {
  switch (size) {
    case 1:
      return BigInt(view.getUint8(offset));
    case 2:
      return BigInt(view.getUint16(offset, true));
    case 4:
      return BigInt(view.getUint32(offset, true));
    default:
      return view.getBigUint64(offset, true);
  }
}

const R = offsets(REGS_FIELDS);
/** L and DB within packed segment attributes. */
const CS_BITS = 0x600n;
const STATE_FLAGS = { ...pick(STATE_FLAG_KEYS), trip: "triple_fault" } as const;
/** The parts of the event texts, in the lab's order, and the radix of each. */
const EVENT_TEXTS = {
  ev_exc: [
    ["exception_injected", 1, 10],
    ["exception_pending", 1, 10],
    ["exception_vector", 1, 16],
    ["exception_error", 4, 16],
  ],
  ev_int: [["interrupt_injected", 1, 10], ["interrupt_vector", 1, 10]],
  ev_nmi: [["nmi_injected", 1, 10], ["nmi_pending", 1, 10], ["nmi_masked", 1, 10]],
} as const;

function pick<const K extends string>(keys: readonly K[]): { readonly [P in K]: P } {
  return Object.fromEntries(keys.map((key) => [key, key])) as { readonly [P in K]: P };
}

/**
 * The registers and flags of a state as an image of layout `regs`.
 *
 * @param state What userspace saw.
 * @returns The image; what the state does not say is masked out.
 * @throws {RangeError} When a number does not fit its field.
 * @example
 * ```ts
 * import { regsImage, stateOf } from "@vmtape/vmtape/codecs";
 * const image = regsImage({ rip: "9000", cs: "8/1/0", ev_exc: "0/0/e/9" });
 * if (JSON.stringify(stateOf(image)) !== '{"rip":"9000","cs":"8/1/0","ev_exc":"0/0/e/9"}') {
 *   throw new Error();
 * }
 * ```
 */
export function regsImage(state: LabState): Image {
  const draft = new Draft(REGS_LAYOUT.size);
  for (const key of [...STATE_HEX_KEYS, "vmcb_pa"] as const) {
    const text = state[key];
    if (text !== undefined) draft.set(R[key], 8, BigInt(`0x${text}`));
  }
  for (const key of STATE_FLAG_KEYS) {
    const value = state[key];
    if (value !== undefined) draft.set(R[STATE_FLAGS[key]], 1, BigInt(value));
  }
  if (state.cs !== undefined) {
    const [selector, long, big] = state.cs.split("/");
    draft.set(R.cs_selector, 2, BigInt(`0x${selector}`));
    // What is no flag is what a failed ioctl left: the attributes stay unknown.
    if (/^[01]$/.test(long!) && /^[01]$/.test(big!)) {
      draft.set(R.cs_attrib, 2, BigInt(long!) << 9n | BigInt(big!) << 10n, CS_BITS);
    }
  }
  if (state.ss !== undefined) draft.set(R.ss_selector, 2, BigInt(`0x${state.ss}`));
  for (const key of ["ev_exc", "ev_int", "ev_nmi"] as const) {
    const parts = state[key]?.split("/");
    if (!parts) continue;
    EVENT_TEXTS[key].forEach(([name, size, radix], i) => {
      draft.set(R[name], size, BigInt(radix === 16 ? `0x${parts[i]}` : parts[i]!));
    });
  }
  return { bytes: draft.bytes, known: draft.known };
}

/**
 * What an image of layout `regs` says, in the lab's text.
 *
 * @param image The image.
 * @returns The state; what is not known of it is absent.
 * @example
 * ```ts
 * import { regsImage, stateOf } from "@vmtape/vmtape/codecs";
 * if (stateOf(regsImage({ gif: 1 })).gif !== 1) throw new Error();
 * ```
 */
export function stateOf(image: Image): LabState {
  const reader = new Reader(fitImage(REGS_LAYOUT, image));
  const out: { -readonly [K in keyof LabState]: LabState[K] } = {};
  for (const key of STATE_HEX_KEYS) {
    const value = reader.get(R[key], 8);
    if (value !== undefined) out[key] = value.toString(16);
  }
  const selector = reader.get(R.cs_selector, 2);
  const bits = reader.get(R.cs_attrib, 2, CS_BITS);
  if (selector !== undefined && bits !== undefined) {
    out.cs = `${selector.toString(16)}/${bits >> 9n & 1n}/${bits >> 10n}`;
  }
  const ss = reader.get(R.ss_selector, 2);
  if (ss !== undefined) out.ss = ss.toString(16);
  for (const key of STATE_FLAG_KEYS) {
    const value = reader.get(R[STATE_FLAGS[key]], 1);
    if (value !== undefined) out[key] = Number(value);
  }
  const pa = reader.get(R.vmcb_pa, 8);
  if (pa !== undefined) out.vmcb_pa = pa.toString(16);
  for (const key of ["ev_exc", "ev_int", "ev_nmi"] as const) {
    const parts = EVENT_TEXTS[key].map(([name, size, radix]) =>
      reader.get(R[name], size)?.toString(radix)
    );
    if (!parts.includes(undefined)) out[key] = parts.join("/");
  }
  return out;
}

/**
 * The bookkeeping of an inner state as an image of layout `inner`.
 *
 * @param inner What the kernel printed.
 * @returns The image; what it did not print is masked out.
 * @throws {RangeError} When a number does not fit its field.
 * @example
 * ```ts
 * import { bookkeepingOf, innerImage } from "@vmtape/vmtape/codecs";
 * const image = innerImage({ nested: { ret: "-22", active: "02" } });
 * if (JSON.stringify(bookkeepingOf(image)) !== '{"nested":{"ret":"-22","active":"02"}}') {
 *   throw new Error();
 * }
 * ```
 */
export function innerImage(inner: Pick<LabInner, "nested" | "cpu">): Image {
  const draft = new Draft(INNER_LAYOUT.size);
  const fill = (fields: readonly Field[], texts: Readonly<Record<string, string | undefined>>) => {
    for (const field of fields) {
      const text = texts[field.name];
      if (text !== undefined) draft.set(field.offset, field.size, innerValue(field, text));
    }
  };
  fill(NESTED_FIELDS, inner.nested);
  if (inner.cpu) fill(CPU_FIELDS, inner.cpu);
  return { bytes: draft.bytes, known: draft.known };
}

function innerValue(field: Field, text: string): bigint {
  if (field.values) {
    const value = Object.entries(field.values).find(([, name]) => name === text)?.[0];
    if (value === undefined) throw new RangeError(`"${text}" is no value of ${field.name}`);
    return BigInt(value);
  }
  if (field.name === "ret") {
    const value = BigInt(text);
    const low = BigInt.asUintN(32, value);
    if (BigInt.asIntN(32, low) !== value) throw new RangeError(`${text} does not fit ret`);
    return low;
  }
  return BigInt(field.name === "exc_vec" ? text : `0x${text}`);
}

/**
 * What an image of layout `inner` says, in the lab's text.
 *
 * @param image The image.
 * @returns `nested`, and `cpu` when any of it is known.
 * @example
 * ```ts
 * import { bookkeepingOf, innerImage } from "@vmtape/vmtape/codecs";
 * if (bookkeepingOf(innerImage({ nested: { mmu: "guest" } })).nested.mmu !== "guest") throw new Error();
 * ```
 */
export function bookkeepingOf(image: Image): Pick<LabInner, "nested" | "cpu"> {
  const reader = new Reader(fitImage(INNER_LAYOUT, image));
  const texts = (fields: readonly Field[]) => {
    const out: Record<string, string> = {};
    for (const field of fields) {
      const value = reader.get(field.offset, field.size);
      if (value !== undefined) out[field.name] = innerText(field, value);
    }
    return out;
  };
  const nested = texts(NESTED_FIELDS);
  const cpu = texts(CPU_FIELDS);
  return Object.keys(cpu).length > 0 ? { nested, cpu } : { nested };
}

function innerText(field: Field, value: bigint): string {
  if (field.values) return field.values[Number(value)] ?? value.toString(16);
  if (field.name === "ret") return BigInt.asIntN(32, value).toString();
  return value.toString(field.name === "exc_vec" ? 10 : 16);
}

/**
 * The image that words of memory make.
 *
 * @param words Non-zero words by offset.
 * @param size Size of the image in bytes.
 * @returns The image; every byte of it is known.
 * @example
 * ```ts
 * import { wordsImage, wordsOf } from "@vmtape/vmtape/codecs";
 * const image = wordsImage({ "070": "0000000000000081" }, 4096);
 * if (image.bytes[0x70] !== 0x81 || wordsOf(image.bytes)["070"] !== "0000000000000081") throw new Error();
 * ```
 */
export function wordsImage(words: WordMap, size: number): Image {
  const bytes = new Uint8Array(size);
  fillWords(bytes, words, 0);
  return { bytes };
}

function fillWords(bytes: Uint8Array, words: WordMap, base: number): void {
  const view = new DataView(bytes.buffer);
  for (const [offset, word] of Object.entries(words)) {
    view.setBigUint64(base + parseInt(offset, 16), BigInt(`0x${word}`), true);
  }
}

/**
 * The non-zero words of some bytes.
 *
 * @param bytes The bytes; the last word is filled up with zeros.
 * @returns Words by offset, in order.
 * @example
 * ```ts
 * import { wordsOf } from "@vmtape/vmtape/codecs";
 * if (Object.keys(wordsOf(new Uint8Array(64))).length !== 0) throw new Error();
 * ```
 */
export function wordsOf(bytes: Uint8Array): WordMap {
  let view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const rest = bytes.length % 8;
  if (rest !== 0) {
    const padded = new Uint8Array(bytes.length + 8 - rest);
    padded.set(bytes);
    view = new DataView(padded.buffer);
  }
  const out: Record<string, string> = {};
  for (let offset = 0; offset < view.byteLength; offset += 8) {
    const low = view.getUint32(offset, true);
    const high = view.getUint32(offset + 4, true);
    if (low === 0 && high === 0) continue;
    const word = high.toString(16).padStart(8, "0") + low.toString(16).padStart(8, "0");
    out[offset.toString(16).padStart(3, "0")] = word;
  }
  return out;
}

/**
 * The VMCB that words of its two areas make.
 *
 * @param control Words of the control area, if shown.
 * @param save Words of the save area, if shown.
 * @returns The image, an area that is not shown masked out; `undefined` when neither is.
 * @example
 * ```ts
 * import { vmcbAreas, vmcbImage } from "@vmtape/vmtape/codecs";
 * const image = vmcbImage({}, undefined);
 * if (!image || vmcbAreas(image).control === undefined || vmcbAreas(image).save !== undefined) {
 *   throw new Error();
 * }
 * ```
 */
export function vmcbImage(control?: WordMap, save?: WordMap): Image | undefined {
  if (!control && !save) return undefined;
  const bytes = new Uint8Array(VMCB_SIZE);
  if (control) fillWords(bytes, control, 0);
  if (save) fillWords(bytes, save, SAVE_AREA);
  if (control && save) return { bytes };
  const known = new Uint8Array(VMCB_SIZE);
  if (control) known.fill(0xff, 0, SAVE_AREA);
  else known.fill(0xff, SAVE_AREA);
  return { bytes, known };
}

/**
 * The words of a VMCB's two areas.
 *
 * @param image The VMCB.
 * @returns The words of each area that is known.
 * @example
 * ```ts
 * import { vmcbAreas } from "@vmtape/vmtape/codecs";
 * if (vmcbAreas({ bytes: new Uint8Array(4096) }).save === undefined) throw new Error();
 * ```
 */
export function vmcbAreas(image: Image): { control?: WordMap; save?: WordMap } {
  const { bytes, known } = image;
  const out: { control?: WordMap; save?: WordMap } = {};
  if (!known || known[0] === 0xff) out.control = wordsOf(bytes.subarray(0, SAVE_AREA));
  if (!known || known[SAVE_AREA] === 0xff) out.save = wordsOf(bytes.subarray(SAVE_AREA));
  return out;
}
