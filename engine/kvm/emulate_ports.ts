/**
 * IN, OUT and OUTS, as KVM emulates them.
 *
 * @module
 */
import { C, S, V } from "../svm/machine.ts";
import { PREFIX } from "../cpu/decode.ts";
import { codeWidth, insn, protectedCode } from "./code_at_rip.ts";
import { EXIT, KVM_EXIT, RFLAGS } from "./constants.ts";
import { finish, intercepted, unmodelled } from "./emulation.ts";
import { injectGp, linearRip } from "./queue.ts";
import { rflags, setRflagsLow } from "./regs.ts";
import { addressRegister, FAULTED, IN_DEVICE, moveRegister, readSource } from "./string_operand.ts";
import { INS_WAITS, type Vcpu } from "./vcpu.ts";

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
 * waits for the value. EXITINFO2 is the address of the instruction itself.
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
    v.copy64(v.vmcb + C.exit_info_2, V.rip);
    if (!intercepted(v, EXIT.IOIO)) return true;
  }
  if (string) return out ? outString(v, port, size) : inString(v, port);
  v.result.exit = KVM_EXIT.IO;
  v.result.port = port;
  if (out) finish(v, true, false);
  else v.pendingIo = linearRip(v);
  return false;
}

/** INS: nothing moves before userspace has given the value, and what it gives is not modelled. */
function inString(v: Vcpu, port: number): boolean {
  const { prefixes, aflag } = insn(v);
  const repeated = (prefixes & (PREFIX.repz | PREFIX.repnz)) !== 0;
  if (repeated && addressRegister(v, V.rcx, aflag) === 0n) return finish(v, true);
  v.result.exit = KVM_EXIT.IO;
  v.result.port = port;
  v.pendingIo = INS_WAITS;
  return false;
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
