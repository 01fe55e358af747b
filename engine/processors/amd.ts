/**
 * The processor that the AMD manual describes.
 *
 * @module
 */
import { type ProcessorModel, processorModel } from "./model.ts";

/**
 * What APM vol. 2, chapter 15 says: the default wherever nothing says otherwise. What no emulator
 * does stays undone: segment limits, breakpoints that VMRUN loads, the I/O intercept's address size and
 * segment bits.
 */
export const AMD: ProcessorModel = processorModel("amd", "What the AMD manual says");
