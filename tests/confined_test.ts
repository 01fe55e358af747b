import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { command, shell, vmtape, withFolder } from "./cli_process.ts";

const HEAD = `import { list, LINUX_6_12 } from "@vmtape/vmtape/engine";
const policy = (run: () => unknown, more = {}) => ({
  ...LINUX_6_12,
  name: "own",
  ways: { ...LINUX_6_12.ways, vmrun: [...list([{ name: "own", doc: "", run: run as () => 0 }]), ...LINUX_6_12.ways.vmrun] },
  ...more,
});
`;

const CONFIG = new URL("../deno.json", import.meta.url).pathname;

const FINE = "export default policy(() => 0);\n";

async function withPolicy(
  text: string,
  use: (folder: string) => Promise<void>,
): Promise<void> {
  await withFolder(async (folder) => {
    await Deno.writeTextFile(`${folder}/own.ts`, HEAD + text);
    const { code, stderr } = await vmtape(["record", "enter", "-q", "-o", `${folder}/t`]);
    assertEquals(code, 0, stderr);
    await use(folder);
  });
}

const REFUSED: readonly (readonly [string, string, RegExp])[] = [
  ["ends the program", `Deno.exit(0);\n${FINE}`, /cannot end the program/],
  ["ends it as in Node.js", `import p from "node:process"; p.exit(0);\n${FINE}`, /cannot end the/],
  ["closes its thread", `self.close();\n${FINE}`, /cannot end the program/],
  ["throws null", "throw null;", /It threw null/],
  ["throws what cannot be shown", "throw { toString() { throw null; } };", /cannot be shown/],
  ["throws later", `setTimeout(() => { throw null; }, 0);\n${FINE}`, /outside of its steps/],
  ["rejects", `Promise.reject(null);\n${FINE}`, /outside of its steps: It threw null/],
  ["throws from a property", "export default { get name() { throw null; } };", /It threw null/],
  ["is a hostile proxy", "export default new Proxy({}, { get() { throw null; } });", /threw null/],
  ["is no policy", "export default 42;", /a policy is an object, not a number/],
  ["is no program", "export defaul 1", /SyntaxError/],
  ["imports nothing there", `import "./gone.ts";\n${FINE}`, /Module not found/],
  [
    "imports from a host",
    `import "https://deno.land/x/x.ts";\n${FINE}`,
    /import access to "deno\.l/,
  ],
  [
    "imports from a host later",
    `await import("https://esm.sh/x");\n${FINE}`,
    /import access to "esm/,
  ],
  ["writes", `Deno.writeTextFileSync("pwned", "");\n${FINE}`, /write access to "pwned"/],
  [
    "starts a process",
    `new Deno.Command("qemu-system-x86_64").outputSync();\n${FINE}`,
    /run access/,
  ],
  [
    "reads what is not named",
    `Deno.readTextFileSync("other");\n${FINE}`,
    /read access to "other"/,
  ],
  ["reads the environment", `Deno.env.get("VMTAPE_DEBUG");\n${FINE}`, /env access/],
  ["connects", `await Deno.connect({ hostname: "127.0.0.1", port: 1 });\n${FINE}`, /net access/],
  [
    "imports a file that is no code, as text",
    `import x from "/etc/passwd" with { type: "text" };\nthrow x.length;\n${FINE}`,
    /read access to "\/etc\/passwd"/,
  ],
  [
    "imports one later",
    `throw (await import("./t", { with: { type: "text" } })).default;`,
    /It threw|read access|TypeError/,
  ],
  [
    "imports data",
    `import x from "./data.json" with { type: "json" };\nthrow x;\n${FINE}`,
    /read access to ".*\/data\.json"/,
  ],
  ["has a package fetched", `await import("npm:no-such-" + "one");\n${FINE}`, /--cached-only/],
  ["kills the program", `Deno.kill(Deno.pid, "SIGKILL");\n${FINE}`, /cannot end the program/],
  [
    "kills it as in Node.js",
    `import p from "node:process"; p.kill(p.pid);\n${FINE}`,
    /cannot end the program/,
  ],
  ["sends nothing", `self.postMessage(null);\n${FINE}`, /sends messages of its own/],
  ["sends what is half right", `self.postMessage({ watched: 1 });\n${FINE}`, /messages of its own/],
  ["sends no port", `self.postMessage({ spawn: 1 });\n${FINE}`, /sends messages of its own/],
  [
    "changes what all lists have",
    `Array.prototype.push = () => 0;\n${FINE}`,
    /only property 'push'/,
  ],
  ["changes what all objects have", `Object.prototype.x = 1;\n${FINE}`, /Cannot add property x/],
  ["changes JSON", `JSON.stringify = () => "{}";\n${FINE}`, /only property 'stringify'/],
  [
    "changes standard output",
    `Deno.stdout.writeSync = () => 0;\n${FINE}`,
    /Cannot add property writeSync/,
  ],
  [
    "changes a built-in policy",
    `LINUX_6_12.ways.vmrun.splice(0, 1);\n${FINE}`,
    /Cannot (add|delete|assign)/,
  ],
  [
    "changes a built-in step",
    `LINUX_6_12.ways.vmrun[0]!.step.run = () => 0;\n${FINE}`,
    /only property 'run'/,
  ],
  ["has a huge name", `export default policy(() => 0, { name: "x".repeat(1e6) });`, /at most 200/],
  ["takes a built-in name", `export default policy(() => 0, { name: "unified" });`, /built-in/],
];
for (const [what, text, message] of REFUSED) {
  Deno.test(`a policy that ${what} ends the command with status 2, in one line`, () =>
    withPolicy(text, async (folder) => {
      for (const jobs of what === "throws null" ? ["1", "2"] : ["1"]) {
        const { code, stdout, stderr } = await vmtape(
          ["diff", "t", "-p", "upstream,./own.ts", "-q", "-j", jobs],
          { cwd: folder },
        );
        assertEquals([code, stdout], [2, ""], stderr);
        assertMatch(stderr, message);
        assertEquals(stderr.trimEnd().split("\n").length, 1, stderr);
      }
      const names = (await Array.fromAsync(Deno.readDir(folder))).map(({ name }) => name);
      assertEquals(names.sort(), ["own.ts", "t"]);
    }));
}

const ENDLESS: readonly (readonly [string, string, RegExp])[] = [
  ["a step", "export default policy(() => { for (;;); });", /Step "own" of own .*, at event \d+/],
  [
    "a check",
    "const { kernel } = LINUX_6_12;\nconst checks = kernel.checks.checks.map((c) => ({ ...c, fails() { for (;;); } }));\n" +
    "export default policy(() => 0, { kernel: { ...kernel, checks: { ...kernel.checks, checks } } });",
    /What \.\/own\.ts brings besides steps .*, at event \d+/,
  ],
  ["a getter", "export default { get name() { for (;;); } };", /The policy of \.\/own\.ts/],
  ["what it waits for", `const f = () => queueMicrotask(f);\nf();\n${FINE}`, /own\.ts/],
];
for (const [what, text, message] of ENDLESS) {
  Deno.test(`${what} of a policy that never ends is named, and ended after --step-limit`, () =>
    withPolicy(text, async (folder) => {
      const line = ["diff", "t", "-p", "upstream,./own.ts", "--step-limit", "1"];
      const { code, stdout, stderr } = await vmtape(line, { cwd: folder });
      assertEquals([code, stdout], [2, ""], stderr);
      assertMatch(stderr.trimEnd().split("\n").at(-1)!, message);
      assertMatch(stderr, /has not ended for 1 s.*: the run was ended \(--step-limit\)/);
    }));
}

Deno.test("a policy that takes all memory ends the command", () =>
  withPolicy(
    "const kept: unknown[] = [];\n" +
      "export default policy(() => { for (;;) kept.push(new Uint8Array(1 << 20).fill(1)); });",
    async (folder) => {
      const { code, stderr } = await vmtape(["replay", "t", "-p", "./own.ts"], { cwd: folder });
      assertEquals(code, 2);
      assertMatch(stderr, /With \.\/own\.ts the run takes more than \d+ MiB: it was ended/);
    },
  ));

Deno.test("what a policy says reaches a terminal without control characters", () =>
  withPolicy(`console.warn("\\x1b[31m%s\\u202e", { a: 1 });\n${FINE}`, async (folder) => {
    const { stderr } = await vmtape(["replay", "t", "-q", "-p", "./own.ts"], { cwd: folder });
    assertEquals(stderr, "\\u001b[31m%s\\u202e { a: 1 }\n");
  }));

Deno.test("nothing of the console writes to standard output, and no other thread is there to", () =>
  withPolicy(
    'console.table(["\\x1b"]);\nconsole.trace("\\x1b");\nconsole.dir("\\x1b");\n' +
      'console.assert(false, "\\x1b");\nconsole.group("\\x1b");\nconsole.clear();\n' +
      'let threads = "some";\ntry {\n  new Worker("data:text/javascript,", { type: "module" });\n' +
      `} catch (error) {\n  threads = String(error);\n}\nconsole.log(threads);\n${FINE}`,
    async (folder) => {
      const line = ["replay", "t", "-q", "-p", "./own.ts"];
      const { stdout, stderr } = await vmtape(line, { cwd: folder });
      assertMatch(stdout, /^own: /);
      assertEquals(stderr.split("\n").length, 7, stderr);
      assertStringIncludes(stderr, "Assertion failed: \\u001b\n");
      assertStringIncludes(stderr, "Error: A policy cannot start threads\n");
      assert(!stderr.includes("\x1b"), stderr);
      // The same in the threads that share the work.
      const shared = await shell(
        "vmtape cat -q t t t -o all; vmtape replay all -q -p ./own.ts -j 2 | head -1",
        folder,
      );
      assertMatch(shared.stdout, /^own: /);
      assert(!shared.stderr.includes("\x1b"), shared.stderr);
    },
  ));

Deno.test("a policy may read what the command line names, and this alone", () =>
  withPolicy('console.log(Deno.readFileSync("t").length);\n' + FINE, async (folder) => {
    const { stderr } = await vmtape(["replay", "t", "-q", "-p", "./own.ts"], { cwd: folder });
    assertMatch(stderr, /^\d+\n$/);
  }));

const TRIES = `const told: string[] = [];
for (const what of ["read", "write", "net", "env", "run", "sys", "ffi"] as const) {
  told.push(Deno.permissions.querySync({ name: what }).state);
}
try { Deno.readTextFileSync("/etc/passwd"); told.push("read it"); } catch { told.push("no"); }
console.log("noise");
self.postMessage({ from: "me", status: 0 });
self.postMessage({ token: "mine" });
export default policy(() => { throw new Error(told.join()); });
`;

Deno.test("a policy has no permission, says nothing on standard output, and cannot tell the status", () =>
  withPolicy(TRIES, async (folder) => {
    const { code, stdout, stderr } = await vmtape(
      ["diff", "t", "-p", "upstream,./own.ts", "--json"],
      { cwd: folder },
    );
    assertEquals(code, 1, stderr);
    assertMatch(stdout, /threw Error: (prompt,){7}no"/);
    assertEquals(stdout.trimEnd().split("\n").length, 1);
    assertEquals(stderr, "noise\n");
  }));

Deno.test("a policy of several modules works with every number of threads, and writes what -o names", () =>
  withPolicy(`import { run } from "./dep.ts";\nexport default policy(run);`, async (folder) => {
    await Deno.writeTextFile(`${folder}/dep.ts`, "export const run = () => 0;\n");
    const { stdout, stderr, code } = await shell(
      "vmtape record -q -o long -p ./own.ts --repeat 2; vmtape cat -q long long long -o all; " +
        "for j in 1 2; do vmtape diff all -p linux-6.12,own.ts --runs -j $j; done | sort | uniq -c; " +
        "vmtape checkpoint all -q -p ./own.ts --every 300 -o c; cat c | vmtape replay - -p ./own.ts | tail -1; " +
        "vmtape replay c -p ./own.ts --from 2000 | tail -1; vmtape report c -q -p linux-6.12,./own.ts -o r.html",
      folder,
    );
    assertEquals(code, 0, stderr);
    const [first = "", ...digests] = stdout.trimEnd().split("\n");
    assertMatch(first, /^ +2 linux-6\.12 and own: 0 of \d+ runs end differently$/);
    assertEquals(new Set(digests).size, 1, stdout);
    assertMatch(stderr, /Replaying from the checkpoint at event/);
    // Another constant beside the step is another policy, though the step's own text is the same.
    await Deno.writeTextFile(`${folder}/dep.ts`, "export const run = () => 1 - 1;\n");
    const other = await shell("vmtape replay c -p ./own.ts --from 2000", folder);
    assertMatch(other.stderr, /another own, whose steps/);
    await Deno.writeTextFile(`${folder}/dep.ts`, "export const run = () => 0;\n");
    await Deno.writeTextFile(`${folder}/own.ts`, "const LIMIT = 7;\n", { append: true });
    const changed = await shell("vmtape replay c -p ./own.ts --from 2000", folder);
    assertMatch(changed.stderr, /another own, whose steps/);
  }));

Deno.test("a policy that listens to Ctrl-C does not keep the program from hearing it", () =>
  withPolicy(
    'Deno.addSignalListener("SIGINT", () => {});\nDeno.addSignalListener("SIGTERM", () => {});\n' +
      'export default policy(() => { console.log("here"); for (;;); });',
    async (folder) => {
      for (const signal of ["SIGINT", "SIGTERM"] as const) {
        const child = command(["replay", "t", "-p", "./own.ts"], { cwd: folder }).spawn();
        const reader = child.stderr.getReader();
        await reader.read();
        child.kill(signal);
        assertEquals((await child.status).code, 130);
        await reader.cancel();
        await child.stdout.cancel();
      }
    },
  ));

Deno.test("a module is no device, pipe or folder, and imports none: loading it would have no end", () =>
  withPolicy(`import "./zero.ts";\n${FINE}`, async (folder) => {
    await Deno.symlink("/dev/zero", `${folder}/zero.ts`);
    await Deno.mkdir(`${folder}/folder.ts`);
    await shell("mkfifo pipe.ts", folder);
    for (const [name, named] of [["own", "zero"], ["zero"], ["folder"], ["pipe"]] as const) {
      const { code, stderr } = await vmtape(["replay", "t", "-p", `./${name}.ts`], { cwd: folder });
      assertEquals(code, 2, stderr);
      assertStringIncludes(stderr, `/${named ?? name}.ts, a file that is no regular file`);
    }
  }));

Deno.test("a text without an end is refused soon, in words", () =>
  withFolder(async (folder) => {
    await shell("vmtape record enter -q -o t", folder);
    const lines = ["predict /dev/zero", "merge /dev/zero t", "compare t t --skip /dev/zero"];
    for (const line of lines) {
      const { code, stderr } = await vmtape(line.split(" "), { cwd: folder });
      assertEquals(code, 2, stderr);
      assertStringIncludes(stderr, "Cannot read /dev/zero: It is a text of more than 64 MiB");
    }
  }));

Deno.test("a command gives up what it does not need before it reads anything", () =>
  withFolder(async (folder) => {
    await vmtape(["record", "enter", "-q", "-o", `${folder}/t`]);
    const main = new URL("../cli/app.ts", import.meta.url).href;
    const probe = `import { run } from ${JSON.stringify(main)};
const states = () => ["read", "write", "run", "net", "env", "ffi", "sys"].filter((name) =>
  Deno.permissions.querySync({ name } as Deno.PermissionDescriptor).state === "granted").join();
let seen = "";
const out = { writeSync: (b: Uint8Array) => (seen = states(), b.length) };
await run(Deno.args, { out, err: out, color: false, debug: false, alone: true });
seen ||= states();
new Deno.Command("true");
Deno.stdout.writeSync(new TextEncoder().encode(seen + "\\n"));
`;
    await Deno.writeTextFile(`${folder}/probe.ts`, probe);
    const asked: readonly (readonly [string, string])[] = [
      ["dump t", "read"],
      ["replay t", "read"],
      ["cat t -o u", "read,write"],
      ["record qemu --help", "read,write,run,net,env,ffi,sys"],
    ];
    for (const [line, left] of asked) {
      const { stdout, stderr } = await new Deno.Command(Deno.execPath(), {
        args: ["run", "-A", "-q", "-c", CONFIG, `${folder}/probe.ts`, ...line.split(" ")],
        cwd: folder,
      }).output();
      const text = new TextDecoder().decode(stdout);
      assert(
        text.startsWith(left) && text.trimEnd() === left,
        text + new TextDecoder().decode(stderr),
      );
    }
  }));
