/**
 * Segment descriptors and registers.
 *
 * @module
 */
import { NEXT, SEG, VECTOR } from "./constants.ts";
import type { Processor } from "./processor.ts";

/** Descriptor beyond its table's limit. */
export const NO_DESCRIPTOR = -1;

/**
 * Reads a descriptor from the GDT or LDT into `cpu.lo` and `cpu.hi`.
 *
 * @returns NEXT, {@linkcode NO_DESCRIPTOR}, or the status of a failed access.
 */
export function loadDescriptor(cpu: Processor, selector: number): number {
  const table = (selector & 4) !== 0 ? SEG.ldtr : SEG.gdtr;
  const index = selector & ~7 & 0xffff;
  if (index + 7 > (cpu.limit[table] as number)) return NO_DESCRIPTOR;
  let lo = (cpu.segBase[table * 2] as number) + index;
  let hi = cpu.segBase[table * 2 + 1] as number;
  if (lo >= 0x1_0000_0000) {
    lo -= 0x1_0000_0000;
    hi = hi + 1 >>> 0;
  }
  return cpu.readSystem(lo, hi, 8) ? NEXT : cpu.failure;
}

/** Limit in a descriptor, in bytes. */
export function descriptorLimit(e1: number, e2: number): number {
  const limit = e1 & 0xffff | e2 & 0xf0000;
  return ((e2 & 0x800000) !== 0 ? limit << 12 | 0xfff : limit) >>> 0;
}

/** Puts a descriptor into a segment register and updates what follows from it. */
export function loadSegment(
  cpu: Processor,
  segment: number,
  selector: number,
  e1: number,
  e2: number,
  baseHi = 0,
): void {
  cpu.selector[segment] = selector;
  cpu.attrib[segment] = e2 >>> 8 & 0xff | e2 >>> 12 & 0xf00;
  cpu.limit[segment] = descriptorLimit(e1, e2);
  cpu.segBase[segment * 2] = e1 >>> 16 | (e2 & 0xff) << 16 | e2 & 0xff000000;
  cpu.segBase[segment * 2 + 1] = baseHi;
  segmentLoaded(cpu, segment);
}

/** Updates CPL, code width and bookkeeping after a segment register changed. */
export function segmentLoaded(cpu: Processor, segment: number): void {
  if (segment === SEG.cs) cpu.setWidth();
  else if (segment === SEG.ss) cpu.cpl = (cpu.attrib[SEG.ss] as number) >> 5 & 3;
  else if (segment > SEG.ds) cpu.hostSegmentsDirty = true;
}

/** Loads a selector as real and virtual-8086 mode do: the base is 16 times it, the rest stays. */
export function loadSelectorReal(cpu: Processor, segment: number, selector: number): void {
  cpu.selector[segment] = selector;
  cpu.segBase[segment * 2] = selector << 4;
  cpu.segBase[segment * 2 + 1] = 0;
  segmentLoaded(cpu, segment);
}

/** MOV or POP to a data segment register or SS in protected mode (QEMU's load_seg). */
export function loadSelector(cpu: Processor, segment: number, selector: number): number {
  const cpl = cpu.cpl;
  if ((selector & 0xfffc) === 0) {
    if (segment === SEG.ss && (cpu.width !== 64 || cpl === 3)) return cpu.raise(VECTOR.gp);
    cpu.selector[segment] = selector;
    cpu.segBase[segment * 2] = 0;
    cpu.segBase[segment * 2 + 1] = 0;
    cpu.limit[segment] = 0;
    // The null SS of 64-bit mode keeps CPL in its DPL.
    cpu.attrib[segment] = segment === SEG.ss ? cpl << 5 : 0;
    segmentLoaded(cpu, segment);
    return NEXT;
  }
  const found = loadDescriptor(cpu, selector);
  if (found < 0) return cpu.raise(VECTOR.gp, selector & 0xfffc);
  if (found !== NEXT) return found;
  const e1 = cpu.lo;
  let e2 = cpu.hi;
  if ((e2 & 0x1000) === 0) return cpu.raise(VECTOR.gp, selector & 0xfffc);
  const rpl = selector & 3;
  const dpl = e2 >>> 13 & 3;
  if (segment === SEG.ss) {
    if ((e2 & 0x800) !== 0 || (e2 & 0x200) === 0 || rpl !== cpl || dpl !== cpl) {
      return cpu.raise(VECTOR.gp, selector & 0xfffc);
    }
  } else {
    if ((e2 & 0xa00) === 0x800) return cpu.raise(VECTOR.gp, selector & 0xfffc);
    if ((e2 & 0xc00) !== 0xc00 && (dpl < cpl || dpl < rpl)) {
      return cpu.raise(VECTOR.gp, selector & 0xfffc);
    }
  }
  if ((e2 & 0x8000) === 0) {
    return cpu.raise(segment === SEG.ss ? VECTOR.ss : VECTOR.np, selector & 0xfffc);
  }
  if ((e2 & 0x100) === 0) {
    e2 |= 0x100;
    const table = (selector & 4) !== 0 ? SEG.ldtr : SEG.gdtr;
    const at = (cpu.segBase[table * 2] as number) + (selector & 0xfff8) + 4;
    if (!cpu.writeSystem(at >>> 0, cpu.segBase[table * 2 + 1] as number, 4, e2 >>> 0, 0)) {
      return cpu.failure;
    }
  }
  loadSegment(cpu, segment, selector, e1, e2);
  return NEXT;
}

/** Makes the data segments null that the outer privilege may not use. */
export function dropDataSegments(cpu: Processor, cpl: number): void {
  for (const segment of [SEG.es, SEG.ds, SEG.fs, SEG.gs]) {
    if ((segment === SEG.fs || segment === SEG.gs) && (cpu.selector[segment] as number) < 4) {
      continue;
    }
    const attrib = cpu.attrib[segment] as number;
    if ((attrib & 0xc) !== 0xc && (attrib >> 5 & 3) < cpl) {
      cpu.selector[segment] = 0;
      cpu.segBase[segment * 2] = 0;
      cpu.segBase[segment * 2 + 1] = 0;
      cpu.attrib[segment] = attrib & ~0x80;
    }
  }
}
