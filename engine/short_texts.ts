/**
 * Long texts of events, short: what is remembered of a trace must not grow with what somebody put
 * into a name.
 *
 * @module
 */
import { Buffer } from "node:buffer";
import { createHash } from "node:crypto";
import { type EventRow, EVENTS, type TraceEvent } from "./event.ts";

/** Letters of a text that are kept. What kernels, scenarios and policies say is shorter. */
const MOST_LETTERS = 512;

/**
 * A text, short.
 *
 * @param text The text.
 * @returns The same; of a long one its beginning and a digest, without a reference to the long one.
 */
export function shortText(text: string): string {
  if (text.length <= MOST_LETTERS) return text;
  const digest = createHash("sha256").update(text).digest("hex").slice(0, 16);
  return `${Buffer.from(text.slice(0, MOST_LETTERS)).toString()}… (${digest})`;
}

/** The fields of each kind of event that are texts. */
const TEXTS: Readonly<Record<string, readonly string[]>> = Object.fromEntries(
  EVENTS.map(({ kind, fields }: EventRow) =>
    [kind, fields.filter(({ type }) => type === "text").map(({ name }) => name)] as const
  ),
);

/** Whether one of an event's texts is long. */
function isLong(event: TraceEvent): boolean {
  const names = TEXTS[event.kind] as readonly string[];
  for (let i = 0; i < names.length; i++) {
    const text = (event as unknown as Readonly<Record<string, unknown>>)[names[i] as string];
    if (typeof text === "string" && text.length > MOST_LETTERS) return true;
  }
  return false;
}

/**
 * An event whose texts are short.
 *
 * @param event The event.
 * @returns The same where none of its texts is long, else one with short ones.
 */
export function shortTexts(event: TraceEvent): TraceEvent {
  if (!isLong(event)) return event;
  return Object.fromEntries(
    Object.entries(event).map(([name, value]) =>
      [name, typeof value === "string" ? shortText(value) : value] as const
    ),
  ) as unknown as TraceEvent;
}
