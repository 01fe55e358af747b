/**
 * Whose exit it is: L1's, as its intercepts and permission maps say, or KVM's.
 *
 * @module
 */
import { C, V, VMCB01_AT, VMCB12_AT } from "../svm/machine.ts";
import { EXIT, INTERCEPT } from "./constants.ts";
import { l1Intercepts } from "./control.ts";
import type { Vcpu } from "./vcpu.ts";

/** Whether an exit of L2 is L1's (nested_svm_exit_special and nested_svm_intercept). */
export function forL1(v: Vcpu, code: number): boolean {
  if (code === EXIT.INTR || code === EXIT.NMI || code === EXIT.NPF) return false;
  if (code >= EXIT.EXCP && code < EXIT.EXCP + 32) {
    return (v.u32(VMCB01_AT + C.intercept_exceptions) >>> code - EXIT.EXCP & 1) === 0;
  }
  if (code === 0xffffffff) return true;
  if (code === EXIT.MSR) return msrForL1(v);
  if (code === EXIT.IOIO) return ioForL1(v);
  return code < 192 && l1Intercepts(v, code);
}

function msrForL1(v: Vcpu): boolean {
  if (!l1Intercepts(v, INTERCEPT.MSR_PROT)) return false;
  const msr = v.u32(V.rcx);
  const range = [0, 0xc000, 0xc001].indexOf(msr >>> 16);
  if (range < 0 || (msr & 0xffff) >= 0x2000) return true;
  const write = v.u32(v.vmcb + C.exit_info_1) & 1;
  const at = base(v, VMCB12_AT + C.msrpm_base_pa) + range * 2048 + ((msr & 0xffff) >> 4) * 4;
  if (!v.memory.backed(at, 4)) return true;
  return (v.memory.read(at, 4) >>> 2 * (msr & 15) + write & 1) === 1;
}

function ioForL1(v: Vcpu): boolean {
  if (!l1Intercepts(v, INTERCEPT.IOIO_PROT)) return false;
  const info = v.u32(v.vmcb + C.exit_info_1);
  const port = info >>> 16, size = info >> 4 & 7, bit = port % 8;
  const at = base(v, VMCB12_AT + C.iopm_base_pa) + (port >> 3);
  const length = bit + size > 8 ? 2 : 1;
  if (!v.memory.backed(at, length)) return true;
  return (v.memory.read(at, length) & (0xf >> 4 - size) << bit) !== 0;
}

/** A 64-bit address as a number. */
export function base(v: Vcpu, at: number): number {
  return v.u32(at) + v.u32(at + 4) * 0x1_0000_0000;
}
