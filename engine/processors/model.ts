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
 * The model of a processor.
 *
 * @param name Name on the command line and in a session.
 * @param doc What it is, in one line.
 * @param quirks The deviations that it has; none when left out.
 * @returns The model.
 * @example
 * ```ts
 * import { processorModel } from "@vmtape/vmtape/engine";
 * const sloppy = processorModel("sloppy", "One that takes CPL from SS", ["cplFromSs"]);
 * if (!sloppy.cplFromSs || sloppy.leaksHostRip) throw new Error();
 * ```
 */
export function processorModel(
  name: string,
  doc: string,
  quirks: readonly QuirkId[] = [],
): ProcessorModel {
  const has = QUIRKS.map(({ id }) => [id, quirks.includes(id)] as const);
  return { name, doc, ...Object.fromEntries(has) as Record<QuirkId, boolean> };
}
