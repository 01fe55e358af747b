/**
 * Events for people, with images field by field, and for machines.
 *
 * @module
 */
import { wordsOf } from "../codecs/lab/views.ts";
import { EVENTS, type FieldType, type Image, type TraceEvent } from "../engine/event.ts";
import { eventLine } from "../engine/event_line.ts";
import { dumpImage } from "../engine/image/dump.ts";
import { fits } from "../engine/image/fields.ts";
import type { Layout } from "../engine/layout.ts";
import { INNER_LAYOUT } from "../engine/svm/inner_layout.ts";
import { REGS_LAYOUT } from "../engine/svm/regs_layout.ts";
import { VMCB_LAYOUT } from "../engine/svm/vmcb_fields.ts";

const LAYOUTS: Partial<Record<FieldType, Layout>> = {
  vmcb: VMCB_LAYOUT,
  regs: REGS_LAYOUT,
  inner: INNER_LAYOUT,
};

interface Named {
  readonly name: string;
  readonly type: FieldType;
}

const FIELDS: ReadonlyMap<string, readonly Named[]> = new Map(
  EVENTS.map((row) => [row.kind, row.fields]),
);

function isImage(value: unknown): value is Image {
  return typeof value === "object" && value !== null &&
    (value as { bytes?: unknown }).bytes instanceof Uint8Array;
}

/** The images of an event with what they are. */
function* imagesOf(event: TraceEvent): Generator<[name: string, type: FieldType, image: Image]> {
  const values = event as unknown as Readonly<Record<string, unknown>>;
  for (const { name, type } of FIELDS.get(event.kind) ?? []) {
    const value = values[name];
    if (isImage(value)) yield [name, type, value];
  }
}

/**
 * What the images of an event hold: a line for each field that is known and not
 * zero; of pages, the words that are not zero.
 *
 * @param event The event.
 * @returns The lines.
 */
export function* decodedLines(event: TraceEvent): Generator<string> {
  for (const [name, type, image] of imagesOf(event)) {
    yield `    ${name}`;
    const layout = LAYOUTS[type];
    if (layout) {
      const rows = dumpImage(layout, image, { onlyNonZero: true, onlyKnown: true });
      for (const { field, text } of rows) yield `        ${field} = ${text}`;
    } else {
      for (const [offset, word] of Object.entries(wordsOf(image.bytes))) {
        yield `        +${offset} = 0x${word}`;
      }
    }
  }
}

/** An image as its size and its 8-byte words that are not zero, by offset, and its mask. */
function imageJson({ bytes, known }: Image) {
  return { size: bytes.length, words: wordsOf(bytes), ...(known ? { known: wordsOf(known) } : {}) };
}

/**
 * An event as a JSON object; nothing of it is lost.
 *
 * @param number Its number in the trace.
 * @param event The event.
 * @returns The object.
 */
export function eventJson(number: number, event: TraceEvent): Record<string, unknown> {
  const out: Record<string, unknown> = { number };
  for (const [key, value] of Object.entries(event)) {
    out[key] = isImage(value) ? imageJson(value) : value;
  }
  return out;
}

/** An image's fields that are known and not zero, by name; of what has no layout, its words. */
function imageFields(type: FieldType, image: Image): Record<string, unknown> {
  const layout = LAYOUTS[type];
  if (layout === undefined || !fits(layout, image)) return imageJson(image);
  const rows = dumpImage(layout, image, { onlyNonZero: true, onlyKnown: true });
  return Object.fromEntries(rows.map(({ field, text }) => [field, text]));
}

/**
 * An event as a JSON object with its images field by field, by name.
 *
 * @param number Its number in the trace.
 * @param event The event.
 * @returns The object.
 */
export function decodedEvent(number: number, event: TraceEvent): Record<string, unknown> {
  const out = { ...eventJson(number, event), text: eventLine(event) };
  return Object.assign(
    out,
    Object.fromEntries(
      [...imagesOf(event)].map(([name, type, image]) => [name, imageFields(type, image)]),
    ),
  );
}
