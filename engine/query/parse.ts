/**
 * Conditions on events, such as `control.exit_code==NPF && save.rip>=0x8000`, as trees.
 *
 *     or       = and { "||" and }
 *     and      = not { "&&" not }
 *     not      = "!" not | "(" or ")" | test
 *     test     = NAME [ ( "==" | "!=" | "<" | "<=" | ">" | ">=" | "&" ) VALUE ]
 *
 * @module
 */
import { VmtapeError } from "../error.ts";

/** How a field is held against a value; `&` asks whether any of the value's bits is set. */
export type Operator = "==" | "!=" | "<" | "<=" | ">" | ">=" | "&" | "known";

/** A condition. */
export type Condition =
  | { readonly kind: "and" | "or"; readonly parts: readonly Condition[] }
  | { readonly kind: "not"; readonly part: Condition }
  | {
    readonly kind: "test";
    /** Name of the field. */
    readonly field: string;
    /** How; `known` of a field alone: it is there and not zero. */
    readonly operator: Operator;
    /** The value as it was written. */
    readonly value: string;
    /** Column of the field in the text, from 1. */
    readonly column: number;
  };

/**
 * A condition that cannot be understood.
 *
 * @example
 * ```ts
 * import { ConditionError, parseCondition } from "@vmtape/vmtape/engine";
 * try {
 *   parseCondition("save.rip >=");
 * } catch (error) {
 *   if (!(error instanceof ConditionError) || error.column !== 12) throw error;
 * }
 * ```
 */
export class ConditionError extends VmtapeError {
  /** Name of the class, for those who cannot use instanceof. */
  override readonly name = "ConditionError";
  /** Column of the text at which it stops making sense, from 1. */
  readonly column: number;

  /**
   * Says what was expected where.
   *
   * @param message What is wrong.
   * @param column Where, from 1.
   */
  constructor(message: string, column: number) {
    super(`${message}, at column ${column}`);
    this.column = column;
  }
}

interface Token {
  readonly text: string;
  readonly kind: "name" | "operator" | "string";
  readonly column: number;
}

const TOKEN = /\s*(?:(==|!=|<=|>=|&&|\|\||[<>&!()])|"((?:[^"\\]|\\.)*)"|([\w.#:/+-]+))/y;

function tokensOf(text: string): Token[] {
  const tokens: Token[] = [];
  TOKEN.lastIndex = 0;
  let at = 0;
  while (text.slice(at).trim() !== "") {
    TOKEN.lastIndex = at;
    const match = TOKEN.exec(text);
    const column = at + (/^\s*/.exec(text.slice(at))?.[0].length ?? 0) + 1;
    if (match === null) {
      throw new ConditionError(`Unexpected ${JSON.stringify(text[column - 1])}`, column);
    }
    const [, operator, quoted, name] = match;
    if (operator !== undefined) tokens.push({ text: operator, kind: "operator", column });
    else if (quoted !== undefined) {
      tokens.push({ text: quoted.replaceAll(/\\(.)/g, "$1"), kind: "string", column });
    } else tokens.push({ text: name!, kind: "name", column });
    at = TOKEN.lastIndex;
  }
  return tokens;
}

const COMPARES = new Set(["==", "!=", "<", "<=", ">", ">=", "&"]);
/** Parentheses within parentheses; more is no condition that anyone wrote. */
const DEEPEST = 100;

class Parser {
  readonly #tokens: readonly Token[];
  readonly #end: number;
  #at = 0;
  #depth = 0;

  constructor(text: string) {
    this.#tokens = tokensOf(text);
    this.#end = text.length + 1;
  }

  whole(): Condition {
    const condition = this.#or();
    const rest = this.#tokens[this.#at];
    if (rest !== undefined) {
      throw new ConditionError(`Expected && or ||, not ${JSON.stringify(rest.text)}`, rest.column);
    }
    return condition;
  }

  #take(text: string): boolean {
    const token = this.#tokens[this.#at];
    if (token?.kind !== "operator" || token.text !== text) return false;
    this.#at++;
    return true;
  }

  #some(kind: "and" | "or", between: string, next: () => Condition): Condition {
    const parts = [next()];
    while (this.#take(between)) parts.push(next());
    return parts.length === 1 ? parts[0]! : { kind, parts };
  }

  #or(): Condition {
    return this.#some("or", "||", () => this.#some("and", "&&", () => this.#not()));
  }

  #not(): Condition {
    if (this.#depth++ > DEEPEST) throw new ConditionError("Nested too deep", this.#column());
    try {
      if (this.#take("!")) return { kind: "not", part: this.#not() };
      if (!this.#take("(")) return this.#test();
      const inner = this.#or();
      if (!this.#take(")")) throw new ConditionError("Expected )", this.#column());
      return inner;
    } finally {
      this.#depth--;
    }
  }

  #column(): number {
    return this.#tokens[this.#at]?.column ?? this.#end;
  }

  #test(): Condition {
    const field = this.#tokens[this.#at];
    if (field?.kind !== "name") {
      throw new ConditionError("Expected a field, such as save.rip", this.#column());
    }
    this.#at++;
    const { text: name, column } = field;
    const operator = this.#tokens[this.#at];
    if (operator?.kind !== "operator" || !COMPARES.has(operator.text)) {
      return { kind: "test", field: name, operator: "known", value: "", column };
    }
    this.#at++;
    const value = this.#tokens[this.#at];
    if (value === undefined || value.kind === "operator") {
      throw new ConditionError(`Expected a value after ${operator.text}`, this.#column());
    }
    this.#at++;
    return {
      kind: "test",
      field: name,
      operator: operator.text as Operator,
      value: value.text,
      column,
    };
  }
}

/**
 * Reads a condition.
 *
 * @param text The text.
 * @returns The condition as a tree; names and values are not looked at yet.
 * @throws {ConditionError} When it is none.
 * @example
 * ```ts
 * import { parseCondition } from "@vmtape/vmtape/engine";
 * const tree = parseCondition("kind==exit && !(control.int_ctl & V_GIF)");
 * if (tree.kind !== "and" || tree.parts[1]?.kind !== "not") throw new Error();
 * ```
 */
export function parseCondition(text: string): Condition {
  return new Parser(text).whole();
}
