/**
 * LAR, LSL, VERR, VERW and ARPL: what a program may ask about selectors. The answer is ZF.
 *
 * @module
 */
import { FLAG, NEXT } from "./constants.ts";
import { ud } from "./faults.ts";
import { getOperand, getRegister, setOperand, setRegister } from "./operands.ts";
import type { Processor } from "./processor.ts";
import { descriptorLimit, loadDescriptor } from "./segments.ts";

/** Types of system descriptors that LSL knows, a bit each. */
const HAVE_LIMITS = 1 << 1 | 1 << 2 | 1 << 3 | 1 << 9 | 1 << 11;
/** Those that LAR knows: call and task gates besides. */
const HAVE_RIGHTS = HAVE_LIMITS | 1 << 4 | 1 << 5 | 1 << 12;

function answer(cpu: Processor, yes: boolean): number {
  cpu.rflags = yes ? cpu.rflags | FLAG.zf : cpu.rflags & ~FLAG.zf;
  return NEXT;
}

/**
 * Reads the descriptor of the selector in `cpu.lo`.
 *
 * @returns NEXT; -1 where there is none; or the status of a failed access.
 */
function read(cpu: Processor, selector: number): number {
  return (selector & 0xfffc) === 0 ? -1 : loadDescriptor(cpu, selector);
}

function privileged(cpu: Processor, selector: number, e2: number): boolean {
  const dpl = e2 >>> 13 & 3;
  return dpl >= cpu.cpl && dpl >= (selector & 3);
}

const conforming = (e2: number) => (e2 & 0xc00) === 0xc00;

/** LAR and LSL: access rights or the limit behind a selector. */
export function loadRightsOrLimit(cpu: Processor, limit: boolean): number {
  if (!cpu.protectedMode || cpu.vm86) return ud(cpu);
  const { insn } = cpu;
  if (!getOperand(cpu, 2)) return cpu.failure;
  const selector = cpu.lo;
  const found = read(cpu, selector);
  if (found !== NEXT) return found < 0 ? answer(cpu, false) : found;
  const e1 = cpu.lo, e2 = cpu.hi;
  const known = (e2 & 0x1000) !== 0 ||
    ((limit ? HAVE_LIMITS : HAVE_RIGHTS) >>> (e2 >>> 8 & 15) & 1) !== 0;
  const open = (e2 & 0x1000) !== 0 && conforming(e2);
  if (!known || !open && !privileged(cpu, selector, e2)) return answer(cpu, false);
  setRegister(cpu, insn.reg, 1 << insn.dflag, limit ? descriptorLimit(e1, e2) : e2 & 0xf0ff00, 0);
  return answer(cpu, true);
}

/** VERR and VERW: whether a segment may be read or written. */
export function verify(cpu: Processor, write: boolean): number {
  if (!getOperand(cpu, 2)) return cpu.failure;
  const selector = cpu.lo;
  const found = read(cpu, selector);
  if (found !== NEXT) return found < 0 ? answer(cpu, false) : found;
  const e2 = cpu.hi;
  const code = (e2 & 0x800) !== 0, bit = (e2 & 0x200) !== 0;
  if ((e2 & 0x1000) === 0) return answer(cpu, false);
  const may = write ? !code && bit : !code || bit;
  const open = !write && conforming(e2);
  return answer(cpu, may && (open || privileged(cpu, selector, e2)));
}

/** ARPL: raises a selector's privilege level to that of another. */
export function adjustPrivilege(cpu: Processor): number {
  if (!cpu.protectedMode || cpu.vm86) return ud(cpu);
  if (!getOperand(cpu, 2)) return cpu.failure;
  const selector = cpu.lo;
  getRegister(cpu, cpu.insn.reg, 2);
  const wanted = cpu.lo & 3, less = (selector & 3) < wanted;
  if (!setOperand(cpu, 2, less ? selector & ~3 | wanted : selector, 0)) return cpu.failure;
  return answer(cpu, less);
}
