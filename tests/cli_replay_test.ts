import { assert, assertEquals, assertNotEquals, assertStringIncludes } from "@std/assert";
import { POLICIES } from "../engine/policies/mod.ts";
import { shell, vmtape, withFolder } from "./cli_process.ts";

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

Deno.test("replay of a trace that names no policy asks for one", () =>
  withFolder(async (folder) => {
    await Deno.writeTextFile(
      `${folder}/log`,
      "qemu-7 [000] ..... 3.648900: kvm_nested_vmenter_failed: control->asid == 0\n",
    );
    const { code, stderr } = await shell(
      "vmtape import log -o t -q && vmtape replay t",
      folder,
    );
    assertEquals(code, 2);
    assertStringIncludes(stderr, "name one with --policy");
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
