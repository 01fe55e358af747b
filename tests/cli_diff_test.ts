import { HistogramLogReader } from "hdr-histogram-js";
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { shell, vmtapeHere as vmtape, withFolder } from "./cli_process.ts";

const SEED = ["--policies", "early-exit,unified"];

async function withTrace(
  scenarios: readonly string[],
  use: (trace: string, folder: string) => Promise<void>,
): Promise<void> {
  await withFolder(async (folder) => {
    const trace = `${folder}/t`;
    const { code, stderr } = await vmtape([
      "record",
      ...scenarios,
      "-o",
      trace,
      "-p",
      "early-exit",
    ]);
    assertEquals(code, 0, stderr);
    await use(trace, folder);
  });
}

Deno.test("diff names what the seed's policies leave different, and the step", () =>
  withTrace(["gif-left-set"], async (trace) => {
    const { code, stdout, stderr } = await vmtape(["diff", trace, ...SEED]);
    assertEquals([code, stderr], [1, ""]);
    assertStringIncludes(stdout, "early-exit and unified: 1 of 1 run ends differently");
    assertMatch(
      stdout,
      /^1\. GIF stays set after a failed consistency check under early-exit \(1 run\)$/m,
    );
    assertMatch(stdout, /^ +nested gif: 0x1 \/ 0x0/m);
    assertStringIncludes(stdout, 'After "');
    assertStringIncludes(stdout, "Failed checks: asid-zero 1");
    assertStringIncludes(stdout, "(gif-left-set control.asid=0)");
  }));

Deno.test("diff finds each known difference of the seed's policies", () =>
  withTrace([], async (trace) => {
    const { code, stdout } = await vmtape(["diff", trace, ...SEED, "--json"]);
    assertEquals(code, 1);
    const { findings, runs, policies } = JSON.parse(stdout);
    assertEquals(policies, ["early-exit", "unified"]);
    assert(runs > 20);
    const fields = new Set<string>(
      findings.flatMap((f: { fields: { field: string }[] }) => f.fields.map((row) => row.field)),
    );
    for (const field of ["nested gif", "nested msrpm01", "nested msrpm_recalc", "vcpu pdptr0"]) {
      assert(fields.has(field), `${field} is not among ${[...fields].join(", ")}`);
    }
    const titles = findings.map((finding: { title: string }) => finding.title).join("\n");
    assertStringIncludes(titles, "unified lets L2 in where early-exit refuses");
    for (const finding of findings) assert(finding.parted !== "" && finding.runs > 0);
  }));

Deno.test("diff of EVENTINJ tells linux-6.12 from the seed", () =>
  withTrace(["eventinj-left"], async (trace) => {
    const args = ["diff", trace, "--policies", "unified,linux-6.12"];
    const { code, stdout } = await vmtape(args);
    assertEquals(code, 1);
    assertStringIncludes(stdout, "EVENTINJ stays in vmcb12 after a failed consistency check");
  }));

Deno.test("diff --runs lists every run that ends differently, with both values", () =>
  withTrace(["gif-left-set"], async (trace) => {
    const text = await vmtape(["diff", trace, ...SEED, "--runs"]);
    assertMatch(text.stdout, /^event \d+ \(gif-left-set control\.asid=0\): After "/m);
    assertMatch(text.stdout, /^ {2}nested gif: early-exit 0x1, unified 0x0$/m);
    const { stdout } = await vmtape(["diff", trace, ...SEED, "--runs", "--json"]);
    const objects = stdout.trimEnd().split("\n").map((line) => JSON.parse(line));
    assertEquals(objects.length, 2);
    assert(objects[0].fields.some((row: { field: string }) => row.field === "gif"));
    assertEquals(objects[1].different, [1]);
  }));

Deno.test("diff is silent about policies that do the same, with status 0", () =>
  withTrace(["failure-with-gif-clear"], async (trace, folder) => {
    await Deno.writeTextFile(
      `${folder}/same.ts`,
      'import { EARLY_EXIT } from "@vmtape/vmtape/engine";\n' +
        'export default { ...EARLY_EXIT, name: "same" };\n',
    );
    const { code, stdout } = await shell("vmtape diff t --policies early-exit,./same.ts", folder);
    assertEquals([code, stdout], [0, "early-exit and same: 0 of 1 run ends differently\n"]);
    assert(trace.startsWith(folder));
  }));

const REFUSED: readonly (readonly [string[], RegExp])[] = [
  [[], /Option -p, --policies A,B… is needed/],
  [["-p", "unified"], /--policies needs 2 names/],
  [["-p", "unified,unified"], /"unified" is named twice/],
  [["-p", "unified,linux-6-12"], /Unknown policy "linux-6-12", did you mean "linux-6.12"\?/],
];
for (const [args, message] of REFUSED) {
  Deno.test(`diff refuses "${args.join(" ")}" with status 2`, () =>
    withTrace(["enter"], async (trace) => {
      const { code, stderr } = await vmtape(["diff", trace, ...args]);
      assertEquals(code, 2);
      assertMatch(stderr, message);
    }));
}

Deno.test("stats prints percentiles per kind and policy, and how they were measured", () =>
  withTrace(["enter", "gif-left-set"], async (trace) => {
    const { code, stdout } = await vmtape(["stats", trace, ...SEED, "--passes", "2"]);
    assertEquals(code, 0);
    for (const kind of ["entered", "check failure", "#VMEXIT"]) {
      for (const policy of ["early-exit", "unified"]) {
        assertMatch(stdout, new RegExp(`^  ${kind}, ${policy} +\\d`, "m"));
      }
    }
    assertStringIncludes(stdout, "are taken off each sample");
    const json = JSON.parse((await vmtape(["stats", trace, "--json", "--passes", "2"])).stdout);
    assertEquals(json.unit, "ns");
    for (const row of json.rows) {
      assert(row.count > 0 && row.count % 2 === 0, `${row.kind} was measured ${row.count} times`);
      assert(row.p50 <= row.p99 && row.p99 <= row.p999);
    }
    assertEquals(json.ratios.map((r: { policy: string }) => r.policy).includes("unified"), true);
    for (const { ratio, low, high, noise } of json.ratios) {
      assert(low <= ratio && ratio <= high);
      assertEquals(noise, true, "two passes cannot tell a difference from noise");
    }
    const { stdout: hlog } = await vmtape(["stats", trace, ...SEED, "--hlog", "--passes", "1"]);
    assertMatch(hlog, /^#\[Histogram log format version 1\.3\]\n/);
    const reader = new HistogramLogReader(hlog);
    const logged = [];
    for (let next = reader.nextIntervalHistogram(); next; next = reader.nextIntervalHistogram()) {
      logged.push(next.tag);
      assert(next.totalCount > 0 && next.maxValue > 0);
    }
    assert(logged.includes("check-failure:unified"), logged.join(" "));
    const { stdout: hgrm } = await vmtape(["stats", trace, ...SEED, "--hgrm"]);
    assertMatch(hgrm, /^# entered, early-exit\n.*Percentile/m);
  }));

Deno.test("stats shows the times of a recording by its own clock", () =>
  withFolder(async (folder) => {
    const line = (time: string, text: string) => `qemu-7 [000] ..... ${time}: ${text}\n`;
    const log = line(
      "1.000000",
      "kvm_nested_vmenter: rip: 0x0000000000400000 vmcb: 0x0000000000010000 " +
        "nested_rip: 0x0000000000009000 int_ctl: 0x00000000 event_inj: 0x00000000 " +
        "nested_npt=n guest_cr3: 0x0000000000040000",
    ) + line("1.000025", "kvm_nested_vmenter_failed: control->asid == 0");
    await Deno.writeTextFile(`${folder}/log`, log);
    const { code, stdout, stderr } = await shell(
      "vmtape import log -o t -q && vmtape stats t --json",
      folder,
    );
    assertEquals(code, 0, stderr);
    const recorded = JSON.parse(stdout).rows.filter((r: { policy: string }) =>
      r.policy === "recorded"
    );
    assertEquals(recorded.map((r: { kind: string; count: number }) => [r.kind, r.count]), [[
      "check failure",
      1,
    ]]);
    assert(Math.abs(recorded[0].p50 - 25_000) < 100);
  }));

Deno.test("stats of nothing to time says so; of a pipe it is refused", () =>
  withFolder(async (folder) => {
    const { code, stdout, stderr } = await shell(
      "echo 'qemu-7 [000] ..... 3.6: kvm_nested_vmenter_failed: control->asid == 0' > log; " +
        "vmtape import log -o t -q && vmtape stats t",
      folder,
    );
    assertEquals([code, stderr], [0, ""]);
    assertStringIncludes(stdout, "No transition could be timed");
    assertEquals((await shell("vmtape stats - < t", folder)).code, 2);
    assertEquals((await shell("vmtape stats t --passes 0", folder)).code, 2);
  }));

Deno.test("the demo runs from end to end and leaves nothing behind", async () => {
  await withFolder(async (folder) => {
    const config = JSON.parse(await Deno.readTextFile(new URL("../deno.json", import.meta.url)));
    const root = new URL("..", import.meta.url).pathname;
    const [, ...args] = config.tasks.demo.command.split(" ");
    const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
      args,
      cwd: root,
      env: { TMPDIR: folder, NO_COLOR: "1" },
    }).output();
    const text = new TextDecoder().decode(stdout);
    assertEquals(code, 0, new TextDecoder().decode(stderr));
    for (const command of ["record", "replay", "diff", "stats"]) {
      assertMatch(text, new RegExp(`^\\$ vmtape ${command} `, "m"));
    }
    assertEquals(await Array.fromAsync(Deno.readDir(folder)), []);
  });
});

Deno.test("stats tells what each step costs, and its share", () =>
  withFolder(async (folder) => {
    const trace = `${folder}/t`;
    await vmtape(["record", "enter", "gif-left-set", "-o", trace, "-p", "unified"]);
    const args = ["stats", trace, "-p", "unified,linux-6.12", "--passes", "1", "--steps"];
    const { steps } = JSON.parse((await vmtape([...args, "--json"])).stdout);
    const of = (policy: string, step: string) =>
      steps.find((row: { policy: string; step: string }) =>
        row.policy === policy && row.step === step
      );
    assert(of("unified", "check save").count >= 2 && of("linux-6.12", "merge MSRPM").count >= 1);
    for (const policy of ["unified", "linux-6.12"]) {
      const shares = steps.filter((row: { policy: string }) => row.policy === policy)
        .map((row: { share: number }) => row.share);
      const sum = shares.reduce((a: number, b: number) => a + b, 0);
      assert(Math.abs(sum - 1) < 1e-9, String(sum));
    }
    assertStringIncludes((await vmtape(args)).stdout, "ns of each step");
  }));
