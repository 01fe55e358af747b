/**
 * CRC-32 of bytes one after the other, from the CRC-32 of each: what follows
 * moves what came before by a linear map over GF(2), which depends on its length
 * alone.
 *
 * @module
 */

/** The polynomial of IEEE 802.3, lowest bit first. */
const POLYNOMIAL = 0xedb88320;

/** A linear map of 32 bits, as the images of the values of each byte: 4 times 256. */
export type CrcShift = Int32Array;

type Columns = readonly number[];

function apply(columns: Columns, value: number): number {
  let sum = 0;
  for (let i = 0, rest = value; rest !== 0; i++, rest >>>= 1) {
    if ((rest & 1) !== 0) sum ^= columns[i] as number;
  }
  return sum;
}

function twice(columns: Columns): Columns {
  return columns.map((column) => apply(columns, column));
}

/** What one zero bit does. */
const BIT: Columns = Array.from(
  { length: 32 },
  (_, i) => i === 0 ? POLYNOMIAL | 0 : 1 << i - 1,
);
const BYTE = twice(twice(twice(BIT)));

/** What so many zero bytes do. */
function zeros(length: number): Columns {
  let columns: Columns = Array.from({ length: 32 }, (_, i) => 1 << i);
  let power = BYTE;
  for (let rest = length; rest > 0; rest = Math.floor(rest / 2)) {
    if (rest % 2 === 1) columns = columns.map((column) => apply(power, column));
    power = twice(power);
  }
  return columns;
}

/**
 * What bytes that follow do to a CRC-32, apart from adding their own.
 *
 * @param length How many.
 * @returns A table for {@linkcode shiftCrc}.
 */
export function crcShift(length: number): CrcShift {
  const columns = zeros(length);
  const table = new Int32Array(1024);
  for (let byte = 0; byte < 4; byte++) {
    for (let value = 0; value < 256; value++) {
      table[byte * 256 + value] = apply(columns, value << byte * 8);
    }
  }
  return table;
}

/**
 * Applies a table of {@linkcode crcShift}.
 *
 * @param table The table.
 * @param crc The CRC-32 of what came before.
 * @returns What it contributes, signed.
 */
export function shiftCrc(table: CrcShift, crc: number): number {
  return (table[crc & 255] as number) ^ (table[256 + (crc >>> 8 & 255)] as number) ^
    (table[512 + (crc >>> 16 & 255)] as number) ^ (table[768 + (crc >>> 24)] as number);
}

/**
 * CRC-32 of bytes one after the other.
 *
 * @param a CRC-32 of the first.
 * @param b CRC-32 of the others.
 * @param length How many the others are.
 * @returns CRC-32 of all.
 */
export function joinCrc(a: number, b: number, length: number): number {
  return (apply(zeros(length), a) ^ b) >>> 0;
}
