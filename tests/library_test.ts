import { assertEquals, assertMatch, assertRejects, assertStringIncludes } from "@std/assert";
import * as root from "@vmtape/vmtape";
import * as engine from "@vmtape/vmtape/engine";
import * as codecs from "@vmtape/vmtape/codecs";
import * as report from "@vmtape/vmtape/report";
import * as traces from "@vmtape/vmtape/traces";
import { exitsPerSecond } from "../examples/exits_per_second.ts";
import { shell, withFolder } from "./cli_process.ts";

const ROOT = new URL("../", import.meta.url);

for (const [name, face] of Object.entries({ root, engine, codecs, traces, report })) {
  // What is added, renamed or gone is seen here; types are not, they have no value.
  Deno.test(`the values that ${name} exports are as they were`, async (t) => {
    await t.assertSnapshot(Object.keys(face).sort().join("\n"));
  });
}

Deno.test("the names at the root, types among them, are as they were", async (t) => {
  const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["doc", "--json", "mod.ts"],
    cwd: ROOT,
    stdin: "null",
  }).output();
  assertEquals(code, 0, new TextDecoder().decode(stderr));
  const { nodes } = JSON.parse(new TextDecoder().decode(stdout)) as {
    nodes: Record<string, { symbols: { name: string; declarations: { kind: string }[] }[] }>;
  };
  const names = Object.values(nodes).flatMap(({ symbols }) => symbols)
    .map(({ name, declarations }) => `${name}: ${declarations.map(({ kind }) => kind).join(", ")}`);
  await t.assertSnapshot(names.sort().join("\n"));
});

Deno.test("every error that the library exports is one of its own", () => {
  for (const face of [engine, codecs, traces]) {
    for (const [name, value] of Object.entries(face)) {
      if (!name.endsWith("Error") || name === "VmtapeError") continue;
      const { prototype } = value as unknown as { prototype: unknown };
      assertEquals(prototype instanceof engine.VmtapeError, true, name);
    }
  }
});

Deno.test("a trace is no path, and a path no bytes: wrong use does not compile", async () => {
  const code = `
import { openTrace, readTrace } from "${new URL("mod.ts", ROOT)}";
await readTrace("run.vmtape");
await openTrace(new Uint8Array(3));
`;
  await withFolder(async (folder) => {
    await Deno.writeTextFile(`${folder}/wrong.ts`, code);
    const { code: status, stderr } = await new Deno.Command(Deno.execPath(), {
      args: ["check", "--config", new URL("deno.json", ROOT).pathname, `${folder}/wrong.ts`],
      env: { NO_COLOR: "1" },
    }).output();
    const text = new TextDecoder().decode(stderr);
    assertEquals(status, 1);
    assertStringIncludes(text, "Found 2 errors");
  });
});

Deno.test("bytes where chunks belong are told, to who has no compiler", async () => {
  const bytes = new Uint8Array(8) as unknown as Uint8Array[];
  await assertRejects(() => root.readTrace(bytes), root.TraceError, "into a list: [bytes]");
});

Deno.test("the script of the examples counts exits by second and reason", () =>
  withFolder(async (folder) => {
    const path = `${folder}/t.vmtape`;
    const exit = (time: number, exit_code: bigint) =>
      ({ kind: "l2exit", vcpu: 0, time, exit_code }) as const;
    await root.writeTrace(path, [exit(5, 0x400n), exit(6, 0x400n), exit(2_500_000_000, 0x81n)]);
    const seconds = await exitsPerSecond(path);
    assertEquals(seconds.map((counts) => Object.fromEntries(counts)), [
      { NPF: 2 },
      {},
      { VMMCALL: 1 },
    ]);
  }));

Deno.test("the gate of the examples fails on an outcome, and on nothing less", () =>
  withFolder(async (folder) => {
    const { stdout, stderr } = await shell(
      "vmtape record gif-left-set -q -p early-exit -o a; vmtape record gif-left-set -q -p unified -o b; " +
        "vmtape record pae-l2-bad-pdptes-enters -q -p early-exit -o c; " +
        "vmtape record pae-l2-bad-pdptes-enters -q -p unified -o d; " +
        `export -f vmtape; ${
          new URL("examples/ci_gate.sh", ROOT).pathname
        } a b; echo "status $?"; ` +
        `${new URL("examples/ci_gate.sh", ROOT).pathname} c d; echo "status $?"`,
      folder,
    );
    assertMatch(stdout, /GIF stays set[^]*No outcome differs\.\nstatus 0\n/, stderr);
    assertMatch(stdout, /lets L2 in where [^]*An outcome differs: see above\.\nstatus 1\n/);
  }));
