/**
 * Linux 6.12, and the kernels that lead to it: the fixes of its stable series, each there or not.
 *
 * @module
 */
import { RULES_6_12 } from "../checks/cpu_rules.ts";
import { CHECKS_6_12 } from "../checks/linux_6_12.ts";
import { list } from "../policy.ts";
import { mergeMsrpm, raiseGif, requestPages, setRunPending } from "../steps/enter.ts";
import * as out from "../steps/vmexit.ts";
import { ALL_CLEAN } from "../kvm/constants.ts";
import { GUEST_6_12 } from "./guest_traits.ts";
import type { Kernel } from "./kernel.ts";
import { MMU_6_12 } from "./mmu_traits.ts";
import * as stretches from "./stretches.ts";
import type { KernelTraits } from "./traits.ts";

/** One fix. */
export interface Fix {
  /** Stable name. */
  readonly id: string;
  /** What a kernel with it does. */
  readonly does: string;
  /** What a kernel without it does. */
  readonly doesNot: string;
}

/** The fixes; the kernel before them has none, 6.12.117 has all. */
export const FIXES = [
  {
    id: "early-gif",
    does: "clears GIF in its early exit",
    doesNot: "does not clear GIF in its early exit",
  },
  {
    id: "early-event-inj",
    does: "clears EVENTINJ in its early exit",
    doesNot: "does not clear EVENTINJ in its early exit",
  },
  {
    id: "vmexit-event-inj",
    does: "clears EVENTINJ on every #VMEXIT",
    doesNot: "writes EVENTINJ back on #VMEXIT",
  },
  {
    id: "vmexit-tracking",
    does: "forgets on every #VMEXIT what L1 injected",
    doesNot: "forgets what L1 injected only where a VMRUN fails late",
  },
  {
    id: "rsm-checks",
    does: "checks vmcb12 at RSM",
    doesNot: "does not check vmcb12 at RSM",
  },
] as const satisfies readonly Fix[];

/** Name of a fix. */
export type FixId = typeof FIXES[number]["id"];

/** Fields of vmcb12 that 6.12 caches for its steps (struct vmcb_ctrl_area_cached and vmcb_save_area_cached). */
export const USES_6_12: readonly string[] = [
  ...[
    "intercept_cr",
    "intercept_dr",
    "intercept_exceptions",
    "intercept_word3",
    "intercept_word4",
    "intercept_word5",
    "pause_filter_thresh",
    "pause_filter_count",
    "iopm_base_pa",
    "msrpm_base_pa",
    "tsc_offset",
    "asid",
    "tlb_ctl",
    "int_ctl",
    "int_vector",
    "int_state",
    "exit_code",
    "exit_code_hi",
    "exit_info_1",
    "exit_info_2",
    "exit_int_info",
    "exit_int_info_err",
    "nested_ctl",
    "event_inj",
    "event_inj_err",
    "nested_cr3",
    "virt_ext",
    "next_rip",
  ].map((name) => `control.${name}`),
  ...[
    "cs_selector",
    "cs_attrib",
    "cs_limit",
    "cs_base",
    "efer",
    "cr4",
    "cr3",
    "cr0",
    "dr7",
    "dr6",
    // KVM has no use for it. Digests of recordings count it since hardware's checks were modelled.
    "g_pat",
  ].map((name) => `save.${name}`),
];

/** What all kernels of the 6.12 series do beneath their steps. */
const TRAITS: KernelTraits = {
  guest: GUEST_6_12,
  flags: { guest: 1, smm: 2, smmInsideNmi: 4, nmiMasked: 0, awaitingIret: 0 },
  invalidatesRoles: true,
  ignoresLmaWithoutLme: true,
  givesUpLongModeWithoutPae: true,
  shadowsUnreachableRoots: true,
  copiesLbrsAlways: true,
  keepsCleanBitsOfRefused: true,
  checksEferOfSregs: true,
  flushesOnSregs: true,
  vintrByMaskingAlone: false,
  interceptsVmmcallOfL2: true,
  requestsEventsOnVmexit: true,
  givesUpFailedSmi: true,
  keepsShadowInSmram: true,
  failedRsmLeavesL2: true,
  rsmKeepsHighHalves: false,
  rsmCutsLimits: false,
  needsLongModeForSmi: true,
  failedRsmCompletes: false,
  endsRsmWithoutHsave: true,
  showsPayloads: true,
  countsWaitingNmis: true,
  keepsExitReason: false,
  retriesStatePages: true,
  freeingDropsTracking: false,
  cleanBits: ALL_CLEAN,
  stopsWithoutVmcbPage: false,
  interceptsIcebp: false,
  recalcsByRequest: false,
  updatesStealTime: true,
  clearingSvmeInL2ShutsDown: false,
  clearingSvmeSetsGif: true,
  copiesPatForNptOnly: false,
  refusesRestoredLmaWithoutLme: false,
  restoresGifWithoutSvme: false,
  marksRestoredRuns: false,
  emulatesNoDeliveries: false,
  emulatesPortsWithNextRip: false,
  tracksBusLocks: false,
  takesNextRipOfStoppedL2: false,
  rereadsNestedPdptes: false,
  yieldsOnFirstRun: true,
};

/**
 * Linux 6.12 with some of the fixes.
 *
 * @param fixes Which.
 * @returns The kernel.
 * @example
 * ```ts
 * import { FIXES, KERNEL_6_12, withFixes } from "@vmtape/vmtape/engine";
 * const steps = (kernel: typeof KERNEL_6_12) => kernel.ways.vmrun.map(({ step }) => step.name).join();
 * if (steps(withFixes(FIXES.map(({ id }) => id))) !== steps(KERNEL_6_12)) throw new Error();
 * ```
 */
export function withFixes(fixes: Iterable<FixId>): Kernel {
  const has = new Set(fixes);
  const when = <T>(fix: FixId, yes: readonly T[], no: readonly T[] = []) => has.has(fix) ? yes : no;
  const earlyExit = list([
    out.writeInvalid,
    ...when("early-event-inj", [out.clearEventInj]),
    ...when("early-gif", [out.dropGif]),
    out.unmapVmcb12,
  ]);
  const lateExit = list([
    out.raiseInvalid,
    ...when("vmexit-tracking", [], [out.dropTracking]),
    out.fullVmexit,
  ]);
  const [eventInj = out.writeEventInj] = when("vmexit-event-inj", [out.clearEventInj]);
  return {
    name: ["linux-6.12", ...FIXES.filter(({ id }) => !has.has(id)).map(({ id }) => id)].join("-"),
    doc: "Linux 6.12 with some of the fixes of its stable series",
    checks: CHECKS_6_12,
    uses: USES_6_12,
    reserves: RULES_6_12,
    mmu: MMU_6_12,
    ways: {
      vmrun: [
        ...list(stretches.BEGIN_VMRUN),
        ...list(stretches.CHECKS, earlyExit),
        ...list(stretches.KEEP_L1),
        ...list([...stretches.SWITCH_FIRST, raiseGif, mergeMsrpm], lateExit),
      ],
      rsm: [
        ...list(stretches.BEGIN_RSM),
        ...when("rsm-checks", list(stretches.CHECKS).map((entry) => ({ ...entry, ret: 1 }))),
        ...list([...stretches.SWITCH_FIRST, requestPages, raiseGif, setRunPending]),
      ],
      setstate: stretches.RESTORE_SWITCH_FIRST,
      pages: stretches.STATE_PAGES,
      vmexit: stretches.fullVmexit(eventInj, when("vmexit-tracking", [out.dropTracking])),
    },
    traits: TRAITS,
  };
}

/** Linux 6.12 as its stable series ships it (6.12.117). */
export const KERNEL_6_12: Kernel = {
  ...withFixes(FIXES.map(({ id }) => id)),
  doc: "Linux 6.12: the early exit also clears GIF and EVENTINJ, and RSM checks vmcb12",
};
