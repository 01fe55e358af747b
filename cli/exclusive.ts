/**
 * Options that cannot be meant together.
 *
 * @module
 */
import { UsageError } from "./errors.ts";

/** An option as it is written, and whether it was given. */
export type Given = readonly [name: string, is: boolean];

/**
 * Refuses options that exclude each other.
 *
 * @param one An option.
 * @param others Those that mean nothing beside it.
 * @throws {UsageError} When it and one of them were given; it names the two.
 */
export function refuseBoth([name, is]: Given, ...others: readonly Given[]): void {
  const other = is ? others.find(([, also]) => also)?.[0] : undefined;
  if (other !== undefined) throw new UsageError(`Options ${name} and ${other} exclude each other`);
}
