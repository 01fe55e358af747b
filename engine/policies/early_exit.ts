/**
 * The policy `early-exit`.
 *
 * @module
 */
import { QEMU } from "../cpu/quirks.ts";
import { list, type Policy } from "../policy.ts";
import { mergeMsrpm, raiseGif, requestPages, setRunPending } from "../steps/enter.ts";
import * as out from "../steps/vmexit.ts";
import * as parts from "./parts.ts";

const earlyExit = list([out.writeInvalid, out.unmapVmcb12]);
const lateExit = list([out.raiseInvalid, out.dropTracking, out.fullVmexit]);

/**
 * KVM before the fixes: consistency checks end VMRUN early, without a #VMEXIT;
 * what fails later is a full #VMEXIT from vmcb02.
 */
export const EARLY_EXIT: Policy = {
  name: "early-exit",
  doc: "KVM before the fixes: failed checks end VMRUN early and leave GIF and EVENTINJ as they are",
  checks: "linux-6.12",
  processor: { ...QEMU, hostRipLow: 0xa8c },
  ways: {
    vmrun: [
      ...list(parts.BEGIN_VMRUN),
      ...list(parts.CHECKS, earlyExit),
      ...list(parts.KEEP_L1),
      ...list([...parts.SWITCH_FIRST, raiseGif, mergeMsrpm], lateExit),
    ],
    rsm: list([...parts.BEGIN_RSM, ...parts.SWITCH_FIRST, requestPages, raiseGif, setRunPending]),
    setstate: parts.RESTORE_SWITCH_FIRST,
    pages: parts.STATE_PAGES,
    vmexit: parts.fullVmexit(out.writeEventInj, []),
  },
};
