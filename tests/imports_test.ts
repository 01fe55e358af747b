import { assert, assertEquals } from "@std/assert";

const ROOT = new URL("../", import.meta.url);
/** From the bottom up: a folder imports from itself and from those before it. */
const LAYERS = ["engine", "codecs", "traces", "cli"];

async function* sources(folder: URL): AsyncGenerator<string> {
  for await (const entry of Deno.readDir(folder)) {
    if (entry.isDirectory) yield* sources(new URL(`${entry.name}/`, folder));
    else if (entry.name.endsWith(".ts")) yield new URL(entry.name, folder).href;
  }
}

// Imports of types alone leave no trace at run time: they may go in circles, but not upwards.
const IMPORT = /^(?:import|export)(\s+type\b)?[^;"']*?from\s+"(\.[^"]+)";/gm;

async function graph(values: boolean): Promise<Map<string, string[]>> {
  const edges = new Map<string, string[]>();
  for (const layer of LAYERS) {
    for await (const file of sources(new URL(`${layer}/`, ROOT))) {
      const text = await Deno.readTextFile(new URL(file));
      const to: string[] = [];
      for (const [, type, path] of text.matchAll(IMPORT)) {
        if (!values || type === undefined) to.push(new URL(path!, file).href);
      }
      edges.set(file, to);
    }
  }
  return edges;
}

function circle(edges: Map<string, string[]>): string[] | undefined {
  const done = new Set<string>();
  const path: string[] = [];
  const visit = (file: string): string[] | undefined => {
    if (done.has(file)) return undefined;
    const at = path.indexOf(file);
    if (at >= 0) return path.slice(at);
    path.push(file);
    for (const next of edges.get(file) ?? []) {
      const found = visit(next);
      if (found) return found;
    }
    path.pop();
    done.add(file);
    return undefined;
  };
  for (const file of edges.keys()) {
    const found = visit(file);
    if (found) return found.map((name) => name.slice(ROOT.href.length));
  }
  return undefined;
}

Deno.test("no module imports itself by way of others", async () => {
  const edges = await graph(true);
  assert(edges.size > 100);
  assertEquals(circle(edges), undefined);
});

Deno.test("the search for circles finds one", () => {
  const edges = new Map([["a", ["b"]], ["b", ["c"]], ["c", ["b"]]]);
  assertEquals(circle(edges)?.length, 2);
});

Deno.test("arrows run one way: cli, traces, codecs, engine", async () => {
  const layer = (file: string) => LAYERS.indexOf(file.slice(ROOT.href.length).split("/")[0]!);
  const upwards: string[] = [];
  for (const [from, to] of await graph(false)) {
    for (const file of to) {
      if (layer(file) > layer(from)) upwards.push(`${from} -> ${file}`);
    }
  }
  assertEquals(upwards, []);
});

Deno.test("the engine reads no file and prints nothing", async () => {
  for await (const file of sources(new URL("engine/", ROOT))) {
    const code = (await Deno.readTextFile(new URL(file))).replaceAll(/^\s*(\/\/|\*|\/\*).*$/gm, "");
    assert(!/\bDeno\.|\bconsole\./.test(code), file);
  }
});

Deno.test("every file says what it is about", async () => {
  const besides = ["report", "links", "bench", "docs", "examples", "release", "tests"];
  for (const folder of [...LAYERS, ...besides]) {
    for await (const file of sources(new URL(`${folder}/`, ROOT))) {
      // A test's name says what it tests.
      if (file.endsWith("_test.ts")) continue;
      const text = await Deno.readTextFile(new URL(file));
      assert(/^(?:#!.*\n)?\/\*\*\n(?: \*.*\n)+? \* @module\n \*\/\n/.test(text), file);
    }
  }
});
