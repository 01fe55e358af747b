/** What a small hostile trace may cost: every list that grows with a trace has an end. */
import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { importTracepoints, TracepointError } from "../codecs/mod.ts";
import { packMap } from "../codecs/container/msgpack.ts";
import { parseLabRecord, readLabRecords } from "../codecs/lab/record.ts";
import { LabRecorder } from "../codecs/lab/recorder.ts";
import type { TraceEvent } from "../engine/event.ts";
import { Differ, RecordedRuns, Replayer, ReplayError, UNIFIED, UPSTREAM } from "../engine/mod.ts";
import { shortTexts } from "../engine/short_texts.ts";
import { recordScenarios } from "../traces/scenarios/record.ts";
import { builtinScenarios } from "../traces/scenarios/builtin.ts";
import { compare, CompareLimitError } from "../traces/compare/compare.ts";

const page = (fill: number) => ({ bytes: new Uint8Array(4096).fill(fill) });

const SEES = { kind: "session", vcpu: 0, meta: { sees: ["switch", "warn"] } } as const;

Deno.test("outcomes of no run are not kept, and their number has an end", () => {
  for (const start of [[], [SEES]]) {
    for (
      const event of [{ kind: "warn", vcpu: 0, text: "!pfn" }, {
        kind: "switch",
        vcpu: 0,
        to: 2,
      }] as const
    ) {
      for (const machine of [new Replayer(UNIFIED), new Differ([UNIFIED, UPSTREAM], () => {})]) {
        for (const one of start) machine.feed(one);
        for (let i = 0; i < 1000; i++) machine.feed(event);
        const error = assertThrows(() => {
          for (let i = 0; i < 10_000; i++) machine.feed(event);
        }, ReplayError);
        assertEquals(error.event, 1024 + start.length);
        assert(/outcomes follow each other/.test(error.message), error.message);
      }
    }
  }
});

Deno.test("what is remembered of a trace does not grow with its texts", () => {
  const long = "x".repeat(60_000);
  const kept: string[] = [];
  const text: TraceEvent[] = [
    { kind: "case", vcpu: 0, name: long, spec: long },
    { kind: "unmodelled", vcpu: 0, what: long },
    { kind: "warn", vcpu: 0, text: long },
    { kind: "inner", vcpu: 0, at: long },
  ];
  for (const event of text) kept.push(...Object.values(shortTexts(event)).map(String));
  assert(kept.includes("unmodelled") && kept.every(({ length }) => length < 600), kept.join());
  const short: TraceEvent = { kind: "warn", vcpu: 0, text: "!pfn" };
  assertEquals(shortTexts(short) === short, true);
  // Two long names are told apart by what is behind their beginning.
  const other = shortTexts({ kind: "case", vcpu: 0, name: `${long}y` });
  assert(other.kind === "case" && other.name !== kept[2]);
});

Deno.test("a run of a recording that is compared with another has an end", () => {
  const floods: readonly TraceEvent[] = [
    { kind: "warn", vcpu: 0, text: "!pfn" },
    { kind: "check", vcpu: 0, check: "asid-zero" },
    { kind: "inner", vcpu: 0, at: "vmrun", inner: page(1) },
    { kind: "regs", vcpu: 0, phase: "mid", vmcb12: page(1) },
  ];
  for (const event of floods) {
    const runs = new RecordedRuns(() => {});
    runs.feed({ kind: "case", vcpu: 0, name: "a" });
    const error = assertThrows(() => {
      for (let i = 0; i < 100_000; i++) runs.feed(event);
    }, ReplayError);
    assertEquals([error.event, error.message], [1025, "More than 1024 outcomes are of one run"]);
  }
});

async function oneRun(): Promise<TraceEvent[]> {
  const all: TraceEvent[] = [];
  for await (const event of recordScenarios(builtinScenarios("enter"), UNIFIED)) {
    all.push(structuredClone(event));
  }
  return all.slice(0, all.findIndex(({ kind }) => kind === "vmrun") + 1);
}

Deno.test("a run, a session and what waits for a run have an end", async () => {
  const start = await oneRun();
  const floods: readonly (readonly [string, boolean, (i: number) => TraceEvent, RegExp])[] = [
    [
      "outcomes",
      true,
      (i) => ({ kind: "warn", vcpu: 0, text: `${i}` }),
      /outcomes follow each other/,
    ],
    ["goes", true, () => ({ kind: "rsm", vcpu: 0 }), /goes on more than 256 times/],
    ["injected", false, () => ({ kind: "inject", vcpu: 0, what: "nmi" }), /wait for one run/],
    [
      "pages",
      false,
      (i) => ({ kind: "memory", vcpu: 0, gpa: BigInt(i) << 12n, data: page(1) }),
      /pages of guest memory/,
    ],
  ];
  const large = { capabilities: { memory: 2 ** 30 }, npt: 1 };
  for (const [what, running, event, message] of floods) {
    const replayer = new Replayer(UNIFIED);
    if (running) { for (const one of start) replayer.feed(one); }
    else replayer.feed({ kind: "session", vcpu: 0, meta: large });
    const error = assertThrows(() => {
      for (let i = 0; i < 100_000; i++) replayer.feed(event(i));
    }, ReplayError);
    assert(message.test(error.message) && error.event > 250, `${what}: ${error.message}`);
  }
});

Deno.test("a log has no more vCPUs than a trace, by threads or by numbers", async () => {
  const exit = (thread: number, vcpu: number) =>
    ` q-${thread}  [000] d..1.  1.000001: kvm_exit: vcpu ${vcpu} reason npf rip 0x9000 info1 ` +
    "0x0000000100000006 info2 0x00000000fee00000 intr_info 0x00000000 error_code 0x00000000\n";
  const floods = [(i: number) => exit(1000 + i, 0), (i: number) => exit(1000, i)];
  for (const line of floods) {
    const text = (count: number) => Array.from({ length: count }, (_, i) => line(i)).join("");
    const read = async (count: number) => {
      let vcpus = 0;
      const log = new TextEncoder().encode(`# tracer: nop\n${text(count)}`);
      for await (const batch of importTracepoints(log)) {
        vcpus += batch.filter(({ kind }) => kind === "session").length;
      }
      return vcpus;
    };
    assertEquals(await read(4096), 4096);
    const error = await assertRejects(() => read(5000), TracepointError, "more than 4096 vCPUs");
    assertEquals([error.code, error.line], ["limit", 4098]);
  }
});

Deno.test("a record put together from a trace has an end", () => {
  const floods: readonly (readonly [TraceEvent, number])[] = [
    [{ kind: "warn", vcpu: 0, text: "!pfn" }, 40_000],
    [{ kind: "inner", vcpu: 0, at: "vmrun", inner: page(1), vmcb01: page(1) }, 600],
    [{ kind: "regs", vcpu: 0, phase: "console", extra: { a: { b: "x".repeat(60_000) } } }, 90],
  ];
  for (const [event, least] of floods) {
    const recorder = new LabRecorder();
    recorder.add({ kind: "case", vcpu: 0, name: "a" });
    const error = assertThrows(() => {
      for (let i = 0; i < 100_000; i++) recorder.add(event);
    }, ReplayError);
    assert(error.event > least && error.event < 2 * least, `${event.kind} ${error.event}`);
    // The next case has all its room.
    recorder.add({ kind: "case", vcpu: 0, name: "b" });
    for (let i = 0; i < least; i++) recorder.add(event);
    assertEquals(recorder.finish()?.case, "b");
  }
});

Deno.test("a line of records has an end, and what is compressed well is read in parts", async () => {
  const record = '{"case":"ok","spec":"","kernel":"unified","npt":1,"events":[]}\n';
  const read = async (stream: ReadableStream<Uint8Array>) =>
    (await Array.fromAsync(readLabRecords(stream))).length;
  await assertRejects(() => read(new Blob([" ".repeat(5 << 20), record]).stream()), "line 1");
  const many = new Blob([`${" ".repeat(1 << 20)}\n`.repeat(16), record]).stream();
  let largest = 0;
  const stream = many.pipeThrough(new CompressionStream("gzip"));
  const { prototype } = TextDecoder;
  const decode = prototype.decode;
  prototype.decode = function (input, options) {
    largest = Math.max(largest, input?.byteLength ?? 0);
    return decode.call(this, input, options);
  };
  try {
    assertEquals(await read(stream), 1);
  } finally {
    prototype.decode = decode;
  }
  assert(largest > 0 && largest < 5 << 20, `${largest} bytes at once`);
});

Deno.test("records that wait for a partner, and what is told of those that differ, have an end", async () => {
  const plain = { case: "x", spec: "", kernel: "unified", npt: 1, events: [] };
  const long = "x".repeat(1 << 20);
  const flood = (of: (i: number) => object) =>
    Array.from({ length: 200 }, (_, i) => ({ ...plain, ...of(i) }));
  const pairs: readonly (readonly [(i: number) => object, (i: number) => object])[] = [
    [(i) => ({ case: `a${i}${long}` }), (i) => ({ case: `b${i}${long}` })],
    [(i) => ({ case: `a${i}${long}` }), (i) => ({ case: `a${i}${long}`, post: { gif: 1 } })],
    [(i) => ({ case: `a${i}${long}` }), (i) => ({ case: `a${i}${long}`, spec: "asid=0" })],
    [(i) => ({ kernel: `a${i}${long}` }), () => ({})],
    [
      (i) => ({ events: [{ at: `${i}${long}`, nested: { gif: "0" } }] }),
      (i) => ({ events: [{ at: `${i}${long}`, nested: { gif: "1" } }] }),
    ],
  ];
  for (const [a, b] of pairs) {
    await assertRejects(() => compare(flood(a), flood(b)), CompareLimitError);
  }
  // What waits is the same when its partner comes.
  const records = Array.from({ length: 50 }, (_, i) => ({
    ...plain,
    case: `${i}`,
    post: { gif: 1, vmcb12: { "070": "0".repeat(15) + "1", "000": `${i}`.padStart(16, "0") } },
    warnings: i % 2 ? ["x".repeat(3000)] : [],
  }));
  const { compared, agreed } = await compare(records, records.toReversed());
  assertEquals([compared, agreed], [50, 50]);
});

Deno.test("a record that a trace cannot keep is refused with its line and field", () => {
  const record = (more: string) =>
    `{"case":"ok","spec":"","kernel":"unified","npt":1,"events":[]${more}}`;
  for (
    const [more, message] of [
      [',"warnings":["\\ud800"]', /Field warnings\[0\]: expected text without lone surrogates/],
      [`,"deep":${"[".repeat(5000)}${"]".repeat(5000)}`, /nested no deeper than 16/],
      [',"extra":{"__proto__":{"polluted":1}}', /Field extra.__proto__: expected another name/],
      [',"\\udfff":1', /expected another name/],
      [',"huge":1e999', /a number that JSON has/],
      [',"post":{"rc":4294967296}', /Field post.rc/],
    ] as const
  ) {
    const error = assertThrows(() => parseLabRecord(record(more), { file: "x", line: 7 }));
    assert(error instanceof Error && error.name === "LabRecordError", String(error));
    assert(message.test(error.message) && error.message.includes("7"), error.message);
  }
  assertEquals(({} as { polluted?: number }).polluted, undefined);
});

Deno.test("a map is stored whatever its keys are called", () => {
  const { length } = packMap({ toJSON: 1, a: { toJSON: "x", b: [{ toJSON: null }] } });
  assert(length > 20);
  assertEquals(packMap({ a: 1, b: [2] }), packMap({ a: 1, b: [2] }));
});
