/**
 * One run under two policies, step by step: what each step changed, and where
 * the policies part.
 *
 * @module
 */
import { Buffer } from "node:buffer";
import type { Image, TraceEvent } from "../event.ts";
import { diffImages } from "../image/diff.ts";
import { runList, type Step, type Way } from "../policy.ts";
import { MAPPED_AT } from "../svm/machine.ts";
import { VMCB_SIZE } from "../svm/vmcb_fields.ts";
import type { Vcpu } from "../kvm/vcpu.ts";
import { areaImage, AREAS } from "./areas.ts";
import { Differ, type RunSide, type RunView } from "./differ.ts";
import type { RunDifference, RunRef, TwoValues } from "./run_difference.ts";
import type { Policy } from "../policy.ts";
import { assertion, MAPPING_STEPS, type Report } from "./transitions.ts";

/** A field that a step changed: its value before and after. */
export type StateChange = TwoValues;

/** A step that ran, or what ran between two transitions. */
export interface ExplainedStep {
  /** Name; {@linkcode BETWEEN} for what ran between transitions. */
  readonly name: string;
  /** What it does. */
  readonly doc: string;
  /** The way it is part of; empty between transitions. */
  readonly way: Way | "";
  /** 0 for the steps of a transition, 1 for those of a transition within it, and so on. */
  readonly depth: number;
  /** Fields that it changed. */
  readonly changes: readonly StateChange[];
  /** Checks that failed in it and assertions that broke. */
  readonly reports: readonly Report[];
}

/** Steps of two policies that stand beside each other. */
export interface ExplainedRow {
  /** The first policy's step, unless it has none here. */
  readonly a: ExplainedStep | undefined;
  /** The other's. */
  readonly b: ExplainedStep | undefined;
  /** The policies part here: the first row in which their steps are not the same. */
  readonly parts: boolean;
}

/** A run under two policies. */
export interface Explanation extends RunRef {
  /** Names of the policies. */
  readonly policies: readonly [string, string];
  /** Their steps, the same ones beside each other. */
  readonly rows: readonly ExplainedRow[];
  /** What differs at the end; undefined when nothing does. */
  readonly difference: RunDifference | undefined;
}

/** Name that {@linkcode ExplainedStep} has between transitions. */
export const BETWEEN = "(the vCPU runs)";
/** Most cells of the table that finds the longest common list of steps. */
const MAX_CELLS = 4_000_000;

/**
 * Finds the run of an event in a trace, and explains it.
 *
 * @example
 * ```ts
 * import { builtinScenarios, recordScenarios } from "@vmtape/vmtape/traces";
 * import { EARLY_EXIT, Explainer, UPSTREAM } from "@vmtape/vmtape/engine";
 * const events = await Array.fromAsync(
 *   recordScenarios(builtinScenarios("gif-left-set"), EARLY_EXIT),
 * );
 * const explainer = new Explainer([EARLY_EXIT, UPSTREAM], events.length - 1);
 * for (const event of events) explainer.feed(event);
 * const rows = explainer.finish()?.rows ?? [];
 * const parting = rows.find((row) => row.parts);
 * if (parting?.a?.name !== undefined || parting?.b?.name !== "clear EVENTINJ") throw new Error();
 * ```
 */
export class Explainer {
  readonly #differ: Differ;
  readonly #event: number;
  #index = 0;
  #difference: RunDifference | undefined;
  #found: { readonly ref: RunRef; readonly sides: readonly ExplainedStep[][] } | undefined;
  readonly #policies: readonly [string, string];

  /**
   * Begins before the trace's first event.
   *
   * @param policies The two policies.
   * @param event Number of an event: the run that it begins, sets up or is part of.
   */
  constructor(policies: readonly [Policy, Policy], event: number) {
    this.#event = event;
    this.#policies = [policies[0].name, policies[1].name];
    this.#differ = new Differ(
      policies,
      (difference) => {
        if (difference.event === this.#found?.ref.event) this.#difference = difference;
      },
      { look: (run) => this.#look(run) },
    );
  }

  /** Whether the run is over and later events do not matter. */
  get done(): boolean {
    return this.#found !== undefined;
  }

  /**
   * Takes the next event of the trace.
   *
   * @param event The event; its images need to be valid only during the call.
   * @throws {ReplayError} When an input lacks what is needed to carry it out.
   */
  feed(event: TraceEvent): void {
    if (this.done) return;
    this.#differ.feed(event);
    this.#index++;
  }

  /**
   * Ends the trace.
   *
   * @returns The run explained; undefined when the event belongs to no run that was replayed.
   */
  finish(): Explanation | undefined {
    if (!this.done) this.#differ.finish();
    const found = this.#found;
    if (found === undefined) return undefined;
    const [a = [], b = []] = found.sides;
    return {
      ...found.ref,
      policies: this.#policies,
      rows: besides(a, b),
      difference: this.#difference,
    };
  }

  /** A run is over; the first that ends after the event is the one, since what sets it up is before it. */
  #look(run: RunView): void {
    const { event, run: number, scenario, spec } = run;
    if (this.#found !== undefined || this.#event >= this.#index) return;
    this.#found = {
      ref: { event, run: number, scenario, spec },
      sides: run.sides.map((side) => stepsOf(side, run.vmcb12)),
    };
  }
}

/**
 * The steps that a policy ran, with what each changed.
 *
 * @param side The policy's side of a run.
 * @param vmcb12 Address of the run's vmcb12.
 * @returns The steps in the order they ran.
 * @example
 * ```ts
 * import { builtinScenarios, recordScenarios } from "@vmtape/vmtape/traces";
 * import { Differ, EARLY_EXIT, stepsOf, UPSTREAM } from "@vmtape/vmtape/engine";
 * const names: string[] = [];
 * const differ = new Differ([EARLY_EXIT, UPSTREAM], () => {}, {
 *   look({ sides, vmcb12 }) {
 *     for (const side of sides) names.push(...stepsOf(side, vmcb12).map((step) => step.name));
 *   },
 * });
 * for await (const event of recordScenarios(builtinScenarios("gif-left-set"), EARLY_EXIT)) {
 *   differ.feed(event);
 * }
 * differ.finish();
 * if (!names.includes("clear EVENTINJ")) throw new Error(names.join());
 * ```
 */
export function stepsOf(side: RunSide, vmcb12: number): ExplainedStep[] {
  const { log, vcpu } = side;
  const steps: ExplainedStep[] = [];
  let before: View | undefined;
  log.transitions.forEach((transition, index) => {
    const v = log.start(vcpu, index);
    const start = new View(v, vmcb12);
    if (before !== undefined) addBetween(steps, before, start);
    before = repeat(v, transition.way, vmcb12, start, steps);
  });
  if (before !== undefined) addBetween(steps, before, new View(vcpu.fork(vcpu.policy), vmcb12));
  return steps;
}

/** Repeats a transition and adds its steps; gives the state at its end. */
function repeat(
  v: Vcpu,
  way: Way,
  vmcb12: number,
  start: View,
  steps: ExplainedStep[],
): View {
  let view = start;
  let running: {
    readonly step: Step;
    readonly way: Way;
    readonly depth: number;
    readonly reports: Report[];
  } | undefined;
  const ways: Way[] = [way];
  const settle = () => {
    const now = new View(v, vmcb12);
    if (running !== undefined) {
      const { step, way, depth, reports } = running;
      const changes = changesOf(view, now, step);
      steps.push({ name: step.name, doc: step.doc, way, depth, changes, reports });
    }
    running = undefined;
    view = now;
  };
  v.observer = {
    begin: (inner) => ways.push(inner),
    end: () => {
      settle();
      ways.pop();
    },
    step: (step) => {
      settle();
      running = { step, way: ways.at(-1) ?? way, depth: ways.length - 1, reports: [] };
    },
    check: (id, text) =>
      running?.reports.push({ kind: "check", id, text, way: ways.at(-1) ?? way }),
    warn: (text, step) => running?.reports.push(assertion(text, ways.at(-1) ?? way, step)),
    inner() {},
  };
  runList(v, v.policy.ways[way]);
  settle();
  return view;
}

function addBetween(steps: ExplainedStep[], before: View, after: View): void {
  const changes = changesOf(before, after, undefined);
  if (changes.length === 0) return;
  const doc = "Requests, event injection, the guest itself and its exits, up to here";
  steps.push({ name: BETWEEN, doc, way: "", depth: 0, changes, reports: [] });
}

/** Copies of all parts of a vCPU's state. */
class View {
  readonly images: readonly Image[];
  /** vmcb12 as it is worked on while it is mapped. */
  readonly work: Image;

  constructor(v: Vcpu, vmcb12: number) {
    // Looking at registers is an ioctl, which moves queued events on.
    const saved = v.bytes.slice();
    this.images = AREAS.map((area) => {
      const { bytes, known } = areaImage(area, v, vmcb12);
      return { bytes: bytes.slice(), ...(known === undefined ? {} : { known }) };
    });
    v.bytes.set(saved);
    this.work = { bytes: saved.slice(MAPPED_AT, MAPPED_AT + VMCB_SIZE) };
  }
}

function changesOf(before: View, after: View, step: Step | undefined): StateChange[] {
  return AREAS.flatMap((area, i) => {
    const from = before.images[i] as Image, to = after.images[i] as Image;
    const pairs: (readonly [Image, Image])[] = [];
    if (area.name !== "vmcb12") pairs.push([from, to]);
    else {
      // Mapping fills the work area, and unmapping copies it to where it came from: no news.
      if (step !== undefined && !MAPPING_STEPS.has(step)) pairs.push([before.work, after.work]);
      if (Buffer.compare(to.bytes, after.work.bytes) !== 0) pairs.push([from, to]);
    }
    return pairs.flatMap(([x, y]) => diffImages(area.layout, x, y, { onlyKnown: true }))
      .filter((row) => !(area.omit?.has(row.field) ?? false))
      .map((row): StateChange => ({
        area: area.name,
        field: row.row,
        a: row.a,
        b: row.b,
        differing: row.differing,
      }));
  });
}

/** Puts the same steps of two lists beside each other, as many as can be. */
function besides(a: readonly ExplainedStep[], b: readonly ExplainedStep[]): ExplainedRow[] {
  const rows: ExplainedRow[] = [];
  let parted = false;
  const add = (x: ExplainedStep | undefined, y: ExplainedStep | undefined) => {
    const parts = !parted && (x === undefined || y === undefined);
    parted ||= parts;
    rows.push({ a: x, b: y, parts });
  };
  let i = 0, j = 0;
  for (const [x, y] of common(a, b)) {
    // What only one has stands beside what only the other has.
    while (i < x || j < y) add(i < x ? a[i++] : undefined, j < y ? b[j++] : undefined);
    add(a[i++], b[j++]);
  }
  while (i < a.length || j < b.length) add(a[i++], b[j++]);
  if (!parted) return rows;
  const first = rows.findIndex(({ a: x, b: y }) =>
    x === undefined || y === undefined || !same(x, y)
  );
  return rows.map((row, n) => ({ ...row, parts: n === first }));
}

function same(x: ExplainedStep, y: ExplainedStep): boolean {
  return x.name === y.name && x.way === y.way;
}

/** Indexes of a longest common list of steps. */
function common(a: readonly ExplainedStep[], b: readonly ExplainedStep[]): [number, number][] {
  const pairs: [number, number][] = [];
  const n = a.length, m = b.length;
  if (n * m > MAX_CELLS) {
    for (let i = 0; i < n && i < m && same(a[i]!, b[i]!); i++) pairs.push([i, i]);
    return pairs;
  }
  const best = new Uint32Array((n + 1) * (m + 1));
  const at = (i: number, j: number) => best[i * (m + 1) + j]!;
  for (let i = n - 1; i >= 0; i--) {
    for (let j = m - 1; j >= 0; j--) {
      best[i * (m + 1) + j] = same(a[i]!, b[j]!)
        ? at(i + 1, j + 1) + 1
        : Math.max(at(i + 1, j), at(i, j + 1));
    }
  }
  for (let i = 0, j = 0; i < n && j < m;) {
    if (same(a[i]!, b[j]!)) pairs.push([i++, j++]);
    else if (at(i + 1, j) >= at(i, j + 1)) i++;
    else j++;
  }
  return pairs;
}
