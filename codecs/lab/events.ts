/**
 * The lab's records, to and from trace events. Nothing of a record is lost:
 * what a kernel reported becomes check, inner, warn and tracepoint events in
 * its order, what userspace saw becomes regs events.
 *
 * @module
 */
import type { EventOf, TraceEvent } from "../../engine/event.ts";
import { checkByText } from "../../engine/checks/sets.ts";
import { exitCodeNamed } from "../../engine/svm/exit_codes.ts";
import { REGS_FIELDS, REGS_LAYOUT } from "../../engine/svm/regs_layout.ts";
import { offsets } from "../../engine/layout.ts";
import {
  CPU_KEYS,
  INNER_KEYS,
  MIGRATE_KEYS,
  NESTED_KEYS,
  PHASES,
  RECORD_KEYS,
  RESTORE_ERRNO_KEYS,
  SAVE_ERRNO_KEYS,
  STATE_VALUE_KEYS,
  STATE_WORD_KEYS,
} from "./keys.ts";
import { sourceOf } from "./record.ts";
import {
  type LabEvent,
  type LabInner,
  type LabMigrate,
  type LabRecord,
  LabRecordError,
  type LabState,
  type Phase,
} from "./types.ts";
import {
  bookkeepingOf,
  innerImage,
  regsImage,
  stateOf,
  vmcbAreas,
  vmcbImage,
  wordsImage,
  wordsOf,
} from "./views.ts";

/** Bytes of the SMRAM state save area. */
const SMRAM_SIZE = 512;
const PAGE_SIZE = 4096;

/** A phase event that holds nothing but the record's `warnings`. */
export const CONSOLE = "console";

/** What an event has a place of its own for: not `setup_errors`, and not `partial`. */
const PLACED_STATE_KEYS: ReadonlySet<string> = new Set([...STATE_VALUE_KEYS, ...STATE_WORD_KEYS]);
const PLACED_KEYS: ReadonlySet<string> = new Set(RECORD_KEYS.filter((key) => key !== "partial"));
const PLACED_INNER_KEYS: ReadonlySet<string> = new Set(INNER_KEYS);

/**
 * What userspace saw at one point, as an event.
 *
 * @param phase The point.
 * @param state What it saw. Fields that the event has no place for go into `extra`.
 * @returns The event.
 * @throws {RangeError} When a number does not fit its field.
 * @example
 * ```ts
 * import { regsState, regsEvent } from "@vmtape/vmtape/codecs";
 * const event = regsEvent("post", { rip: "8003", rc: 0, exit: 2, port: "80" });
 * if (event.port !== 0x80 || regsState(event).rip !== "8003") throw new Error();
 * ```
 */
export function regsEvent(phase: Phase, state: LabState): EventOf<"regs"> {
  const { suberr } = state;
  const more = rest(state, PLACED_STATE_KEYS);
  const extra = suberr === undefined ? more : { suberr, ...more };
  const { rc, errno, exit, port, vmcb12, hsave, smram } = state;
  return {
    kind: "regs",
    vcpu: 0,
    phase,
    ...present({ rc, errno, exit }),
    ...(port === undefined ? {} : { port: small(port) }),
    regs: regsImage(state),
    ...(vmcb12 ? { vmcb12: wordsImage(vmcb12, PAGE_SIZE) } : {}),
    ...(hsave ? { hsave: wordsImage(hsave, PAGE_SIZE) } : {}),
    ...(smram ? { smram: wordsImage(smram, SMRAM_SIZE) } : {}),
    ...(extra ? { extra } : {}),
  };
}

/**
 * What a regs event says, as the lab prints it.
 *
 * @param event The event.
 * @returns The state.
 * @example
 * ```ts
 * import { regsState, regsEvent } from "@vmtape/vmtape/codecs";
 * if (regsState(regsEvent("mid", { gif: 1, rc: -1, errno: 4 })).rc !== -1) throw new Error();
 * ```
 */
export function regsState(event: EventOf<"regs">): LabState {
  const { rc, errno, exit, port, regs, vmcb12, hsave, smram, extra } = event;
  const { suberr, ...more } = extra ?? {};
  return {
    ...(regs ? stateOf(regs) : {}),
    ...present({ rc, errno, exit }),
    ...(suberr === undefined ? {} : { suberr } as LabState),
    ...(port === undefined ? {} : { port: port.toString(16) }),
    ...(vmcb12 ? { vmcb12: wordsOf(vmcb12.bytes) } : {}),
    ...(hsave ? { hsave: wordsOf(hsave.bytes) } : {}),
    ...(smram ? { smram: wordsOf(smram.bytes) } : {}),
    ...more,
  };
}

/**
 * One thing a kernel reported, as events. A tracepoint that tells why L2
 * stopped gives an l2exit event before its own.
 *
 * @param event As in a record's `events`.
 * @returns The events.
 * @throws {RangeError} When a number does not fit its field, or a field has no place in an event.
 * @example
 * ```ts
 * import { outcomeEvents } from "@vmtape/vmtape/codecs";
 * const [check] = outcomeEvents({ check_failed: "control->asid == 0" });
 * if (check?.kind !== "check" || check.text !== "control->asid == 0") throw new Error();
 * ```
 */
export function outcomeEvents(event: LabEvent): TraceEvent[] {
  if ("check_failed" in event) {
    onlyKeys(event, ["check_failed"]);
    const check = checkByText(event.check_failed)?.id;
    return [{
      kind: "check",
      vcpu: 0,
      ...(check === undefined ? {} : { check }),
      text: event.check_failed,
    }];
  }
  if ("warn" in event) {
    onlyKeys(event, ["warn"]);
    return [{ kind: "warn", vcpu: 0, text: event.warn }];
  }
  if ("unmodelled" in event) {
    onlyKeys(event, ["unmodelled"]);
    return [{ kind: "unmodelled", vcpu: 0, what: event.unmodelled }];
  }
  if ("tracepoint" in event) {
    onlyKeys(event, ["tracepoint", "text"]);
    const { tracepoint: name, text } = event;
    const stop = name === "kvm_nested_vmexit"
      ? l2Exit(VMEXIT.exec(text))
      : name === "kvm_nested_vmexit_inject"
      ? l2Exit(NESTED_FAULT.exec(text))
      : undefined;
    return [...(stop ? [stop] : []), { kind: "tracepoint", vcpu: 0, name, text }];
  }
  const lost = rest(event, PLACED_INNER_KEYS) ?? rest(event.nested, new Set(NESTED_KEYS)) ??
    rest(event.cpu ?? {}, new Set(CPU_KEYS));
  if (lost) throw new RangeError(`An inner state has no place for "${Object.keys(lost)[0]}"`);
  const { at, ctl01, sav01, ctl02, sav02 } = event;
  const vmcb01 = vmcbImage(ctl01, sav01);
  const vmcb02 = vmcbImage(ctl02, sav02);
  return [{
    kind: "inner",
    vcpu: 0,
    at,
    inner: innerImage(event),
    ...(vmcb01 ? { vmcb01 } : {}),
    ...(vmcb02 ? { vmcb02 } : {}),
  }];
}

const VMEXIT =
  /^vcpu \d+ reason (\S+) rip 0x([0-9a-f]+) info1 0x([0-9a-f]+) info2 0x([0-9a-f]+) intr_info 0x([0-9a-f]+) error_code 0x([0-9a-f]+)/;
/** The lab leaves out why L2 stopped when it was a nested page fault; what L1 gets tells. */
const NESTED_FAULT =
  /^reason: (npf)()? ext_inf1: 0x([0-9a-f]+) ext_inf2: 0x([0-9a-f]+) ext_int: 0x([0-9a-f]+) ext_int_err: 0x([0-9a-f]+)/;
const RIP_AT = offsets(REGS_FIELDS).rip;

/** The exit that a tracepoint tells of, when its text is understood. */
function l2Exit(match: RegExpExecArray | null): EventOf<"l2exit"> | undefined {
  if (!match) return undefined;
  const [, reason, rip, info1, info2, event, error] = match;
  const code = exitCodeNamed(reason!) ??
    (/^0x[0-9a-f]+$/.test(reason!) ? BigInt(reason!) : undefined);
  if (code === undefined) return undefined;
  const exit = {
    kind: "l2exit",
    vcpu: 0,
    exit_code: code,
    exit_info_1: BigInt(`0x${info1}`),
    exit_info_2: BigInt(`0x${info2}`),
    exit_int_info: parseInt(event!, 16),
    exit_int_info_err: parseInt(error!, 16),
  } as const;
  if (rip === undefined) return exit;
  const bytes = new Uint8Array(REGS_LAYOUT.size);
  const known = new Uint8Array(REGS_LAYOUT.size);
  new DataView(bytes.buffer).setBigUint64(RIP_AT, BigInt(`0x${rip}`), true);
  known.fill(0xff, RIP_AT, RIP_AT + 8);
  return { ...exit, regs: { bytes, known } };
}

/**
 * The lab's form of what an event reports.
 *
 * @param event Any event.
 * @returns One of a record's `events`; `undefined` for kinds that are none of them.
 * @example
 * ```ts
 * import { labEvent } from "@vmtape/vmtape/codecs";
 * const event = labEvent({ kind: "warn", vcpu: 0, text: "mmu_is_nested(vcpu)" });
 * if (JSON.stringify(event) !== '{"warn":"mmu_is_nested(vcpu)"}') throw new Error();
 * ```
 */
export function labEvent(event: TraceEvent): LabEvent | undefined {
  switch (event.kind) {
    case "check":
      return { check_failed: event.text ?? "" };
    case "warn":
      return { warn: event.text ?? "" };
    case "unmodelled":
      return { unmodelled: event.what ?? "" };
    case "tracepoint":
      return { tracepoint: event.name ?? "", text: event.text ?? "" };
    case "inner": {
      const { at, inner, vmcb01, vmcb02 } = event;
      const one = vmcb01 ? vmcbAreas(vmcb01) : {};
      const two = vmcb02 ? vmcbAreas(vmcb02) : {};
      const maps = { ctl01: one.control, sav01: one.save, ctl02: two.control, sav02: two.save };
      const out: LabInner = {
        at: at ?? "",
        ...(inner ? bookkeepingOf(inner) : { nested: {} }),
        ...present(maps),
      };
      return out;
    }
  }
  return undefined;
}

/** A record as events, apart from the inputs that only its spec tells. */
export interface LabOutcome {
  /** The `case` event. */
  readonly mark: EventOf<"case">;
  /** What userspace saw, by phase. */
  readonly states: Readonly<Partial<Record<Phase, EventOf<"regs">>>>;
  /** What the kernel reported: one list of events for each of the record's. */
  readonly reports: readonly (readonly TraceEvent[])[];
  /** What the console said besides, if anything: an event to put last. */
  readonly console: EventOf<"regs"> | undefined;
}

/**
 * The events that hold a record.
 *
 * @param record The record.
 * @returns Its parts, to be put in order.
 * @throws {LabRecordError} When it holds something that an event has no place for.
 * @example
 * ```ts
 * import { labOutcome } from "@vmtape/vmtape/codecs";
 * const { mark } = labOutcome({ case: "ok", spec: "", kernel: "unified", npt: 1, events: [] });
 * if (mark.name !== "ok") throw new Error();
 * ```
 */
export function labOutcome(record: LabRecord): LabOutcome {
  let field = "";
  try {
    const states: Partial<Record<Phase, EventOf<"regs">>> = {};
    for (const phase of PHASES) {
      field = phase;
      const state = record[phase];
      if (state) states[phase] = regsEvent(phase, state);
    }
    const reports = record.events.map((event, i) => {
      field = `events[${i}]`;
      return outcomeEvents(event);
    });
    const { warnings } = record;
    const more = rest(record, PLACED_KEYS);
    const extra = { ...(warnings ? { warnings } : {}), ...more };
    return {
      mark: { kind: "case", vcpu: 0, name: record.case, spec: record.spec },
      states,
      reports,
      console: warnings || more ? { kind: "regs", vcpu: 0, phase: CONSOLE, extra } : undefined,
    };
  } catch (cause) {
    if (!(cause instanceof RangeError) && !(cause instanceof SyntaxError)) throw cause;
    const where = { ...(sourceOf(record) ?? { line: 1 }), field };
    throw new LabRecordError(`Field ${field}: ${cause.message}`, where, { cause });
  }
}

/** What an event of a migration says, as the lab prints it. */
export function migration(event: EventOf<"save"> | EventOf<"restore">): LabMigrate {
  if (event.kind === "save") {
    const { errno, sregs_errno } = event;
    return present({
      [SAVE_ERRNO_KEYS.errno]: errno,
      [SAVE_ERRNO_KEYS.sregs_errno]: sregs_errno,
    });
  }
  const { flags } = event;
  // Outside guest mode nothing is handed in but what was changed on the way.
  const state = event.state ?? event.changed;
  return {
    ...present({ flags: flags?.toString(16) }),
    ...present(Object.fromEntries(RESTORE_ERRNO_KEYS.map((key) => [key, event[key]]))),
    ...(flags === undefined ? {} : { state: state ? wordsOf(state.bytes) : {} }),
  };
}

/**
 * The fields of the events that tell of a migration.
 *
 * @param migrate What the lab printed of it.
 * @returns Those of the `save` event, and of the `restore` event.
 * @throws {RangeError} When there is no place for something.
 * @example
 * ```ts
 * import { migrationFields } from "@vmtape/vmtape/codecs";
 * const { save, restore } = migrationFields({ get_errno: 0, errno: 22, flags: "101", state: {} });
 * if (save.errno !== 0 || restore.errno !== 22 || restore.flags !== 0x101) throw new Error();
 * ```
 */
export function migrationFields(
  migrate: LabMigrate,
): { readonly save: Partial<EventOf<"save">>; readonly restore: Partial<EventOf<"restore">> } {
  onlyKeys(migrate, MIGRATE_KEYS);
  const { get_errno, get_sregs_errno, flags, state } = migrate;
  const guestMode = flags !== undefined && (parseInt(flags, 16) & 1) !== 0;
  return {
    save: present({ errno: get_errno, sregs_errno: get_sregs_errno }),
    restore: {
      ...present(Object.fromEntries(RESTORE_ERRNO_KEYS.map((key) => [key, migrate[key]]))),
      ...(flags === undefined ? {} : { flags: parseInt(flags, 16) }),
      ...(guestMode && state ? { state: wordsImage(state, PAGE_SIZE) } : {}),
    },
  };
}

/** What remains of an object without the given keys, if anything. */
function rest(map: object, keys: ReadonlySet<string>): Record<string, unknown> | undefined {
  const left = Object.entries(map).filter(([key, value]) => !keys.has(key) && value !== undefined);
  return left.length > 0 ? Object.fromEntries(left) : undefined;
}

function onlyKeys(map: object, keys: readonly string[]): void {
  const lost = rest(map, new Set(keys));
  if (lost) throw new RangeError(`A ${keys[0]} event has no place for "${Object.keys(lost)[0]}"`);
}

/** Without the properties that are undefined. */
function present<T extends object>(map: T): { [K in keyof T]?: Exclude<T[K], undefined> } {
  return Object.fromEntries(Object.entries(map).filter(([, value]) => value !== undefined)) as {
    [K in keyof T]?: Exclude<T[K], undefined>;
  };
}

function small(hex: string): number {
  const value = parseInt(hex, 16);
  if (value > 0xffffffff) throw new RangeError(`${hex} is not a port`);
  return value;
}
