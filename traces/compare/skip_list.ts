/**
 * Cases to leave out of a comparison, because two runs of one kernel already differ in them.
 *
 * @module
 */
import { VmtapeError } from "../../engine/error.ts";
import type { LabRecord } from "../../codecs/lab/types.ts";

/** Which cases to leave out of the count. */
export type Skip = (record: LabRecord) => boolean;

/**
 * A skip list that is not one.
 *
 * @example
 * ```ts
 * import { skipList, SkipListError } from "@vmtape/vmtape/traces";
 * let caught: unknown;
 * try {
 *   skipList({ "A-unified-npt0": "loops" });
 * } catch (error) {
 *   caught = error;
 * }
 * if (!(caught instanceof SkipListError)) throw new Error();
 * ```
 */
export class SkipListError extends VmtapeError {
  /** `SkipListError`. */
  override readonly name = "SkipListError";
}

/**
 * Reads a skip list: names of cases, or lists of them by recording, whose names
 * end in kernel and NPT setting (`A-unified-npt0`).
 *
 * @param json The parsed JSON.
 * @returns Whether a record is to be left out.
 * @throws {SkipListError} When it is neither.
 * @example
 * ```ts
 * import { skipList } from "@vmtape/vmtape/traces";
 * const skip = skipList({ "A-unified-npt0": ["loops"] });
 * const record = { case: "loops", spec: "", kernel: "unified", npt: 0, events: [] };
 * if (!skip(record) || skip({ ...record, npt: 1 })) throw new Error();
 * ```
 */
export function skipList(json: unknown): Skip {
  if (isTexts(json)) {
    const names = new Set(json);
    return (record) => names.has(record.case);
  }
  if (typeof json !== "object" || json === null) {
    throw new SkipListError("A skip list is a JSON list of case names, or such lists by recording");
  }
  const lists = Object.entries(json).map(([key, names]) => {
    if (!isTexts(names)) {
      throw new SkipListError(`Skip list "${key}": expected a list of case names`);
    }
    return [key, new Set(names)] as const;
  });
  return ({ case: name, kernel, npt }) =>
    lists.some(([key, names]) => {
      const of = `${kernel}-npt${npt}`;
      return (key === of || key.endsWith(`-${of}`)) && names.has(name);
    });
}

function isTexts(value: unknown): value is string[] {
  return Array.isArray(value) && value.every((text) => typeof text === "string");
}
