/**
 * Which events of a trace are wanted: by kind, vCPU, scenario, exit, check, time, and conditions on
 * field values.
 *
 * @module
 */
import { EVENTS, type TraceEvent } from "../engine/event.ts";
import { compileCondition, ConditionError, type Matcher } from "../engine/query/mod.ts";
import type { Option, Values } from "./command.ts";
import { UsageError } from "./errors.ts";

/** The options that choose events. */
export const EVENT_FILTER = [
  {
    name: "kind",
    kind: "list",
    choices: EVENTS.map((row) => row.kind),
    doc: "Only events of these kinds",
  },
  { name: "vcpu", kind: "number", value: "N", doc: "Only events of this vCPU" },
  { name: "case", kind: "text", value: "NAME", doc: "Only scenarios whose name contains this" },
  { name: "exit", kind: "text", value: "CODE", doc: "Only exits of this code, such as NPF" },
  { name: "check", kind: "text", value: "ID", doc: "Only failures of this check" },
  { name: "since", kind: "number", value: "NS", doc: "Only events from this time on" },
  { name: "until", kind: "number", value: "NS", doc: "Only events before this time" },
  {
    name: "where",
    short: "w",
    kind: "text",
    value: "CONDITION",
    doc: "Only events that meet a condition, such as 'control.exit_code==NPF && save.rip>=0x8000'",
  },
] as const satisfies readonly Option[];

type FilterOptions = Values<typeof EVENT_FILTER>;

function compiled(text: string, option: string): Matcher {
  try {
    return compileCondition(text);
  } catch (error) {
    if (!(error instanceof ConditionError)) throw error;
    throw new UsageError(`Option --${option}: ${error.message}`);
  }
}

function quoted(text: string): string {
  return `"${text.replaceAll(/["\\]/g, "\\$&")}"`;
}

/** Chooses events as options say; an event is chosen only when it certainly meets all of them. */
export class EventFilter {
  readonly #matchers: readonly Matcher[];
  readonly #kinds: ReadonlySet<string>;
  readonly #options: FilterOptions;
  #inCase: boolean;
  #unsettled = 0;

  /**
   * Makes options ready.
   *
   * @param options Their values.
   * @throws {UsageError} When a condition cannot be understood.
   */
  constructor(options: FilterOptions) {
    const { exit, check, where } = options;
    this.#options = options;
    this.#kinds = new Set(options.kind);
    this.#inCase = options.case === undefined;
    this.#matchers = [
      ...(exit === undefined ? [] : [exitMatcher(exit)]),
      ...(check === undefined ? [] : [compiled(`check==${quoted(check)}`, "check")]),
      ...(where === undefined ? [] : [compiled(where, "where")]),
    ];
  }

  /** Events of which what was recorded does not tell whether they meet the conditions. */
  get unsettled(): number {
    return this.#unsettled;
  }

  /** Whether an event is wanted. */
  wants(event: TraceEvent, number: number): boolean {
    const { vcpu, since, until, case: name } = this.#options;
    if (name !== undefined && event.kind === "case") {
      this.#inCase = (event.name ?? "").includes(name);
    } else if (name !== undefined && event.kind === "session") this.#inCase = false;
    if (!this.#inCase) return false;
    if (this.#kinds.size > 0 && !this.#kinds.has(event.kind)) return false;
    if (vcpu !== undefined && event.vcpu !== vcpu) return false;
    if (since !== undefined && !(event.time !== undefined && event.time >= since)) return false;
    if (until !== undefined && !(event.time !== undefined && event.time < until)) return false;
    for (const matches of this.#matchers) {
      const truth = matches(event, number);
      if (truth === undefined) this.#unsettled++;
      if (truth !== true) return false;
    }
    return true;
  }
}

/** Exits that L2 made and those that L1 received. */
function exitMatcher(code: string): Matcher {
  const own = compiled(`kind==l2exit && exit_code==${quoted(code)}`, "exit");
  const received = compiled(
    `(kind==exit || kind==regs) && vmcb12.control.exit_code==${quoted(code)}`,
    "exit",
  );
  return (event, number) => event.kind === "l2exit" ? own(event, number) : received(event, number);
}
