/**
 * Events to measure the trace format with: round trips from VMRUN to #VMEXIT
 * with all 4,096 bytes of vmcb12 before and after.
 *
 * As in a recorder, the image is one page that the guest keeps writing to, so
 * an event is valid until the next one only.
 *
 * @module
 */
import type { TraceEvent } from "../engine/event.ts";
import { Random } from "../traces/generate/random.ts";

/** A valid vmcb12: the lab's base case. */
export const BASE: Readonly<Record<number, bigint>> = {
  0x008: 0x9100000000000000n,
  0x010: 0x3n,
  0x040: 0x34000n,
  0x048: 0x30000n,
  0x058: 0x1n,
  0x400: 0xffffffff0c930010n,
  0x410: 0xffffffff0a9b0008n,
  0x420: 0xffffffff0c930010n,
  0x430: 0xffffffff0c930010n,
  0x440: 0xffffffff0c930000n,
  0x450: 0xffffffff0c930000n,
  0x468: 0x4000n,
  0x470: 0x820000n,
  0x488: 0x5000n,
  0x490: 0x00000067008b0018n,
  0x498: 0x6000n,
  0x4d0: 0x1500n,
  0x548: 0x20n,
  0x550: 0x40000n,
  0x558: 0x80000031n,
  0x560: 0x400n,
  0x568: 0xffff0ff0n,
  0x570: 0x2n,
  0x578: 0x9000n,
  0x5d8: 0x7000n,
  0x5f8: 0x1234n,
  0x668: 0x0007040600070406n,
};

/** The page with the base case in it. */
export function basePage(): Uint8Array {
  const page = new Uint8Array(4096);
  const view = new DataView(page.buffer);
  for (const [offset, value] of Object.entries(BASE)) view.setBigUint64(+offset, value, true);
  return page;
}

/** The same round trip again and again: VMMCALL, and L1 puts everything back. */
export function* identical(rounds: number): Generator<TraceEvent> {
  const page = basePage();
  const view = new DataView(page.buffer);
  const vmcb12 = { bytes: page };
  const vmrun = { kind: "vmrun", vcpu: 0, rip: 0x8003n, vmcb12_gpa: 0x10000n, vmcb12 } as const;
  const exit = { kind: "exit", vcpu: 0, vmcb12_gpa: 0x10000n, vmcb12 } as const;
  for (let i = 0; i < rounds; i++) {
    view.setUint32(0x70, 0, true);
    yield vmrun;
    view.setUint32(0x70, 0x81, true);
    yield exit;
  }
}

/** Exit codes of an ordinary guest: CR write, CPUID, HLT, I/O, MSR, VMMCALL, nested page fault. */
const EXIT_CODES = [0x10, 0x72, 0x78, 0x7b, 0x7c, 0x81, 0x400];

/** Bits of RFLAGS that instructions change: CF PF AF ZF SF OF. */
const FLAGS = [0x1, 0x4, 0x10, 0x40, 0x80, 0x800];

/**
 * Round trips with nanosecond time stamps whose L2 walks: RIP within ±4 KiB, RAX within ±64 KiB,
 * RSP by up to 16 words, each flag of RFLAGS by the toss of a coin, one of seven exit codes, 16
 * bits of EXITINFO1 in one of four exits, EXITINFO2 to a page within ±256; an exit after 1 to 5 µs,
 * a VMRUN after 0.5 to 2.5 µs. L1 resumes L2 where it stopped, behind the instruction.
 */
export function* walk(rounds: number): Generator<TraceEvent> {
  const page = basePage();
  const view = new DataView(page.buffer);
  const random = new Random(12345);
  const vmcb12 = { bytes: page };
  const vmrun = {
    kind: "vmrun",
    vcpu: 0,
    time: 0,
    rip: 0x8003n,
    vmcb12_gpa: 0x10000n,
    vmcb12,
  } as const satisfies TraceEvent;
  const exit = {
    kind: "exit",
    vcpu: 0,
    time: 0,
    vmcb12_gpa: 0x10000n,
    vmcb12,
  } as const satisfies TraceEvent;
  let time = 0;
  let [rip, rax, rsp, info2] = [0x40_0000, 0x1000_0000, 0x7f_0000, 0x10_0000];
  for (let i = 0; i < rounds; i++) {
    time += 500 + random.below(2000);
    (vmrun as { time: number }).time = time;
    view.setUint32(0x578, rip + 3, true);
    yield vmrun;
    rip = rip + random.step(4096) >>> 0;
    rax = rax + random.step(65536) >>> 0;
    rsp = rsp + 8 * random.step(16) >>> 0;
    info2 = info2 + random.step(256) >>> 0;
    let flags = 2;
    const coins = random.below(64);
    for (let bit = 0; bit < 6; bit++) if (coins & 1 << bit) flags |= FLAGS[bit]!;
    view.setUint32(0x578, rip, true);
    view.setUint32(0x5f8, rax, true);
    view.setUint32(0x5d8, rsp, true);
    view.setUint32(0x570, flags, true);
    view.setUint32(0x70, EXIT_CODES[random.below(7)]!, true);
    view.setUint32(0x78, random.below(4) === 0 ? random.below(65536) : 0, true);
    view.setUint32(0x80, info2 << 12, true);
    time += 1000 + random.below(4000);
    (exit as { time: number }).time = time;
    yield exit;
  }
}
