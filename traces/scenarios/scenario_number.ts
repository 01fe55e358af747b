/**
 * Numbers of a scenario.
 *
 * @module
 */
import type { Fail } from "./scenario_error.ts";

/** What a number looks like. */
export const HEX = /^-?(0[xX])?[0-9a-fA-F]+$/;

/** A hexadecimal number; a minus sign wraps at 64 bits, as the lab's C library does. */
export function hexValue(text: string, fail: Fail, at: number, what = "a value"): bigint {
  if (!HEX.test(text)) {
    fail(`"${text}" is not a number`, `${what} in hexadecimal, with or without 0x`, at);
  }
  const negative = text.startsWith("-");
  const digits = text.replace(/^-?(0[xX])?/, "");
  const value = BigInt(`0x${digits}`);
  if (value >= 1n << 64n) fail(`${text} is wider than 64 bits`, `${what} of at most 16 digits`, at);
  return negative ? BigInt.asUintN(64, -value) : value;
}

/** As the lab keeps it: a C int. */
export function asInt(value: bigint): number {
  return Number(BigInt.asIntN(32, value));
}
