/**
 * CPUID, which KVM always intercepts (kvm_cpuid, kvm_emulate_cpuid).
 *
 * @module
 */
import { CPUID_REGISTERS, type CpuidLeaf, cpuidLeaf, LAB_CPUID } from "../svm/cpuid.ts";
import { canUse, S, V } from "../svm/machine.ts";
import { CR4 } from "./constants.ts";
import { isLabMachine, LAB_LEAVES } from "./lab_machine.ts";
import type { Vcpu } from "./vcpu.ts";

/** Functions of which ECX selects a part. */
const INDEXED: ReadonlySet<number> = new Set([
  ...[4, 7, 0xb, 0xd, 0xf, 0x10, 0x12, 0x14, 0x17, 0x1d],
  ...[0x1e, 0x1f, 0x8000001d, 0x80000026],
]);

const OSXSAVE = 1 << 27, APIC = 1 << 9, OSPKE = 1 << 4;
/** APIC_BASE: the APIC is enabled. */
const APIC_ENABLE = 1 << 11;
/** Bits 23:16 of leaf 0x80000008: physical address bits of a guest with nested paging. */
const GUEST_BITS = 0xff0000;

/**
 * Whether the guest may execute CPUID: only CPL 0 may once MISC_FEATURES_ENABLES says that it faults.
 */
export function cpuidFaults(v: Vcpu): boolean {
  return (v.u32(V.misc_features) & 1) !== 0 && v.u8(v.vmcb + S.cpl) !== 0;
}

/** Carries out CPUID for the function in EAX and the index in ECX. */
export function emulateCpuid(v: Vcpu): void {
  const fn = v.u32(V.rax), index = INDEXED.has(fn) ? v.u32(V.rcx) : 0;
  const values = registersOf(v, fn, index);
  [V.rax, V.rbx, V.rcx, V.rdx].forEach((at, i) => v.set64(at, BigInt(values[i]! >>> 0)));
}

function registersOf(v: Vcpu, fn: number, index: number): readonly number[] {
  const { caps } = v;
  const leaf = cpuidLeaf(fn, index);
  if (leaf !== undefined) return ofL1(v, leaf);
  if (!isLabMachine(caps)) {
    v.miss(`CPUID function ${fn.toString(16)} of this machine`);
    return [0, 0, 0, 0];
  }
  const name = fn.toString(16) + (index === 0 ? "" : `.${index.toString(16)}`);
  if (v.traits.guest.hiddenLeaves.includes(name)) return [0, 0, 0, 0];
  const values = LAB_LEAVES[name] ?? [0, 0, 0, 0];
  return name === "d" ? [values[0], stateSize(v.u32(V.xcr0) ^ 1), values[2], values[3]] : values;
}

/** Bytes of x87 and SSE state and the header, which XSAVE always stores. */
const XSAVE_LEAST = 0x240;

/** Bytes that XSAVE stores of the states that XCR0 turns on. */
function stateSize(xcr0: number): number {
  let size = XSAVE_LEAST;
  for (let bit = 2; bit < 32; bit++) {
    const state = (xcr0 >>> bit & 1) === 0 ? undefined : LAB_LEAVES[`d.${bit.toString(16)}`];
    if (state !== undefined) size = Math.max(size, state[0] + state[1]);
  }
  return size;
}

/** A leaf of L1's CPUID, with the bits that follow from the vCPU's state. */
function ofL1(v: Vcpu, leaf: CpuidLeaf): number[] {
  const { caps } = v;
  const cpuid = caps.cpuid ?? LAB_CPUID;
  const values = CPUID_REGISTERS.map((register) => cpuid.register(leaf, register));
  const change = (i: number, mask: number, on: boolean) => {
    values[i] = on ? values[i]! | mask : values[i]! & ~mask;
  };
  if (isLabMachine(caps)) {
    const { offered, notOffered } = v.traits.guest;
    CPUID_REGISTERS.forEach((register, i) => {
      change(i, offered[`${leaf} ${register}`] ?? 0, true);
      change(i, notOffered[`${leaf} ${register}`] ?? 0, false);
    });
  }
  const cr4 = v.u32(V.cr4);
  switch (leaf) {
    case "1":
      change(2, OSXSAVE, canUse(caps, "xsave") && (cr4 & CR4.OSXSAVE) !== 0);
      change(3, APIC, ((v.u32(V.apic_base) ^ 0xfee00900) & APIC_ENABLE) !== 0);
      break;
    case "7":
      change(2, 1 << 3, canUse(caps, "pku"));
      change(2, OSPKE, canUse(caps, "pku") && (cr4 & CR4.PKE) !== 0);
      break;
    case "80000008":
      if (!caps.npt) change(0, GUEST_BITS, false);
      break;
    case "8000000a":
      change(3, 1, canUse(caps, "npt"));
      break;
  }
  return values;
}
