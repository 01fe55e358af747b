/**
 * Reports to look at.
 *
 * @module
 */
import { Buffer } from "node:buffer";
import { gunzipSync } from "node:zlib";
import type { TraceEvent } from "../engine/event.ts";
import { EARLY_EXIT, LINUX_6_12, UNIFIED } from "../engine/policies/mod.ts";
import { ReportCollector, type ReportData } from "../report/mod.ts";
import { recordScenarios } from "../traces/scenarios/record.ts";
import { parseScenarios } from "../traces/scenarios/scenario_reader.ts";

/** Cases that fail in each way. */
export const CASES =
  "fine\nasid control.asid=0\npae save.efer=1000 save.cr3=50000 save.cs_attrib=c9b " +
  "m.50008=52007\nlate control.msrpm_base_pa=8000000\nrsm entry=rsm late.control.asid=0\n";
/** What they are run under. */
export const POLICIES = [EARLY_EXIT, UNIFIED, LINUX_6_12];
/** Latencies of one kind. */
export const LATENCY = [{
  kind: "entered",
  policy: "early-exit",
  count: 4,
  p999: 90,
  mean: 40,
  quantiles: [10, 20, 40, 80, 90],
  tail: [[1, 10], [2, 40], [4, 1500]] as [number, number][],
  ratio: "",
}];

/** A report of cases. */
export async function collect(
  text = CASES,
  change: (event: TraceEvent) => TraceEvent = (event) => event,
): Promise<ReportData> {
  const collector = new ReportCollector(POLICIES);
  for await (const event of recordScenarios(parseScenarios(text), EARLY_EXIT)) {
    collector.feed(change(event));
  }
  return collector.finish("some trace", LATENCY);
}

/** What no text may do to a page. */
export const EVIL =
  `</script><script>window.stolen=1</script><img src=x onerror="window.stolen=1">'&<!--`;

/** The trace with that in every text. */
export function poison(event: TraceEvent): TraceEvent {
  const changed = Object.entries(event).map((
    [name, value],
  ) => [
    name,
    typeof value === "string" && !["kind", "phase", "what"].includes(name) ? EVIL : value,
  ]);
  return Object.fromEntries(changed) as unknown as TraceEvent;
}

/** A log: a failed check, an entry whose ASID was not recorded, and a VMRUN of which nothing follows. */
export function logEvents(): TraceEvent[] {
  const bytes = new Uint8Array(4096), known = new Uint8Array(4096);
  const image = (asid: number | undefined) => {
    const page = { bytes: bytes.slice(), known: known.slice() };
    if (asid === undefined) return page;
    page.bytes[0x58] = asid;
    page.known.fill(0xff, 0x58, 0x5c);
    return page;
  };
  return [
    { kind: "session", vcpu: 0, meta: { source: "kvm-tracepoints" } },
    { kind: "vmrun", vcpu: 0, vmcb12: image(0) },
    { kind: "check", vcpu: 0, check: "asid-zero", text: "control->asid == 0" },
    { kind: "vmrun", vcpu: 0, vmcb12: image(undefined) },
    { kind: "l2exit", vcpu: 0 },
    { kind: "vmrun", vcpu: 0, vmcb12: image(undefined) },
  ];
}

/** What a page holds. */
export function pageData(html: string): ReportData {
  const [, packed = ""] = /id="data">([^<]+)/.exec(html) ?? [];
  return JSON.parse(gunzipSync(Buffer.from(packed, "base64")).toString());
}

/** What a page shows of each run, in words in the place of numbers: those depend on the order of work. */
export function shownOf(data: ReportData): Readonly<Record<string, unknown>> {
  const { texts, steps, ways, stepLists, reportLists, rows, lists, sets, findings, parts } = data;
  const text = (n: number) => n < 0 ? "" : texts[n];
  const row = (n: number) => Object.values(rows[n < 0 ? -1 - n : n]!).map(text).join("|");
  const runs = data.events.map((event, run) => ({
    event,
    name: text(data.names[run]!),
    recorded: data.recorded[run],
    outcomes: data.outcomeOf.map((column) => data.outcomes[column[run]!]),
    steps: data.stepsOf.map((column) =>
      stepLists[column[run]!]!.map((n) => n < 0 ? ways[-1 - n] : steps[n]!.name)
    ),
    reports: data.reportsOf.map((column) => reportLists[column[run]!]!.map(text)),
    parts: parts.map((part) => ({
      fields: (lists[part.fields[run]!] ?? []).map((n) => `${n < 0} ${row(n)}`),
      findings: (sets[part.findings[run]!] ?? []).map((n) => findings[n]!.title).toSorted(),
    })),
  }));
  const told = Object.entries(data.explained).map(([run, sides]) => [
    run,
    sides.map((side) =>
      side?.map(({ name, writes }) => [name, writes.map((one) => one.map(text).join("|"))])
    ),
  ]);
  const origins = parts.map(({ pair, different, unsettled, origins }) => (
    { pair, different, unsettled, origins }
  ));
  return { runs, told, origins, findings, result: data.result };
}
