/**
 * Assertions about errors that are thrown or rejected with.
 *
 * @module
 */
import { stripVTControlCharacters as plain } from "node:util";
import { AssertionError, suffix } from "./assertion_error.ts";

/** Any constructor. */
export type AnyConstructor = abstract new (...args: never[]) => unknown;
/** What a constructor makes. */
export type GetConstructorType<T extends AnyConstructor> = InstanceType<T>;
type ErrorConstructor<E extends Error> = abstract new (...args: never[]) => E;

/** Asserts that a value is an error, of a class and with a message when those are given. */
export function assertIsError<E extends Error = Error>(
  error: unknown,
  ErrorClass?: ErrorConstructor<E>,
  msgMatches?: string | RegExp,
  msg?: string,
): asserts error is E {
  if (!(error instanceof Error)) {
    throw new AssertionError(`Expected "error" to be an Error object${suffix(msg)}`);
  }
  if (ErrorClass && !(error instanceof ErrorClass)) {
    throw new AssertionError(
      `Expected error to be instance of "${ErrorClass.name}", but was "${error.constructor.name}"${
        suffix(msg)
      }`,
    );
  }
  if (!msgMatches) return;
  const text = plain(error.message);
  const matches = typeof msgMatches === "string"
    ? text.includes(plain(msgMatches))
    : msgMatches.test(text);
  if (matches) return;
  const wanted = typeof msgMatches === "string" ? JSON.stringify(msgMatches) : msgMatches;
  throw new AssertionError(
    `Expected error message to include ${wanted}, but got ${JSON.stringify(error.message)}${
      suffix(msg)
    }`,
  );
}

function nameOfKind(value: unknown): string {
  if (value === null || value === undefined) return String(value);
  return typeof value === "object" ? value.constructor?.name ?? "Object" : typeof value;
}

/** Asserts that a value was made by a constructor. */
export function assertInstanceOf<T extends AnyConstructor>(
  actual: unknown,
  expectedType: T,
  msg = "",
): asserts actual is GetConstructorType<T> {
  if (actual instanceof expectedType) return;
  const was = nameOfKind(actual);
  const but = was === expectedType.name
    ? ""
    : was === "function"
    ? " but was not an instanced object"
    : ` but was "${was}"`;
  throw new AssertionError(
    `Expected object to be an instance of "${expectedType.name}"${but}${suffix(msg)}`,
  );
}

/** Asserts that a value was not made by a constructor. */
export function assertNotInstanceOf<A, T>(
  actual: A,
  unexpectedType: abstract new (...args: never[]) => T,
  msg?: string,
): asserts actual is Exclude<A, T> {
  if (!(actual instanceof unexpectedType)) return;
  throw new AssertionError(
    `Expected object to not be an instance of "${typeof unexpectedType}"${suffix(msg)}`,
  );
}

/** What the overloads of {@linkcode assertThrows} and {@linkcode assertRejects} have in common. */
class Wanted<E extends Error> {
  readonly #ErrorClass: ErrorConstructor<E> | undefined;
  readonly #msgIncludes: string | undefined;
  readonly #msg: string | undefined;

  constructor(second?: string | ErrorConstructor<E>, third?: string, fourth?: string) {
    if (typeof second === "string") this.#msg = second;
    else {
      this.#ErrorClass = second;
      this.#msgIncludes = third;
      this.#msg = fourth;
    }
  }

  failure(text: string, cause?: unknown): AssertionError {
    return new AssertionError(text + suffix(this.#msg), cause === undefined ? {} : { cause });
  }

  check(error: unknown, verb: string): unknown {
    if (!this.#ErrorClass) return error;
    if (!(error instanceof Error)) throw this.failure(`A non-Error object was ${verb}`);
    assertIsError(error, this.#ErrorClass, this.#msgIncludes, this.#msg);
    return error;
  }
}

/** Asserts that a function throws. */
export function assertThrows(fn: () => unknown, msg?: string): unknown;
/** Asserts that a function throws an error of a class, with a text in its message. */
export function assertThrows<E extends Error = Error>(
  fn: () => unknown,
  ErrorClass: ErrorConstructor<E>,
  msgIncludes?: string,
  msg?: string,
): E;
/** Asserts that a function throws. */
export function assertThrows<E extends Error = Error>(
  fn: () => unknown,
  second?: string | ErrorConstructor<E>,
  third?: string,
  fourth?: string,
): unknown {
  const wanted = new Wanted(second, third, fourth);
  try {
    fn();
  } catch (error) {
    return wanted.check(error, "thrown");
  }
  throw wanted.failure("Expected function to throw");
}

/** Asserts that a promise is rejected. */
export function assertRejects(fn: () => PromiseLike<unknown>, msg?: string): Promise<unknown>;
/** Asserts that a promise is rejected with an error of a class, with a text in its message. */
export function assertRejects<E extends Error = Error>(
  fn: () => PromiseLike<unknown>,
  ErrorClass: ErrorConstructor<E>,
  msgIncludes?: string,
  msg?: string,
): Promise<E>;
/** Asserts that a promise is rejected. */
export async function assertRejects<E extends Error = Error>(
  fn: () => PromiseLike<unknown>,
  second?: string | ErrorConstructor<E>,
  third?: string,
  fourth?: string,
): Promise<unknown> {
  const wanted = new Wanted(second, third, fourth);
  let promise: PromiseLike<unknown> | undefined;
  try {
    promise = fn();
  } catch (error) {
    throw wanted.failure("Function throws when expected to reject", error);
  }
  if (typeof promise?.then !== "function") {
    throw wanted.failure("Function throws when expected to reject");
  }
  try {
    await promise;
  } catch (error) {
    return wanted.check(error, "rejected");
  }
  throw wanted.failure("Expected function to reject");
}
