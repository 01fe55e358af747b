/**
 * One VMRUN as a debugger sees it: the registers and vmcb12 before it, and how
 * to tell the #VMEXIT that ends it from L2 code at the same address.
 *
 * @module
 */
import { Buffer } from "node:buffer";
import { C, S } from "../../engine/svm/machine.ts";
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

const PAGE_MASK = ~0xfffn;
const CR0_PG = 0x80000000, CR4_PAE = 0x20, EFER_LME = 0x100, NESTED_PAGING = 1;

/**
 * The pages beside vmcb12 that decide what VMRUN does: the MSR bitmap, which KVM reads, and the
 * PDPTEs of an L2 in PAE mode.
 *
 * @param vmcb12 The VMCB.
 * @returns Physical addresses of pages.
 * @example
 * ```ts
 * import { vmrunInputs } from "@vmtape/vmtape/traces";
 * const vmcb12 = new Uint8Array(4096);
 * new DataView(vmcb12.buffer).setUint32(0x48, 0x30000, true);
 * if (vmrunInputs(vmcb12).join() !== `${0x30000},${0x31000}`) throw new Error();
 * ```
 */
export function vmrunInputs(vmcb12: Uint8Array): bigint[] {
  const view = new DataView(vmcb12.buffer, vmcb12.byteOffset, vmcb12.byteLength);
  const msrpm = view.getBigUint64(C.msrpm_base_pa, true) & PAGE_MASK;
  const pages = [msrpm, msrpm + 0x1000n];
  const pae = (view.getUint32(S.cr0, true) & CR0_PG) !== 0 &&
    (view.getUint32(S.cr4, true) & CR4_PAE) !== 0 &&
    (view.getUint32(S.efer, true) & EFER_LME) === 0;
  const shadow = (view.getUint32(C.nested_ctl, true) & NESTED_PAGING) === 0;
  if (pae && shadow) pages.push(view.getBigUint64(S.cr3, true) & PAGE_MASK);
  return pages;
}

/** EVENTINJ: bit 31 says that there is one, bits 10 to 8 of what type; 0 is an interrupt. */
const EVENTINJ_VALID = 0x80000000, EVENTINJ_TYPE = 0x700;

/**
 * Whether a VMRUN injects an interrupt into L2 (EVENTINJ, APM vol. 2, 15.20).
 *
 * @param vmcb12 The VMCB.
 * @returns True for an interrupt; false for none, an NMI, an exception, a software interrupt.
 * @example
 * ```ts
 * import { injectsInterrupt } from "@vmtape/vmtape/traces";
 * const vmcb12 = new Uint8Array(4096);
 * new DataView(vmcb12.buffer).setUint32(0xa8, 0x80000020, true);
 * if (!injectsInterrupt(vmcb12)) throw new Error();
 * ```
 */
export function injectsInterrupt(vmcb12: Uint8Array): boolean {
  const view = new DataView(vmcb12.buffer, vmcb12.byteOffset, vmcb12.byteLength);
  const event = view.getUint32(C.event_inj, true);
  return (event & EVENTINJ_VALID) !== 0 && (event & EVENTINJ_TYPE) === 0;
}
