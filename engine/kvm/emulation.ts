/**
 * What the instructions that KVM emulates have in common: who may execute them,
 * whether L1 takes them over, and how they end.
 *
 * @module
 */
import { C, S, V } from "../svm/machine.ts";
import { advance } from "./code_at_rip.ts";
import { KVM_EXIT, RFLAGS, VECTOR } from "./constants.ts";
import { forL1 } from "./exit_owner.ts";
import { injectGp, NO_ERROR, queueException } from "./queue.ts";
import { rflags, setRflagsLow } from "./regs.ts";
import type { Vcpu } from "./vcpu.ts";
import { nestedVmexit } from "./vmexit.ts";

/** Leaves KVM_RUN because KVM could not emulate. */
export function emulationFailure(v: Vcpu, skipping: boolean): boolean {
  if (!skipping) {
    queueException(v, VECTOR.UD);
    if (v.guestMode || v.u8(v.vmcb + S.cpl) !== 0) return true;
  }
  v.result.exit = KVM_EXIT.INTERNAL_ERROR;
  return false;
}

/** Leaves it because the model does not know what KVM would do. */
export function unmodelled(v: Vcpu, what: string): boolean {
  v.miss(`emulation of ${what}`);
  return emulationFailure(v, false);
}

/** CPL 0 or #GP; when false the emulation is over and the guest goes on. */
export function privileged(v: Vcpu): boolean {
  if (v.u8(v.vmcb + S.cpl) === 0) return true;
  injectGp(v);
  return false;
}

/** Whether L1 does not take this instruction over. */
export function intercepted(v: Vcpu, code: number): boolean {
  if (!v.guestMode) return true;
  v.set32(v.vmcb + C.exit_code, code);
  v.set32(v.vmcb + C.exit_code_hi, 0);
  if (!forL1(v, code)) return true;
  nestedVmexit(v);
  return false;
}

/** The instruction is over, or was refused with #GP; a single step traps unless userspace comes first. */
export function finish(v: Vcpu, ok: boolean, traps = true): boolean {
  if (!ok) {
    injectGp(v);
    return true;
  }
  advance(v);
  v.clear32(v.vmcb + C.int_state, 1);
  const flags = rflags(v);
  if (traps && (flags & RFLAGS.TF) !== 0) queueException(v, VECTOR.DB, NO_ERROR, 1n << 14n);
  setRflagsLow(v, flags & ~RFLAGS.RF);
  return true;
}

/** Where a general register is, by its number. */
export function gpr(index: number): number {
  return V.rax + index * 8;
}
