/**
 * What the machine beneath the hypervisor does where processors and emulators part.
 *
 * @module
 */
import { type QuirkId, QUIRKS } from "./quirks.ts";

/**
 * A processor: its name, and one switch for each deviation from the AMD manual, see
 * {@linkcode QUIRKS}. All off is the manual's own.
 *
 * @example
 * ```ts
 * import { AMD, type ProcessorModel } from "@vmtape/vmtape/engine";
 * const sloppy: ProcessorModel = { ...AMD, name: "sloppy", cplFromSs: true };
 * if (AMD.cplFromSs || !sloppy.cplFromSs) throw new Error();
 * ```
 */
export interface ProcessorModel extends Readonly<Record<QuirkId, boolean>> {
  /** Name on the command line and in a session. */
  readonly name: string;
  /** What it is, in one line. */
  readonly doc: string;
}

/**
 * The model of a processor, with the deviations that the table gives it.
 *
 * @param name Its name there.
 * @param doc What it is, in one line.
 * @returns The model.
 */
export function processorModel(name: string, doc: string): ProcessorModel {
  const has = QUIRKS.map(({ id, processors }) =>
    [id, (processors as readonly string[]).includes(name)] as const
  );
  return { name, doc, ...Object.fromEntries(has) as Record<QuirkId, boolean> };
}
