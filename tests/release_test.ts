import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
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

/** The same, of a command that has to succeed; what it printed. */
async function done(command: string, args: readonly string[], given: Given): Promise<string> {
  const { code, stdout, stderr } = await run(command, args, given);
  assertEquals(code, 0, stdout + stderr);
  return stdout;
}

async function versionOf(command: string, ...args: string[]): Promise<string | undefined> {
  try {
    const { success, stdout } = await new Deno.Command(command, { args: [...args, "--version"] })
      .output();
    return success ? new TextDecoder().decode(stdout).trim() : undefined;
  } catch {
    return undefined;
  }
}

const npm = await versionOf("npm");

/** A Node that has what the whole library needs, as a command: this machine's, or npm's. */
async function node22(): Promise<string[]> {
  const [, major = "0", minor = "0"] = /^v(\d+)\.(\d+)/.exec(await versionOf("node") ?? "") ?? [];
  const enough = Number(major) > 22 || (Number(major) === 22 && Number(minor) >= 15);
  return enough ? ["node"] : ["npx", "-y", "node@22.20.0"];
}

/** What a user's script asks the library under Node. */
const IN_NODE = `
import { readFile } from "node:fs/promises";
import { builtinScenarios, Differ, EARLY_EXIT, Findings, openTrace, readTrace, recordScenarios, UNIFIED } from "@vmtape/vmtape";
import { exitCodeName } from "@vmtape/vmtape/engine";
import { reportPage } from "@vmtape/vmtape/report";

const trace = await readTrace([await readFile("t")]);
const findings = new Findings();
const differ = new Differ([EARLY_EXIT, UNIFIED], (difference) => findings.add(difference));
for await (const event of trace.events()) differ.feed(event);
differ.finish();
const recorded = [];
for await (const { kind } of recordScenarios(builtinScenarios("enter"), EARLY_EXIT)) recorded.push(kind);
const refused = await openTrace("t").then(() => "opened", (error) => error.name + ": " + error.message);
console.log(JSON.stringify({
  finding: findings.list()[0].title,
  vmrun: recorded.includes("vmrun"),
  npf: exitCodeName(0x400n),
  page: typeof reportPage,
  refused,
}));
`;

/** Wrong and right use, as a compiler sees it that only has the package. */
const USES = {
  "right.ts": 'import { type OpenTrace, openTrace } from "@vmtape/vmtape";\n' +
    'import type { VmcbFieldName } from "@vmtape/vmtape/engine";\n' +
    'export const field: VmcbFieldName = "control.asid";\n' +
    'export const file: Promise<OpenTrace> = openTrace("t");\n',
  "wrong.ts": 'import type { VmcbFieldName } from "@vmtape/vmtape/engine";\n' +
    'export const field: VmcbFieldName = "control.asit";\n',
};

Deno.test("the release, from one build", (t) =>
  withFolder(async (folder) => {
    const program = new URL("dist/vmtape.js", ROOT).pathname;
    await t.step("is built, and the command installed", async () => {
      const env = { DENO_INSTALL_ROOT: `${folder}/root` };
      const args = ["task", "-q", "release", "install"];
      const said = await done(Deno.execPath(), args, { cwd: ROOT.pathname, env });
      assertStringIncludes(said, `Installed ${folder}/root/bin/vmtape`);
    });

    await t.step("the command works in the user's own folder", async () => {
      const cwd = `${folder}/work`;
      await Deno.mkdir(cwd);
      const deno = Deno.execPath().replace(/\/[^/]*$/, "");
      const PATH = `${folder}/root/bin:${deno}:${Deno.env.get("PATH")}`;
      const line = "vmtape record enter -o t -q && vmtape replay t | head -1 && ls";
      const stdout = await done("bash", ["-c", line], { cwd, env: { HOME: folder, PATH } });
      assertMatch(stdout, /1 of 1 runs agree in everything/);
      assertEquals(stdout.split("\n").slice(1), ["t", ""]);
    });

    await t.step("one file runs the demo's lines in an empty folder, offline", async () => {
      await Deno.copyFile(program, `${folder}/vmtape.js`);
      await Deno.mkdir(`${folder}/empty`);
      const offline = ["run", "-q", "--no-config", ...FLAGS];
      const env = { DENO_DIR: `${folder}/cache`, HOME: folder };
      const vmtape = (line: string) =>
        run(Deno.execPath(), [...offline, `${folder}/vmtape.js`, ...line.split(" ")], {
          cwd: `${folder}/empty`,
          env,
        });
      for (const [, line] of STEPS) {
        const { code, stderr } = await vmtape(line);
        assert(code <= 1, `${line}: ${stderr}`);
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
    });

    const cwd = `${folder}/user`;
    await t.step({
      name: "the npm package brings its command and Deno: install, record, replay, diff",
      ignore: npm === undefined,
      fn: async () => {
        const archive = new URL("dist/vmtape.tgz", ROOT).pathname;
        await Deno.mkdir(cwd);
        const quiet = ["--no-audit", "--no-fund", "--silent", "--prefix", cwd];
        await done("npm", ["install", ...quiet, archive], { cwd });
        const lines = 'vmtape() { npx --no-install vmtape "$@"; }; ' +
          "vmtape record gif-left-set -p early-exit -o t -q && " +
          "vmtape replay t | head -1; vmtape diff t -p early-exit,unified > d; echo $?; head -1 d";
        assertEquals((await done("bash", ["-c", lines], { cwd })).split("\n"), [
          "early-exit: 1 of 1 runs agree in everything",
          "1",
          "early-exit and unified: 1 of 1 run ends differently",
          "",
        ]);
      },
    });

    await t.step({
      name: "the npm package's library works under Node, and says what needs Deno",
      ignore: npm === undefined,
      fn: async () => {
        await Deno.writeTextFile(`${cwd}/ask.mjs`, IN_NODE);
        const [node = "", ...args] = await node22();
        assertEquals(JSON.parse(await done(node, [...args, "ask.mjs"], { cwd })), {
          finding: "GIF stays set after a failed consistency check under early-exit",
          vmrun: true,
          npf: "SVM_EXIT_NPF",
          page: "function",
          refused:
            "TraceError: openTrace needs Deno; elsewhere give readTrace a list or stream of bytes",
        });
        // The engine and the report need less than the container does.
        const line = 'import("@vmtape/vmtape/engine").then((m) => console.log(m.UPSTREAM.name))';
        if (await versionOf("node")) {
          assertEquals(await done("node", ["-e", line], { cwd }), "linux-7.3\n");
        }
      },
    });

    await t.step({
      name: "the npm package has declarations: a name that is none does not compile",
      ignore: npm === undefined,
      fn: async () => {
        for (const [name, text] of Object.entries(USES)) {
          await Deno.writeTextFile(`${cwd}/${name}`, text);
        }
        const check = (name: string) => run(Deno.execPath(), ["check", "-q", name], { cwd });
        const right = await check("right.ts");
        assertEquals(right.code, 0, right.stderr);
        const wrong = await check("wrong.ts");
        assertStringIncludes(wrong.stderr, `"control.asit"' is not assignable`);
      },
    });
  }));

Deno.test("deno publish finds nothing to mend, and no generator is in the package", async () => {
  const { code, stdout, stderr } = await run(
    Deno.execPath(),
    ["publish", "--dry-run", "--allow-dirty"],
    { cwd: ROOT.pathname },
  );
  assertEquals(code, 0, stderr);
  assert(!/^(?:warning|error)\[/m.test(stdout + stderr), stdout + stderr);
  const files = [...(stdout + stderr).matchAll(/file:\/\/\S+/g)]
    .map(([url]) => url.slice(ROOT.href.length)).filter((name) => name !== ".git");
  assert(files.includes("cli/main.ts") && files.includes("docs/library.md"));
  const strays = /^(?:tests|bench|release|links\/assert|\.)|^docs\/.*\.ts$|write_guest/;
  assertEquals(files.filter((name) => strays.test(name)), []);
});
