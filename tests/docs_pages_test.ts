import { assert, assertEquals } from "@std/assert";
import { CONTROL_FIELDS, EXIT_CODES, SAVE_FIELDS } from "@vmtape/vmtape/engine";
import { PAGES } from "../docs/generate.ts";
import { vmcbPage } from "../docs/vmcb_page.ts";

for (const { file, render } of PAGES) {
  Deno.test(`docs/${file} is what docs/generate.ts writes`, async () => {
    const committed = await Deno.readTextFile(new URL(`../docs/${file}`, import.meta.url));
    assertEquals(committed, render());
  });
}

Deno.test("the VMCB page has every field and every exit code", () => {
  const page = vmcbPage();
  for (const { name } of [...CONTROL_FIELDS, ...SAVE_FIELDS]) {
    assert(page.includes(`| \`${name}\` `), name);
  }
  for (const { name } of EXIT_CODES) assert(page.includes(`| \`${name}\` `), name);
});

Deno.test("architecture.md names every room", async () => {
  const page = await Deno.readTextFile(new URL("../docs/architecture.md", import.meta.url));
  const missing: string[] = [];
  for (const layer of ["traces", "codecs", "engine"]) {
    for await (
      const { name, isDirectory } of Deno.readDir(new URL(`../${layer}/`, import.meta.url))
    ) {
      if (isDirectory && !page.includes(`${name}/`)) missing.push(`${layer}/${name}`);
    }
  }
  assertEquals(missing, []);
});

Deno.test("the files that architecture.md says to touch are there", async () => {
  const root = new URL("../", import.meta.url);
  const page = await Deno.readTextFile(new URL("docs/architecture.md", root));
  const recipes = page.slice(page.indexOf("## What to touch")).split("\n## ")[0]!;
  const paths = [...recipes.matchAll(/`((?:engine|codecs|traces|cli|docs)\/[\w./]+)`/g)];
  assert(paths.length > 10, `${paths.length} paths`);
  for (const [, path] of paths) await Deno.stat(new URL(path!, root));
});
