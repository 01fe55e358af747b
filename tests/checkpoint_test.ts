import { assert, assertEquals, assertThrows } from "@std/assert";
import {
  CheckpointError,
  EARLY_EXIT,
  LINUX_6_12,
  Replayer,
  type TraceEvent,
  UNIFIED,
} from "../engine/mod.ts";
import { BUILTINS, builtinScenarios, parseScenarios, recordScenarios } from "../traces/mod.ts";

/** Scenarios of all ways in, some of them on a vCPU that keeps its state. */
async function events(): Promise<TraceEvent[]> {
  const sequence = parseScenarios(`one control.asid=0
two keepvm keepmem
three keepvm keepmem save.efer=0x500
four keepvm control.event_inj=0x80000202
five keepvm keepmem`);
  const builtins = BUILTINS.flatMap(({ name }) => builtinScenarios(name));
  const all = recordScenarios([...builtins, ...sequence], UNIFIED, {});
  const found: TraceEvent[] = [];
  for await (const event of all) found.push(structuredClone(event));
  return found;
}

Deno.test("a replay that begins at a checkpoint ends with the digest of the whole", async () => {
  const trace = await events();
  for (const policy of [UNIFIED, EARLY_EXIT]) {
    const whole = new Replayer(policy);
    const saved: { at: number; state: Uint8Array }[] = [];
    trace.forEach((event, at) => {
      if (event.kind === "case") {
        const state = whole.save();
        if (state !== undefined) saved.push({ at, state });
      }
      whole.feed(event);
    });
    const { digest, digested, runs } = whole.finish();
    assert(saved.length > 10, "There must be something to begin at");
    for (const { at, state } of saved) {
      const part = new Replayer(policy);
      part.resume(state);
      for (const event of trace.slice(at)) part.feed(event);
      const result = part.finish();
      assertEquals(
        [result.digest, result.digested, result.events],
        [digest, digested, trace.length],
      );
      assert(result.runs <= runs);
    }
  }
});

Deno.test("a checkpoint of another policy, another version or with damage is refused", async () => {
  const replayer = new Replayer(UNIFIED);
  let state: Uint8Array | undefined;
  for (const event of (await events()).slice(0, 200)) {
    if (event.kind === "case") state = replayer.save() ?? state;
    replayer.feed(event);
  }
  assert(state !== undefined);
  assertThrows(() => new Replayer(LINUX_6_12).resume(state), CheckpointError, "unified");
  // A policy is what it does, not what it is called.
  const { ways } = UNIFIED;
  const shorter = { ...UNIFIED, ways: { ...ways, vmrun: ways.vmrun.slice(1) } };
  for (const other of [shorter, { ...LINUX_6_12, name: "unified" }]) {
    assertThrows(() => new Replayer(other).resume(state), CheckpointError, "another unified");
  }
  new Replayer({ ...UNIFIED, doc: "In other words" }).resume(state);
  const newer = state.slice();
  newer[0] = 99;
  for (
    const bytes of [newer, state.subarray(0, 5), state.subarray(0, -1), state.fill(0x7b, 8, 16)]
  ) assertThrows(() => new Replayer(UNIFIED).resume(bytes), CheckpointError);
});
