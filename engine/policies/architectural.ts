/**
 * The policy `architectural`.
 *
 * @module
 */
import { ARCHITECTURAL } from "../cpu/quirks.ts";
import { list, type Policy } from "../policy.ts";
import { mergeMsrpm, raiseGif, requestPages, setRunPending } from "../steps/enter.ts";
import * as out from "../steps/vmexit.ts";
import * as parts from "./parts.ts";

/**
 * A #VMEXIT before any state of the guest's was loaded: what APM vol. 2, 15.6
 * lists, less what did not change. The state save area stays as L1 wrote it.
 */
const invalidExit = list([
  out.cancelRun,
  out.writeInvalid,
  out.clearEventInj,
  out.dropGif,
  out.disableBreakpoints,
  out.unmapVmcb12,
  out.loadL1Cr3,
  out.trapOnCompletion,
]);

const lateExit = list([out.raiseInvalid, out.fullVmexit]);

/**
 * What the AMD manual says that hardware does (APM vol. 2, 15.5 "VMRUN
 * Instruction", 15.5.1 the consistency checks, 15.6 "#VMEXIT", 15.20 event
 * injection): every failed check is a #VMEXIT with VMEXIT_INVALID, which clears
 * GIF and EVENTINJ, on a processor without the emulator's deviations.
 *
 * The manual leaves open, and this policy assumes: the order of the checks is
 * the manual's own; EXITINFO1 and EXITINFO2 of a failed VMRUN are 0; the PDPTEs
 * of a PAE guest are checked when CR3 is loaded; what CPUID does not offer is
 * reserved. SMIs in L2, RSM and restoring state are KVM's, in the manual's
 * checks: the manual knows no hypervisor that does this for another.
 */
export const HARDWARE: Policy = {
  name: "architectural",
  doc: "The AMD manual: all checks first, every failure a #VMEXIT that clears GIF and EVENTINJ",
  checks: "apm",
  processor: ARCHITECTURAL,
  ways: {
    vmrun: [
      ...list(parts.BEGIN_VMRUN),
      ...list(parts.KEEP_L1),
      ...list(parts.CHECKS, invalidExit),
      ...list([...parts.SWITCH_FIRST, raiseGif, mergeMsrpm], lateExit),
    ],
    rsm: [
      ...list(parts.BEGIN_RSM),
      ...list(parts.CHECKS).map((entry) => ({ ...entry, ret: 1 })),
      ...list([...parts.SWITCH_FIRST, requestPages, raiseGif, setRunPending]),
    ],
    setstate: parts.RESTORE_SWITCH_FIRST,
    pages: parts.STATE_PAGES,
    vmexit: parts.fullVmexit(out.clearEventInj, [out.dropTracking]),
  },
};
