/**
 * Follows the nested transitions of a guest that is not ours: every VMRUN of
 * every vCPU, and the #VMEXIT that ends it.
 *
 * @module
 */
import { Buffer } from "node:buffer";
import { VMCB_SIZE } from "../../engine/svm/vmcb_fields.ts";
import { inMemory, locate, type MemoryRegion, parseMemoryMap, scanForVmrun } from "./discover.ts";
import type { GdbClient } from "./gdb_client.ts";
import type { GdbStop } from "./gdb_connection.ts";
import { GdbError } from "./gdb_packets.ts";
import type { EventSink, RecordingEnd } from "./sink.ts";
import { monitorSection, VcpuView } from "./vcpu_view.ts";
import { isBackInL1, type PendingVmrun, VMRUN_LENGTH, VMRUN_OPCODE, vmrunInputs } from "./vmrun.ts";

/** How to follow a guest. */
export interface QemuRecordOptions {
  /** Linear addresses of VMRUN instructions; they are searched for when left out. */
  readonly at?: readonly bigint[];
  /** Ends the recording; the guest runs on. */
  readonly signal?: AbortSignal;
  /** Ends the recording after so many VMRUNs. */
  readonly limit?: number;
  /** Ends the recording after so many milliseconds. */
  readonly durationMs?: number;
  /** Where the guest comes from, for the session's metadata. */
  readonly origin?: string;
  /** Called with what a user may want to know while it lasts. */
  readonly onNote?: (text: string) => void;
  /** Called after each VMRUN with the number of them. */
  readonly onProgress?: (vmruns: number) => void;
}

/** One VMRUN instruction of the guest. */
export interface VmrunSite {
  /** Linear address. */
  readonly linear: bigint;
  /** Physical address, when it was found by searching. */
  readonly physical?: bigint;
  /** How often a vCPU stopped there to execute VMRUN. */
  vmruns: number;
}

/** What was recorded of a guest. */
export interface QemuRecordResult {
  /** How it ended. */
  readonly ended: RecordingEnd;
  /** VMRUN instructions executed. */
  readonly vmruns: number;
  /** #VMEXITs seen. */
  readonly exits: number;
  /** VMRUN instructions that were executed at least once. */
  readonly sites: readonly VmrunSite[];
  /** Places that look like VMRUN in memory and were never executed. */
  readonly unused: number;
  /** Number of vCPUs. */
  readonly vcpus: number;
  /** QEMU's version. */
  readonly version: string;
}

/** Milliseconds between searches at first; each doubles it, up to eight seconds. */
const FIRST_SEARCH_MS = 250;
const LAST_SEARCH_MS = 8000;
/** Milliseconds for a step or an interrupt to take effect. */
const STEP_MS = 2000;
/** Steps tried over one VMRUN. */
const STEP_ATTEMPTS = 4;
/** Pages of inputs remembered at most. */
const MAX_PAGES = 1024;
/** Breakpoints set at most: what looks like VMRUN in so many places is data. */
const MAX_SITES = 512;
/** EFER.SVME: without it VMRUN does not exist. */
const SVME = 1n << 12n;

/**
 * Follows a guest until `signal`, a limit, or the end of QEMU, then detaches: the guest runs on.
 * The sink is closed at the end, and what it got is valid however it ended.
 *
 * At a VMRUN the vCPU is stopped and its registers and vmcb12 are read; it alone makes a
 * single step, which ends at L2's first instruction or, when VMRUN failed, at L1's next. A breakpoint behind the
 * VMRUN then waits for the #VMEXIT. GIF and what L2 does are not seen, and are unknown in the events.
 *
 * @param gdb Client of QEMU's stub; it is detached at the end.
 * @param sink Takes the events.
 * @param options How.
 * @returns What was recorded.
 * @throws {GdbError} `remote` or `protocol`, when the stub is not that of a QEMU that can be followed.
 * @example
 * ```ts
 * import { buildGuest, DEMO_CODE, QemuProcess, recordQemu } from "@vmtape/vmtape/traces";
 * const path = await Deno.makeTempFile();
 * await Deno.writeFile(path, buildGuest(DEMO_CODE).bytes);
 * const kinds = new Set<string>();
 * const sink = { write: (event: { kind: string }) => void kinds.add(event.kind), close() {} };
 * try {
 *   await using qemu = await QemuProcess.start({ args: ["-m", "16", "-nodefaults", "-bios", path] });
 *   const { vmruns } = await recordQemu(qemu.gdb, sink, { limit: 10 });
 *   if (vmruns !== 10 || !kinds.has("vmrun") || !kinds.has("exit")) throw new Error();
 * } catch (error) {
 *   const { cause } = error as Error;
 *   if (!(cause instanceof Deno.errors.NotFound)) throw error; // QEMU is not installed
 * } finally {
 *   await Deno.remove(path);
 * }
 * ```
 */
export async function recordQemu(
  gdb: GdbClient,
  sink: EventSink,
  options: QemuRecordOptions = {},
): Promise<QemuRecordResult> {
  const recorder = new Recorder(gdb, sink, options);
  let ended: RecordingEnd;
  try {
    ended = await recorder.run();
    await gdb.detach();
  } catch (error) {
    if (!gdb.ended) {
      // Hanging up alone would leave the guest stopped, with breakpoints in it.
      await gdb.detach().catch(() => {});
      throw error;
    }
    if (!(error instanceof GdbError)) throw error;
    ended = options.signal?.aborted ? "interrupted" : "gone";
  } finally {
    gdb.close();
    await sink.close();
  }
  return recorder.result(ended);
}

class Recorder {
  readonly #gdb: GdbClient;
  readonly #sink: EventSink;
  readonly #options: QemuRecordOptions;
  readonly #started = performance.now();
  readonly #sites = new Map<bigint, VmrunSite>();
  /** Those of them that hold a breakpoint. */
  readonly #stops = new Set<bigint>();
  /** VMRUNs without their #VMEXIT, by vCPU. */
  readonly #pending = new Map<string, PendingVmrun>();
  /** Addresses behind a VMRUN that hold a breakpoint, and how many vCPUs wait there. */
  readonly #after = new Map<bigint, number>();
  /** Pages as they were recorded last, by vCPU and address. */
  readonly #recorded = new Map<string, Uint8Array>();
  #threads: readonly string[] = [];
  #memory: readonly MemoryRegion[] = [];
  #version = "unknown";
  #vmruns = 0;
  #exits = 0;
  #nextSearch = FIRST_SEARCH_MS;
  #noted = "";

  constructor(gdb: GdbClient, sink: EventSink, options: QemuRecordOptions) {
    this.#gdb = gdb;
    this.#sink = sink;
    this.#options = options;
  }

  result(ended: RecordingEnd): QemuRecordResult {
    const used = [...this.#sites.values()].filter((site) => site.vmruns > 0);
    return {
      ended,
      vmruns: this.#vmruns,
      exits: this.#exits,
      sites: used,
      unused: this.#sites.size - used.length,
      vcpus: this.#threads.length,
      version: this.#version,
    };
  }

  async run(): Promise<RecordingEnd> {
    await this.#begin();
    const { at, signal, limit = Infinity, durationMs = Infinity } = this.#options;
    for (const linear of at ?? []) await this.#addSite({ linear, vmruns: 0 });
    if (!at) await this.#search();
    const onAbort = () => this.#gdb.interrupt();
    signal?.addEventListener("abort", onAbort);
    try {
      for (;;) {
        if (signal?.aborted) return "interrupted";
        const left = durationMs - (performance.now() - this.#started);
        const full = this.#vmruns >= limit;
        if (left <= 0 || full && this.#pending.size === 0) return "done";
        if (full) await this.#followNoMore();
        this.#gdb.resume();
        const searching = !at && this.#vmruns === 0;
        // The last VMRUN's #VMEXIT is waited for, though not for ever.
        const patience = full ? STEP_MS : searching ? this.#nextSearch : Infinity;
        const wait = Math.min(left, patience);
        const stop = await this.#stopWithin(wait);
        if (stop.reason === "gone") return "gone";
        if (stop.reason === "shutdown") return "done";
        if (stop.reason === "breakpoint") await this.#atStop(stop);
        else if (full) return "done";
        else if (searching && !signal?.aborted) await this.#search();
      }
    } finally {
      signal?.removeEventListener("abort", onAbort);
    }
  }

  async #begin(): Promise<void> {
    const gdb = this.#gdb;
    this.#threads = await gdb.threads();
    this.#version = (await gdb.monitor("info version")).trim();
    this.#memory = parseMemoryMap(await gdb.monitor("info mtree -f"));
    if (this.#memory.length === 0) {
      throw new GdbError(
        "remote",
        "QEMU's monitor does not tell where the guest's memory is; it must be QEMU 7.2 or newer",
      );
    }
    const memory = this.#memory.reduce((sum, { start, end }) => sum + Number(end - start), 0);
    for (const vcpu of this.#threads.keys()) {
      await this.#sink.write({
        kind: "session",
        vcpu,
        time: 0,
        meta: {
          source: "qemu",
          kernel: "qemu-tcg",
          qemu: this.#version,
          partial: true,
          transitions: true,
          ...(this.#options.origin === undefined ? {} : { guest: this.#options.origin }),
          capabilities: { memory },
          clock: "host, with the debugger",
        },
      });
    }
  }

  /** The next stop; when none comes in time, the guest is interrupted for one. */
  async #stopWithin(ms: number): Promise<GdbStop> {
    const limit = ms === Infinity ? undefined : Math.max(1, ms);
    const stop = await this.#gdb.stopped(limit);
    if (stop) return stop;
    this.#gdb.interrupt();
    const late = await this.#gdb.stopped(STEP_MS);
    if (late) return late;
    throw new GdbError("timeout", "QEMU does not stop its guest; it may hang or be stopped itself");
  }

  async #search(): Promise<void> {
    const files = await Promise.all(this.#threads.map((thread) => this.#gdb.registers(thread)));
    const able = files.filter((registers) => (registers.need("efer") & SVME) !== 0n);
    if (able.length === 0) {
      if (this.#sites.size > 0) return;
      this.#note("No vCPU has EFER.SVME set yet: the guest does not use SVM so far");
      return;
    }
    this.#nextSearch = Math.min(this.#nextSearch * 2, LAST_SEARCH_MS);
    const found = await scanForVmrun(this.#gdb, this.#memory, this.#options.signal);
    const roots = new Map(able.map((registers) => [registers.need("cr3"), registers]));
    const before = this.#sites.size;
    for (const registers of roots.values()) {
      for (const site of await locate(this.#gdb, registers, this.#memory, found)) {
        await this.#addSite({ ...site, vmruns: 0 });
      }
    }
    if (this.#sites.size > before || before === 0) {
      this.#note(
        `The opcode of VMRUN is at ${found.length} places in memory, ${this.#sites.size} of them executable`,
      );
    }
  }

  async #addSite(site: VmrunSite): Promise<void> {
    if (this.#sites.has(site.linear) || this.#sites.size >= MAX_SITES) return;
    await this.#gdb.insertBreakpoint(site.linear);
    this.#stops.add(site.linear);
    this.#sites.set(site.linear, site);
  }

  /** Takes the breakpoints at VMRUNs away; those behind them stay for the #VMEXITs that are due. */
  async #followNoMore(): Promise<void> {
    for (const site of this.#stops) await this.#gdb.removeBreakpoint(site);
    this.#stops.clear();
  }

  #note(text: string): void {
    if (text === this.#noted) return;
    this.#noted = text;
    this.#options.onNote?.(text);
  }

  async #atStop(stop: GdbStop): Promise<void> {
    const thread = stop.thread ?? this.#threads[0]!;
    const view = await this.#view(thread);
    const linear = linearRip(view);
    const pending = this.#pending.get(thread);
    if (pending && linear === pending.site + VMRUN_LENGTH && await this.#exit(thread, view)) {
      // Another vCPU may still wait there; then this one has to be taken past the breakpoint.
      if (this.#after.has(linear)) await this.#step(thread);
      return;
    }
    const site = this.#stops.has(linear) ? this.#sites.get(linear) : undefined;
    if (site && await this.#isVmrun(thread, view, pending)) {
      await this.#vmrun(thread, site, view);
    } else if (site || this.#after.has(linear)) {
      await this.#step(thread);
    }
  }

  async #vmrun(thread: string, site: VmrunSite, view: VcpuView): Promise<void> {
    const vcpu = this.#threads.indexOf(thread);
    if (this.#pending.has(thread)) {
      // L1 is back without having passed the breakpoint: an exception at VMRUN, or a handler that jumped.
      await this.#forget(thread);
      await this.#sink.write({ kind: "lost", vcpu, ...this.#time(), count: 1n });
    }
    view.set("guest_mode", 0n);
    const vmcb12Gpa = view.get("rax")!;
    const vmcb12 = await this.#page(vmcb12Gpa);
    if (vmcb12) await this.#inputs(vcpu, vmcb12);
    if (site.vmruns++ === 0) this.#note(`VMRUN at ${site.linear.toString(16)}`);
    this.#vmruns++;
    await this.#sink.write({
      kind: "vmrun",
      vcpu,
      ...this.#time(),
      rip: view.get("rip")! + VMRUN_LENGTH,
      vmcb12_gpa: vmcb12Gpa,
      regs: view.image(),
      ...(vmcb12 === undefined ? {} : { vmcb12: { bytes: vmcb12 } }),
    });
    this.#options.onProgress?.(this.#vmruns);
    this.#pending.set(thread, { site: site.linear, l1: view, vmcb12Gpa, vmcb12 });
    const after = site.linear + VMRUN_LENGTH;
    const waiting = this.#after.get(after) ?? 0;
    this.#after.set(after, waiting + 1);
    if (waiting === 0) await this.#gdb.insertBreakpoint(after);
    const now = await this.#enter(thread, site);
    if (linearRip(now) === after && await this.#exit(thread, now) && this.#after.has(after)) {
      await this.#step(thread);
    }
  }

  /** Records the pages that VMRUN depends on, when they are not as they were recorded last. */
  async #inputs(vcpu: number, vmcb12: Uint8Array): Promise<void> {
    for (const gpa of vmrunInputs(vmcb12)) {
      const bytes = await this.#page(gpa);
      const key = `${vcpu} ${gpa}`;
      const before = this.#recorded.get(key);
      if (!bytes || (before && Buffer.compare(before, bytes) === 0)) continue;
      if (this.#recorded.size >= MAX_PAGES) this.#recorded.clear();
      this.#recorded.set(key, bytes);
      await this.#sink.write({ kind: "memory", vcpu, ...this.#time(), gpa, data: { bytes } });
    }
  }

  /** Steps over a VMRUN. Now and then QEMU ends a step before the instruction was executed. */
  async #enter(thread: string, site: VmrunSite): Promise<VcpuView> {
    for (let attempt = 1;; attempt++) {
      await this.#step(thread);
      const now = await this.#view(thread);
      const moved = linearRip(now) !== site.linear ||
        now.get("cr3") !== this.#pending.get(thread)!.l1.get("cr3");
      if (moved || attempt === STEP_ATTEMPTS) return now;
    }
  }

  /** Records a #VMEXIT, if that is what it is. */
  async #exit(thread: string, view: VcpuView): Promise<boolean> {
    const pending = this.#pending.get(thread)!;
    const vmcb12 = await this.#page(pending.vmcb12Gpa);
    if (!isBackInL1(pending, view, vmcb12)) return false;
    await this.#forget(thread);
    view.set("guest_mode", 0n);
    this.#exits++;
    await this.#sink.write({
      kind: "exit",
      vcpu: this.#threads.indexOf(thread),
      ...this.#time(),
      vmcb12_gpa: pending.vmcb12Gpa,
      regs: view.image(),
      ...(vmcb12 === undefined ? {} : { vmcb12: { bytes: vmcb12 } }),
    });
    return true;
  }

  async #forget(thread: string): Promise<void> {
    const pending = this.#pending.get(thread)!;
    this.#pending.delete(thread);
    const after = pending.site + VMRUN_LENGTH;
    const waiting = this.#after.get(after)! - 1;
    if (waiting > 0) {
      this.#after.set(after, waiting);
      return;
    }
    this.#after.delete(after);
    await this.#gdb.removeBreakpoint(after);
  }

  /** Whether a stop at a candidate is L1 about to execute VMRUN: this is what verifies it. */
  async #isVmrun(thread: string, view: VcpuView, pending?: PendingVmrun): Promise<boolean> {
    if ((view.get("efer") ?? 0n) & SVME) {
      const code = await this.#gdb.readLinear(thread, linearRip(view), VMRUN_OPCODE.length);
      if (code?.every((byte, i) => byte === VMRUN_OPCODE[i]) !== true) return false;
      // While a #VMEXIT is awaited, the same code under other page tables is L2's.
      return pending === undefined || view.get("cr3") === pending.l1.get("cr3");
    }
    return false;
  }

  /** Lets one vCPU execute one instruction, past any breakpoint; the others stay stopped. */
  async #step(thread: string): Promise<void> {
    this.#gdb.resume(`s:${thread}`);
    const stop = await this.#stopWithin(STEP_MS);
    if (stop.reason === "gone") throw new GdbError("closed", "QEMU ended during a step");
  }

  async #page(gpa: bigint): Promise<Uint8Array | undefined> {
    return inMemory(this.#memory, gpa, VMCB_SIZE)
      ? await this.#gdb.readMemory(gpa, VMCB_SIZE)
      : undefined;
  }

  async #view(thread: string): Promise<VcpuView> {
    const all = this.#threads.length > 1 ? " -a" : "";
    const text = await this.#gdb.monitor(`info registers${all}`);
    return new VcpuView().addRegisters(await this.#gdb.registers(thread))
      .addMonitor(monitorSection(text, this.#threads.indexOf(thread)));
  }

  #time(): { time: number } {
    return { time: Math.round((performance.now() - this.#started) * 1e6) };
  }
}

/** RIP as a linear address: outside 64-bit mode CS has a base. */
function linearRip(view: VcpuView): bigint {
  const rip = view.get("rip")!;
  const long = ((view.get("efer") ?? 0n) & 0x400n) !== 0n &&
    ((view.get("cs_attrib") ?? 0n) & 0x200n) !== 0n;
  return long ? rip : (view.get("cs_base") ?? 0n) + rip & 0xffff_ffffn;
}
