/**
 * The policy `unified`.
 *
 * @module
 */
import { KERNEL_6_12 } from "../kernels/linux_6_12.ts";
import { list, type Policy, type Step, type StepEntry } from "../policy.ts";
import * as enter from "../steps/enter.ts";
import * as restore from "../steps/restore.ts";
import * as out from "../steps/vmexit.ts";
import * as stretches from "../kernels/stretches.ts";

/** The small #VMEXIT that both the error path and the full #VMEXIT end with. */
const minimalVmexit: readonly Step[] = [
  out.forgetGpa,
  out.forgetNcr3,
  out.dropGif,
  out.clearExitIntInfo,
  out.uninitMmuContext,
  out.loadL1Cr3,
  out.trapOnCompletion,
];

const errorVmexit: readonly StepEntry[] = list([
  out.cancelRun,
  out.dropTracking,
  out.leaveGuestOnly,
  out.writeInvalid,
  ...minimalVmexit,
  out.unmapVmcb12,
]);

/** Everything that can fail, before the switch. */
const FAILING: readonly Step[] = [
  enter.noteGpa,
  enter.enterGuest,
  ...stretches.CHECKS,
  enter.initMmuContext,
  enter.loadL2Cr3,
];

const SWITCH: readonly Step[] = [
  enter.switchToVmcb02,
  enter.flushTlb,
  enter.prepareControl,
  enter.prepareSave,
];

/**
 * The patch that moves every check before the switch to vmcb02, with one small
 * error #VMEXIT for all of them.
 */
export const UNIFIED: Policy = {
  name: "unified",
  doc: "The patch: all failures before the switch to vmcb02, one minimal error #VMEXIT",
  kernel: KERNEL_6_12,
  ways: {
    vmrun: [
      ...list(stretches.BEGIN_VMRUN),
      ...list(stretches.KEEP_L1),
      ...list([...FAILING, enter.mergeMsrpm], errorVmexit),
      ...list([...SWITCH, enter.raiseGif]),
    ],
    rsm: list([
      ...stretches.BEGIN_RSM,
      ...FAILING,
      ...SWITCH,
      enter.requestPages,
      enter.raiseGif,
      enter.setRunPending,
    ]),
    setstate: list([
      restore.checkRestored,
      restore.takeRestored,
      enter.enterGuest,
      enter.initMmuContext,
      restore.reloadCr3,
      enter.switchToVmcb02,
      enter.flushTlb,
      enter.prepareControl,
      restore.markVmcb02Dirty,
      restore.requestRestoredPages,
    ]),
    pages: stretches.STATE_PAGES,
    vmexit: list([
      out.mapForExit,
      out.leaveGuest,
      out.writeSave,
      out.writeControl,
      out.writeEventInj,
      out.assertVmcb02,
      out.switchToVmcb01,
      out.restoreL1,
      out.unmapVmcb12,
      enter.flushTlb,
      out.dropEvents,
      ...minimalVmexit,
    ]),
  },
};
