/**
 * What waits a long time before it is ended; a task for itself, since nothing is done meanwhile.
 */
import { assertEquals, assertMatch } from "@std/assert";
import { vmtape, withFolder } from "./cli_process.ts";

Deno.test("a module that never finishes loading is named, then ended", () =>
  withFolder(async (folder) => {
    await Deno.writeTextFile(`${folder}/own.ts`, "await new Promise(() => {});\n");
    const recorded = await vmtape(["record", "enter", "-q", "-o", `${folder}/t`]);
    assertEquals(recorded.code, 0, recorded.stderr);
    const { code, stderr } = await vmtape(["replay", "t", "-p", "./own.ts"], { cwd: folder });
    assertEquals(code, 2);
    const [said = "", ended = ""] = stderr.trimEnd().split("\n");
    assertMatch(said, /^vmtape: The module \.\/own\.ts has not ended for 5 s: it seems to loop/);
    assertMatch(ended, /The module \.\/own\.ts has not ended for 20 s: the run was ended/);
  }));
