/**
 * Registers of the x87, which live in the vCPU area: a physical register's tag is a bit that says
 * that it holds something, so that all zero is how a reset leaves them.
 *
 * @module
 */
import { V } from "../svm/machine.ts";
import type { Extended, Rounding } from "./x87_number.ts";
import type { Processor } from "./processor.ts";

/** The control word that a reset and FNINIT leave; it is kept exclusive or this. */
const FCW_RESET = 0x37f;
/** Bits of the status word beside the top of the stack. */
const FSW_BITS = ~0x3800 & 0xffff;
/** Error summary and busy. */
const SUMMARY = 0x8080;
/** Bits of the significand, by precision control; 1 is reserved. */
const PRECISION = [24, 64, 53, 64] as const;

/** The control word. */
export function controlWord(cpu: Processor): number {
  return cpu.m.u16(V.fcw) ^ FCW_RESET;
}

/** Sets the control word. */
export function setControlWord(cpu: Processor, value: number): void {
  cpu.m.set16(V.fcw, value ^ FCW_RESET);
}

/** The status word, with the top of the stack. */
export function statusWord(cpu: Processor): number {
  return cpu.m.u16(V.fsw);
}

/** Sets the status word, and the top of the stack. */
export function setStatusWord(cpu: Processor, value: number): void {
  cpu.m.set16(V.fsw, value);
}

/** Puts condition codes into the status word. */
export function setConditions(cpu: Processor, mask: number, bits: number): void {
  setStatusWord(cpu, statusWord(cpu) & ~mask | bits);
}

function top(cpu: Processor): number {
  return statusWord(cpu) >> 11 & 7;
}

function setTop(cpu: Processor, value: number): void {
  setStatusWord(cpu, statusWord(cpu) & FSW_BITS | (value & 7) << 11);
}

function slot(cpu: Processor, index: number): number {
  return top(cpu) + index & 7;
}

/** ST(index). */
export function get(cpu: Processor, index: number): Extended {
  return physical(cpu, slot(cpu, index));
}

function physical(cpu: Processor, register: number): Extended {
  const at = V.x87_registers + 16 * register;
  const head = cpu.m.u16(at + 8);
  return { sign: head >> 15, exponent: head & 0x7fff, significand: cpu.m.u64(at) };
}

/** Sets ST(index), whose tag stays. */
export function set(cpu: Processor, index: number, x: Extended): void {
  const at = V.x87_registers + 16 * slot(cpu, index);
  cpu.m.set64(at, x.significand);
  cpu.m.set16(at + 8, x.sign << 15 | x.exponent);
}

/** Whether ST(index) holds something. */
export function isTagged(cpu: Processor, index: number): boolean {
  return (cpu.m.u8(V.ftw) >> slot(cpu, index) & 1) !== 0;
}

/** Says whether ST(index) holds something. */
export function tag(cpu: Processor, index: number, held: boolean): void {
  const bit = 1 << slot(cpu, index), tags = cpu.m.u8(V.ftw);
  cpu.m.set8(V.ftw, held ? tags | bit : tags & ~bit);
}

/** Pushes a number; a full stack is written over. */
export function push(cpu: Processor, x: Extended): void {
  setTop(cpu, top(cpu) - 1);
  set(cpu, 0, x);
  tag(cpu, 0, true);
}

/** Pops. */
export function pop(cpu: Processor): void {
  tag(cpu, 0, false);
  setTop(cpu, top(cpu) + 1);
}

/** Moves the top of the stack alone. */
export function rotate(cpu: Processor, by: number): void {
  setTop(cpu, top(cpu) + by);
  setConditions(cpu, 0x4700, 0);
}

/** FNINIT. */
export function initialize(cpu: Processor): void {
  setControlWord(cpu, FCW_RESET);
  setStatusWord(cpu, 0);
  cpu.m.set8(V.ftw, 0);
}

/** How the control word wants results rounded. */
export function rounding(cpu: Processor): Rounding {
  const control = controlWord(cpu);
  return { mode: control >> 10 & 3, precision: PRECISION[control >> 8 & 3] as number, flags: 0 };
}

/** Adds what went wrong to the status word; an exception that is not masked waits for FWAIT. */
export function merge(cpu: Processor, r: Rounding): void {
  if (r.flags === 0) return;
  const status = statusWord(cpu) | r.flags;
  const raised = (status & ~controlWord(cpu) & 0x3f) !== 0;
  setStatusWord(cpu, raised ? status | SUMMARY : status);
}

/** Whether an exception waits. */
export function waits(cpu: Processor): boolean {
  return (statusWord(cpu) & SUMMARY & 0xff) !== 0;
}

/** The tag word as the environment in memory has it: two bits a register. */
export function tagWord(cpu: Processor): number {
  let word = 0;
  for (let i = 7; i >= 0; i--) {
    const { exponent, significand } = physical(cpu, i);
    const held = (cpu.m.u8(V.ftw) >> i & 1) !== 0;
    const special = exponent === 0 || exponent === 0x7fff || significand >> 63n === 0n;
    const kind = !held ? 3 : exponent === 0 && significand === 0n ? 1 : special ? 2 : 0;
    word = word << 2 | kind;
  }
  return word;
}

/** Takes a tag word over. */
export function setTagWord(cpu: Processor, word: number): void {
  let tags = 0;
  for (let i = 0; i < 8; i++) if ((word >> 2 * i & 3) !== 3) tags |= 1 << i;
  cpu.m.set8(V.ftw, tags);
}

/** Clears the exceptions (FNCLEX). */
export function clearExceptions(cpu: Processor): void {
  setStatusWord(cpu, statusWord(cpu) & 0x7f00);
}

/** EMMS: no register holds anything, and the top is the first. */
export function emptyStack(cpu: Processor): void {
  cpu.m.set8(V.ftw, 0);
  setTop(cpu, 0);
}

/** What every MMX instruction does first: all registers hold something, and the top is the first. */
export function enterMmx(cpu: Processor): void {
  cpu.m.set8(V.ftw, 0xff);
  setTop(cpu, 0);
}

/** Where the area of FXSAVE has the registers, 16 bytes each. */
const FX_REGISTERS = 32;

/** Writes the x87's part of the area of FXSAVE. */
export function saveFxArea(cpu: Processor, lo: number, hi: number): boolean {
  const { who } = cpu;
  const head = [controlWord(cpu) | statusWord(cpu) << 16, cpu.m.u8(V.ftw)] as const;
  if (!cpu.write(lo, hi, 4, head[0], 0, who) || !cpu.write(lo + 4, hi, 2, head[1], 0, who)) {
    return false;
  }
  for (const at of [8, 16]) if (!cpu.write(lo + at, hi, 8, 0, 0, who)) return false;
  for (let i = 0; i < 8; i++) {
    const { sign, exponent, significand } = get(cpu, i);
    const at = lo + FX_REGISTERS + 16 * i;
    const low = Number(significand & 0xffffffffn), high = Number(significand >> 32n);
    if (!cpu.write(at, hi, 8, low, high, who)) return false;
    if (!cpu.write(at + 8, hi, 2, sign << 15 | exponent, 0, who)) return false;
  }
  return true;
}

/** Reads the x87's part of the area of FXSAVE. */
export function loadFxArea(cpu: Processor, lo: number, hi: number): boolean {
  const { who } = cpu;
  if (!cpu.read(lo, hi, 4, who)) return false;
  setControlWord(cpu, cpu.lo & 0xffff);
  setStatusWord(cpu, cpu.lo >>> 16);
  if (!cpu.read(lo + 4, hi, 2, who)) return false;
  cpu.m.set8(V.ftw, cpu.lo & 0xff);
  for (let i = 0; i < 8; i++) {
    const at = lo + FX_REGISTERS + 16 * i;
    if (!cpu.read(at, hi, 8, who)) return false;
    const significand = BigInt(cpu.hi) << 32n | BigInt(cpu.lo >>> 0);
    if (!cpu.read(at + 8, hi, 2, who)) return false;
    set(cpu, i, { sign: cpu.lo >> 15 & 1, exponent: cpu.lo & 0x7fff, significand });
  }
  return true;
}
