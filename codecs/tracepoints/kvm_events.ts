/**
 * Makes trace events out of tracepoint records.
 *
 * A tracepoint shows a few values of the VMCB it is about. Those become the
 * known bits of an image; all others stay unknown.
 *
 * @module
 */
import type { Image, TraceEvent } from "../../engine/event.ts";
import { checkByText } from "../../engine/checks/sets.ts";
import { MOST_VCPUS } from "../../engine/per_vcpu.ts";
import { VMCB_SIZE } from "../../engine/svm/vmcb_fields.ts";
import { TracepointError } from "./error.ts";
import { EXIT_IMAGE, KvmImages, L2_IMAGE, VMRUN_IMAGE } from "./kvm_images.ts";
import type { KvmRecord, RecordSink } from "./kvm_record.ts";
import { ISA_VMX, SLOT, SLOTS, TRACEPOINT_BY_NAME } from "./kvm_tracepoints.ts";
import type { TracepointStats } from "./stats.ts";

/** How records become events. */
export interface KvmEventOptions {
  /**
   * Gives the stable id of a consistency check by the kernel's text of it;
   * that of the engine's check tables when left out.
   *
   * @param text The text of `kvm_nested_vmenter_failed`.
   * @returns The id, or nothing when no known kernel has such a check.
   */
  readonly identify?: (text: string) => string | undefined;
}

/** A VMRUN waits at most this many events for the line with its intercepts. */
const LONGEST_WAIT = 65_536;

/** One vCPU of one virtual machine. */
interface TracedVcpu {
  readonly number: number;
  /** KVM's number of it, once a record has said it. */
  id: number | undefined;
  /** CPU of its last record. */
  cpu: number;
  /** Whether L2 runs, or is about to, from {@linkcode gpa}. */
  open: boolean;
  gpa: bigint;
  /** The entry into L2, by VMRUN or RSM, that waits for its intercepts; and an RSM that waits for an entry. */
  waiting: Writable<Entry> | undefined;
  /** Whether L1's handler of an SMI executed RSM, and has not gone on since. */
  resuming: boolean;
  /** Its place among the events not yet handed out. */
  waitingAt: number;
  waitingBits: number;
  readonly waitingLo: Uint32Array;
  readonly waitingHi: Uint32Array;
}

/** How L2 is entered. */
type Entry = Extract<TraceEvent, { kind: "vmrun" | "rsm" }>;

type Writable<T> = { -readonly [K in keyof T]: T[K] };

/** A thread and the vCPUs it runs; nearly always one. */
interface Thread {
  current: TracedVcpu;
  readonly all: TracedVcpu[];
}

const pair = new Uint32Array(2);
const joined = new BigUint64Array(pair.buffer);
// A typed array has the machine's byte order.
const LOW = new Uint8Array(Uint16Array.of(1).buffer)[0] === 1 ? 0 : 1;

function bigint(lo: number, hi: number): bigint {
  pair[LOW] = lo;
  pair[1 - LOW] = hi;
  return joined[0]!;
}

/** Turns records into events, vCPU by vCPU, in the order they come. */
export class KvmEvents implements RecordSink {
  readonly #stats: TracepointStats;
  readonly #identify: (text: string) => string | undefined;
  readonly #threads = new Map<number, Thread>();
  readonly #vcpus: TracedVcpu[] = [];
  readonly #checks = new Map<string, string | undefined>();
  readonly #vmruns = new KvmImages(VMRUN_IMAGE);
  readonly #l2regs = new KvmImages(L2_IMAGE);
  readonly #exits = new KvmImages(EXIT_IMAGE);
  #lastPid = NaN;
  #lastThread: Thread | undefined;
  #waiting = 0;
  #vmx = false;
  #lostBefore: { count: number; known: boolean } | undefined;
  #out: TraceEvent[] = [];

  /**
   * @param stats Counts what is imported.
   * @param options How.
   */
  constructor(stats: TracepointStats, options: KvmEventOptions = {}) {
    this.#stats = stats;
    this.#identify = options.identify ?? ((text) => checkByText(text)?.id);
  }

  /** Events finished since the last call, in order; the one that still waits stays, and all after it. */
  take(): TraceEvent[] {
    const all = this.#out;
    let ready = all.length;
    if (this.#waiting > 0) {
      for (const vcpu of this.#vcpus) {
        if (vcpu.waiting === undefined) continue;
        if (all.length - vcpu.waitingAt > LONGEST_WAIT) this.#settle(vcpu);
        else ready = Math.min(ready, vcpu.waitingAt);
      }
    }
    if (ready === all.length) this.#out = [];
    else {
      this.#out = all.splice(ready);
      for (const vcpu of this.#vcpus) vcpu.waitingAt -= ready;
    }
    return all;
  }

  /** How many events there are to take. */
  get size(): number {
    return this.#out.length;
  }

  /** No more records come: nothing waits any longer. */
  finish(): void {
    for (const vcpu of this.#vcpus) this.#settle(vcpu);
  }

  /** Takes one record. */
  record(record: KvmRecord): void {
    const { name } = record;
    if (this.#isVmx(record)) {
      this.#stats.vmx[name] = (this.#stats.vmx[name] ?? 0) + 1;
      return;
    }
    const vcpu = this.#vcpuOf(record);
    vcpu.cpu = record.cpu;
    this.#stats.events[name] = (this.#stats.events[name] ?? 0) + 1;
    const role = record.tracepoint?.role ?? "other";
    if (role === "intercepts" && this.#addIntercepts(vcpu, record)) return;
    if (role === "vmrun") return this.#enter(vcpu, record);
    if (vcpu.waiting !== undefined) this.#settle(vcpu);
    if (role !== "check") vcpu.resuming = isRsm(record);
    switch (role) {
      case "smm":
        return this.#smm(vcpu, record);
      case "l2exit":
        return this.#l2exit(vcpu, record);
      case "exit":
        return this.#exit(vcpu, record);
      case "check":
        return this.#check(vcpu, record);
      case "intercepts":
      case "other":
        this.#add({
          kind: "tracepoint",
          vcpu: vcpu.number,
          time: record.time,
          name,
          text: record.text,
        }, record);
    }
  }

  /** Whether a record is of VMX: by itself, or for others of the log are, since a host has one of both. */
  #isVmx(record: KvmRecord): boolean {
    if ((record.present >>> SLOT.isa & 1) !== 0) return this.#vmx = record.lo[SLOT.isa] === ISA_VMX;
    if (record.tracepoint?.role !== "check") return this.#vmx;
    return /\bvmcs|vmx/.test(record.text) ||
      this.#vmx && this.#identify(record.text) === undefined;
  }

  /** Takes a mark of lost records: what ran on that CPU may have missed some. */
  lost(cpu: number, count: number | undefined, time: number | undefined): void {
    this.#stats.lostMarks++;
    this.#stats.lost += count ?? 0;
    const touched = this.#vcpus.filter((vcpu) => cpu < 0 || vcpu.cpu === cpu);
    if (touched.length === 0) {
      const before = this.#lostBefore ?? { count: 0, known: true };
      this.#lostBefore = {
        count: before.count + (count ?? 0),
        known: before.known && count !== undefined,
      };
      return;
    }
    this.#gap(touched, count, time);
  }

  /** Takes notice of a record that cannot be read. */
  unread(cpu: number, pid: number, name: string): void {
    const thread = this.#threads.get(pid);
    const touched = this.#vcpus.filter((vcpu) =>
      thread !== undefined ? thread.all.includes(vcpu) : pid < 0 && (cpu < 0 || vcpu.cpu === cpu)
    );
    const role = TRACEPOINT_BY_NAME.get(name)?.role;
    this.#gap(
      touched,
      1,
      undefined,
      role === "l2exit" || role === "check" || role === "intercepts",
    );
  }

  #gap(
    touched: readonly TracedVcpu[],
    count: number | undefined,
    time: number | undefined,
    open = false,
  ): void {
    touched.forEach((vcpu, index) => {
      this.#settle(vcpu);
      vcpu.open &&= open;
      vcpu.resuming = false;
      // The number is the CPU's, not each vCPU's: only one of them carries it.
      this.#pushLost(vcpu.number, index === 0 ? count : undefined, time);
    });
  }

  /** Adds an event of a record; where the log has no times, the event has none. */
  #add(event: TraceEvent, record: KvmRecord): void {
    if (Number.isNaN(record.time)) delete (event as { time?: number }).time;
    this.#out.push(event);
  }

  #pushLost(vcpu: number, count: number | undefined, time: number | undefined): void {
    this.#out.push({
      kind: "lost",
      vcpu,
      ...(time === undefined ? {} : { time }),
      ...(count === undefined ? {} : { count: BigInt(count) }),
    });
  }

  #vcpuOf(record: KvmRecord): TracedVcpu {
    // Without threads, what ran on one CPU is taken for one.
    const pid = record.pid < 0 ? -1 - (record.cpu + 1) : record.pid;
    let thread = pid === this.#lastPid ? this.#lastThread : this.#threads.get(pid);
    const id = (record.present >>> SLOT.vcpu_id & 1) === 0 ? undefined : record.lo[SLOT.vcpu_id];
    if (thread === undefined) {
      const vcpu = this.#newVcpu(record, id);
      thread = { current: vcpu, all: [vcpu] };
      this.#threads.set(pid, thread);
    }
    this.#lastPid = pid;
    this.#lastThread = thread;
    if (id !== undefined && thread.current.id !== id) {
      if (thread.current.id === undefined) thread.current.id = id;
      else {
        let vcpu = thread.all.find((other) => other.id === id);
        if (vcpu === undefined) thread.all.push(vcpu = this.#newVcpu(record, id));
        thread.current = vcpu;
      }
    }
    return thread.current;
  }

  #newVcpu(record: KvmRecord, id: number | undefined): TracedVcpu {
    if (this.#vcpus.length === MOST_VCPUS) {
      throw new TracepointError(
        "limit",
        `The log has more than ${MOST_VCPUS} vCPUs: keep the lines of some of their threads`,
        this.#stats.lines > 0 ? { line: this.#stats.lines } : {},
      );
    }
    const vcpu: TracedVcpu = {
      number: this.#vcpus.length,
      id,
      cpu: record.cpu,
      open: false,
      gpa: 0n,
      waiting: undefined,
      resuming: false,
      waitingAt: 0,
      waitingBits: 0,
      waitingLo: new Uint32Array(SLOTS.length),
      waitingHi: new Uint32Array(SLOTS.length),
    };
    this.#vcpus.push(vcpu);
    this.#add({
      kind: "session",
      vcpu: vcpu.number,
      time: record.time,
      meta: {
        source: "kvm-tracepoints",
        ...(record.pid < 0 ? {} : { task: record.task, tid: record.pid }),
        ...(id === undefined ? {} : { vcpu_id: id }),
      },
    }, record);
    if (this.#lostBefore !== undefined) {
      const { count, known } = this.#lostBefore;
      this.#lostBefore = undefined;
      const time = Number.isNaN(record.time) ? undefined : record.time;
      this.#pushLost(vcpu.number, known ? count : undefined, time);
    }
    return vcpu;
  }

  #smm(vcpu: TracedVcpu, record: KvmRecord): void {
    const { time } = record;
    if (record.lo[SLOT.entering] !== 0) {
      // What L2 was doing goes on after RSM.
      vcpu.open = false;
      this.#add({ kind: "smi", vcpu: vcpu.number, time }, record);
    } else this.#wait(vcpu, { kind: "rsm", vcpu: vcpu.number, time }, record);
  }

  /** An entry into L2: RSM's, when that is what L1 was about, else a VMRUN's. */
  #enter(vcpu: TracedVcpu, record: KvmRecord): void {
    const { lo, hi, time } = record;
    const resumes = vcpu.waiting?.kind === "rsm" && vcpu.waiting.vmcb12 === undefined;
    if (!resumes && vcpu.waiting !== undefined) this.#settle(vcpu);
    vcpu.gpa = bigint(lo[SLOT.vmcb]!, hi[SLOT.vmcb]!);
    vcpu.open = true;
    vcpu.waitingBits = record.present;
    vcpu.waitingLo.set(lo);
    vcpu.waitingHi.set(hi);
    const vmcb12 = { vmcb12_gpa: vcpu.gpa, vmcb12: UNSEEN };
    const { number } = vcpu;
    if (resumes) Object.assign(vcpu.waiting!, vmcb12);
    else if (vcpu.resuming) {
      this.#wait(vcpu, { kind: "rsm", vcpu: number, time, ...vmcb12 }, record);
    } else {
      const rip = bigint(lo[SLOT.rip]!, hi[SLOT.rip]!);
      this.#wait(vcpu, { kind: "vmrun", vcpu: number, time, rip, ...vmcb12 }, record);
    }
    vcpu.resuming = false;
  }

  #wait(vcpu: TracedVcpu, entry: Writable<Entry>, record: KvmRecord): void {
    vcpu.waitingAt = this.#out.length;
    vcpu.waiting = entry;
    this.#waiting++;
    this.#add(entry as TraceEvent, record);
  }

  #addIntercepts(vcpu: TracedVcpu, record: KvmRecord): boolean {
    if (vcpu.waiting?.vmcb12 === undefined) return false;
    const { waitingLo, waitingHi } = vcpu;
    for (let slot = SLOT.cr_read; slot <= SLOT.intercept3; slot++) {
      if ((record.present >>> slot & 1) === 0) continue;
      waitingLo[slot] = record.lo[slot]!;
      waitingHi[slot] = record.hi[slot]!;
      vcpu.waitingBits |= 1 << slot;
    }
    if ((record.present >>> SLOT.intercept2 & 1) === 0) {
      // Older kernels print both words as one number.
      waitingLo[SLOT.intercept2] = record.hi[SLOT.intercept1]!;
      vcpu.waitingBits |= 1 << SLOT.intercept2;
    }
    this.#settle(vcpu);
    return true;
  }

  #settle(vcpu: TracedVcpu): void {
    if (vcpu.waiting === undefined) return;
    if (vcpu.waiting.vmcb12 !== undefined) {
      vcpu.waiting.vmcb12 = this.#vmruns.of(vcpu.waitingBits, 0, vcpu.waitingLo, vcpu.waitingHi);
    }
    vcpu.waiting = undefined;
    this.#waiting--;
  }

  #l2exit(vcpu: TracedVcpu, record: KvmRecord): void {
    const { lo, hi } = record;
    this.#add({
      kind: "l2exit",
      vcpu: vcpu.number,
      time: record.time,
      exit_code: bigint(lo[SLOT.exit_code]!, hi[SLOT.exit_code]!),
      exit_info_1: bigint(lo[SLOT.exit_info_1]!, hi[SLOT.exit_info_1]!),
      exit_info_2: bigint(lo[SLOT.exit_info_2]!, hi[SLOT.exit_info_2]!),
      exit_int_info: lo[SLOT.exit_int_info]!,
      exit_int_info_err: lo[SLOT.exit_int_info_err]!,
      regs: this.#l2regs.of(record.present, 0, lo, hi),
    }, record);
  }

  #exit(vcpu: TracedVcpu, record: KvmRecord): void {
    const vmcb12 = this.#exits.of(record.present, record.wide, record.lo, record.hi);
    const { number, open, gpa } = vcpu;
    const time = record.time;
    vcpu.open = false;
    this.#add(
      open
        ? { kind: "exit", vcpu: number, time, vmcb12_gpa: gpa, vmcb12 }
        : { kind: "exit", vcpu: number, time, vmcb12 },
      record,
    );
  }

  #check(vcpu: TracedVcpu, record: KvmRecord): void {
    const { text } = record;
    let check = this.#checks.get(text);
    if (check === undefined && !this.#checks.has(text)) {
      check = this.#identify(text);
      // No kernel has as many checks: garbage may.
      if (this.#checks.size < 10_000) this.#checks.set(text, check);
    }
    const time = record.time;
    this.#add(
      check === undefined
        ? { kind: "check", vcpu: vcpu.number, time, text }
        : { kind: "check", vcpu: vcpu.number, time, check, text },
      record,
    );
  }
}

/** Exit code of an intercepted RSM. */
const RSM = 0x73;

/** Whether a record is that of L1 executing RSM. */
function isRsm({ name, present, lo, hi }: KvmRecord): boolean {
  return name === "kvm_exit" && (present >>> SLOT.exit_code & 1) !== 0 &&
    lo[SLOT.exit_code] === RSM && hi[SLOT.exit_code] === 0;
}

const UNSEEN: Image = { bytes: new Uint8Array(VMCB_SIZE), known: new Uint8Array(VMCB_SIZE) };
