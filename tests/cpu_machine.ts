/**
 * A machine whose vmcb02 is ready to run 64-bit code at 0x9000 behind 2 MiB identity pages.
 *
 * @module
 */
import { C, Machine, S, V, VMCB02_AT } from "../engine/svm/machine.ts";
import { QEMU_7_2 } from "../engine/processors/mod.ts";
import { Processor, type RunOptions, type RunStatus, runVmcb } from "../engine/cpu/mod.ts";
import { DirectPaging } from "./cpu_paging.ts";

export const CODE = 0x9000;
export const ROOT = 0x40000;
export const STACK = 0x7000;
export const IDT = 0x5000;
export const GDT = 0x4000;

/** Intercepts of word 3 and 4 by exit code. */
export function intercept(m: Machine, ...codes: number[]): void {
  for (const code of codes) {
    if (code < 0x60) m.or32(VMCB02_AT + (code < 0x20 ? 0 : code < 0x40 ? 4 : 8), 1 << (code & 31));
    else m.or32(VMCB02_AT + 0xc + ((code >> 5) - 3) * 4, 1 << (code & 31));
  }
}

export function segment(
  m: Machine,
  at: number,
  selector: number,
  attrib: number,
  limit: number,
  base: number,
) {
  m.set16(at, selector);
  m.set16(at + 2, attrib);
  m.set32(at + 4, limit);
  m.set64(at + 8, BigInt(base));
}

export function machine(code: readonly number[] = []): Machine {
  const m = new Machine({ physicalBits: 40, npt: true, memory: 16 << 20, vmrunRip: 0x42c });
  const memory = m.memory;
  memory.write64(ROOT, BigInt(ROOT + 0x1000 | 7));
  memory.write64(ROOT + 0x1000, BigInt(ROOT + 0x2000 | 7));
  for (let i = 0; i < 512; i++) memory.write64(ROOT + 0x2000 + i * 8, BigInt(i * 0x200000 + 0x87));
  memory.writeBytes(CODE, Uint8Array.from(code));
  const v = VMCB02_AT;
  intercept(m, 0x78, 0x7b, 0x7c, 0x7f, 0x80, 0x81);
  m.set32(v + C.asid, 1);
  for (const at of [S.es_selector, S.ss_selector, S.ds_selector]) {
    segment(m, v + at, 0x10, 0xc93, 0xffffffff, 0);
  }
  segment(m, v + S.cs_selector, 8, 0xa9b, 0xffffffff, 0);
  segment(m, v + S.gdtr_selector, 0, 0, 0, GDT);
  segment(m, v + S.idtr_selector, 0, 0, 0, IDT);
  m.set64(v + S.efer, 0x1500n);
  m.set64(v + S.cr4, 0x20n);
  m.set64(v + S.cr3, BigInt(ROOT));
  m.set64(v + S.cr0, 0x80000031n);
  m.set64(v + S.dr7, 0x400n);
  m.set64(v + S.dr6, 0xffff0ff0n);
  m.set64(v + S.rflags, 2n);
  m.set64(v + S.rip, BigInt(CODE));
  m.set64(v + S.rsp, BigInt(STACK));
  m.set64(v + S.rax, 0x1234n);
  return m;
}

export const paging = new DirectPaging();

export function run(m: Machine, options?: RunOptions): RunStatus {
  return runVmcb(new Processor(), m, VMCB02_AT, paging, { model: QEMU_7_2, ...options });
}

/** What the exit left in vmcb02. */
export function exit(m: Machine) {
  const v = VMCB02_AT;
  return {
    code: m.u32(v + C.exit_code),
    info1: m.u64(v + C.exit_info_1),
    info2: m.u64(v + C.exit_info_2),
    event: m.u32(v + C.exit_int_info),
    rip: m.u64(v + S.rip),
  };
}

export { C, S, V, VMCB02_AT };
