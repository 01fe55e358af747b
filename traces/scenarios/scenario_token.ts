/**
 * One word of a scenario: the lab's tokens, and changes by field name.
 *
 * @module
 */
import { VmtapeError } from "../../engine/error.ts";
import { closest } from "../../engine/closest.ts";
import type { Field } from "../../engine/layout.ts";
import { type CpuidRegister, FEATURE_NAMES, FEATURES } from "../../engine/svm/cpuid.ts";
import { CONTROL_FIELDS, SAVE_FIELDS } from "../../engine/svm/vmcb_fields.ts";

/** Where a {@linkcode ScenarioError} is, and what would have been right. */
export interface ScenarioProblem {
  /** Name of the file, when there is one. */
  readonly file?: string | undefined;
  /** Line, from 1. */
  readonly line: number;
  /** Column in characters, from 1. */
  readonly column: number;
  /** What was expected there. */
  readonly expected: string;
}

/**
 * A scenario that could not be read.
 *
 * @example
 * ```ts
 * import { parseScenario, ScenarioError } from "@vmtape/vmtape/traces";
 * try {
 *   parseScenario("a save.efre=0");
 * } catch (error) {
 *   if (!(error instanceof ScenarioError) || error.column !== 8) throw error;
 * }
 * ```
 */
export class ScenarioError extends VmtapeError {
  /** `ScenarioError`. */
  override readonly name = "ScenarioError";
  /** What is wrong, and what was expected, without the place. */
  readonly what: string;
  /** Name of the file, when there is one. */
  readonly file: string | undefined;
  /** Line, from 1. */
  readonly line: number;
  /** Column in characters, from 1. */
  readonly column: number;
  /** What was expected there. */
  readonly expected: string;

  /**
   * Says what is wrong, and where.
   *
   * @param what What is wrong.
   * @param problem Where, and what was expected.
   */
  constructor(what: string, problem: ScenarioProblem) {
    const { file, line, column, expected } = problem;
    const where = file === undefined
      ? `Line ${line}, column ${column}`
      : `${file}:${line}:${column}`;
    const whole = `${what}; expected ${expected}`;
    super(`${where}: ${whole}`);
    this.what = whole;
    this.file = file;
    this.line = line;
    this.column = column;
    this.expected = expected;
  }
}

/** L1 registers that a scenario may set. */
export type L1Register = "rax" | "rip" | "rflags" | "cr0" | "cr3" | "cr4" | "efer" | "hsave";

/**
 * The ways into L2 that a scenario may take: VMRUN; VMRUN, an SMI and RSM; KVM_SET_NESTED_STATE;
 * VMRUN and a stop in L2 at a port write, after which it goes on (`mid`), or goes on in another
 * virtual machine (`migrate`).
 */
export const ENTRIES = ["vmrun", "rsm", "setstate", "mid", "migrate"] as const;

/** Which of them a scenario takes. */
export type Entry = typeof ENTRIES[number];

/** What one word of a scenario means. */
export type Token =
  | {
    readonly kind: "write";
    readonly target: "control" | "save" | "memory";
    readonly offset: bigint | number;
    readonly size: number;
    readonly value: bigint;
  }
  | {
    readonly kind: "field";
    readonly target: "control" | "save";
    readonly offset: number;
    readonly size: number;
    readonly apply: (before: bigint) => bigint;
  }
  | {
    readonly kind: "late";
    readonly target: "control" | "save" | "memory" | "hsave" | "smram" | "nested";
    readonly offset: bigint | number;
    readonly size: number;
    readonly value: bigint;
  }
  | {
    readonly kind: "l1";
    readonly register: L1Register;
    readonly apply: (before: bigint) => bigint;
  }
  | { readonly kind: "entry"; readonly entry: Entry }
  | { readonly kind: "gif" | "nmi" | "pending" | "midnmi"; readonly on: boolean }
  | { readonly kind: "irq" | "midirq"; readonly vector: number }
  | {
    readonly kind: "cpuid";
    readonly removal: {
      readonly fn: number;
      readonly register: CpuidRegister;
      readonly mask: number;
    };
  }
  | { readonly kind: "pa"; readonly bits: number }
  | { readonly kind: "pae" | "keepvm" | "keepmem" | "none" };

/** Says what is wrong with a word, `at` characters into it. */
export type Fail = (message: string, expected: string, at?: number) => never;

const L1_REGISTERS: readonly string[] = [
  "rax",
  "rip",
  "rflags",
  "cr0",
  "cr3",
  "cr4",
  "efer",
  "hsave",
];
const SIMPLE = [
  ...L1_REGISTERS,
  ...["gif", "nmi", "irq", "smi", "entry", "pending", "midnmi", "midirq", "pa"],
  ...["l1pae", "keepvm", "keepmem"],
];
const AREAS = { control: CONTROL_FIELDS, save: SAVE_FIELDS, hsave: SAVE_FIELDS } as const;
const RAW = /^(?:([csm])|x([csmhrn]))\.([^.]*)(?:\.([^.]*))?$/;
const RAW_TARGETS = {
  c: "control",
  s: "save",
  m: "memory",
  h: "hsave",
  r: "smram",
  n: "nested",
} as const;

/**
 * Reads one word.
 *
 * @param word The word, without blanks.
 * @param fail Called with what is wrong; does not return.
 * @returns What it means.
 * @example
 * ```ts
 * import { readToken } from "./scenario_token.ts";
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
  if (L1_REGISTERS.includes(key)) {
    const value = number();
    return { kind: "l1", register: key as L1Register, apply: () => value };
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

type Operator = "=" | "^=" | "|=" | "&=~";

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

function unknownWord(key: string, fail: Fail): never {
  const areas = fieldAreas(key);
  if (areas.length > 0) {
    return fail(
      `"${key}" alone could be L1's or L2's`,
      areas.map((area) => `${area}.${key}=VALUE`).join(" or "),
    );
  }
  const near = closest(key, [...SIMPLE, ...allFields()]);
  return fail(
    `There is no token "${key}"${near ? `; did you mean ${near}?` : ""} (the lab would ignore it)`,
    "c.OFF=, s.OFF=, m.GPA=, an AREA.FIELD=, one of L1's registers, gif=, nmi=, irq=, l1pae, entry=, pending=, midnmi=, midirq=, nocpu.FN.REG=, cpu.NAME=0, pa=, x?.OFF=, keepvm or keepmem",
  );
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
    return { kind: "write", target: RAW_TARGETS[raw[1] as "c" | "s" | "m"], offset, size, value };
  }
  const letter = raw[2] as keyof typeof RAW_TARGETS;
  return { kind: "late", target: RAW_TARGETS[letter], offset, size, value };
}

/** `control.FIELD`, `save.FIELD`, `l1.REGISTER`, `late.control.FIELD`, `late.save.FIELD`, `late.hsave.FIELD`. */
function named(key: string, operator: Operator, text: string, fail: Fail, valueAt: number): Token {
  const path = key.split(".");
  const late = path[0] === "late";
  if (late) path.shift();
  const [area, name] = path;
  if (path.length !== 2 || area === undefined || name === undefined) return unknownWord(key, fail);
  if (area === "l1" && !late) {
    if (!L1_REGISTERS.includes(name)) {
      const near = closest(name, L1_REGISTERS);
      fail(
        `L1 has no register "${name}" to set${near ? `; did you mean l1.${near}?` : ""}`,
        `one of ${L1_REGISTERS.join(", ")}`,
        3,
      );
    }
    const like = name === "hsave" ? undefined : findField(SAVE_FIELDS, name);
    const apply = change(
      like ?? { name, offset: 0, size: 8, doc: "" },
      operator,
      text,
      fail,
      valueAt,
    );
    return { kind: "l1", register: name as L1Register, apply };
  }
  if (area !== "control" && area !== "save" && !(late && area === "hsave")) {
    const near = closest(key, [...allFields(), "l1"]);
    return fail(
      `There is no area "${area}"${near ? `; did you mean ${near}?` : ""}`,
      late ? "late.control, late.save or late.hsave" : "control, save, l1 or late",
    );
  }
  const fields: readonly Field[] = AREAS[area];
  const field = findField(fields, name);
  if (!field) {
    const prefix = late ? `late.${area}` : area;
    const near = closest(
      `${prefix}.${name}`,
      late ? fields.map((f) => `${prefix}.${f.name}`) : allFields(),
    );
    return fail(
      `There is no field "${name}" in the ${area} area${near ? `; did you mean ${near}?` : ""}`,
      "a name of the VMCB field table",
      key.length - name.length,
    );
  }
  if (field.size > 8) {
    const letter = { control: "c", save: "s", hsave: "xh" }[area];
    fail(
      `${area}.${name} is ${field.size} bytes wide`,
      `parts of at most 8 bytes: ${letter}.${field.offset.toString(16)}.8=VALUE`,
    );
  }
  const apply = change(field, operator, text, fail, valueAt);
  const { offset, size } = field;
  if (late) {
    if (operator !== "=") {
      fail("The field's value while the handler runs is not known", `${key}=VALUE`, key.length);
    }
    return { kind: "late", target: area, offset, size, value: apply(0n) };
  }
  if (area === "hsave") return unknownWord(key, fail);
  if (operator === "=") return { kind: "write", target: area, offset, size, value: apply(0n) };
  return { kind: "field", target: area, offset, size, apply };
}

function change(
  field: Field,
  operator: Operator,
  text: string,
  fail: Fail,
  valueAt: number,
): (before: bigint) => bigint {
  const value = operandValue(field, operator, text, fail, valueAt);
  if (value >= 1n << BigInt(8 * field.size)) {
    fail(`${text} does not fit ${field.name}`, `at most ${field.size} bytes`, valueAt);
  }
  switch (operator) {
    case "=":
      return () => value;
    case "^=":
      return (before) => before ^ value;
    case "|=":
      return (before) => before | value;
    case "&=~":
      return (before) => before & ~value;
  }
}

/** Bits joined by `|`. Plain `=` takes a word that is a number as one; an operator looks for a bit's name first. */
function operandValue(
  field: Field,
  operator: Operator,
  text: string,
  fail: Fail,
  at: number,
): bigint {
  let value = 0n;
  let column = at;
  for (const word of text.split("|")) {
    const bit = field.bits?.find((b) => b.name.toLowerCase() === word.toLowerCase());
    if (bit && !(operator === "=" && HEX.test(word))) {
      value |= ((1n << BigInt(bit.width ?? 1)) - 1n) << BigInt(bit.bit);
    } else if (HEX.test(word)) {
      value |= hexValue(word, fail, column);
    } else if (valueNamed(field, word) !== undefined) {
      value |= valueNamed(field, word)!;
    } else {
      const names = [...field.bits?.map((b) => b.name) ?? [], ...Object.values(field.values ?? {})];
      const near = closest(word, names);
      fail(
        `"${word}" is neither a number nor a bit of ${field.name}${
          near ? `; did you mean ${near}?` : ""
        }`,
        names.length > 0 && names.length <= 40
          ? `a hexadecimal number or ${names.join(", ")}`
          : "a hexadecimal number",
        column,
      );
    }
    column += word.length + 1;
  }
  return value;
}

/** The value of an enumeration that a word names. */
function valueNamed(field: Field, word: string): bigint | undefined {
  const entries = Object.entries(field.values ?? {});
  const found = entries.find(([, name]) => name.toLowerCase() === word.toLowerCase());
  return found && BigInt(found[0]);
}

function findField(fields: readonly Field[], name: string): Field | undefined {
  return fields.find((field) => field.name === name);
}

function fieldAreas(name: string): ("control" | "save")[] {
  return (["control", "save"] as const).filter((area) => findField(AREAS[area], name));
}

function* allFields(): Generator<string> {
  for (const field of CONTROL_FIELDS) yield `control.${field.name}`;
  for (const field of SAVE_FIELDS) yield `save.${field.name}`;
}

/** The area of a field that is named alone, before an operator. */
function uniqueField(name: string, fail: Fail): string {
  const [area, other] = fieldAreas(name);
  if (area !== undefined && other === undefined) return `${area}.${name}`;
  if (other !== undefined) {
    return fail(`"${name}" is in both areas`, `control.${name} or save.${name}`);
  }
  const bare = [...CONTROL_FIELDS, ...SAVE_FIELDS].map((field) => field.name);
  const near = closest(name, bare);
  return fail(
    `There is no field "${name}"${near ? `; did you mean ${near}?` : ""}`,
    "a name of the VMCB field table",
  );
}

const HEX = /^-?(0[xX])?[0-9a-fA-F]+$/;

/** A hexadecimal number; a minus sign wraps at 64 bits, as the lab's C library does. */
function hexValue(text: string, fail: Fail, at: number, what = "a value"): bigint {
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
function asInt(value: bigint): number {
  return Number(BigInt.asIntN(32, value));
}
