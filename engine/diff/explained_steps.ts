/**
 * The steps that a policy ran, with what each changed.
 *
 * @module
 */
import { Buffer } from "node:buffer";
import type { Image } from "../event.ts";
import { diffImages } from "../image/diff.ts";
import type { Vcpu } from "../kvm/vcpu.ts";
import { runList, type Step, type Way } from "../policy.ts";
import { MAPPED_AT } from "../svm/machine.ts";
import { VMCB_SIZE } from "../svm/vmcb_fields.ts";
import { areaImage, AREAS } from "./areas.ts";
import type { RunSide } from "./differ.ts";
import type { TwoValues } from "./run_difference.ts";
import { assertion, type Incident } from "./transitions.ts";

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
  readonly reports: readonly Incident[];
}

/** Name that {@linkcode ExplainedStep} has between transitions. */
export const BETWEEN = "(the vCPU runs)";
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
export function stepsOf(side: Pick<RunSide, "log" | "vcpu">, vmcb12: number): ExplainedStep[] {
  const { log, vcpu } = side;
  const steps: ExplainedStep[] = [];
  let before: StateCopy | undefined;
  log.transitions.forEach((transition, index) => {
    const v = log.start(vcpu, index);
    const start = new StateCopy(v, vmcb12);
    if (before !== undefined) addBetween(steps, before, start);
    before = repeat(v, transition.way, vmcb12, start, steps);
  });
  if (before !== undefined) {
    addBetween(steps, before, new StateCopy(vcpu.fork(vcpu.policy), vmcb12));
  }
  return steps;
}

/** Repeats a transition and adds its steps; gives the state at its end. */
function repeat(
  v: Vcpu,
  way: Way,
  vmcb12: number,
  start: StateCopy,
  steps: ExplainedStep[],
): StateCopy {
  let view = start;
  let running: {
    readonly step: Step;
    readonly way: Way;
    readonly depth: number;
    readonly reports: Incident[];
  } | undefined;
  const ways: Way[] = [way];
  const settle = () => {
    const now = new StateCopy(v, vmcb12);
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

function addBetween(steps: ExplainedStep[], before: StateCopy, after: StateCopy): void {
  const changes = changesOf(before, after, undefined);
  if (changes.length === 0) return;
  const doc = "Requests, event injection, the guest itself and its exits, up to here";
  steps.push({ name: BETWEEN, doc, way: "", depth: 0, changes, reports: [] });
}

/** Copies of all parts of a vCPU's state. */
class StateCopy {
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

function changesOf(before: StateCopy, after: StateCopy, step: Step | undefined): StateChange[] {
  return AREAS.flatMap((area, i) => {
    const from = before.images[i] as Image, to = after.images[i] as Image;
    const pairs: (readonly [Image, Image])[] = [];
    if (area.name !== "vmcb12") pairs.push([from, to]);
    else {
      // Mapping fills the work area, and unmapping copies it to where it came from: no news.
      if (step !== undefined && step.maps !== true) pairs.push([before.work, after.work]);
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
