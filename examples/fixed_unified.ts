/**
 * The policy `unified` with its two known faults mended: L2's CR3 is loaded when
 * L2's registers are in place, and the merged MSR bitmap goes to vmcb02.
 *
 * @module
 */
import { list, type Policy, steps, stretches, UNIFIED } from "@vmtape/vmtape/engine";

/** A failed consistency check: L2 was never entered, so the small #VMEXIT of `unified` will do. */
const errorVmexit = list([
  steps.cancelRun,
  steps.dropTracking,
  steps.leaveGuestOnly,
  steps.writeInvalid,
  steps.forgetGpa,
  steps.forgetNcr3,
  steps.dropGif,
  steps.clearExitIntInfo,
  steps.uninitMmuContext,
  steps.loadL1Cr3,
  steps.trapOnCompletion,
  steps.unmapVmcb12,
]);

/** A failure after the switch: vmcb02 is in use, and it takes a full #VMEXIT to leave it. */
const lateExit = list([steps.raiseInvalid, steps.dropTracking, steps.fullVmexit]);

const CHECKED = [steps.noteGpa, steps.enterGuest, ...stretches.CHECKS];

/** The switch, then what needs L2's registers (CR3) or vmcb02 (the MSR bitmap). */
const ENTER = [
  steps.switchToVmcb02,
  steps.flushTlb,
  steps.initMmuContext,
  steps.prepareControl,
  steps.prepareSave,
  steps.loadL2Cr3,
];

const policy: Policy = {
  ...UNIFIED,
  name: "fixed-unified",
  doc: "unified, with CR3 loaded and the MSR bitmap merged after the switch to vmcb02",
  ways: {
    ...UNIFIED.ways,
    vmrun: [
      ...list(stretches.BEGIN_VMRUN),
      ...list(stretches.KEEP_L1),
      ...list(CHECKED, errorVmexit),
      ...list([...ENTER, steps.raiseGif, steps.mergeMsrpm], lateExit),
    ],
    rsm: list([
      ...stretches.BEGIN_RSM,
      ...CHECKED,
      ...ENTER,
      steps.requestPages,
      steps.raiseGif,
      steps.setRunPending,
    ]),
    setstate: stretches.RESTORE_SWITCH_FIRST,
  },
};

export default policy;
