/**
 * Whether two values are equal, all the way down.
 *
 * @module
 */
import { Buffer } from "node:buffer";
import { types } from "node:util";

type Seen = Map<object, unknown>;

/** Whether both have one constructor; an object without a prototype counts as a plain one. */
function sameKind(a: object, b: object): boolean {
  return (a.constructor ?? Object) === (b.constructor ?? Object);
}

/** Whether each entry of one collection has its own partner among those of the other. */
function sameEntries(a: readonly unknown[], b: readonly unknown[], seen: Seen): boolean {
  const rest = [...b];
  for (const entry of a) {
    const at = rest.findIndex((other) => same(entry, other, seen));
    if (at === -1) return false;
    rest.splice(at, 1);
  }
  return rest.length === 0;
}

function keys(value: object): PropertyKey[] {
  return Reflect.ownKeys(value).filter((k) => Object.prototype.propertyIsEnumerable.call(value, k));
}

function sameProperties(a: object, b: object, seen: Seen): boolean {
  const mine = keys(a);
  return mine.length === keys(b).length &&
    mine.every((key) => key in b && same(Reflect.get(a, key), Reflect.get(b, key), seen));
}

function sameObjects(a: object, b: object, seen: Seen): boolean {
  if (a instanceof RegExp && b instanceof RegExp) return String(a) === String(b);
  if (a instanceof URL && b instanceof URL) return a.href === b.href;
  if (a instanceof Date && b instanceof Date) return same(a.getTime(), b.getTime(), seen);
  if (!sameKind(a, b)) return false;
  for (const isWeak of [types.isWeakMap, types.isWeakSet]) {
    if (isWeak(a) !== isWeak(b)) return false;
    if (isWeak(a)) throw new TypeError(`cannot compare ${a.constructor.name} instances`);
  }
  if (a instanceof WeakRef && b instanceof WeakRef) return same(a.deref(), b.deref(), seen);
  if (a instanceof Uint8Array && b instanceof Uint8Array) return Buffer.compare(a, b) === 0;
  if (seen.get(a) === b) return true;
  seen.set(a, b);
  if (a instanceof Set && b instanceof Set) {
    return a.size === b.size &&
      (a.isSubsetOf(b) || sameEntries([...a], [...b], seen)) && sameProperties(a, b, seen);
  }
  if (a instanceof Map && b instanceof Map) {
    return a.size === b.size && sameEntries([...a], [...b], seen) && sameProperties(a, b, seen);
  }
  return sameProperties(a, b, seen);
}

function same(a: unknown, b: unknown, seen: Seen): boolean {
  if (a === b || Object.is(a, b)) return true;
  if (a === null || b === null || typeof a !== "object" || typeof b !== "object") return false;
  return sameObjects(a, b, seen);
}

/**
 * Deep equality: same structure and constructors; `NaN` equals itself, and `0`
 * equals `-0`.
 *
 * @param c One value.
 * @param d The other.
 * @returns Whether they are equal.
 */
export function equal(c: unknown, d: unknown): boolean {
  return same(c, d, new Map());
}
