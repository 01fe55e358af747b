/**
 * The MSRs that a guest may read and write through an exit.
 *
 * @module
 */
import { S, V, VMCB01_AT } from "../svm/machine.ts";
import { setGuestEfer } from "./control_registers.ts";
import type { Vcpu } from "./vcpu.ts";

const SYSTEM: ReadonlyMap<number, number> = new Map([
  [0x174, S.sysenter_cs],
  [0x175, S.sysenter_esp],
  [0x176, S.sysenter_eip],
  [0xc0000081, S.star],
  [0xc0000082, S.lstar],
  [0xc0000083, S.cstar],
  [0xc0000084, S.sfmask],
  [0xc0000100, S.fs_base],
  [0xc0000101, S.gs_base],
  [0xc0000102, S.kernel_gs_base],
]);

const EFER = 0xc0000080, HSAVE_PA = 0xc0010117, P5_MC_ADDR = 0, P5_MC_TYPE = 1;
const APIC_BASE = 0x1b, PAT = 0x277, SYSCFG = 0xc0010010, VM_CR = 0xc0010114;

/**
 * Reads an MSR for the guest.
 *
 * @returns Its value, or undefined where KVM gives #GP.
 */
export function readMsr(v: Vcpu, index: number): bigint | undefined {
  const system = SYSTEM.get(index);
  if (system !== undefined) return v.u64(VMCB01_AT + system);
  switch (index) {
    case P5_MC_ADDR:
    case P5_MC_TYPE:
      return 0n;
    case EFER:
      return v.u64(V.efer);
    case HSAVE_PA:
      return v.u64(V.hsave_msr);
    case VM_CR:
    case SYSCFG:
    case APIC_BASE:
      return 0n;
    case PAT:
      return v.u64(VMCB01_AT + S.g_pat);
    default:
      v.miss(`reading MSR ${index.toString(16)}`);
      return undefined;
  }
}

/**
 * Writes an MSR for the guest.
 *
 * @returns Whether KVM accepts it; if not, the guest gets #GP.
 */
export function writeMsr(v: Vcpu, index: number, value: bigint): boolean {
  const system = SYSTEM.get(index);
  if (system !== undefined) {
    v.set64(VMCB01_AT + system, value);
    return true;
  }
  switch (index) {
    case EFER:
      return setGuestEfer(v, value, false);
    case HSAVE_PA:
      if ((value & 0xfffn) !== 0n || value >> BigInt(v.caps.physicalBits) !== 0n) return false;
      v.set64(V.hsave_msr, value);
      return true;
    default:
      return false;
  }
}
