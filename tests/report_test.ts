import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { fieldText } from "../engine/diff/mod.ts";
import { EARLY_EXIT } from "../engine/policies/mod.ts";
import { escapeHtml, mechanismsOf, ReportCollector, reportPage } from "../report/mod.ts";
import { recordScenarios } from "../traces/scenarios/record.ts";
import { parseScenarios } from "../traces/scenarios/scenario_reader.ts";
import { Buffer } from "node:buffer";
import { vmtape, withFolder } from "./cli_process.ts";
import { CASES, collect, EVIL, LATENCY, logEvents, poison, POLICIES } from "./report_data.ts";

Deno.test("what was recorded reaches no page as a control character", () => {
  assertEquals(escapeHtml("a\x1b[2J\u202e\nb&"), "a\\u001b[2J\\u202e\nb&amp;");
});

Deno.test("what the page shows refers to what there is", async () => {
  const data = await collect();
  const { events, outcomeOf, stepsOf, reportsOf, parts, lists, rows, texts, sets } = data;
  assertEquals(events.length, 5);
  for (const column of [...outcomeOf, ...stepsOf, ...reportsOf]) assertEquals(column.length, 5);
  const named = (policy: number) => outcomeOf[policy]!.map((n) => data.outcomes[n]);
  assertEquals(named(0), [
    "entered L2",
    "failed check",
    "late failure",
    "late failure",
    "entered L2",
  ]);
  assertEquals(named(1)[2], "entered L2");
  assertEquals(named(2)[4], "shuts down");
  assertEquals(data.recorded, []);
  assertEquals(parts.map(({ pair }) => pair), [[0, 1], [0, 2], [1, 2]]);
  for (const part of parts) {
    assertEquals(part.different, part.findings.filter((set) => set >= 0).length);
    for (const [run, list] of part.fields.entries()) {
      assertEquals(list < 0, part.findings[run]! < 0 || lists[list] === undefined);
      for (const number of lists[list] ?? []) {
        const row = rows[number < 0 ? -1 - number : number]!;
        assert(texts[row.field] !== undefined && texts[row.a] !== undefined);
      }
      for (const finding of sets[part.findings[run]!] ?? []) {
        assert(data.findings[finding] !== undefined);
      }
    }
  }
});

Deno.test("a report that takes over runs that come again shows what carrying out all does", async () => {
  const cases = parseScenarios(
    `${CASES}kept control.int_ctl=200 keepvm\nagain control.asid=0 keepvm\n`,
  );
  for (const policies of [POLICIES, POLICIES.toReversed(), POLICIES.slice(0, 2)]) {
    const [fast, whole] = [false, true].map((each) => new ReportCollector(policies, { each }));
    for await (const event of recordScenarios(cases, EARLY_EXIT, { repeat: 40 })) {
      fast!.feed(event);
      whole!.feed(event);
    }
    const [a, b] = [fast!, whole!].map((one) => one.finish("t", LATENCY));
    assertEquals(a, b);
    assert(a!.parts.every(({ different }) => different > 40), JSON.stringify(a!.result));
  }
});

Deno.test("runs alike are stored once, whatever their number", async () => {
  const text = `fine\n${"again keepvm\n".repeat(200)}`;
  const data = await collect(text);
  assertEquals(data.events.length, 201);
  assert(data.stepLists.length < 10 && data.lists.length < 10 && data.rows.length < 20);
  const page = reportPage(data, "t");
  assert(page.length < 200_000, `${page.length} bytes`);
});

Deno.test("what a trace says does not become part of the page", async () => {
  assertEquals(escapeHtml(EVIL).replace(/&(lt|gt|amp|quot|#39);/g, "").match(/[<>&"']/), null);
  const data = await collect(CASES, poison);
  const page = reportPage({ ...data, title: EVIL, policies: [EVIL, "b", "c"] }, EVIL);
  assert(!page.includes("<script>window.stolen") && !page.includes("<img src=x"));
  assertStringIncludes(page, escapeHtml(EVIL));
});

Deno.test("the page asks for nothing and forbids itself to", async () => {
  const page = reportPage(await collect(), "t");
  assertMatch(page, /Content-Security-Policy" content="default-src 'none'/);
  assert(!/\b(src|href)="(?!#|data:)/.test(page));
});

Deno.test("a mechanism is one line with what each policy does, outcomes first", async () => {
  const rows = mechanismsOf(await collect());
  const texts = rows.map((
    { kind, field, cells },
  ) => [kind, field, ...cells.map(({ text }) => text)]);
  assertEquals(texts[0], [
    "outcome",
    "",
    "refuses: pdptrs",
    "lets L2 in",
    "refuses: pdptrs",
  ]);
  assert(texts.some((row) => row.join() === "state,nested gif,0x1,0x0,0x0"), JSON.stringify(texts));
  const kinds = rows.map(({ kind }) => ["outcome", "state", "unsettled", "carried"].indexOf(kind));
  assertEquals(kinds, kinds.toSorted());
});

Deno.test("the first run of every finding has the writes of its steps", async () => {
  const { findings, explained, policies, texts, parts } = await collect();
  for (const { first, steps, fields } of findings) {
    const told = explained[first.run]!;
    assertEquals(told.length, policies.length);
    for (const [side, step] of steps.entries()) {
      if (step === undefined) continue;
      const policy = policies.indexOf(findings.find((one) => one.first === first)!.policies[side]!);
      const names = fields.map(fieldText);
      const written = told[policy]!.filter(({ name }) => name === step)
        .flatMap(({ writes }) => writes.map(([field]) => texts[field]!));
      assert(written.some((name) => names.includes(name)), `${step} writes ${written}`);
    }
  }
  assertEquals(parts.length, 3);
});

Deno.test("a log is shown as far as it tells: what was recorded, and what cannot be told", () => {
  const collector = new ReportCollector(POLICIES);
  for (const event of logEvents()) collector.feed(event);
  const data = collector.finish("a log");
  const named = (column: readonly number[]) => column.map((n) => data.outcomes[n]);
  assertEquals(data.events, [1, 3, 5]);
  assertEquals(named(data.recorded), ["failed check", "entered L2", "not seen"]);
  assertEquals(named(data.outcomeOf[0]!), ["failed check", "entered L2", "cannot tell"]);
  assertEquals(data.stepsOf.map((column) => column.length), [3, 3, 3]);
});

Deno.test("stats --hgrm writes a file a distribution, its fourth column exact", () =>
  withFolder(async (folder) => {
    const trace = `${folder}/t`, out = `${folder}/hgrm`;
    await vmtape(["record", "enter", "-o", trace, "--repeat", "40"]);
    const args = ["stats", trace, "-p", "early-exit,unified", "--passes", "1", "--hgrm", "-o", out];
    assertEquals((await vmtape(args)).code, 0);
    const names = (await Array.fromAsync(Deno.readDir(out))).map(({ name }) => name).toSorted();
    assert(names.includes("entered.early-exit.hgrm") && names.includes("VMEXIT.unified.hgrm"));
    const text = await Deno.readTextFile(`${out}/entered.early-exit.hgrm`);
    assertMatch(text, /^ +Value +Percentile +TotalCount +1\/\(1-Percentile\)\n\n/);
    const rows = [...text.matchAll(/^ *[\d.]+ +([\d.]+) +\d+ +([\d.]+)$/gm)];
    assert(rows.length > 3, text);
    for (const [, percentile, rarity] of rows) {
      assert(Math.abs(Number(rarity) * (1 - Number(percentile)) - 1) < 1e-9, rarity);
    }
    assertEquals((await vmtape(args)).code, 2);
    assertEquals((await vmtape(["stats", trace, "-o", out])).code, 2);
    for (const both of [["--hgrm", "--hlog"], ["--json", "--hlog"], ["--hgrm", "--steps"]]) {
      const { code, stderr } = await vmtape(["stats", trace, ...both]);
      assertEquals(code, 2);
      assertStringIncludes(stderr, `Options ${both.join(" and ")} exclude each other`);
    }
  }));

Deno.test("report writes a page, and does not overwrite one unasked", () =>
  withFolder(async (folder) => {
    const trace = `${folder}/t`, page = `${folder}/r.html`;
    await vmtape(["record", "gif-left-set", "enter", "-o", trace]);
    const args = ["report", trace, "-p", "early-exit,unified", "-o", page];
    const { code, stderr } = await vmtape(args);
    assertEquals(code, 1);
    assertMatch(stderr, /^\d findings in 2 VMRUNs/);
    const text = await Deno.readTextFile(page);
    assertStringIncludes(text, "GIF stays set after a failed consistency check under early-exit");
    assertMatch(text, /vmtape explain t --event \d+ --policies early-exit,unified/);
    assert(!text.includes(folder), "it names a folder of this machine");
    const { stdout } = await vmtape(["diff", trace, "-p", "early-exit,unified"]);
    const [command] = stdout.match(/explain .*/)!;
    assertStringIncludes(text, command.replace(trace, "t"));
    assertMatch(text, /<dt>NPT<\/dt><dd>on<\/dd>/);
    assertMatch(text, /<dt>vmtape<\/dt><dd>\d+\.\d+\.\d+<\/dd>/);
    const [, small] = text.match(/base64,([^"]+)"/)!;
    assertEquals(Buffer.from(small!, "base64"), Buffer.from(await Deno.readFile(trace)));
    assertMatch(text, /The smallest scenario.*?<code>gif-left-set\S* \S+=\S+<\/code>/s);
    assertEquals((await vmtape(args)).code, 2);
    assertEquals((await vmtape([...args, "--force", "--passes", "0"])).code, 1);
    assertEquals((await Array.fromAsync(Deno.readDir(folder))).length, 2);
  }));
