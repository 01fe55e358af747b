/**
 * One VMRUN as a debugger sees it: the registers and vmcb12 before it, and how
 * to tell the #VMEXIT that ends it from L2 code at the same address.
 *
 * @module
 */
import { Buffer } from "node:buffer";
import { S } from "../../engine/svm/machine.ts";
import type { RegisterName, VcpuView } from "./vcpu_view.ts";

/** Length of the VMRUN instruction in bytes. */
export const VMRUN_LENGTH = 3n;

/** Opcode of VMRUN. */
export const VMRUN_OPCODE: Uint8Array = Uint8Array.of(0x0f, 0x01, 0xd8);

/** L1's registers that #VMEXIT restores (APM vol. 2, 15.6), less those that L1 code after it reloads. */
const RESTORED: readonly RegisterName[] = ["rax", "rsp", "cr0", "cr3", "cr4", "efer"];

/** A VMRUN that was seen and whose #VMEXIT was not yet. */
export interface PendingVmrun {
  /** Linear address of the VMRUN. */
  readonly site: bigint;
  /** L1's registers before it. */
  readonly l1: VcpuView;
  /** Physical address of vmcb12. */
  readonly vmcb12Gpa: bigint;
  /** vmcb12 before it; undefined when the address is not memory. */
  readonly vmcb12: Uint8Array | undefined;
}

/**
 * Whether a vCPU at the instruction after a VMRUN is L1 that received the #VMEXIT, not
 * L2 that happens to run code at that linear address.
 *
 * The registers that #VMEXIT restores must be L1's. An L2 that was started with just those
 * values, at just that address, is told apart by vmcb12: a #VMEXIT writes it.
 *
 * @param pending The VMRUN.
 * @param now The vCPU's registers.
 * @param vmcb12 vmcb12 as it is now.
 * @returns True for L1.
 * @example
 * ```ts
 * import { isBackInL1, VcpuView } from "@vmtape/vmtape/traces";
 * const l1 = new VcpuView().set("cr3", 0x1000n).set("rip", 0x8000n);
 * const pending = { site: 0x8000n, l1, vmcb12Gpa: 0n, vmcb12: undefined };
 * const l2 = new VcpuView().set("cr3", 0x40000n).set("rip", 0x8003n);
 * if (isBackInL1(pending, l2, undefined)) throw new Error();
 * ```
 */
export function isBackInL1(
  pending: PendingVmrun,
  now: VcpuView,
  vmcb12: Uint8Array | undefined,
): boolean {
  if (now.get("rip") !== pending.l1.get("rip")! + VMRUN_LENGTH) return false;
  for (const name of RESTORED) {
    if (now.get(name) !== pending.l1.get(name)) return false;
  }
  const before = pending.vmcb12;
  if (before === undefined || vmcb12 === undefined) return true;
  const startsThere =
    new DataView(before.buffer, before.byteOffset).getBigUint64(S.rip, true) === now.get("rip");
  return !(startsThere && Buffer.compare(before, vmcb12) === 0);
}
