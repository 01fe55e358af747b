/**
 * IN, OUT and their string forms, as KVM emulates them.
 *
 * @module
 */
import { C, S, V } from "../svm/machine.ts";
import { PREFIX } from "../cpu/decode.ts";
import { codeWidth, fetch, insn, protectedCode } from "./code_at_rip.ts";
import { EXIT, KVM_EXIT, RFLAGS } from "./constants.ts";
import { finish, intercepted, unmodelled } from "./emulation.ts";
import { injectGp, linearRip } from "./queue.ts";
import { rflags, setRflagsLow } from "./regs.ts";
import { addressRegister, FAULTED, IN_DEVICE, moveRegister, readSource } from "./string_operand.ts";
import { storeZeros } from "./emulate_any.ts";
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
  if (linearRip(v) !== BigInt.asUintN(64, waiting)) {
    if (string) v.miss("INS that goes on with other registers");
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
  v.pendingIo = waitingIo(v, size) | STRING;
  return false;
}

/** What was read goes to memory: with REP as much as was asked for, up to the end of the page. */
function completeInString(v: Vcpu, size: number): boolean {
  if (!fetch(v, true)) {
    v.miss("INS that goes on with other code");
    return true;
  }
  const { prefixes, aflag } = insn(v);
  const repeated = (prefixes & (PREFIX.repz | PREFIX.repnz)) !== 0;
  const down = (rflags(v) & RFLAGS.DF) !== 0;
  const inPage = addressRegister(v, V.rdi, aflag) & 0xfffn;
  const count = repeated ? addressRegister(v, V.rcx, aflag) & 0xffffffffn : 1n;
  const most = [down ? inPage : 4096n - inPage, READ_AHEAD / BigInt(size), count];
  const pieces = Number(most.reduce((a, b) => a < b ? a : b)) || 1;
  for (let done = 0; done < pieces; done++) {
    if (!storeZeros(v, size, aflag)) return true;
    moveRegister(v, V.rdi, aflag, down ? -size : size);
    if (repeated) moveRegister(v, V.rcx, aflag, -1);
  }
  if (!repeated || addressRegister(v, V.rcx, aflag) === 0n) return finish(v, true);
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
