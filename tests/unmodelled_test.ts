import { assert, assertEquals, assertMatch } from "@std/assert";
import { Differ, EARLY_EXIT, LINUX_6_12, Replayer, UNIFIED } from "../engine/mod.ts";
import { parseScenarios, recordScenarios } from "../traces/mod.ts";
import { Emulator } from "../traces/scenarios/emulator.ts";
import { compareRecords } from "../traces/compare/compare.ts";
import { vmtapeHere as vmtape, withFolder } from "./cli_process.ts";

/** L2 begins with an instruction that the model does not know: F2XM1. */
const UNKNOWN = "fpu m.9000=f0d9\nnext keepvm\nok\n";

function predictions() {
  const emulator = new Emulator(LINUX_6_12, { npt: true });
  return parseScenarios(UNKNOWN).map((scenario) => emulator.run(scenario));
}

Deno.test("a prediction says what is not modelled, and is no loop of the guest", () => {
  const [fpu, next, ok] = predictions();
  assert(fpu && next && ok);
  assertEquals(fpu.events.at(-1), { unmodelled: "instruction d9f0" });
  assertEquals([fpu.post?.rc, fpu.post?.errno], [-1, 38]);
  assertEquals(next.events[0], { unmodelled: "goes on after: instruction d9f0" });
  assert(!ok.events.some((event) => "unmodelled" in event));
});

Deno.test("a prediction that is not whole agrees with nothing that is", () => {
  const [fpu] = predictions();
  assert(fpu);
  const whole = { ...fpu, events: fpu.events.filter((event) => !("unmodelled" in event)) };
  const fields = compareRecords(whole, fpu).disagreements.map(({ field }) => field);
  assertEquals(fields, ["unmodelled"]);
});

Deno.test("what is not modelled is an event of the trace, and no run that it hits agrees or differs", async () => {
  const events = await Array.fromAsync(
    recordScenarios(parseScenarios(UNKNOWN), EARLY_EXIT),
    (event) => event,
  );
  const said = events.filter((event) => event.kind === "unmodelled").map((event) => event.what);
  assertEquals(said, ["instruction d9f0", "goes on after: instruction d9f0"]);

  const replayer = new Replayer(EARLY_EXIT);
  const differ = new Differ([EARLY_EXIT, UNIFIED], () => {});
  for (const event of events) {
    replayer.feed(event);
    differ.feed(event);
  }
  const { runs, agreed, unmodelled } = replayer.finish();
  assertEquals([runs, agreed], [3, 1]);
  assertEquals([...unmodelled.values()], [1, 1]);
  const diff = differ.finish();
  assertEquals(Object.values(diff.unmodelled), [1, 1]);
  assertEquals(diff.runs, 3);
  assertEquals(diff.different, [1]);
});

Deno.test("replay and diff end with 1 where something is not modelled", () =>
  withFolder(async (folder) => {
    const cases = `${folder}/cases.txt`, trace = `${folder}/t.vmtape`;
    await Deno.writeTextFile(cases, UNKNOWN);
    const predict = await vmtape(["predict", cases]);
    assertMatch(predict.stderr, /fpu: Not modelled: instruction d9f0/);
    await vmtape(["record", cases, "-o", trace]);
    const replay = await vmtape(["replay", trace]);
    assertEquals(replay.code, 1);
    assertMatch(replay.stdout, /Not modelled: instruction d9f0: 1 run is left unknown/);
    const diff = await vmtape([
      "diff",
      trace,
      "-p",
      "linux-6.12,early-exit",
      "--fail-on",
      "outcome",
    ]);
    assertEquals(diff.code, 1);
    assertMatch(diff.stdout, /Not modelled: instruction d9f0: 1 run cannot be compared/);
  }));
