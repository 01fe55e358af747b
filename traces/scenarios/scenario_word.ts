/**
 * Reading one word of a scenario: the lab's tokens, and changes by field name.
 *
 * @module
 */
import { closest } from "../../engine/closest.ts";
import { type CpuidRegister, FEATURE_NAMES, FEATURES } from "../../engine/svm/cpuid.ts";
import { ENTRIES, TARGETS } from "./scenario.ts";
import type { Fail } from "./scenario_error.ts";
import {
  isL1Register,
  named,
  type Operator,
  SIMPLE,
  uniqueField,
  unknownWord,
} from "./scenario_fields.ts";
import { asInt, hexValue } from "./scenario_number.ts";
import type { Token } from "./scenario_token.ts";

const RAW = /^(?:([csm])|x([csmhrn]))\.([^.]*)(?:\.([^.]*))?$/;

/**
 * Reads one word.
 *
 * @param word The word, without blanks.
 * @param fail Called with what is wrong; does not return.
 * @returns What it means.
 * @example
 * ```ts
 * import { readToken } from "./scenario_word.ts";
 * const token = readToken("c.58.4=0", (message) => { throw new Error(message); });
 * if (token.kind !== "write" || token.size !== 4) throw new Error();
 * ```
 */
export function readToken(word: string, fail: Fail): Token {
  const parts = /^([^=^|&]*)(\^=|\|=|&=~|=)?(.*)$/s.exec(word)!;
  const key = parts[1]!;
  const operator = parts[2] as Operator | undefined;
  const text = parts[3]!;
  if (operator === undefined) {
    if (text !== "") fail(`"${word}" has no operator`, "=, ^=, |= or &=~", key.length);
    return bareWord(key, fail);
  }
  const valueAt = key.length + operator.length;
  const number = () => hexValue(text, fail, valueAt);
  const raw = RAW.exec(key);
  if (raw) {
    if (operator !== "=") {
      fail(
        `An offset takes no ${operator}`,
        `= (or a field's name instead of the offset)`,
        key.length,
      );
    }
    return rawWrite(raw, number(), fail);
  }
  if (key.startsWith("nocpu.")) return withoutCpuid(key, operator, number(), fail);
  if (key.startsWith("cpu.")) return feature(key.slice(4), operator, number(), fail);
  if (key.includes(".")) return named(key, operator, text, fail, valueAt);
  if (operator !== "=") return named(uniqueField(key, fail), operator, text, fail, valueAt);
  if (isL1Register(key)) {
    const value = number();
    return { kind: "l1", register: key, apply: () => value };
  }
  switch (key) {
    case "gif":
    case "nmi":
    case "pending":
    case "midnmi":
      return { kind: key, on: asInt(number()) !== 0 };
    case "irq":
    case "midirq":
      return { kind: key, vector: asInt(number()) };
    case "pa":
      return addressBits(number(), fail, valueAt);
    case "smi":
      number();
      return { kind: "none" };
    case "entry":
      return {
        kind: "entry",
        entry: ENTRIES.find((entry) => entry === text) ?? fail(
          `There is no way in named "${text}"`,
          ENTRIES.map((entry) => `entry=${entry}`).join(", "),
          valueAt,
        ),
      };
    case "l1pae":
    case "keepvm":
    case "keepmem":
      return fail(`"${key}" takes no value`, `${key} alone`, key.length);
  }
  return unknownWord(key, fail);
}

function bareWord(key: string, fail: Fail): Token {
  switch (key) {
    case "l1pae":
      return { kind: "pae" };
    case "keepvm":
    case "keepmem":
      return { kind: key };
  }
  if (RAW.test(key) || SIMPLE.includes(key) || key.includes(".")) {
    return fail(`"${key}" has no value`, `${key}=VALUE`, key.length);
  }
  return unknownWord(key, fail);
}

const CPUID_LETTERS: Readonly<Record<string, CpuidRegister>> = {
  a: "eax",
  b: "ebx",
  c: "ecx",
  d: "edx",
};

/** `nocpu.FN.REG=MASK`: takes bits from L1's CPUID. */
function withoutCpuid(key: string, operator: Operator, mask: bigint, fail: Fail): Token {
  if (operator !== "=") fail(`CPUID takes no ${operator}`, "nocpu.FN.REG=MASK", key.length);
  const [, fnText = "", letter = ""] = /^nocpu\.([^.]*)\.(.*)$/.exec(key) ??
    fail(`"${key}" names no register`, "nocpu.FN.REG, such as nocpu.7.c");
  const fn = hexValue(fnText, fail, 6, "a CPUID function");
  const register = CPUID_LETTERS[letter] ??
    fail(`CPUID has no register "${letter}"`, "a, b, c or d", key.length - letter.length);
  if (fn > 0xffffffffn || mask > 0xffffffffn) {
    fail("CPUID's functions and registers have 32 bits", "at most 8 digits", 6);
  }
  return { kind: "cpuid", removal: { fn: Number(fn), register, mask: Number(mask) } };
}

/** `cpu.NAME=0`: takes a feature, by its name, from L1's CPUID. */
function feature(name: string, operator: Operator, value: bigint, fail: Fail): Token {
  const known = FEATURE_NAMES.find((feature) => feature === name);
  if (known === undefined) {
    const near = closest(name, FEATURE_NAMES);
    return fail(
      `CPUID has no feature "${name}"${near ? `; did you mean cpu.${near}?` : ""}`,
      `one of ${FEATURE_NAMES.join(", ")}`,
      4,
    );
  }
  const { leaf, register, bit } = FEATURES[known];
  if (operator !== "=" || value !== 0n) {
    fail("A feature that the processor has not cannot be given to it", `cpu.${name}=0`, 4);
  }
  const fn = parseInt(leaf, 16);
  if (leaf.includes(".")) {
    fail(`The lab cannot take ${name} away`, "a feature of a leaf's index 0", 4);
  }
  return { kind: "cpuid", removal: { fn, register, mask: (1 << bit) >>> 0 } };
}

/** `pa=BITS`: how wide L1's physical addresses are. */
function addressBits(value: bigint, fail: Fail, at: number): Token {
  if (value !== 0n && (value < 32n || value > 52n)) {
    fail(`No processor has ${value} physical address bits`, "20 to 34, hexadecimal", at);
  }
  return { kind: "pa", bits: Number(value) };
}

function rawWrite(raw: RegExpExecArray, value: bigint, fail: Fail): Token {
  const prefix = raw[1] === undefined ? 3 : 2;
  const offset = hexValue(raw[3]!, fail, prefix, "an offset");
  const sizeText = raw[4];
  const size = sizeText === undefined ? 8 : Number(sizeText);
  if (sizeText !== undefined && !/^[0-8]$/.test(sizeText)) {
    fail(
      `"${sizeText}" is no size`,
      "a decimal number of bytes from 0 to 8",
      prefix + raw[3]!.length + 1,
    );
  }
  if (raw[1] !== undefined) {
    return { kind: "write", target: TARGETS[raw[1] as "c" | "s" | "m"], offset, size, value };
  }
  const letter = raw[2] as keyof typeof TARGETS;
  return { kind: "late", target: TARGETS[letter], offset, size, value };
}
