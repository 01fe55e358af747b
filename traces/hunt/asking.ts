/**
 * Asking a kernel what it does with cases, and noticing when it does not answer.
 *
 * @module
 */
import type { LabRecord } from "../../codecs/lab/types.ts";
import { VmtapeError } from "../../engine/error.ts";
import type { Unit } from "./foresight.ts";

/**
 * Asks a kernel.
 *
 * @param lines Cases, in order.
 * @returns A record of each, in order; fewer when the kernel gave up on the way.
 * @throws {HuntError} When it cannot be asked at all.
 */
export type Ask = (lines: readonly string[]) => Promise<LabRecord[]>;

/**
 * A kernel that cannot be asked.
 *
 * @example
 * ```ts
 * import { HuntError } from "@vmtape/vmtape/traces";
 * if (new HuntError("The lab answers nothing").name !== "HuntError") throw new Error();
 * ```
 */
export class HuntError extends VmtapeError {
  /** Name of the class. */
  override readonly name = "HuntError";
}

/** What came of asking about units. */
export interface Answers {
  /** Records of each unit, in order; undefined of one that gets no answer. */
  readonly records: readonly (readonly LabRecord[] | undefined)[];
}

/** How many askings in a row may bring nothing. */
const NOTHING = 12;

/**
 * Asks about units. Where a kernel stops answering, the unit that it stopped at is asked alone, on a
 * fresh machine; if that brings nothing either it gets no answer, and the others go on without it.
 * Where nothing is answered at all, halves are asked.
 *
 * @param ask Asks the kernel.
 * @param units The units.
 * @throws {HuntError} When nothing is answered at all.
 */
export async function askUnits(ask: Ask, units: readonly Unit[]): Promise<Answers> {
  const records: (readonly LabRecord[] | undefined)[] = units.map(() => undefined);
  let nothing = 0;
  const all = async (from: number, to: number): Promise<void> => {
    if (from >= to) return;
    const at = await take(from, to);
    if (nothing === 0 && at < to) {
      if (to - from > 1) await take(at, at + 1);
      await all(at + 1, to);
    } else if (nothing > 0 && to - from > 1) {
      const middle = (from + to) >> 1;
      await all(from, middle);
      await all(middle, to);
    }
  };
  const take = async (from: number, to: number): Promise<number> => {
    const answers = await ask(units.slice(from, to).flat());
    nothing = answers.length === 0 ? nothing + 1 : 0;
    if (nothing > NOTHING) {
      throw new HuntError("The kernel answers nothing; ask it about one case by hand");
    }
    let at = from;
    for (let used = 0; at < to; at++) {
      const unit = units[at]!;
      const own = answers.slice(used, used += unit.length);
      own.forEach((record, i) => mustBe(record, unit[i]!));
      const whole = own.length === unit.length && own.every(({ post }) => post !== undefined);
      if (whole) records[at] = own;
      // Others came behind it: what it has of an answer is all there is.
      else if (used >= answers.length) break;
    }
    return at;
  };
  await all(0, units.length);
  return { records };
}

function mustBe({ case: name }: LabRecord, line: string): void {
  if (name === line.split(" ")[0]) return;
  throw new HuntError(`The kernel was asked about ${line.split(" ")[0]} and answers about ${name}`);
}
