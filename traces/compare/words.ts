/**
 * The bytes in which two records differ, by the names of the fields they belong to.
 *
 * @module
 */
import type { WordMap } from "../../codecs/lab/types.ts";
import type { Field } from "../../engine/layout.ts";
import { SAVE_AREA, VMCB_LAYOUT } from "../../engine/svm/vmcb_fields.ts";
import type { Differ, Group } from "./groups.ts";

/** Fields of a VMCB by the 8-byte word they begin in or reach into. */
const FIELDS_BY_WORD = new Map<number, Field[]>();
for (const field of VMCB_LAYOUT.fields) {
  for (let at = field.offset & ~7; at < field.offset + field.size; at += 8) {
    const list = FIELDS_BY_WORD.get(at);
    if (list) list.push(field);
    else FIELDS_BY_WORD.set(at, [field]);
  }
}

/**
 * Compares words.
 *
 * @param group Group that differences count in.
 * @param name What the words are of, as fields name it.
 * @param base Where they are within a VMCB; `undefined` when they are not of one.
 * @param a The first record's.
 * @param b The second's.
 * @param differ Takes the differences.
 * @param skip Offsets to leave out.
 */
export function words(
  group: Group,
  name: string,
  base: number | undefined,
  a: WordMap | undefined,
  b: WordMap | undefined,
  differ: Differ,
  skip: (offset: string) => boolean = () => false,
): void {
  if (!a && !b) return;
  if (!a || !b) return differ(group, name, a && "present", b && "present");
  for (const offset of [...new Set([...Object.keys(a), ...Object.keys(b)])].sort()) {
    const x = a[offset] ?? ZERO;
    const y = b[offset] ?? ZERO;
    if (x === y || skip(offset)) continue;
    if (base === undefined) differ(group, `${name}+0x${offset}`, x, y);
    else word(group, name, base + parseInt(offset, 16), x, y, differ);
  }
}

const ZERO = "0".repeat(16);

/** The fields of one word that differ, and what of it is in none. */
function word(group: Group, name: string, at: number, a: string, b: string, differ: Differ): void {
  const parted = (from: number, size: number) => {
    const start = 16 - 2 * (from + size);
    const x = a.slice(start, start + 2 * size);
    const y = b.slice(start, start + 2 * size);
    return [x, y] as const;
  };
  const covered = new Set<number>();
  for (const field of FIELDS_BY_WORD.get(at) ?? []) {
    const from = Math.max(field.offset, at) - at;
    const size = Math.min(field.offset + field.size, at + 8) - at - from;
    for (let i = 0; i < size; i++) covered.add(from + i);
    const [x, y] = parted(from, size);
    differ(group, `${name} ${field.name}`, short(x), short(y));
  }
  for (let i = 0; i < 8; i++) {
    const [x, y] = parted(i, 1);
    if (covered.has(i) || x === y) continue;
    return differ(group, `${name} ${place(at)}`, a, b);
  }
}

/** The name of bytes that no field covers. */
function place(at: number): string {
  const hex = (value: number) => `0x${value.toString(16).padStart(3, "0")}`;
  return at < SAVE_AREA ? `control+${hex(at)}` : `save+${hex(at - SAVE_AREA)}`;
}

function short(hex: string): string {
  return hex.replace(/^0+(?=.)/, "");
}
