/**
 * What of a difference somebody outside the hypervisor can see.
 *
 * @module
 */
import type { FieldDifference } from "../../engine/diff/mod.ts";

/** Of the nested bookkeeping: what KVM_GET_NESTED_STATE tells. */
const TOLD: ReadonlySet<string> = new Set(["gif", "guest_mode", "run_pending"]);

/**
 * Whether a guest or userspace sees a field: L1's and L2's registers, queued events, vmcb12, and what
 * KVM_GET_NESTED_STATE tells. The rest (vmcb01, vmcb02, roles of the MMU, requests) is the
 * hypervisor's own, and the model of the kernel answers for it.
 *
 * @param difference The field.
 */
export function isVisible({ area, field }: FieldDifference): boolean {
  return area === "L1" || area === "vmcb12" || area === "nested" && TOLD.has(field.name);
}
