import { assert, assertEquals } from "@std/assert";
import { COMMANDS } from "../cli/commands.ts";
import { shell, withFolder } from "./cli_process.ts";

const ROOT = new URL("../", import.meta.url);
const README = await Deno.readTextFile(new URL("README.md", ROOT));
const PAGES = [...Deno.readDirSync(new URL("docs/", ROOT))].map(({ name }) => name)
  .filter((name) => name.endsWith(".md"));

Deno.test("README shows what the commands print", () =>
  withFolder(async (folder) => {
    const [, session = ""] = /```console\n([^]*?)```/.exec(README) ?? [];
    const shown = session.split(/^\$ /m).slice(1);
    assertEquals(shown.length, 3);
    for (const part of shown) {
      const [line = "", ...expected] = part.trimEnd().split("\n");
      const { stdout, stderr } = await shell(line, folder);
      const printed = (stderr + stdout).trimEnd().split("\n");
      if (expected.at(-1) !== "...") assertEquals(printed, expected, line);
      // What follows is left out, with the empty line before it.
      else assertEquals(printed.slice(0, expected.length - 1), expected.slice(0, -1), line);
    }
  }));

Deno.test("README leads to every command, and names every page", async () => {
  // By question, to those that answer one; the page that is generated lists them all.
  const all = await Deno.readTextFile(new URL("docs/command-line.md", ROOT));
  for (const { name } of COMMANDS) assert(all.includes(`\n## vmtape ${name}\n`), name);
  const [, asked = ""] = /^## What to ask\n([^]*?)^Each takes/m.exec(README) ?? [];
  const words = new Set(COMMANDS.map(({ name }) => name.split(" ")[0]));
  const named = [...asked.matchAll(/`([a-z]+)[^`]*`/g)].map(([, word = ""]) => word);
  assert(named.length > 20, `${named.length} commands`);
  for (const word of named) assert(words.has(word), word);
  for (const page of PAGES) assert(README.includes(`](docs/${page})`), page);
});

Deno.test("the index of the documentation names every page", async () => {
  const index = await Deno.readTextFile(new URL("docs/README.md", ROOT));
  for (const page of PAGES) {
    if (page !== "README.md") assert(index.includes(`](${page}`), page);
  }
});

/** The address of a heading, as GitHub makes it. */
function slug(heading: string): string {
  return heading.toLowerCase().replaceAll(/[^\p{L}\p{N}\s_-]/gu, "").replaceAll(" ", "-");
}

for (const page of ["README.md", ...PAGES.map((name) => `docs/${name}`)]) {
  Deno.test(`the links of ${page} lead somewhere`, async () => {
    const url = new URL(page, ROOT);
    for (const [, target = ""] of (await Deno.readTextFile(url)).matchAll(/\]\(([^)\s]+)\)/g)) {
      if (/^(?:https?:|#)/.test(target)) continue;
      const [file = "", anchor] = target.split("#");
      const { isFile } = await Deno.stat(new URL(file, url));
      assert(isFile, target);
      if (anchor === undefined || !file.endsWith(".md")) continue;
      const headings = (await Deno.readTextFile(new URL(file, url))).matchAll(/^#+ (.*)$/gm);
      assert([...headings].some(([, heading = ""]) => slug(heading) === anchor), target);
    }
  });
}
