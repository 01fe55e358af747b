/**
 * Model-specific registers, and the instructions that use them.
 *
 * @module
 */
import { S, VMCB01_AT } from "../svm/machine.ts";
import { EXIT_CODE, NEXT, SEG, UNMODELLED } from "./constants.ts";
import type { Processor } from "./processor.ts";

// Syscall and segment-base MSRs, which KVM lets guests access.
const MSR_PLACE: ReadonlyMap<number, number> = new Map([
  [0xc0000081, S.star],
  [0xc0000082, S.lstar],
  [0xc0000083, S.cstar],
  [0xc0000084, S.sfmask],
  [0xc0000102, S.kernel_gs_base],
  [0x174, S.sysenter_cs],
  [0x175, S.sysenter_esp],
  [0x176, S.sysenter_eip],
]);

/** RDMSR and WRMSR. */
export function msr(cpu: Processor, write: boolean): number {
  const index = cpu.gpr[2] as number;
  const mapped = index < 0x2000 || (index >= 0xc0000000 && index < 0xc0002000) ||
    (index >= 0xc0010000 && index < 0xc0012000);
  if (
    cpu.intercepted(EXIT_CODE.msr) && (!mapped || cpu.msrIntercepted(index, write))
  ) return cpu.vmexit(EXIT_CODE.msr, write ? 1 : 0);
  const gpr = cpu.gpr;
  const base = index === 0xc0000100 ? SEG.fs : index === 0xc0000101 ? SEG.gs : -1;
  const place = MSR_PLACE.get(index);
  if (base < 0 && place === undefined) {
    if (!cpu.model.unknownMsrsAreZero) return UNMODELLED;
    if (!write) gpr.fill(0, 0, 2).fill(0, 4, 6);
    return NEXT;
  }
  const { m, segBase } = cpu;
  const at = base >= 0 ? base * 2 : VMCB01_AT + (place as number) >> 2;
  if (write) {
    const lo = index === 0x174 ? (gpr[0] as number) & 0xffff : gpr[0] as number;
    const hi = index === 0x174 ? 0 : gpr[4] as number;
    if (base >= 0) {
      segBase[at] = lo;
      segBase[at + 1] = hi;
      cpu.hostSegmentsDirty = true;
    } else {
      m.setWord(at, lo);
      m.setWord(at + 1, hi);
    }
  } else {
    gpr[0] = base >= 0 ? segBase[at] as number : m.word(at);
    gpr[1] = 0;
    gpr[4] = base >= 0 ? segBase[at + 1] as number : m.word(at + 1);
    gpr[5] = 0;
  }
  return NEXT;
}

/** SWAPGS. */
export function swapGs(cpu: Processor): number {
  const at = VMCB01_AT + S.kernel_gs_base >> 2;
  for (let half = 0; half < 2; half++) {
    const value = cpu.m.word(at + half);
    cpu.m.setWord(at + half, cpu.segBase[SEG.gs * 2 + half] as number);
    cpu.segBase[SEG.gs * 2 + half] = value;
  }
  cpu.hostSegmentsDirty = true;
  return NEXT;
}
