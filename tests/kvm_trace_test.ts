import { assert, assertEquals } from "@std/assert";
import {
  formatLabRecord,
  type LabRecord,
  labRecords,
  parseLabRecord,
  TraceWriter,
} from "../codecs/mod.ts";
import { EARLY_EXIT, LINUX_6_12, type Mismatch, Replayer, type TraceEvent } from "../engine/mod.ts";
import { compare, importLab, parseScenario } from "../traces/mod.ts";
import { Emulator } from "../traces/scenarios/emulator.ts";
import { vmtapeHere as vmtape } from "./cli_process.ts";

/** What a recorder outside the kernel would have seen of a scenario: no inner states, no broken assertions. */
function outside(line: string, sees: readonly string[], policy = LINUX_6_12): LabRecord {
  const record = new Emulator(policy, { npt: true }).run(parseScenario(line));
  const all = record.events.filter((event) => "check_failed" in event);
  const events = sees.includes("check") ? all : [];
  // The check of a refused RSM is the only one: it comes after both looks.
  const looked = record.mid ? { looked: { mid: 0, smm: 0 } } : {};
  return { ...record, kernel: "6.12.117", sees, events, ...looked };
}

async function eventsOf(...records: LabRecord[]): Promise<TraceEvent[]> {
  return await Array.fromAsync(importLab(records));
}

function replay(events: readonly TraceEvent[], policy = LINUX_6_12) {
  const found: Mismatch[] = [];
  const replayer = new Replayer(policy, (mismatch) => found.push(mismatch));
  for (const event of events) replayer.feed(event);
  return { result: replayer.finish(), found };
}

const CASES = ["ok", "asid0 c.58.4=0 gif=0", "rsm_bad entry=rsm xs.d0=500", "set entry=setstate"];

for (const sees of [["check"], []]) {
  Deno.test(`what a source that sees ${sees.join() || "no reports"} left out is no mismatch`, async () => {
    const events = await eventsOf(...CASES.map((line) => outside(line, sees)));
    const { result, found } = replay(events);
    assertEquals(found, []);
    assertEquals(result.agreed, CASES.length);
    assertEquals(result.outcomes.get("check")?.compared, sees.length === 0 ? undefined : 2);
    assertEquals(result.outcomes.has("inner"), false);
  });

  Deno.test(`such records, seeing ${sees.join() || "no reports"}, come back from a trace`, async () => {
    const records = CASES.map((line) => outside(line, sees));
    const back = await Array.fromAsync(labRecords(await eventsOf(...records)));
    assertEquals(back.map(({ sees }) => sees), records.map(({ sees }) => sees));
    const text = records.map((record) => parseLabRecord(formatLabRecord(record)));
    assertEquals(text, records);
    const { groups } = await compare(records, back);
    assertEquals(groups[4], { cases: CASES.length, agreed: CASES.length });
    assertEquals(groups[1].cases, sees.length === 0 ? 0 : CASES.length);
    assertEquals([groups[2].cases, groups[3].cases], [0, 0]);
  });
}

Deno.test("a failed check that was seen counts", async () => {
  const record = outside("asid0 c.58.4=0", ["check"]);
  const { found } = replay(await eventsOf({ ...record, events: [] }));
  assertEquals(found.map(({ field }) => field), ["outcome"]);
  const { groups } = await compare([record], [{ ...record, events: [] }]);
  assertEquals(groups[1], { cases: 1, agreed: 0 });
});

Deno.test("what was reported after the handler's turn stands behind it in the trace", async () => {
  const events = await eventsOf(outside("rsm_bad entry=rsm xs.d0=500", ["check"]));
  const kinds = events.map(({ kind }) => kind).filter((kind) => /rsm|check|smi/.test(kind));
  assertEquals(kinds, ["smi", "rsm", "check"]);
});

Deno.test("identify names the kernel, and ends with 1 when it cannot", async () => {
  const folder = await Deno.makeTempDir();
  try {
    const write = async (name: string, ...records: LabRecord[]) => {
      const file = await Deno.open(`${folder}/${name}`, { write: true, createNew: true });
      const writer = new TraceWriter({ write: (bytes) => void file.writeSync(bytes), close() {} });
      for (const event of await eventsOf(...records)) writer.write(event);
      writer.close();
      file.close();
      return `${folder}/${name}`;
    };
    const told = await write(
      "told",
      ...CASES.map((line) => outside(line, ["check"], EARLY_EXIT)),
      outside("left c.58.4=0", ["check"], EARLY_EXIT),
    );
    const { code, stdout } = await vmtape(["identify", told]);
    assertEquals([code, stdout.split("\n")[0]], [
      0,
      "This kernel is of the kind early-exit, with the checks of linux-6.12",
    ]);
    const json = JSON.parse((await vmtape(["identify", told, "--json"])).stdout);
    assertEquals(json.verdict.policy, "early-exit");
    assert(
      json.candidates.some(({ policy, first }: { policy: string; first?: unknown }) =>
        policy === "linux-6.12" && first !== undefined
      ),
    );
    const quiet = await vmtape(["identify", await write("quiet", outside("ok", []))]);
    assertEquals(quiet.code, 1);
    assertEquals((await vmtape(["identify", "-"])).code, 2);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});
