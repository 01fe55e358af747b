/**
 * The lab's recordings as traces: the inputs that a case's spec tells, in
 * order with what the kernel reported, so that a trace can be replayed alone.
 *
 * @module
 */
import type { EventOf, Image, TraceEvent } from "../../engine/event.ts";
import { overlayImage } from "../../engine/image/fields.ts";
import { offsets } from "../../engine/layout.ts";
import { GuestMemory } from "../../engine/svm/memory.ts";
import { REGS_FIELDS, REGS_LAYOUT } from "../../engine/svm/regs_layout.ts";
import { SAVE_AREA, SAVE_FIELDS, VMCB_SIZE } from "../../engine/svm/vmcb_fields.ts";
import { labOutcome } from "../../codecs/lab/events.ts";
import {
  type LabRecord,
  LabRecordError,
  type LabState,
  sourceOf,
} from "../../codecs/lab/record.ts";
import { regsImage } from "../../codecs/lab/views.ts";
import {
  baseSegments,
  FRESH_BELOW,
  HSAVE_GPA,
  L1_CODE,
  L1_RSP,
  MEMORY_SIZE,
  SMRAM_GPA,
  VMCB12_GPA,
} from "./base.ts";
import {
  bytesOf,
  type LateChange,
  parseScenario,
  type Scenario,
  ScenarioError,
  setUpMemory,
} from "./scenario.ts";

/** What the emulated processor under the lab's kernels can do, for a session's `meta`. */
export const LAB_CAPABILITIES = {
  physical_bits: 40,
  memory: MEMORY_SIZE,
  // The lab zeroes it before each case, and so has it all allocated.
  resident: FRESH_BELOW,
} as const;

/** Guest physical addresses of the pages that the lab's records show. */
const SHOWN = { vmcb12: VMCB12_GPA, hsave: HSAVE_GPA, smram: SMRAM_GPA } as const;
/** The VMRUN instruction's length in bytes. */
const VMRUN_LENGTH = 3;
/** KVM_STATE_NESTED_GUEST_MODE. */
const NESTED_GUEST_MODE = 1;
/** KVM_STATE_NESTED_GIF_SET. */
const NESTED_GIF_SET = 0x100;

/**
 * Turns the lab's records into a trace.
 *
 * A record begins a session unless its case says `keepvm`. Then come the case's
 * memory, what was injected, L1's state, VMRUN or KVM_SET_NESTED_STATE, and the
 * record's reports and states in the order in which they happened.
 *
 * @param records The records in order.
 * @returns The events in order.
 * @throws {LabRecordError} When a record's spec is not understood, or it holds what an event cannot.
 * @example
 * ```ts
 * import { importLab } from "@vmtape/vmtape";
 * const record = { case: "ok", spec: "gif=0", kernel: "unified", npt: 1, events: [] };
 * const kinds = new Set();
 * for await (const event of importLab([record])) kinds.add(event.kind);
 * if ([...kinds].join() !== "session,case,memory,vmrun") throw new Error([...kinds].join());
 * ```
 */
export async function* importLab(
  records: Iterable<LabRecord> | AsyncIterable<LabRecord>,
): AsyncGenerator<TraceEvent> {
  const importer = new LabImporter();
  for await (const record of records) yield* importer.events(record);
}

/** Turns one record after another into events; see {@linkcode importLab}. */
class LabImporter {
  #session = "";
  #memory = new GuestMemory(MEMORY_SIZE);

  *events(record: LabRecord): Generator<TraceEvent> {
    const scenario = readSpec(record);
    const { mark, states, reports, console } = labOutcome(record);
    const session = `${record.kernel}/${record.npt}`;
    const begins = !scenario.keepvm || session !== this.#session;
    if (begins) {
      this.#session = session;
      const { kernel, npt, sees } = record;
      yield {
        kind: "session",
        vcpu: 0,
        meta: {
          ...{ source: "lab", kernel, npt, capabilities: LAB_CAPABILITIES, shows: SHOWN },
          ...(sees ? { sees } : {}),
        },
      };
    }
    yield mark;
    yield* this.#setUp(scenario, begins);
    if (scenario.nmi) yield { kind: "inject", vcpu: 0, what: "nmi" };
    if (scenario.irq) yield { kind: "inject", vcpu: 0, what: "irq", vector: scenario.irq >>> 0 };
    if (states.pre) yield states.pre;
    if (scenario.entry === "setstate") {
      yield this.#setState(scenario, record, begins, states.pre?.vmcb12);
    } else yield this.#vmrun(scenario, record.pre, begins);

    const { mid, smi, smm, runs } = timeline(record);
    const inHandler = record.smm?.smm === 1;
    for (let i = 0; i <= reports.length; i++) {
      if (i === mid && states.mid) yield states.mid;
      if (i === smi && states.mid) yield { kind: "inject", vcpu: 0, what: "smi" };
      if (i === smm && states.smm) {
        const smram = states.smm.smram;
        if (inHandler) yield { kind: "smi", vcpu: 0, ...(smram ? { smram } : {}) };
        yield states.smm;
        for (const event of lateMemory(scenario.late)) yield event;
        if (inHandler) yield rsm(scenario.late, smram);
      }
      if (runs.has(i)) {
        yield { kind: "vmrun", vcpu: 0, rip: scenario.l1.rip + BigInt(VMRUN_LENGTH) };
      }
      yield* reports[i] ?? [];
    }
    if (states.post) yield states.post;
    if (console) yield console;
  }

  /** The pages that setting up sets: those not zero in a new machine, else all of them below the fresh limit. */
  *#setUp(scenario: Scenario, begins: boolean): Generator<TraceEvent> {
    if (begins) this.#memory = new GuestMemory(MEMORY_SIZE);
    const memory = this.#memory;
    const touched = new Set<number>();
    setUpMemory(scenario, {
      write(gpa, bytes) {
        memory.writeBytes(gpa, bytes);
        const last = gpa + Math.max(bytes.length, 1) - 1;
        for (let page = gpa - gpa % VMCB_SIZE; page <= last; page += VMCB_SIZE) touched.add(page);
      },
    }, begins);
    for (const page of [...touched].sort((a, b) => a - b)) {
      // Of a page that the guest could write and nobody refreshed, only what was written now is known.
      const fresh = begins || !scenario.keepmem && page < FRESH_BELOW;
      const data = fresh ? { bytes: memory.page(page) } : written(scenario, page);
      yield { kind: "memory", vcpu: 0, gpa: BigInt(page), data };
    }
  }

  #vmrun(scenario: Scenario, pre: LabState | undefined, begins: boolean): EventOf<"vmrun"> {
    const { l1 } = scenario;
    const inBase = l1.rax === BigInt(VMCB12_GPA);
    const trusted = begins || !scenario.keepmem;
    return {
      kind: "vmrun",
      vcpu: 0,
      rip: l1.rip + BigInt(VMRUN_LENGTH),
      vmcb12_gpa: l1.rax,
      regs: l1Regs(scenario, pre, begins),
      ...(inBase && trusted ? { vmcb12: { bytes: this.#memory.page(VMCB12_GPA) } } : {}),
    };
  }

  /** What the lab hands to KVM_SET_NESTED_STATE, and the registers it sets before. */
  #setState(
    scenario: Scenario,
    record: LabRecord,
    begins: boolean,
    seen: Image | undefined,
  ): EventOf<"setstate"> {
    const vmcb12 = this.#memory.page(VMCB12_GPA).slice();
    // What an earlier run left in memory is only known from what was seen of it.
    if (seen && !begins && scenario.keepmem) overlayImage(vmcb12, seen);
    const state = new Uint8Array(VMCB_SIZE);
    state.set(vmcb12.subarray(0, SAVE_AREA + L1_SEGMENTS));
    const view = new DataView(state.buffer);
    const { l1 } = scenario;
    const set = (offset: number, value: bigint) => view.setBigUint64(offset, value, true);
    set(S.efer, l1.efer);
    set(S.cr4, l1.cr4);
    set(S.cr3, l1.cr3);
    set(S.cr0, l1.cr0);
    set(S.dr7, 0x400n);
    set(S.dr6, 0xffff0ff0n);
    set(S.rflags, l1.rflags);
    set(S.rip, BigInt(L1_CODE + VMRUN_LENGTH));
    set(S.rsp, L1_RSP);
    set(S.rax, l1.rax);
    for (const change of scenario.late) state.set(bytesOf(change), SAVE_AREA + change.offset);
    const l2 = new DataView(vmcb12.buffer, vmcb12.byteOffset);
    const regs = new Regs();
    for (const name of GPRS) regs.set(name, 0n);
    for (const name of ["cr0", "cr3", "cr4", "efer", "rip", "rsp", "rax"] as const) {
      regs.set(name, l2.getBigUint64(S[name], true));
    }
    regs.set("rflags", 2n);
    return {
      kind: "setstate",
      vcpu: 0,
      ...record.setstate,
      flags: NESTED_GUEST_MODE | (scenario.gif ? NESTED_GIF_SET : 0),
      vmcb_pa: l1.rax,
      state: { bytes: state },
      regs: regs.image,
      l1: l1Regs(scenario, record.pre, begins),
    };
  }
}

/** The scenario that a record's spec says. */
function readSpec(record: LabRecord): Scenario {
  try {
    return parseScenario(`${record.case} ${record.spec}`);
  } catch (cause) {
    if (!(cause instanceof ScenarioError)) throw cause;
    const where = { ...(sourceOf(record) ?? { line: 1 }), field: "spec" };
    throw new LabRecordError(`Field spec: ${cause.what}`, where, { cause });
  }
}

const S = offsets(SAVE_FIELDS, SAVE_AREA);
const R = offsets(REGS_FIELDS);
/** Bytes of vmcb12's save area that the lab copies into L1's. */
const L1_SEGMENTS = 0x298;
const GPRS = REGS_FIELDS.slice(0, 16).map((field) => field.name);
type RegsName = typeof REGS_FIELDS[number]["name"];

/** A `regs` image being filled. */
class Regs {
  readonly image = {
    bytes: new Uint8Array(REGS_LAYOUT.size),
    known: new Uint8Array(REGS_LAYOUT.size),
  };
  readonly #view = new DataView(this.image.bytes.buffer);

  set(name: RegsName, value: bigint): void {
    this.#view.setBigUint64(R[name], value, true);
    this.image.known.fill(0xff, R[name], R[name] + 8);
  }

  forget(name: RegsName): void {
    this.image.bytes.fill(0, R[name], R[name] + 8);
    this.image.known.fill(0, R[name], R[name] + 8);
  }

  segment(name: SegmentName, { selector, attrib, limit, base }: Segments[SegmentName]): void {
    const at = R[`${name}_selector`];
    this.#view.setUint16(at, selector, true);
    this.#view.setUint16(at + 2, attrib, true);
    this.#view.setUint32(at + 4, limit, true);
    this.#view.setBigUint64(at + 8, base, true);
    this.image.known.fill(0xff, at, at + 16);
  }

  /** Takes what another image knows. */
  overlay(other: Image): void {
    overlayImage(this.image.bytes, other);
    const { known } = this.image;
    for (let i = 0; i < known.length; i++) known[i]! |= other.known ? other.known[i]! : 0xff;
  }
}

type Segments = ReturnType<typeof baseSegments>;
type SegmentName = keyof Segments;
const LAB_SETS: readonly SegmentName[] = ["es", "cs", "ss", "ds", "fs", "gs"];

/** L1's registers before VMRUN: as the lab sets them, corrected by what it read back. */
function l1Regs(scenario: Scenario, pre: LabState | undefined, begins: boolean): Image {
  const regs = new Regs();
  const { l1 } = scenario;
  const segments = baseSegments(l1.pae);
  const refused = pre?.setup_errors?.SREGS_ERR !== undefined;
  const given = () => {
    for (const name of GPRS) regs.set(name, 0n);
    regs.set("rsp", L1_RSP);
    for (const name of ["rax", "rip", "rflags"] as const) regs.set(name, l1[name]);
    if (refused) {
      for (const name of ["cr0", "cr3", "cr4", "efer"] as const) regs.forget(name);
      return;
    }
    for (const name of LAB_SETS) regs.segment(name, segments[name]);
    for (const name of ["cr0", "cr3", "cr4", "efer"] as const) regs.set(name, l1[name]);
  };
  given();
  regs.set("hsave_pa", l1.hsave);
  if (begins) {
    for (const name of ["gdtr", "ldtr", "idtr", "tr"] as const) regs.segment(name, segments[name]);
    for (const name of ["dr0", "dr1", "dr2", "dr3", "cr8"] as const) regs.set(name, 0n);
  }
  if (pre) regs.overlay(regsImage(pre));
  // A vCPU that is taken out of L2 shows vmcb01's segments and flags, not those that were set.
  if (pre && (refused || !begins)) given();
  return regs.image;
}

/** The bytes of a page that a scenario's own changes write; the rest unknown. */
function written(scenario: Scenario, page: number): Image {
  const bytes = new Uint8Array(VMCB_SIZE);
  const known = new Uint8Array(VMCB_SIZE);
  const put = (gpa: number, data: Uint8Array) => {
    for (let i = 0; i < data.length; i++) {
      const at = gpa + i - page;
      if (at < 0 || at >= VMCB_SIZE) continue;
      bytes[at] = data[i]!;
      known[at] = 0xff;
    }
  };
  setUpMemory({ ...scenario, keepmem: true }, { write: put });
  return { bytes, known };
}

/** What is written to memory while the SMI handler runs. */
function* lateMemory(late: readonly LateChange[]): Generator<EventOf<"memory">> {
  const pages = new Map<number, { bytes: Uint8Array; known: Uint8Array }>();
  for (const change of late) {
    bytesOf(change).forEach((byte, i) => {
      const gpa = change.gpa + i;
      const page = gpa - gpa % VMCB_SIZE;
      let image = pages.get(page);
      if (!image) {
        image = { bytes: new Uint8Array(VMCB_SIZE), known: new Uint8Array(VMCB_SIZE) };
        pages.set(page, image);
      }
      image.bytes[gpa - page] = byte;
      image.known[gpa - page] = 0xff;
    });
  }
  for (const [page, data] of pages) yield { kind: "memory", vcpu: 0, gpa: BigInt(page), data };
}

/** RSM, with the state save area as it reads it. */
function rsm(late: readonly LateChange[], smram: Image | undefined): EventOf<"rsm"> {
  if (!smram) return { kind: "rsm", vcpu: 0 };
  const bytes = smram.bytes.slice();
  for (const change of late) {
    bytesOf(change).forEach((byte, i) => {
      const at = change.gpa + i - SMRAM_GPA;
      if (at >= 0 && at < bytes.length) bytes[at] = byte;
    });
  }
  return { kind: "rsm", vcpu: 0, smram: { bytes } };
}

/** Where, counted in reports, things happened that a record does not number. */
interface Timeline {
  /** Before this report userspace looked the first time, L2 (or L1) stopped at a port. */
  readonly mid: number;
  /** Before this one the SMI was queued. */
  readonly smi: number;
  /** Before this one userspace looked while the handler ran. */
  readonly smm: number;
  /** Before these L1 executed VMRUN again. */
  readonly runs: ReadonlySet<number>;
}

const SMI_EXIT = "reason: 0xf0000000";

/**
 * Reconstructs the order. Each run of reports up to an inner state belongs to
 * one function; a run that ends in `vmrun` after the first is another VMRUN of
 * L1's loop. KVM makes a software #VMEXIT of an SMI that hits L2.
 */
function timeline(record: LabRecord): Timeline {
  const { looked } = record;
  if (looked) {
    const { mid = record.events.length, smm = record.events.length } = looked;
    return { mid, smi: mid, smm, runs: new Set() };
  }
  const groups: { start: number; end: number; at: string }[] = [];
  let start = 0;
  record.events.forEach((event, i) => {
    if (!("at" in event)) return;
    groups.push({ start, end: i + 1, at: event.at });
    start = i + 1;
  });
  const vmruns = groups.filter((group) => group.at === "vmrun");
  const runs = new Set(vmruns.slice(1).map((group) => group.start));
  const end = record.events.length;
  if (record.mid?.guest_mode === 1) {
    const exit = record.events.findIndex((event) =>
      "tracepoint" in event && event.tracepoint === "kvm_nested_vmexit_inject" &&
      event.text.startsWith(SMI_EXIT)
    );
    const mid = exit < 0 ? end : exit;
    const after = groups.find((group) => group.end > mid);
    return { mid, smi: mid, smm: after?.end ?? end, runs };
  }
  const turn = (n: number) => {
    const first = groups.findIndex((group) => group === vmruns[n]);
    const next = groups.find((group, i) =>
      i > first && (group.at === "vmrun" || group.at === "rsm")
    );
    return first < 0 ? end : next?.start ?? end;
  };
  const mid = turn(0);
  return { mid, smi: mid, smm: record.smm?.smm === 1 ? mid : turn(1), runs };
}
