/**
 * Keeping tables as they are.
 *
 * @module
 */

/**
 * Freezes a value and all it is made of. A policy of one's own is made of parts of the built-in ones:
 * whoever changes such a part, rather than a copy of it, is told, instead of changing both.
 *
 * @param value The value.
 * @returns The same.
 */
export function frozen<T>(value: T): T {
  if (typeof value !== "object" || value === null || Object.isFrozen(value)) return value;
  // Bytes cannot be frozen.
  if (ArrayBuffer.isView(value)) return value;
  Object.freeze(value);
  for (const part of Object.values(value)) frozen(part);
  return value;
}
