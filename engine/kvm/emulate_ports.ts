/**
 * IN, OUT and their string forms, as KVM emulates them.
 *
 * @module
 */
import { C, S, V } from "../svm/machine.ts";
import { PREFIX } from "../cpu/decode.ts";
import { codeWidth, fetch, insn, protectedCode } from "./code_at_rip.ts";
import { EXIT, KVM_EXIT, RFLAGS, VECTOR } from "./constants.ts";
import { finish, intercepted, unmodelled } from "./emulation.ts";
import { injectGp, linearRip, NO_ERROR, queueException } from "./queue.ts";
import { rflags, setRflagsLow } from "./regs.ts";
import { addressRegister, FAULTED, IN_DEVICE, moveRegister, readSource } from "./string_operand.ts";
import { store } from "./emulate_any.ts";
import { skipInstruction } from "./skip.ts";
import type { Vcpu } from "./vcpu.ts";

/** IN and OUT, and their string forms. */
export const PORTS: ReadonlySet<number> = new Set([
  0x6c,
  0x6d,
  0x6e,
  0x6f,
  0xe4,
  0xe5,
  0xe6,
  0xe7,
  0xec,
  0xed,
  0xee,
  0xef,
]);

/**
 * A port access that KVM emulates. OUT is over when userspace hears of it, IN
 * waits for the value.
 */
export function portIo(v: Vcpu): boolean {
  const opcode = insn(v).opcode;
  const string = opcode < 0x70;
  const out = (opcode & 2) !== 0;
  const port = string || opcode >= 0xe8 ? v.u32(V.rdx) & 0xffff : insn(v).imm & 0xff;
  const size = (opcode & 1) === 0 ? 1 : insn(v).dflag === 1 ? 2 : 4;
  const iopl = rflags(v) >> 12 & 3;
  if (v.u8(v.vmcb + S.cpl) > iopl && protectedCode(v)) {
    injectGp(v);
    return true;
  }
  if (v.guestMode) {
    const repeated = (insn(v).prefixes & (PREFIX.repz | PREFIX.repnz)) !== 0;
    const info = port << 16 | size << 4 | 1 << insn(v).aflag + 6 | (out ? 0 : 1) |
      (string ? 4 : 0) |
      (repeated ? 8 : 0);
    v.set64(v.vmcb + C.exit_info_1, BigInt(info >>> 0));
    const length = v.traits.emulatesPortsWithNextRip ? insn(v).length : 0;
    v.set64(v.vmcb + C.exit_info_2, v.u64(V.rip) + BigInt(length));
    if (!intercepted(v, EXIT.IOIO)) return true;
  }
  if (string) return out ? outString(v, port, size) : inString(v, port, size);
  v.result.exit = KVM_EXIT.IO;
  v.result.port = port;
  if (out) finish(v, true, false);
  else v.pendingIo = waitingIo(v, size);
  return false;
}

/** `pendingIo` is the linear address of the instruction, what IN wants in bytes, and whether it is INS. */
const SIZE_AT = 64n, STRING = 1n << 72n;
/** Of INS without REP also what the emulator decoded: the mode, flags, the next RIP, and the offset. */
const ONCE = 1n << 73n, WIDE = 1n << 74n, AFLAG_AT = 75n, FLAGS_AT = 80n, NEXT_AT = 112n;
const OFFSET_AT = 176n;
/** Bytes that KVM reads ahead for INS. */
const READ_AHEAD = 1024n;

/**
 * What `pendingIo` of a vCPU holds while an access to a port waits for userspace.
 *
 * @param size Bytes that it reads; 0 for OUT.
 */
export function waitingIo(v: Vcpu, size: number): bigint {
  return linearRip(v) | BigInt(size) << SIZE_AT;
}

/**
 * Completes the access that waited. Userspace of the recordings gives no value: what it finds and
 * leaves there is zero.
 *
 * @returns Whether the guest goes on.
 */
export function completeIo(v: Vcpu): boolean {
  const waiting = v.pendingIo, size = Number(waiting >> SIZE_AT & 0xffn);
  v.pendingIo = -1n;
  const string = (waiting & STRING) !== 0n;
  if ((waiting & ONCE) !== 0n) return completeDecoded(v, waiting, size);
  if (linearRip(v) !== BigInt.asUintN(64, waiting)) {
    if (string) v.miss("REP INS that goes on with other registers");
    return true;
  }
  if (string) return completeInString(v, size);
  if (size === 4) v.set64(V.rax, 0n);
  else if (size !== 0) v.set64(V.rax, v.u64(V.rax) >> BigInt(8 * size) << BigInt(8 * size));
  return skipInstruction(v);
}

/** INS: nothing moves before userspace has given the value. */
function inString(v: Vcpu, port: number, size: number): boolean {
  const { prefixes, aflag } = insn(v);
  const repeated = (prefixes & (PREFIX.repz | PREFIX.repnz)) !== 0;
  if (repeated && addressRegister(v, V.rcx, aflag) === 0n) return finish(v, true);
  v.result.exit = KVM_EXIT.IO;
  v.result.port = port;
  v.pendingIo = waitingIo(v, size) | STRING | (repeated ? 0n : decoded(v));
  return false;
}

/** What the emulator keeps of INS. */
function decoded(v: Vcpu): bigint {
  const { aflag, length } = insn(v), wide = codeWidth(v) === 64;
  const next = v.u64(V.rip) + BigInt(length);
  return ONCE | (wide ? WIDE : 0n) | BigInt(aflag) << AFLAG_AT |
    BigInt(rflags(v) >>> 0) << FLAGS_AT | BigInt.asUintN(wide ? 64 : 32, next) << NEXT_AT |
    addressRegister(v, V.rdi, aflag) << OFFSET_AT;
}

/** The linear address of an offset in ES. */
function destination(v: Vcpu, offset: bigint, wide: boolean): bigint {
  return wide ? offset : v.u64(v.vmcb + S.es_base) + offset & 0xffffffffn;
}

/**
 * Goes on with INS where it was, whatever userspace did to the registers since: segments, paging
 * and RDI are those of now, the offset, the flags and the next RIP those that were decoded.
 */
function completeDecoded(v: Vcpu, waiting: bigint, size: number): boolean {
  const flags = Number(waiting >> FLAGS_AT & 0xffffffffn), aflag = Number(waiting >> AFLAG_AT & 3n);
  const offset = BigInt.asUintN(64, waiting >> OFFSET_AT);
  if (!store(v, size, 0, destination(v, offset, (waiting & WIDE) !== 0n))) return true;
  moveRegister(v, V.rdi, aflag, (flags & RFLAGS.DF) !== 0 ? -size : size);
  v.set64(V.rip, BigInt.asUintN(64, waiting >> NEXT_AT));
  v.clear32(v.vmcb + C.int_state, 1);
  if ((flags & RFLAGS.TF) !== 0) queueException(v, VECTOR.DB, NO_ERROR, 1n << 14n);
  setRflagsLow(v, flags & ~RFLAGS.RF);
  return true;
}

/** What REP INS read goes to memory: as much as was asked for, up to the end of the page. */
function completeInString(v: Vcpu, size: number): boolean {
  if (!fetch(v, true)) {
    v.miss("INS that goes on with other code");
    return true;
  }
  const { aflag } = insn(v);
  const down = (rflags(v) & RFLAGS.DF) !== 0;
  const inPage = addressRegister(v, V.rdi, aflag) & 0xfffn;
  const count = addressRegister(v, V.rcx, aflag) & 0xffffffffn;
  const most = [down ? inPage : 4096n - inPage, READ_AHEAD / BigInt(size), count];
  const pieces = Number(most.reduce((a, b) => a < b ? a : b)) || 1;
  for (let done = 0; done < pieces; done++) {
    const offset = addressRegister(v, V.rdi, aflag);
    if (!store(v, size, 0, destination(v, offset, codeWidth(v) === 64))) return true;
    moveRegister(v, V.rdi, aflag, down ? -size : size);
    moveRegister(v, V.rcx, aflag, -1);
  }
  if (addressRegister(v, V.rcx, aflag) === 0n) return finish(v, true);
  setRflagsLow(v, rflags(v) | RFLAGS.RF);
  return true;
}

/** OUTS: one piece, and with REP the instruction again until RCX is 0. */
function outString(v: Vcpu, port: number, size: number): boolean {
  const { prefixes, aflag } = insn(v);
  const repeated = (prefixes & (PREFIX.repz | PREFIX.repnz)) !== 0;
  if (repeated && addressRegister(v, V.rcx, aflag) === 0n) return finish(v, true);
  const operand = readSource(v, insn(v), size, codeWidth(v) === 64);
  if (operand === FAULTED) return true;
  if (operand === IN_DEVICE) return unmodelled(v, "OUTS from a device");
  v.result.exit = KVM_EXIT.IO;
  v.result.port = port;
  moveRegister(v, V.rsi, aflag, (rflags(v) & RFLAGS.DF) !== 0 ? -size : size);
  if (repeated) moveRegister(v, V.rcx, aflag, -1);
  if (!repeated || addressRegister(v, V.rcx, aflag) === 0n) finish(v, true, false);
  else setRflagsLow(v, rflags(v) | RFLAGS.RF);
  return false;
}
