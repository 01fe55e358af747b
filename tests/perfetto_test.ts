import { assert, assertEquals, assertMatch } from "@std/assert";
import fc from "fast-check";
import type { TraceEvent } from "../engine/event.ts";
import { EARLY_EXIT } from "../engine/policies/mod.ts";
import { copyEvent, type PerfettoEvent, perfettoPackets, perfettoText } from "../codecs/mod.ts";
import { BUILTINS, builtinScenarios } from "../traces/scenarios/builtin.ts";
import { recordScenarios } from "../traces/scenarios/record.ts";
import { parseScenarios } from "../traces/scenarios/scenario_reader.ts";
import { shell, vmtape, withFolder } from "./cli_process.ts";
import { writeBomb } from "./fuzzing/bombs.ts";
import { readPackets, type ReadSlice } from "./perfetto_packets.ts";

interface File {
  readonly traceEvents: PerfettoEvent[];
  readonly displayTimeUnit: string;
  readonly otherData: { readonly clock: string };
}

async function exported(events: Iterable<TraceEvent> | AsyncIterable<TraceEvent>): Promise<File> {
  let text = "";
  for await (const piece of perfettoText(events, "t")) text += piece;
  return JSON.parse(text);
}

/** What is in a file of packets, in an order of its own. */
async function packets(
  events: Iterable<TraceEvent> | AsyncIterable<TraceEvent>,
): Promise<string[]> {
  const pieces = await Array.fromAsync(perfettoPackets(events));
  return inOrder(readPackets(new Uint8Array(await new Blob(pieces).arrayBuffer())));
}

/** The same of the other format. */
function slicesOf({ traceEvents }: File): string[] {
  const tracks = new Map(
    traceEvents.filter(({ ph }) => ph === "M").map(({ tid, args }) => [tid, args!["name"]]),
  );
  return inOrder(
    traceEvents.filter(({ ph }) => ph !== "M").map(({ tid, name, cat, ts, dur, args }) => ({
      track: String(tracks.get(tid)),
      name,
      category: cat ?? "",
      from: Math.round(1000 * ts),
      to: dur === undefined ? undefined : Math.round(1000 * (ts + dur)),
      args: args ?? {},
    })),
  );
}

function inOrder(slices: readonly ReadSlice[]): string[] {
  return slices.map((slice) => JSON.stringify(slice)).toSorted();
}

/** What the Trace Event Format asks of a file. */
function validate({ traceEvents, displayTimeUnit }: File): void {
  assert(displayTimeUnit === "ms" || displayTimeUnit === "ns");
  const tracks = new Map<string, PerfettoEvent[]>();
  const named = new Set<string>();
  for (const row of traceEvents) {
    assert(typeof row.name === "string" && row.name !== "");
    assert(Number.isInteger(row.pid) && Number.isInteger(row.tid));
    assert(Number.isFinite(row.ts) && row.ts >= 0);
    for (const value of Object.values(row.args ?? {})) {
      assert(typeof value === "string" || Number.isFinite(value));
    }
    const track = `${row.pid}/${row.tid}`;
    switch (row.ph) {
      case "M":
        assert(row.name === "process_name" || row.name === "thread_name");
        assert(typeof row.args?.["name"] === "string");
        named.add(track);
        break;
      case "i":
        assertEquals(row.s, "t");
        break;
      case "X":
        assert(Number.isFinite(row.dur) && row.dur! >= 0, JSON.stringify(row));
        tracks.set(track, [...tracks.get(track) ?? [], row]);
        break;
    }
    if (row.ph !== "M") assert(named.has(track), `${track} has no name`);
  }
  // Slices of a track lie within each other or beside each other, to the nanosecond.
  const ns = (us: number) => Math.round(us * 1000);
  for (const rows of tracks.values()) {
    const open: number[] = [];
    for (const { ts, dur = 0 } of rows.toSorted((a, b) => a.ts - b.ts || b.dur! - a.dur!)) {
      const from = ns(ts), to = ns(ts + dur);
      while (open.length > 0 && open.at(-1)! <= from) open.pop();
      assert(open.length === 0 || to <= open.at(-1)!, `${from} to ${to} leaves ${open.at(-1)}`);
      open.push(to);
    }
  }
}

Deno.test("every built-in scenario is exported by the format's rules", async () => {
  const scenarios = BUILTINS.flatMap(({ name }) => builtinScenarios(name));
  const file = await exported(recordScenarios(scenarios, EARLY_EXIT));
  validate(file);
  const count = (name: string) => file.traceEvents.filter((row) => row.name === name).length;
  assert(count("VMRUN") > 20 && count("L2") > 10);
  assertEquals(await packets(recordScenarios(scenarios, EARLY_EXIT)), slicesOf(file));
  assert(file.traceEvents.some(({ name }) => name.startsWith("#VMEXIT")));
  assertMatch(file.otherData.clock, /^none: /);
});

Deno.test("a run is a VMRUN, L2 and a #VMEXIT within one slice; a failed check is an instant", async () => {
  const { traceEvents } = await exported(
    recordScenarios(parseScenarios("fine\nbad control.asid=0\n"), EARLY_EXIT),
  );
  const of = (cat: string) => traceEvents.filter((row) => row.cat === cat);
  assertEquals(of("scenario").map(({ name }) => name), ["fine", "bad"]);
  const [run] = of("run");
  for (const cat of ["vmrun", "l2", "vmexit"]) {
    const [inner] = of(cat);
    assert(inner!.ts >= run!.ts && inner!.ts + inner!.dur! <= run!.ts + run!.dur!, cat);
  }
  assertEquals(of("check").map(({ name, args }) => [name, args?.["text"]]), [
    ["check failed: asid-zero", "control->asid == 0"],
  ]);
  assertEquals(of("l2").length, 1);
  assertEquals(of("vmrun")[1]?.args?.["control.asid"], "0x0");
});

Deno.test("L2 runs up to its last exit; those that L0 handles are instants", async () => {
  const l2exit = (time: number, exit_code: bigint): TraceEvent => (
    { kind: "l2exit", vcpu: 0, time: 1000 * time, exit_code }
  );
  const file = await exported([
    { kind: "vmrun", vcpu: 0, time: 10_000 },
    l2exit(20, 0x400n),
    l2exit(30, 0x7bn),
    l2exit(40, 0x81n),
    { kind: "exit", vcpu: 0, time: 45_000 },
    { kind: "vmrun", vcpu: 0, time: 50_000 },
    l2exit(60, 0x400n),
    { kind: "vmrun", vcpu: 0, time: 70_000 },
  ]);
  validate(file);
  const rows = (cat: string) =>
    file.traceEvents.filter((row) => row.cat === cat).map(({ name, ts, dur }) => [name, ts, dur]);
  assertEquals(rows("l2"), [["L2", 10, 30], ["L2", 50, 10], ["L2", 70, 0]]);
  assertEquals(rows("vmexit"), [["#VMEXIT 0x81", 40, 5]]);
  assertEquals(rows("l0"), [
    ["L2 exit NPF", 20, undefined],
    ["L2 exit IOIO", 30, undefined],
    ["L2 exit NPF", 60, undefined],
  ]);
});

const anyEvent: fc.Arbitrary<TraceEvent> = fc.record({
  kind: fc.constantFrom(
    "session",
    "case",
    "vmrun",
    "check",
    "l2exit",
    "exit",
    "warn",
    "inner",
    "lost",
  ),
  vcpu: fc.nat(2),
  at: fc.constantFrom("vmrun", "vmexit", undefined),
  name: fc.string(),
  text: fc.string(),
  exit_code: fc.bigInt(0n, (1n << 64n) - 1n),
}).map((event) => event as unknown as TraceEvent);

Deno.test("events in any order, with clocks that go back or stop, give a valid file", async () => {
  const times = fc.option(fc.nat(1e6), { nil: undefined });
  const one = fc.tuple(anyEvent, times).map(([event, time]) =>
    (time === undefined ? event : { ...event, time }) as TraceEvent
  );
  await fc.assert(fc.asyncProperty(fc.array(one, { maxLength: 60 }), async (events) => {
    const file = await exported(events);
    validate(file);
    assertEquals(await packets(events), slicesOf(file));
  }));
});

Deno.test("packets are a tenth of the other format's bytes", async () => {
  const events = [];
  for await (
    const event of recordScenarios(builtinScenarios("enter"), EARLY_EXIT, { repeat: 300 })
  ) {
    events.push(copyEvent(event));
  }
  const pieces = await Array.fromAsync(perfettoPackets(events));
  const text = await Array.fromAsync(perfettoText(events, "t"));
  const size = pieces.reduce((sum, { length }) => sum + length, 0);
  assert(10 * size < text.join("").length, `${size} of ${text.join("").length} bytes`);
});

Deno.test("a recording's own clock is kept, in microseconds", async () => {
  const { traceEvents, otherData } = await exported([
    { kind: "vmrun", vcpu: 1, time: 1_500_250 },
    { kind: "exit", vcpu: 1, time: 1_502_000 },
  ]);
  const run = traceEvents.find(({ cat }) => cat === "run")!;
  assertEquals([run.ts, run.dur, run.tid], [1500.25, 1.75, 4]);
  assertMatch(otherData.clock, /recording's own/);
});

Deno.test("export writes a whole file or none", () =>
  withFolder(async (folder) => {
    const { code, stderr } = await shell(
      "vmtape record enter -o t -q && vmtape export t --to perfetto-json -o t.json && " +
        "vmtape export t --to perfetto-json -o - | cmp - t.json && " +
        "vmtape export t --to perfetto -o t.pftrace -q && " +
        "vmtape export t --to perfetto -o - | cmp - t.pftrace && " +
        "{ vmtape export t --to perfetto -o t.json; [ $? = 2 ]; } && " +
        "vmtape export t --to perfetto-json -o t.json.gz && gunzip -c t.json.gz | cmp - t.json && " +
        "vmtape record gif-left-set -o g -q && " +
        "vmtape export g --to perfetto-json -p early-exit,unified -o - | grep -q 'GIF stays set' && " +
        "rm g && " +
        "{ head -c 400 t > cut; vmtape export cut --to perfetto -o cut.json; true; } && " +
        "{ vmtape export t --to pprof -o x; [ $? = 2 ]; } && ls",
      folder,
    );
    assertEquals(code, 0, stderr);
    assertMatch(stderr, /^\d+ events, in t\.json$/m);
    const file = JSON.parse(await Deno.readTextFile(`${folder}/t.json`));
    validate(file);
    const bytes = await Deno.readFile(`${folder}/t.pftrace`);
    assertEquals(inOrder(readPackets(bytes)), slicesOf(file));
    const names = (await Array.fromAsync(Deno.readDir(folder))).map(({ name }) => name);
    assert(!names.some((name) => name.endsWith(".part")), names.join());
  }));

Deno.test("a small file that says it has more events than Perfetto shows is refused at once", () =>
  withFolder(async (folder) => {
    const path = `${folder}/t`;
    const turn = () => [{ kind: "warn", vcpu: 0, text: "!pfn" }] as const;
    assert(await writeBomb({ name: "warn", first: [], turn }, path, 1000, 2 ** 31) < 200_000);
    const { code, stderr } = await vmtape(["export", path, "--to", "perfetto", "-o", `${path}.pb`]);
    assertEquals(code, 2, stderr);
    assertMatch(stderr, /holds 1[\d,]{8,} events, .* no more than 10,000,000: .*vmtape cut/);
    assertEquals((await Array.fromAsync(Deno.readDir(folder))).length, 1);
  }));
