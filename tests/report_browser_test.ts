import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import axe from "axe-core/axe.min.js" with { type: "text" };
import type { Page } from "playwright-core";
import { ReportCollector, type ReportData, type ReportExtras, reportPage } from "../report/mod.ts";
import { CHROMIUM, withPage } from "./browser.ts";
import { withFolder } from "./cli_process.ts";
import { CASES, collect, EVIL, logEvents, poison, POLICIES } from "./report_data.ts";

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

async function withReport(
  data: ReportData,
  use: (file: string) => Promise<void>,
  extras?: ReportExtras,
): Promise<void> {
  await withFolder(async (folder) => {
    const file = `${folder}/report.html`;
    await Deno.writeTextFile(file, reportPage(data, "run.vmtape", extras));
    await use(file);
  });
}

/** A report of a log, of which much cannot be told. */
function logReport(): ReportData {
  const collector = new ReportCollector(POLICIES);
  for (const event of logEvents()) collector.feed(event);
  return collector.finish("a log");
}

/** Everything that a page may carry. */
const EXTRAS: ReportExtras = {
  provenance: [["source", "kvm"], ["kernel", "6.12"]],
  markdown: Array(99).fill("## a finding"),
  minimal: Array(99).fill(["small control.asid=0"]),
  file: Uint8Array.of(1, 2, 3),
  latencyNotes: ["Replayed times are of the model."],
};

/** What axe finds wrong with a page as it is now. */
async function violations(page: Page): Promise<string[]> {
  await page.evaluate(axe);
  const rules = {
    runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"],
  };
  const found = await page.evaluate(`axe.run(document, ${JSON.stringify(rules)})`) as {
    readonly violations: { readonly id: string; readonly nodes: { readonly html: string }[] }[];
  };
  return found.violations.map(({ id, nodes }) => `${id}: ${nodes[0]?.html}`);
}

for (const { dark, width } of [{ dark: false, width: 1280 }, { dark: true, width: 390 }]) {
  const look = `${dark ? "dark" : "light"}, ${width} pixels wide`;
  inBrowser(`in a browser: axe finds nothing wrong (${look})`, async () => {
    for (const data of [await collect(), logReport(), await collect("")]) {
      await withReport(
        data,
        (file) =>
          withPage(file, { width, dark }, async ({ page, complaints }) => {
            assertEquals(await violations(page), [], data.title);
            if (data.events.length === 0) return;
            // Everything unfolded, searched and focused.
            await page.fill("#query", "asid");
            await page.press("#query", "Enter");
            await page.evaluate(
              "document.querySelectorAll('details').forEach((one) => one.open = true)",
            );
            await page.locator("#triage button").last().click();
            await page.locator("#timeline").focus();
            assertEquals(await violations(page), [], data.title);
            assertEquals(complaints, []);
          }),
        EXTRAS,
      );
    }
  });
}

/** What a text on the page says. */
async function said(page: Page, selector: string): Promise<string> {
  return (await page.locator(selector).innerText()).trim();
}

inBrowser(
  "in a browser: the pointer tells, chooses, zooms and moves; so does a finger",
  async () => {
    // 100 VMRUNs, so that each has some pixels.
    const data = await collect("asid control.asid=0\nfine\n".repeat(50));
    await withReport(data, async (file) => {
      await withPage(file, {}, async ({ page, complaints }) => {
        const box = (await page.locator("#timeline canvas").boundingBox())!;
        const at = (part: number) => [box.x + part * box.width, box.y + 20] as const;
        assertMatch(await said(page, "#hover"), /^Point at a VMRUN/);
        await page.mouse.move(...await at(0.105));
        assertMatch(
          await said(page, "#hover"),
          /^VMRUN 10, event \d+\. early-exit: failed check, .*\. asid control/,
        );
        await page.mouse.click(...await at(0.305));
        assertMatch(await said(page, "#run-title"), /^VMRUN 30,/);
        const range = async () =>
          (await said(page, "#range")).match(/\d+/g)!.map(Number) as [number, number, number];
        assertEquals(await range(), [0, 99, 100]);
        await page.mouse.move(...await at(0.5));
        await page.mouse.wheel(0, -100);
        await page.waitForFunction(
          "!document.querySelector('#range').textContent.includes(' 0 to')",
        );
        const [from, to] = await range();
        assert(from > 0 && to < 99 && from <= 50 && to >= 50, `${from} to ${to}`);
        // With Shift a drag to the right moves to what is before.
        await page.keyboard.down("Shift");
        await page.mouse.move(...await at(0.4));
        await page.mouse.down();
        await page.mouse.move(...await at(0.45), { steps: 3 });
        await page.mouse.up();
        await page.keyboard.up("Shift");
        const moved = await range();
        assert(moved[0] < from && moved[1] - moved[0] === to - from, `${moved} from ${from}`);
        // Without, it zooms to what was dragged over.
        await page.locator("#zoom-all").click();
        await page.mouse.move(...await at(0.205));
        await page.mouse.down();
        await page.mouse.move(...await at(0.405), { steps: 3 });
        await page.mouse.up();
        assertEquals(await range(), [20, 40, 100]);
        await page.mouse.move(0, 0);
        assertMatch(await said(page, "#hover"), /^Point at a VMRUN/);
        assertEquals(complaints, []);
      });
      await withPage(file, { width: 390, touch: true }, async ({ page, complaints }) => {
        await page.locator("#timeline").tap({ position: { x: 150, y: 20 } });
        assertMatch(await said(page, "#run-title"), /^VMRUN (39|40|41),/);
        const step = page.locator(".step details").first();
        await step.locator("summary").tap();
        assert(await step.locator("p").isVisible());
        await page.locator("#triage button").last().tap();
        assertEquals(
          await page.locator("#triage [data-chosen] button").getAttribute("aria-pressed"),
          "true",
        );
        assertEquals(complaints, []);
      });
    });
  },
);

inBrowser("in a browser: the next that differs is one where the chosen pair differs", async () => {
  // The RSM alone parts the first and the last; failed checks part the second from both.
  const data = await collect("asid control.asid=0\nfine\nrsm entry=rsm late.control.asid=0\n");
  await withReport(data, (file) =>
    withPage(file, {}, async ({ page }) => {
      const stops = async (one: string, other: string) => {
        await page.selectOption("#other", other);
        await page.selectOption("#one", one);
        await page.locator("#timeline").focus();
        await page.keyboard.press("Home");
        const runs = [];
        for (let last = ""; last !== "That was the last one"; last = await said(page, "#said")) {
          runs.push(await page.locator("#timeline").getAttribute("aria-valuenow"));
          await page.keyboard.press("n");
          if (runs.length > 9) break;
        }
        return runs;
      };
      for (const { pair: [a, b], findings } of data.parts) {
        const differ = findings.flatMap((set, run) => set < 0 || run === 0 ? [] : [String(run)]);
        assertEquals(await stops(String(a), String(b)), ["0", ...differ]);
      }
    }));
});

inBrowser(
  "in a browser: a log says what it cannot tell, and an empty trace claims nothing",
  async () => {
    await withReport(logReport(), (file) =>
      withPage(file, {}, async ({ page, complaints }) => {
        assertMatch(await said(page, ".summary"), /of \d+ it cannot be told/);
        assertMatch(await said(page, "#legend"), /cannot tell/);
        await page.locator("#timeline").focus();
        await page.keyboard.press("End");
        const value = await page.locator("#timeline").getAttribute("aria-valuetext");
        assertMatch(value!, /recorded: not seen.*early-exit: cannot tell/);
        assertEquals(complaints, []);
      }));
    await withReport(
      await collect(""),
      (file) =>
        withPage(file, {}, async ({ page, complaints }) => {
          assertMatch(await said(page, "main"), /no VMRUN that could be compared/);
          assert(!/alike|differently/.test(await said(page, "body")));
          assert(await page.locator("#timeline").isHidden());
          assertEquals(complaints, []);
        }),
    );
  },
);

inBrowser(
  "in a browser: what is carried along is handed out, and the ratio has its verdict",
  async () => {
    const data = await collect();
    const latency = data.latency.map((row) => ({ ...row, ratio: "1.00 (0.98 to 1.03), noise" }));
    await withReport(
      { ...data, latency },
      (file) =>
        withPage(file, {}, async ({ page, complaints }) => {
          const [download] = await Promise.all([
            page.waitForEvent("download"),
            page.locator("a.download").click(),
          ]);
          assertEquals(download.suggestedFilename(), "run.vmtape");
          const bytes = await Deno.readFile(await download.path());
          assertEquals(bytes, Uint8Array.of(1, 2, 3));
          assertStringIncludes(await said(page, ".finding:not([hidden])"), "small control.asid=0");
          assertStringIncludes(await said(page, ".provenance"), "6.12");
          assertStringIncludes(await said(page, "#latency-table"), "noise");
          assertStringIncludes(await said(page, "#latency"), "of the model");
          // No number is broken: every cell is one line high, or of words.
          const broken = await page.evaluate(
            "[...document.querySelectorAll('td')].filter((e) => /^[\\d.,]+( [µmn]?s)?$/.test(e.innerText)" +
              " && e.getClientRects().length > 0 && e.clientHeight > 30 && e.parentElement.clientHeight < 30)" +
              ".length",
          );
          assertEquals(broken, 0);
          assertEquals(complaints, []);
        }),
      EXTRAS,
    );
  },
);

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
