import { assert, assertEquals, assertNotEquals, assertStringIncludes } from "@std/assert";
import { fileSink, TraceWriter } from "../codecs/mod.ts";
import type { TraceEvent } from "../engine/mod.ts";
import { POLICIES } from "../engine/policies/mod.ts";
import { builtinScenarios, recordScenarios } from "../traces/mod.ts";
import { shell, vmtapeHere as vmtape, withFolder } from "./cli_process.ts";

for (const policy of Object.keys(POLICIES)) {
  Deno.test(`what ${policy} recorded, ${policy} replays, to the same digest every time`, () =>
    withFolder(async (folder) => {
      const trace = `${folder}/t`;
      assertEquals((await vmtape(["record", "-o", trace, "--policy", policy])).code, 0);
      const first = await vmtape(["replay", trace, "--json"]);
      assertEquals(first.code, 0, first.stdout);
      const { replays: [replay], mismatches } = JSON.parse(first.stdout);
      assertEquals([replay.policy, mismatches], [policy, 0]);
      assert(replay.runs > 20 && replay.agreed === replay.runs);
      assertEquals((await vmtape(["replay", trace, "--json"])).stdout, first.stdout);
    }));
}

Deno.test("replay under another policy lists what it changes, by field, with status 1", () =>
  withFolder(async (folder) => {
    const trace = `${folder}/t`;
    await vmtape(["record", "gif-left-set", "-o", trace, "-p", "early-exit"]);
    const { code, stdout } = await vmtape(["replay", trace, "--policy", "linux-6.12"]);
    assertEquals(code, 1);
    assertStringIncludes(stdout, "linux-6.12: 0 of 1 runs agree in everything");
    assertStringIncludes(stdout, "(gif-left-set): recorded 0x1, replayed 0x0");
    const all = await vmtape(["replay", trace, "-p", "linux-6.12", "--all", "--json"]);
    const objects = all.stdout.trimEnd().split("\n").map((line) => JSON.parse(line));
    assert(objects.some((mismatch) => mismatch.field === "post.gif"));
    assertEquals(objects.at(-1).mismatches, objects.length - 1);
    const own = JSON.parse((await vmtape(["replay", trace, "--json"])).stdout);
    assertNotEquals(own.replays[0].digest, objects.at(-1).replays[0].digest);
  }));

Deno.test("replay takes each session's own policy, and a pipe", () =>
  withFolder(async (folder) => {
    const { code, stdout, stderr } = await shell(
      `vmtape record enter -o a -p unified -q && vmtape record enter -o b -p linux-6.12 -q &&
       vmtape cat a b -o both -q && vmtape replay - --json < both`,
      folder,
    );
    assertEquals(code, 0, stderr);
    const { replays } = JSON.parse(stdout);
    assertEquals(replays.map((r: { policy: string }) => r.policy), ["unified", "linux-6.12"]);
  }));

Deno.test("replay of a trace that names no policy takes what identify finds, and says so", () =>
  withFolder(async (folder) => {
    const line = (i: number, text: string) => `qemu-7 [000] ..... 3.64890${i}: ${text}\n`;
    // Only unified prints that L2 is entered before a check fails.
    await Deno.writeTextFile(
      `${folder}/log`,
      line(
        1,
        "kvm_nested_vmenter: rip: 0x0000000000400863 vmcb: 0x000000000799a000 " +
          "nested_rip: 0x00000000004001c8 int_ctl: 0x01000001 event_inj: 0x00000000 " +
          "nested_npt=y nested_cr3: 0x0000000001074000",
      ) + line(2, "kvm_nested_vmenter_failed: control->asid == 0"),
    );
    const { code, stdout, stderr } = await shell(
      "vmtape import log -o t -q && vmtape replay t",
      folder,
    );
    assertEquals(code, 0, stderr + stdout);
    assertStringIncludes(stderr, "Replayed under unified, since the trace does not say");
    const piped = await shell("vmtape replay - < t", folder);
    assertEquals(piped.code, 2);
    assertStringIncludes(piped.stderr, "name one with --policy");
  }));

Deno.test("one session that says nothing of its policy, wherever it is, has identify pick one for all", () =>
  withFolder(async (folder) => {
    await using trace = await Deno.open(`${folder}/t`, { write: true, create: true });
    const writer = new TraceWriter({ write: (chunk) => void trace.writeSync(chunk) });
    for (const policy of ["linux-6.12", undefined, "unified"]) {
      for (const event of recordScenarios(builtinScenarios("enter"), POLICIES["linux-6.12"]!)) {
        writer.write(
          event.kind === "session" ? { ...event, meta: policy ? { policy } : {} } : event,
        );
      }
    }
    writer.close();
    const outputs: string[] = [];
    for (const more of [[], ["--each"], ["--jobs", "2"]]) {
      const { stdout, stderr, code } = await vmtape(["replay", `${folder}/t`, "--json", ...more]);
      const replays = (JSON.parse(stdout) as { replays: { policy: string }[] }).replays;
      assertEquals(replays.length, 1, "One policy for all three");
      assertStringIncludes(
        stderr,
        `Replayed under ${replays[0]!.policy}, since the trace does not say`,
      );
      outputs.push(`${code} ${stdout}`);
    }
    assertEquals(new Set(outputs).size, 1);
  }));

Deno.test("a kernel that is not modelled is replayed as the nearest one by version, and that is said", () =>
  withFolder(async (folder) => {
    const cases: readonly (readonly [string, string])[] = [
      ["6.1.0-57-cloud-amd64", "linux-6.1"],
      ["6.5.13", "linux-6.1"],
      ["6.12.3+", "linux-6.12"],
      ["5.4.0", "linux-6.1"],
      ["9.9", "linux-7.3"],
      ["qemu-tcg", "architectural"],
    ];
    for (const [kernel, policy] of cases) {
      const meta = { source: policy === "architectural" ? "qemu" : "kvm", kernel };
      const session: TraceEvent = { kind: "session", vcpu: 0, meta };
      const writer = new TraceWriter(fileSink(`${folder}/t`, { force: true }));
      for (const event of [session, session]) writer.write(event);
      writer.close();
      for (const more of [[], ["--all"], ["--jobs", "2"]]) {
        const { stderr } = await vmtape(["replay", `${folder}/t`, ...more]);
        assertEquals(stderr.split(`Replayed under ${policy}: `).length, 2, stderr);
      }
    }
  }));

Deno.test("a replay begins at a checkpoint, and ends with the digest of the whole", () =>
  withFolder(async (folder) => {
    const trace = `${folder}/t`, seek = `${folder}/s`;
    await vmtape(["record", "-o", trace, "--policy", "linux-6.12"]);
    const made = await vmtape([
      "checkpoint",
      trace,
      "-p",
      "linux-6.12",
      "--every",
      "500",
      "-o",
      seek,
    ]);
    assertEquals(made.code, 0, made.stderr);
    assertEquals((await vmtape(["verify", seek])).code, 0);
    const replay = async (...args: string[]) => {
      const { stdout, stderr } = await vmtape(["replay", seek, "--json", ...args]);
      return { ...JSON.parse(stdout).replays[0], stderr };
    };
    const whole = await replay("--policy", "linux-6.12");
    const { events } = whole;
    const part = await replay("--policy", "linux-6.12", "--from", String(events - 100));
    assertStringIncludes(part.stderr, "Replaying from the checkpoint at event");
    assertEquals([part.digest, part.events], [whole.digest, events]);
    assert(part.runs < whole.runs);
    const other = await replay("--policy", "unified", "--from", String(events - 100));
    assertStringIncludes(other.stderr, "replaying from the start");
    assertEquals(other.digest, (await replay("--policy", "unified")).digest);
    const { code, stderr } = await vmtape(["replay", seek, "--from", "5"]);
    assertEquals(code, 2);
    assertStringIncludes(stderr, "name it with --policy");
  }));

Deno.test("replay of a trace without a VMRUN says that there is none", () =>
  withFolder(async (folder) => {
    const trace = `${folder}/t`;
    const writer = new TraceWriter(fileSink(trace, { force: true }));
    writer.write({ kind: "session", vcpu: 0, meta: { source: "kvm", kernel: "early-exit" } });
    writer.close();
    const { code, stdout, stderr } = await vmtape(["replay", trace, "-p", "early-exit"]);
    assertEquals([code, stderr], [0, ""]);
    assertStringIncludes(stdout, "early-exit: there is no VMRUN to replay\n");
  }));
