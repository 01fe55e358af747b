/**
 * A trace as slices and instants for Perfetto: a track for each vCPU with VMRUN, L2 and #VMEXIT as
 * slices. A row is one of the Trace Event Format.
 *
 * @module
 */
import type { EventOf, Image, TraceEvent } from "../../engine/event.ts";
import { fieldNamed, readField } from "../../engine/image/fields.ts";
import { formatValue } from "../../engine/image/format.ts";
import { exitCodeName, shortExitName } from "../../engine/svm/exit_codes.ts";
import { VMCB_LAYOUT } from "../../engine/svm/vmcb_fields.ts";

/** One row of the Trace Event Format. */
export interface PerfettoEvent {
  /** Name of the slice or instant. */
  readonly name: string;
  /** `X` a slice with its duration, `i` an instant, `M` metadata. */
  readonly ph: "X" | "i" | "M";
  /** Process: 1, the recording. */
  readonly pid: number;
  /** Thread: two for each vCPU, one for its scenarios and one for what it does. */
  readonly tid: number;
  /** Microseconds. */
  readonly ts: number;
  /** Microseconds; of slices. */
  readonly dur?: number;
  /** Scope of an instant: its thread. */
  readonly s?: "t";
  /** What it belongs to. */
  readonly cat?: string;
  /** Its fields. */
  readonly args?: Readonly<Record<string, string | number>>;
}

/** Fields of vmcb12 that tell most about a transition. */
const TOLD = [
  "control.exit_code",
  "control.exit_info_1",
  "control.exit_info_2",
  "control.event_inj",
  "control.int_ctl",
  "control.asid",
  "control.nested_ctl",
  "control.nested_cr3",
  "control.msrpm_base_pa",
  "save.efer",
  "save.cr0",
  "save.cr3",
  "save.cr4",
  "save.rip",
  "save.rflags",
].map((name) => fieldNamed(VMCB_LAYOUT, name));

/** Tracks of notes are behind those of all vCPUs. */
const NOTES_TID = 1 << 20;

/** Texts to stand at events, by the number of the event. */
export type PerfettoNotes = ReadonlyMap<number, readonly string[]>;

/** Kinds of events that begin something else: what was before them ended at an unknown time. */
const BEGINS: ReadonlySet<TraceEvent["kind"]> = new Set(["session", "case", "vmrun", "setstate"]);

const PID = 1;
/** What one event takes on a clock of their own, in microseconds. */
const EVENT_US = 1;

type Args = Record<string, string | number>;

interface Mark {
  readonly name: string;
  readonly ts: number;
  readonly args: Args;
}

/** A nested run under way on a vCPU. */
interface Run {
  readonly begin: Mark;
  /** L2 was entered, or the entry failed. */
  entered: number | undefined;
  failed: boolean;
  /** L2 stopped. */
  stopped: Mark | undefined;
  /** L1 goes on. */
  exit: Mark | undefined;
  last: number;
}

interface Track {
  readonly tid: number;
  run: Run | undefined;
  scenario: Mark | undefined;
  last: number;
}

/**
 * Turns events into rows, one vCPU's runs after another.
 *
 * @example
 * ```ts
 * import { PerfettoExport } from "@vmtape/vmtape/codecs";
 * const rows = new PerfettoExport();
 * const names = [...rows.feed({ kind: "case", vcpu: 0, name: "first", time: 5000 })].map((row) => row.name);
 * const [slice] = rows.finish();
 * if (names.join() !== "process_name,thread_name,thread_name") throw new Error(names.join());
 * if (slice?.name !== "first" || slice.ts !== 5) throw new Error();
 * ```
 */
export class PerfettoExport {
  readonly #vcpus = new Map<number, Track>();
  readonly #notes: PerfettoNotes;
  readonly #noted = new Set<number>();
  #index = 0;
  #clock: "recorded" | "none" | undefined;

  /**
   * Begins before the trace's first event.
   *
   * @param notes What to say of events, on a track of its own for each vCPU.
   */
  constructor(notes: PerfettoNotes = new Map()) {
    this.#notes = notes;
  }

  /** What times stand for; known after the first event. */
  get clock(): string {
    return this.#clock === "recorded"
      ? "the recording's own, in microseconds"
      : "none: the recording has no times, and each event takes a microsecond";
  }

  /**
   * Takes the next event of the trace.
   *
   * @param event The event; its images need to be valid only during the call.
   * @returns Rows that are complete now.
   */
  *feed(event: TraceEvent): Generator<PerfettoEvent> {
    let vcpu = this.#vcpus.get(event.vcpu);
    const ts = this.#time(event, vcpu?.last ?? 0);
    const index = this.#index++;
    if (vcpu === undefined) {
      vcpu = { tid: 2 * event.vcpu + 2, run: undefined, scenario: undefined, last: ts };
      this.#vcpus.set(event.vcpu, vcpu);
      if (this.#vcpus.size === 1) yield meta("process_name", 0, "vmtape");
      yield meta("thread_name", vcpu.tid - 1, `vCPU ${event.vcpu} scenarios`);
      yield meta("thread_name", vcpu.tid, `vCPU ${event.vcpu}`);
    }
    vcpu.last = ts;
    const args = argsOf(event, index);
    for (const note of this.#notes.get(index) ?? []) {
      const tid = NOTES_TID + event.vcpu;
      if (!this.#noted.has(tid)) yield meta("thread_name", tid, `vCPU ${event.vcpu} findings`);
      this.#noted.add(tid);
      yield {
        name: note,
        ph: "i",
        s: "t",
        cat: "finding",
        pid: PID,
        tid,
        ts,
        args: { event: index },
      };
    }
    const { run } = vcpu;
    if (run !== undefined && !BEGINS.has(event.kind)) run.last = ts;
    switch (event.kind) {
      case "session":
        yield* this.#end(vcpu, ts);
        yield* endScenario(vcpu, ts);
        yield instant("session", "session", vcpu, ts, args);
        break;
      case "case":
        yield* this.#end(vcpu, ts);
        yield* endScenario(vcpu, ts);
        vcpu.scenario = { name: event.name || "scenario", ts, args };
        break;
      case "vmrun":
      case "setstate": {
        yield* this.#end(vcpu, ts);
        const name = event.kind === "vmrun" ? "VMRUN" : "KVM_SET_NESTED_STATE";
        const begin = { name, ts, args };
        vcpu.run = {
          begin,
          entered: undefined,
          failed: false,
          stopped: undefined,
          exit: undefined,
          last: ts,
        };
        break;
      }
      case "check":
        if (run !== undefined) run.failed = true;
        yield instant(`check failed: ${event.check ?? event.text ?? "?"}`, "check", vcpu, ts, args);
        break;
      case "warn":
        yield instant(`assertion: ${event.text ?? "?"}`, "warn", vcpu, ts, args);
        break;
      case "inner":
        if (run !== undefined && event.at === "vmexit") run.stopped ??= { name: "", ts, args };
        else if (run !== undefined) run.entered ??= ts;
        break;
      case "l2exit":
        if (run === undefined) yield instant(l2exitName(event), "exit", vcpu, ts, args);
        else {
          // L2 went on after the one before: L0 handled that itself.
          if (run.stopped !== undefined && run.stopped.name !== "") {
            yield handled(run.stopped, vcpu);
          }
          run.stopped = { name: l2exitName(event), ts, args };
        }
        break;
      case "exit":
        if (run === undefined) yield instant("#VMEXIT", "exit", vcpu, ts, args);
        else {
          run.exit = { name: "#VMEXIT", ts, args };
          yield* this.#end(vcpu, ts);
        }
        break;
      case "regs":
      case "memory":
        break;
      default:
        yield instant(nameOf(event), event.kind, vcpu, ts, args);
    }
  }

  /**
   * Ends the trace.
   *
   * @returns The rows that were still open.
   */
  *finish(): Generator<PerfettoEvent> {
    for (const vcpu of this.#vcpus.values()) {
      yield* this.#end(vcpu, vcpu.last);
      yield* endScenario(vcpu, vcpu.last);
    }
  }

  /** Times of a vCPU never go back, whatever clocks do, so that slices lie within each other. */
  #time(event: TraceEvent, last: number): number {
    this.#clock ??= event.time === undefined ? "none" : "recorded";
    if (this.#clock === "none") return this.#index * EVENT_US;
    return Math.max(last, event.time === undefined ? last : event.time / 1000);
  }

  *#end(vcpu: Track, ts: number): Generator<PerfettoEvent> {
    const { run, tid } = vcpu;
    if (run === undefined) return;
    vcpu.run = undefined;
    const { begin, failed, stopped, exit } = run;
    const end = Math.max(begin.ts, exit === undefined ? Math.min(run.last, ts) : exit.ts);
    // Without a mark of its own the entry is what begins the run: L2's time is up to its last exit.
    const entered = Math.min(run.entered ?? begin.ts, end);
    yield slice("nested run", "run", tid, begin.ts, end, {});
    const afterEntry = failed && run.entered === undefined ? end : entered;
    yield slice(begin.name, "vmrun", tid, begin.ts, afterEntry, begin.args);
    if (failed) return;
    // A recording of the machine's state has no #VMEXIT's own event, but the state before it.
    const leaves = exit !== undefined || stopped?.name === "";
    const stop = leaves ? stopped?.ts ?? exit?.ts : undefined;
    const left = Math.max(afterEntry, Math.min(stop ?? end, end));
    yield slice("L2", "l2", tid, afterEntry, left, {});
    if (!leaves) {
      if (stopped !== undefined) yield handled(stopped, vcpu);
      return;
    }
    const args = { ...stopped?.args, ...exit?.args };
    const code = args["control.exit_code"] ?? args["exit_code"];
    yield slice(code === undefined ? "#VMEXIT" : `#VMEXIT ${code}`, "vmexit", tid, left, end, args);
  }
}

/** Arguments, where there are any: a file has many rows. */
function shown(args: Args): { args?: Args } {
  return Object.keys(args).length === 0 ? {} : { args };
}

/** Microseconds to the nanosecond: a difference of two has digits that mean nothing. */
function rounded(us: number): number {
  return Math.round(us * 1000) / 1000;
}

function meta(name: string, tid: number, value: string): PerfettoEvent {
  return { name, ph: "M", pid: PID, tid, ts: 0, args: { name: value } };
}

function instant(name: string, cat: string, vcpu: Track, ts: number, args: Args): PerfettoEvent {
  return { name, ph: "i", s: "t", cat, pid: PID, tid: vcpu.tid, ts, ...shown(args) };
}

/** An exit of L2 that L0 handled: L1 saw none. */
function handled({ name, ts, args }: Mark, vcpu: Track): PerfettoEvent {
  return instant(name, "l0", vcpu, ts, args);
}

/** `L2 exit` and what it was. */
function l2exitName(event: EventOf<"l2exit">): string {
  const { exit_code: code } = event;
  if (code === undefined) return "L2 exit";
  return `L2 exit ${exitName(code)}`;
}

const EXIT_CODE = fieldNamed(VMCB_LAYOUT, "control.exit_code");

/** An exit code by name, where it has one. */
function exitName(code: bigint): string {
  return shortExitName(EXIT_CODE.values?.[Number(code & 0xffff_ffffn)] ?? exitCodeName(code));
}

function slice(
  name: string,
  cat: string,
  tid: number,
  from: number,
  to: number,
  args: Args,
): PerfettoEvent {
  return { name, ph: "X", cat, pid: PID, tid, ts: from, dur: rounded(to - from), ...shown(args) };
}

function* endScenario(vcpu: Track, ts: number): Generator<PerfettoEvent> {
  const { scenario } = vcpu;
  if (scenario === undefined) return;
  vcpu.scenario = undefined;
  yield slice(scenario.name, "scenario", vcpu.tid - 1, scenario.ts, ts, scenario.args);
}

function nameOf(event: TraceEvent): string {
  switch (event.kind) {
    case "inject":
      return `inject ${event.what ?? "?"}`;
    case "tracepoint":
      return event.name ?? "tracepoint";
    default:
      return event.kind;
  }
}

function argsOf(event: TraceEvent, index: number): Args {
  const args: Args = { event: index };
  for (const [name, value] of Object.entries(event)) {
    if (name === "kind" || name === "vcpu" || name === "time") continue;
    // What is 0 says little, in every row of a file.
    if (value === 0n && name !== "vmcb12_gpa") continue;
    if (typeof value === "bigint") args[name] = `0x${value.toString(16)}`;
    else if (value === 0 || value === "") continue;
    else if (typeof value === "number" || typeof value === "string") args[name] = value;
    else if (name === "vmcb12") addImage(args, value as Image);
    else if (name === "meta") args[name] = JSON.stringify(value, plain);
  }
  return args;
}

function plain(_key: string, value: unknown): unknown {
  return typeof value === "bigint" ? `0x${value.toString(16)}` : value;
}

function addImage(args: Args, image: Image): void {
  for (const field of TOLD) {
    const value = readField(image, field);
    if (value.known !== 0n) args[field.name] = formatValue(field, value);
  }
}
