/** What a small hostile trace may cost: every list that grows with a trace has an end. */
import { assert, assertEquals, assertThrows } from "@std/assert";
import { packMap } from "../codecs/container/msgpack.ts";
import { parseLabRecord } from "../codecs/lab/record.ts";
import type { TraceEvent } from "../engine/event.ts";
import { Differ, Replayer, ReplayError, UNIFIED, UPSTREAM } from "../engine/mod.ts";
import { recordScenarios } from "../traces/scenarios/record.ts";
import { builtinScenarios } from "../traces/scenarios/builtin.ts";

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
        for (let i = 0; i < 10_000; i++) machine.feed(event);
        const error = assertThrows(() => {
          for (let i = 0; i < 10_000; i++) machine.feed(event);
        }, ReplayError);
        assertEquals(error.event, 16_384 + start.length);
        assert(/outcomes follow each other/.test(error.message), error.message);
      }
    }
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
    assert(message.test(error.message) && error.event > 1000, `${what}: ${error.message}`);
  }
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
