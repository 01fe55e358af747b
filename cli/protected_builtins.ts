/**
 * Keeping what every program is made of from being changed by a policy's module.
 *
 * @module
 */

/** What has methods that the program calls, and that nothing has a reason to change. */
const BUILTINS: readonly object[] = [
  Array,
  ArrayBuffer,
  BigInt,
  BigInt64Array,
  BigUint64Array,
  Boolean,
  DataView,
  Function,
  Int32Array,
  Map,
  Number,
  Promise,
  RegExp,
  Set,
  SharedArrayBuffer,
  String,
  TextDecoder,
  TextEncoder,
  Uint16Array,
  Uint32Array,
  Uint8Array,
  WeakMap,
  WeakSet,
  // What all typed arrays have in common.
  Object.getPrototypeOf(Uint8Array),
].flatMap((made: { readonly prototype: object }) => [made, made.prototype]);

/**
 * Keeps built-in objects as they are: a module that changes them throws where it does. Objects may
 * still have a `toString` of their own, so of what all inherit from only additions are refused.
 */
export function protectBuiltins(): void {
  for (const one of BUILTINS) Object.freeze(one);
  for (const one of [JSON, Math, Reflect, Atomics, Deno.stdout, Deno.stderr]) Object.freeze(one);
  Object.preventExtensions(Object.prototype);
}
