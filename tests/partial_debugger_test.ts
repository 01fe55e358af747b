/** Replaying what a debugger saw: a VMRUN and a #VMEXIT whole, and nothing of what ran between. */
import fc from "fast-check";
import { assert, assertEquals } from "@std/assert";
import { fileChunks, readTrace } from "../codecs/mod.ts";
import {
  ARCHITECTURAL,
  type Field,
  LINUX_6_12,
  type Mismatch,
  type Policy,
  REGS_LAYOUT,
  Replayer,
  SAVE_AREA,
  type TraceEvent,
  VMCB_LAYOUT,
} from "../engine/mod.ts";
import { fieldNamed } from "../engine/image/fields.ts";
import { imageOf, L1 as SEEN_L1, L2 as SEEN_L2, SEEN, type Values } from "./debugger_sight.ts";

const L1: Values = {
  ...SEEN_L1,
  rsp: 0xffffc900004aba80n,
  cr8: 1n,
  gdtr_base: 0xfffffe0000001000n,
  idtr_base: 0xfffffe0000000000n,
  gdtr_limit: 0x7fn,
  idtr_limit: 0xfffn,
  tr_attrib: 0x8bn,
};

const MSRPM = 0x2000n;

const L2: Values = {
  ...SEEN_L2,
  "control.msrpm_base_pa": MSRPM,
  "save.rip": 0x1004n,
  "save.rsp": 0x8000n,
  "save.lstar": 0xffffffff81800000n,
  "save.fs_base": 0x7f00_0000_1000n,
};

/** A recording of one transition by a debugger, as QEMU's processor carried it out. */
function recording(more: { l2?: Values; left?: Values; regs?: Values } = {}): TraceEvent[] {
  const vmcb12 = imageOf(VMCB_LAYOUT, { ...L2, ...more.l2 });
  const exited = imageOf(VMCB_LAYOUT, {
    ...L2,
    ...more.l2,
    "control.event_inj": 0n,
    "control.exit_code": 0x7bn,
    "control.exit_info_1": 0x100010n,
    "control.exit_info_2": 0x1005n,
    ...more.left,
  });
  return [
    {
      kind: "session",
      vcpu: 0,
      meta: { source: "qemu", kernel: "qemu-tcg", partial: true, transitions: true },
    },
    {
      kind: "memory",
      vcpu: 0,
      gpa: MSRPM,
      data: { bytes: new Uint8Array(4096).fill(0xff) },
    },
    {
      kind: "vmrun",
      vcpu: 0,
      rip: L1["rip"]! + 3n,
      vmcb12_gpa: L1["rax"]!,
      regs: { bytes: imageOf(REGS_LAYOUT, L1), known: SEEN },
      vmcb12: { bytes: vmcb12 },
    },
    {
      kind: "exit",
      vcpu: 0,
      vmcb12_gpa: L1["rax"]!,
      regs: {
        bytes: imageOf(REGS_LAYOUT, { ...L1, rip: L1["rip"]! + 3n, ...more.regs }),
        known: SEEN,
      },
      vmcb12: { bytes: exited },
    },
  ];
}

function replayed(events: readonly TraceEvent[], policy: Policy = ARCHITECTURAL): Mismatch[] {
  const found: Mismatch[] = [];
  const replayer = new Replayer(policy, (mismatch) => found.push(mismatch));
  for (const event of events) replayer.feed(event);
  assertEquals(replayer.finish().partial?.transitions, 1);
  return found;
}

const SEGMENT = ["selector", "attrib", "limit", "base"];
const segments = (prefix: string, names: readonly string[]) =>
  names.flatMap((name) => SEGMENT.map((part) => `${prefix}${name}_${part}`));

/** Of vmcb12 what L2 is free to have changed, or what a #VMEXIT tells about it. */
const OWN = new Set(
  [
    ...["exit_code", "exit_code_hi", "exit_info_1", "exit_info_2", "exit_int_info"],
    ...["exit_int_info_err", "int_state", "next_rip", "insn_len", "insn_bytes", "bus_lock_counter"],
  ].map((name) => `control.${name}`).concat(
    segments("save.", ["es", "cs", "ss", "ds", "gdtr", "idtr"]),
    ["cpl", "rflags", "rip", "rsp", "rax", "cr2", "cr3", "dr7", "g_pat", "spec_ctrl", "s_cet"]
      .map((name) => `save.${name}`),
    ["save.ssp", "save.isst_addr"],
  ),
);

/** Of the registers what a #VMEXIT loads for L1. */
const LOADED = new Set([
  ...["rip", "rsp", "rax", "rflags", "cr0", "cr3", "cr4", "cr8", "efer", "dr7"],
  ...segments("", ["es", "cs", "ss", "ds", "gdtr", "idtr"]),
]);

/** Flips a bit of the #VMEXIT. */
function flipped(of: "vmcb12" | "regs", at: number, bit: number): TraceEvent[] {
  const events = recording();
  const last = events.at(-1) as Extract<TraceEvent, { kind: "exit" }>;
  last[of]!.bytes[at]! ^= 1 << bit;
  return events;
}

Deno.test("what a debugger saw of a lawful transition contradicts nothing", () => {
  for (const policy of [ARCHITECTURAL, LINUX_6_12]) {
    assertEquals(replayed(recording(), policy), []);
    // What is L2's own.
    const left = { "save.cr3": 0x5000n, "save.rsp": 0x7ffan, "save.cr2": 0x1234n };
    const regs = { rbx: 7n, r15: 9n, rbp: 1n, fs_base: 5n, gs_base: 6n, cr2: 8n, dr0: 9n };
    assertEquals(replayed(recording({ left, regs }), policy), []);
  }
});

function anyBit(fields: readonly Field[]) {
  return fc.constantFrom(...fields).chain((field) =>
    fc.tuple(
      fc.constant(field.name),
      fc.integer({ min: field.offset, max: field.offset + field.size - 1 }),
      fc.integer({ min: 0, max: 7 }),
    )
  );
}

Deno.test("a changed byte of vmcb12 is caught wherever a #VMEXIT defines it", () => {
  const fields = VMCB_LAYOUT.fields.filter(({ name }) =>
    !OWN.has(name) && name !== "control.int_ctl" && name !== "save.dr6"
  );
  assert(fields.length > 60, String(fields.length));
  fc.assert(
    fc.property(anyBit(fields), ([name, at, bit]) => {
      const found = replayed(flipped("vmcb12", at, bit)).map(({ field }) => field);
      assertEquals(found, [`exit.vmcb12 ${name}`]);
    }),
    { numRuns: 400 },
  );
});

Deno.test("a changed byte of L1's registers is caught where a #VMEXIT loads them, and only there", () => {
  const seen = REGS_LAYOUT.fields.filter(({ offset }) => SEEN[offset] === 0xff);
  fc.assert(
    fc.property(anyBit(seen), ([name, at, bit]) => {
      const found = replayed(flipped("regs", at, bit)).map(({ field }) => field);
      assertEquals(found, LOADED.has(name) ? [`exit.${name}`] : []);
    }),
    { numRuns: 400 },
  );
});

Deno.test("what L2 may change is not held against what was before, and every field is one or the other", () => {
  for (const name of OWN) {
    const row = fieldNamed(VMCB_LAYOUT, name);
    for (let at = row.offset; at < row.offset + row.size; at++) {
      // Bit 31 of EXITINTINFO makes the rest of it mean something.
      assertEquals(replayed(flipped("vmcb12", at, 3)), [], name);
    }
  }
  const bits = (name: string, wanted: bigint) => {
    const row = fieldNamed(VMCB_LAYOUT, name);
    for (let bit = 0; bit < row.size * 8; bit++) {
      const found = replayed(flipped("vmcb12", row.offset + (bit >> 3), bit & 7));
      assertEquals(found.length, Number(wanted >> BigInt(bit) & 1n), `${name} bit ${bit}`);
    }
  };
  // V_TPR and V_IRQ are L2's; of DR6 all that is not always 1.
  bits("control.int_ctl", 0xffff_fe00n);
  bits("save.dr6", 0xffff07f0n);
});

Deno.test("what L1 does not watch is L2's", () => {
  const free = { "control.intercept_cr": 0n, "control.intercept_word3": 1n };
  const left = { "save.cr0": 0x31n, "save.cr4": 0x20n, "save.efer": 0x1100n };
  assertEquals(replayed(recording({ l2: free, left })), []);
  const found = replayed(recording({ left })).map(({ field }) => field);
  assertEquals(found, ["save.efer", "save.cr4", "save.cr0"].map((name) => `exit.vmcb12 ${name}`));
});

Deno.test("an EXITINTINFO that is not valid is nothing, and an interrupt that nobody gave is something", () => {
  const l2 = { "control.event_inj": 0x80000020n };
  for (const stale of [0x20n, 0xb0en, 0x302n, 0x480n]) {
    assertEquals(replayed(recording({ l2, left: { "control.exit_int_info": stale } })), []);
  }
  // QEMU calls an interrupt that it delivers by itself an exception.
  const twice = { "control.exit_int_info": 0x320n };
  const [stray, ...others] = replayed(recording({ l2, left: twice }));
  assertEquals(others, []);
  assertEquals(stray?.field, "exit.vmcb12 control.exit_int_info");
  // One that L1 made pending, or lets L2 take, is lawful.
  const virtual = { ...l2, "control.int_ctl": 0x1000100n };
  assertEquals(replayed(recording({ l2: virtual, left: twice })), []);
  const open = { ...l2, "control.intercept_word3": 0x10000000n };
  assertEquals(replayed(recording({ l2: open, left: twice })), []);
});

Deno.test("two transitions that differ in L1's registers afterwards are two", () => {
  const good = recording(), bad = recording({ regs: { rsp: 1n } });
  const found: string[] = [];
  const replayer = new Replayer(ARCHITECTURAL, ({ field }) => found.push(field));
  for (const event of [...good, ...bad.slice(2)]) replayer.feed(event);
  assertEquals(replayer.finish().partial?.agreed, 1);
  assertEquals(found, ["exit.rsp"]);
});

const RECORDINGS = new URL("../../shared/recordings/", import.meta.url);
const missing = await Deno.stat(RECORDINGS).then(() => false, () => true);

async function* recorded(name: string): AsyncGenerator<TraceEvent> {
  const trace = await readTrace(fileChunks(new URL(`${name}.vmtape`, RECORDINGS).pathname));
  yield* trace.events();
}

for (
  const [name, transitions, events] of [["x4", 1000, []], ["k1", 1000, []], ["i1", 236, [
    406,
    442,
  ]]] as const
) {
  Deno.test({
    name: `${name}: real hypervisors on QEMU contradict nothing but what the recorder did twice`,
    ignore: missing,
    async fn() {
      for (const policy of [ARCHITECTURAL, LINUX_6_12]) {
        const found: number[] = [];
        const replayer = new Replayer(policy, ({ event }) => found.push(event));
        for await (const event of recorded(name)) replayer.feed(event);
        assertEquals(replayer.finish().partial?.transitions, transitions);
        assertEquals(found, [...events]);
      }
    },
  });
}

Deno.test({
  name: "x4 and k1 with one byte changed: caught wherever a #VMEXIT defines it",
  ignore: missing,
  async fn() {
    const control = VMCB_LAYOUT.fields.filter(({ name, offset }) =>
      offset < SAVE_AREA && !OWN.has(name) && name !== "control.int_ctl"
    );
    const saved = VMCB_LAYOUT.fields.filter(({ name }) =>
      /^save\.(fs|gs|tr|ldtr)_|^save\.(star|lstar|kernel_gs_base|sysenter_cs)$/.test(name)
    );
    for (const name of ["x4", "k1"]) {
      const events = await Array.fromAsync(recorded(name));
      const exits = events.flatMap(({ kind }, i) => kind === "exit" ? [i] : []);
      const regs = REGS_LAYOUT.fields.filter((field) => LOADED.has(field.name));
      const place = fc.oneof(
        anyBit([...control, ...saved]).map((bit) => ["vmcb12", ...bit] as const),
        anyBit(regs).map((bit) => ["regs", ...bit] as const),
      );
      fc.assert(
        fc.property(fc.constantFrom(...exits), place, (index, [of, field, at, bit]) => {
          const first = events.findLastIndex(({ kind }, i) => kind === "vmrun" && i < index);
          const around = events.filter(({ kind }, i) =>
            kind === "session" || kind === "memory" && i < index || i === first || i === index
          );
          const exit = around.at(-1) as Extract<TraceEvent, { kind: "exit" }>;
          const bytes = exit[of]!.bytes.slice();
          bytes[at]! ^= 1 << bit;
          const known = exit[of]!.known;
          if (known !== undefined && (known[at]! >> bit & 1) === 0) return;
          const changed = { ...exit, [of]: { ...exit[of], bytes } };
          const found = replayed([...around.slice(0, -1), changed]).map(({ field }) => field);
          assertEquals(found, [of === "regs" ? `exit.${field}` : `exit.vmcb12 ${field}`]);
        }),
        { numRuns: 150 },
      );
    }
  },
});
