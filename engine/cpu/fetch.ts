/**
 * Reads and decodes the instruction at CS:RIP of a VMCB without running it.
 *
 * @module
 */
import type { Machine } from "../svm/machine.ts";
import { SEG } from "./constants.ts";
import { decode, type DecodeOutcome, type Instruction } from "./decode.ts";
import type { Paging } from "../paging/paging.ts";
import { Processor } from "./processor.ts";
import { attach, loadState } from "./vmcb_state.ts";
import { FETCH } from "../paging/walk.ts";

const reader = new Processor();
const HIGH = 0x1_0000_0000;

/**
 * Reads up to 15 bytes of code at CS:RIP, for a hypervisor that skips or
 * emulates an instruction. The VMCB is not changed; Accessed bits of the tables
 * are set as by any fetch.
 *
 * @param m The machine.
 * @param vmcb Byte offset of the VMCB in {@linkcode Machine.bytes}.
 * @param paging The way from linear addresses to memory.
 * @param out At least 15 bytes.
 * @returns How many bytes could be read.
 * @example
 * ```ts
 * import { DirectPaging, fetchCode, Machine, S, VMCB02_AT } from "@vmtape/vmtape/engine";
 * const m = new Machine({ physicalBits: 40, npt: true, memory: 1 << 24 });
 * m.memory.write8(0x1000, 0xf4);
 * m.set64(VMCB02_AT + S.rip, 0x1000n);
 * const bytes = new Uint8Array(15);
 * if (fetchCode(m, VMCB02_AT, new DirectPaging(), bytes) !== 15 || bytes[0] !== 0xf4) throw new Error();
 * ```
 */
export function fetchCode(m: Machine, vmcb: number, paging: Paging, out: Uint8Array): number {
  attach(reader, m, vmcb, paging);
  loadState(reader);
  const wide = reader.width === 64;
  let lo = wide ? reader.ripLo : ((reader.segBase[SEG.cs * 2] as number) + reader.ripLo) % HIGH;
  let hi = wide ? reader.ripHi : 0;
  let count = 0;
  while (count < 15) {
    if (!paging.translate(m, reader, lo, hi, FETCH, reader.who, reader.walk)) break;
    const gpa = reader.walk.gpa;
    const at = gpa % 4096;
    const room = Math.min(15 - count, 4096 - at);
    out.set(m.memory.page(gpa).subarray(at, at + room), count);
    count += room;
    const next = lo + room;
    lo = next % HIGH;
    if (next >= HIGH) hi = wide ? hi + 1 >>> 0 : 0;
  }
  return count;
}

const code = new Uint8Array(15);

/**
 * Decodes the instruction at CS:RIP of a VMCB.
 *
 * @param m The machine.
 * @param vmcb Byte offset of the VMCB in {@linkcode Machine.bytes}.
 * @param paging The way from linear addresses to memory.
 * @param out Filled in place.
 * @returns `"short"` when its bytes cannot all be read.
 * @example
 * ```ts
 * import { decodeAt, DirectPaging, Instruction, Machine, S, VMCB02_AT } from "@vmtape/vmtape/engine";
 * const m = new Machine({ physicalBits: 40, npt: true, memory: 1 << 24 });
 * m.memory.write8(0x1000, 0xf4);
 * m.set64(VMCB02_AT + S.rip, 0x1000n);
 * const hlt = new Instruction();
 * if (decodeAt(m, VMCB02_AT, new DirectPaging(), hlt) !== "ok" || hlt.opcode !== 0xf4) throw new Error();
 * ```
 */
export function decodeAt(
  m: Machine,
  vmcb: number,
  paging: Paging,
  out: Instruction,
): DecodeOutcome {
  const count = fetchCode(m, vmcb, paging, code);
  return decode(code, count, reader.width, out);
}
