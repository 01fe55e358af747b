import { Buffer } from "node:buffer";
import { isDeepStrictEqual, types } from "node:util";

/** Whether both have one constructor; an object without a prototype counts as a plain one. */
function sameConstructor(a: object, b: object): boolean {
  const kind = (o: object) => Object.getPrototypeOf(o) === null ? Object : o.constructor;
  return kind(a) === kind(b);
}

function hasNullPrototype(value: unknown, seen = new Set<unknown>()): boolean {
  if (value === null || typeof value !== "object" || seen.has(value)) return false;
  if (ArrayBuffer.isView(value)) return false;
  seen.add(value);
  if (Object.getPrototypeOf(value) === null) return true;
  const inner = value instanceof Map || value instanceof Set
    ? [...value].flat()
    : Object.values(value);
  return inner.some((v) => hasNullPrototype(v, seen));
}

/** The same tree with every object that has no prototype made a plain one. */
function plain(value: unknown, seen = new Map<object, unknown>()): unknown {
  if (value === null || typeof value !== "object") return value;
  if (seen.has(value)) return seen.get(value);
  const proto = Object.getPrototypeOf(value);
  const isPlain = proto === null || proto === Object.prototype;
  if (!isPlain && !Array.isArray(value)) return value;
  const out: Record<PropertyKey, unknown> | unknown[] = isPlain ? {} : [];
  seen.set(value, out);
  for (const key of Reflect.ownKeys(value)) {
    Reflect.set(out, key, plain(Reflect.get(value, key), seen));
  }
  return out;
}

/**
 * Deep equality: same structure, same constructors, `NaN` equal to itself and
 * `0` different from `-0`.
 *
 * @param a One value.
 * @param b The other.
 * @returns Whether they are equal.
 */
export function equal(a: unknown, b: unknown): boolean {
  if (Object.is(a, b)) return true;
  if (a === null || b === null || typeof a !== "object" || typeof b !== "object") return false;
  if (types.isWeakMap(a) || types.isWeakSet(a) || types.isWeakMap(b) || types.isWeakSet(b)) {
    throw new TypeError(`Cannot compare ${a.constructor.name} instances`);
  }
  if (!sameConstructor(a, b)) return false;
  if (a instanceof Uint8Array && b instanceof Uint8Array) return Buffer.compare(a, b) === 0;
  if (isDeepStrictEqual(a, b)) return true;
  if (!hasNullPrototype(a) && !hasNullPrototype(b)) return false;
  return isDeepStrictEqual(plain(a), plain(b));
}
