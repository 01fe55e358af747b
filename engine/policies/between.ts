/**
 * The kernels between `early-exit` and `upstream`: the fixes that lead from one
 * to the other, each of them there or not.
 *
 * @module
 */
import { QEMU } from "../cpu/quirks.ts";
import { list, type Policy } from "../policy.ts";
import { mergeMsrpm, raiseGif, requestPages, setRunPending } from "../steps/enter.ts";
import * as out from "../steps/vmexit.ts";
import * as parts from "./parts.ts";

/** One fix. */
export interface Fix {
  /** Stable name. */
  readonly id: string;
  /** What a kernel with it does. */
  readonly does: string;
  /** What a kernel without it does. */
  readonly doesNot: string;
}

/** The fixes; {@linkcode EARLY_EXIT} has none of them, {@linkcode UPSTREAM} all. */
export const FIXES = [
  {
    id: "early-gif",
    does: "clears GIF in its early exit",
    doesNot: "does not clear GIF in its early exit",
  },
  {
    id: "early-event-inj",
    does: "clears EVENTINJ in its early exit",
    doesNot: "does not clear EVENTINJ in its early exit",
  },
  {
    id: "vmexit-event-inj",
    does: "clears EVENTINJ on every #VMEXIT",
    doesNot: "writes EVENTINJ back on #VMEXIT",
  },
  {
    id: "vmexit-tracking",
    does: "forgets on every #VMEXIT what L1 injected",
    doesNot: "forgets what L1 injected only where a VMRUN fails late",
  },
  {
    id: "rsm-checks",
    does: "checks vmcb12 at RSM",
    doesNot: "does not check vmcb12 at RSM",
  },
] as const satisfies readonly Fix[];

/** Name of a fix. */
export type FixId = typeof FIXES[number]["id"];

/**
 * The policy of a kernel with some of the fixes.
 *
 * @param fixes Which.
 * @returns The policy.
 * @example
 * ```ts
 * import { EARLY_EXIT, withFixes } from "@vmtape/vmtape/engine";
 * const steps = withFixes([]).ways.vmrun.map(({ step }) => step.name);
 * if (steps.join() !== EARLY_EXIT.ways.vmrun.map(({ step }) => step.name).join()) throw new Error();
 * ```
 */
export function withFixes(fixes: Iterable<FixId>): Policy {
  const has = new Set(fixes);
  const when = <T>(fix: FixId, yes: readonly T[], no: readonly T[] = []) => has.has(fix) ? yes : no;
  const earlyExit = list([
    out.writeInvalid,
    ...when("early-event-inj", [out.clearEventInj]),
    ...when("early-gif", [out.dropGif]),
    out.unmapVmcb12,
  ]);
  const lateExit = list([
    out.raiseInvalid,
    ...when("vmexit-tracking", [], [out.dropTracking]),
    out.fullVmexit,
  ]);
  const [eventInj = out.writeEventInj] = when("vmexit-event-inj", [out.clearEventInj]);
  return {
    name: ["early-exit", ...has].join("+"),
    doc: "A kernel between early-exit and upstream",
    checks: "linux-6.12",
    processor: QEMU,
    ways: {
      vmrun: [
        ...list(parts.BEGIN_VMRUN),
        ...list(parts.CHECKS, earlyExit),
        ...list(parts.KEEP_L1),
        ...list([...parts.SWITCH_FIRST, raiseGif, mergeMsrpm], lateExit),
      ],
      rsm: [
        ...list(parts.BEGIN_RSM),
        ...when("rsm-checks", list(parts.CHECKS).map((entry) => ({ ...entry, ret: 1 }))),
        ...list([...parts.SWITCH_FIRST, requestPages, raiseGif, setRunPending]),
      ],
      setstate: parts.RESTORE_SWITCH_FIRST,
      pages: parts.STATE_PAGES,
      vmexit: parts.fullVmexit(eventInj, when("vmexit-tracking", [out.dropTracking])),
    },
  };
}
