/**
 * Records that mail, or whoever pasted them, spread over several lines.
 *
 * @module
 */
import { CHECK_SETS } from "../../engine/checks/sets.ts";
import { EXIT_REASON_CODES } from "./kvm_exit_reasons.ts";
import { type Slot, SLOTS } from "./kvm_tracepoints.ts";

/** No record is spread over more lines than this. */
export const MOST_LINES = 12;

const KEYS = new Set(SLOTS.flatMap((slot: Slot) => slot.keys.map(({ word }) => word)));
const WORDS = new Set([
  ...KEYS,
  ...[...EXIT_REASON_CODES.keys()].flatMap((name) => name.split(" ")),
  ...["y", "n", "on", "off", "SMM", "UNKNOWN", "[immediate", "exit]", "[immediate exit]", "*/"],
]);
/** A number, or the name that VMX has for an exit. */
const VALUE = /^(?:(?:0x)?[0-9a-f]{1,16}|\(\d+\)|[A-Z][A-Z0-9_]+)(?:\[immediate)?$/;

/**
 * Whether a line holds nothing but keys and values, so that it may be the rest of
 * the record before it.
 *
 * @param line The line, cleaned.
 */
export function isRest(line: string): boolean {
  const words = line.trim().split(/[\s,:=]+/).filter((word) => word !== "");
  return words.length > 0 && words.every((word) => WORDS.has(word) || VALUE.test(word));
}

/** What stands before a tracepoint's name, without it: the line was broken there. */
export const HEAD_ALONE = /^\s*\S.*\s(?:\d+(?:\.\d+)?|\d+us[ +!#*@$]?)\s*:(?:\s+\w+:)?\s*$/;

const TEXTS = CHECK_SETS.flatMap(({ checks }) => checks.flatMap(({ texts }) => texts));
const OPERATOR_LAST = /(?:[&|=<>+\-*,(!~]|[<>=!]=)$/;

/**
 * Whether the text of a check goes on in the next line: it is the beginning of one
 * that is known, or of any expression.
 *
 * @param text What is there of it.
 */
export function goesOn(text: string): boolean {
  if (TEXTS.includes(text)) return false;
  if (text === "" || TEXTS.some((known) => known.startsWith(`${text} `))) return true;
  let open = 0;
  for (const c of text) open += c === "(" ? 1 : c === ")" ? -1 : 0;
  return open > 0 || OPERATOR_LAST.test(text);
}
