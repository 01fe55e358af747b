/**
 * KVM's instruction emulator, as far as exits need it: which instruction it is,
 * what L1 takes over, and what the emulator carries out itself.
 *
 * @module
 */
import { C, V } from "../svm/machine.ts";
import { PREFIX } from "../cpu/decode.ts";
import { bytesAtRip, codeWidth, fetch, insn, protectedCode } from "./code_at_rip.ts";
import { EXIT, VECTOR } from "./constants.ts";
import { DEVICE, emulateAny, GOES_ON, LACKING, store } from "./emulate_any.ts";
import { clearTs, loadMsw, moveDr, moveFromCr, moveToCr, storeMsw } from "./emulate_control.ts";
import { portIo, PORTS } from "./emulate_ports.ts";
import { emulationFailure, finish, intercepted, privileged, unmodelled } from "./emulation.ts";
import { cpuidFaults, emulateCpuid } from "./cpuid.ts";
import { readMsr, writeMsr } from "./msrs.ts";
import { clearExceptions, linearRip, queueException } from "./queue.ts";
import { leaveSmm } from "./smm.ts";
import type { Vcpu } from "./vcpu.ts";

/**
 * Emulates the instruction that exited.
 *
 * @returns Whether the guest goes on; if not, the result says why.
 */
export function emulateInstruction(v: Vcpu): boolean {
  clearExceptions(v);
  if (!fetch(v, false)) {
    if (v.u8(V.exception_pending) !== 0 || v.u8(V.vmexit_pending) !== 0) return true;
    return emulationFailure(v, false);
  }
  switch (insn(v).opcode) {
    case 0x120:
      return moveFromCr(v);
    case 0x122:
      return moveToCr(v);
    case 0x121:
    case 0x123:
      return moveDr(v, insn(v).opcode === 0x123);
    case 0x130:
    case 0x132:
      return moveMsr(v, insn(v).opcode === 0x130);
    case 0x133: // There is no counter that it could read.
      return finish(v, false);
    case 0x1a2:
      return readCpuid(v);
    case 0x106:
      return clearTs(v);
    case 0x100:
      return table(v, TABLE_EXITS[6]);
    case 0x101:
      return group7(v);
    case 0x1aa:
      return emulateRsm(v);
    default:
      return emulateOther(v);
  }
}

/** Exit codes of instructions that L1 may intercept, for the emulator's own check of L1's intercepts. */
const OPCODE_EXITS: ReadonlyMap<number, number> = new Map([
  [0x9c, EXIT.PUSHF],
  [0x9d, EXIT.POPF],
  [0xcd, EXIT.SWINT],
  [0xcf, EXIT.IRET],
  [0xf1, EXIT.ICEBP],
  [0xf4, EXIT.HLT],
  [0x108, EXIT.INVD],
  [0x109, EXIT.WBINVD],
  [0x131, EXIT.RDTSC],
]);

/** Those that are refused at other privilege levels before L1 is asked. */
const PRIVILEGED: ReadonlySet<number> = new Set([0xf4, 0x108, 0x109]);

/** The same for the instructions of 0F 01 with a register operand. */
const GROUP_EXITS: ReadonlyMap<number, number> = new Map([
  [0xc8, EXIT.MONITOR],
  [0xc9, EXIT.MWAIT],
  [0xd1, EXIT.XSETBV],
  [0xd8, EXIT.VMRUN],
  [0xd9, EXIT.VMMCALL],
  [0xda, EXIT.VMLOAD],
  [0xdb, EXIT.VMSAVE],
  [0xdc, EXIT.STGI],
  [0xdd, EXIT.CLGI],
  [0xde, EXIT.SKINIT],
  [0xdf, EXIT.INVLPGA],
  [0xf9, EXIT.RDTSCP],
]);

/** An instruction that KVM was not meant to emulate: L1's intercepts come first (svm_check_intercept). */
function emulateOther(v: Vcpu): boolean {
  const { opcode, prefixes } = insn(v);
  const code = opcode === 0x101
    ? GROUP_EXITS.get(insn(v).modrm)
    : opcode === 0x90 && (prefixes & PREFIX.repz) !== 0
    ? EXIT.PAUSE
    : OPCODE_EXITS.get(opcode);
  if (PRIVILEGED.has(opcode) && !privileged(v)) return true;
  if (insn(v).opcode === 0x101 && insn(v).modrm >= 0xd8 && insn(v).modrm <= 0xdf) {
    // The emulator takes SVM's instructions for protected mode's; all but VMMCALL are privileged.
    if (codeWidth(v) === 16 && !protectedCode(v)) {
      queueException(v, VECTOR.UD);
      return true;
    }
    if (insn(v).modrm !== 0xd9 && !privileged(v)) return true;
  }
  if (PORTS.has(insn(v).opcode)) return portIo(v);
  if (code !== undefined && !intercepted(v, code)) return true;
  if (opcode === 0x131) return unmodelled(v, "RDTSC");
  return carryOut(v);
}

/** RDMSR and WRMSR. */
function moveMsr(v: Vcpu, write: boolean): boolean {
  if (!privileged(v)) return true;
  if (v.guestMode) v.set64(v.vmcb + C.exit_info_1, write ? 1n : 0n);
  if (!intercepted(v, EXIT.MSR)) return true;
  const index = v.u32(V.rcx);
  if (write) {
    return finish(v, writeMsr(v, index, BigInt(v.u32(V.rax)) | BigInt(v.u32(V.rdx)) << 32n));
  }
  const value = readMsr(v, index);
  if (value === undefined) return finish(v, false);
  v.set64(V.rax, value & 0xffffffffn);
  v.set64(V.rdx, value >> 32n);
  return finish(v, true);
}

/** CPUID. */
function readCpuid(v: Vcpu): boolean {
  if (!intercepted(v, EXIT.CPUID)) return true;
  if (cpuidFaults(v)) return finish(v, false);
  emulateCpuid(v);
  return finish(v, true);
}

/** VMCALL is patched into VMMCALL, which the guest then executes (emulator_fix_hypercall). */
function patchVmcall(v: Vcpu): boolean {
  if (!privileged(v)) return true;
  const rip = linearRip(v);
  if (store(v, 2, 0x010f, rip)) store(v, 1, 0xd9, rip + 2n);
  return true;
}

/** Exits of the instructions that store and load descriptor tables, by ModRM.reg of 0F 00 and 0F 01. */
const TABLE_EXITS = {
  6: [EXIT.LDTR_READ, EXIT.TR_READ, EXIT.LDTR_WRITE, EXIT.TR_WRITE],
  7: [EXIT.GDTR_READ, EXIT.IDTR_READ, EXIT.GDTR_WRITE, EXIT.IDTR_WRITE],
} as const;

/** SLDT, STR, SGDT, SIDT and their loads. */
function table(v: Vcpu, exits: readonly number[]): boolean {
  const operand = insn(v).reg & 7;
  const code = exits[operand];
  if (code === undefined) return carryOut(v);
  if (operand > 1 && !privileged(v)) return true;
  return intercepted(v, code) ? carryOut(v) : true;
}

/** Carries out an instruction that needs nothing of KVM's own; what the emulator lacks is a failure. */
function carryOut(v: Vcpu): boolean {
  const { bytes, fetched } = bytesAtRip(v);
  const outcome = emulateAny(v, bytes, fetched);
  if (outcome === GOES_ON) return true;
  if (outcome === DEVICE) return false;
  if (outcome !== LACKING) v.miss(`emulation of opcode ${insn(v).opcode.toString(16)}`);
  return emulationFailure(v, false);
}

function group7(v: Vcpu): boolean {
  if (GROUP_EXITS.has(insn(v).modrm)) return emulateOther(v);
  const operand = insn(v).reg & 7;
  if (insn(v).modrm === 0xc1) return patchVmcall(v);
  if (operand < 4 && insn(v).mod !== 3) return table(v, TABLE_EXITS[7]);
  if (operand === 4) {
    if (insn(v).mod === 3) return storeMsw(v);
    return intercepted(v, EXIT.READ_CR0) ? carryOut(v) : true;
  }
  if (operand === 6) return loadMsw(v);
  if (operand === 7 && insn(v).mod !== 3) {
    if (!privileged(v)) return true;
    if (!intercepted(v, EXIT.INVLPG)) return true;
    return finish(v, true);
  }
  return carryOut(v);
}

/** RSM (em_rsm): the state save area decides where it leads; a failure is a triple fault. */
export function emulateRsm(v: Vcpu): boolean {
  if (!intercepted(v, EXIT.RSM)) return true;
  if (!v.smm) {
    queueException(v, VECTOR.UD);
    return true;
  }
  return leaveSmm(v) || emulationFailure(v, false);
}
