/**
 * Stretches of steps that several policies share.
 *
 * @module
 */
import { list, type Step, type StepEntry } from "../policy.ts";
import * as enter from "../steps/enter.ts";
import * as restore from "../steps/restore.ts";
import * as vmcb12 from "../steps/vmcb12.ts";
import * as out from "../steps/vmexit.ts";

/** The start of VMRUN, up to the cached vmcb12. */
export const BEGIN_VMRUN: readonly Step[] = [
  vmcb12.requireHsave,
  vmcb12.refuseInSmm,
  vmcb12.mapVmcb12,
  vmcb12.skipVmrun,
  vmcb12.cacheVmcb12,
];

/** The checks of the cached vmcb12. */
export const CHECKS: readonly Step[] = [vmcb12.checkSave, vmcb12.checkControls];

/** What is noted before L2 is entered. */
export const KEEP_L1: readonly Step[] = [enter.saveL1, enter.setRunPending];

/** Entering L2 with the switch first and the checks of CR3 last. */
export const SWITCH_FIRST: readonly Step[] = [
  enter.noteGpa,
  enter.switchToVmcb02,
  enter.flushTlb,
  enter.enterGuest,
  enter.initMmuContext,
  enter.prepareControl,
  enter.prepareSave,
  enter.loadL2Cr3,
];

/** The start of RSM, up to the cached vmcb12. */
export const BEGIN_RSM: readonly Step[] = [
  restore.requireSavedSvme,
  restore.mapSavedVmcb12,
  restore.restoreL1FromHsave,
  vmcb12.cacheVmcb12,
];

/** Restoring nested state as long as KVM has done it with the switch first. */
export const RESTORE_SWITCH_FIRST: readonly StepEntry[] = list([
  restore.checkRestored,
  restore.takeRestored,
  enter.switchToVmcb02,
  enter.flushTlb,
  enter.enterGuest,
  enter.initMmuContext,
  enter.prepareControl,
  restore.markVmcb02Dirty,
  restore.reloadCr3,
  restore.requestRestoredPages,
]);

/** What a restore left for later. */
export const STATE_PAGES: readonly StepEntry[] = list([
  restore.assertGuestMode,
  restore.loadPages,
  restore.mergePages,
]);

/** The full #VMEXIT from where vmcb12 is mapped up to the point where EVENTINJ is written. */
const EXIT_BEGIN: readonly Step[] = [
  out.leaveGuest,
  out.writeSave,
  out.writeControl,
];

/**
 * The full #VMEXIT.
 *
 * @param eventInj What becomes of EVENTINJ.
 * @param last Steps at its end.
 * @param map How vmcb12 is mapped.
 */
export function fullVmexit(
  eventInj: Step,
  last: readonly Step[],
  map: Step = out.mapForExit,
): readonly StepEntry[] {
  return list([
    map,
    ...EXIT_BEGIN,
    eventInj,
    out.switchToVmcb01,
    out.dropGif,
    out.clearExitIntInfo,
    out.forgetNcr3,
    out.restoreL1,
    out.unmapVmcb12,
    enter.flushTlb,
    out.uninitMmuContext,
    out.loadL1Cr3,
    out.dropEvents,
    out.trapOnCompletion,
    ...last,
  ]);
}
