/**
 * Linux 7.3.
 *
 * @module
 */
import { RULES_7_3 } from "../checks/cpu_rules.ts";
import { CHECKS_7_3 } from "../checks/linux_7_3.ts";
import { CLEAN } from "../kvm/constants.ts";
import { list, type Step } from "../policy.ts";
import * as cached from "../steps/cached_vmcb12.ts";
import * as enter from "../steps/enter.ts";
import * as restore from "../steps/restore.ts";
import * as vmcb12 from "../steps/vmcb12.ts";
import * as out from "../steps/vmexit.ts";
import { GUEST_7_3 } from "./guest_traits.ts";
import type { Kernel } from "./kernel.ts";
import { KERNEL_6_12 } from "./linux_6_12.ts";
import { MMU_7_3 } from "./mmu_traits.ts";
import * as stretches from "./stretches.ts";
import type { KernelTraits } from "./traits.ts";

const TRAITS: KernelTraits = {
  ...KERNEL_6_12.traits,
  guest: GUEST_7_3,
  cleanBits: KERNEL_6_12.traits.cleanBits | 1 << CLEAN.CET,
  stopsWithoutVmcbPage: true,
  interceptsIcebp: true,
  recalcsByRequest: true,
  updatesStealTime: false,
  clearingSvmeInL2ShutsDown: true,
  clearingSvmeSetsGif: false,
  copiesPatForNptOnly: true,
  refusesRestoredLmaWithoutLme: true,
  restoresGifWithoutSvme: true,
  marksRestoredRuns: true,
  emulatesNoDeliveries: true,
  emulatesPortsWithNextRip: true,
  tracksBusLocks: true,
  takesNextRipOfStoppedL2: true,
  rereadsNestedPdptes: true,
  yieldsOnFirstRun: false,
};

/** Fields of vmcb12 that 7.3 caches besides those of 6.12: the rest of what L2 runs with. */
const USES: readonly string[] = [
  ...KERNEL_6_12.uses,
  "control.erap_ctl",
  "control.clean",
  ...[
    ...["es", "cs", "ss", "ds", "gdtr", "idtr"].flatMap((segment) =>
      ["selector", "attrib", "limit", "base"].map((part) => `${segment}_${part}`)
    ),
    ...["cpl", "rflags", "rip", "rsp", "s_cet", "ssp", "isst_addr", "rax", "cr2"],
    ...["dbgctl", "br_from", "br_to", "last_excp_from", "last_excp_to"],
  ].map((name) => `save.${name}`),
];

const SWITCH: readonly Step[] = [
  enter.noteGpa,
  enter.switchToVmcb02,
  enter.flushTlb,
  enter.enterGuest,
  enter.initMmuContext,
  enter.prepareControl,
  cached.prepareSaveFromCache,
  enter.loadL2Cr3,
];

const earlyExit = list([
  out.writeInvalid,
  out.clearEventInj,
  out.dropGif,
  out.unmapVmcb12,
  cached.advanceRip,
]);

const lateExit = list([out.raiseInvalid, out.dropTracking, out.fullVmexit]);

/** Linux 7.3 (7.3.4). */
export const KERNEL_7_3: Kernel = {
  name: "linux-7.3",
  doc:
    "Linux 7.3: vmcb12 is cached whole, cut to what L1's processor has, and checked from the cache",
  checks: CHECKS_7_3,
  uses: USES,
  reserves: RULES_7_3,
  traits: TRAITS,
  mmu: MMU_7_3,
  ways: {
    vmrun: [
      ...list([
        vmcb12.requireHsave,
        vmcb12.refuseInSmm,
        cached.requireVmcb12Address,
        cached.mapVmcb12OrStop,
        cached.cacheWholeVmcb12,
      ]),
      ...list(stretches.CHECKS, earlyExit),
      ...list([cached.advanceRip]),
      ...list(stretches.KEEP_L1),
      ...list([...SWITCH, enter.raiseGif, enter.mergeMsrpm], lateExit),
    ],
    rsm: [
      ...list([
        restore.requireSavedSvme,
        restore.mapSavedVmcb12,
        restore.restoreL1FromHsave,
        cached.cacheWholeVmcb12,
      ]),
      ...list([...stretches.CHECKS, ...SWITCH]).map((entry) => ({ ...entry, ret: 1 })),
      ...list([enter.requestPages, enter.raiseGif, enter.setRunPending]),
    ],
    setstate: [...list([cached.cutRestored]), ...stretches.RESTORE_SWITCH_FIRST],
    pages: stretches.STATE_PAGES,
    vmexit: stretches.fullVmexit(
      out.clearEventInj,
      [out.dropTracking],
      cached.mapForExitOrShutDown,
    ),
  },
};
