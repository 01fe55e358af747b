/**
 * Carrying out a #VMEXIT from L2 to L1 under the vCPU's policy.
 *
 * @module
 */
import { C } from "../svm/machine.ts";
import { OK, runWay } from "../policy.ts";
import type { Vcpu } from "./vcpu.ts";

/**
 * Runs the policy's #VMEXIT list (nested_svm_vmexit).
 *
 * @returns Whether L1 received it; false when vmcb12 could not be mapped.
 */
export function nestedVmexit(v: Vcpu): boolean {
  const outcome = runWay(v, "vmexit");
  if (outcome !== OK) return false;
  v.observer?.inner("vmexit", 0, v);
  return true;
}

/** A #VMEXIT with nothing but an exit code (nested_svm_simple_vmexit). */
export function simpleVmexit(v: Vcpu, code: number): boolean {
  const vmcb = v.vmcb;
  v.set32(vmcb + C.exit_code, code);
  v.set32(vmcb + C.exit_code_hi, 0);
  v.set64(vmcb + C.exit_info_1, 0n);
  v.set64(vmcb + C.exit_info_2, 0n);
  return nestedVmexit(v);
}
