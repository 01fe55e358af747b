import { AssertionError, suffix } from "./assertion_error.ts";

type AnyConstructor<T = unknown> = abstract new (...args: never[]) => T;

/** Instance type of a constructor. */
export type GetConstructorType<T extends AnyConstructor> = InstanceType<T>;

/** Asserts that a value is an error, of a class and with a message when those are given. */
export function assertIsError<E extends Error = Error>(
  error: unknown,
  ErrorClass?: abstract new (...args: never[]) => E,
  msgMatches?: string | RegExp,
  msg?: string,
): asserts error is E {
  if (!(error instanceof Error)) {
    throw new AssertionError(
      `Expected "error" to be an Error object${suffix(msg)}`,
    );
  }
  if (ErrorClass && !(error instanceof ErrorClass)) {
    throw new AssertionError(
      `Expected error to be instance of "${ErrorClass.name}", but was "${error.constructor.name}"${
        suffix(msg)
      }`,
    );
  }
  if (msgMatches === undefined) return;
  const matches = typeof msgMatches === "string"
    ? error.message.includes(msgMatches)
    : msgMatches.test(error.message);
  if (matches) return;
  const wanted = typeof msgMatches === "string" ? JSON.stringify(msgMatches) : msgMatches;
  throw new AssertionError(
    `Expected error message to include ${wanted}, but got ${JSON.stringify(error.message)}${
      suffix(msg)
    }`,
  );
}

/** Asserts that a value was made by a constructor. */
export function assertInstanceOf<T extends AnyConstructor>(
  actual: unknown,
  expectedType: T,
  msg = "",
): asserts actual is InstanceType<T> {
  if (actual instanceof expectedType) return;
  const was = actual === null
    ? "null"
    : typeof actual === "object"
    ? `an instance of "${actual.constructor?.name ?? "Object"}"`
    : `"${typeof actual}"`;
  throw new AssertionError(
    msg || `Expected object to be an instance of "${expectedType.name}" but was ${was}.`,
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
    `Expected object to not be an instance of "${unexpectedType.name}"${suffix(msg)}`,
  );
}

interface Wanted<E extends Error> {
  ErrorClass?: abstract new (...args: never[]) => E;
  msgIncludes?: string | undefined;
  msg?: string | undefined;
}

function wanted<E extends Error>(
  second?: string | (abstract new (...args: never[]) => E),
  third?: string,
  fourth?: string,
): Wanted<E> {
  if (typeof second === "function") {
    return { ErrorClass: second, msgIncludes: third, msg: fourth };
  }
  return { msg: second };
}

function judge<E extends Error>(error: unknown, want: Wanted<E>): unknown {
  if (!want.ErrorClass) return error;
  if (!(error instanceof Error)) {
    throw new AssertionError(`A non-Error object was thrown${suffix(want.msg)}`);
  }
  assertIsError(error, want.ErrorClass, want.msgIncludes, want.msg);
  return error;
}

/** Asserts that a function throws. */
export function assertThrows(fn: () => unknown, msg?: string): unknown;
/** Asserts that a function throws an error of a class, with a text in its message. */
export function assertThrows<E extends Error = Error>(
  fn: () => unknown,
  ErrorClass: abstract new (...args: never[]) => E,
  msgIncludes?: string,
  msg?: string,
): E;
/** Asserts that a function throws. */
export function assertThrows<E extends Error = Error>(
  fn: () => unknown,
  second?: string | (abstract new (...args: never[]) => E),
  third?: string,
  fourth?: string,
): unknown {
  const want = wanted(second, third, fourth);
  try {
    fn();
  } catch (error) {
    return judge(error, want);
  }
  throw new AssertionError(`Expected function to throw${suffix(want.msg)}`);
}

/** Asserts that a promise is rejected. */
export function assertRejects(fn: () => PromiseLike<unknown>, msg?: string): Promise<unknown>;
/** Asserts that a promise is rejected with an error of a class, with a text in its message. */
export function assertRejects<E extends Error = Error>(
  fn: () => PromiseLike<unknown>,
  ErrorClass: abstract new (...args: never[]) => E,
  msgIncludes?: string,
  msg?: string,
): Promise<E>;
/** Asserts that a promise is rejected. */
export async function assertRejects<E extends Error = Error>(
  fn: () => PromiseLike<unknown>,
  second?: string | (abstract new (...args: never[]) => E),
  third?: string,
  fourth?: string,
): Promise<unknown> {
  const want = wanted(second, third, fourth);
  let promise: PromiseLike<unknown>;
  try {
    promise = fn();
  } catch (error) {
    judge(error, want);
    throw new AssertionError(
      `Function throws when expected to reject${suffix(want.msg)}`,
      { cause: error },
    );
  }
  try {
    await promise;
  } catch (error) {
    return judge(error, want);
  }
  throw new AssertionError(`Expected function to reject${suffix(want.msg)}`);
}
