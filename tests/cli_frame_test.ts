import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import config from "../deno.json" with { type: "json" };
import { COMMANDS } from "../cli/commands.ts";
import { shell, vmtape, withFolder } from "./cli_process.ts";
import { untilAborted } from "../cli/until_aborted.ts";

async function* endless(): AsyncGenerator<number> {
  for (let i = 0;; i++) yield await Promise.resolve(i);
}

Deno.test("Ctrl-C is heard while items come without a pause", async () => {
  const controller = new AbortController();
  setTimeout(() => controller.abort(new Error("stop")), 1);
  let last = 0;
  const all = untilAborted(endless(), controller.signal);
  const reason = await (async () => {
    for await (const item of all) last = item;
  })().catch((error) => String(error));
  assertEquals([reason, last > 0], ["Error: stop", true]);
});

Deno.test("help goes to standard output with status 0, and names every command", async () => {
  for (const args of [["--help"], ["-h"], ["help"]]) {
    const { code, stdout, stderr } = await vmtape(args);
    assertEquals([code, stderr], [0, ""]);
    for (const { name, summary } of COMMANDS) {
      assertMatch(stdout, new RegExp(`^  ${name} +\\S`, "m"));
      assertStringIncludes(stdout, summary.split(" ").slice(0, 3).join(" "));
    }
    assertStringIncludes(stdout, "Exit status:");
  }
});

Deno.test("every command says in the list what it says in its own help, with examples of itself", async () => {
  for (const entry of COMMANDS) {
    const command = await entry.load();
    assertEquals([command.name, command.summary], [entry.name, entry.summary]);
    assert(command.examples.length > 0, `${command.name} has no examples`);
    for (const { line } of command.examples) {
      assert(line.includes(command.name), `${line} shows another command`);
    }
    const names = command.options.flatMap((o) => o.short ? [o.name, o.short] : [o.name]);
    assertEquals(new Set(names).size, names.length, `${command.name} has an option twice`);
  }
});

Deno.test("help of one command names its options, even beside wrong ones", async () => {
  const { code, stdout } = await vmtape(["completions", "--nonsense", "--help"]);
  assertEquals(code, 0);
  assertStringIncludes(stdout, "Usage: vmtape completions SHELL");
  assertStringIncludes(stdout, "--json");
  assertEquals((await vmtape(["help", "completions"])).stdout, stdout);
});

Deno.test("the version is that of deno.json", async () => {
  for (const args of [["--version"], ["-V"], ["completions", "--version"]]) {
    assertEquals(await vmtape(args), { code: 0, stdout: `vmtape ${config.version}\n`, stderr: "" });
  }
});

const WRONG: readonly (readonly [string, string[], string])[] = [
  ["no command", [], "A command is missing"],
  [
    "an unknown command",
    ["completoins"],
    'Unknown command "completoins", did you mean "completions"?',
  ],
  [
    "an unknown long option",
    ["completions", "--jsom", "bash"],
    "Unknown option --jsom, did you mean --json?",
  ],
  ["an unknown short option", ["completions", "-z", "bash"], "Unknown option -z"],
  [
    "an unknown option before the command",
    ["--nonsense", "completions", "bash"],
    "Unknown option --nonsense",
  ],
  [
    "an option that is no own property",
    ["completions", "--__proto__=1", "bash"],
    "Unknown option --__proto__",
  ],
  ["a missing operand", ["completions"], "SHELL is missing"],
  ["one operand too many", ["completions", "bash", "zsh"], 'Unexpected "zsh" after SHELL'],
  ["an unknown value", ["completions", "bsh"], 'Unknown shell "bsh", did you mean "bash"?'],
  ["a name that every object has", ["completions", "constructor"], 'Unknown shell "constructor"'],
];
for (const [what, args, message] of WRONG) {
  Deno.test(`${what} is one clear line and status 2`, async () => {
    const { code, stdout, stderr } = await vmtape(args);
    assertEquals([code, stdout], [2, ""]);
    assertStringIncludes(stderr, message);
    assertMatch(stderr, /^vmtape[^\n]*--help"\)\n$/);
  });
}

Deno.test("--json makes errors JSON on standard output, beside the line for people", async () => {
  const { code, stdout, stderr } = await vmtape(["--json", "completions", "bsh"]);
  assertEquals(code, 2);
  const { error } = JSON.parse(stdout);
  assertEquals(error.code, "usage");
  assertStringIncludes(error.message, 'Unknown shell "bsh"');
  assertEquals(stderr.trimEnd().split("\n").length, 1);
});

Deno.test("a reader that goes away is no error", async () => {
  const { stdout, stderr } = await shell(
    "set -o pipefail; (vmtape completions zsh; echo status $? >&2) | head -c 5",
  );
  assertEquals(stdout, "#comp");
  assertEquals(stderr, "status 0\n");
});

Deno.test("a full disk behind standard output is one clear line", async () => {
  const { code, stderr } = await shell("vmtape completions bash > /dev/full");
  assertEquals(code, 2);
  assertMatch(stderr, /^vmtape completions: [^\n]*No space left on the device[^\n]*\n$/);
});

Deno.test("the bash completions complete commands, options and values", async () => {
  await withFolder(async (folder) => {
    const script = `${folder}/vmtape.bash`;
    await Deno.writeTextFile(script, (await vmtape(["completions", "bash"])).stdout);
    const complete = async (...words: string[]) => {
      const list = words.map((w) => `'${w}'`).join(" ");
      const { code, stdout, stderr } = await shell(
        `source '${script}'; COMP_WORDS=(${list}); COMP_CWORD=${words.length - 1}; _vmtape; ` +
          `printf '%s\\n' "\${COMPREPLY[@]}"`,
        folder,
      );
      assertEquals([code, stderr], [0, ""]);
      return stdout.trim().split("\n");
    };
    assertEquals(await complete("vmtape", "compl"), ["completions"]);
    assertEquals(await complete("vmtape", "completions", "--qu"), ["--quiet"]);
    assertEquals(await complete("vmtape", "completions", "z"), ["zsh"]);
    assertEquals(await complete("vmtape", "record", "qem"), ["qemu"]);
    assertEquals(await complete("vmtape", "record", "qemu", "--att"), ["--attach"]);
    assertEquals(await complete("vmtape", "record", "-p", "uni"), ["unified"]);
  });
});

for (
  const [shellName, args] of [["bash", ["-n"]], ["zsh", ["-n"]], ["fish", [
    "--no-execute",
  ]]] as const
) {
  const missing = await new Deno.Command("bash", { args: ["-c", `command -v ${shellName}`] })
    .output().then((o) => o.code !== 0, () => true);
  Deno.test({
    name: `${shellName} accepts its completions`,
    ignore: missing,
    fn: () =>
      withFolder(async (folder) => {
        const script = `${folder}/script`;
        await Deno.writeTextFile(script, (await vmtape(["completions", shellName])).stdout);
        const { code, stderr } = await new Deno.Command(shellName, { args: [...args, script] })
          .output();
        assertEquals([code, new TextDecoder().decode(stderr)], [0, ""]);
      }),
  });
}
