/**
 * The policy `upstream`.
 *
 * @module
 */
import { QEMU } from "../cpu/quirks.ts";
import { list, type Policy } from "../policy.ts";
import { mergeMsrpm, raiseGif, requestPages, setRunPending } from "../steps/enter.ts";
import * as out from "../steps/vmexit.ts";
import * as parts from "./parts.ts";

const earlyExit = list([
  out.writeInvalid,
  out.clearEventInj,
  out.dropGif,
  out.unmapVmcb12,
]);
const lateExit = list([out.raiseInvalid, out.fullVmexit]);

/** What stable kernels ship: the early exit is kept, and clears GIF and EVENTINJ; RSM checks vmcb12. */
export const UPSTREAM: Policy = {
  name: "upstream",
  doc:
    "What stable kernels ship: the early exit also clears GIF and EVENTINJ, and RSM checks vmcb12",
  checks: "linux-6.12",
  processor: { ...QEMU, hostRipLow: 0xacc },
  ways: {
    vmrun: [
      ...list(parts.BEGIN_VMRUN),
      ...list(parts.CHECKS, earlyExit),
      ...list(parts.KEEP_L1),
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
