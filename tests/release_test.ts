import { assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import config from "../deno.json" with { type: "json" };
import { STEPS } from "../cli/demo.ts";
import { FLAGS } from "../release/build.ts";
import { withFolder } from "./cli_process.ts";

const ROOT = new URL("../", import.meta.url);

interface Given {
  readonly cwd: string;
  readonly env?: Record<string, string>;
}

async function run(command: string, args: readonly string[], given: Given) {
  const { code, stdout, stderr } = await new Deno.Command(command, {
    args: [...args],
    cwd: given.cwd,
    env: { NO_COLOR: "1", DENO_NO_UPDATE_CHECK: "1", ...given.env },
    stdin: "null",
  }).output();
  const decoder = new TextDecoder();
  return { code, stdout: decoder.decode(stdout), stderr: decoder.decode(stderr) };
}

/** Builds the release in a copy of what is needed, so that no two builds meet. */
async function built(folder: string): Promise<string> {
  const made = await run(Deno.execPath(), ["task", "-q", "release"], { cwd: ROOT.pathname });
  assertEquals(made.code, 0, made.stderr);
  await Deno.copyFile(new URL("dist/vmtape.js", ROOT), `${folder}/vmtape.js`);
  return `${folder}/vmtape.js`;
}

Deno.test("one file holds the program: the demo's lines run from it in an empty folder, offline", () =>
  withFolder(async (folder) => {
    const program = await built(folder);
    await Deno.mkdir(`${folder}/empty`);
    const offline = ["run", "-q", "--no-config", "--no-remote", "--no-npm", ...FLAGS, program];
    const env = { DENO_DIR: `${folder}/cache`, HOME: folder };
    const vmtape = (line: string) =>
      run(Deno.execPath(), [...offline, ...line.split(" ")], { cwd: `${folder}/empty`, env });
    for (const [, line] of STEPS) {
      const { code, stderr } = await vmtape(line);
      assertEquals(code <= 1, true, `${line}: ${stderr}`);
    }
    assertMatch((await vmtape("--version")).stdout, new RegExp(`^vmtape ${config.version}\n`));
    // Threads, a page with its script, and a policy that imports from the same file.
    const threads = await vmtape("diff long.vmtape -p early-exit,unified --jobs 2 --limit 1");
    assertStringIncludes(threads.stdout, "900 runs");
    const page = await vmtape("report demo.vmtape -p early-exit,unified -o page.html");
    assertEquals(page.code, 1, page.stderr);
    await Deno.writeTextFile(
      `${folder}/empty/mine.ts`,
      'import { EARLY_EXIT, list, steps } from "../vmtape.js";\n' +
        "const vmrun = EARLY_EXIT.ways.vmrun.map((e) => e.onFail\n" +
        "  ? { ...e, onFail: [...e.onFail, ...list([steps.dropGif])] } : e);\n" +
        'export default { ...EARLY_EXIT, name: "mine", ways: { ...EARLY_EXIT.ways, vmrun } };\n',
    );
    const own = await vmtape("diff demo.vmtape -p early-exit,./mine.ts");
    assertMatch(own.stdout, /GIF stays set after a failed consistency check under early-exit/);
  }));

Deno.test("the installed command works in the user's own folder", () =>
  withFolder(async (folder) => {
    const env = { DENO_INSTALL_ROOT: `${folder}/root`, HOME: folder };
    const cwd = ROOT.pathname;
    const made = await run(Deno.execPath(), ["task", "-q", "release", "install"], { cwd, env });
    assertEquals(made.code, 0, made.stderr);
    assertStringIncludes(made.stdout, `Installed ${folder}/root/bin/vmtape`);
    await Deno.mkdir(`${folder}/work`);
    const path = `${Deno.execPath().replace(/\/[^/]*$/, "")}:${Deno.env.get("PATH")}`;
    const { code, stdout, stderr } = await run("bash", [
      "-c",
      "vmtape record enter -o t -q && vmtape replay t | head -1 && ls",
    ], { cwd: `${folder}/work`, env: { ...env, PATH: `${folder}/root/bin:${path}` } });
    assertEquals([code, stdout.split("\n").slice(1).join()], [0, "t,"], stderr);
    assertMatch(stdout, /1 of 1 runs agree in everything/);
  }));

const npm = await new Deno.Command("npm", { args: ["--version"] }).output()
  .then(({ success }) => success, () => false);

Deno.test({
  name: "the npm package brings its command and Deno: pack, install, record, replay, diff",
  ignore: !npm,
  fn: () =>
    withFolder(async (folder) => {
      await built(folder);
      const from = new URL("dist/npm", ROOT).pathname;
      const packed = await run("npm", ["pack", "--silent", from], { cwd: folder });
      assertEquals(packed.code, 0, packed.stderr);
      const archive = packed.stdout.trim();
      await Deno.mkdir(`${folder}/user`);
      const cwd = `${folder}/user`;
      const quiet = ["--no-audit", "--no-fund", "--silent", "--prefix", cwd];
      const installed = await run("npm", ["install", ...quiet, `${folder}/${archive}`], { cwd });
      assertEquals(installed.code, 0, installed.stderr);
      const { code, stdout, stderr } = await run("bash", [
        "-c",
        'vmtape() { npx --no-install vmtape "$@"; }; vmtape record gif-left-set -p early-exit -o t -q && ' +
        "vmtape replay t | head -1; vmtape diff t -p early-exit,unified | head -1; " +
        "vmtape diff t -p early-exit,unified > d; echo $?",
      ], { cwd });
      assertEquals(code, 0, stderr);
      assertEquals(stdout.split("\n"), [
        "early-exit: 1 of 1 runs agree in everything",
        "early-exit and unified: 1 of 1 run ends differently",
        "1",
        "",
      ]);
    }),
});
