/** `vmtape import` as a process: what it leaves behind, and how it follows a log that is being written. */
import { gzipSync } from "node:zlib";
import {
  assert,
  assertEquals,
  assertMatch,
  assertRejects,
  assertStringIncludes,
} from "@std/assert";
import {
  fileChunks,
  fileSpool,
  importTracepoints,
  readTrace,
  TracepointError,
} from "../codecs/mod.ts";
import { SHAPES } from "./import_shapes.ts";
import { command, shell, vmtapeHere as vmtape, withFolder } from "./cli_process.ts";

const LOG = SHAPES[0]!.text;
const LINES = LOG.trimEnd().split("\n").map((line) => line + "\n");

Deno.test("an import of no records ends with 1, says why, and writes nothing", () =>
  withFolder(async (folder) => {
    const vmx =
      " CPU 3/KVM-4310 [013] .....  6076.453270: kvm_nested_vmexit: vcpu 3 reason VMCALL " +
      "rip 0x103c00 info1 0x0000000000000000 info2 0x0000000000000000 intr_info 0x00000000 " +
      "error_code 0x00000000\n";
    const logs = {
      vmx: [vmx, /1 record of VMX.*passed over: kvm_nested_vmexit 1/],
      empty: ["# tracer: nop\n#\n", /0 records of 2 lines/],
      other: [" q-7 [000] .... 1.000001: kvm_msr: msr_read 1 = 0x0\n", /passed over \(kvm_msr 1\)/],
      cut: [LINES[3]!.slice(0, -5) + "\n", /line 1: .* shorter than the kernel prints/],
    } as const;
    for (const [name, [text, note]] of Object.entries(logs)) {
      await Deno.writeTextFile(`${folder}/${name}`, text);
      const { code, stderr } = await vmtape(["import", `${folder}/${name}`, "-o", `${folder}/out`]);
      assertEquals(code, 1, stderr);
      assertMatch(stderr, note);
      assertMatch(stderr, /Nothing to import was in .*; no trace was written\n$/);
    }
    const piped = await vmtape(["import", `${folder}/empty`, "-o", "-"]);
    assertEquals([piped.code, piped.stdout], [1, ""]);
    const left = await Array.fromAsync(Deno.readDir(folder), ({ name }) => name);
    assertEquals(left.sort(), Object.keys(logs).sort());
  }));

Deno.test("the same input gives the same bytes, from a file or from standard input", () =>
  withFolder(async (folder) => {
    await Deno.writeTextFile(`${folder}/log`, LOG);
    await Deno.writeTextFile(`${folder}/other`, LOG.replace("4321", "4322"));
    const { code, stderr } = await shell(
      `vmtape import log -q -o a && sleep 0.01 && vmtape import log -q -o b && cmp a b &&
       vmtape import - -q -o c < log && vmtape import - -q -o d < log && cmp c d &&
       vmtape import other -q -o e && ! cmp -s a e`,
      folder,
    );
    assertEquals(code, 0, stderr);
  }));

/** Kinds of the events that a recorder has written so far; none while there is nothing to read. */
async function kindsIn(part: string): Promise<string[]> {
  const kinds: string[] = [];
  try {
    const trace = await readTrace(fileChunks(part));
    for await (const { kind } of trace.events()) kinds.push(kind);
  } catch {
    // It has no end yet.
  }
  return kinds;
}

/** Waits until a recorder has written that many events. A minute is as good as never. */
async function until(part: string, count: number): Promise<string[]> {
  for (let i = 0; i < 600; i++) {
    const kinds = await kindsIn(part);
    if (kinds.length >= count) return kinds;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  return await kindsIn(part);
}

for (const signal of ["SIGINT", "SIGTERM"] as const) {
  Deno.test(`a live log is seen as it comes, and ${signal} is heard while nothing does`, () =>
    withFolder(async (folder) => {
      const child = command(["import", "-", "-o", `${folder}/out`], {}, true).spawn();
      const writer = child.stdin.getWriter();
      const write = (text: string) => writer.write(new TextEncoder().encode(text));
      const part = `${folder}/out.part`;
      // One line, and nothing after it: the VMRUN may not wait for its intercepts.
      await write(LINES[0]!);
      assertEquals(await until(part, 2), ["session", "vmrun"]);
      await write(LINES[2]!.slice(0, 30));
      await write(LINES[2]!.slice(30));
      assertEquals(await until(part, 3), ["session", "vmrun", "l2exit"]);
      child.kill(signal);
      const { code, stderr } = await child.output();
      assertEquals(code, 130, new TextDecoder().decode(stderr));
      await writer.abort().catch(() => {});
      const { stdout } = await vmtape(["info", `${folder}/out`, "--json"]);
      assertEquals([JSON.parse(stdout).finished, JSON.parse(stdout).events], [true, 3]);
    }));
}

Deno.test("a signal before the first byte leaves nothing behind", () =>
  withFolder(async (folder) => {
    const child = command(["import", "-", "-o", `${folder}/out`], {}, true).spawn();
    // It hears signals once it says so, or once it is killed by one: both end it.
    await new Promise((resolve) => setTimeout(resolve, 1500));
    child.kill("SIGINT");
    const { code } = await child.output();
    assertEquals(code, 130);
    await child.stdin.abort().catch(() => {});
    assertEquals(await Array.fromAsync(Deno.readDir(folder)), []);
  }));

Deno.test("a pipe with a name is read once, from its first byte on", () =>
  withFolder(async (folder) => {
    await Deno.writeTextFile(`${folder}/log`, LOG);
    const { code, stderr } = await shell(
      "mkfifo pipe; (cat log > pipe &); vmtape import pipe -o out",
      folder,
    );
    assertEquals(code, 0, stderr);
    assertStringIncludes(stderr, `${LINES.length} records of ${LINES.length} lines imported`);
  }));

Deno.test("a trace.dat out of gzip is kept up to a limit, and no further", async () => {
  const magic = [0x17, 0x08, 0x44, ...new TextEncoder().encode("tracing")];
  const file = Uint8Array.from({ length: 4096 }, (_, i) => magic[i] ?? 0);
  const log = importTracepoints(gzipSync(file), { spool: () => fileSpool(undefined, 100) });
  const error = await assertRejects(() => Array.fromAsync(log), TracepointError);
  assertEquals(error.code, "limit");
  assert(/up to 100 bytes.*uncompressed/.test(error.message), error.message);
});
