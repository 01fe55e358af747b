/**
 * Moving RIP past an instruction (kvm_skip_emulated_instruction and its kin).
 *
 * @module
 */
import { C, S, V } from "../svm/machine.ts";
import { advance, fetch, insn } from "./code_at_rip.ts";
import { RFLAGS, VECTOR } from "./constants.ts";
import { emulationFailure } from "./emulation.ts";
import { clearExceptions, NO_ERROR, queueException } from "./queue.ts";
import { rflags, setRflagsLow } from "./regs.ts";
import type { Vcpu } from "./vcpu.ts";

/**
 * Moves RIP past the instruction that exited (kvm_skip_emulated_instruction):
 * by the address the processor gave, or by decoding it.
 *
 * @returns Whether the guest goes on.
 */
export function skipInstruction(v: Vcpu): boolean {
  const flags = rflags(v);
  if (!skipOnly(v)) return false;
  v.clear32(v.vmcb + C.int_state, 1);
  if ((flags & RFLAGS.TF) !== 0) queueException(v, VECTOR.DB, NO_ERROR, 1n << 14n);
  return true;
}

/** Moves RIP past the instruction, and nothing else (skip_emulated_instruction). */
export function skipOnly(v: Vcpu): boolean {
  if (v.u64(V.next_rip) !== 0n) {
    v.copy64(V.rip, V.next_rip);
    return true;
  }
  clearExceptions(v);
  if (!fetch(v, true)) return emulationFailure(v, true);
  advance(v);
  const flags = rflags(v);
  if ((flags & RFLAGS.RF) !== 0) {
    setRflagsLow(v, flags & ~RFLAGS.RF);
    v.requestEvent();
  }
  return true;
}

/**
 * Before KVM injects a software interrupt without NextRIP it moves RIP past
 * the instruction itself (svm_update_soft_interrupt_rip).
 *
 * @returns Whether that was possible; if not, the event is dropped.
 */
export function skipSoftInterrupt(v: Vcpu, vector: number): boolean {
  const before = v.u64(V.rip);
  if (v.u64(V.next_rip) !== 0n) {
    v.copy64(V.rip, V.next_rip);
  } else {
    clearExceptions(v);
    if (!fetch(v, true) || !isSoftInstruction(v, vector)) return false;
    advance(v);
    if ((rflags(v) & RFLAGS.RF) !== 0) {
      setRflagsLow(v, rflags(v) & ~RFLAGS.RF);
      v.requestEvent();
    }
  }
  v.clear32(v.vmcb + C.int_state, 1);
  v.set8(V.soft_int_injected, 1);
  v.copy64(V.soft_int_csbase, v.vmcb + S.cs_base);
  v.set64(V.soft_int_old_rip, before);
  v.copy64(V.soft_int_next_rip, V.rip);
  return true;
}

function isSoftInstruction(v: Vcpu, vector: number): boolean {
  switch (insn(v).opcode) {
    case 0xcc:
      return vector === 3;
    case 0xcd:
      // The emulator extends the sign of the operand: vectors from 0x80 on are never told.
      return vector === insn(v).imm;
    case 0xce:
      return vector === 4;
    default:
      return false;
  }
}
