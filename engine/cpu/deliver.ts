/**
 * Delivery of interrupts and exceptions through the IDT: 64-bit, protected and
 * real mode (QEMU's seg_helper.c).
 *
 * @module
 */
import { ALL_REGISTERS } from "./carried.ts";
import { EVENT_INJ } from "../svm/control_bits.ts";
import { loadDescriptor, loadSegment } from "./segments.ts";
import { ATTR, FLAG, NEXT, SEG, UNMODELLED, VECTOR } from "./constants.ts";
import type { Processor } from "./processor.ts";

const HIGH = 0x1_0000_0000;
const EVENT_VALID = EVENT_INJ.V;
const EVENT_ERROR = EVENT_INJ.EV;

function hasErrorCode(vector: number): boolean {
  return vector === 8 || (vector >= 10 && vector <= 14) || vector === 17;
}

/**
 * Delivers an event. While it is under way EVENTINJ holds it, so that a
 * #VMEXIT in the middle reports it in EXITINTINFO.
 *
 * @param isInt A software interrupt, whose return address is the next instruction.
 * @param hardware An external or virtual interrupt.
 * @returns A status: NEXT when delivered.
 */
export function deliver(
  cpu: Processor,
  vector: number,
  isInt: boolean,
  error: number,
  hardware: boolean,
): number {
  cpu.uses(ALL_REGISTERS);
  noteEvent(cpu, vector, isInt, error, hardware);
  cpu.external = hardware && !cpu.model.noExternalBit ? 1 : 0;
  const status = !cpu.protectedMode
    ? deliverReal(cpu, vector, isInt)
    : cpu.longMode
    ? deliver64(cpu, vector, isInt, error, hardware)
    : deliverProtected(cpu, vector, isInt, error, hardware);
  cpu.external = 0;
  if (status === NEXT) cpu.setEvent(cpu.eventInjected() & ~EVENT_VALID);
  return status;
}

/** Whether an exception pushes an error code. */
function pushesError(cpu: Processor, vector: number): boolean {
  return cpu.injected && !cpu.model.errorCodeByVector
    ? (cpu.eventInjected() & EVENT_ERROR) !== 0
    : hasErrorCode(vector);
}

/** Whether a gate's DPL has to allow the event: those that a program can raise as it likes. */
function checksDpl(cpu: Processor, vector: number, isInt: boolean): boolean {
  return cpu.checksDpl || isInt && !(cpu.isException && vector === VECTOR.db);
}

function noteEvent(
  cpu: Processor,
  vector: number,
  isInt: boolean,
  error: number,
  hardware: boolean,
): void {
  if (cpu.eventInjected() >= EVENT_VALID) return;
  let type = isInt && !cpu.isException ? 4 : 3;
  if (hardware && !cpu.model.virqReportedAsException) type = 0;
  let event = vector | type << 8 | EVENT_VALID;
  if (type !== 0 && cpu.protectedMode && pushesError(cpu, vector)) {
    event |= 0x800;
    cpu.setEvent(error, 1);
  }
  cpu.setEvent(event);
}

// Pushes through the processor's own privilege.
function push(
  cpu: Processor,
  lo: number,
  hi: number,
  size: number,
  vLo: number,
  vHi: number,
): boolean {
  return cpu.writeSystem(lo, hi, size, vLo, vHi);
}

function deliver64(
  cpu: Processor,
  vector: number,
  isInt: boolean,
  error: number,
  hardware: boolean,
): number {
  const gate = vector * 16;
  const bad = (cpu.model.gateErrorInBytes ? gate : vector * 8) + 2;
  if (gate + 15 > (cpu.limit[SEG.idtr] as number)) return cpu.raise(VECTOR.gp, bad);
  const at = (cpu.segBase[SEG.idtr * 2] as number) + gate;
  const baseHi = cpu.segBase[SEG.idtr * 2 + 1] as number;
  if (!readAt(cpu, at, baseHi, 4)) return cpu.failure;
  const e1 = cpu.lo;
  if (!readAt(cpu, at + 4, baseHi, 4)) return cpu.failure;
  const e2 = cpu.lo;
  if (!readAt(cpu, at + 8, baseHi, 4)) return cpu.failure;
  const e3 = cpu.lo;
  const type = e2 >>> 8 & 31;
  if (type !== 14 && type !== 15) return cpu.raise(VECTOR.gp, bad);
  const cpl = cpu.cpl;
  if (checksDpl(cpu, vector, isInt) && (e2 >>> 13 & 3) < cpl) return cpu.raise(VECTOR.gp, bad);
  if ((e2 & 0x8000) === 0) return cpu.raise(VECTOR.np, bad);
  const selector = e1 >>> 16;
  const ist = e2 & 7;
  if ((selector & 0xfffc) === 0) return cpu.raise(VECTOR.gp);
  const loaded = loadDescriptor(cpu, selector);
  if (loaded < 0) return cpu.raise(VECTOR.gp, selector & 0xfffc);
  if (loaded !== NEXT) return loaded;
  const c1 = cpu.lo;
  const c2 = cpu.hi;
  let dpl = c2 >>> 13 & 3;
  if ((c2 & 0x1800) !== 0x1800 || dpl > cpl) return cpu.raise(VECTOR.gp, selector & 0xfffc);
  if ((c2 & 0x8000) === 0) return cpu.raise(VECTOR.np, selector & 0xfffc);
  if ((c2 & 0x600000) !== 0x200000) return cpu.raise(VECTOR.gp, selector & 0xfffc);
  if ((c2 & 0x400) !== 0) dpl = cpl;
  const newStack = dpl < cpl || ist !== 0;
  let sp = cpu.gpr[8] as number;
  let spHi = cpu.gpr[9] as number;
  if (newStack) {
    const index = 8 * (ist !== 0 ? ist + 3 : dpl) + 4;
    if (((cpu.attrib[SEG.tr] as number) & ATTR.p) === 0) return UNMODELLED;
    if (index + 7 > (cpu.limit[SEG.tr] as number)) {
      return cpu.raise(VECTOR.ts, (cpu.selector[SEG.tr] as number) & 0xfffc);
    }
    if (
      !readAt(
        cpu,
        (cpu.segBase[SEG.tr * 2] as number) + index,
        cpu.segBase[SEG.tr * 2 + 1] as number,
        8,
      )
    ) return cpu.failure;
    sp = cpu.lo;
    spHi = cpu.hi;
    const top = spHi >> 15;
    if (top !== 0 && top !== -1) return cpu.raise(VECTOR.ss);
  } else if (cpu.vm86) return cpu.raise(VECTOR.gp, selector & 0xfffc);
  sp = (sp & ~15) >>> 0;
  const rspLo = cpu.gpr[8] as number;
  const rspHi = cpu.gpr[9] as number;
  const next = (size: number) => {
    if (sp < size) spHi = spHi - 1 >>> 0;
    sp = (sp - size) >>> 0;
  };
  next(8);
  if (!push(cpu, sp, spHi, 8, cpu.selector[SEG.ss] as number, 0)) return cpu.failure;
  next(8);
  if (!push(cpu, sp, spHi, 8, rspLo, rspHi)) return cpu.failure;
  next(8);
  if (!push(cpu, sp, spHi, 8, cpu.rflags >>> 0, 0)) return cpu.failure;
  next(8);
  if (!push(cpu, sp, spHi, 8, cpu.selector[SEG.cs] as number, 0)) return cpu.failure;
  next(8);
  if (!push(cpu, sp, spHi, 8, isInt ? cpu.nextLo : cpu.ripLo, isInt ? cpu.nextHi : cpu.ripHi)) {
    return cpu.failure;
  }
  if (!isInt && !hardware && pushesError(cpu, vector)) {
    next(8);
    if (!push(cpu, sp, spHi, 8, error, error >> 31 >>> 0)) return cpu.failure;
  }
  if ((type & 1) === 0) cpu.rflags &= ~FLAG.if;
  cpu.rflags &= ~(FLAG.tf | FLAG.vm | FLAG.rf | FLAG.nt);
  if (newStack) {
    cpu.selector[SEG.ss] = dpl;
    cpu.segBase[SEG.ss * 2] = 0;
    cpu.segBase[SEG.ss * 2 + 1] = 0;
    cpu.limit[SEG.ss] = 0;
    cpu.attrib[SEG.ss] = dpl << 5;
    cpu.cpl = dpl;
  }
  cpu.gpr[8] = sp;
  cpu.gpr[9] = spHi;
  loadSegment(cpu, SEG.cs, selector & ~3 | dpl, c1, c2);
  cpu.ripLo = (e2 & 0xffff0000 | e1 & 0xffff) >>> 0;
  cpu.ripHi = e3;
  return NEXT;
}

function readAt(cpu: Processor, lo: number, hi: number, size: number): boolean {
  if (lo >= HIGH) {
    lo -= HIGH;
    hi = hi + 1 >>> 0;
  }
  return cpu.readSystem(lo, hi, size);
}

function stackMask(attrib: number): number {
  return (attrib & ATTR.l) !== 0 ? 0 : (attrib & ATTR.db) !== 0 ? 0xffffffff : 0xffff;
}

function deliverProtected(
  cpu: Processor,
  vector: number,
  isInt: boolean,
  error: number,
  hardware: boolean,
): number {
  const gate = vector * 8;
  if (gate + 7 > (cpu.limit[SEG.idtr] as number)) return cpu.raise(VECTOR.gp, gate + 2);
  const at = (cpu.segBase[SEG.idtr * 2] as number) + gate;
  if (!readAt(cpu, at, 0, 4)) return cpu.failure;
  let e1 = cpu.lo;
  if (!readAt(cpu, at + 4, 0, 4)) return cpu.failure;
  let e2 = cpu.lo;
  const type = e2 >>> 8 & 31;
  if (type !== 5 && type !== 6 && type !== 7 && type !== 14 && type !== 15) {
    return cpu.raise(VECTOR.gp, gate + 2);
  }
  const cpl = cpu.cpl;
  if (checksDpl(cpu, vector, isInt) && (e2 >>> 13 & 3) < cpl) return cpu.raise(VECTOR.gp, gate + 2);
  if ((e2 & 0x8000) === 0) return cpu.raise(VECTOR.np, gate + 2);
  // Task gates switch tasks.
  if (type === 5) return UNMODELLED;
  const selector = e1 >>> 16;
  const offset = (e2 & 0xffff0000 | e1 & 0xffff) >>> 0;
  if ((selector & 0xfffc) === 0) return cpu.raise(VECTOR.gp);
  const code = loadDescriptor(cpu, selector);
  if (code < 0) return cpu.raise(VECTOR.gp, selector & 0xfffc);
  if (code !== NEXT) return code;
  e1 = cpu.lo;
  e2 = cpu.hi;
  let dpl = e2 >>> 13 & 3;
  if ((e2 & 0x1800) !== 0x1800 || dpl > cpl) return cpu.raise(VECTOR.gp, selector & 0xfffc);
  if ((e2 & 0x8000) === 0) return cpu.raise(VECTOR.np, selector & 0xfffc);
  if ((e2 & 0x400) !== 0) dpl = cpl;
  const wide = type >> 3;
  const vm86 = cpu.vm86;
  const newStack = dpl < cpl;
  let ss = 0;
  let ss1 = 0;
  let ss2 = 0;
  let sp: number;
  let mask: number;
  let ssBase: number;
  if (newStack) {
    const tr = cpu.attrib[SEG.tr] as number;
    if ((tr & ATTR.p) === 0 || (tr & 7) !== 1) return UNMODELLED;
    const shift = tr >> 3 & 1;
    const index = (dpl * 4 + 2) << shift;
    if (index + (4 << shift) - 1 > (cpu.limit[SEG.tr] as number)) {
      return cpu.raise(VECTOR.ts, (cpu.selector[SEG.tr] as number) & 0xfffc);
    }
    const tss = (cpu.segBase[SEG.tr * 2] as number) + index;
    if (!readAt(cpu, tss, 0, 2 << shift)) return cpu.failure;
    sp = cpu.lo;
    if (!readAt(cpu, tss + (2 << shift), 0, 2)) return cpu.failure;
    ss = cpu.lo;
    if ((ss & 0xfffc) === 0 || (ss & 3) !== dpl) return cpu.raise(VECTOR.ts, ss & 0xfffc);
    const stack = loadDescriptor(cpu, ss);
    if (stack < 0) return cpu.raise(VECTOR.ts, ss & 0xfffc);
    if (stack !== NEXT) return stack;
    ss1 = cpu.lo;
    ss2 = cpu.hi;
    if ((ss2 >>> 13 & 3) !== dpl || (ss2 & 0x1a00) !== 0x1200 || (ss2 & 0x8000) === 0) {
      return cpu.raise(VECTOR.ts, ss & 0xfffc);
    }
    mask = (ss2 & 0x200000) !== 0 ? 0 : (ss2 & 0x400000) !== 0 ? 0xffffffff : 0xffff;
    ssBase = (ss1 >>> 16 | (ss2 & 0xff) << 16 | ss2 & 0xff000000) >>> 0;
  } else {
    if (vm86) return cpu.raise(VECTOR.gp, selector & 0xfffc);
    mask = stackMask(cpu.attrib[SEG.ss] as number);
    ssBase = cpu.segBase[SEG.ss * 2] as number;
    sp = cpu.gpr[8] as number;
  }
  const size = wide === 1 ? 4 : 2;
  const values: number[] = [];
  if (newStack) {
    if (vm86) {
      for (const s of [SEG.gs, SEG.fs, SEG.ds, SEG.es]) values.push(cpu.selector[s] as number);
    }
    values.push(cpu.selector[SEG.ss] as number, cpu.gpr[8] as number);
  }
  values.push(
    cpu.rflags >>> 0,
    cpu.selector[SEG.cs] as number,
    isInt ? cpu.nextLo : cpu.ripLo,
  );
  if (!isInt && !hardware && pushesError(cpu, vector)) values.push(error);
  for (const value of values) {
    sp = (sp - size) >>> 0;
    if (!push(cpu, (ssBase + ((sp & mask) >>> 0)) % HIGH, 0, size, value, 0)) return cpu.failure;
  }
  if ((type & 1) === 0) cpu.rflags &= ~FLAG.if;
  cpu.rflags &= ~(FLAG.tf | FLAG.vm | FLAG.rf | FLAG.nt);
  if (newStack) {
    if (vm86) {
      for (const s of [SEG.es, SEG.ds, SEG.fs, SEG.gs]) loadSegment(cpu, s, 0, 0, 0, 0);
    }
    loadSegment(cpu, SEG.ss, ss & ~3 | dpl, ss1, ss2);
  }
  setStackPointer(cpu, sp, mask);
  loadSegment(cpu, SEG.cs, selector & ~3 | dpl, e1, e2);
  cpu.ripLo = offset;
  cpu.ripHi = 0;
  return NEXT;
}

function setStackPointer(cpu: Processor, sp: number, mask: number): void {
  if (mask === 0xffff) cpu.gpr[8] = (cpu.gpr[8] as number) & 0xffff0000 | sp & 0xffff;
  else {
    cpu.gpr[8] = sp;
    cpu.gpr[9] = 0;
  }
}

function deliverReal(cpu: Processor, vector: number, isInt: boolean): number {
  if (vector * 4 + 3 > (cpu.limit[SEG.idtr] as number)) return cpu.raise(VECTOR.gp, vector * 8 + 2);
  const at = (cpu.segBase[SEG.idtr * 2] as number) + vector * 4;
  const hi = cpu.segBase[SEG.idtr * 2 + 1] as number;
  if (!readAt(cpu, at, hi, 2)) return cpu.failure;
  const offset = cpu.lo;
  if (!readAt(cpu, at + 2, hi, 2)) return cpu.failure;
  const selector = cpu.lo;
  let sp = cpu.gpr[8] as number;
  const base = cpu.segBase[SEG.ss * 2] as number;
  const rip = isInt ? cpu.nextLo : cpu.ripLo;
  for (const value of [cpu.rflags, cpu.selector[SEG.cs] as number, rip]) {
    sp = sp - 2 & 0xffff;
    if (!push(cpu, (base + sp) % HIGH, 0, 2, value & 0xffff, 0)) return cpu.failure;
  }
  cpu.gpr[8] = (cpu.gpr[8] as number) & 0xffff0000 | sp;
  cpu.ripLo = offset;
  cpu.ripHi = 0;
  cpu.selector[SEG.cs] = selector;
  cpu.segBase[SEG.cs * 2] = selector << 4;
  cpu.segBase[SEG.cs * 2 + 1] = 0;
  cpu.rflags &= ~(FLAG.if | FLAG.tf | FLAG.ac | FLAG.rf);
  return NEXT;
}
