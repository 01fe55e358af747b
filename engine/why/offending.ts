/**
 * Which bits of vmcb12 make a consistency check fail.
 *
 * @module
 */
import type { Check } from "../checks/check.ts";
import { checkVerdict } from "../checks/check_verdict.ts";
import { witness } from "../checks/witness.ts";
import type { Image } from "../event.ts";
import { formatValue } from "../image/format.ts";
import { copyImage, fieldMask, fieldNamed, readField, writeField } from "../image/fields.ts";
import { diffImages } from "../image/diff.ts";
import type { Capabilities } from "../svm/machine.ts";
import { VMCB_LAYOUT } from "../svm/vmcb_fields.ts";

/** A field that a check reads. */
export interface ReadField {
  /** Its name, such as `save.cr4`. */
  readonly field: string;
  /** Its value with its bits by name; `?` for what was not seen. */
  readonly value: string;
  /** Whether all of it was seen. */
  readonly known: boolean;
  /** The smallest change of this field alone with which the check passes; undefined when there is none. */
  readonly passesWith: string | undefined;
  /** Names, or values, of the bits that this change changes. */
  readonly bits: readonly string[];
}

/**
 * Takes back changes, bit by bit, while the check still passes.
 *
 * @returns The value that is closest to what was there.
 */
function closestPassing(
  there: bigint,
  passing: bigint,
  passes: (value: bigint) => boolean,
): bigint {
  let value = passing;
  // From the top, so that of several bits that would do the lowest is left.
  for (let shift = 63n; shift >= 0n; shift--) {
    const bit = 1n << shift;
    if (((there ^ passing) & bit) !== 0n && passes(value ^ bit)) value ^= bit;
  }
  return value;
}

/**
 * The fields that a check reads, and which of their bits offend.
 *
 * @param check The check.
 * @param caps What the processor and the hypervisor can do.
 * @param image vmcb12, as far as it was seen.
 * @returns A row for each field, in the order the check names them.
 * @example
 * ```ts
 * import { checkById, readFields, VMCB_SIZE } from "@vmtape/vmtape/engine";
 * const caps = { physicalBits: 40, npt: true, memory: 1 << 24 };
 * const zero = { bytes: new Uint8Array(VMCB_SIZE) };
 * const [asid] = readFields(checkById("asid-zero")!, caps, zero);
 * if (asid?.value !== "0x0" || asid.passesWith !== "0x1") throw new Error(asid?.passesWith);
 * ```
 */
export function readFields(check: Check, caps: Capabilities, image: Image): ReadField[] {
  const fails = checkVerdict(check, caps, image) === "fails";
  return check.reads.map((name) => {
    const row = fieldNamed(VMCB_LAYOUT, name);
    const seen = readField(image, row);
    const mask = fieldMask(row);
    const known = seen.known === mask;
    const value = formatValue(row, seen);
    const nothing = { field: name, value, known, passesWith: undefined, bits: [] };
    if (!fails || !known) return nothing;
    const open = copyImage(image);
    const openMask = open.known ?? new Uint8Array(open.bytes.length).fill(0xff);
    openMask.fill(0, row.offset, row.offset + row.size);
    const found = witness(check, caps, { bytes: open.bytes, known: openMask }, false)?.get(name);
    if (found === undefined || found === seen.value) return nothing;
    const changed = copyImage(image);
    const passes = (candidate: bigint) => {
      writeField(changed.bytes, row, candidate);
      return checkVerdict(check, caps, changed) !== "fails";
    };
    const passing = closestPassing(seen.value, found, passes);
    writeField(changed.bytes, row, passing);
    const [difference] = diffImages(VMCB_LAYOUT, image, changed, { onlyKnown: true });
    return {
      ...nothing,
      passesWith: formatValue(row, { value: passing, known: mask }),
      bits: difference?.bits.filter((bit) =>
        bit.verdict === "differs"
      ).map((bit) => bit.name === "reserved" ? `reserved ${bit.a}` : bit.name) ?? [],
    };
  });
}
