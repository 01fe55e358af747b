/**
 * Long texts of events, short: what is remembered of a trace must not grow with what somebody put
 * into a name.
 *
 * @module
 */
import { Buffer } from "node:buffer";
import { createHash } from "node:crypto";
import type { TraceEvent } from "./event.ts";

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

function long(text: string | undefined): boolean {
  return text !== undefined && text.length > MOST_LETTERS;
}

/** Whether one of an event's texts is long; of kinds whose texts are remembered by nobody, none is. */
function isLong(event: TraceEvent): boolean {
  switch (event.kind) {
    case "case":
      return long(event.name) || long(event.spec);
    case "check":
      return long(event.check) || long(event.text);
    case "warn":
      return long(event.text);
    case "inner":
      return long(event.at);
    case "regs":
      return long(event.phase);
    case "inject":
    case "unmodelled":
      return long(event.what);
    default:
      return false;
  }
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
