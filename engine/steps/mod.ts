/**
 * The steps that policies are made of, and stretches of them that the built-in
 * policies share.
 *
 * @module
 */
export {
  enterGuest,
  flushTlb,
  initMmuContext,
  loadL2Cr3,
  mergeMsrpm,
  noteGpa,
  prepareControl,
  prepareSave,
  raiseGif,
  requestPages,
  saveL1,
  setRunPending,
  switchToVmcb02,
} from "./enter.ts";
export {
  advanceRip,
  cacheWholeVmcb12,
  cutRestored,
  mapForExitOrShutDown,
  mapVmcb12OrStop,
  prepareSaveFromCache,
  requireVmcb12Address,
} from "./cached_vmcb12.ts";
export {
  assertGuestMode,
  checkRestored,
  loadPages,
  mapSavedVmcb12,
  markVmcb02Dirty,
  mergePages,
  reloadCr3,
  requestRestoredPages,
  requireSavedSvme,
  restoreL1FromHsave,
  takeRestored,
} from "./restore.ts";
export {
  cacheVmcb12,
  checkControls,
  checkSave,
  mapVmcb12,
  refuseInSmm,
  requireHsave,
  skipVmrun,
} from "./vmcb12.ts";
export {
  assertVmcb02,
  cancelRun,
  clearEventInj,
  clearExitIntInfo,
  disableBreakpoints,
  dropEvents,
  dropGif,
  dropTracking,
  forgetGpa,
  forgetNcr3,
  fullVmexit,
  leaveGuest,
  leaveGuestOnly,
  loadL1Cr3,
  mapForExit,
  raiseInvalid,
  restoreL1,
  switchToVmcb01,
  trapOnCompletion,
  uninitMmuContext,
  unmapVmcb12,
  writeControl,
  writeEventInj,
  writeEventInjAndTlb,
  writeInvalid,
  writeSave,
} from "./vmexit.ts";
export { checkGroup, reportCheck } from "./vmcb12.ts";
