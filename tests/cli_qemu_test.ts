import { assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { shell, vmtape, withFolder } from "./cli_process.ts";

const missing = (await shell("command -v qemu-system-x86_64")).code !== 0;

const REFUSED: readonly (readonly [string, string, RegExp])[] = [
  ["no source", "record qemu -o t", /Say one of --attach HOST:PORT, --guest IMAGE and --scenario/],
  ["two sources", "record qemu -o t --guest a --attach b:1", /Say one of/],
  ["a bad address", "record qemu -o t --attach x:1 --at 12zz", /needs hexadecimal addresses/],
  [
    "an option of the other kind",
    "record qemu -o t --scenario enter --limit 3",
    /are for --attach/,
  ],
  ["an unknown scenario", "record qemu -o t --scenario entr", /did you mean "enter"/],
  [
    "nobody at the address",
    "record qemu -o t --attach 127.0.0.1:1",
    /Nothing answers at 127\.0\.0\.1:1/,
  ],
  ["an address beyond what is allowed", "record qemu -o t --attach 192.0.2.1:9", /--allow-net/],
  ["an image that is none", "record qemu -o t --guest .", /\. is no image that QEMU boots/],
];
for (const [what, line, message] of REFUSED) {
  Deno.test(`record qemu: ${what} is one clear line and status 2, and writes nothing`, () =>
    withFolder(async (folder) => {
      const { code, stdout, stderr } = await vmtape(line.split(" "), { cwd: folder });
      assertMatch(stderr, message);
      assertMatch(stderr, /^vmtape record qemu: [^\n]*\n$/);
      assertEquals([code, stdout], [2, ""]);
      assertEquals(await Array.fromAsync(Deno.readDir(folder)), []);
    }));
}

Deno.test("help finds commands of two words", async () => {
  const { code, stdout } = await vmtape(["record", "qemu", "--help"]);
  assertEquals(code, 0);
  assertStringIncludes(stdout, "Usage: vmtape record qemu -o FILE");
  assertEquals((await vmtape(["help", "record", "qemu"])).stdout, stdout);
});

Deno.test({
  name: "record qemu runs scenarios on QEMU's own SVM",
  ignore: missing,
  fn: () =>
    withFolder(async (folder) => {
      const { code, stderr } = await vmtape(
        ["record", "qemu", "--scenario", "enter,gif-left-set", "-o", "t"],
        { cwd: folder },
      );
      assertEquals(code, 0, stderr);
      assertStringIncludes(stderr, "2 cases recorded on QEMU");
      const { kinds } = JSON.parse((await vmtape(["info", "t", "--json"], { cwd: folder })).stdout);
      assertEquals([kinds.case, kinds.vmrun, kinds.exit], [2, 2, 2]);
    }),
});
