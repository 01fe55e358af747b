import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { crc32 } from "node:zlib";
import { PREFIX } from "../codecs/container/format.ts";
import { headerSize } from "../codecs/mod.ts";
import { shell, vmtapeHere as vmtape, withFolder } from "./cli_process.ts";

const RECORD = {
  case: "efer_svme0",
  spec: "s.d0=500 gif=0",
  kernel: "unified",
  npt: 1,
  events: [
    { check_failed: "!(save->efer & EFER_SVME)" },
    { at: "vmrun", nested: { active: "01", gif: "0" } },
  ],
  post: { rip: "8005", gif: 0, rc: 0, exit: 2, port: "80" },
};
const OTHER = { ...RECORD, case: "other", spec: "gif=1", events: [] };
const LINES = [RECORD, OTHER].map((record) => JSON.stringify(record) + "\n").join("");

/** A folder with a recording in it and a trace of it. */
async function withTrace(use: (folder: string, trace: string) => Promise<void>): Promise<void> {
  await withFolder(async (folder) => {
    await Deno.writeTextFile(`${folder}/in.ndjson`, LINES);
    const trace = `${folder}/in.vmtape`;
    const { code, stderr } = await vmtape(["import", `${folder}/in.ndjson`, "-o", trace]);
    assertEquals(code, 0, stderr);
    await use(folder, trace);
  });
}

Deno.test("import makes a trace that holds what the records hold", () =>
  withTrace(async (folder, trace) => {
    const same = await vmtape(["compare", `${folder}/in.ndjson`, trace]);
    assertEquals(same.code, 0, same.stdout);
    assertStringIncludes(same.stdout, "2 cases compared, 2 agree in everything");
    const { code, stdout } = await vmtape(["info", trace, "--json"]);
    assertEquals(code, 0);
    const info = JSON.parse(stdout);
    assertEquals(info.kinds.case, 2);
    assertEquals(Object.values(info.checks), [1]);
    assertEquals(info.sessions[0].kernel, "unified");
    assertEquals(info.finished, true);
    const left = await Array.fromAsync(Deno.readDir(folder));
    assertEquals(left.map((entry) => entry.name).sort(), ["in.ndjson", "in.vmtape"]);
  }));

Deno.test("import takes compressed records, and pipes at both ends", () =>
  withTrace(async (folder, trace) => {
    const { code, stderr } = await shell(
      `gzip -k in.ndjson && cat in.ndjson.gz | vmtape import - -o - > piped.vmtape &&
       vmtape compare in.vmtape piped.vmtape --quiet && vmtape info - < piped.vmtape`,
      folder,
    );
    assertEquals(code, 0, stderr);
    assert((await Deno.stat(trace)).size > 0);
  }));

const LOG = "qemu-7 [000] ..... 3.648900: kvm_nested_vmenter_failed: control->asid == 0\n";

Deno.test("import recognizes a tracepoint log, and says what it passed over", () =>
  withFolder(async (folder) => {
    await Deno.writeTextFile(`${folder}/log`, `${LOG}qemu-7 [000] ..... 3.7: sched_switch: x\n`);
    const out = `${folder}/out`;
    const { code, stderr } = await vmtape(["import", `${folder}/log`, "-o", out]);
    assertEquals(code, 0, stderr);
    assertStringIncludes(stderr, "1 record of 2 lines imported, of the form ftrace");
    assertStringIncludes((await vmtape(["info", out])).stdout, "asid");
    const wrong = ["import", `${folder}/log`, "-o", out, "-f", "--from", "perf"];
    assertMatch((await vmtape(wrong)).stderr, /is of the form ftrace, not perf/);
  }));

Deno.test("info and import say on standard error what they did, and nothing with --quiet", () =>
  withTrace(async (folder) => {
    const out = `${folder}/again`;
    const loud = await vmtape(["import", `${folder}/in.ndjson`, "-o", out]);
    assertMatch(loud.stderr, /^\d+ events, \d+ bytes in .*again\n$/);
    const quiet = await vmtape(["import", `${folder}/in.ndjson`, "-o", out, "--force", "-q"]);
    assertEquals(quiet, { code: 0, stdout: "", stderr: "" });
  }));

Deno.test("compare ends with 1 when something differs, and names the fields", () =>
  withTrace(async (folder, trace) => {
    const changed = { ...RECORD, post: { ...RECORD.post, gif: 1 } };
    await Deno.writeTextFile(
      `${folder}/b.ndjson`,
      [changed, OTHER].map((r) => JSON.stringify(r) + "\n").join(""),
    );
    const { code, stdout } = await vmtape(["compare", trace, `${folder}/b.ndjson`]);
    assertEquals(code, 1);
    assertStringIncludes(stdout, "post.gif");
    await Deno.writeTextFile(`${folder}/skip.json`, JSON.stringify([RECORD.case]));
    const args = ["compare", trace, `${folder}/b.ndjson`, "--skip", `${folder}/skip.json`];
    assertEquals((await vmtape(args)).code, 0);
  }));

Deno.test("a bad line of a recording is named, and what came before it is kept", () =>
  withFolder(async (folder) => {
    await Deno.writeTextFile(`${folder}/in.ndjson`, `${LINES}{"case": "cut\n`);
    const out = `${folder}/out.vmtape`;
    const bad = await vmtape(["import", `${folder}/in.ndjson`, "-o", out, "--json"]);
    assertEquals(bad.code, 3);
    const { error } = JSON.parse(bad.stdout);
    assertEquals(error.line, 3);
    assertMatch(error.message, /in\.ndjson:3: /);
    assertMatch(bad.stderr, /^The \d+ events before that are in .*\nvmtape import: .*:3: .*\n$/);
    const info = await vmtape(["info", out, "--json"]);
    assertEquals([info.code, JSON.parse(info.stdout).kinds.case], [0, 2]);
  }));

Deno.test("an input that is nothing of the kind leaves no file behind", () =>
  withFolder(async (folder) => {
    await Deno.writeTextFile(`${folder}/in`, "not a recording\n");
    const { code, stderr } = await vmtape(["import", `${folder}/in`, "-o", `${folder}/out`]);
    assertEquals(code, 3);
    assertMatch(stderr, /^vmtape import: Not a tracepoint log[^\n]*\n$/);
    const left = await Array.fromAsync(Deno.readDir(folder));
    assertEquals(left.map((entry) => entry.name), ["in"]);
  }));

const FILES: readonly (readonly [string, string, number, RegExp])[] = [
  ["a missing trace", "vmtape info none.vmtape", 2, /none\.vmtape does not exist/],
  ["a missing recording", "vmtape import none -o out", 2, /none: No such file or directory/],
  [
    "a trace instead of a recording",
    "vmtape import in.vmtape -o out",
    2,
    /is a vmtape trace already/,
  ],
  ["control characters", `printf 'a \\033[2Jx' > s; vmtape predict s`, 2, /no token "\\x1b\[2Jx"/],
  [
    "one damaged trace of two",
    "head -c -50 in.vmtape > cut; vmtape cat in.vmtape cut -q -o out 2> e; s=$?; tail -1 e >&2; exit $s",
    3,
    /^vmtape cat: cut: .*before its end/,
  ],
  [
    "a damaged trace beside another",
    "head -c -50 in.vmtape > cut; vmtape compare in.vmtape cut",
    3,
    /^vmtape compare: cut: .*before its end/,
  ],
  ["an empty trace", ": > empty; vmtape info empty", 3, /Nothing is there/],
  ["a foreign file", "vmtape info in.ndjson", 3, /not a vmtape trace/],
  ["a folder as a trace", "vmtape info .", 2, /It is a directory/],
  ["a folder as a recording", "vmtape import . -o out", 2, /It is a directory/],
  [
    "an output that exists",
    "vmtape import in.ndjson -o in.vmtape",
    2,
    /in\.vmtape is there already; use another name or --force/,
  ],
  [
    "an output in no folder",
    "vmtape import in.ndjson -o none/out",
    2,
    /none\/out.*cannot be written/,
  ],
  ["an output that is a folder", "vmtape import in.ndjson -f -o .", 2, /Cannot write .*directory/],
  ["a full disk", "vmtape import in.ndjson -o - > /dev/full", 2, /No space left on device/],
  ["an output device", "vmtape import in.ndjson -o /dev/full", 2, /Cannot write \/dev\/full/],
  ["a header cut off", "head -c 900 in.vmtape > cut; vmtape info cut", 3, /within its header/],
  ["a trace cut off", "head -c -50 in.vmtape > cut; vmtape info cut", 3, /before its end.*recover/],
  [
    "a damaged header",
    `printf '\\xff' | dd of=in.vmtape bs=1 seek=8 conv=notrunc status=none; vmtape info in.vmtape`,
    3,
    /\(offset \d+\)/,
  ],
  ["a folder among two to compare", "vmtape compare in.ndjson .", 2, /It is a directory/],
  ["two standard inputs", "vmtape compare - -", 2, /Only one of the two can be standard input/],
  ["no records", "vmtape compare in.ndjson /dev/zero", 2, /holds neither records/],
  ["a bad skip list", "vmtape compare in.ndjson in.vmtape --skip in.ndjson", 2, /no skip list/],
];
for (const [what, line, status, message] of FILES) {
  Deno.test(`${what} is one clear line and status ${status}`, () =>
    withTrace(async (folder) => {
      const { code, stderr } = await shell(line, folder);
      assertMatch(stderr, message);
      assertMatch(stderr, /^vmtape \w+: [^\n]*\n$/);
      assertEquals(code, status);
    }));
}

Deno.test("a flipped bit in a block is found, with its place and status 3", () =>
  withTrace(async (folder, trace) => {
    const bytes = await Deno.readFile(trace);
    const at = headerSize(bytes) + 200;
    bytes[at]! ^= 4;
    await Deno.writeFile(`${folder}/bad`, bytes);
    const { code, stdout, stderr } = await vmtape(["info", `${folder}/bad`, "--json"]);
    assertEquals(code, 3, stderr);
    const { error } = JSON.parse(stdout);
    assertEquals([error.code, typeof error.offset], ["damaged", "number"]);
  }));

Deno.test("a version of the future is refused with status 4", () =>
  withTrace(async (folder, trace) => {
    const bytes = await Deno.readFile(trace);
    const view = new DataView(bytes.buffer);
    view.setUint16(PREFIX.major, 99, true);
    view.setUint32(PREFIX.crc, crc32(bytes.subarray(0, PREFIX.crc)), true);
    await Deno.writeFile(`${folder}/future`, bytes);
    const { code, stderr } = await vmtape(["info", `${folder}/future`]);
    assertEquals(code, 4, stderr);
    assertMatch(stderr, /^vmtape info: [^\n]*99[^\n]*\n$/);
  }));

Deno.test("a trace whose reader goes away is no error", () =>
  withTrace(async (folder) => {
    const { code, stderr } = await shell(
      "set -o pipefail; vmtape import in.ndjson -o - | head -c 8 > head && test -s head",
      folder,
    );
    assertEquals([code, stderr.includes("vmtape import")], [0, false]);
  }));
