/**
 * The memory operand of OUTS, as KVM's emulator reads it.
 *
 * @module
 */
import { S, V } from "../svm/machine.ts";
import type { Instruction } from "../cpu/decode.ts";
import { linearToGpa } from "../paging/translate.ts";
import { walkError } from "../paging/vcpu_walk.ts";
import { READ } from "../paging/walk.ts";
import { CR4, VECTOR } from "./constants.ts";
import { queueException } from "./queue.ts";
import type { Vcpu } from "./vcpu.ts";

/** It was read. */
export const IN_MEMORY = 0;
/** An exception is queued. */
export const FAULTED = 1;
/** It is in a device's memory. */
export const IN_DEVICE = 2;

/** Bases of the segments in the order of {@linkcode Instruction.segment}. */
const BASES = [S.es_base, S.cs_base, S.ss_base, S.ds_base, S.fs_base, S.gs_base] as const;
const SS = 2, DS = 3, FS = 4;

const MASKS = [0n, 0xffffn, 0xffffffffn, 0xffffffffffffffffn] as const;

function canonical(v: Vcpu, linear: bigint): boolean {
  const bits = (v.u32(V.cr4) & CR4.LA57) !== 0 ? 57 : 48;
  return BigInt.asUintN(64, BigInt.asIntN(bits, linear)) === linear;
}

/**
 * Reads the operand at the segment's RSI, of which no value is needed.
 *
 * @param v The vCPU.
 * @param insn The instruction.
 * @param size Bytes.
 * @param wide Whether it is 64-bit code.
 */
export function readSource(v: Vcpu, insn: Instruction, size: number, wide: boolean): number {
  const segment = insn.segment < 0 ? DS : insn.segment;
  const based = !wide || segment >= FS;
  const base = based ? v.u64(v.vmcb + (BASES[segment] as number)) : 0n;
  const width = wide ? 64 : 32;
  const start = base + (v.u64(V.rsi) & (MASKS[insn.aflag] as bigint));
  for (let i = 0; i < size; i++) {
    const linear = BigInt.asUintN(width, start + BigInt(i));
    // One look at each page is enough.
    if (i > 0 && (linear & 0xfffn) !== 0n) continue;
    if (wide && !canonical(v, linear)) {
      queueException(v, segment === SS ? VECTOR.SS : VECTOR.GP, 0);
      return FAULTED;
    }
    const user = v.u8(v.vmcb + S.cpl) === 3;
    const gpa = linearToGpa(v, Number(linear & 0xffffffffn), Number(linear >> 32n), READ, user);
    const known = v.faultGpa >= 0 && v.faultGpa % 4096 === Number(linear & 0xfffn);
    if (known && !v.memory.backed(v.faultGpa)) return IN_DEVICE;
    if (gpa < 0) {
      queueException(v, VECTOR.PF, walkError(v), linear);
      return FAULTED;
    }
    if (!v.memory.backed(gpa)) return IN_DEVICE;
  }
  return IN_MEMORY;
}

/** Moves a general register by some bytes, as far as addresses are wide. */
export function moveRegister(v: Vcpu, at: number, aflag: number, by: number): void {
  const old = v.u64(at), mask = MASKS[aflag] as bigint;
  const moved = old + BigInt(by) & mask;
  // A 32-bit register's high half is cleared, a 16-bit one keeps the rest.
  v.set64(at, aflag === 1 ? old & ~mask | moved : moved);
}

/** A general register as far as addresses are wide. */
export function addressRegister(v: Vcpu, at: number, aflag: number): bigint {
  return v.u64(at) & (MASKS[aflag] as bigint);
}
