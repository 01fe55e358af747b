import {
  assert,
  assertEquals,
  assertRejects,
  assertStringIncludes,
  assertThrows,
} from "@std/assert";
import { gunzipSync, gzipSync } from "node:zlib";
import fc from "fast-check";
import type { TraceEvent } from "../engine/event.ts";
import { labOutcome, outcomeEvents } from "../codecs/lab/events.ts";
import { labRecords } from "../codecs/lab/recorder.ts";
import {
  formatLabRecord,
  type LabRecord,
  LabRecordError,
  parseLabRecord,
  readLabRecords,
} from "../codecs/lab/record.ts";
import { regsImage, stateOf } from "../codecs/lab/views.ts";
import { readTrace } from "../codecs/container/reader.ts";
import { TraceWriter } from "../codecs/container/writer.ts";
import { importLab } from "../traces/scenarios/lab_import.ts";
import { GROUND_TRUTH, groundTruth, RECORDINGS } from "./lab_ground_truth.ts";
import { anyRecord } from "./lab_records.ts";

const BASE: LabRecord = { case: "a", spec: "", kernel: "unified", npt: 1, events: [] };

async function all<T>(items: AsyncIterable<T>): Promise<T[]> {
  return await Array.fromAsync(items);
}

/** The events of one record, without the session that begins it. */
async function imported(record: LabRecord): Promise<TraceEvent[]> {
  return (await all(importLab([record]))).filter((event) => event.kind !== "session");
}

function order(events: readonly TraceEvent[]): string {
  return events.filter((event) => event.kind !== "memory").map((event) => {
    switch (event.kind) {
      case "regs":
        return `regs:${event.phase}`;
      case "inner":
        return `inner:${event.at}`;
      case "inject":
        return `inject:${event.what}`;
      default:
        return event.kind;
    }
  }).join(" ");
}

Deno.test("records come back from events as they were", async () => {
  await fc.assert(fc.asyncProperty(fc.array(anyRecord, { maxLength: 4 }), async (records) => {
    const back = await all(labRecords(importLab(records)));
    assertEquals(back, records);
    for (const record of back) {
      assertEquals(parseLabRecord(formatLabRecord(record)), record);
    }
  }));
});

Deno.test({
  name: "the recordings of real kernels come back byte for byte",
  ignore: !GROUND_TRUTH,
  async fn() {
    for (const recording of RECORDINGS) {
      const packed = await new Response(
        groundTruth(recording) as ReadableStream<Uint8Array<ArrayBuffer>>,
      ).bytes();
      const lines = new TextDecoder().decode(gunzipSync(packed)).split("\n");
      let i = 0;
      for await (const record of labRecords(importLab(readLabRecords(groundTruth(recording))))) {
        assertEquals(formatLabRecord(record), lines[i++]);
      }
      assertEquals([i, lines[i]], [1131, ""]);
    }
  },
});

Deno.test({
  name: "a recording comes back from a trace",
  ignore: !GROUND_TRUTH,
  async fn() {
    const recording = "A-unified-npt0";
    const chunks: Uint8Array[] = [];
    const writer = new TraceWriter({ write: (chunk) => chunks.push(chunk.slice()) });
    for await (const event of importLab(readLabRecords(groundTruth(recording)))) {
      writer.write(event);
    }
    writer.close();
    const trace = await readTrace(chunks);
    const expected = readLabRecords(groundTruth(recording));
    let count = 0;
    for await (const record of labRecords(trace.events())) {
      const { value } = await expected.next();
      assertEquals(formatLabRecord(record), formatLabRecord(value));
      count++;
    }
    assertEquals(count, 1131);
  },
});

Deno.test("a session begins with each new virtual machine, and with each other kernel", async () => {
  const records = [
    BASE,
    { ...BASE, case: "b", spec: "keepvm" },
    { ...BASE, case: "c" },
    { ...BASE, case: "d", spec: "keepvm", kernel: "linux-6.12" },
  ];
  const events = await all(importLab(records));
  const marks = events.flatMap((event) =>
    event.kind === "session" ? [event.meta?.kernel] : event.kind === "case" ? [event.name] : []
  );
  assertEquals(marks, ["unified", "a", "b", "unified", "c", "linux-6.12", "d"]);
});

Deno.test("VMRUN carries what L1 had, and masks what nobody saw", async () => {
  const record = { ...BASE, spec: "c.58.4=0 hsave=21000", pre: { rip: "8000", gif: 1 } };
  const run = (await imported(record)).find((event) => event.kind === "vmrun");
  assertEquals([run?.rip, run?.vmcb12_gpa], [0x8003n, 0x10000n]);
  assertEquals(run?.vmcb12?.bytes.subarray(0x58, 0x5c).toHex(), "00000000");
  assert(run?.regs?.known);
  const { bytes, known } = run.regs;
  const at = (offset: number) => new DataView(bytes.buffer).getBigUint64(offset, true);
  assertEquals([at(0x0f0), known[0x0f0]], [0x21000n, 0xff]);
  assertEquals([bytes[0x1a0], known[0x1a0]], [1, 0xff]);
  assertEquals([bytes[0x1a5], known[0x1a5]], [0, 0]);
});

Deno.test("a virtual machine that goes on has every page below the fresh limit set", async () => {
  const pages = async (...specs: string[]) => {
    const events = await all(importLab(specs.map((spec) => ({ ...BASE, spec }))));
    const last = events.findLastIndex((event) => event.kind === "case");
    return events.slice(last).filter((event) => event.kind === "memory");
  };
  assertEquals((await pages("")).length, 17);
  const again = await pages("", "keepvm m.fff000=1");
  assertEquals(again.length, 129);
  assertEquals(again.at(-1)?.data?.known?.subarray(0, 9).toHex(), "ffffffffffffffff00");
  const kept = await pages("", "keepvm keepmem m.9000.1=f4");
  assertEquals(kept.map((event) => [event.gpa, event.data?.known?.[0], event.data?.known?.[1]]), [
    [0x9000n, 0xff, 0],
  ]);
});

Deno.test("an SMI and RSM stand where they happened", async () => {
  const inner = (at: string) => ({ at, nested: {} });
  const exit = (reason: string) => ({
    tracepoint: "kvm_nested_vmexit_inject",
    text: `reason: ${reason} ext_inf1: 0x0000000000000000 ext_inf2: 0x0000000000000000 ` +
      "ext_int: 0x00000000 ext_int_err: 0x00000000",
  });
  const events = await imported({
    ...BASE,
    spec: "entry=rsm xs.d0=500 xr.d0.1=7",
    pre: {},
    mid: { guest_mode: 1 },
    smm: { smm: 1, smram: { "0d0": "0000000000001500" } },
    post: {},
    events: [
      inner("vmrun"),
      exit("0xf0000000"),
      inner("vmexit"),
      { check_failed: "x" },
      inner("rsm"),
      inner("vmexit"),
    ],
  });
  assertEquals(
    order(events),
    "case regs:pre vmrun inner:vmrun regs:mid inject:smi tracepoint inner:vmexit smi regs:smm rsm " +
      "check inner:rsm inner:vmexit regs:post",
  );
  const rsm = events.find((event) => event.kind === "rsm");
  assertEquals(rsm?.smram?.bytes.subarray(0xd0, 0xd2).toHex(), "0715");
  const smi = events.find((event) => event.kind === "smi");
  assertEquals(smi?.smram?.bytes.subarray(0xd0, 0xd2).toHex(), "0015");
  const late = events.filter((event) => event.kind === "memory").slice(-2);
  assertEquals(late.map((event) => event.gpa), [0x10000n, 0x3f000n]);
  assertEquals(late[0]?.data?.known?.subarray(0x4cf, 0x4d1).toHex(), "00ff");
});

Deno.test("without an SMI in L2, L1's loop executes VMRUN again", async () => {
  const events = await imported({
    ...BASE,
    spec: "entry=rsm c.58.4=0",
    pre: {},
    mid: { guest_mode: 0 },
    smm: { smm: 1 },
    post: {},
    events: [{ check_failed: "a" }, { at: "vmrun", nested: {} }, { check_failed: "a" }, {
      at: "vmrun",
      nested: {},
    }],
  });
  assertEquals(
    order(events),
    "case regs:pre vmrun check inner:vmrun regs:mid inject:smi smi regs:smm rsm vmrun check " +
      "inner:vmrun regs:post",
  );
});

Deno.test("KVM_SET_NESTED_STATE carries what the lab hands in", async () => {
  const record = {
    ...BASE,
    spec: "entry=setstate gif=0 xh.d0=500",
    setstate: { sregs_errno: 0, errno: 22 },
  };
  const set = (await imported(record)).find((event) => event.kind === "setstate");
  assertEquals([set?.flags, set?.vmcb_pa, set?.errno], [1, 0x10000n, 22]);
  const view = new DataView(set!.state!.bytes.buffer);
  assertEquals(view.getBigUint64(0x4d0, true), 0x500n);
  assertEquals(view.getBigUint64(0x578, true), 0x8003n);
  assertEquals(view.getBigUint64(0x550, true), 0x1000n);
});

Deno.test("tracepoints tell why L2 stopped", () => {
  const [exit, point] = outcomeEvents({
    tracepoint: "kvm_nested_vmexit",
    text: "vcpu 0 reason io rip 0x9000 info1 0x0000000000810010 info2 0x0000000000009002 " +
      "intr_info 0x80000202 error_code 0x00000001",
  });
  assert(exit?.kind === "l2exit");
  assertEquals([exit.exit_code, exit.exit_info_1, exit.exit_info_2], [0x7bn, 0x810010n, 0x9002n]);
  assertEquals([exit.exit_int_info, exit.exit_int_info_err], [0x80000202, 1]);
  assertEquals(point?.kind, "tracepoint");
  const [fault] = outcomeEvents({
    tracepoint: "kvm_nested_vmexit_inject",
    text: "reason: npf ext_inf1: 0x0000000200000006 ext_inf2: 0x0000000000040000 " +
      "ext_int: 0x00000000 ext_int_err: 0x00000000",
  });
  assert(fault?.kind === "l2exit");
  assertEquals([fault.exit_code, fault.exit_info_1, fault.regs], [0x400n, 0x200000006n, undefined]);
});

Deno.test("what an event has no place for is refused, not lost", () => {
  const inner = { at: "vmrun", nested: { odd: "1" } };
  const error = assertThrows(
    () => labOutcome(parseLabRecord(JSON.stringify({ ...BASE, events: [inner] }), { line: 3 })),
    LabRecordError,
  );
  assertEquals([error.line, error.field], [3, "events[0]"]);
  assertStringIncludes(error.message, '"odd"');
});

const BAD: readonly (readonly [unknown, string])[] = [
  [[], ""],
  [{ ...BASE, case: 1 }, "case"],
  [{ ...BASE, npt: 2 }, "npt"],
  [{ ...BASE, events: {} }, "events"],
  [{ ...BASE, events: [{}] }, "events[0]"],
  [{ ...BASE, events: [{ tracepoint: "x" }] }, "events[0].text"],
  [{ ...BASE, events: [{ at: "vmrun" }] }, "events[0].nested"],
  [{ ...BASE, events: [{ at: "vmrun", nested: { gif: 1 } }] }, "events[0].nested.gif"],
  [{ ...BASE, events: [{ at: "vmrun", nested: { active: "" } }] }, "events[0].nested.active"],
  [{ ...BASE, events: [{ at: "x", nested: {}, cpu: { cr0: "0x1" } }] }, "events[0].cpu.cr0"],
  [{ ...BASE, events: [{ at: "x", nested: {}, ctl01: { "400": "0" } }] }, "events[0].ctl01.400"],
  [{ ...BASE, post: { rip: "08" } }, "post.rip"],
  [{ ...BASE, post: { cs: "8" } }, "post.cs"],
  [{ ...BASE, post: { cs: "8/0/100" } }, "post.cs"],
  [{ ...BASE, post: { gif: "1" } }, "post.gif"],
  [{ ...BASE, post: { errno: -4 } }, "post.errno"],
  [{ ...BASE, post: { vmcb12: { "001": "0000000000000001" } } }, "post.vmcb12.001"],
  [{ ...BASE, post: { vmcb12: { "008": "1" } } }, "post.vmcb12.008"],
  [{ ...BASE, setstate: { errno: 0 } }, "setstate.sregs_errno"],
  [{ ...BASE, warnings: "x" }, "warnings"],
];

for (const [value, field] of BAD) {
  Deno.test(`a record with a bad ${field || "shape"} is refused`, () => {
    const error = assertThrows(
      () => parseLabRecord(JSON.stringify(value), { file: "f", line: 4 }),
      LabRecordError,
    );
    assertEquals([error.file, error.line, error.field], ["f", 4, field]);
    assert(error.message.startsWith("f:4: "), error.message);
  });
}

Deno.test("registers of a machine that KVM has given up are read, and tell nothing of CS", () => {
  const text = JSON.stringify({ ...BASE, post: { cs: "0/0/fe", rc: -1, errno: 5 } });
  const { post } = parseLabRecord(text);
  assertEquals(post?.cs, "0/0/fe");
  assertEquals(stateOf(regsImage(post!)).cs, undefined);
  assertEquals(stateOf(regsImage({ cs: "8/0/1" })).cs, "8/0/1");
});

function bytes(text: string): ReadableStream<Uint8Array> {
  return new Blob([text]).stream();
}

Deno.test("a bad line of a stream is named by its number", async () => {
  const good = formatLabRecord(BASE);
  const error = await assertRejects(
    () => all(readLabRecords(bytes(`${good}\n\n${good}\n{"case":`), { file: "f" })),
    LabRecordError,
  );
  assertEquals([error.file, error.line], ["f", 4]);
});

Deno.test("records come through however the stream is cut, compressed or not", async () => {
  const text = [BASE, { ...BASE, case: "über" }].map((record) => formatLabRecord(record)).join(
    "\n",
  );
  const packed = new Uint8Array(gzipSync(text));
  for (const whole of [new TextEncoder().encode(text), packed]) {
    const single = ReadableStream.from(Array.from(whole, (_, i) => whole.subarray(i, i + 1)));
    assertEquals((await all(readLabRecords(single))).map((r) => r.case), ["a", "über"]);
  }
  const damaged = new Blob([packed.subarray(0, packed.length - 12)]).stream();
  const error = await assertRejects(() => all(readLabRecords(damaged)), LabRecordError);
  assertStringIncludes(error.message, "Damaged");
});

Deno.test("a line without an end does not fill memory", async () => {
  const endless = ReadableStream.from((function* () {
    for (;;) yield new Uint8Array(1 << 20).fill(0x20);
  })());
  const error = await assertRejects(() => all(readLabRecords(endless)), LabRecordError);
  assertStringIncludes(error.message, "Longer");
});

Deno.test("an empty stream has no records", async () => {
  assertEquals(await all(readLabRecords(bytes(""))), []);
});

Deno.test("a spec that is not understood is named by file and line", async () => {
  const text = `\n${formatLabRecord(BASE)}\n${
    formatLabRecord({ ...BASE, spec: "c.58=0 nope=1" })
  }\n`;
  const error = await assertRejects(
    () => all(importLab(readLabRecords(bytes(text), { file: "f" }))),
    LabRecordError,
  );
  assertEquals([error.file, error.line, error.field], ["f", 3, "spec"]);
  assertStringIncludes(error.message, 'no token "nope"');
});
