/**
 * What one consistency check would say of a vmcb12 of which only a part is known.
 *
 * @module
 */
import type { Image } from "../event.ts";
import { type Capabilities, VMCB12_AT } from "../svm/machine.ts";
import type { Check } from "./check.ts";
import { decided, machineOf, Question } from "./witness.ts";

/** What a check, or a set of checks, says: `unknown` when what is known does not settle it. */
export type CheckVerdict = "passes" | "fails" | "unknown";

/**
 * What one check says of a vmcb12.
 *
 * @param check The check.
 * @param caps What the processor and the hypervisor can do.
 * @param image vmcb12, as far as it is known.
 * @returns Whether it fails whatever the unknown bits are, passes, or neither is certain.
 * @example
 * ```ts
 * import { checkByText, checkVerdict, VMCB_SIZE } from "@vmtape/vmtape/engine";
 * const caps = { physicalBits: 48, npt: true, memory: 1 << 24 };
 * const unseen = { bytes: new Uint8Array(VMCB_SIZE), known: new Uint8Array(VMCB_SIZE) };
 * const check = checkByText("control->asid == 0")!;
 * if (checkVerdict(check, caps, unseen) !== "unknown") throw new Error();
 * unseen.known.fill(0xff);
 * if (checkVerdict(check, caps, unseen) !== "fails") throw new Error();
 * ```
 */
export function checkVerdict(check: Check, caps: Capabilities, image: Image): CheckVerdict {
  const question = new Question(check, caps, image);
  if (question.witness(true) === undefined) return "passes";
  if (check.beyond !== undefined) return "unknown";
  return question.witness(false) === undefined ? "fails" : "unknown";
}

/**
 * What checks say of a vmcb12 of which all is known, as {@linkcode checkVerdict} does, without looking
 * for values.
 *
 * @param caps What the processor and the hypervisor can do.
 * @param bytes vmcb12, of a VMCB's size.
 * @returns Answers for a check at a time, until something else asks about checks.
 */
export function wholeVerdicts(
  caps: Capabilities,
  bytes: Uint8Array,
): (check: Check) => CheckVerdict {
  const least = machineOf(decided(caps, false)), most = machineOf(decided(caps, true));
  least.bytes.set(bytes, VMCB12_AT);
  most.bytes.set(bytes, VMCB12_AT);
  return (check) => {
    if (!check.fails(least, VMCB12_AT)) return "passes";
    if (check.beyond !== undefined) return "unknown";
    return check.fails(most, VMCB12_AT) ? "fails" : "unknown";
  };
}
