/**
 * Changes of the processor that L1 sees: features that its CPUID lacks, and the
 * width of its physical addresses, together with what depends on them.
 *
 * @module
 */
import { FEATURES } from "../../engine/svm/cpuid.ts";
import { hex, type Mutation, NPT_ON } from "./mutation.ts";

/** Takes a feature away. */
function without(name: keyof typeof FEATURES): string {
  const { leaf, register, bit } = FEATURES[name];
  return `nocpu.${leaf}.${register[1]}=${hex(2 ** bit)}`;
}

/** Features with a bit of CR4 each. */
const IN_CR4 = [
  ["vme", 0x1],
  ["vme", 0x2],
  ["tsc", 0x4],
  ["de", 0x8],
  ["pse", 0x10],
  ["mce", 0x40],
  ["pge", 0x80],
  ["umip", 0x800],
  ["la57", 0x1000],
  ["fsgsbase", 0x10000],
  ["pcid", 0x20000],
  ["xsave", 0x40000],
  ["smep", 0x100000],
  ["smap", 0x200000],
  ["pku", 0x400000],
] as const;

/** Features with a bit of EFER each. */
const IN_EFER = [["lm", 0x500], ["nx", 0x800], ["fxsr_opt", 0x4000]] as const;

/** Features of SVM. */
const OF_SVM = [
  "npt",
  "vmcb_clean",
  "flushbyasid",
  "vgif",
  "svme_addr_chk",
  "nrip_save",
  "lbrv",
  "v_vmsave_vmload",
  "pausefilter",
  "pfthreshold",
  "tsc_scale",
  "vnmi",
] as const;

/** Changes of L1's processor. */
export const PROCESSOR_MUTATIONS: readonly Mutation[] = [
  {
    name: "cpucr4",
    weight: 4,
    tokens(r) {
      const [feature, bit] = r.pick(IN_CR4);
      return [without(feature), ...r.chance(70) ? [`s.148=${hex(0x20 | bit)}`] : []];
    },
  },
  {
    name: "cpuefer",
    weight: 2,
    tokens(r) {
      const [feature, bits] = r.pick(IN_EFER);
      return [without(feature), ...r.chance(50) ? [`s.d0=${hex(0x1500 ^ bits)}`] : []];
    },
  },
  {
    name: "cpusvm",
    weight: 4,
    tokens(r) {
      const feature = r.pick(OF_SVM);
      const uses: Readonly<Record<string, readonly string[]>> = {
        npt: NPT_ON,
        vgif: [`c.60.4=${r.pick(["2000200", "3000200", "2000000"])}`],
        nrip_save: ["c.a8=80000480", "c.c8=9003"],
        lbrv: ["c.b8=1", "s.270=1"],
        v_vmsave_vmload: ["c.b8=2"],
        pausefilter: ["c.3e.2=10"],
        pfthreshold: ["c.3c.2=10"],
        vnmi: ["c.60.4=4000000"],
        flushbyasid: [`c.5c.1=${r.pick(["3", "7"])}`],
      };
      return [without(feature), ...r.chance(60) ? uses[feature] ?? [] : []];
    },
  },
  {
    name: "pa",
    weight: 3,
    tokens(r) {
      const bits = r.pick([32, 36, 39]);
      const edge = r.pick([-0x1000n, 0n, 0x30000n]) + (1n << BigInt(bits));
      const field = r.pick(["c.40", "c.48", "c.b0", "s.150"]);
      return [`pa=${hex(bits)}`, ...r.chance(70) ? [`${field}=${hex(edge)}`] : []];
    },
  },
];
