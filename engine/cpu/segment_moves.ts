/**
 * MOV and POP to segment registers.
 *
 * @module
 */
import { NEXT, SEG } from "./constants.ts";
import { drop, peek, pushSize } from "./operands.ts";
import type { Processor } from "./processor.ts";
import { loadSelector, loadSelectorReal } from "./segments.ts";

/** Loads a segment register other than CS; SS starts an interrupt shadow. */
export function moveToSegment(cpu: Processor, segment: number, selector: number): number {
  if (cpu.protectedMode && !cpu.vm86) {
    const status = loadSelector(cpu, segment, selector);
    if (status !== NEXT) return status;
    if (segment < SEG.fs && cpu.width !== 16) cpu.endOfBlock = true;
  } else loadSelectorReal(cpu, segment, selector);
  if (segment === SEG.ss) {
    cpu.shadow = true;
    cpu.endOfBlock = true;
  }
  return NEXT;
}

/** POP to a segment register. */
export function popSegment(cpu: Processor, segment: number): number {
  const bytes = pushSize(cpu);
  if (!peek(cpu, bytes)) return cpu.failure;
  const status = moveToSegment(cpu, segment, cpu.lo & 0xffff);
  if (status === NEXT) drop(cpu, bytes);
  return status;
}
