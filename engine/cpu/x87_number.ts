/**
 * Numbers of the x87: 80 bits, an explicit integer bit, rounded as the control word says.
 *
 * @module
 */

/** A number: sign, biased exponent of 15 bits, significand of 64 bits. */
export interface Extended {
  /** 1 when negative. */
  readonly sign: number;
  /** Biased exponent. */
  readonly exponent: number;
  /** Significand, with its integer bit. */
  readonly significand: bigint;
}

/** Exceptions, as the status word has them. */
export const FPU_EXCEPTION = {
  invalid: 1,
  denormal: 2,
  zeroDivide: 4,
  overflow: 8,
  underflow: 0x10,
  precision: 0x20,
} as const;

/** How results are rounded, and what went wrong meanwhile. */
export interface Rounding {
  /** Rounding control: 0 nearest, 1 down, 2 up, 3 towards zero. */
  readonly mode: number;
  /** Bits of the significand: 24, 53 or 64. */
  readonly precision: number;
  /** {@linkcode FPU_EXCEPTION} bits, added to. */
  flags: number;
}

/** Biased exponent of infinities and NaNs. */
export const MAX_EXPONENT = 0x7fff;
const BIAS = 16383;
const INTEGER_BIT = 1n << 63n;
const MASK64 = (1n << 64n) - 1n;

/** The NaN of an invalid operation. */
export const DEFAULT_NAN: Extended = {
  sign: 1,
  exponent: MAX_EXPONENT,
  significand: 3n << 62n,
};

/** A zero. */
export function zero(sign: number): Extended {
  return { sign, exponent: 0, significand: 0n };
}

/** An infinity. */
export function infinity(sign: number): Extended {
  return { sign, exponent: MAX_EXPONENT, significand: INTEGER_BIT };
}

/** Whether it is a NaN. */
export function isNan(x: Extended): boolean {
  return x.exponent === MAX_EXPONENT && (x.significand << 1n & MASK64) !== 0n;
}

/** Whether it is an infinity. */
export function isInfinite(x: Extended): boolean {
  return x.exponent === MAX_EXPONENT && (x.significand << 1n & MASK64) === 0n;
}

/** Whether it is a zero. */
export function isZero(x: Extended): boolean {
  return x.exponent === 0 && x.significand === 0n;
}

/** Whether it is an encoding that no number has: an exponent, but no integer bit. */
export function isUnsupported(x: Extended): boolean {
  return x.exponent !== 0 && (x.significand & INTEGER_BIT) === 0n;
}

function isSignaling(x: Extended): boolean {
  return isNan(x) && (x.significand & 1n << 62n) === 0n;
}

function quiet(x: Extended): Extended {
  return { ...x, significand: x.significand | 3n << 62n };
}

/** Power of two that a significand is in units of. */
function unit(x: Extended): number {
  return (x.exponent === 0 ? 1 : x.exponent) - BIAS - 63;
}

function bitLength(value: bigint): number {
  return value === 0n ? 0 : value.toString(2).length;
}

/** Whether what lies below the last bit is to be rounded up. */
function roundsUp(mode: number, sign: number, odd: boolean, half: number): boolean {
  // `half`: 0 exact, 1 below one half, 2 one half, 3 above it.
  if (half === 0) return false;
  if (mode === 0) return half === 3 || half === 2 && odd;
  return mode === 1 ? sign === 1 : mode === 2 && sign === 0;
}

/** Drops low bits of a value, rounding it; `sticky` says that there is more below. */
function shifted(
  value: bigint,
  by: number,
  sticky: boolean,
  mode: number,
  sign: number,
): { readonly value: bigint; readonly exact: boolean } {
  if (by <= 0) {
    const up = roundsUp(mode, sign, false, sticky ? 1 : 0);
    return { value: (value << BigInt(-by)) + (up ? 1n : 0n), exact: !sticky };
  }
  const kept = value >> BigInt(by);
  const rest = value - (kept << BigInt(by)), middle = 1n << BigInt(by - 1);
  const half = rest === middle && !sticky ? 2 : rest >= middle ? 3 : rest !== 0n || sticky ? 1 : 0;
  const up = roundsUp(mode, sign, (kept & 1n) !== 0n, half);
  return { value: up ? kept + 1n : kept, exact: half === 0 };
}

/** Format of a result: bits of its significand, and the least and greatest exponents of numbers. */
interface Format {
  readonly bits: number;
  readonly least: number;
  readonly greatest: number;
}

/** Rounds `value * 2^exponent` to a format; the result is in the units that it gives back. */
function round(
  sign: number,
  value: bigint,
  exponent: number,
  sticky: boolean,
  format: Format,
  r: Rounding,
): { readonly value: bigint; readonly exponent: number; readonly overflow: boolean } {
  const top = bitLength(value) - 1 + exponent;
  const lowest = Math.max(top - format.bits + 1, format.least - format.bits + 1);
  const { value: cut, exact } = shifted(value, lowest - exponent, sticky, r.mode, sign);
  if (!exact) {
    r.flags |= FPU_EXCEPTION.precision | (top < format.least ? FPU_EXCEPTION.underflow : 0);
  }
  const overflow = cut !== 0n && bitLength(cut) - 1 + lowest > format.greatest;
  if (overflow) r.flags |= FPU_EXCEPTION.overflow | FPU_EXCEPTION.precision;
  return { value: cut, exponent: lowest, overflow };
}

/** Whether an overflow gives infinity, rather than the greatest number. */
function overflowsToInfinity(mode: number, sign: number): boolean {
  return mode === 0 || (mode === 1 ? sign === 1 : mode === 2 && sign === 0);
}

/** The number `value * 2^exponent`, rounded. */
export function rounded(
  sign: number,
  value: bigint,
  exponent: number,
  sticky: boolean,
  r: Rounding,
): Extended {
  if (value === 0n && !sticky) return zero(sign);
  const format = { bits: r.precision, least: 1 - BIAS, greatest: BIAS };
  const out = round(sign, value, exponent, sticky, format, r);
  if (out.overflow) {
    if (overflowsToInfinity(r.mode, sign)) return infinity(sign);
    const significand = MASK64 ^ (1n << BigInt(64 - r.precision)) - 1n;
    return { sign, exponent: MAX_EXPONENT - 1, significand };
  }
  if (out.value === 0n) return zero(sign);
  const length = bitLength(out.value);
  const top = length - 1 + out.exponent;
  if (top < 1 - BIAS) {
    return { sign, exponent: 0, significand: out.value << BigInt(out.exponent + BIAS + 62) };
  }
  return { sign, exponent: top + BIAS, significand: out.value << BigInt(64 - length) };
}

/** What an operation on NaNs gives: the greater of them, quiet. */
function nanOf(a: Extended, b: Extended, r: Rounding): Extended {
  if (isUnsupported(a) || isUnsupported(b)) return invalid(r);
  if (isSignaling(a) || isSignaling(b)) r.flags |= FPU_EXCEPTION.invalid;
  if (!isNan(b)) return quiet(a);
  if (!isNan(a)) return quiet(b);
  if (isSignaling(a) !== isSignaling(b)) return quiet(isSignaling(a) ? b : a);
  if (a.significand !== b.significand) return quiet(a.significand > b.significand ? a : b);
  return quiet(a.sign < b.sign ? a : b);
}

function special(x: Extended): boolean {
  return isNan(x) || isUnsupported(x);
}

/** The NaN of an invalid operation, which is noted. */
export function invalid(r: Rounding): Extended {
  r.flags |= FPU_EXCEPTION.invalid;
  return DEFAULT_NAN;
}

/** Sum, or with `negate` the difference. */
export function add(a: Extended, b: Extended, negate: boolean, r: Rounding): Extended {
  if (special(a) || special(b)) return nanOf(a, b, r);
  const sign = negate ? 1 - b.sign : b.sign;
  if (isInfinite(a)) return isInfinite(b) && sign !== a.sign ? invalid(r) : a;
  if (isInfinite(b)) return infinity(sign);
  let low = Math.min(unit(a), unit(b));
  const high = Math.max(unit(a), unit(b));
  // A far smaller one only makes the result inexact.
  const far = high - low > 200 && !isZero(a) && !isZero(b);
  if (far) low = high - 200;
  const signed = (x: Extended, s: number) => {
    const by = unit(x) - low;
    const size = by >= 0 ? x.significand << BigInt(by) : x.significand === 0n ? 0n : 1n;
    return s === 1 ? -size : size;
  };
  const sum = signed(a, a.sign) + signed(b, sign);
  if (sum === 0n) return zero(a.sign === sign ? a.sign : r.mode === 1 ? 1 : 0);
  return rounded(sum < 0n ? 1 : 0, sum < 0n ? -sum : sum, low, false, r);
}

/** Product. */
export function multiply(a: Extended, b: Extended, r: Rounding): Extended {
  if (special(a) || special(b)) return nanOf(a, b, r);
  const sign = a.sign ^ b.sign;
  if (isInfinite(a) || isInfinite(b)) {
    return isZero(a) || isZero(b) ? invalid(r) : infinity(sign);
  }
  return rounded(sign, a.significand * b.significand, unit(a) + unit(b), false, r);
}

/** Quotient. */
export function divide(a: Extended, b: Extended, r: Rounding): Extended {
  if (special(a) || special(b)) return nanOf(a, b, r);
  const sign = a.sign ^ b.sign;
  if (isInfinite(a)) return isInfinite(b) ? invalid(r) : infinity(sign);
  if (isInfinite(b)) return zero(sign);
  if (isZero(b)) {
    if (isZero(a)) return invalid(r);
    r.flags |= FPU_EXCEPTION.zeroDivide;
    return infinity(sign);
  }
  const up = a.significand << 192n;
  const quotient = up / b.significand;
  const sticky = quotient * b.significand !== up;
  return rounded(sign, quotient, unit(a) - unit(b) - 192, sticky, r);
}

/** Square root. */
export function squareRoot(a: Extended, r: Rounding): Extended {
  if (special(a)) return nanOf(a, a, r);
  if (isZero(a)) return a;
  if (a.sign === 1) return invalid(r);
  if (isInfinite(a)) return a;
  const odd = unit(a) & 1;
  const value = a.significand << BigInt(130 + odd);
  let root = 1n << BigInt(Math.ceil(bitLength(value) / 2));
  for (;;) {
    const better = root + value / root >> 1n;
    if (better >= root) break;
    root = better;
  }
  return rounded(0, root, (unit(a) - 130 - odd) / 2, root * root !== value, r);
}

/** -1, 0 or 1, or 2 when they are not ordered; `loud` notes quiet NaNs as invalid, too. */
export function compare(a: Extended, b: Extended, loud: boolean, r: Rounding): number {
  if (special(a) || special(b)) {
    const bad = loud || [a, b].some((x) => isSignaling(x) || isUnsupported(x));
    if (bad) r.flags |= FPU_EXCEPTION.invalid;
    return 2;
  }
  if (isZero(a) && isZero(b)) return 0;
  if (a.sign !== b.sign) return a.sign === 1 ? -1 : 1;
  const e = (x: Extended) => x.exponent === 0 ? 1 : x.exponent;
  const size = e(a) !== e(b)
    ? Math.sign(e(a) - e(b))
    : a.significand < b.significand
    ? -1
    : a.significand > b.significand
    ? 1
    : 0;
  return a.sign === 1 ? -size : size;
}

/** The number of an integer. */
export function fromInteger(value: bigint): Extended {
  if (value === 0n) return zero(0);
  const sign = value < 0n ? 1 : 0, size = sign === 1 ? -value : value;
  const length = bitLength(size);
  return { sign, exponent: BIAS + length - 1, significand: size << BigInt(64 - length) };
}

/** The integer of a number: of `bits` bits, the least one where it does not fit. */
export function toInteger(x: Extended, bits: number, mode: number, r: Rounding): bigint {
  const least = -(1n << BigInt(bits - 1));
  const none = () => {
    r.flags |= FPU_EXCEPTION.invalid;
    return least;
  };
  if (special(x) || isInfinite(x)) return none();
  if (isZero(x)) return 0n;
  if (unit(x) > 64) return none();
  const { value, exact } = unit(x) < -200
    ? shifted(1n, 2, false, mode, x.sign)
    : shifted(x.significand, -unit(x), false, mode, x.sign);
  const signed = x.sign === 1 ? -value : value;
  if (signed < least || signed >= -least) return none();
  if (!exact) r.flags |= FPU_EXCEPTION.precision;
  return signed;
}

/** Formats in memory: bits of the exponent and of the fraction. */
const SINGLE = { exponent: 8, fraction: 23 } as const;
const DOUBLE = { exponent: 11, fraction: 52 } as const;

function formatOf(size: number) {
  return size === 4 ? SINGLE : DOUBLE;
}

/** The number of 4 or 8 bytes of memory. */
export function fromMemory(bits: bigint, size: number, r: Rounding): Extended {
  const { exponent, fraction } = formatOf(size);
  const sign = Number(bits >> BigInt(exponent + fraction) & 1n);
  const e = Number(bits >> BigInt(fraction)) & (1 << exponent) - 1;
  const f = bits & (1n << BigInt(fraction)) - 1n;
  const up = BigInt(63 - fraction);
  const bias = (1 << exponent - 1) - 1;
  if (e === (1 << exponent) - 1) {
    const x = { sign, exponent: MAX_EXPONENT, significand: INTEGER_BIT | f << up };
    if (!isSignaling(x)) return x;
    r.flags |= FPU_EXCEPTION.invalid;
    return quiet(x);
  }
  if (e !== 0) return { sign, exponent: e - bias + BIAS, significand: INTEGER_BIT | f << up };
  if (f === 0n) return zero(sign);
  const length = bitLength(f);
  const top = length - 1 - fraction + 1 - bias;
  return { sign, exponent: top + BIAS, significand: f << BigInt(64 - length) };
}

/** 4 or 8 bytes of memory of a number, rounded. */
export function toMemory(x: Extended, size: number, r: Rounding): bigint {
  const { exponent, fraction } = formatOf(size);
  const bias = (1 << exponent - 1) - 1, all = (1n << BigInt(exponent)) - 1n;
  const pack = (sign: number, e: bigint, f: bigint) =>
    BigInt(sign) << BigInt(exponent + fraction) | e << BigInt(fraction) | f;
  if (isUnsupported(x)) {
    r.flags |= FPU_EXCEPTION.invalid;
    return pack(1, all, 1n << BigInt(fraction - 1));
  }
  if (isNan(x)) {
    if (isSignaling(x)) r.flags |= FPU_EXCEPTION.invalid;
    return pack(x.sign, all, (quiet(x).significand & INTEGER_BIT - 1n) >> BigInt(63 - fraction));
  }
  if (isInfinite(x)) return pack(x.sign, all, 0n);
  if (x.significand === 0n) return pack(x.sign, 0n, 0n);
  const format = { bits: fraction + 1, least: 1 - bias, greatest: bias };
  const out = round(x.sign, x.significand, unit(x), false, format, r);
  if (out.overflow) {
    return overflowsToInfinity(r.mode, x.sign)
      ? pack(x.sign, all, 0n)
      : pack(x.sign, all - 1n, (1n << BigInt(fraction)) - 1n);
  }
  const length = bitLength(out.value);
  const top = length - 1 + out.exponent;
  if (out.value === 0n || top < 1 - bias) {
    return pack(x.sign, 0n, out.value << BigInt(out.exponent - (1 - bias - fraction)));
  }
  const f = (out.value << BigInt(fraction + 1 - length)) & (1n << BigInt(fraction)) - 1n;
  return pack(x.sign, BigInt(top + bias), f);
}

/** A number rounded to an integer. */
export function roundToInteger(x: Extended, r: Rounding): Extended {
  if (special(x)) return nanOf(x, x, r);
  if (isInfinite(x) || isZero(x) || unit(x) >= 0) return x;
  const { value, exact } = unit(x) < -200
    ? shifted(1n, 2, false, r.mode, x.sign)
    : shifted(x.significand, -unit(x), false, r.mode, x.sign);
  if (!exact) r.flags |= FPU_EXCEPTION.precision;
  return value === 0n ? zero(x.sign) : { ...fromInteger(value), sign: x.sign };
}

/** Exponent and significand of a number, both as numbers: of zero minus infinity and that zero. */
export function extract(
  x: Extended,
  r: Rounding,
): { readonly exponent: Extended; readonly significand: Extended } {
  if (special(x)) {
    const nan = nanOf(x, x, r);
    return { exponent: nan, significand: nan };
  }
  if (isInfinite(x)) return { exponent: infinity(0), significand: x };
  if (isZero(x)) {
    r.flags |= FPU_EXCEPTION.zeroDivide;
    return { exponent: infinity(1), significand: x };
  }
  if (x.exponent === 0) r.flags |= FPU_EXCEPTION.denormal;
  const length = bitLength(x.significand);
  return {
    exponent: fromInteger(BigInt(unit(x) + length - 1)),
    significand: { ...x, exponent: BIAS, significand: x.significand << BigInt(64 - length) },
  };
}
