/**
 * What a way to change the base is, and what several of them put into their
 * tokens.
 *
 * @module
 */
import { NPT_TABLES, PAE_TABLES } from "../scenarios/base.ts";
import type { Entry } from "../scenarios/scenario.ts";
import type { Random } from "./random.ts";

/** One way to change the base. */
export interface Mutation {
  /** Short name, part of the names of the cases that have it. */
  readonly name: string;
  /** How often it is taken, relative to the others. */
  readonly weight: number;
  /** The ways in it makes sense for; all when left out. */
  readonly entries?: readonly Entry[];
  /** With `entry=rsm`: takes effect before VMRUN in any case, never between the SMI and RSM. */
  readonly early?: boolean;
  /** Tokens of the case syntax. */
  readonly tokens: (random: Random) => string[];
}

/** A number as the case syntax has it. */
export const hex = (value: bigint | number): string => value.toString(16);

/** Flips one bit; the low half, where most bits mean something, more often. */
export function flip(random: Random, value: bigint, avoid: readonly number[] = []): bigint {
  for (;;) {
    const bit = random.chance(70) ? random.below(32) : random.below(64);
    if (!avoid.includes(bit)) return value ^ 1n << BigInt(bit);
  }
}

/** A 32-bit value with one bit flipped. */
export function flip32(random: Random, value: number): number {
  return (value ^ 1 << random.below(32)) >>> 0;
}

/** Physical addresses where something ends: RAM, 4 GiB, the 40 address bits. */
export const EDGES: readonly bigint[] = [
  ...[0xffd000n, 0xffe000n, 0xfff000n, 0x1000000n, 0x8000000n, 0xfffff000n, 0xffffffc000n],
  ...[0xffffffd000n, 0xffffffe000n, 0xfffffff000n, 0x10000000000n, 0xfff0000000030000n],
];

/** Nested paging, with the base's tables. */
export const NPT_ON: readonly [string, string] = ["c.90=1", `c.b0=${hex(NPT_TABLES)}`];
/** An L2 with PAE paging. */
export const PAE_L2: readonly string[] = ["s.d0=1000", `s.150=${hex(PAE_TABLES)}`, "s.12.2=c9b"];

/** The base's intercept word 3. */
export const WORD3 = 0x91000000;
/** The base's intercept word 4. */
export const WORD4 = 3;
/** Sets bits of intercept word 3, besides what the base has there. */
export const word3 = (bits: number): string => `c.c.4=${hex((WORD3 | bits) >>> 0)}`;
/** The same of word 4. */
export const word4 = (bits: number): string => `c.10.4=${hex((WORD4 | bits) >>> 0)}`;
