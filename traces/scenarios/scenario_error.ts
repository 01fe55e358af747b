/**
 * What is wrong with a scenario's text, and where.
 *
 * @module
 */
import { VmtapeError } from "../../engine/error.ts";

/** Where a scenario's text comes from, for messages. */
export interface ScenarioSource {
  /** Name of the file. */
  readonly file?: string;
  /** Line in it, from 1. */
  readonly line?: number;
}

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

/** Says what is wrong with a word, `at` characters into it. */
export type Fail = (message: string, expected: string, at?: number) => never;
