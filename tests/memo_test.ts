import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import { copyEvent, readTrace, TraceWriter } from "../codecs/mod.ts";
import type { Image, TraceEvent } from "../engine/event.ts";
import {
  ARCHITECTURAL,
  Differ,
  EARLY_EXIT,
  type Finding,
  Findings,
  LINUX_6_12,
  MemoizedDiffer,
  MemoizedReplayer,
  type Mismatch,
  OK,
  type Policy,
  Replayer,
  type ReplayResult,
  type RunDifference,
  type Step,
  UNIFIED,
} from "../engine/mod.ts";
import { BUILTINS, builtinScenarios } from "../traces/scenarios/builtin.ts";
import { recordScenarios } from "../traces/scenarios/record.ts";
import type { Scenario } from "../traces/scenarios/scenario.ts";
import { parseScenario } from "../traces/scenarios/scenario_reader.ts";

const ALL = BUILTINS.flatMap(({ name }) => builtinScenarios(name));
const POLICIES = [EARLY_EXIT, UNIFIED, LINUX_6_12, ARCHITECTURAL];

/** A few scenarios, in an order in which they come again; now and then on a new vCPU. */
const sequences = fc.tuple(
  fc.array(fc.constantFrom(...ALL), { minLength: 1, maxLength: 4 }),
  fc.array(fc.tuple(fc.nat(3), fc.integer({ min: 0, max: 19 })), { minLength: 1, maxLength: 30 }),
  fc.integer({ min: 1, max: 4 }),
).map(([pool, order, times]) => {
  const once = order.map(([pick, fresh]): Scenario => {
    const scenario = pool[pick % pool.length]!;
    return fresh === 0 || scenario.keepvm
      ? scenario
      : parseScenario(`${scenario.name} ${scenario.spec} keepvm`);
  });
  return Array.from({ length: times }, () => once).flat();
});

async function encode(
  scenarios: readonly Scenario[],
  policy: Policy,
  npt: boolean,
): Promise<Uint8Array[]> {
  const chunks: Uint8Array[] = [];
  const writer = new TraceWriter({ write: (chunk) => void chunks.push(chunk) });
  for await (const event of recordScenarios(scenarios, policy, { npt })) {
    writer.write(copyEvent(event));
  }
  writer.close();
  return chunks;
}

async function feed(chunks: readonly Uint8Array[], take: (event: TraceEvent) => void) {
  for await (const block of (await readTrace(chunks)).blocks()) {
    for (const event of block.shared()) take(event);
  }
}

function replayerOf(policy: Policy, memoize: boolean, found: Mismatch[]) {
  const report = (mismatch: Mismatch) => void found.push(mismatch);
  return memoize ? new MemoizedReplayer(policy, report) : new Replayer(policy, report);
}

/** Events that were not carried out. */
function repeatedBy(one: object): number {
  return one instanceof MemoizedReplayer || one instanceof MemoizedDiffer ? one.repeated : 0;
}

interface Replayed {
  readonly result: ReplayResult;
  readonly found: readonly Mismatch[];
  readonly repeated: number;
}

async function replayed(
  chunks: readonly Uint8Array[],
  policy: Policy,
  memoize: boolean,
): Promise<Replayed> {
  const found: Mismatch[] = [];
  const replayer = replayerOf(policy, memoize, found);
  await feed(chunks, (event) => replayer.feed(event));
  return { result: replayer.finish(), found, repeated: repeatedBy(replayer) };
}

interface Compared {
  readonly result: unknown;
  readonly found: readonly RunDifference[];
  readonly findings: readonly Finding[];
  readonly repeated: number;
}

async function compared(
  chunks: readonly Uint8Array[],
  policies: readonly Policy[],
  memoize: boolean,
): Promise<Compared> {
  const found: RunDifference[] = [];
  const findings = new Findings();
  const differ = new (memoize ? MemoizedDiffer : Differ)(policies, (difference) => {
    found.push(difference);
    findings.add(difference);
  });
  await feed(chunks, (event) => differ.feed(event));
  return {
    result: differ.finish(),
    found,
    findings: findings.list(),
    repeated: repeatedBy(differ),
  };
}

const some = { numRuns: 60, endOnFailure: true };
const anyPolicy = fc.constantFrom(...POLICIES);

Deno.test("a replay that takes over runs that come again finds what carrying out every run finds", async () => {
  let repeated = 0, mismatches = 0;
  await fc.assert(
    fc.asyncProperty(sequences, anyPolicy, anyPolicy, fc.boolean(), async (list, a, b, npt) => {
      const chunks = await encode(list, a, npt);
      for (const policy of [a, b]) {
        const { repeated: times, ...fast } = await replayed(chunks, policy, true);
        const { repeated: none, ...whole } = await replayed(chunks, policy, false);
        assertEquals(fast, whole);
        assertEquals(none, 0);
        repeated += times;
        mismatches += fast.found.length;
      }
    }),
    some,
  );
  // Otherwise nothing was tested.
  assert(repeated > 100 && mismatches > 0, `${repeated} repeated, ${mismatches} mismatches`);
});

Deno.test("a diff that takes over runs that come again finds what carrying out every run finds", async () => {
  let repeated = 0, carried = 0;
  // In the second, a run that comes again follows on from itself.
  for (const which of [some, { seed: -1157057920, path: "40" }]) {
    await fc.assert(
      fc.asyncProperty(sequences, anyPolicy, anyPolicy, fc.boolean(), async (list, a, b, npt) => {
        const chunks = await encode(list, a, npt);
        const policies = [a, b, LINUX_6_12];
        const { repeated: times, ...fast } = await compared(chunks, policies, true);
        const { repeated: _, ...whole } = await compared(chunks, policies, false);
        assertEquals(fast, whole);
        repeated += times;
        carried += fast.found.filter(({ fields }) => fields.some((field) => field.origin)).length;
      }),
      which,
    );
  }
  assert(repeated > 100 && carried > 0, `${repeated} repeated, ${carried} carried`);
});

/** Flips a bit of an image of one event, as `where` picks it. */
function damage(events: readonly TraceEvent[], where: number): TraceEvent[] {
  const images = events.flatMap((event, i) =>
    Object.entries(event).flatMap(([name, value]) =>
      typeof value === "object" && value.bytes instanceof Uint8Array
        ? [{ i, name, image: value as Image }]
        : []
    )
  );
  const { i, name, image } = images[where % images.length]!;
  const bytes = image.bytes.slice();
  const at = where % (8 * bytes.length);
  bytes[at >> 3]! ^= 1 << (at & 7);
  return events.with(i, { ...events[i]!, [name]: { ...image, bytes } });
}

Deno.test("one bit that is not as before is not passed over", async () => {
  const events: TraceEvent[] = [];
  for await (
    const event of recordScenarios(builtinScenarios("enter"), LINUX_6_12, { repeat: 12 })
  ) {
    events.push(copyEvent(event));
  }
  let repeated = 0, mismatches = 0;
  const replay = (list: readonly TraceEvent[], memoize: boolean) => {
    const found: Mismatch[] = [];
    const replayer = replayerOf(LINUX_6_12, memoize, found);
    for (const event of list) replayer.feed(event);
    const result = replayer.finish();
    repeated += repeatedBy(replayer);
    mismatches += found.length;
    return { result, found };
  };
  fc.assert(
    fc.property(fc.array(fc.nat(), { minLength: 1, maxLength: 3 }), (places) => {
      const list = places.reduce(damage, events);
      assertEquals(replay(list, true), replay(list, false));
    }),
    { numRuns: 100 },
  );
  assert(repeated > 0 && mismatches > 0, `${repeated} repeated, ${mismatches} mismatches`);
});

Deno.test("runs under a policy with a step of one's own are all carried out", async () => {
  let ran = 0;
  const step: Step = {
    name: "count",
    doc: "Counts what the vCPU does not know",
    run: () => (ran++, OK),
  };
  const policy: Policy = {
    ...LINUX_6_12,
    ways: { ...LINUX_6_12.ways, vmrun: [{ step }, ...LINUX_6_12.ways.vmrun] },
  };
  const chunks = await encode(Array(12).fill(builtinScenarios("enter")).flat(), LINUX_6_12, true);
  const { result, repeated } = await replayed(chunks, policy, true);
  assertEquals([ran, repeated], [result.runs, 0]);
});
