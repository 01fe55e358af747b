/**
 * The processor that L1 sees: of what KVM supports here, no more than the one
 * that the engine models, so that every machine records the same.
 *
 * @module
 */
import { CPUID_ENTRY_FIELDS, CPUID_FIELDS, KVM_LAYOUTS } from "./structs.ts";
import { offsets } from "../../engine/layout.ts";
import { Cpuid, CPUID_REGISTERS, type CpuidLeaf, cpuidLeaf } from "../../engine/svm/cpuid.ts";
import type { Scenario } from "../scenarios/scenario.ts";

const E = offsets(CPUID_ENTRY_FIELDS);
const HEADER = KVM_LAYOUTS.kvm_cpuid2.size;
const ENTRY = KVM_LAYOUTS.kvm_cpuid_entry2.size;
const NENT = offsets(CPUID_FIELDS).nent;

/** Physical address bits of the modelled processor. */
const PHYSICAL_BITS = 40;

type Register = "eax" | "ebx" | "ecx" | "edx";

/** Of one leaf: which bits of a register the modelled processor may have. */
interface Mask {
  readonly leaf: number;
  readonly register: Register;
  readonly bits: number;
}

/**
 * Features that change what CR4, EFER, vmcb12 or an L2 may do. What is not
 * listed is as KVM has it, since nothing of a scenario depends on it.
 */
const MASKS: readonly Mask[] = [
  { leaf: 1, register: "ecx", bits: 0x76f83203 },
  { leaf: 1, register: "edx", bits: 0x0f8bfbfd },
  { leaf: 7, register: "ebx", bits: 0x019803ab },
  { leaf: 7, register: "ecx", bits: 0x0001020c },
  { leaf: 7, register: "edx", bits: 0x20000000 },
  { leaf: 0x80000001, register: "ecx", bits: 0x00000075 },
  { leaf: 0x80000001, register: "edx", bits: 0xedd3fbfd },
  // NPT, VMCB clean bits, flush by ASID, virtual GIF; no NRIPS, LBR virtualization or virtual NMI.
  { leaf: 0x8000000a, register: "edx", bits: 0x10010061 },
  { leaf: 0x80000021, register: "eax", bits: 0 },
];

/** An entry of the table that counts: leaf, index, and where each register is. */
function* entries(table: Uint8Array<ArrayBuffer>) {
  const view = new DataView(table.buffer, table.byteOffset, table.length);
  for (let i = 0; i < view.getUint32(NENT, true); i++) {
    const at = HEADER + i * ENTRY;
    yield {
      leaf: view.getUint32(at + E.function, true),
      index: view.getUint32(at + E.index, true),
      get: (register: Register) => view.getUint32(at + E[register], true),
      set: (register: Register, value: number) => view.setUint32(at + E[register], value, true),
    };
  }
}

/**
 * What KVM supports, cut down to the modelled processor, and to what a scenario leaves of it.
 *
 * @param table `struct kvm_cpuid2` with its entries, changed in place.
 * @param scenario What the scenario takes away, and how wide it makes physical addresses.
 */
export function cutCpuid(
  table: Uint8Array<ArrayBuffer>,
  scenario: Pick<Scenario, "cpuid" | "physicalBits"> = { cpuid: [], physicalBits: undefined },
): void {
  for (const { leaf, index, get, set } of entries(table)) {
    for (const mask of MASKS) {
      if (mask.leaf !== leaf || index !== 0) continue;
      set(mask.register, get(mask.register) & mask.bits);
    }
    for (const { fn, register, mask } of scenario.cpuid) {
      if (fn === leaf && index === 0) set(register, get(register) & ~mask);
    }
    if (leaf === 0x80000008) {
      const eax = get("eax");
      const bits = scenario.physicalBits ?? Math.min(eax & 0xff, PHYSICAL_BITS);
      set("eax", eax & ~0xff | bits);
    }
  }
}

/**
 * The leaves of a table that KVM's nested code reads.
 *
 * @param table `struct kvm_cpuid2` with its entries.
 * @returns They.
 */
export function cpuidOf(table: Uint8Array<ArrayBuffer>): Cpuid {
  const leaves: Partial<Record<CpuidLeaf, number[]>> = {};
  for (const { leaf, index, get } of entries(table)) {
    const name = cpuidLeaf(leaf, index);
    if (name !== undefined) leaves[name] = CPUID_REGISTERS.map(get);
  }
  return Cpuid.of(leaves);
}
