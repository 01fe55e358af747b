import { assert, assertEquals } from "@std/assert";
import { vmtapeHere as vmtape, withFolder } from "./cli_process.ts";

const CASES = "icebp control.intercept_word4|=ICEBP m.9000.1=f1\n" +
  "int3 control.intercept_exceptions|=BP m.9000.1=cc\n";

/** Low half of the exit code that L1 finds, by case. */
async function predicted(folder: string, ...options: string[]): Promise<Record<string, string>> {
  const { code, stdout, stderr } = await vmtape(["predict", `${folder}/a.cases`, ...options]);
  assertEquals([code, stderr], [0, ""]);
  return Object.fromEntries(
    stdout.trimEnd().split("\n").map((line) => JSON.parse(line)).map((record) => [
      record.case,
      record.post.vmcb12["070"].slice(-2),
    ]),
  );
}

Deno.test("--processor decides what the machine beneath a policy does", () =>
  withFolder(async (folder) => {
    await Deno.writeTextFile(`${folder}/a.cases`, CASES);
    const policy = ["--policy", "linux-6.12"];
    const qemu = { icebp: "7f", int3: "7f" }, amd = { icebp: "88", int3: "43" };
    assertEquals(await predicted(folder, ...policy), qemu);
    assertEquals(await predicted(folder, ...policy, "--processor", "amd"), amd);
    assertEquals(
      await predicted(folder, ...policy, "--processor", "qemu-11.1"),
      { icebp: "88", int3: "7f" },
    );
    // The policy that stands for hardware keeps the manual's.
    assertEquals(
      await predicted(folder, "--policy", "architectural", "--processor", "qemu-7.2"),
      amd,
    );
    assertEquals(await predicted(folder, "--policy", "linux-6.12@amd"), amd);
    const wrong = await vmtape(["predict", `${folder}/a.cases`, "--processor", "vax"]);
    assertEquals(wrong.code, 2);
    assert(wrong.stderr.includes("expected one of amd, qemu-7.2, qemu-11.1"), wrong.stderr);
  }));

Deno.test("a recording says its processor, and replay and diff take another", () =>
  withFolder(async (folder) => {
    await Deno.writeTextFile(`${folder}/a.cases`, CASES);
    const trace = `${folder}/a.vmtape`;
    const how = ["--policy", "linux-6.12", "--processor", "amd"];
    assertEquals((await vmtape(["record", `${folder}/a.cases`, "-o", trace, ...how])).code, 0);
    assertEquals((await vmtape(["replay", trace])).code, 0);
    for (const jobs of [[], ["--jobs", "2"]]) {
      const other = await vmtape(["replay", trace, "--processor", "qemu-7.2", ...jobs]);
      assertEquals(other.code, 1);
      assert(other.stdout.startsWith("linux-6.12: 0 of 2 runs agree"), other.stdout);
      const diff = await vmtape(
        ["diff", trace, "--policies", "linux-6.12@amd,linux-6.12@qemu-11.1", ...jobs],
      );
      assertEquals(diff.code, 1);
      const first = "linux-6.12@amd and linux-6.12@qemu-11.1: 1 of 2 runs end differently";
      assert(diff.stdout.startsWith(first), diff.stdout);
    }
    const twice = await vmtape(["diff", trace, "--policies", "linux-6.12@amd,linux-6.12@amd"]);
    assertEquals(twice.code, 2);
  }));

Deno.test("record bochs says what it needs", async () => {
  const { code, stderr } = await vmtape(["record", "bochs", "-o", "x.vmtape"]);
  assertEquals(code, 2);
  assert(stderr.includes("--scenario"), stderr);
});
