import { assertEquals } from "@std/assert";
import { AMD } from "../engine/processors/mod.ts";
import {
  C,
  CODE,
  exit,
  GDT,
  IDT,
  intercept,
  machine,
  run,
  S,
  segment,
  STACK,
  VMCB02_AT,
} from "./cpu_machine.ts";
import { type Machine, VMCB01_AT } from "../engine/svm/machine.ts";

const v = VMCB02_AT;
const HANDLER = 0xa000;

/** An IDT whose gates all lead to a HLT at 0xa000, and a GDT with the code segment 8. */
function withIdt(code: number[]): Machine {
  const m = machine(code);
  m.memory.write64(GDT + 8, 0x00af9b000000ffffn);
  m.memory.write64(GDT + 16, 0x00cf93000000ffffn);
  segment(m, v + S.gdtr_selector, 0, 0, 0x17, GDT);
  segment(m, v + S.idtr_selector, 0, 0, 0xfff, IDT);
  for (let vector = 0; vector < 256; vector++) {
    m.memory.write64(IDT + vector * 16, BigInt(HANDLER) | 0x8n << 16n | 0x8e00n << 32n);
  }
  m.memory.write8(HANDLER, 0xf4);
  return m;
}

const inject = (m: Machine, event: number, error = 0) => {
  m.set32(v + C.event_inj, event);
  m.set32(v + C.event_inj_err, error);
};

const frame = (m: Machine) => {
  const sp = Number(m.u64(v + S.rsp));
  return Array.from({ length: 3 }, (_, i) => Number(m.memory.read64(sp + i * 8)));
};

Deno.test("cpu event: an interrupt is delivered and clears IF", () => {
  const m = withIdt([0xf4]);
  m.set64(v + S.rflags, 0x202n);
  inject(m, 0x80000020);
  assertEquals(run(m), "exit");
  assertEquals([exit(m).code, exit(m).rip], [0x78, BigInt(HANDLER)]);
  assertEquals(frame(m), [CODE, 8, 0x202]);
  assertEquals(m.u64(v + S.rflags), 2n);
  assertEquals(exit(m).event, 0x20);
});

Deno.test("cpu event: the manual's processor leaves no event after delivery", () => {
  const m = withIdt([0xf4]);
  inject(m, 0x80000020);
  run(m, { model: AMD });
  assertEquals(exit(m).event, 0);
});

/** L2 at CPL 3, with a stack for CPL 0, and an event injected whose gate is CPL 0's. */
function atCpl3(event: number): Machine {
  const m = withIdt([0xf4]);
  m.set8(v + S.cpl, 3);
  segment(m, v + S.ss_selector, 0x13, 0xcf3, 0xffffffff, 0);
  segment(m, v + S.cs_selector, 0xb, 0xafb, 0xffffffff, 0);
  segment(m, VMCB01_AT + S.tr_selector, 0x18, 0x8b, 0x67, 0x6000);
  m.memory.write64(0x6004, BigInt(STACK));
  intercept(m, 0x4d);
  inject(m, event);
  return m;
}

Deno.test("cpu event: an injected #BP needs the gate's DPL as INT3 does, a #DB does not", () => {
  for (
    const [event, manual] of [[0x80000303, 0x4d], [0x80000304, 0x4d], [0x80000301, 0x78]] as const
  ) {
    const qemu = atCpl3(event), amd = atCpl3(event);
    // #OF is none of 64-bit mode: 32-bit code in long mode.
    for (const m of [qemu, amd]) if (event === 0x80000304) m.set16(v + S.cs_attrib + 0, 0xcfb);
    run(qemu);
    run(amd, { model: AMD });
    assertEquals([exit(qemu).code, exit(amd).code], [0x78, manual], event.toString(16));
    if (manual === 0x4d) assertEquals(exit(amd).info1, BigInt((event & 0xff) * 8 + 2));
  }
});

Deno.test("cpu event: what is no exception of the mode cannot be injected on the manual's processor", () => {
  for (const vector of [2, 4, 5, 9, 15, 20, 21, 31]) {
    const m = withIdt([0xf4]);
    inject(m, 0x80000300 | vector);
    run(m, { model: AMD });
    assertEquals(exit(m).code, 0xffffffff, String(vector));
    assertEquals(m.u32(v + C.exit_code_hi), 0xffffffff);
  }
});

Deno.test("cpu event: an exception pushes its error code", () => {
  const m = withIdt([0xf4]);
  inject(m, 0x80000b0d, 0x1234);
  run(m);
  assertEquals(frame(m), [0x1234, CODE, 8]);
  assertEquals(m.u64(v + S.rsp), BigInt(STACK - 48));
});

Deno.test("cpu event: a software interrupt returns to RIP as it is", () => {
  const m = withIdt([0xf4]);
  inject(m, 0x80000480);
  run(m);
  assertEquals(frame(m)[0], CODE);
});

Deno.test("cpu event: a delivery that cannot be finished is a shutdown with the event", () => {
  const m = machine([0xf4]);
  inject(m, 0x80000b0e, 4);
  run(m);
  assertEquals([exit(m).code, exit(m).event], [0x7f, 0x80000b0e]);
  assertEquals(m.u32(v + C.exit_int_info_err), 4);
});

Deno.test("cpu event: an intercepted fault during delivery reports the event", () => {
  const m = machine([0xf4]);
  intercept(m, 0x4d);
  inject(m, 0x80000020);
  run(m);
  assertEquals([exit(m).code, exit(m).info1, exit(m).event], [0x4d, 0x202n, 0x80000020]);
});

for (const event of [0x80000302, 0x8000031f, 0x80000100, 0x80000500, 0x80000700]) {
  Deno.test(`cpu event: ${event.toString(16)} is refused and leaks the host's RIP`, () => {
    const m = machine([0xf4]);
    inject(m, event);
    run(m);
    assertEquals([exit(m).code, m.u32(v + C.exit_code_hi), exit(m).rip], [0xffffffff, 0, 0x942cn]);
  });
}

Deno.test("cpu event: a virtual interrupt waits for IF and the end of its shadow", () => {
  const m = withIdt([0xfb, 0x90, 0x90, 0x90]);
  m.set32(v + C.int_ctl, 0x1000100);
  m.set32(v + C.int_vector, 0x21);
  run(m);
  assertEquals(exit(m).rip, BigInt(HANDLER));
  assertEquals(frame(m)[0], CODE + 2);
  assertEquals(m.u32(v + C.int_ctl), 0x1000000);
});

Deno.test("cpu event: its intercept comes before the first instruction", () => {
  const m = withIdt([0xf4]);
  m.set64(v + S.rflags, 0x202n);
  m.set32(v + C.int_ctl, 0x1000100);
  intercept(m, 0x64);
  run(m);
  assertEquals([exit(m).code, exit(m).rip], [0x64, BigInt(CODE)]);
});

Deno.test("cpu event: virtual GIF blocks it", () => {
  const m = withIdt([0xf4]);
  m.set64(v + S.rflags, 0x202n);
  m.set32(v + C.int_ctl, 0x3000100);
  intercept(m, 0x64);
  run(m);
  assertEquals(exit(m).code, 0x78);
});

Deno.test("cpu event: a shadow is reported in int_state", () => {
  const m = machine([0xfb, 0xf4]);
  run(m);
  assertEquals(m.u32(v + C.int_state), 1);
});

Deno.test("cpu event: TF traps after one instruction", () => {
  const m = machine([0x90, 0x90]);
  m.set64(v + S.rflags, 0x102n);
  intercept(m, 0x41);
  run(m);
  assertEquals([exit(m).code, exit(m).rip, m.u32(v + S.dr6)], [0x41, BigInt(CODE + 1), 0xffff4ff0]);
});

Deno.test("cpu event: #UD, #GP, #DF, shutdown without an IDT", () => {
  const m = machine([0x0f, 0x0b]);
  run(m);
  assertEquals([exit(m).code, exit(m).event], [0x7f, 0x80000306]);
});

Deno.test("cpu event: a page fault's address is EXITINFO2 when intercepted, CR2 when not", () => {
  for (const intercepted of [true, false]) {
    // mov eax, [0xfffffffffffffff0]: nothing maps it
    const m = machine([0x8b, 0x04, 0x25, 0xf0, 0xff, 0xff, 0xff]);
    if (intercepted) intercept(m, 0x4e);
    run(m);
    const address = 0xfffffffffffffff0n;
    assertEquals(exit(m).code, intercepted ? 0x4e : 0x7f);
    assertEquals(exit(m).info2, intercepted ? address : 0n);
    assertEquals(m.u64(v + S.cr2), intercepted ? 0n : address);
  }
});

Deno.test("cpu event: a table outside memory is a nested page fault", () => {
  const m = machine([0xf4]);
  m.set64(v + S.cr3, 0x8000000n);
  run(m);
  assertEquals([exit(m).code, exit(m).info1, exit(m).info2], [0x400, 0x200000006n, 0x8000000n]);
});

Deno.test("cpu event: real mode uses the interrupt vector table", () => {
  const m = machine([0xcd, 0x10]);
  m.set64(v + S.efer, 0x1000n);
  m.set64(v + S.cr0, 0x30n);
  m.set64(v + S.cr4, 0n);
  for (const at of [S.cs_selector, S.ss_selector]) segment(m, v + at, 0, 0x9b, 0xffff, 0);
  segment(m, v + S.idtr_selector, 0, 0, 0x3ff, 0);
  m.memory.write(0x40, 4, HANDLER);
  m.memory.write8(HANDLER, 0xf4);
  run(m);
  assertEquals([exit(m).code, exit(m).rip], [0x78, BigInt(HANDLER)]);
  assertEquals(m.memory.read(STACK - 6, 2), CODE + 2);
});

Deno.test("cpu event: protected mode pushes a 32-bit frame", () => {
  const m = machine([0x0f, 0x0b]);
  m.set64(v + S.efer, 0x1000n);
  m.set64(v + S.cr0, 0x31n);
  segment(m, v + S.cs_selector, 8, 0xc9b, 0xffffffff, 0);
  segment(m, v + S.gdtr_selector, 0, 0, 0x17, GDT);
  segment(m, v + S.idtr_selector, 0, 0, 0x7ff, IDT);
  m.memory.write64(GDT + 8, 0x00cf9b000000ffffn);
  m.memory.write64(IDT + 48, BigInt(HANDLER) | 0x8n << 16n | 0x8e00n << 32n);
  m.memory.write8(HANDLER, 0xf4);
  run(m);
  assertEquals([exit(m).code, exit(m).rip], [0x78, BigInt(HANDLER)]);
  assertEquals([0, 4, 8].map((i) => m.memory.read(STACK - 12 + i, 4)), [CODE, 8, 2]);
});
