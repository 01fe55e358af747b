/**
 * The guest's instruction at RIP, as KVM's emulator reads and decodes it.
 *
 * @module
 */
import { S, V } from "../svm/machine.ts";
import { type CodeWidth, decode, Instruction } from "../cpu/decode.ts";
import { linearToGpa } from "../paging/translate.ts";
import { walkError } from "../paging/vcpu_walk.ts";
import { FETCH } from "../paging/walk.ts";
import { CR0, CR4, RFLAGS, VECTOR } from "./constants.ts";
import { injectGp, queueException } from "./queue.ts";
import { rflags } from "./regs.ts";
import { Tool, type Vcpu } from "./vcpu.ts";

/** Bytes at RIP, and what they decode to. */
class Code {
  readonly insn = new Instruction();
  readonly bytes = new Uint8Array(15);
  /** How many of them could be read. */
  fetched = 0;
}

const CODE = new Tool(() => new Code());

/** The instruction that was decoded last. */
export function insn(v: Vcpu): Instruction {
  return CODE.of(v).insn;
}

/** Width of the code that the emulator takes the guest to run (init_emulate_ctxt). */
export function codeWidth(v: Vcpu): CodeWidth {
  if ((v.u32(V.cr0) & CR0.PE) === 0) return 16;
  if ((rflags(v) & RFLAGS.VM) !== 0) return 16;
  const attrib = v.u16(v.vmcb + S.cs_attrib);
  if ((attrib & 0x200) !== 0 && v.longMode) return 64;
  return (attrib & 0x400) !== 0 ? 32 : 16;
}

/** Whether the guest runs protected mode's code: not real mode, nor virtual 8086 mode. */
export function protectedCode(v: Vcpu): boolean {
  return (v.u32(V.cr0) & CR0.PE) !== 0 && (rflags(v) & RFLAGS.VM) === 0;
}

/** Whether it runs at CPL 3. */
export function user(v: Vcpu): boolean {
  return v.u8(v.vmcb + S.cpl) === 3;
}

/** Whether an address has its upper bits all alike. */
export function canonical(v: Vcpu, hi: number): boolean {
  const top = (hi | 0) >> ((v.u32(V.cr4) & CR4.LA57) !== 0 ? 24 : 15);
  return top === 0 || top === -1;
}

/**
 * Reads and decodes the instruction at RIP, a second page only where it is needed.
 *
 * @param quiet Whether a failure queues nothing, rather than #PF or #GP.
 * @returns Whether it could be read.
 */
export function fetch(v: Vcpu, quiet: boolean): boolean {
  const width = codeWidth(v);
  const base = width === 64 ? 0 : v.u32(v.vmcb + S.cs_base);
  let lo = base + v.u32(V.rip) >>> 0;
  let hi = width === 64 ? v.u32(V.rip + 4) : 0;
  const beyond = v.u32(V.rip + 4) !== 0 || v.u32(V.rip) > v.u32(v.vmcb + S.cs_limit);
  if (width !== 64 && beyond) {
    if (!quiet) injectGp(v);
    return false;
  }
  const code = CODE.of(v);
  const { bytes } = code;
  for (code.fetched = 0;;) {
    if (width === 64 && !canonical(v, hi)) {
      if (!quiet) injectGp(v);
      return false;
    }
    const gpa = linearToGpa(v, lo, hi, FETCH, user(v));
    if (gpa < 0) {
      const address = BigInt(lo) | BigInt(hi) << 32n;
      if (!quiet) queueException(v, VECTOR.PF, walkError(v), address);
      return false;
    }
    if (!v.memory.backed(gpa)) return false;
    const page = v.memory.page(gpa);
    const at = gpa % 4096;
    const end = Math.min(15, code.fetched + 4096 - at);
    v.recorder?.readMemory(gpa, end - code.fetched);
    for (let i = at; code.fetched < end; i++) bytes[code.fetched++] = page[i] as number;
    if (decode(bytes, code.fetched, width, code.insn) === "ok") return true;
    if (code.fetched === 15) return false;
    lo = (lo | 0xfff) + 1;
    if (lo === 0x1_0000_0000) {
      lo = 0;
      hi = width === 64 ? hi + 1 >>> 0 : 0;
    }
  }
}

/** The bytes that it was decoded from. */
export function bytesAtRip(v: Vcpu): Code {
  return CODE.of(v);
}

/** Moves RIP past it. */
export function advance(v: Vcpu): void {
  const width = codeWidth(v);
  const next = v.u64(V.rip) + BigInt(insn(v).length);
  v.set64(V.rip, width === 64 ? next : next & 0xffffffffn);
}
