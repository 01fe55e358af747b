/**
 * Where every QEMU that is modelled parts from the AMD manual.
 *
 * @module
 */
import type { QuirkId } from "./quirks.ts";

/** What QEMU 7.2 and 11.1 have in common. */
export const QEMU_QUIRKS: readonly QuirkId[] = [
  "leaksHostRip",
  "savesOnRefusal",
  "debugBitsAsGiven",
  "refusesLmsle",
  "cplFromSs",
  "injectsAnyVector",
  "injectsWithoutDpl",
  "forgetsInjected",
  "errorCodeByVector",
  "keepsEventBits",
  "virqReportedAsException",
  "doubleFaultNotIntercepted",
  "breakpointIsInterrupt",
  "badControlRegisterExits",
  "noExternalBit",
  "reservedWithoutPresent",
  "resumeFlagLingers",
  "mixesUnchecked",
  "taskSwitchedFirst",
  "sysenterInCompatibility",
  "unknownMsrsAreZero",
  "savesNoNextRip",
];
