/**
 * Telling policies apart by what they do, not by what they are called.
 *
 * @module
 */
import { createHash } from "node:crypto";
import { hexOf } from "../hex.ts";
import type { Policy } from "../policy.ts";

const known = new WeakMap<Policy, string>();

/** Text that is another for another value: functions by their source, objects by their properties. */
function textOf(value: unknown, seen: Map<object, number>): string {
  if (typeof value === "function") return `f${JSON.stringify(String(value))}`;
  if (typeof value === "bigint") return `${value}n`;
  if (typeof value !== "object" || value === null) return JSON.stringify(value) ?? "-";
  const before = seen.get(value);
  if (before !== undefined) return `#${before}`;
  seen.set(value, seen.size);
  if (value instanceof Map || value instanceof Set || Array.isArray(value)) {
    return `[${[...value].map((item) => textOf(item, seen)).join()}]`;
  }
  if (ArrayBuffer.isView(value)) {
    return `b${hexOf(new Uint8Array(value.buffer, value.byteOffset, value.byteLength))}`;
  }
  const properties = Object.entries(value).filter(([name]) => name !== "doc");
  return `{${
    properties.sort(([a], [b]) => a < b ? -1 : 1).map(([name, item]) =>
      `${JSON.stringify(name)}:${textOf(item, seen)}`
    ).join()
  }}`;
}

/**
 * A fingerprint of a policy: its steps in their order with their code, what handles their failures,
 * its checks, kernel and processor, and its name. What a step's code refers to outside of itself is
 * not in it.
 *
 * @param policy The policy.
 * @returns 32 hexadecimal digits.
 */
export function policyFingerprint(policy: Policy): string {
  const found = known.get(policy);
  if (found !== undefined) return found;
  const text = textOf(policy, new Map());
  const made = createHash("sha256").update(text).digest("hex").slice(0, 32);
  known.set(policy, made);
  return made;
}
