/**
 * Linux 6.1.
 *
 * @module
 */
import { RULES_6_1 } from "../checks/cpu_rules.ts";
import { CHECKS_6_1 } from "../checks/linux_6_1.ts";
import { list } from "../policy.ts";
import { mergeMsrpm, raiseGif, requestPages, setRunPending } from "../steps/enter.ts";
import * as out from "../steps/vmexit.ts";
import { GUEST_6_1 } from "./guest_traits.ts";
import type { Kernel } from "./kernel.ts";
import { KERNEL_6_12, USES_6_12 } from "./linux_6_12.ts";
import { MMU_6_12 } from "./mmu_traits.ts";
import * as stretches from "./stretches.ts";

const earlyExit = list([out.writeInvalid, out.dropGif, out.unmapVmcb12]);
const lateExit = list([out.raiseInvalid, out.fullVmexit]);

/**
 * Linux 6.1 as its stable series ships it (6.1.192): a failed check clears GIF but leaves EVENTINJ,
 * every #VMEXIT writes EVENTINJ back, and RSM checks nothing.
 */
export const KERNEL_6_1: Kernel = {
  name: "linux-6.1",
  doc:
    "Linux 6.1: the early exit clears GIF, EVENTINJ is written back, and RSM does not check vmcb12",
  checks: CHECKS_6_1,
  uses: USES_6_12,
  reserves: RULES_6_1,
  ways: {
    vmrun: [
      ...list(stretches.BEGIN_VMRUN),
      ...list(stretches.CHECKS, earlyExit),
      ...list(stretches.KEEP_L1),
      ...list([...stretches.SWITCH_FIRST, raiseGif, mergeMsrpm], lateExit),
    ],
    rsm: [
      ...list(stretches.BEGIN_RSM).map((entry) => ({ ...entry, ret: 1 })),
      ...list([
        ...stretches.SWITCH_FIRST,
        requestPages,
        raiseGif,
        setRunPending,
      ]),
    ],
    setstate: stretches.RESTORE_SWITCH_FIRST,
    pages: stretches.STATE_PAGES,
    vmexit: stretches.fullVmexit(out.writeEventInjAndTlb, []),
  },
  mmu: MMU_6_12,
  traits: {
    ...KERNEL_6_12.traits,
    guest: GUEST_6_1,
    flags: {
      guest: 1 << 5,
      smm: 1 << 6,
      smmInsideNmi: 1 << 7,
      nmiMasked: 1 << 3,
      awaitingIret: 1 << 4,
    },
    needsLongModeForSmi: false,
    failedRsmCompletes: true,
    endsRsmWithoutHsave: false,
    showsPayloads: false,
    countsWaitingNmis: false,
    invalidatesRoles: false,
    ignoresLmaWithoutLme: false,
    givesUpLongModeWithoutPae: false,
    shadowsUnreachableRoots: false,
    copiesLbrsAlways: false,
    keepsCleanBitsOfRefused: false,
    checksEferOfSregs: false,
    flushesOnSregs: false,
    vintrByMaskingAlone: true,
    interceptsVmmcallOfL2: false,
    requestsEventsOnVmexit: false,
    givesUpFailedSmi: false,
    keepsShadowInSmram: false,
    failedRsmLeavesL2: false,
    rsmKeepsHighHalves: true,
    rsmCutsLimits: true,
    keepsExitReason: true,
    retriesStatePages: false,
    freeingDropsTracking: true,
    yieldsOnFirstRun: false,
  },
};
