import { assert, assertEquals } from "@std/assert";
import { fileChunks, formatEvent, readTrace, TraceFile } from "../codecs/mod.ts";
import { fileSource } from "../codecs/mod.ts";
import { MINOR } from "../codecs/container/format.ts";
import { type EventRow, EVENTS } from "../engine/mod.ts";
import { exampleEvents } from "../docs/trace_example.ts";
import { join } from "./codecs_events.ts";

const GOLDEN = new URL("golden/", import.meta.url).pathname;
const READER = new URL("../docs/read_trace.py", import.meta.url).pathname;

async function linesOf(path: string, unfinished = false): Promise<string[]> {
  const lines: string[] = [];
  const trace = await readTrace(fileChunks(path), { unfinished });
  for await (const block of trace.blocks()) {
    for (const [number, event] of block.entries()) lines.push(formatEvent(number, event));
  }
  return lines;
}

async function expected(name: string): Promise<string[]> {
  return (await Deno.readTextFile(`${GOLDEN}${name}.txt`)).trimEnd().split("\n");
}

Deno.test("the example of the specification is a trace, byte for byte", async () => {
  const page = await Deno.readTextFile(new URL("../docs/trace-format.md", import.meta.url));
  const parts = [...page.matchAll(/```hex\n([^`]*)```/g)].map(([, hex]) =>
    Uint8Array.fromHex(hex!.replace(/\s/g, ""))
  );
  assertEquals(parts.length, 4);
  const trace = await readTrace([join(parts)]);
  assertEquals(await Array.fromAsync(trace.events()), exampleEvents());
  assertEquals(trace.finished, true);
  for (const [i, event] of exampleEvents().entries()) {
    assert(page.includes(`\n${formatEvent(i, event)}\n`));
  }
});

Deno.test("goldens of every version are read as they were written", async () => {
  const names = (await Array.fromAsync(Deno.readDir(GOLDEN))).map((entry) => entry.name)
    .filter((name) => /^trace-.*\.txt$/.test(name)).map((name) => name.replace(/\.txt$/, ""));
  assert(names.length > 0);
  for (const name of names) {
    assertEquals(await linesOf(`${GOLDEN}${name}.vmt`), await expected(name));
  }
});

Deno.test("the golden of version 1.0 has every kind, an index and a checkpoint", async () => {
  using source = fileSource(`${GOLDEN}trace-1.0-every-kind.vmt`);
  const trace = await TraceFile.open(source);
  assertEquals(trace.finished, true);
  const kinds = new Set<string>();
  for await (const event of trace.events()) kinds.add(event.kind);
  const first = EVENTS.filter(({ since = 0 }: EventRow) => since === 0);
  assertEquals([...kinds].sort(), first.map(({ kind }) => kind).sort());
  const checkpoint = await trace.checkpoint(100);
  assertEquals([checkpoint?.event, checkpoint?.state.length], [81, 1000]);
  assertEquals(checkpoint?.digest, new Uint8Array(32).fill(0xd1));
  assertEquals(await trace.checkpoint(80), undefined);
});

Deno.test("the golden of version 1.1 has the kinds that came with it", async () => {
  using source = fileSource(`${GOLDEN}trace-1.1-migration.vmt`);
  const trace = await TraceFile.open(source);
  const kinds = new Set<string>();
  for await (const event of trace.events()) kinds.add(event.kind);
  const since = (row: EventRow) => row.since ?? 0;
  for (const row of EVENTS) if (since(row) === 1) assert(kinds.has(row.kind), row.kind);
  assertEquals(Math.max(...EVENTS.map(since)), MINOR);
});

Deno.test("an unfinished trace of version 1.0 gives its flushed events", async () => {
  const lines = await linesOf(`${GOLDEN}trace-1.0-unfinished.vmt`, true);
  assertEquals(lines, (await expected("trace-1.0-every-kind")).slice(0, lines.length));
  assertEquals(lines.length, 121);
});

async function python(...args: string[]): Promise<Deno.CommandOutput | undefined> {
  for (const command of ["/usr/bin/python3", "python3"]) {
    try {
      const output = await new Deno.Command(command, { args }).output();
      if (output.success || !new TextDecoder().decode(output.stderr).includes("'zstd'")) {
        return output;
      }
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound)) throw error;
    }
  }
  return undefined;
}

const PYTHON = await python(READER, `${GOLDEN}trace-1.0-every-kind.vmt`);

Deno.test({
  name: PYTHON
    ? "the independent reader lists the same events"
    : "the independent reader lists the same events (skipped: no python3 with zstd)",
  ignore: !PYTHON,
  fn: async () => {
    assertEquals(new TextDecoder().decode(PYTHON!.stderr), "");
    const lines = new TextDecoder().decode(PYTHON!.stdout).trimEnd().split("\n");
    assertEquals(lines, await expected("trace-1.0-every-kind"));
    const cut = await python(READER, `${GOLDEN}trace-1.0-unfinished.vmt`);
    assertEquals(cut?.code, 3);
    assertEquals(new TextDecoder().decode(cut!.stdout).trimEnd().split("\n").length, 121);
  },
});

Deno.test("the independent reader has at most 200 lines", async () => {
  assert((await Deno.readTextFile(READER)).trimEnd().split("\n").length <= 200);
});
