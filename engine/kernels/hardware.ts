/**
 * Hardware, as the AMD manual describes it: the kernel of the policy `architectural`.
 *
 * @module
 */
import { CHECKS_APM } from "../checks/apm.ts";
import { list } from "../policy.ts";
import { mergeMsrpm, raiseGif, requestPages, setRunPending } from "../steps/enter.ts";
import * as out from "../steps/vmexit.ts";
import type { Kernel } from "./kernel.ts";
import { KERNEL_6_12 } from "./linux_6_12.ts";
import * as stretches from "./stretches.ts";

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
 * The manual leaves open, and this model assumes: the order of the checks is
 * the manual's own; EXITINFO1 and EXITINFO2 of a failed VMRUN are 0; the PDPTEs
 * of a PAE guest are checked when CR3 is loaded; what CPUID does not offer is
 * reserved. SMIs in L2, RSM and restoring state are KVM's, in the manual's
 * checks: the manual knows no hypervisor that does this for another.
 */
export const HARDWARE: Kernel = {
  name: "hardware",
  doc: "The AMD manual: all checks first, every failure a #VMEXIT that clears GIF and EVENTINJ",
  checks: CHECKS_APM,
  uses: KERNEL_6_12.uses,
  reserves: KERNEL_6_12.reserves,
  mmu: KERNEL_6_12.mmu,
  ways: {
    vmrun: [
      ...list(stretches.BEGIN_VMRUN),
      ...list(stretches.KEEP_L1),
      ...list(stretches.CHECKS, invalidExit),
      ...list([...stretches.SWITCH_FIRST, raiseGif, mergeMsrpm], lateExit),
    ],
    rsm: [
      ...list(stretches.BEGIN_RSM),
      ...list(stretches.CHECKS).map((entry) => ({ ...entry, ret: 1 })),
      ...list([...stretches.SWITCH_FIRST, requestPages, raiseGif, setRunPending]),
    ],
    setstate: stretches.RESTORE_SWITCH_FIRST,
    pages: stretches.STATE_PAGES,
    vmexit: stretches.fullVmexit(out.clearEventInj, [out.dropTracking]),
  },
  traits: KERNEL_6_12.traits,
};
