/**
 * How much of memory an event takes while it is kept.
 *
 * @module
 */
import type { Image, TraceEvent } from "./event.ts";

/** What an object takes besides what is in it, in bytes. */
const OBJECT = 64;

/**
 * What it takes to keep an event, in bytes: about, for those who keep only so much.
 *
 * @param event The event.
 * @returns The bytes of its images, texts and maps, and of the objects they are in.
 */
export function eventWeight(event: TraceEvent): number {
  let sum = 2 * OBJECT;
  for (const value of Object.values(event)) {
    if (typeof value === "object") {
      const { bytes, known } = value as Partial<Image>;
      sum += bytes instanceof Uint8Array
        ? 2 * OBJECT + bytes.length + (known?.length ?? 0)
        : weightOf(value);
    } else if (typeof value === "string") sum += value.length;
  }
  return sum;
}

/**
 * What it takes to keep a value of JSON, in bytes: about.
 *
 * @param value The value.
 * @returns The bytes of its texts, and of the objects they are in.
 */
export function weightOf(value: unknown): number {
  if (typeof value === "string") return OBJECT / 2 + value.length;
  if (typeof value !== "object" || value === null) return OBJECT / 8;
  let sum = OBJECT;
  for (const [key, item] of Object.entries(value)) sum += OBJECT / 2 + key.length + weightOf(item);
  return sum;
}
