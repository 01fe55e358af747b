import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { fileSink, TraceWriter } from "../codecs/mod.ts";
import { command, shell, vmtapeHere as vmtape, withFolder } from "./cli_process.ts";

const INVALID = new Uint8Array(4096).fill(0xff, 0x70, 0x78);

/** Writes a small trace: three scenarios, of which the second has a VMRUN that fails. */
function writeSample(path: string): void {
  using sink = fileSink(path);
  const writer = new TraceWriter(sink, { meta: { source: "test" } });
  writer.write({ kind: "session", vcpu: 0, meta: { policy: "unified", npt: 1 } });
  writer.write({ kind: "memory", vcpu: 0, gpa: 0x1000n, data: { bytes: new Uint8Array(4096) } });
  for (const name of ["good", "bad", "last"]) {
    writer.write({ kind: "case", vcpu: 0, name, spec: "" });
    const exit = name === "bad" ? INVALID : new Uint8Array(4096);
    writer.write({ kind: "vmrun", vcpu: 0, time: 1000, vmcb12_gpa: 0x10000n });
    writer.write({ kind: "exit", vcpu: 0, time: 2500, vmcb12: { bytes: exit } });
    writer.flush();
  }
  writer.close();
}

async function withSample(use: (folder: string, trace: string) => Promise<void>): Promise<void> {
  await withFolder(async (folder) => {
    writeSample(`${folder}/t`);
    await use(folder, `${folder}/t`);
  });
}

const lines = (text: string) => text.trimEnd().split("\n");

Deno.test("dump says what happened, with exit codes and checks by name, and --raw what is stored", () =>
  withSample(async (_folder, trace) => {
    const words = lines((await vmtape(["dump", trace])).stdout);
    assertEquals(words.slice(2, 4), ["2 - 0 case good", "3 1000 0 vmrun VMRUN vmcb12 0x10000"]);
    assertEquals(words[7], "7 2500 0 exit #VMEXIT VMEXIT_INVALID");
    const { code, stdout, stderr } = await vmtape(["dump", trace, "--raw"]);
    assertEquals([code, stderr], [0, ""]);
    assertEquals(lines(stdout).length, 11);
    assertEquals(lines(stdout).slice(0, 4).map((line) => line.replace(/:[0-9a-f]{8}$/, ":CRC")), [
      '0 - 0 session meta={"policy":"unified","npt":1}',
      "1 - 0 memory gpa=0x1000 data=4096:CRC",
      '2 - 0 case name="good" spec=""',
      "3 1000 0 vmrun vmcb12_gpa=0x10000",
    ]);
  }));

Deno.test("dump prints a range, some kinds, and what is in images", () =>
  withSample(async (_folder, trace) => {
    const range = await vmtape(["dump", trace, "--from", "5", "--to", "7"]);
    assertEquals(lines(range.stdout).map((line) => line.split(" ")[0]), ["5", "6"]);
    const piped = await shell(`vmtape dump - --from 5 --to 7 < '${trace}'`);
    assertEquals(piped.stdout, range.stdout);
    const kinds = await vmtape(["dump", trace, "--kind", "case"]);
    assertEquals(lines(kinds.stdout).length, 3);
    const fields = await vmtape(["dump", trace, "--kind", "exit", "--fields"]);
    assertMatch(fields.stdout, /control\.exit_code = 0xf+ \[[^\]]+\]|control\.exit_code = 0xf+/);
  }));

Deno.test("dump --json loses nothing and stays valid line by line", () =>
  withSample(async (_folder, trace) => {
    const { stdout } = await vmtape(["dump", trace, "--json", "--raw"]);
    const events = lines(stdout).map((line) => JSON.parse(line));
    assertEquals(events.map((event) => event.number), [...events.keys()]);
    assertEquals(events[7].vmcb12, { size: 4096, words: { "070": "f".repeat(16) } });
    assertEquals(events[3].vmcb12_gpa, "0x10000");
    const named = lines((await vmtape(["dump", trace, "--json"])).stdout).map((line) =>
      JSON.parse(line)
    );
    assertMatch(named[7].vmcb12["control.exit_code"], /^0xffffffff/);
    assertEquals(named[7].text, "#VMEXIT VMEXIT_INVALID");
  }));

Deno.test("dump chooses events by vCPU, scenario, exit, check, time and conditions", () =>
  withFolder(async (folder) => {
    const record = "vmtape record enter gif-left-set eventinj-left -o t -p early-exit -q; ";
    const one = await shell(
      record + "vmtape dump t --case gif-left --kind check,vmrun; " +
        "vmtape dump t --exit VMMCALL; vmtape dump t --check asid-zero | wc -l; " +
        "vmtape dump t -w 'kind==vmrun && control.event_inj & V' --columns kind,rip,save.rip; " +
        "vmtape dump t --vcpu 7 | wc -l; vmtape dump t --since 0 | wc -l",
      folder,
    );
    const [vmrun, check, exit, checks, columns, vcpu, timed] = lines(one.stdout);
    assertMatch(vmrun!, /^\d+ - 0 vmrun VMRUN next rip 0x8003 .* ASID 0x0$/);
    assertMatch(check!, /^\d+ - 0 check asid-zero failed: control->asid == 0$/);
    assertMatch(exit!, /^\d+ - 0 regs post .* vmcb12 VMMCALL$/);
    assertEquals([checks, columns, vcpu, timed], ["2", "vmrun\t0x8003\t0x9000", "0", "0"]);
    const state = (await shell("vmtape dump t --at 43", folder)).stdout;
    assertMatch(state, /^After event 43, under early-exit:\nvmcb12\n/);
    assertStringIncludes(state, "control.intercept_word4");
  }));

Deno.test("dump refuses what makes no sense: fields there are not, options that exclude each other", () =>
  withSample(async (_folder, trace) => {
    for (
      const [args, message] of [
        [["-w", "save.ripp==1"], "did you mean save.rip?, at column 1"],
        [["--columns", "exit_cod"], "did you mean exit_code?"],
        [["--raw", "--columns", "kind"], "--raw and --columns exclude each other"],
        [["--follow", "--at", "3"], "--follow and --at exclude each other"],
        [["--at", "3", "--raw"], "--at and --raw exclude each other"],
        [["--at", "3", "--kind", "vmrun"], "--at and --kind exclude each other"],
        [["--policy", "unified"], "--policy is for --at"],
        [["--exit", "NPFF"], '"NPFF" is no number'],
      ] as const
    ) {
      const { code, stderr } = await vmtape(["dump", trace, ...args]);
      assertEquals([code, stderr.includes(message)], [2, true], stderr);
    }
  }));

Deno.test("dump refuses a range without an event and unknown kinds", () =>
  withSample(async (_folder, trace) => {
    for (
      const [args, message] of [
        [["--from", "11"], "Event 11 is beyond the last one, 10"],
        [["--from", "4", "--to", "4"], "No event is from 4 on and before 4"],
        [["--kind", "vmrum"], 'Option --kind cannot be "vmrum", did you mean "vmrun"?'],
        [["--kind", "interrupt"], 'cannot be "interrupt", expected one of session, '],
      ] as const
    ) {
      const { code, stderr } = await vmtape(["dump", trace, ...args]);
      assertEquals(code, 2);
      assertStringIncludes(stderr, message);
    }
  }));

Deno.test("dump --follow prints what a recorder writes until it is done", () =>
  withFolder(async (folder) => {
    const sink = fileSink(`${folder}/t`);
    const writer = new TraceWriter(sink);
    writer.write({ kind: "case", vcpu: 0, name: "first" });
    writer.flush();
    const child = command(["dump", `${folder}/t`, "--follow"]).spawn();
    const reader = child.stdout.pipeThrough(new TextDecoderStream()).getReader();
    assertStringIncludes((await reader.read()).value ?? "", "first");
    writer.write({ kind: "case", vcpu: 0, name: "second" });
    writer.close();
    assertStringIncludes((await reader.read()).value ?? "", "second");
    assertEquals((await reader.read()).done, true);
    await child.stderr.cancel();
    assertEquals((await child.status).code, 0);
  }));

Deno.test("verify says whether a trace is whole, with status 3 when it is not", () =>
  withSample(async (folder, trace) => {
    const whole = await vmtape(["verify", trace]);
    assertEquals(whole.code, 0);
    assertStringIncludes(whole.stdout, "intact; 11 events in 3 blocks are right");
    const { size } = await Deno.stat(trace);
    for (const left of [size - 60, size - 300]) {
      await shell(`head -c ${left} t > cut`, folder);
      const { code, stdout } = await vmtape(["verify", `${folder}/cut`, "--json"]);
      assertEquals(code, 3);
      const { intact, finished, problems } = JSON.parse(stdout);
      assertEquals([intact, finished], [false, false]);
      assertEquals(problems.map((p: { offset: number }) => p.offset), [left]);
    }
  }));

Deno.test("recover writes a whole trace with what is intact", () =>
  withSample(async (folder, trace) => {
    const bytes = await Deno.readFile(trace);
    await Deno.writeFile(`${folder}/cut`, bytes.subarray(0, bytes.length - 200));
    const out = `${folder}/whole`;
    const { code, stdout } = await vmtape(["recover", `${folder}/cut`, "-o", out, "--json"]);
    assertEquals(code, 0);
    const { saved } = JSON.parse(stdout);
    assert(saved > 0 && saved <= 11);
    assertEquals((await vmtape(["verify", out])).code, 0);
  }));

Deno.test("recover takes what comes through a pipe, counts the end that is missing, and leaves nothing else", () =>
  withSample(async (folder) => {
    const whole = await Deno.readFile(`${folder}/t`);
    await Deno.writeFile(`${folder}/cut`, whole.subarray(0, whole.length - 330));
    const line = "cat cut | vmtape recover - -o a --json && vmtape recover <(cat t) -o b --json; " +
      "vmtape recover cut -o c --json; vmtape verify cut --json";
    const { stdout, stderr } = await shell(line, folder);
    const [a, b, c, verified] = lines(stdout).map((line) => JSON.parse(line));
    assertEquals([b.saved, b.lost, b.skipped], [11, 0, 0], stderr);
    assert(a.saved === 5 && a.lost === 3 && c.lost === 3 && verified.lost === 3, stdout);
    assertMatch(
      (await vmtape(["dump", `${folder}/a`])).stdout,
      /\n5 - 0 lost 3 events were dropped\n$/,
    );
    const left = (await Array.fromAsync(Deno.readDir(folder))).map((entry) => entry.name);
    assertEquals(left.sort(), ["a", "b", "c", "cut", "t"]);
  }));

Deno.test("no part of an answer is given for all of it: damage ends with 3, wherever it is", () =>
  withFolder(async (folder) => {
    const run = (line: string) => shell(line, folder);
    await run("vmtape record -q -o a && vmtape checkpoint -q a -p unified --every 200 -o t");
    const bytes = await Deno.readFile(`${folder}/t`);
    bytes[Math.floor(bytes.length / 2)]! ^= 0x10;
    await Deno.writeFile(`${folder}/d`, bytes.subarray(0, -1));
    const { stdout } = await run("vmtape verify d --json");
    const { events, lost } = JSON.parse(stdout);
    assert(events > 0 && lost > 0, stdout);
    const last = events + lost;
    for (
      const line of [
        "dump d",
        "dump d --from 5",
        `dump d --from 1 --to ${last - 1}`,
        `dump d --from ${last - 2} --to ${last - 1}`,
        `dump d --from ${last + 9}`,
        "cut d --from 5 -o x -f",
        `cut d --from ${last - 5} -o x -f`,
        `replay d -p unified --from ${last - 5}`,
        "replay d -p unified",
        "replay d -p unified -j 2",
        "diff d -p unified,upstream -j 2",
        "diff d -p unified,upstream --shard 0/2 --json",
        "stats d --shard 0/2 --json",
        "filter d --failed-only -o x -f",
        "cat d -o x -f",
        "info d",
      ]
    ) {
      const { code, stderr } = await run(`vmtape ${line}`);
      assertEquals(code, 3, line);
      assertMatch(stderr, /\(offset \d+\)/, line);
    }
    // What is behind the damage is there, with its own numbers.
    const from = `--from ${last - 9}`;
    const both = await run(
      `vmtape dump d ${from} > x; vmtape dump t ${from} | cmp - x && echo same`,
    );
    assertEquals(both.stdout, "same\n");
  }));

Deno.test("cat, cut and filter write traces that are whole", () =>
  withSample(async (folder) => {
    const count = async (file: string) =>
      lines((await vmtape(["dump", `${folder}/${file}`])).stdout).length;
    const run = async (line: string) => {
      const { code, stderr } = await shell(line, folder);
      assertEquals(code, 0, stderr);
    };
    await run("vmtape cat t t -o both");
    assertEquals(await count("both"), 22);
    await run("vmtape cut t --from 8 --to 10 -o part");
    assertEquals(await count("part"), 4);
    await run("vmtape filter t --failed-only -o failed");
    assertEquals(await count("failed"), 5);
    await run("vmtape filter t --case 'g*,last' -o some");
    assertEquals(await count("some"), 8);
    await run("for f in both part failed some; do vmtape verify $f -q > verdict || exit; done");
  }));

Deno.test("what filter keeps replays as it was recorded, sequences too", () =>
  withSample(async (folder) => {
    const line = "vmtape record -q -o all && vmtape filter all --failed-only -o failed";
    const { code, stderr } = await shell(line, folder);
    assertEquals(code, 0, stderr);
    assertMatch(stderr, /^\d+ of 31 scenarios are as asked/m);
    assertEquals((await vmtape(["replay", `${folder}/failed`])).code, 0);
  }));

const REFUSED: readonly (readonly [string, string, RegExp])[] = [
  ["filter without a condition", "vmtape filter t -o u", /Say --failed-only or --case/],
  ["cut beyond the end", "vmtape cut t --from 99 -o u", /Event 99 is beyond the last one, 10/],
  ["cut of a pipe", "vmtape cut - --from 1 -o u < t", /name a file, not -/],
  ["cat onto a file that exists", "vmtape cat t -o t", /is there already/],
  ["an edit without an output", "vmtape cat t", /Option -o, --output FILE is needed/],
  ["merge of an empty name", 'vmtape merge ""', /An empty name is no PART/],
  ["follow with an end", "vmtape dump t --follow --to 4", /exclude each other/],
];
for (const [what, line, message] of REFUSED) {
  Deno.test(`${what} is refused in one line with status 2, and writes nothing`, () =>
    withSample(async (folder) => {
      const { code, stdout, stderr } = await shell(line, folder);
      assertEquals([code, stdout], [2, ""]);
      assertMatch(stderr, message);
      assertEquals(lines(stderr).length, 1);
      const left = await Array.fromAsync(Deno.readDir(folder));
      assertEquals(left.map((entry) => entry.name), ["t"]);
    }));
}

Deno.test("what is written as a whole follows no link, mixes with no other, and leaves no part behind", () =>
  withFolder(async (folder) => {
    const { stdout, stderr } = await shell(
      "vmtape record enter -q -o t; echo precious > victim; ln -s victim r.html; ln -s nowhere s.html; " +
        "ln -s victim r.html.part; " +
        'report() { vmtape report t -p unified,upstream -q -o "$@"; echo "$1 $?"; }; ' +
        "report r.html; report s.html; report r.html -f; cat victim; readlink r.html; " +
        "for i in 1 2 3; do report both.html -f & done; wait; tail -c 8 both.html; " +
        "report new.html & report new.html & wait; " +
        "vmtape report t -p unified,upstream -q -o - | tail -c 8; ls",
      folder,
    );
    assertMatch(stderr, /Cannot write r\.html: It exists; --force overwrites it/);
    const [a, b, c, content, ...rest] = lines(stdout);
    assertEquals([a, b, c, content], ["r.html 2", "s.html 2", "r.html 1", "precious"]);
    const text = rest.join("\n");
    assertEquals(text.match(/both\.html 1/g)?.length, 3, text);
    assertEquals(new Set(text.match(/new\.html \d/g)), new Set(["new.html 1", "new.html 2"]), text);
    const files = lines(text.slice(text.lastIndexOf("</html>")));
    assertEquals(text.match(/<\/html>/g)?.length, 2, text);
    assertEquals(files.slice(1), [
      "both.html",
      "new.html",
      "r.html",
      "r.html.part",
      "s.html",
      "t",
      "victim",
    ]);
  }));

Deno.test("filter and recover that keep nothing, and compare of nothing, do not end with 0", () =>
  withFolder(async (folder) => {
    const { stdout, stderr } = await shell(
      "vmtape record enter -o t -q; vmtape filter t --case nosuch -o f -q; echo $?; " +
        "vmtape filter t --case enter -o g -q; echo $?; head -c 200 t > cut; " +
        "vmtape recover cut -o r -q; echo $?; : > a; vmtape compare a a; echo $?; " +
        "vmtape record qeum -o x; echo $?",
      folder,
    );
    assertEquals(lines(stdout), ["1", "0", "1", "2", "2"], stderr);
    assertStringIncludes(stderr, "There is nothing to compare: neither holds a record");
    assertStringIncludes(stderr, 'neither a file nor a built-in scenario, did you mean "qemu"?');
  }));
