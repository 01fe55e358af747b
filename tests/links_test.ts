import * as std from "@std/assert";
import * as cli from "@std/cli";
import * as streams from "@std/streams";

Deno.test("the stand-ins resolve", () => {
  std.assertEquals(typeof cli.parseArgs, "function");
  std.assertEquals(typeof streams.toBytes, "function");
});
