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
