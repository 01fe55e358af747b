/**
 * The report as one HTML file that needs nothing else: data, code and style are
 * in it, and it asks the network for nothing.
 *
 * @module
 */
import { Buffer } from "node:buffer";
import { gzipSync } from "node:zlib";
import plotCode from "uplot/dist/uPlot.iife.min.js" with { type: "text" };
import plotStyle from "uplot/dist/uPlot.min.css" with { type: "text" };
import pageCode from "./page.js" with { type: "text" };
import pageStyle from "./page.css" with { type: "text" };
import { visible } from "../codecs/visible.ts";
import { plural } from "../engine/plural.ts";
import { explainCommand } from "../engine/diff/wording.ts";
import { type Mechanism, mechanismsOf } from "./triage.ts";
import {
  fieldText,
  type Finding,
  type FindingField,
  plainFinding,
  shortTexts,
} from "../engine/diff/mod.ts";
import type { ReportData } from "./data.ts";

/** What a page carries along for whoever it is sent to; what is left out is not on it. */
export interface ReportExtras {
  /** Where the recording comes from: labels and texts. */
  readonly provenance?: readonly (readonly [string, string])[] | undefined;
  /** Each finding as Markdown. */
  readonly markdown?: readonly string[] | undefined;
  /** Each finding's smallest scenario, as lines of the lab's case syntax. */
  readonly minimal?: readonly (readonly string[] | undefined)[] | undefined;
  /** Bytes of the trace, for the page to hand out. */
  readonly file?: Uint8Array | undefined;
  /** How the latencies were measured, and what they do not say themselves. */
  readonly latencyNotes?: readonly string[] | undefined;
}

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
 * @returns The text with everything escaped that means something in HTML, or to a terminal.
 * @example
 * ```ts
 * import { escapeHtml } from "@vmtape/vmtape/report";
 * if (escapeHtml("<a href='x'>&") !== "&lt;a href=&#39;x&#39;&gt;&amp;") throw new Error();
 * ```
 */
export function escapeHtml(text: string): string {
  // Whoever looks at the page's source in a terminal is as safe as in a browser.
  const shown = text.split("\n").map(visible).join("\n");
  return shown.replace(/[&<>"']/g, (character) => ESCAPES[character] ?? character);
}

/** A title for HTML: what is written like `svm->vmcb` stays in one piece. */
function titleHtml(title: string): string {
  return escapeHtml(title).replace(/\S*-&gt;\S*/g, '<span class="whole">$&</span>');
}

/** A script or style as it may stand in HTML: nothing in it ends its element. */
function inline(code: string): string {
  return code.replaceAll("</", "<\\/").replaceAll("<!--", "<\\!--");
}

/** A count for people to read. */
function counted(n: number, word: string, many?: string): string {
  return plural(n, word, many, n.toLocaleString("en"));
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

/** A text to be copied by a button beside it. */
function copied(text: string, what: string): string {
  return `<p class="copied"><code>${
    escapeHtml(text)
  }</code> <button type="button" data-copy>${what}</button></p>`;
}

function card(finding: Finding, index: number, trace: string, extras: ReportExtras): string {
  const { title, kind, policies, runs, fields, checks, parted, steps, first, cause } = finding;
  const names = Object.entries(checks);
  const list = names.slice(0, FIELDS).map(([id, n]) => `${id} ${n}`).join(", ");
  const name = [first.scenario, first.spec].filter(Boolean).join(" ");
  const from = cause === undefined
    ? ""
    : `<p>Follow-on of event ${cause.run.event}${
      cause.run.scenario === undefined ? "" : ` (${escapeHtml(cause.run.scenario)})`
    }: ${escapeHtml(cause.title)}</p>`;
  const wrote = policies.map((policy, side) => {
    const step = steps[side as 0 | 1];
    return `${policy}: ${step === undefined ? "no step" : `“${step}”`}`;
  });
  const written = steps.every((step) => step === undefined)
    ? ""
    : `<p>Written last by ${escapeHtml(wrote.join(", "))}</p>`;
  return `<li class="finding ${kind}" data-card="${index}"><h3>${titleHtml(title)}</h3>
<p class="meta"><span class="runs">${counted(runs, "VMRUN")}</span> <span class="pair">${
    escapeHtml(policies.join(" / "))
  }</span>, first: event ${first.event}${name === "" ? "" : ` (${escapeHtml(name)})`}</p>
<p>${escapeHtml(parted)}</p>${from}${written}${
    names.length === 0
      ? ""
      : `<p>Failed checks: ${escapeHtml(list)}${names.length > FIELDS ? ", …" : ""}</p>`
  }
<div class="wide" role="group" tabindex="0" aria-label="Fields"><table><caption class="hidden">Fields that differ</caption><thead><tr><th scope="col">Field</th><th scope="col">${
    escapeHtml(policies[0])
  }</th><th scope="col">${
    escapeHtml(policies[1])
  }</th><th scope="col">Bits</th><th scope="col">VMRUNs</th></tr></thead><tbody>${
    fields.slice(0, FIELDS).map(fieldRow).join("")
  }</tbody></table></div>${
    fields.length > FIELDS
      ? `<p class="meta">and ${counted(fields.length - FIELDS, "more field")}</p>`
      : ""
  }
${copied(explainCommand(finding, trace), "Copy command")}${minimalCase(extras.minimal?.[index])}${
    extras.markdown?.[index] === undefined
      ? ""
      : `<p><button type="button" data-markdown="${index}">Copy as Markdown</button></p>`
  }</li>`;
}

function minimalCase(lines: readonly string[] | undefined): string {
  if (lines === undefined) return "";
  return `<p class="meta">The smallest scenario that shows it, for vmtape record and the lab:</p>${
    copied(lines.join("\n"), "Copy case")
  }`;
}

function provenance(rows: ReportExtras["provenance"] = []): string {
  if (rows.length === 0) return "";
  const words = rows.map(([label, text]) =>
    `<div><dt>${escapeHtml(label)}</dt><dd>${escapeHtml(text)}</dd></div>`
  );
  return `<dl class="provenance">${words.join("")}</dl>`;
}

function download(trace: string, file: Uint8Array | undefined): string {
  if (file === undefined) return "";
  const body = Buffer.from(file).toString("base64");
  return `<a class="download" download="${
    escapeHtml(trace)
  }" href="data:application/octet-stream;base64,${body}">Download the trace</a>`;
}

/** What the mechanisms of a kind are headed by. */
const KIND_WORDS: Readonly<Record<Finding["kind"], string>> = {
  outcome: "Outcomes: what becomes of the VMRUN",
  state: "State that is left behind",
  unsettled: "Cannot be told from what was recorded",
  carried: "Follow-ons: what an earlier VMRUN left behind",
};

/** A value for a narrow column: 64 bits of ones are KVM's invalid address, and -1. */
function narrow(text: string): string {
  return text.replace(/^0xf{16}\b/, "-1");
}

function triageRow(one: Mechanism, policies: readonly string[]): string {
  const cells = one.cells.map(({ text, mark }, i) =>
    `<td role="cell" class="${mark}" data-policy="${escapeHtml(policies[i] ?? "")}">${
      escapeHtml(narrow(text)) || "–"
    }</td>`
  );
  const field = one.field === "" ? "" : `<span class="meta">${escapeHtml(one.field)}</span>`;
  const { kind, title, runs, findings } = one;
  const count = runs.toLocaleString("en");
  return `<tr role="row" class="${kind}" data-findings="${
    findings.join(" ")
  }"><th role="rowheader" scope="row"><button type="button">${
    titleHtml(title)
  }</button>${field}</th><td role="cell" class="count" data-policy="VMRUNs">${count}</td>${
    cells.join("")
  }</tr>`;
}

/** A heading and a line for each mechanism of a kind. */
function triageGroup(rows: readonly Mechanism[], policies: readonly string[]): string {
  const [{ kind } = {}] = rows;
  if (kind === undefined) return "";
  const head = `<tr role="row" class="group"><th role="rowheader" scope="rowgroup" colspan="${
    2 + policies.length
  }">${KIND_WORDS[kind]}</th></tr>`;
  const lines = rows.map((row) => triageRow(row, policies));
  return `<tbody role="rowgroup" class="${kind}">\n${[head, ...lines].join("\n")}</tbody>`;
}

function triage(data: ReportData): string {
  const { findings, policies, result } = data;
  if (findings.length === 0) {
    if (result.runs === 0) return "<p>The trace has no VMRUN that could be compared.</p>";
    const missed = result.skipped > 0 || Object.keys(result.unmodelled).length > 0 ||
      data.parts.some(({ unsettled }) => unsettled > 0);
    return `<p>The policies end alike ${missed ? "wherever it can be told" : "everywhere"}.</p>`;
  }
  const head = ["Mechanism", "VMRUNs", ...policies].map((name) =>
    `<th role="columnheader" scope="col">${escapeHtml(name)}</th>`
  );
  const mechanisms = mechanismsOf(data);
  const kinds = [...new Set(mechanisms.map(({ kind }) => kind))];
  const groups = kinds.map((kind) =>
    triageGroup(mechanisms.filter((one) => one.kind === kind), policies)
  );
  // On a narrow screen its rows are no table's for the eye: the roles say that they are.
  return `<div class="wide list" role="region" aria-labelledby="findings-title" tabindex="0"><table id="triage" role="table"><caption class="hidden">Mechanisms by which the policies differ</caption><thead role="rowgroup"><tr role="row">${
    head.join("")
  }</tr></thead>
${groups.join("\n")}</table></div>`;
}

function summary({ policies, parts, result }: ReportData): string {
  // Of many policies, the pairs with the first one; the rest is told where the pair is chosen.
  const told = parts.filter(({ pair: [a] }) =>
    result.runs > 0 && (a === 0 || policies.length <= 3)
  );
  const lines = told.map(({ pair: [a, b], different, unsettled }) =>
    `<li><strong>${escapeHtml(`${policies[a]} / ${policies[b]}`)}</strong>: ${
      different.toLocaleString("en")
    } of ${counted(result.runs, "VMRUN")} end differently${
      unsettled === 0 ? "" : `, of ${unsettled.toLocaleString("en")} it cannot be told`
    }</li>`
  );
  for (const [what, runs] of Object.entries(result.unmodelled)) {
    lines.push(
      `<li>Not modelled: ${escapeHtml(what)}: ${counted(runs, "VMRUN")} cannot be compared</li>`,
    );
  }
  if (result.skipped > 0) {
    lines.push(
      `<li>${counted(result.skipped, "VMRUN lacks its inputs", "VMRUNs lack their inputs")}</li>`,
    );
  }
  return `<ul class="summary">${lines.join("")}</ul>`;
}

/**
 * The page.
 *
 * @param data What it shows.
 * @param trace Name of the trace file, for the commands that it shows.
 * @param extras What it carries along.
 * @returns The text of an HTML file.
 * @example
 * ```ts
 * import { EARLY_EXIT, UPSTREAM } from "@vmtape/vmtape/engine";
 * import { ReportCollector, reportPage } from "@vmtape/vmtape/report";
 * const data = new ReportCollector([EARLY_EXIT, UPSTREAM]).finish("Nothing <yet>");
 * const html = reportPage(data, "empty.vmtape");
 * if (!html.includes("<title>Nothing &lt;yet&gt;: early-exit, linux-7.3</title>")) throw new Error();
 * ```
 */
export function reportPage(data: ReportData, trace: string, extras: ReportExtras = {}): string {
  // The page shows values as text; the script of the page needs them nowhere else.
  const plain = {
    ...data,
    findings: data.findings.map(plainFinding),
    trace,
    markdown: extras.markdown ?? [],
    // The page puts the number of an event in the place of -1.
    commands: data.parts.map(({ pair }) => {
      const policies = pair.map((policy) => data.policies[policy] as string);
      return explainCommand({ policies, first: { event: -1 } }, trace);
    }),
  };
  const packed = gzipSync(new TextEncoder().encode(JSON.stringify(plain))).toString("base64");
  const cards = data.findings.map((finding, i) => card(finding, i, trace, extras)).join("\n");
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
<div class="what"><h1>${escapeHtml(data.title)}</h1>${provenance(extras.provenance)}</div>
${summary(data)}
<form id="search" role="search"><label for="query">Search fields, checks and scenarios</label>
<input id="query" type="search" autocomplete="off" placeholder="gif, asid-zero, event_inj …">
<button type="submit">Next</button><output id="hits"></output></form>
<div class="bar">${
    download(trace, extras.file)
  }<button type="button" id="link">Copy link</button><button type="button" id="theme" aria-pressed="false">Dark</button></div>
</header>
<main>
<div class="answer">
<div class="left">
<h2 id="findings-title">What differs</h2>
<div class="bar" id="pair"><label>Pair: <select id="one"></select></label> <label>and <select id="other"></select></label> <span id="pair-says"></span></div>
${triage(data)}
<ol id="findings">${cards}</ol>
</div>
<div class="right">
<section aria-labelledby="timeline-title"><h2 id="timeline-title">VMRUNs</h2>
<div id="legend"></div>
<div id="timeline" role="slider" tabindex="0" aria-label="VMRUN" aria-describedby="keys" aria-valuemin="0"><canvas></canvas></div>
<p id="hover">Point at a VMRUN to see what becomes of it; click or tap to choose it.</p>
<div class="bar"><button type="button" id="zoom-in">Zoom in</button><button type="button" id="zoom-out">Zoom out</button><button type="button" id="zoom-all">All</button><span id="range"></span></div>
</section>
<section aria-labelledby="run-title" id="run" tabindex="-1"><h2 id="run-title">No VMRUN is chosen</h2>
<div class="bar"><button type="button" id="previous">Previous that differs</button><button type="button" id="next">Next that differs</button></div>
<div id="details"></div>
</section>
</div>
</div>
<p id="keys">Left and right: one VMRUN. N and P: the next and the previous one that differs between the chosen pair. Wheel, plus, minus and 0: zoom. Drag: zoom in; with Shift or the middle button: move. Slash: search.</p>
<section aria-labelledby="latency-title" id="latency"><h2 id="latency-title">Latency</h2>
${(extras.latencyNotes ?? []).map((note) => `<p>${escapeHtml(note)}</p>`).join("\n")}
<label>Transition: <select id="kind"></select></label>
<div class="plots"><figure><figcaption>Percentiles, each step to the right ten times as rare</figcaption><div id="percentiles"></div></figure><figure><figcaption>How often</figcaption><div id="histogram"></div></figure></div>
<div class="wide" id="latency-table" role="group" tabindex="0" aria-label="Latencies"></div>
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
