import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { fieldText } from "../engine/diff/mod.ts";
import type { TraceEvent } from "../engine/event.ts";
import { EARLY_EXIT, LINUX_6_12, UNIFIED } from "../engine/policies/mod.ts";
import {
  escapeHtml,
  mechanismsOf,
  ReportCollector,
  type ReportData,
  reportPage,
} from "../report/mod.ts";
import { recordScenarios } from "../traces/scenarios/record.ts";
import { parseScenarios } from "../traces/scenarios/scenario_reader.ts";
import { Buffer } from "node:buffer";
import { CHROMIUM, withPage } from "./browser.ts";
import { vmtape, withFolder } from "./cli_process.ts";

const CASES = "fine\nasid control.asid=0\npae save.efer=1000 save.cr3=50000 save.cs_attrib=c9b " +
  "m.50008=52007\nlate control.msrpm_base_pa=8000000\nrsm entry=rsm late.control.asid=0\n";
const POLICIES = [EARLY_EXIT, UNIFIED, LINUX_6_12];
const LATENCY = [{
  kind: "entered",
  policy: "early-exit",
  count: 4,
  p999: 90,
  mean: 40,
  quantiles: [10, 20, 40, 80, 90],
  tail: [[1, 10], [2, 40], [4, 1500]] as [number, number][],
  ratio: "",
}];

async function collect(
  text = CASES,
  change: (event: TraceEvent) => TraceEvent = (event) => event,
): Promise<ReportData> {
  const collector = new ReportCollector(POLICIES);
  for await (const event of recordScenarios(parseScenarios(text), EARLY_EXIT)) {
    collector.feed(change(event));
  }
  return collector.finish("some trace", LATENCY);
}

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

const EVIL = `</script><script>window.stolen=1</script><img src=x onerror="window.stolen=1">'&<!--`;

/** The trace with that in every text. */
function poison(event: TraceEvent): TraceEvent {
  const changed = Object.entries(event).map((
    [name, value],
  ) => [
    name,
    typeof value === "string" && !["kind", "phase", "what"].includes(name) ? EVIL : value,
  ]);
  return Object.fromEntries(changed) as unknown as TraceEvent;
}

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
  const bytes = new Uint8Array(4096), known = new Uint8Array(4096);
  const image = (asid: number | undefined) => {
    const page = { bytes: bytes.slice(), known: known.slice() };
    if (asid === undefined) return page;
    page.bytes[0x58] = asid;
    page.known.fill(0xff, 0x58, 0x5c);
    return page;
  };
  const events: TraceEvent[] = [
    { kind: "session", vcpu: 0, meta: { source: "kvm-tracepoints" } },
    { kind: "vmrun", vcpu: 0, vmcb12: image(0) },
    { kind: "check", vcpu: 0, check: "asid-zero", text: "control->asid == 0" },
    { kind: "vmrun", vcpu: 0, vmcb12: image(undefined) },
    { kind: "l2exit", vcpu: 0 },
    { kind: "vmrun", vcpu: 0, vmcb12: image(undefined) },
  ];
  for (const event of events) collector.feed(event);
  const data = collector.finish("a log");
  const named = (column: readonly number[]) => column.map((n) => data.outcomes[n]);
  assertEquals(data.events, [1, 3, 5]);
  assertEquals(named(data.recorded), ["failed check", "entered L2", "not seen"]);
  assertEquals(named(data.outcomeOf[0]!), ["failed check", "entered L2", "cannot tell"]);
  assertEquals(data.stepsOf.map((column) => column.length), [3, 3, 3]);
});

/** A test that needs a browser. */
function inBrowser(name: string, fn: () => Promise<void>): void {
  Deno.test({
    name,
    ignore: CHROMIUM === undefined,
    sanitizeOps: false,
    sanitizeResources: false,
    fn,
  });
}

async function withReport(data: ReportData, use: (file: string) => Promise<void>): Promise<void> {
  await withFolder(async (folder) => {
    const file = `${folder}/report.html`;
    await Deno.writeTextFile(file, reportPage(data, "run.vmtape"));
    await use(file);
  });
}

inBrowser(
  "in a browser: no complaint, no request; findings lead to their VMRUN; search finds",
  async () => {
    await withReport(
      await collect(),
      (file) =>
        withPage(file, {}, async ({ page, complaints, requests }) => {
          const finding = page.locator("#triage button", { hasText: "GIF stays set" }).first();
          await finding.click();
          assertMatch(
            await page.locator("#run-title").innerText(),
            /^VMRUN 1, event \d+ \(asid control/,
          );
          assertStringIncludes(await page.locator("#fields").innerText(), "nested gif");
          assertStringIncludes(await page.locator(".steps").innerText(), "write VMEXIT_INVALID");
          assertEquals(await page.locator(".parted").count(), 1);
          assertStringIncludes(await page.locator("#said").innerText(), "VMRUN 1");
          assertStringIncludes(
            await page.locator(".writes").allInnerTexts().then(String),
            "nested gif: 0x1 → 0x0",
          );
          // Times have units, and the axis goes on to the tail.
          assertMatch(await page.locator("#latency-table").innerText(), /\b40 ns\b/);
          const step = page.locator(".step details").first();
          await step.locator("summary").focus();
          await page.keyboard.press("Enter");
          assert(await step.locator("p").isVisible());

          const search = async (query: string) => {
            await page.fill("#query", query);
            await page.press("#query", "Enter");
            return [
              await page.locator("#hits").innerText(),
              await page.locator("#run-title").innerText(),
            ];
          };
          assertMatch((await search("pdptrs")).join(" "), /^1 VMRUN VMRUN 2/);
          assertMatch((await search("asid-zero")).join(" "), /^2 VMRUNs VMRUN 1/);
          assertMatch((await search("asid-zero")).join(" "), /^2 VMRUNs VMRUN 4/);
          assertMatch((await search("V_GIF")).join(" "), /^[1-9] VMRUNs? VMRUN 1/);
          assertMatch((await search("no such thing"))[0]!, /^0 VMRUNs/);
          assertEquals([complaints, requests], [[], []]);
        }),
    );
  },
);

inBrowser("in a browser: the address names what is chosen, and brings it back", async () => {
  await withReport(await collect(), (file) =>
    withPage(file, {}, async ({ page, complaints }) => {
      const shown = async () => [
        await page.locator("#run-title").innerText(),
        await page.locator("#triage [data-chosen]").innerText(),
        await page.locator("#pair select").evaluateAll((all) =>
          all.map((one) => (one as unknown as { value: string }).value)
        ),
      ];
      await page.selectOption("#other", "2");
      await page.selectOption("#one", "1");
      await page.locator("#triage tr:not([data-aside]) button").last().click();
      await page.locator("#timeline").focus();
      await page.keyboard.press("Home");
      const before = await shown();
      const address = page.url();
      assertMatch(address, /#event=\d+&pair=unified%2Clinux-6.12&finding=/);
      await page.goto("about:blank");
      await page.goto(address);
      await page.waitForSelector("html[data-ready]");
      assertEquals(await shown(), before);
      await page.locator(".finding:not([hidden]) [data-copy]").first().click();
      await page.waitForSelector("[data-copied]");
      assertEquals(await page.locator("#said").innerText(), "Copied");
      assertEquals(complaints, []);
    }));
});

inBrowser("in a browser: the keyboard does it all, and a screen reader is told", async () => {
  await withReport(await collect(), (file) =>
    withPage(file, {}, async ({ page, complaints }) => {
      const slider = page.locator("#timeline");
      await slider.focus();
      const now = () => slider.getAttribute("aria-valuenow");
      await page.keyboard.press("Home");
      assertEquals(await now(), "0");
      await page.keyboard.press("ArrowRight");
      assertEquals(await now(), "1");
      assertMatch((await slider.getAttribute("aria-valuetext"))!, /early-exit: failed check/);
      await page.keyboard.press("n");
      assertEquals(await now(), "2");
      await page.keyboard.press("End");
      await page.keyboard.press("+");
      assertMatch(await page.locator("#range").innerText(), /^VMRUNs 2 to 4 of 5$/);
      await page.keyboard.press("0");
      await page.waitForFunction(() =>
        (globalThis as unknown as {
          document: { querySelector(s: string): { textContent: string } };
        })
          .document.querySelector("#range").textContent === "VMRUNs 0 to 4 of 5"
      );
      await page.keyboard.press("/");
      assertEquals(await page.evaluate("document.activeElement.id"), "query");
      // Whatever can be pressed has a name, and whatever is chosen is said.
      const unnamed = await page.evaluate(
        "[...document.querySelectorAll('button, input, select, [role=slider]')].filter((e) => " +
          "!(e.innerText || e.getAttribute('aria-label') || e.labels?.length)).length",
      );
      assertEquals(unnamed, 0);
      assertEquals(complaints, []);
    }));
});

inBrowser(
  "in a browser: at phone width nothing sticks out, light and dark are told apart",
  async () => {
    await withReport(await collect(), async (file) => {
      const grounds: string[] = [];
      for (const dark of [false, true]) {
        await withPage(file, { width: 390, height: 800, dark }, async ({ page, complaints }) => {
          const wide = await page.evaluate("document.documentElement.scrollWidth");
          assert(wide as number <= 390, `${wide} pixels wide`);
          grounds.push(await page.evaluate("getComputedStyle(document.body).backgroundColor"));
          assertEquals(complaints, []);
        });
      }
      assert(grounds[0] !== grounds[1]);
    });
  },
);

inBrowser("in a browser: <script> in every text of a trace is shown as text", async () => {
  const data = await collect(CASES, poison);
  await withReport(
    { ...data, title: EVIL },
    (file) =>
      withPage(file, {}, async ({ page, complaints, requests }) => {
        await page.locator("#triage button").first().click();
        assertStringIncludes(await page.locator("#run-title").innerText(), EVIL);
        await page.fill("#query", "<script>");
        await page.press("#query", "Enter");
        assertEquals(await page.evaluate("window.stolen"), undefined);
        assertEquals(await page.locator("img").count(), 0);
        assertEquals([complaints, requests], [[], []]);
      }),
  );
});

inBrowser("in a browser: a page of 100,000 VMRUNs opens, and the last is found", async () => {
  const small = await collect();
  const n = 100_000;
  const many = (column: readonly number[]) => Array.from({ length: n }, (_, i) => column[i % 5]!);
  const data: ReportData = {
    ...small,
    events: Array.from({ length: n }, (_, i) => 20 * i),
    // Names of their own, as a fuzzer gives them.
    texts: [...small.texts, ...Array.from({ length: n }, (_, i) => `case-${i} save.cr2=${i}`)],
    names: Array.from({ length: n }, (_, i) => small.texts.length + i),
    outcomeOf: small.outcomeOf.map(many),
    stepsOf: small.stepsOf.map(many),
    reportsOf: small.reportsOf.map(many),
    parts: small.parts.map((part) => ({
      ...part,
      fields: many(part.fields),
      findings: many(part.findings),
      origins: [],
    })),
  };
  await withReport(data, async (file) => {
    await withPage(file, {}, async ({ page, complaints }) => {
      await page.fill("#query", "case-99999 ");
      await page.press("#query", "Enter");
      assertMatch(await page.locator("#run-title").innerText(), /^VMRUN 99999,/);
      assertEquals(complaints, []);
    });
  });
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
