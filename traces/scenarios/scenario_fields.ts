/**
 * Changes of a scenario by the names of fields and registers.
 *
 * @module
 */
import { closest } from "../../engine/closest.ts";
import type { Field } from "../../engine/layout.ts";
import { CONTROL_FIELDS, SAVE_FIELDS } from "../../engine/svm/vmcb_fields.ts";
import { L1_REGISTERS, type L1Register } from "./scenario.ts";
import type { Fail } from "./scenario_error.ts";
import { HEX, hexValue } from "./scenario_number.ts";
import type { Token } from "./scenario_token.ts";

/** Whether a name is that of a register of L1's. */
export function isL1Register(name: string): name is L1Register {
  return L1_REGISTERS.some((register) => register === name);
}

/** Words that are no field's name. */
export const SIMPLE = [
  ...L1_REGISTERS,
  ...["gif", "nmi", "irq", "smi", "entry", "pending", "midnmi", "midirq", "pa"],
  ...["l1pae", "keepvm", "keepmem"],
];
const AREAS = { control: CONTROL_FIELDS, save: SAVE_FIELDS, hsave: SAVE_FIELDS } as const;

/** What a word does to the value before. */
export type Operator = "=" | "^=" | "|=" | "&=~";

/** `control.FIELD`, `save.FIELD`, `l1.REGISTER`, `late.control.FIELD`, `late.save.FIELD`, `late.hsave.FIELD`. */
export function named(
  key: string,
  operator: Operator,
  text: string,
  fail: Fail,
  valueAt: number,
): Token {
  const path = key.split(".");
  const late = path[0] === "late";
  if (late) path.shift();
  const [area, name] = path;
  if (path.length !== 2 || area === undefined || name === undefined) return unknownWord(key, fail);
  if (area === "l1" && !late) {
    if (!isL1Register(name)) {
      const near = closest(name, L1_REGISTERS);
      return fail(
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
    return { kind: "l1", register: name, apply };
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

/**
 * Says that a word is not understood, and what comes near.
 *
 * @param key The word, or what is before its operator.
 * @param fail Called with what is wrong; does not return.
 */
export function unknownWord(key: string, fail: Fail): never {
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

/** The area of a field that is named alone, before an operator. */
export function uniqueField(name: string, fail: Fail): string {
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
