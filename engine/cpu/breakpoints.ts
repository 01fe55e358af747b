/**
 * Hardware breakpoints, on execution and on data. Only MOV to DR7 sets them up: what VMRUN loads
 * into DR7 an emulator watches for as little as a guest can see that it does. I/O breakpoints are
 * not modelled.
 *
 * @module
 */
import { V } from "../svm/machine.ts";
import { FLAG, VECTOR } from "./constants.ts";
import type { Processor } from "./processor.ts";

/** What a breakpoint is for (DR7.RWn). */
const EXECUTION = 0, DATA_WRITE = 1, DATA = 3;
/** Bytes of a breakpoint, by DR7.LENn. */
const LENGTHS = [1, 2, 8, 4] as const;

const HIGH = 0x1_0000_0000;

function kind(dr7: number, n: number): number {
  return dr7 >>> 16 + 4 * n & 3;
}

function address(cpu: Processor, n: number): number {
  const at = (V.dr0 >> 2) + 2 * n;
  return cpu.m.word(at + 1) * HIGH + cpu.m.word(at);
}

/** DR7 was written: watches for what is enabled there from now on. */
export function arm(cpu: Processor): void {
  let armed = 0;
  for (let n = 0; n < 4; n++) if ((cpu.dr7 >>> 2 * n & 3) !== 0) armed |= 1 << n;
  cpu.armed = armed;
  cpu.m.set8(V.breakpoints_armed, armed);
}

/** Notes what an access of the program's touches: {@linkcode raiseDebug} comes after the instruction. */
export function watch(cpu: Processor, lo: number, hi: number, size: number, write: boolean): void {
  const from = hi * HIGH + lo;
  for (let n = 0; n < 4; n++) {
    if ((cpu.armed >> n & 1) === 0) continue;
    const what = kind(cpu.dr7, n);
    if (what !== DATA && !(what === DATA_WRITE && write)) continue;
    const at = address(cpu, n);
    if (from < at + (LENGTHS[cpu.dr7 >>> 18 + 4 * n & 3] as number) && at < from + size) {
      cpu.hits |= 1 << n;
    }
  }
}

/** DR6 with the breakpoints that match: those on RIP, and those on data that were touched. */
function matches(cpu: Processor, hits: number): number {
  for (let n = 0; n < 4; n++) {
    const here = kind(cpu.dr7, n) === EXECUTION &&
      address(cpu, n) === cpu.ripHi * HIGH + cpu.ripLo;
    if (here) hits |= 1 << n;
  }
  return (cpu.dr6 & ~15 | hits) >>> 0;
}

/** Whether an instruction's address has a breakpoint; RFLAGS.RF passes it. */
export function stops(cpu: Processor): boolean {
  if ((cpu.rflags & FLAG.rf) !== 0) return false;
  const rip = cpu.ripHi * HIGH + cpu.ripLo;
  for (let n = 0; n < 4; n++) {
    if ((cpu.armed >> n & 1) === 0 || kind(cpu.dr7, n) !== EXECUTION) continue;
    if (address(cpu, n) === rip) return true;
  }
  return false;
}

/** #DB with what matches in DR6, and `bits` besides. */
export function raiseDebug(cpu: Processor, bits = 0): number {
  cpu.dr6 = (matches(cpu, cpu.hits) | bits) >>> 0;
  cpu.hits = 0;
  return cpu.raise(VECTOR.db);
}
