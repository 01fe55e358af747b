import { assert, assertEquals } from "@std/assert";
import { shell, withFolder } from "./cli_process.ts";

/** Commands whose output says what to run next, over recordings whose names need quotes. */
const LINES = [
  "vmtape diff 'a b.vmtape' -p early-exit,unified --limit 2",
  "vmtape why 'a b.vmtape'",
  "vmtape diff 'a b.vmtape' u.vmtape",
];

Deno.test("every command that output proposes is one that works as it stands there", () =>
  withFolder(async (folder) => {
    const names = "gif-left-set eventinj-left";
    const made = await shell(
      `vmtape record ${names} -q -p early-exit -o 'a b.vmtape'; ` +
        `vmtape record ${names} -q -p unified -o u.vmtape`,
      folder,
    );
    assertEquals(made.code, 0, made.stderr);
    const proposed = new Set<string>();
    for (const line of LINES) {
      const { stdout } = await shell(line, folder);
      const found = stdout.split("\n").map((text) => text.trim())
        .filter((text) => text.startsWith("vmtape "));
      assert(found.length > 0, `${line} proposes nothing:\n${stdout}`);
      for (const command of found) proposed.add(command);
    }
    for (const command of [...proposed].slice(0, 8)) {
      const { code, stdout, stderr } = await shell(command, folder);
      assert(code <= 1 && stdout !== "", `${command}: ${stderr}`);
    }
  }));
