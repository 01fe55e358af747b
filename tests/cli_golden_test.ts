/**
 * Outputs that users read, held to what they were: `deno test -A -u
 * tests/cli_golden_test.ts` accepts new ones.
 */
import { assertEquals } from "@std/assert";
import { vmtape, withFolder } from "./cli_process.ts";

const COMMANDS: readonly (readonly [string, readonly string[], number])[] = [
  ["info", ["info", "t"], 0],
  ["dump", ["dump", "t", "--kind", "session,case,vmrun,check,inner,exit,regs"], 0],
  ["dump of fields", ["dump", "t", "--kind", "inner", "--fields", "--to", "24"], 0],
  ["replay under another policy", ["replay", "t", "--policy", "linux-6.12"], 1],
  ["diff", ["diff", "t", "--policies", "early-exit,unified"], 1],
  ["diff by run", ["diff", "t", "--policies", "early-exit,unified,linux-6.12", "--runs"], 1],
];

Deno.test("outputs are as they were", (t) =>
  withFolder(async (folder) => {
    const scenarios = ["gif-left-set", "eventinj-left", "msrpm-in-vmcb01"];
    const args = ["record", ...scenarios, "-o", "t", "-p", "early-exit"];
    const recorded = await vmtape(args, { cwd: folder });
    assertEquals(recorded.code, 0, recorded.stderr);
    for (const [name, args, status] of COMMANDS) {
      await t.step(name, async (t) => {
        const { code, stdout, stderr } = await vmtape(args, { cwd: folder });
        assertEquals([code, stderr], [status, ""]);
        // The size of a trace is the codec's business.
        await t.assertSnapshot(stdout.replace(/^( {2}size +)\d+ bytes$/m, "$1N bytes"));
      });
    }
  }));
