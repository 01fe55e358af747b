import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import fc from "fast-check";
import { align, pairUp, type RecordedRun, RecordedRuns } from "../engine/mod.ts";
import { shell, vmtape, withFolder } from "./cli_process.ts";

/** Length of the longest common subsequence, by the textbook's table. */
function longestCommon(a: readonly number[], b: readonly number[]): number {
  let row = new Array<number>(b.length + 1).fill(0);
  for (const x of a) {
    const next = [0];
    b.forEach((y, j) => next.push(x === y ? row[j]! + 1 : Math.max(row[j + 1]!, next[j]!)));
    row = next;
  }
  return row.at(-1)!;
}

const sequence = fc.array(fc.nat(4), { maxLength: 30, size: "max" });

Deno.test("an alignment pairs what is alike, in order, and as much of it as there is", () => {
  fc.assert(fc.property(sequence, sequence, (a, b) => {
    const { pairs, longest } = align(a, b);
    assert(longest);
    let x = -1, y = -1;
    for (const [i, j] of pairs) {
      assertEquals(a[i], b[j]);
      assert(i > x && j > y);
      [x, y] = [i, j];
    }
    assertEquals(pairs.length, longestCommon(a, b));
  }));
});

Deno.test("sequences that are too far apart are paired in order all the same", () => {
  const a = Array.from({ length: 9000 }, (_, i) => i * 7 % 6007);
  const b = Array.from({ length: 9000 }, (_, i) => i * 11 % 6007);
  const { pairs, longest } = align(a, b);
  assert(!longest && pairs.length > 0);
  pairs.forEach(([i, j], at) => {
    assertEquals(a[i], b[j]);
    assert(at === 0 || pairs[at - 1]![0] < i && pairs[at - 1]![1] < j);
  });
});

Deno.test("runs come together in whatever order their partners come", async () => {
  const run = (event: number) => ({ event }) as RecordedRun;
  await fc.assert(fc.asyncProperty(
    fc.uniqueArray(fc.nat(20), { maxLength: 12 }),
    fc.nat(1000),
    async (places, seed) => {
      const a = places.toSorted((x, y) => x - y);
      const b = places.toSorted((x, y) => (x * seed) % 23 - (y * seed) % 23);
      const pairs = a.map((i, k) => [i, b[k]!] as const);
      const stream = async function* () {
        for (let i = 0; i <= 20; i++) yield run(i);
      };
      const found = await Array.fromAsync(pairUp(pairs, stream(), stream()));
      assertEquals(found.map(([x, y]) => [x.event, y.event]), pairs.map((pair) => [...pair]));
    },
  ));
});

Deno.test("of a log, every VMRUN is a run, and so is a check that failed before one was seen", () => {
  const runs: RecordedRun[] = [];
  const collector = new RecordedRuns((run) => runs.push(run));
  collector.feed({ kind: "session", vcpu: 0, meta: { source: "kvm-tracepoints" } });
  collector.feed({ kind: "check", vcpu: 0, check: "asid-zero" });
  collector.feed({ kind: "exit", vcpu: 0 });
  collector.feed({ kind: "vmrun", vcpu: 0, rip: 0x400a5bn, vmcb12_gpa: 0x1000n });
  collector.feed({ kind: "lost", vcpu: 0, count: 2n });
  collector.feed({ kind: "exit", vcpu: 0 });
  collector.finish();
  assertEquals(runs.map((run) => [run.event, run.reports.length, run.broken]), [
    [1, 1, false],
    [3, 0, true],
  ]);
});

const RECORD = "vmtape record gif-left-set enter eventinj-left -q -p";

Deno.test("diff of two recordings groups what differs, outcomes first, and ends with 1", () =>
  withFolder(async (folder) => {
    const { code, stdout, stderr } = await shell(
      `${RECORD} early-exit -o before.vmtape; ${RECORD} unified -o after.vmtape; ` +
        "vmtape diff before.vmtape after.vmtape",
      folder,
    );
    assertEquals([code, stderr], [1, ""]);
    assertMatch(stdout, /^before and after: 3 runs of 3 and 3 align by scenario \(100\.0 %\)/);
    assertMatch(stdout, /GIF stays set after a failed consistency check under before \(2 runs\)/);
    assertMatch(stdout, /^ {5}nested gif: 0x1 \/ 0x0$/m);
    assertMatch(stdout, /vmtape dump before\.vmtape --from \d+ .*; vmtape dump after\.vmtape/);
    const json = JSON.parse(
      (await shell("vmtape diff before.vmtape after.vmtape --json", folder)).stdout,
    );
    assertEquals([json.aligned, json.by, json.different], [3, "scenario", 3]);
  }));

Deno.test("diff of a recording and the same again is silent with 0; of a missing run it is not", () =>
  withFolder(async (folder) => {
    const { stdout } = await shell(
      `${RECORD} unified -o a; ${RECORD} unified -o b; vmtape record enter -p unified -q -o c; ` +
        "vmtape diff a b; echo $?; vmtape diff a c; echo $?; vmtape diff a c --fail-on none; " +
        "echo $?; vmtape diff a b --fail-on outcome >/dev/null; echo $?",
      folder,
    );
    assertEquals(stdout.split("\n"), [
      "a and b: 3 runs of 3 and 3 align by scenario (100.0 %), 0 of them differ",
      "0",
      "a and c: 1 run of 3 and 1 aligns by scenario (50.0 %), 0 of them differ",
      "Only in a: 2 runs, the first gif-left-set",
      "1",
      "a and c: 1 run of 3 and 1 aligns by scenario (50.0 %), 0 of them differ",
      "Only in a: 2 runs, the first gif-left-set",
      "0",
      "0",
      "",
    ]);
  }));

Deno.test("diff of two recordings refuses what makes no sense", () =>
  withFolder(async (folder) => {
    await shell(`${RECORD} unified -o a`, folder);
    for (
      const [args, message] of [
        [["a", "a", "-p", "unified,early-exit"], "--policies and a second trace exclude"],
        [["a", "a", "--jobs", "2"], "--jobs and a second trace exclude"],
        [["a", "a", "--fail-on", "outcom"], 'did you mean "outcome"?'],
        [["a"], "--policies A,B… is needed, or a second recording"],
        [["a", "-"], "name files, not -"],
      ] as const
    ) {
      const { code, stderr } = await vmtape(["diff", ...args], { cwd: folder });
      assertEquals(code, 2, stderr);
      assertStringIncludes(stderr, message);
    }
  }));
