/**
 * The form of the lab's records: which fields are there, and what a text in them may say.
 *
 * @module
 */
import {
  AREA_KEYS,
  AREAS,
  CPU_KEYS,
  NESTED_KEYS,
  PHASES,
  RESTORE_ERRNO_KEYS,
  SAVE_ERRNO_KEYS,
  STATE_FLAG_KEYS,
  STATE_HEX_KEYS,
  STATE_WORD_KEYS,
} from "./keys.ts";

/** An object of JSON. */
export type Json = Readonly<Record<string, unknown>>;
/** Throws: the path of a field, empty for the whole record, and what was expected there. */
export type Bad = (field: string, expected: string) => never;

/**
 * Checks that a value has the form of a record.
 *
 * @param value What the JSON of a line says.
 * @param bad Throws, given the path of the first field that is wrong and what was expected of it.
 */
export function checkRecord(value: unknown, bad: Bad): void {
  if (!isMap(value)) return bad("", "a JSON object");
  checkPlain(value, "", 0, bad);
  for (const key of ["case", "spec", "kernel"]) {
    if (typeof value[key] !== "string") bad(key, "text");
  }
  if (value.npt !== 0 && value.npt !== 1) bad("npt", "0 or 1");
  if (value.partial !== undefined && typeof value.partial !== "boolean") bad("partial", "true");
  if (value.sees !== undefined && !isTexts(value.sees)) bad("sees", "a list of texts");
  if (value.looked !== undefined) {
    if (!isMap(value.looked)) return bad("looked", "an object");
    checkInts(value.looked, ["mid", "smm", "restored"], "looked", bad);
  }
  if (!Array.isArray(value.events)) return bad("events", "a list");
  value.events.forEach((event: unknown, i) => checkEvent(event, `events[${i}]`, bad));
  for (const phase of PHASES) {
    if (value[phase] !== undefined) checkState(value[phase], phase, bad);
  }
  if (value.setstate !== undefined) {
    if (!isMap(value.setstate)) return bad("setstate", "an object");
    checkInts(value.setstate, ["sregs_errno", "errno"], "setstate", bad, true);
  }
  if (value.migrate !== undefined) {
    const { migrate } = value;
    if (!isMap(migrate)) return bad("migrate", "an object");
    const errnos = [...Object.values(SAVE_ERRNO_KEYS), ...RESTORE_ERRNO_KEYS];
    checkInts(migrate, errnos, "migrate", bad);
    const { flags, state } = migrate;
    if (flags !== undefined && (typeof flags !== "string" || !/^[0-9a-f]{1,8}$/.test(flags))) {
      bad("migrate.flags", "a hexadecimal number");
    }
    if (state !== undefined) checkWords(state, 4096, "migrate.state", bad);
  }
  if (value.warnings !== undefined && !isTexts(value.warnings)) bad("warnings", "a list of texts");
}

/** Objects and lists within each other that a record has at most: the lab's have five. */
const DEEPEST = 16;

/** Checks that a trace can keep a value, whatever it means. */
function checkPlain(value: unknown, path: string, depth: number, bad: Bad): void {
  if (typeof value === "string") {
    if (!value.isWellFormed()) bad(path, "text without lone surrogates");
    return;
  }
  if (typeof value === "number" && !Number.isFinite(value)) bad(path, "a number that JSON has");
  if (typeof value !== "object" || value === null) return;
  if (depth === DEEPEST) bad(path, `objects and lists nested no deeper than ${DEEPEST}`);
  for (const [key, item] of Object.entries(value)) {
    const own = Array.isArray(value) ? `${path}[${key}]` : path === "" ? key : `${path}.${key}`;
    if (key === "__proto__" || !key.isWellFormed()) {
      bad(own.toWellFormed(), "another name: this one cannot be kept");
    }
    checkPlain(item, own, depth + 1, bad);
  }
}

function checkEvent(event: unknown, path: string, bad: Bad): void {
  if (!isMap(event)) return bad(path, "an object");
  if ("at" in event) return checkInner(event, path, bad);
  const key = ["check_failed", "warn", "unmodelled", "tracepoint"].find((k) => k in event);
  if (key === undefined) return bad(path, "check_failed, warn, unmodelled, tracepoint or at");
  if (typeof event[key] !== "string") bad(`${path}.${key}`, "text");
  if (key === "tracepoint" && typeof event.text !== "string") bad(`${path}.text`, "text");
}

const NAME = [/^[0-9a-z]{1,16}$/, "a name such as root"] as const;

/** Keys of inner states that are not lower-case hexadecimal numbers. */
const INNER_FORMS: Readonly<Record<string, readonly [RegExp, string]>> = {
  ret: [/^(0|-?[1-9]\d{0,9})$/, "a decimal number"],
  active: NAME,
  mmu: NAME,
  walk: NAME,
  msrpm01: NAME,
  msrpm02: NAME,
  exc_vec: [/^(0|[1-9]\d{0,2})$/, "a decimal vector"],
};

const HEX = /^(0|[1-9a-f][0-9a-f]{0,15})$/;
const HEX_FORM = "a lower-case hexadecimal number in text, without leading zeros";

function checkInner(event: Json, path: string, bad: Bad): void {
  if (typeof event.at !== "string") bad(`${path}.at`, "text");
  const part = (name: string, keys: readonly string[]) => {
    const map = event[name];
    if (!isMap(map)) return bad(`${path}.${name}`, "an object");
    for (const key of keys) {
      const text = map[key];
      if (text === undefined) continue;
      const [form, expected] = INNER_FORMS[key] ?? [HEX, HEX_FORM];
      if (typeof text !== "string" || !form.test(text)) bad(`${path}.${name}.${key}`, expected);
    }
  };
  part("nested", NESTED_KEYS);
  if (event.cpu !== undefined) part("cpu", CPU_KEYS);
  for (const key of AREA_KEYS) {
    if (event[key] !== undefined) {
      checkWords(event[key], AREAS[key].size, `${path}.${key}`, bad);
    }
  }
}

const STATE_FORMS: Readonly<Record<string, readonly [RegExp, string]>> = {
  // L and DB are bytes of KVM_GET_SREGS: of a machine that KVM has given up they hold anything.
  cs: [
    /^(0|[1-9a-f][0-9a-f]{0,3})\/(0|[1-9a-f][0-9a-f]?)\/(0|[1-9a-f][0-9a-f]?)$/,
    "selector/L/DB",
  ],
  ss: [HEX, HEX_FORM],
  port: [HEX, HEX_FORM],
  vmcb_pa: [HEX, HEX_FORM],
  ev_exc: [
    /^(0|[1-9]\d{0,2})\/(0|[1-9]\d{0,2})\/(0|[1-9a-f][0-9a-f]?)\/(0|[1-9a-f][0-9a-f]{0,7})$/,
    "injected/pending/vector/error",
  ],
  ev_int: [/^(0|[1-9]\d{0,2})\/(0|[1-9]\d{0,2})$/, "injected/vector"],
  ev_nmi: [/^(0|[1-9]\d{0,2})\/(0|[1-9]\d{0,2})\/(0|[1-9]\d{0,2})$/, "injected/pending/masked"],
};

function checkState(state: unknown, path: string, bad: Bad): void {
  if (!isMap(state)) return bad(path, "an object");
  for (const key of STATE_HEX_KEYS) {
    const text = state[key];
    if (text !== undefined && (typeof text !== "string" || !HEX.test(text))) {
      bad(`${path}.${key}`, HEX_FORM);
    }
  }
  for (const [key, [form, expected]] of Object.entries(STATE_FORMS)) {
    const text = state[key];
    if (text !== undefined && (typeof text !== "string" || !form.test(text))) {
      bad(`${path}.${key}`, expected);
    }
  }
  checkInts(state, [...STATE_FLAG_KEYS, "rc", "errno", "exit"], path, bad);
  for (const key of STATE_WORD_KEYS) {
    if (state[key] !== undefined) {
      checkWords(state[key], key === "smram" ? 0x200 : 0x1000, `${path}.${key}`, bad);
    }
  }
  const errors = state.setup_errors;
  if (errors !== undefined && !(isMap(errors) && isTexts(Object.values(errors)))) {
    bad(`${path}.setup_errors`, "texts by name");
  }
}

const MAX_INT = 0x7fffffff;

function checkInts(
  map: Json,
  keys: readonly string[],
  path: string,
  bad: Bad,
  required = false,
): void {
  for (const key of keys) {
    const value = map[key];
    if (value === undefined && !required) continue;
    const least = key === "rc" ? -0x80000000 : 0;
    if (typeof value !== "number" || !Number.isInteger(value) || value < least || value > MAX_INT) {
      bad(`${path}.${key}`, least < 0 ? "an integer" : "an integer that is not negative");
    }
  }
}

function checkWords(words: unknown, size: number, path: string, bad: Bad): void {
  if (!isMap(words)) return bad(path, "words by offset");
  for (const [key, word] of Object.entries(words)) {
    const offset = /^[0-9a-f]{3}$/.test(key) ? parseInt(key, 16) : NaN;
    if (!(offset < size && offset % 8 === 0)) {
      bad(`${path}.${key}`, `an offset below ${size.toString(16)}, three digits, a multiple of 8`);
    }
    if (typeof word !== "string" || !/^[0-9a-f]{16}$/.test(word)) {
      bad(`${path}.${key}`, "sixteen lower-case hexadecimal digits");
    }
  }
}

/** Whether a value is an object of JSON, not a list. */
export function isMap(value: unknown): value is Json {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function isTexts(value: unknown): boolean {
  return Array.isArray(value) && value.every((text) => typeof text === "string");
}
