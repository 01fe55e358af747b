import { assert, assertEquals } from "@std/assert";
import { DiffTotal, GroupDiffer } from "../cli/shares/diff_share.ts";
import { groupsOf } from "../cli/shares/groups.ts";
import { copyEvent, memorySource, TraceFile, TraceWriter } from "../codecs/mod.ts";
import { Differ, Findings, type RunDifference } from "../engine/diff/mod.ts";
import type { TraceEvent } from "../engine/event.ts";
import { Replayer } from "../engine/replay/replayer.ts";
import { EARLY_EXIT, UNIFIED } from "../engine/policies/mod.ts";
import { BUILTINS, builtinScenarios } from "../traces/scenarios/builtin.ts";
import { generate } from "../traces/generate/generate.ts";
import { recordScenarios } from "../traces/scenarios/record.ts";
import { parseScenario } from "../traces/scenarios/scenario_reader.ts";

const POLICIES = [EARLY_EXIT, UNIFIED];

/** A trace of many sessions, some of which come again. */
async function manySessions(): Promise<TraceFile> {
  const generated = [...generate({ seed: 3, count: 15 })].map((line) => parseScenario(line));
  const scenarios = [...BUILTINS.flatMap(({ name }) => builtinScenarios(name)), ...generated];
  const chunks: Uint8Array[] = [];
  const writer = new TraceWriter({ write: (chunk) => chunks.push(chunk) });
  for (let round = 0; round < 2; round++) {
    for (const event of recordScenarios(scenarios, EARLY_EXIT)) writer.write(copyEvent(event));
  }
  writer.close();
  const bytes = new Uint8Array(await new Blob(chunks as BlobPart[]).arrayBuffer());
  return await TraceFile.open(memorySource(bytes));
}

Deno.test("groups differ in the same whatever groups were compared before, and add up to the whole", async () => {
  const trace = await manySessions();
  const size = Math.ceil(trace.eventCount / 6);
  const groups = await Array.fromAsync(groupsOf(trace, () => size, true, null));
  assert(groups.length > 4, `${groups.length}`);
  for (const options of [{ each: false, runs: false }, { each: true, runs: true }]) {
    // As two threads may take them.
    const threads = [0, 1].map(() => new GroupDiffer(POLICIES, options));
    const total = new DiffTotal();
    for (const [i, group] of groups.entries()) {
      const share = await threads[i % 3 === 0 ? 0 : 1]!.share(trace, group, false);
      const alone = await new GroupDiffer(POLICIES, options).share(trace, group, false);
      assertEquals(share, alone, `group ${i}`);
      total.add(structuredClone(share));
    }
    const findings = new Findings();
    const differ = new Differ(POLICIES, (difference: RunDifference) => findings.add(difference));
    for await (const event of trace.events()) differ.feed(event);
    assertEquals(total.result, differ.finish());
    assertEquals(total.findings, findings.list());
    assert(total.findings.length > 10, `${total.findings.length}`);
  }
});

Deno.test("what is not modelled in one machine is no matter of the next", () => {
  const events = [...recordScenarios(builtinScenarios("gif-left-set"), EARLY_EXIT)].map(copyEvent);
  const begins = events.findIndex(({ kind }) => kind === "session");
  const gap: TraceEvent = { kind: "unmodelled", vcpu: 0, what: "something" };
  const session = events[begins]!;
  for (
    const make of [() => new Differ(POLICIES, () => {}), () => new Replayer(EARLY_EXIT)]
  ) {
    const unmodelled = (...all: readonly TraceEvent[]) => {
      const one = make();
      for (const event of all) one.feed(event);
      const found = one.finish().unmodelled;
      return found instanceof Map ? Object.fromEntries(found) : found;
    };
    assertEquals(unmodelled(session, gap, ...events), {});
    assertEquals(unmodelled(session, gap, ...events.slice(begins + 1)), {
      "something (in the recording)": 1,
    });
  }
});
