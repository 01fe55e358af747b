/**
 * Events as text: one line each, the same from every reader of the format.
 *
 * @module
 */
import { crc32 } from "node:zlib";
import type { Image, TraceEvent } from "../engine/event.ts";
import { hexOf } from "../engine/hex.ts";
import { CODING, PLAN_BY_KIND } from "./container/schema.ts";
import { visible } from "./visible.ts";

/**
 * An event in one line: number, time in nanoseconds or `-`, vCPU, kind, then `name=value` for every
 * field it has, in the order of the event table, a trace's own for kinds that this code does not
 * know. Numbers of 64 bits are hexadecimal, texts and maps
 * are JSON, an image is its size and the CRC-32 of its bytes, and of its mask where it has one.
 *
 * @param number Number of the event in its trace.
 * @param event The event.
 * @returns The line, without an end.
 * @example
 * ```ts
 * import { formatEvent } from "@vmtape/vmtape/codecs";
 * const line = formatEvent(7, { kind: "vmrun", vcpu: 0, time: 1500, vmcb12_gpa: 0x10000n });
 * if (line !== "7 1500 0 vmrun vmcb12_gpa=0x10000") throw new Error(line);
 * ```
 */
export function formatEvent(number: number, event: TraceEvent): string {
  let line = `${number} ${event.time ?? "-"} ${event.vcpu} ${event.kind}`;
  const values = event as unknown as Record<string, unknown>;
  for (const field of PLAN_BY_KIND.get(event.kind)?.fields ?? []) {
    const value = values[field.name];
    if (value !== undefined) line += ` ${field.name}=${formatValue(field.coding, value)}`;
  }
  if (PLAN_BY_KIND.has(event.kind)) return line;
  for (const [name, value] of Object.entries(values)) {
    if (COMMON.has(name) || value === undefined) continue;
    line += ` ${name}=${formatValue(codingOf(value), value)}`;
  }
  return line;
}

const COMMON: ReadonlySet<string> = new Set(["kind", "vcpu", "time"]);

/** How a value of a field is coded that this code's own event table does not have. */
function codingOf(value: unknown): number {
  if (typeof value === "bigint") return CODING.u64;
  if (typeof value === "string") return CODING.text;
  if (typeof value !== "object" || value === null) return CODING.u32;
  return (value as Partial<Image>).bytes instanceof Uint8Array ? CODING.image : CODING.map;
}

function formatValue(coding: number, value: unknown): string {
  switch (coding) {
    case CODING.u64:
      return `0x${(value as bigint).toString(16)}`;
    case CODING.text:
    case CODING.map:
      return json(value);
    case CODING.image:
      return formatImage(value as Image);
    default:
      return String(value);
  }
}

function formatImage(image: Image): string {
  const known = image.known ? `/${hex(crc32(image.known))}` : "";
  return `${image.bytes.length}:${hex(crc32(image.bytes))}${known}`;
}

function hex(value: number): string {
  return value.toString(16).padStart(8, "0");
}

/** JSON, with bigints as plain numbers and bytes as hexadecimal text. */
function json(value: unknown): string {
  if (typeof value === "bigint") return String(value);
  if (value instanceof Uint8Array) return `"0x${hexOf(value)}"`;
  if (Array.isArray(value)) return `[${value.map(json).join(",")}]`;
  if (typeof value === "object" && value !== null) {
    const entries = Object.entries(value);
    return `{${
      entries.map(([key, entry]) => `${visible(JSON.stringify(key))}:${json(entry)}`).join(",")
    }}`;
  }
  return visible(JSON.stringify(value));
}
