/**
 * What a report carries along for whoever it is sent to: where its recording comes from, each
 * finding as Markdown, and the smallest scenario that shows it.
 *
 * @module
 */
import config from "../deno.json" with { type: "json" };
import type { TraceHeader } from "../codecs/mod.ts";
import { VmtapeError } from "../engine/error.ts";
import type { TraceEvent } from "../engine/event.ts";
import type { Policy } from "../engine/policy.ts";
import { capabilitiesOf } from "../engine/replay/session_machine.ts";
import type { ReportData } from "../report/mod.ts";
import { minimizeCases } from "../traces/scenarios/minimize.ts";
import { findingMarkdown } from "./diff_output.ts";

/** Cases up to the one that shows a finding that are tried at most. */
const MOST_CASES = 16;
/** Cases of a trace that are remembered at most. */
const MOST_KEPT = 200_000;
/** Findings whose scenario is made small, and milliseconds after which no other is begun. */
const MOST_FINDINGS = 24, BUDGET = 4000;

interface Case {
  readonly event: number;
  readonly name: string;
  readonly spec: string | undefined;
  readonly session: number;
  readonly npt: boolean;
}

/** Reads along while a report is gathered. */
export class ReportSharing {
  #header: TraceHeader | undefined;
  #meta: Readonly<Record<string, unknown>> | undefined;
  #session = 0;
  #npt = true;
  #sessions = 0;
  #index = 0;
  readonly #cases: Case[] = [];

  /** Notes what the trace's header says. */
  begin(header: TraceHeader): void {
    this.#header = header;
  }

  /** Takes the next event. */
  feed(event: TraceEvent): void {
    const index = this.#index++;
    if (event.kind === "session") {
      this.#meta ??= event.meta;
      this.#sessions++;
      this.#session = index;
      this.#npt = capabilitiesOf(event.meta).npt;
    } else if (event.kind === "case" && this.#cases.length < MOST_KEPT) {
      const { name = "case", spec } = event;
      this.#cases.push({ event: index, name, spec, session: this.#session, npt: this.#npt });
    }
  }

  /** Where the recording comes from, as label and text; what it does not say is left out. */
  provenance(): [string, string][] {
    const told = { ...this.#header?.meta, ...this.#meta };
    const text = (value: unknown) =>
      typeof value === "string" || typeof value === "number" ? String(value) : "";
    const npt = told["npt"] === undefined ? "" : this.#npt ? "on" : "off";
    const format = this.#header && `${this.#header.major}.${this.#header.minor}`;
    const rows: [string, string][] = [
      ["source", text(told["source"])],
      ["kernel", text(told["kernel"])],
      ["processor", text(told["processor"])],
      ["NPT", npt],
      ["recorded", text(told["date"] ?? told["recorded"])],
      ["sessions", this.#sessions > 1 ? String(this.#sessions) : ""],
      ["format", format ?? ""],
      ["vmtape", config.version],
    ];
    return rows.filter(([, value]) => value !== "");
  }

  /**
   * The smallest scenario of each finding, as lines of the lab's case syntax, for as many as little
   * time is enough for.
   *
   * @param data The report.
   * @param policies Its policies.
   * @returns For each finding its lines; undefined where none is known.
   */
  async minimal(
    { findings }: ReportData,
    policies: readonly Policy[],
  ): Promise<(readonly string[] | undefined)[]> {
    const start = performance.now();
    const all: (readonly string[] | undefined)[] = [];
    for (const { kind, id, policies: names, first } of findings) {
      const pair = names.map((name) => policies.find((policy) => policy.name === name));
      const [a, b] = pair;
      const given = kind === "outcome" || kind === "state";
      const late = all.length >= MOST_FINDINGS || performance.now() - start > BUDGET;
      const cases = this.#casesOf(first.event);
      all.push(
        given && !late && a !== undefined && b !== undefined && cases !== undefined
          ? await linesOf(cases.cases, [a, b], { npt: cases.npt, ids: [id] })
          : undefined,
      );
    }
    return all;
  }

  #casesOf(event: number) {
    let low = 0, high = this.#cases.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if ((this.#cases[middle] as Case).event <= event) low = middle + 1;
      else high = middle;
    }
    const last = this.#cases[low - 1];
    if (last === undefined) return undefined;
    const cases = this.#cases.slice(Math.max(0, low - MOST_CASES), low)
      .filter(({ session }) => session === last.session)
      .flatMap(({ name, spec }) => spec === undefined ? [] : [{ name, spec }]);
    return last.spec === undefined ? undefined : { cases, npt: last.npt };
  }
}

async function linesOf(
  ...task: Parameters<typeof minimizeCases>
): Promise<readonly string[] | undefined> {
  try {
    return (await minimizeCases(...task)).lines;
  } catch (error) {
    // It was recorded in a state that the cases do not set up: there is none to send.
    if (error instanceof VmtapeError) return undefined;
    throw error;
  }
}

/**
 * The findings of a report as Markdown, as `diff` prints them.
 *
 * @param data The report.
 * @param trace Name of the trace, for the commands.
 */
export function findingTexts({ result, findings, policies }: ReportData, trace: string): string[] {
  const output = { result, findings, trace, policies };
  return findings.map((finding) => [...findingMarkdown(finding, output)].join("\n"));
}
