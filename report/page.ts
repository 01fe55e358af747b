/**
 * The report as one HTML file that needs nothing else: data, code and style are
 * in it, and it asks the network for nothing.
 *
 * @module
 */
import { gzipSync } from "node:zlib";
import plotCode from "uplot/dist/uPlot.iife.min.js" with { type: "text" };
import plotStyle from "uplot/dist/uPlot.min.css" with { type: "text" };
import pageCode from "./page.js" with { type: "text" };
import pageStyle from "./page.css" with { type: "text" };
import {
  fieldText,
  type Finding,
  type FindingField,
  plainFinding,
  shortTexts,
} from "../engine/diff/mod.ts";
import type { ReportData } from "./data.ts";

/** Fields of a finding that its card shows. */
const FIELDS = 6;

const ESCAPES: Readonly<Record<string, string>> = {
  "&": "&amp;",
  "<": "&lt;",
  ">": "&gt;",
  '"': "&quot;",
  "'": "&#39;",
};

/**
 * Text for HTML, in an element or in a quoted attribute.
 *
 * @param text Any text.
 * @returns The text with everything escaped that means something in HTML.
 * @example
 * ```ts
 * import { escapeHtml } from "@vmtape/vmtape/report";
 * if (escapeHtml("<a href='x'>&") !== "&lt;a href=&#39;x&#39;&gt;&amp;") throw new Error();
 * ```
 */
export function escapeHtml(text: string): string {
  return text.replace(/[&<>"']/g, (character) => ESCAPES[character] ?? character);
}

/** A script or style as it may stand in HTML: nothing in it ends its element. */
function inline(code: string): string {
  return code.replaceAll("</", "<\\/").replaceAll("<!--", "<\\!--");
}

function plural(n: number, word: string): string {
  return `${n.toLocaleString("en")} ${word}${n === 1 ? "" : "s"}`;
}

function fieldRow(field: FindingField): string {
  const { a, b, bits } = shortTexts(field);
  const cells = [fieldText(field), a, b, bits.join(" "), field.runs.toLocaleString("en")];
  return `<tr>${
    cells.map((cell, i) =>
      i === 0 ? `<th scope="row">${escapeHtml(cell)}</th>` : `<td>${escapeHtml(cell)}</td>`
    )
      .join("")
  }</tr>`;
}

function card(finding: Finding, index: number, trace: string): string {
  const { title, kind, policies, runs, fields, checks, parted, first, cause } = finding;
  const names = Object.entries(checks);
  const list = names.slice(0, FIELDS).map(([id, n]) => `${id} ${n}`).join(", ");
  const name = [first.scenario, first.spec].filter(Boolean).join(" ");
  const command = `vmtape explain ${trace} --event ${first.event} --policies ${policies.join(",")}`;
  const from = cause === undefined
    ? ""
    : `<p>Follow-on of event ${cause.run.event}${
      cause.run.scenario === undefined ? "" : ` (${escapeHtml(cause.run.scenario)})`
    }: ${escapeHtml(cause.title)}</p>`;
  return `<li class="finding ${kind}"><h3><button type="button" data-finding="${index}">${
    escapeHtml(title)
  }</button></h3>
<p class="meta"><span class="runs">${plural(runs, "VMRUN")}</span> <span class="pair">${
    escapeHtml(policies.join(" / "))
  }</span></p>
<p>${escapeHtml(parted)}</p>${from}${
    names.length === 0
      ? ""
      : `<p>Failed checks: ${escapeHtml(list)}${names.length > FIELDS ? ", …" : ""}</p>`
  }
<div class="wide"><table><caption class="hidden">Fields that differ</caption><thead><tr><th scope="col">Field</th><th scope="col">${
    escapeHtml(policies[0])
  }</th><th scope="col">${
    escapeHtml(policies[1])
  }</th><th scope="col">Bits</th><th scope="col">VMRUNs</th></tr></thead><tbody>${
    fields.slice(0, FIELDS).map(fieldRow).join("")
  }</tbody></table></div>${
    fields.length > FIELDS
      ? `<p class="meta">and ${plural(fields.length - FIELDS, "more field")}</p>`
      : ""
  }
<p class="meta">First: event ${first.event}${name === "" ? "" : ` (${escapeHtml(name)})`}</p>
<p><code>${escapeHtml(command)}</code></p></li>`;
}

function summary({ policies, result }: ReportData): string {
  const [first, ...others] = policies;
  const lines = others.map((other, i) =>
    `<li><strong>${escapeHtml(`${first} / ${other}`)}</strong>: ${
      (result.different[i] ?? 0).toLocaleString("en")
    } of ${plural(result.runs, "VMRUN")} end differently</li>`
  );
  for (const [what, runs] of Object.entries(result.unmodelled)) {
    lines.push(
      `<li>Not modelled: ${escapeHtml(what)}: ${plural(runs, "VMRUN")} cannot be compared</li>`,
    );
  }
  if (result.skipped > 0) {
    lines.push(`<li>${plural(result.skipped, "VMRUN")} lack their inputs</li>`);
  }
  return `<ul class="summary">${lines.join("")}</ul>`;
}

/**
 * The page.
 *
 * @param data What it shows.
 * @param trace Name of the trace file, for the commands that it shows.
 * @returns The text of an HTML file.
 * @example
 * ```ts
 * import { EARLY_EXIT, UPSTREAM } from "@vmtape/vmtape/engine";
 * import { ReportCollector, reportPage } from "@vmtape/vmtape/report";
 * const data = new ReportCollector([EARLY_EXIT, UPSTREAM]).finish("Nothing <yet>");
 * const html = reportPage(data, "empty.vmtape");
 * if (!html.includes("<title>Nothing &lt;yet&gt;: early-exit, upstream</title>")) throw new Error();
 * ```
 */
export function reportPage(data: ReportData, trace: string): string {
  // The page shows values as text; the script of the page needs them nowhere else.
  const plain = { ...data, findings: data.findings.map(plainFinding) };
  const packed = gzipSync(new TextEncoder().encode(JSON.stringify(plain))).toString("base64");
  const quoted = /^[\w./-]+$/.test(trace) ? trace : `'${trace.replaceAll("'", "'\\''")}'`;
  const cards = data.findings.map((finding, i) => card(finding, i, quoted)).join("\n");
  return `<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:">
<link rel="icon" href="data:,">
<title>${escapeHtml(data.title)}: ${escapeHtml(data.policies.join(", "))}</title>
<style>${inline(plotStyle)}
${inline(pageStyle)}</style>
</head>
<body>
<a class="skip" href="#run">Skip to the chosen VMRUN</a>
<header>
<h1>${escapeHtml(data.title)}</h1>
${summary(data)}
<form id="search" role="search"><label for="query">Search fields, checks and scenarios</label>
<input id="query" type="search" autocomplete="off" placeholder="gif, asid-zero, event_inj …">
<button type="submit">Next</button><output id="hits"></output></form>
<button type="button" id="theme" aria-pressed="false">Dark</button>
</header>
<main>
<section aria-labelledby="findings-title"><h2 id="findings-title">${
    plural(data.findings.length, "finding")
  }</h2>
${
    data.findings.length === 0
      ? "<p>The policies end alike everywhere.</p>"
      : `<ol id="findings">${cards}</ol>`
  }
</section>
<section aria-labelledby="timeline-title"><h2 id="timeline-title">VMRUNs</h2>
<p id="keys">Left and right: one VMRUN. N and P: the next and the previous one that differs. Plus, minus and 0: zoom. Drag: zoom in. Slash: search.</p>
<div id="legend"></div>
<div id="timeline" role="slider" tabindex="0" aria-label="VMRUN" aria-describedby="keys" aria-valuemin="0"><canvas></canvas></div>
<div class="zoom"><button type="button" id="zoom-in">Zoom in</button><button type="button" id="zoom-out">Zoom out</button><button type="button" id="zoom-all">All</button><span id="range"></span></div>
</section>
<section aria-labelledby="run-title" id="run" tabindex="-1"><h2 id="run-title">No VMRUN is chosen</h2>
<div class="zoom"><button type="button" id="previous">Previous that differs</button><button type="button" id="next">Next that differs</button><label>Beside ${
    escapeHtml(data.policies[0] ?? "")
  }: <select id="other"></select></label></div>
<div id="details"></div>
</section>
<section aria-labelledby="latency-title" id="latency"><h2 id="latency-title">Latency</h2>
<p>Times of the replay on the machine that made this report, cost of the clock taken off. Rows called “recorded” are by the recording's own clock and not to be compared with the others.</p>
<label>Transition: <select id="kind"></select></label>
<div class="plots"><figure><figcaption>Percentiles</figcaption><div id="percentiles"></div></figure><figure><figcaption>How often</figcaption><div id="histogram"></div></figure></div>
<div class="wide" id="latency-table"></div>
</section>
</main>
<p id="said" class="hidden" role="status" aria-live="polite"></p>
<noscript><p>The timeline, the steps and the search need JavaScript; the findings above do not.</p></noscript>
<script type="text/plain" id="data">${packed}</script>
<script>${inline(plotCode)}</script>
<script>${inline(pageCode)}</script>
</body>
</html>
`;
}
