import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { BUILTINS } from "../traces/scenarios/builtin.ts";
import { POLICIES } from "../engine/policies/mod.ts";
import { command, shell, vmtapeHere as vmtape, withFolder } from "./cli_process.ts";

const CASES = BUILTINS.reduce((n, builtin) => n + builtin.specs.length, 0);
const lines = (text: string) => text.trimEnd().split("\n");

for (const policy of Object.keys(POLICIES)) {
  for (const npt of ["on", "off"]) {
    Deno.test(`a recording under ${policy}, npt ${npt}, holds what predict prints`, () =>
      withFolder(async (folder) => {
        const how = ["--policy", policy, "--npt", npt];
        const { code, stdout, stderr } = await vmtape(["predict", "--full", ...how]);
        assertEquals(code, 0, stderr);
        assertEquals(lines(stdout).length, CASES);
        const first = JSON.parse(lines(stdout)[0]!);
        assertEquals([first.kernel, first.npt], [policy, npt === "on" ? 1 : 0]);
        await Deno.writeTextFile(`${folder}/p.ndjson`, stdout);
        const recorded = await vmtape(["record", "-o", `${folder}/t`, ...how]);
        assertEquals(recorded.code, 0, recorded.stderr);
        const same = await vmtape(["compare", `${folder}/p.ndjson`, `${folder}/t`]);
        assertEquals(same.code, 0, same.stdout);
      }));
  }
}

Deno.test("predict prints what the lab prints, and no more than asked for", async () => {
  const { code, stdout } = await vmtape(["predict", "gif-left-set", "-p", "early-exit"]);
  assertEquals(code, 0);
  const record = JSON.parse(stdout);
  assertEquals(Object.keys(record), ["case", "spec", "kernel", "npt", "events", "post"]);
  assertEquals(record.events[0], { check_failed: "control->asid == 0" });
  assertEquals(record.post.gif, 1);
  const other = await vmtape(["predict", "gif-left-set", "-p", "unified"]);
  assertEquals(JSON.parse(other.stdout).post.gif, 0);
});

Deno.test("scenarios come from files, from standard input and by name", () =>
  withFolder(async (folder) => {
    await Deno.writeTextFile(`${folder}/mine.txt`, "# mine\none\ntwo control.asid=0\n");
    const { code, stdout, stderr } = await shell(
      "echo 'three gif=0' | vmtape predict mine.txt - enter",
      folder,
    );
    assertEquals(code, 0, stderr);
    const names = lines(stdout).map((line) => JSON.parse(line).case);
    assertEquals(names, ["one", "two", "three", "enter"]);
  }));

Deno.test("--repeat runs the scenarios on one vCPU", () =>
  withFolder(async (folder) => {
    const out = `${folder}/t`;
    const { code } = await vmtape(["record", "enter", "gif-left-set", "-n", "5", "-o", out]);
    assertEquals(code, 0);
    const { kinds } = JSON.parse((await vmtape(["info", out, "--json"])).stdout);
    assertEquals([kinds.session, kinds.case, kinds.check], [1, 10, 5]);
  }));

Deno.test("Ctrl-C while recording leaves a whole trace, and ends with 130", () =>
  withFolder(async (folder) => {
    const out = `${folder}/t`;
    const child = command(["record", "enter", "-n", "10000000", "-o", out]).spawn();
    const part = `${out}.part`;
    while (await Deno.stat(part).then(() => false, () => true)) {
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    await new Promise((resolve) => setTimeout(resolve, 300));
    child.kill("SIGINT");
    const { code, stderr } = await child.output();
    assertEquals(code, 130);
    assertMatch(
      new TextDecoder().decode(stderr),
      /^The \d+ events before that are in .*\nvmtape record: Interrupted\n$/,
    );
    const verdict = await vmtape(["verify", out]);
    assertEquals(verdict.code, 0, verdict.stdout);
    const left = await Array.fromAsync(Deno.readDir(folder));
    assertEquals(left.map((entry) => entry.name), ["t"]);
  }));

const POLICY = `import { POLICIES } from "@vmtape/vmtape/engine";
export default { ...POLICIES.unified, name: "mine" };
`;

Deno.test("--policy takes a module of the user's own", () =>
  withFolder(async (folder) => {
    await Deno.writeTextFile(`${folder}/mine.ts`, POLICY);
    const { code, stdout, stderr } = await vmtape([
      "predict",
      "gif-left-set",
      "--policy",
      `${folder}/mine.ts`,
    ]);
    assertEquals(code, 0, stderr);
    assertEquals(JSON.parse(stdout).kernel, "mine");
  }));

const REFUSED: readonly (readonly [string, string, RegExp])[] = [
  [
    "an unknown policy",
    "vmtape record -o t -p unifed",
    /Unknown policy "unifed", did you mean "unified"/,
  ],
  ["a policy that no object has", "vmtape record -o t -p toString", /Unknown policy "toString"/],
  [
    "a missing policy module",
    "vmtape record -o t -p ./none.ts",
    /Cannot load the policy .*No such file/,
  ],
  [
    "a module without a policy",
    "echo 'export {}' > m.ts; vmtape record -o t -p ./m.ts",
    /exports no policy/,
  ],
  [
    "a module that is broken",
    "echo '}' > m.ts; vmtape record -o t -p ./m.ts",
    /Cannot load the policy/,
  ],
  ["an unknown scenario", "vmtape record gif-left-sat -o t", /did you mean "gif-left-set"/],
  [
    "an unknown field",
    "echo 'a save.efre=1' > c; vmtape record c -o t",
    /c:1:\d+: .*did you mean save\.efer/,
  ],
  ["a bad value", "printf 'ok\\nb s.d0=zz\\n' > c; vmtape predict c", /c:2:\d+: .*expected/],
  ["a file without a case", "echo '# none' > c; vmtape record c -o t", /There is no case in c/],
  ["a folder as a scenario", "vmtape record . -o t", /It is a directory/],
  ["no rounds", "vmtape record enter -o t --repeat 0", /--repeat is at least 1/],
  ["a wrong MMU mode", "vmtape predict enter --npt yes", /--npt cannot be "yes"/],
  ["no output", "vmtape record enter", /-o, --output FILE is needed/],
];
for (const [what, line, message] of REFUSED) {
  Deno.test(`${what} is one clear line and status 2, and nothing is written`, () =>
    withFolder(async (folder) => {
      const { code, stdout, stderr } = await shell(line, folder);
      assertMatch(stderr, message);
      assertEquals([code, stdout, lines(stderr).length], [2, "", 1]);
      const left = await Array.fromAsync(Deno.readDir(folder));
      assertEquals(left.some((entry) => entry.name.startsWith("t")), false);
    }));
}

Deno.test("record overwrites with --force only", () =>
  withFolder(async (folder) => {
    await Deno.writeTextFile(`${folder}/t`, "mine");
    const args = ["record", "enter", "-o", `${folder}/t`];
    const refused = await vmtape(args);
    assertEquals(refused.code, 2);
    assertStringIncludes(refused.stderr, "--force");
    assertEquals(await Deno.readTextFile(`${folder}/t`), "mine");
    assertEquals((await vmtape([...args, "--force"])).code, 0);
    assert((await vmtape(["verify", `${folder}/t`])).code === 0);
  }));

Deno.test("a disk that fills up while recording is one clear line and status 2", async () => {
  const { code, stderr } = await shell("vmtape record -o - > /dev/full");
  assertEquals(code, 2);
  assertMatch(stderr, /^vmtape record: [^\n]*No space left on device\n$/);
});
