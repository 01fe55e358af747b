/**
 * What MMX and SSE instructions compute of whole numbers, lane by lane.
 *
 * @module
 */

/** One operand: 8 bytes of MMX or 16 of SSE, seen as lanes of every size. */
export class Lanes {
  readonly u8: Uint8Array;
  readonly i8: Int8Array;
  readonly u16: Uint16Array;
  readonly i16: Int16Array;
  readonly u32: Uint32Array;
  readonly i32: Int32Array;
  readonly u64: BigUint64Array;

  constructor() {
    const { buffer } = this.u8 = new Uint8Array(16);
    this.i8 = new Int8Array(buffer);
    this.u16 = new Uint16Array(buffer);
    this.i16 = new Int16Array(buffer);
    this.u32 = new Uint32Array(buffer);
    this.i32 = new Int32Array(buffer);
    this.u64 = new BigUint64Array(buffer);
  }
}

/** Lanes of one kind. */
type Kind = "u8" | "i8" | "u16" | "i16" | "u32" | "i32";
const WIDTH = { u8: 1, i8: 1, u16: 2, i16: 2, u32: 4, i32: 4 } as const;

/** Computes `a` from `a` and `b`, of `bytes` bytes each. */
export type PackedOperation = (a: Lanes, b: Lanes, bytes: number) => void;

function each(kind: Kind, f: (a: number, b: number) => number): PackedOperation {
  return (a, b, bytes) => {
    const to = a[kind], from = b[kind];
    for (let i = bytes / WIDTH[kind]; i-- > 0;) to[i] = f(to[i] as number, from[i] as number);
  };
}

function each64(f: (a: bigint, b: bigint) => bigint): PackedOperation {
  return (a, b, bytes) => {
    for (let i = bytes / 8; i-- > 0;) a.u64[i] = f(a.u64[i] as bigint, b.u64[i] as bigint);
  };
}

/** Shifts by the low quadword of the second operand, which may be more than a lane has. */
function shift(size: 2 | 4 | 8, by: "left" | "right" | "signed"): PackedOperation {
  const bits = BigInt(size * 8);
  return (a, b, bytes) => {
    let count = b.u64[0] as bigint;
    if (count >= bits) count = by === "signed" ? bits - 1n : bits;
    for (let i = bytes / size; i-- > 0;) {
      const lanes = size === 2 ? a.u16 : a.u32;
      const value = size === 8 ? a.u64[i] as bigint : BigInt(lanes[i] as number);
      const signed = by === "signed" ? BigInt.asIntN(size * 8, value) : value;
      const moved = BigInt.asUintN(size * 8, by === "left" ? value << count : signed >> count);
      if (size === 8) a.u64[i] = moved;
      else lanes[i] = Number(moved);
    }
  };
}

/** Interleaves the low or the high halves of both operands. */
function unpack(size: number, high: boolean): PackedOperation {
  return (a, b, bytes) => {
    const from = high ? bytes / 2 : 0;
    const out = new Uint8Array(bytes);
    for (let i = 0; i < bytes / 2; i += size) {
      out.set(a.u8.subarray(from + i, from + i + size), 2 * i);
      out.set(b.u8.subarray(from + i, from + i + size), 2 * i + size);
    }
    a.u8.set(out);
  };
}

/** Halves the lanes of both operands, as far as the narrow ones reach. */
function pack(from: "i16" | "i32", low: number, high: number): PackedOperation {
  const size = WIDTH[from];
  return (a, b, bytes) => {
    const count = bytes / size;
    const values = [...a[from].subarray(0, count), ...b[from].subarray(0, count)];
    const to = size === 2 ? a.u8 : a.u16;
    values.forEach((value, i) => to[i] = clamp(value, low, high));
  };
}

function clamp(value: number, low: number, high: number): number {
  return value < low ? low : value > high ? high : value;
}

const signed8 = (x: number) => clamp(x, -0x80, 0x7f),
  signed16 = (x: number) => clamp(x, -0x8000, 0x7fff);
const add = (a: number, b: number) => a + b, sub = (a: number, b: number) => a - b;
const greater = (a: number, b: number) => a > b ? -1 : 0,
  same = (a: number, b: number) => a === b ? -1 : 0;
const mean = (a: number, b: number) => a + b + 1 >> 1;

function multiplyAdd(a: Lanes, b: Lanes, bytes: number): void {
  const products = Array.from(
    { length: bytes / 2 },
    (_, i) => (a.i16[i] as number) * (b.i16[i] as number),
  );
  for (let i = 0; i < bytes / 4; i++) {
    a.i32[i] = (products[2 * i] as number) + (products[2 * i + 1] as number);
  }
}

function sumOfDifferences(a: Lanes, b: Lanes, bytes: number): void {
  for (let i = 0; i < bytes; i += 8) {
    let sum = 0;
    for (let j = i; j < i + 8; j++) sum += Math.abs((a.u8[j] as number) - (b.u8[j] as number));
    a.u64[i / 8] = BigInt(sum);
  }
}

const LOW_HALF = 0xffffffffn;

/** Operations that MMX has, and SSE with the prefix 66, by opcode after 0F. */
export const PACKED: ReadonlyMap<number, PackedOperation> = new Map([
  [0x60, unpack(1, false)],
  [0x61, unpack(2, false)],
  [0x62, unpack(4, false)],
  [0x63, pack("i16", -0x80, 0x7f)],
  [0x64, each("i8", greater)],
  [0x65, each("i16", greater)],
  [0x66, each("i32", greater)],
  [0x67, pack("i16", 0, 0xff)],
  [0x68, unpack(1, true)],
  [0x69, unpack(2, true)],
  [0x6a, unpack(4, true)],
  [0x6b, pack("i32", -0x8000, 0x7fff)],
  [0x74, each("u8", same)],
  [0x75, each("u16", same)],
  [0x76, each("u32", same)],
  [0xd1, shift(2, "right")],
  [0xd2, shift(4, "right")],
  [0xd3, shift(8, "right")],
  [0xd4, each64((a, b) => a + b)],
  [0xd5, each("u16", Math.imul)],
  [0xd8, each("u8", (a, b) => Math.max(a - b, 0))],
  [0xd9, each("u16", (a, b) => Math.max(a - b, 0))],
  [0xda, each("u8", Math.min)],
  [0xdb, each("u32", (a, b) => a & b)],
  [0xdc, each("u8", (a, b) => Math.min(a + b, 0xff))],
  [0xdd, each("u16", (a, b) => Math.min(a + b, 0xffff))],
  [0xde, each("u8", Math.max)],
  [0xdf, each("u32", (a, b) => ~a & b)],
  [0xe0, each("u8", mean)],
  [0xe1, shift(2, "signed")],
  [0xe2, shift(4, "signed")],
  [0xe3, each("u16", mean)],
  [0xe4, each("u16", (a, b) => Math.imul(a, b) >>> 16)],
  [0xe5, each("i16", (a, b) => a * b >> 16)],
  [0xe8, each("i8", (a, b) => signed8(a - b))],
  [0xe9, each("i16", (a, b) => signed16(a - b))],
  [0xea, each("i16", Math.min)],
  [0xeb, each("u32", (a, b) => a | b)],
  [0xec, each("i8", (a, b) => signed8(a + b))],
  [0xed, each("i16", (a, b) => signed16(a + b))],
  [0xee, each("i16", Math.max)],
  [0xef, each("u32", (a, b) => a ^ b)],
  [0xf1, shift(2, "left")],
  [0xf2, shift(4, "left")],
  [0xf3, shift(8, "left")],
  [0xf4, each64((a, b) => (a & LOW_HALF) * (b & LOW_HALF))],
  [0xf5, multiplyAdd],
  [0xf6, sumOfDifferences],
  [0xf8, each("u8", sub)],
  [0xf9, each("u16", sub)],
  [0xfa, each("u32", sub)],
  [0xfb, each64((a, b) => a - b)],
  [0xfc, each("u8", add)],
  [0xfd, each("u16", add)],
  [0xfe, each("u32", add)],
]);

/** Those that only SSE has. */
export const PACKED_SSE: ReadonlyMap<number, PackedOperation> = new Map([
  [0x6c, unpack(8, false)],
  [0x6d, unpack(8, true)],
]);

/** Logic and interleaving of floating-point numbers, with the prefix 66 or none. */
export const PACKED_FLOAT: ReadonlyMap<number, (double: boolean) => PackedOperation> = new Map([
  [0x14, (double: boolean) => unpack(double ? 8 : 4, false)],
  [0x15, (double: boolean) => unpack(double ? 8 : 4, true)],
  ...([[0x54, 0xdb], [0x55, 0xdf], [0x56, 0xeb], [0x57, 0xef]] as const).map(([op, as]) =>
    [op, () => PACKED.get(as) as PackedOperation] as const
  ),
]);

/** Shifts by an immediate: groups 12 to 14 (0F 71 to 73), by opcode and ModRM.reg; those of whole bytes only SSE has. */
export function immediateShift(op: number, reg: number): PackedOperation | undefined {
  const size = op === 0x71 ? 2 : op === 0x72 ? 4 : 8;
  switch (reg) {
    case 2:
      return shift(size, "right");
    case 4:
      return size === 8 ? undefined : shift(size, "signed");
    case 6:
      return shift(size, "left");
    case 3:
    case 7:
      return size !== 8 ? undefined : (a, b) => {
        const count = Number((b.u64[0] as bigint) < 16n ? b.u64[0] : 16n);
        const out = new Uint8Array(16);
        if (reg === 7) out.set(a.u8.subarray(0, 16 - count), count);
        else out.set(a.u8.subarray(count));
        a.u8.set(out);
      };
  }
  return undefined;
}

/** Lanes in the order that an immediate gives, two bits a lane (PSHUFW, PSHUFD). */
export function shuffle(
  to: Uint16Array | Uint32Array,
  from: Uint16Array | Uint32Array,
  order: number,
): void {
  const values = [0, 1, 2, 3].map((i) => from[order >> 2 * i & 3] as number);
  to.set(values);
}

/** The upper bit of each lane (MOVMSKPS, PMOVMSKB). */
export function signs(a: Lanes, bytes: number, size: number): number {
  let mask = 0;
  for (let i = 0; i < bytes / size; i++) mask |= (a.u8[i * size + size - 1] as number) >> 7 << i;
  return mask;
}
