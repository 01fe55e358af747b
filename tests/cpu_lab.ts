/**
 * The recordings of the lab as runs of the processor: the state at VMRUN, and what vmcb12 showed
 * in the end.
 *
 * @module
 */
import { QEMU_7_2 } from "../engine/processors/mod.ts";
import { C, Machine, S, V, VMCB01_AT, VMCB02_AT } from "../engine/svm/machine.ts";
import { type Paging, Processor, runVmcb, walkMode } from "../engine/cpu/mod.ts";
import { DirectPaging, NestedPaging, nptMode, ShadowPaging } from "./cpu_paging.ts";

export type Words = Readonly<Record<string, string>>;
export interface Inner {
  readonly at?: string;
  readonly nested: Words;
  readonly cpu: Words;
  readonly ctl01: Words;
  readonly sav01: Words;
  readonly ctl02: Words;
  readonly sav02: Words;
}
export interface Record_ {
  readonly case: string;
  readonly spec: string;
  readonly npt: number;
  readonly pre: { readonly vmcb12: Words };
  readonly post: { readonly rc: number; readonly vmcb12?: Words };
  readonly events: readonly (Inner | { readonly at?: undefined })[];
}

const VMCB12 = 0x10000;

function tables(m: Machine, base: number): void {
  const w = m.memory;
  w.write64(base, BigInt(base + 0x1000 | 7));
  w.write64(base + 0x1000, BigInt(base + 0x2000 | 7));
  for (let i = 0; i < 512; i++) w.write64(base + 0x2000 + i * 8, BigInt(i * 0x200000 + 0x87));
}

function freshMemory(m: Machine): void {
  const w = m.memory;
  for (const base of [0x1000, 0x40000, 0x60000]) tables(m, base);
  for (let p = 0; p < 4; p++) {
    const directory = 0x51000 + p * 0x1000;
    w.write64(0x50000 + p * 8, BigInt(directory | 1));
    for (let i = 0; i < 512; i++) {
      w.write64(directory + i * 8, BigInt(p * 0x40000000 + i * 0x200000 + 0x83));
    }
  }
  w.writeBytes(0x8000, Uint8Array.of(0x0f, 0x01, 0xd8, 0xe6, 0x80, 0xeb, 0xf9));
  w.writeBytes(0x9000, Uint8Array.of(0x0f, 0x01, 0xd9, 0xf4, 0xeb, 0xfc));
}

function image(m: Machine, at: number, words: Words): void {
  for (const [offset, value] of Object.entries(words)) {
    m.set64(at + parseInt(offset, 16), BigInt("0x" + value));
  }
}

function guestWrites(m: Machine, spec: string): void {
  for (const token of spec.split(" ")) {
    const match = /^m\.([0-9a-f]+)(?:\.(\d+))?=([0-9a-f]+)$/.exec(token);
    if (!match) continue;
    const size = Number(match[2] ?? 8);
    let value = BigInt("0x" + match[3]);
    for (let i = 0; i < size; i++, value >>= 8n) {
      m.memory.write8(parseInt(match[1] as string, 16) + i, Number(value & 0xffn));
    }
  }
}

/** The machine as the kernel had it when VMRUN's emulation was done. */
export function machineAt(record: Record_, inner: Inner): { m: Machine; paging: Paging } {
  const m = new Machine({ physicalBits: 40, npt: record.npt === 1, memory: 16 << 20 });
  freshMemory(m);
  for (const [offset, value] of Object.entries(record.pre.vmcb12)) {
    m.memory.write64(VMCB12 + parseInt(offset, 16), BigInt("0x" + value));
  }
  guestWrites(m, record.spec);
  image(m, VMCB01_AT, inner.ctl01);
  image(m, VMCB01_AT + 0x400, inner.sav01);
  image(m, VMCB02_AT, inner.ctl02);
  image(m, VMCB02_AT + 0x400, inner.sav02);
  m.set32(VMCB02_AT + C.asid, 1);
  const number = (name: string) => Number(BigInt("0x" + inner.cpu[name]));
  // The kernel fills these in just before it enters.
  m.set64(VMCB02_AT + S.rax, BigInt("0x" + inner.cpu.rax));
  m.set64(VMCB02_AT + S.rsp, BigInt("0x" + inner.cpu.rsp));
  m.set64(VMCB02_AT + S.rip, BigInt("0x" + inner.cpu.rip));
  m.set64(V.rax, BigInt("0x" + inner.cpu.rax));
  const nested = (m.memory.read(VMCB12 + 0x90, 4) & 1) !== 0;
  const root = number("cr3");
  let paging: Paging = new DirectPaging();
  if (record.npt === 0) {
    const mode = walkMode(number("cr0"), number("cr4"), number("efer"));
    paging = new ShadowPaging({ ...mode, root });
  } else {
    if (nested) {
      const efer = m.u32(VMCB01_AT + S.efer);
      const ncr3 = Number(m.memory.read64(VMCB12 + 0xb0));
      paging = new NestedPaging(nptMode(m.u32(VMCB01_AT + S.cr4), efer, ncr3));
    }
    m.set64(VMCB02_AT + S.cr3, BigInt(root));
  }
  return { m, paging };
}

function wanted(m: Machine, code: number): boolean {
  const word = code < 0x20 ? 0 : code < 0x40 ? 4 : code < 0x60 ? 8 : 0xc + ((code >> 5) - 3) * 4;
  return (m.memory.read(VMCB12 + word, 4) >>> (code & 31) & 1) !== 0;
}

/** Why a record says nothing about the processor, or how its exit compares. */
export function replay(record: Record_, inner: Inner): string {
  const { m, paging } = machineAt(record, inner);
  const v = VMCB02_AT;
  for (let i = 0; i < 4; i++) {
    const status = runVmcb(new Processor(), m, v, paging, {
      model: QEMU_7_2,
      msrIntercepted: (index, write) =>
        (m.memory.read8(0x30000 + (index >> 2)) >> (index & 3) * 2 + (write ? 1 : 0) & 1) !== 0,
    });
    if (status !== "exit") return status;
    const code = m.u32(v + C.exit_code);
    const io = code === 0x7b;
    if (code === 0xffffffff) return compare(record, m);
    if (code === 0x400) return wantsNpf(m) ? compare(record, m) : "skip: NPF of L0";
    if (io) {
      const port = m.u32(v + C.exit_info_1) >>> 16;
      const bit = m.memory.read8(0x34000 + (port >> 3)) >> (port & 7) & 1;
      return wanted(m, code) && bit === 1
        ? compare(record, m)
        : "skip: L0's exit " + code.toString(16);
    }
    if (code === 0x7c || wanted(m, code)) return compare(record, m);
    if (code < 0x40 || code > 0x5f) return "skip: L0's exit " + code.toString(16);
    const vector = code - 0x40;
    let event = 0x80000300 | vector;
    if (vector === 14 || vector === 13) event |= 0x800;
    m.set32(v + C.event_inj, event);
    m.set32(v + C.event_inj_err, m.u32(v + C.exit_info_1));
    if (vector === 14) m.copy64(v + S.cr2, v + C.exit_info_2);
    m.or32(v + S.rflags, 0x10000);
  }
  return "skip: too many exits of L0";
}

const wantsNpf = (m: Machine) => (m.memory.read(VMCB12 + 0x90, 4) & 1) !== 0;

const SHOWN = ["070", "078", "080", "088", "578", "5d8", "570", "4c8", "640", "558"] as const;

function compare(record: Record_, m: Machine): string {
  const words = record.post.vmcb12 ?? {};
  const off: string[] = [];
  for (const offset of SHOWN) {
    let ours = m.u64(VMCB02_AT + parseInt(offset, 16));
    let theirs = BigInt("0x" + (words[offset] ?? "0"));
    if (offset === "088") {
      ours = passedOn(ours);
      theirs = passedOn(theirs);
    }
    if (offset === "558") {
      // KVM keeps CR0.CD and NW from the processor.
      ours &= ~0x60000000n;
      theirs &= ~0x60000000n;
    }
    if (offset === "080" && m.u32(VMCB02_AT + C.exit_code) === 0x400) continue;
    if (offset === "558" && record.npt === 0) continue;
    if (ours !== theirs) {
      off.push(`${offset}: ${ours.toString(16)} instead of ${theirs.toString(16)}`);
    }
  }
  return off.length === 0 ? "same" : "DIFFERS " + off.join(", ");
}

// What KVM can pass on of an event: exceptions with their error codes, NMIs without a vector, interrupts.
function passedOn(info: bigint): bigint {
  const type = info >> 8n & 7n;
  if ((info & 0x80000000n) === 0n || type === 1n || type > 4n) return 0n;
  if (type === 2n) return 0x80000200n;
  if (type !== 3n || (info & 0x800n) === 0n) return info & 0x800007ffn;
  return info;
}
