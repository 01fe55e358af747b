/**
 * Whether an event meets a condition: yes, no, or what was recorded does not settle it.
 *
 * @module
 */
import type { TraceEvent } from "../event.ts";
import type { Field } from "../layout.ts";
import { exitCodeNamed } from "../svm/exit_codes.ts";
import { type Asked, askedBy, closestField, type Seen } from "./fields.ts";
import { type Condition, ConditionError, type Operator, parseCondition } from "./parse.ts";

/** Whether something is so; undefined when what is known does not settle it. */
export type Truth = boolean | undefined;

/** Whether an event, with its number in the trace, meets a condition. */
export type Matcher = (event: TraceEvent, number: number) => Truth;

/** Prefixes that people leave out of an exit code's name. */
const EXIT_PREFIXES = ["", "SVM_EXIT_", "SVM_EXIT_EXCP_", "VMEXIT_"];
const VMEXIT_INVALID = 0xffff_ffff_ffff_ffffn;

function exitNamed(name: string): bigint | undefined {
  for (const prefix of EXIT_PREFIXES) {
    const code = exitCodeNamed(prefix + name);
    if (code !== undefined) return code;
  }
  return undefined;
}

/** The number that a value stands for, in the words of the field that it is held against. */
function numberOf(text: string, row: Field | undefined): bigint | undefined {
  if (/^(0x[0-9a-f]+|[0-9]+)$/i.test(text)) return BigInt(text);
  const bits = row?.bits?.find(({ name }) => name.toLowerCase() === text.toLowerCase());
  if (bits !== undefined) {
    return ((1n << BigInt(bits.width ?? 1)) - 1n) << BigInt(bits.bit);
  }
  for (const [value, name] of Object.entries(row?.values ?? {})) {
    if (name.toLowerCase() === text.toLowerCase()) return BigInt(value);
  }
  return exitNamed(text);
}

/** Compares numbers of which some bits may be unknown: by the smallest and the largest that they can be. */
function compareNumbers(
  seen: Exclude<Seen, { text: string }>,
  operator: Operator,
  to: bigint,
): Truth {
  const { value, known, mask } = seen;
  // VMEXIT_INVALID has as many bits as the field, or 32 where an emulator wrote it.
  const wanted = to === VMEXIT_INVALID
    ? to & (mask === VMEXIT_INVALID ? value | 0xffffffffn : mask)
    : to;
  const unknown = mask & ~known;
  const low = value & known, high = low | unknown;
  switch (operator) {
    case "&":
      return (low & wanted) !== 0n ? true : (high & wanted) === 0n ? false : undefined;
    case "==":
    case "!=": {
      const equal = ((low ^ wanted) & known) !== 0n || (wanted & ~mask) !== 0n
        ? false
        : unknown === 0n
        ? true
        : undefined;
      return operator === "==" ? equal : not(equal);
    }
    case "<":
      return high < wanted ? true : low >= wanted ? false : undefined;
    case "<=":
      return high <= wanted ? true : low > wanted ? false : undefined;
    case ">":
      return low > wanted ? true : high <= wanted ? false : undefined;
    case ">=":
      return low >= wanted ? true : high < wanted ? false : undefined;
    case "known":
      return low !== 0n ? true : high === 0n ? false : undefined;
  }
}

function not(truth: Truth): Truth {
  return truth === undefined ? undefined : !truth;
}

function compareTexts(text: string, operator: Operator, value: string): boolean {
  switch (operator) {
    case "==":
      return text === value;
    case "!=":
      return text !== value;
    case "known":
      return text !== "";
    case "&":
      return text.includes(value);
    case "<":
      return text < value;
    case "<=":
      return text <= value;
    case ">":
      return text > value;
    case ">=":
      return text >= value;
  }
}

type Test = Extract<Condition, { kind: "test" }>;

function matcherOfTest({ field, operator, value, column }: Test): Matcher {
  const asked: Asked | undefined = askedBy(field);
  if (asked === undefined) {
    const near = closestField(field);
    const hint = near === undefined ? "" : `, did you mean ${near}?`;
    throw new ConditionError(`There is no field ${JSON.stringify(field)}${hint}`, column);
  }
  const number = numberOf(value, asked.row);
  if (asked.row !== undefined && number === undefined && operator !== "known") {
    throw new ConditionError(
      `${JSON.stringify(value)} is no number, and no name of a value or bit of ${field}`,
      column,
    );
  }
  return (event, index) => {
    const seen = asked.read(event, index);
    // An event that has no such field does not meet a condition on it.
    if (seen === undefined) return false;
    if ("text" in seen) return compareTexts(seen.text, operator, value);
    return number === undefined && operator !== "known"
      ? false
      : compareNumbers(seen, operator, number ?? 0n);
  };
}

function matcherOf(condition: Condition): Matcher {
  switch (condition.kind) {
    case "test":
      return matcherOfTest(condition);
    case "not": {
      const inner = matcherOf(condition.part);
      return (event, index) => not(inner(event, index));
    }
    default: {
      const parts = condition.parts.map(matcherOf);
      const decides = condition.kind === "or";
      return (event, index) => {
        let settled = true;
        for (const part of parts) {
          const truth = part(event, index);
          if (truth === decides) return decides;
          if (truth === undefined) settled = false;
        }
        return settled ? !decides : undefined;
      };
    }
  }
}

/**
 * Makes a condition ready to be asked of events.
 *
 * @param text The condition, such as `control.exit_code==NPF && save.rip>=0x8000`.
 * @returns Answers for an event; undefined where what was recorded does not settle it.
 * @throws {ConditionError} When it is no condition, or asks about what there is not.
 * @example
 * ```ts
 * import { compileCondition } from "@vmtape/vmtape/engine";
 * const npf = compileCondition("kind==l2exit && exit_code==NPF");
 * if (npf({ kind: "l2exit", vcpu: 0, exit_code: 0x400n }, 0) !== true) throw new Error();
 * ```
 */
export function compileCondition(text: string): Matcher {
  return matcherOf(parseCondition(text));
}
