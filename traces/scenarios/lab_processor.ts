/**
 * The processor that the lab gives L1, less what a scenario takes from it.
 *
 * @module
 */
import { cpuidLeaf, LAB_CPUID } from "../../engine/svm/cpuid.ts";
import { FRESH_BELOW, MEMORY_SIZE } from "./base.ts";
import type { Scenario } from "./scenario.ts";

/** Physical address bits of the processor that the lab's kernels ran on. */
const PHYSICAL_BITS = 40;

/**
 * What a session's `capabilities` say of a machine like the lab's.
 *
 * @param scenario What the scenario takes from L1's processor, and how wide it makes its addresses.
 * @returns Its memory; the width of L1's addresses, and its CPUID where that is not the usual one,
 * with what KVM could have offered.
 */
export function labCapabilities(
  scenario: Pick<Scenario, "cpuid" | "physicalBits">,
): Readonly<Record<string, unknown>> {
  return {
    ...processor(scenario),
    memory: MEMORY_SIZE,
    // All of it below is zeroed before each scenario, and so allocated.
    resident: FRESH_BELOW,
  };
}

function processor(
  { cpuid: removals, physicalBits }: Pick<Scenario, "cpuid" | "physicalBits">,
): Readonly<Record<string, unknown>> {
  if (removals.length === 0 && physicalBits === undefined) return { physical_bits: PHYSICAL_BITS };
  let cpuid = LAB_CPUID;
  for (const { fn, register, mask } of removals) {
    // Of other leaves nothing here depends.
    const leaf = cpuidLeaf(fn);
    if (leaf !== undefined) cpuid = cpuid.without(leaf, register, mask);
  }
  if (physicalBits !== undefined) cpuid = cpuid.withPhysicalBits(physicalBits);
  return {
    physical_bits: cpuid.physicalBits ?? PHYSICAL_BITS,
    ...(cpuid.physicalBits === PHYSICAL_BITS ? {} : { host_physical_bits: PHYSICAL_BITS }),
    cpuid: cpuid.toMeta(),
    host_cpuid: LAB_CPUID.toMeta(),
  };
}
