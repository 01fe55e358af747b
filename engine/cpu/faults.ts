/**
 * The faults that instructions raise most.
 *
 * @module
 */
import { VECTOR } from "./constants.ts";
import type { Processor } from "./processor.ts";

/** #GP with error code 0. */
export const gp = (cpu: Processor): number => cpu.raise(VECTOR.gp);

/** #UD. */
export const ud = (cpu: Processor): number => cpu.raise(VECTOR.ud);
