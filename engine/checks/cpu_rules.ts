/**
 * Which bits of CR4 and EFER a kernel lets a guest have, by the guest's CPUID.
 *
 * @module
 */
import { type Feature, FEATURE_NAMES } from "../svm/cpuid.ts";
import { canUse, type Capabilities, type Machine, S } from "../svm/machine.ts";
import { type Check, check } from "./check.ts";

/** Which features a bit takes; with several, any of them. */
export interface BitRule {
  /** Name of the bit. */
  readonly name: string;
  /** Bit number. */
  readonly bit: number;
  /** What L1's CPUID must offer; nothing when left out. */
  readonly needs?: readonly Feature[];
  /** What L1's CPUID must not say. */
  readonly unless?: Feature;
}

/** What a kernel, or hardware, reserves of two registers. */
export class CpuRules {
  /** Name, such as `linux-6.12`. */
  readonly name: string;
  /** Bits of CR4 that may be set; all others are reserved. */
  readonly cr4: readonly BitRule[];
  /** Bits of EFER that may be set; all others are reserved. */
  readonly efer: readonly BitRule[];
  #caps: Capabilities | undefined;
  #cr4 = 0;
  #efer = 0;
  // Vcpus of several policies take turns, each with an object of its own.
  readonly #derived = new WeakMap<Capabilities, { readonly cr4: number; readonly efer: number }>();

  /**
   * Puts the rules together.
   *
   * @param name Name.
   * @param cr4 Bits of CR4 that may be set.
   * @param efer Bits of EFER that may be set.
   */
  constructor(name: string, cr4: readonly BitRule[], efer: readonly BitRule[]) {
    this.name = name;
    this.cr4 = cr4;
    this.efer = efer;
  }

  /**
   * Bits of CR4's low half that a machine's L1 may set.
   *
   * @param caps The machine.
   */
  cr4Bits(caps: Capabilities): number {
    if (caps !== this.#caps) this.#derive(caps);
    return this.#cr4;
  }

  /**
   * Bits of EFER's low half that a machine's L1 may set.
   *
   * @param caps The machine.
   */
  eferBits(caps: Capabilities): number {
    if (caps !== this.#caps) this.#derive(caps);
    return this.#efer;
  }

  #derive(caps: Capabilities): void {
    let bits = this.#derived.get(caps);
    if (bits === undefined) {
      bits = { cr4: allowed(this.cr4, caps), efer: allowed(this.efer, caps) };
      this.#derived.set(caps, bits);
    }
    this.#cr4 = bits.cr4;
    this.#efer = bits.efer;
    this.#caps = caps;
  }
}

function allowed(rules: readonly BitRule[], caps: Capabilities): number {
  let bits = 0;
  for (const { bit, needs, unless } of rules) {
    if (needs !== undefined && !needs.some((feature) => canUse(caps, feature))) continue;
    if (unless !== undefined && canUse(caps, unless)) continue;
    bits |= 1 << bit;
  }
  return bits >>> 0;
}

/** Features that rules speak of. */
export function featuresOf(rules: readonly BitRule[]): readonly Feature[] {
  const named = new Set(
    rules.flatMap(({ needs, unless }) => [...needs ?? [], ...unless ? [unless] : []]),
  );
  return FEATURE_NAMES.filter((name) => named.has(name));
}

/** Bits of CR4 that KVM lets every guest have, whatever its CPUID says. */
const CR4_ALWAYS: readonly BitRule[] = [
  "VME",
  "PVI",
  "TSD",
  "DE",
  "PSE",
  "PAE",
  "MCE",
  "PGE",
  "PCE",
  "OSFXSR",
  "OSXMMEXCPT",
].map((name, bit) => ({ name, bit }));

const CR4_6_1: readonly BitRule[] = [
  ...CR4_ALWAYS,
  { name: "UMIP", bit: 11, needs: ["umip"] },
  { name: "LA57", bit: 12, needs: ["la57"] },
  { name: "VMXE", bit: 13, needs: ["vmx"] },
  { name: "FSGSBASE", bit: 16, needs: ["fsgsbase"] },
  { name: "PCIDE", bit: 17, needs: ["pcid"] },
  { name: "OSXSAVE", bit: 18, needs: ["xsave"] },
  { name: "SMEP", bit: 20, needs: ["smep"] },
  { name: "SMAP", bit: 21, needs: ["smap"] },
  { name: "PKE", bit: 22, needs: ["pku"] },
];

const CR4_6_12: readonly BitRule[] = [
  ...CR4_6_1,
  { name: "LAM_SUP", bit: 28, needs: ["lam"] },
];

const EFER_6_1: readonly BitRule[] = [
  { name: "SCE", bit: 0 },
  { name: "LME", bit: 8, needs: ["lm"] },
  { name: "LMA", bit: 10, needs: ["lm"] },
  { name: "NXE", bit: 11, needs: ["nx"] },
  { name: "SVME", bit: 12, needs: ["svm"] },
  { name: "LMSLE", bit: 13 },
  { name: "FFXSR", bit: 14, needs: ["fxsr_opt"] },
];

const EFER_6_12: readonly BitRule[] = [
  ...EFER_6_1,
  { name: "AUTOIBRS", bit: 21, needs: ["autoibrs"] },
];

/** Linux 6.1: kvm_is_valid_cr4 and kvm_valid_efer. */
export const RULES_6_1: CpuRules = new CpuRules("linux-6.1", CR4_6_1, EFER_6_1);

/** Linux 6.12: linear address masking and automatic IBRS beside. */
export const RULES_6_12: CpuRules = new CpuRules("linux-6.12", CR4_6_12, EFER_6_12);

/** Linux 7.3: control-flow enforcement beside, and EFER.LMSLE only where the processor has it. */
export const RULES_7_3: CpuRules = new CpuRules(
  "linux-7.3",
  [...CR4_6_12, { name: "CET", bit: 23, needs: ["shstk", "ibt"] }],
  EFER_6_12.map((rule) => rule.name === "LMSLE" ? { ...rule, unless: "lmsle_mbz" } : rule),
);

/**
 * The check that CR4 has no reserved bit.
 *
 * @param rules Whose rules.
 * @param text The kernel's own text of it, newest first.
 */
export function cr4Reserved(rules: CpuRules, text: string | readonly string[]): Check {
  return {
    ...check(
      "save",
      "cr4-reserved",
      text,
      ["save.cr4"],
      "A reserved bit of CR4 is set",
      (m: Machine, at: number) =>
        m.u32(at + S.cr4 + 4) !== 0 || (m.u32(at + S.cr4) & ~rules.cr4Bits(m.caps)) !== 0,
    ),
    cpuid: featuresOf(rules.cr4),
  };
}

/**
 * The check that EFER has no reserved bit.
 *
 * @param rules Whose rules.
 * @param text The kernel's own text of it, newest first.
 */
export function eferReserved(rules: CpuRules, text: string | readonly string[]): Check {
  return {
    ...check(
      "save",
      "efer-reserved",
      text,
      ["save.efer"],
      "A reserved bit of EFER is set",
      (m: Machine, at: number) =>
        m.u32(at + S.efer + 4) !== 0 || (m.u32(at + S.efer) & ~rules.eferBits(m.caps)) !== 0,
    ),
    cpuid: featuresOf(rules.efer),
  };
}
