import { assert, assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { ShardError, UsageError } from "../cli/errors.ts";
import { checksumOf } from "../cli/shares/shard_check.ts";
import { parseShard, wholeOf } from "../cli/shares/shard_file.ts";
import { copyEvent, fileSink, fileSource, TraceFile, TraceWriter } from "../codecs/mod.ts";
import { Latency, LINUX_6_12 } from "../engine/mod.ts";
import { BUILTINS, builtinScenarios } from "../traces/scenarios/builtin.ts";
import { generate } from "../traces/generate/generate.ts";
import { Random } from "../traces/generate/random.ts";
import { recordScenarios } from "../traces/scenarios/record.ts";
import { parseScenario } from "../traces/scenarios/scenario_reader.ts";
import { vmtapeHere as vmtape, withFolder } from "./cli_process.ts";
import { pageData, shownOf } from "./report_data.ts";

const SHARDS = 8;

/** A trace of many sessions, each scenario its own. */
async function manySessions(path: string): Promise<void> {
  const generated = [...generate({ seed: 11, count: 60 })].map((line) => parseScenario(line));
  const scenarios = [...BUILTINS.flatMap(({ name }) => builtinScenarios(name)), ...generated];
  using sink = fileSink(path);
  const writer = new TraceWriter(sink, { meta: { source: "emulator", policy: LINUX_6_12.name } });
  for await (const event of recordScenarios(scenarios, LINUX_6_12)) writer.write(copyEvent(event));
  writer.close();
}

const LINES = [
  ["replay"],
  ["replay", "--policy", "unified", "--all"],
  ["diff", "--policies", "early-exit,unified,linux-6.12"],
  ["diff", "--policies", "early-exit,unified", "--runs"],
  ["diff", "--policies", "early-exit,unified", "--each"],
];

Deno.test("replay and diff print the same whatever the number of threads", async () => {
  await withFolder(async (folder) => {
    const trace = `${folder}/t.vmtape`;
    await manySessions(trace);
    for (const [command = "", ...options] of LINES) {
      for (const json of [[], ["--json"]]) {
        const line = [command, trace, ...options, ...json];
        const one = await vmtape(line);
        assert(one.stdout.length > 100, one.stderr);
        const jobs = json.length > 0 ? "2" : "3";
        const { code, stdout, stderr } = await vmtape([...line, "--jobs", jobs]);
        assertEquals({ code, stdout, stderr }, { ...one, stderr: "" });
      }
    }
  });
});

Deno.test("a report shows the same whatever the number of threads", async () => {
  await withFolder(async (folder) => {
    const trace = `${folder}/t.vmtape`;
    await manySessions(trace);
    const shown = async (jobs: string) => {
      const page = `${folder}/${jobs}.html`;
      const policies = ["-p", "early-exit,unified,linux-6.12", "--passes", "0"];
      const { code, stderr } = await vmtape(
        ["report", trace, ...policies, "-o", page, "--jobs", jobs],
      );
      assertEquals(code, 1, stderr);
      return shownOf(pageData(await Deno.readTextFile(page)));
    };
    const one = await shown("1"), two = await shown("2");
    // Run by run: the whole is long.
    for (const [name, part] of Object.entries(one)) {
      assert(JSON.stringify(part) === JSON.stringify(two[name]), `${name} is another`);
    }
    assert(JSON.stringify(one).length > 100_000);
  });
});

Deno.test("merge prints what one run would have, from eight processes", async () => {
  await withFolder(async (folder) => {
    const trace = `${folder}/t.vmtape`;
    await manySessions(trace);
    for (const [command = "", ...options] of LINES) {
      const parts = await Promise.all(
        Array.from({ length: SHARDS }, async (_, i) => {
          const shard = ["--shard", `${i}/${SHARDS}`, "--json"];
          const { code, stdout, stderr } = await vmtape([command, trace, ...options, ...shard]);
          assertEquals([code, stderr], [0, ""]);
          const path = `${folder}/${SHARDS - i}.json`;
          await Deno.writeTextFile(path, stdout);
          return path;
        }),
      );
      for (const json of [[], ["--json"]]) {
        const one = await vmtape([command, trace, ...options, ...json]);
        assertEquals(await vmtape(["merge", ...parts.toReversed(), ...json]), one);
      }
      const missing = await vmtape(["merge", ...parts.slice(1)]);
      assertEquals(missing.code, 2);
      assertStringIncludes(missing.stderr, "these are missing: 0");
      const newer = `${folder}/newer.json`;
      const text = JSON.parse(await Deno.readTextFile(parts[0]!));
      await Deno.writeTextFile(newer, JSON.stringify({ ...text, format: text.format + 1 }));
      const refused = await vmtape(["merge", newer, ...parts.slice(1)]);
      assertEquals(refused.code, 4);
      assertStringIncludes(refused.stderr, "print the parts again with one version");
    }
  });
});

Deno.test("merge counts the transitions that one run of stats would have timed", async () => {
  await withFolder(async (folder) => {
    const trace = `${folder}/t.vmtape`;
    await manySessions(trace);
    const measure = async (more: readonly string[]) =>
      (await vmtape(["stats", trace, "-p", "unified", "--passes", "1", "--json", ...more])).stdout;
    const parts: string[] = [];
    for (let i = 0; i < 2; i++) {
      parts.push(`${folder}/${i}.json`);
      await Deno.writeTextFile(parts[i]!, await measure(["--shard", `${i}/2`]));
    }
    const counts = (text: string) =>
      JSON.parse(text).rows.map((row: { kind: string; count: number }) => [row.kind, row.count]);
    const { stdout } = await vmtape(["merge", ...parts, "--json"]);
    assertEquals(counts(stdout), counts(await measure([])));
  });
});

Deno.test("Latency gives the same from eight encoded parts as from one", async () => {
  using one = await Latency.create();
  using merged = await Latency.create();
  const random = new Random(1);
  for (let part = 0; part < SHARDS; part++) {
    using own = await Latency.create();
    for (let i = 0; i < 500; i++) {
      const kind = i % 3 === 0 ? "entered" : "#VMEXIT";
      const ns = random.below(10_000_019);
      for (const latency of [one, own]) latency.record("unified", kind, ns);
    }
    for (const encoded of own.encode()) merged.add(JSON.parse(JSON.stringify(encoded)));
  }
  assertEquals(merged.rows(), one.rows());
  for (const kind of ["entered", "#VMEXIT"] as const) {
    assertEquals(merged.distribution("unified", kind), one.distribution("unified", kind));
  }
});

Deno.test("A trace of one session is carried out by one thread, and says so", async () => {
  await withFolder(async (folder) => {
    const trace = `${folder}/t.vmtape`;
    await vmtape(["record", "enter", "--repeat", "50", "-o", trace]);
    const one = await vmtape(["replay", trace]);
    const { code, stdout, stderr } = await vmtape(["replay", trace, "--jobs", "2"]);
    assertEquals([code, stdout], [one.code, one.stdout]);
    assertStringIncludes(stderr, "Nothing to share out");
    const usage = await vmtape(["replay", trace, "--shard", "2/2", "--json"]);
    assertEquals(usage.code, 2);
  });
});

Deno.test("A trace of one session is shared out at its checkpoints", async () => {
  await withFolder(async (folder) => {
    const trace = `${folder}/t.vmtape`;
    const names = ["enter", "gif-left-set", "rsm", "setstate", "nmi-tracking-left"];
    await vmtape(["record", ...names, "-p", "early-exit", "--repeat", "80", "-o", trace]);
    for (const policy of ["early-exit", "unified"]) {
      const seekable = `${folder}/${policy}.vmtape`;
      const made = await vmtape(
        ["checkpoint", trace, "-p", policy, "--every", "500", "-o", seekable],
      );
      assertEquals(made.code, 0, made.stderr);
      for (const options of [[], ["--all"], ["--json"]]) {
        const line = ["replay", seekable, "--policy", policy, ...options];
        const one = await vmtape(line);
        const { code, stdout, stderr } = await vmtape([...line, "--jobs", "3"]);
        assertEquals({ code, stdout, stderr }, { ...one, stderr: "" });
        const parts = await Promise.all([0, 1, 2].map(async (i) => {
          const part = await vmtape([...line, "--shard", `${i}/3`, "--json"]);
          const path = `${folder}/${i}.json`;
          await Deno.writeTextFile(path, part.stdout);
          return path;
        }));
        const json = options.includes("--json") ? ["--json"] : [];
        const merged = await vmtape(["merge", ...parts, ...json]);
        assertEquals([merged.code, merged.stdout], [one.code, one.stdout]);
      }
    }
    // One that comes late is a place to cut as well, behind where the first part should have ended.
    const late = `${folder}/late.vmtape`;
    await vmtape(["checkpoint", trace, "-p", "early-exit", "--every", "3000", "-o", late]);
    using source = fileSource(late);
    const { checkpoints, eventCount } = await TraceFile.open(source);
    assert(checkpoints[0]! > eventCount / 4, `${checkpoints} of ${eventCount}`);
    const shared = await vmtape(["replay", late, "--jobs", "4"]);
    assertEquals(shared.stderr, "");
    assertEquals(shared.stdout, (await vmtape(["replay", late])).stdout);
    // A checkpoint is of one policy: under another there is no place to begin at.
    const other = await vmtape(["replay", `${folder}/unified.vmtape`, "--jobs", "2"]);
    assertStringIncludes(other.stderr, "Nothing to share out");
  });
});

Deno.test("replay and diff print the same whether or not they carry out what repeats", async () => {
  await withFolder(async (folder) => {
    const trace = `${folder}/t.vmtape`;
    const names = ["enter", "gif-left-set", "eventinj-left", "msrpm-in-vmcb01"];
    await vmtape(["record", ...names, "--repeat", "40", "-p", "early-exit", "-o", trace]);
    for (
      const line of [
        ["replay", trace],
        ["replay", trace, "--policy", "unified", "--all"],
        ["diff", trace, "--policies", "early-exit,unified,linux-6.12", "--json"],
        ["diff", trace, "--policies", "early-exit,unified", "--runs"],
      ]
    ) {
      const taken = await vmtape(line);
      assert(taken.stdout.length > 100, taken.stderr);
      assertEquals(await vmtape([...line, "--each"]), taken);
    }
  });
});

/** Every place in a value, with a few things to put there. */
function* tamperings(value: unknown, set: (value: unknown) => void): Generator<() => void> {
  if (Array.isArray(value)) {
    if (value.length > 0) {
      yield () => set(value.slice(1));
      yield () => set([...value, value[0]]);
    }
    for (const [i, item] of value.entries()) {
      yield* tamperings(item, (other) => set(value.with(i, other)));
    }
  } else if (typeof value === "object" && value !== null) {
    const map = value as Record<string, unknown>;
    for (const [name, item] of Object.entries(map)) {
      const { [name]: _, ...rest } = map;
      yield () => set(rest);
      yield* tamperings(item, (other) => set({ ...map, [name]: other }));
    }
    yield () => set({ ...map, more: 1 });
  } else if (typeof value === "number") {
    for (const other of [value + 1, value - 1, -1, 4e9, 0.5, null]) yield () => set(other);
  } else if (typeof value === "string") {
    for (const other of [`${value}x`, "", value.replace(/\d/, "7"), 1]) {
      if (other !== value) yield () => set(other);
    }
  } else yield () => set(!value);
}

Deno.test("no part that was tampered with is merged into another result", async () => {
  await withFolder(async (folder) => {
    const trace = `${folder}/t`;
    await vmtape(["record", "enter", "gif-left-set", "asid-zero-eventinj", "-o", trace]);
    await vmtape(["record", "-q", "-f", "--repeat", "2", "-o", trace]);
    let tried = 0;
    for (
      const line of [
        ["replay", trace, "--policy", "unified"],
        ["diff", trace, "--policies", "early-exit,unified"],
        ["stats", trace, "--passes", "1", "--policies", "unified"],
      ]
    ) {
      const texts = await Promise.all(
        [0, 1].map(async (i) => (await vmtape([...line, "--shard", `${i}/2`, "--json"])).stdout),
      );
      const whole = texts.map((text, i) => [`${i}`, parseShard(`${i}`, text)] as const);
      assertEquals(wholeOf(whole).length, 2);
      const part = JSON.parse(texts[0]!) as unknown;
      let changed: unknown = part;
      for (const tamper of tamperings(part, (value) => changed = value)) {
        tamper();
        // Half of them by somebody who knows how the checksum is made.
        for (const seal of [false, true]) {
          if (seal && line[0] === "stats") continue;
          const text = seal
            ? { ...changed as object, checksum: checksumOf(changed as Record<string, unknown>) }
            : changed;
          tried++;
          if (seal) {
            // What then passes still is a whole run.
            try {
              wholeOf([["0", parseShard("0", JSON.stringify(text))], whole[1]!]);
            } catch (error) {
              if (!(error instanceof ShardError || error instanceof UsageError)) throw error;
            }
          } else assertThrows(() => parseShard("0", JSON.stringify(text)), ShardError);
        }
      }
      for (const parts of [[0], [1], [0, 0], [0, 1, 1]]) {
        assertThrows(() => wholeOf(parts.map((i) => whole[i]!)), UsageError);
      }
    }
    assert(tried > 1000, `${tried}`);
  });
});
