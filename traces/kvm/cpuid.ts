/**
 * The processor that L1 sees: of what KVM supports here, no more than the one
 * that the engine models, so that every machine records the same.
 *
 * @module
 */
import { CPUID_ENTRY_FIELDS, CPUID_FIELDS, KVM_LAYOUTS } from "./structs.ts";
import { offsets } from "../../engine/layout.ts";

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

/**
 * What KVM supports, cut down to the modelled processor.
 *
 * @param table `struct kvm_cpuid2` with its entries, changed in place.
 * @returns The processor's physical address bits.
 */
export function cutCpuid(table: Uint8Array<ArrayBuffer>): number {
  const view = new DataView(table.buffer, table.byteOffset, table.length);
  let physicalBits = PHYSICAL_BITS;
  for (let i = 0; i < view.getUint32(NENT, true); i++) {
    const at = HEADER + i * ENTRY;
    const leaf = view.getUint32(at + E.function, true);
    const index = view.getUint32(at + E.index, true);
    for (const mask of MASKS) {
      if (mask.leaf !== leaf || index !== 0) continue;
      const where = at + E[mask.register];
      view.setUint32(where, view.getUint32(where, true) & mask.bits, true);
    }
    if (leaf === 0x80000008) {
      const eax = view.getUint32(at + E.eax, true);
      physicalBits = Math.min(eax & 0xff, PHYSICAL_BITS);
      view.setUint32(at + E.eax, eax & ~0xff | physicalBits, true);
    }
  }
  return physicalBits;
}
