/**
 * Follows the nested transitions of a guest that is not ours: every VMRUN of
 * every vCPU, and the #VMEXIT that ends it.
 *
 * @module
 */
import { Breakpoints } from "./breakpoints.ts";
import { Follower, STEP_MS, stopWithin, type VmrunSite } from "./follower.ts";
import type { GdbClient } from "./gdb_client.ts";
import { GdbError } from "./gdb_packets.ts";
import type { GdbRegisters } from "./gdb_registers.ts";
import { type MemoryRegion, parseMemoryMap } from "./memory_map.ts";
import type { EventSink, RecordingEnd } from "../sink.ts";
import { TimeShare } from "./time_share.ts";
import { VcpuReader } from "./vcpu_reader.ts";
import { VmrunSearch } from "./vmrun_search.ts";

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

/** What was recorded of a guest. */
export interface QemuRecordResult {
  /** How it ended. */
  readonly ended: RecordingEnd;
  /** VMRUN instructions executed. */
  readonly vmruns: number;
  /** #VMEXITs seen. */
  readonly exits: number;
  /** Those of them that an interrupt caused; most are L1's timer, whose clock goes on while QEMU and the debugger work. */
  readonly interrupts: number;
  /** VMRUN instructions that were executed at least once. */
  readonly sites: readonly VmrunSite[];
  /** Places that look like VMRUN in memory and were never executed. */
  readonly unused: number;
  /** Number of vCPUs. */
  readonly vcpus: number;
  /** QEMU's version. */
  readonly version: string;
}

/** Milliseconds between slices that find nothing new to search: the first such pause, and the longest. */
const FIRST_QUIET_MS = 200, LONGEST_QUIET_MS = 2000;
/** Milliseconds that a #VMEXIT is waited for when the recording is to end. */
const LAST_EXIT_MS = 250;
/** Milliseconds after which a lone vCPU that is in L2 gets the breakpoint at its VMRUN back. */
const REARM_MS = 1000;
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
    // Only a connection that was closed is the end of QEMU; a stub that says nonsense is an error.
    if (!(error instanceof GdbError) || gdb.ended.code !== "closed") throw error;
    ended = options.signal?.aborted ? "interrupted" : "gone";
  } finally {
    gdb.close();
    await recorder.close();
  }
  return recorder.result(ended);
}

class Recorder {
  readonly #gdb: GdbClient;
  readonly #sink: EventSink;
  readonly #options: QemuRecordOptions;
  readonly #started = performance.now();
  readonly #breakpoints: Breakpoints;
  #follower: Follower | undefined;
  #threads: readonly string[] = [];
  #memory: readonly MemoryRegion[] = [];
  #version = "unknown";
  #told = 0;
  #failed = false;
  readonly #share = new TimeShare();
  #search: VmrunSearch | undefined;
  /** Milliseconds to the next slice at least. */
  #quiet = 0;
  #noted = "";

  constructor(gdb: GdbClient, sink: EventSink, options: QemuRecordOptions) {
    this.#gdb = gdb;
    this.#sink = sink;
    this.#options = options;
    this.#breakpoints = new Breakpoints(gdb);
  }

  result(ended: RecordingEnd): QemuRecordResult {
    const sites = [...this.#follower?.sites.values() ?? []];
    const used = sites.filter((site) => site.vmruns > 0);
    return {
      ended,
      vmruns: this.#follower?.vmruns ?? 0,
      exits: this.#follower?.exits ?? 0,
      interrupts: this.#follower?.interrupts ?? 0,
      sites: used,
      unused: sites.length - used.length,
      vcpus: this.#threads.length,
      version: this.#version,
    };
  }

  /** Hands over what is left, and closes the sink. */
  async close(): Promise<void> {
    try {
      if (!this.#failed) await this.#handOver();
    } finally {
      await this.#sink.close();
    }
  }

  async run(): Promise<RecordingEnd> {
    const follower = await this.#begin();
    const { at, signal } = this.#options;
    for (const linear of at ?? []) follower.addSite({ linear, vmruns: 0 });
    if (!at) await this.#searchOn(follower);
    let late: ReturnType<typeof setTimeout> | undefined;
    // In the middle of L2 the guest is stopped only when its #VMEXIT does not come.
    const onAbort = () => {
      late = setTimeout(() => this.#gdb.interrupt(), follower.waiting ? LAST_EXIT_MS : 0);
    };
    signal?.addEventListener("abort", onAbort);
    try {
      return await this.#follow(follower);
    } finally {
      await this.#search?.[Symbol.asyncDispose]();
      clearTimeout(late);
      signal?.removeEventListener("abort", onAbort);
    }
  }

  async #follow(follower: Follower): Promise<RecordingEnd> {
    const { at, signal, limit = Infinity, durationMs = Infinity } = this.#options;
    for (;;) {
      const left = durationMs - (performance.now() - this.#started);
      const full = follower.vmruns >= limit;
      const over = full || left <= 0 ? "done" : signal?.aborted ? "interrupted" : undefined;
      if (over && !follower.waiting) return over;
      if (over) follower.followNoMore();
      this.#gdb.resume();
      // While the guest runs: what the debugger does meanwhile costs it nothing.
      await Promise.all([this.#breakpoints.settled(), this.#handOver()]);
      const searching = !at && follower.vmruns === 0;
      const grace = follower.waiting ? LAST_EXIT_MS : 0;
      const patience = full
        ? STEP_MS
        : searching
        ? Math.max(this.#share.pause(), this.#quiet)
        : follower.lifted
        ? REARM_MS
        : Infinity;
      const stop = await stopWithin(
        this.#gdb,
        over === "done" ? patience : Math.min(left + grace, patience),
      );
      if (stop.reason === "gone") return "gone";
      if (stop.reason === "shutdown") return "done";
      if (stop.reason === "breakpoint") await follower.atStop(stop);
      else if (over) return over;
      else if (searching) await this.#searchOn(follower);
      else follower.rearm();
    }
  }

  async #begin(): Promise<Follower> {
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
    const reader = new VcpuReader(gdb, this.#threads, this.#memory);
    return this.#follower = new Follower(gdb, this.#threads, reader, this.#breakpoints, {
      time: () => ({ time: Math.round((performance.now() - this.#started) * 1e6) }),
      found: (linear) => this.#found(linear),
    });
  }

  /** Gives the sink what was seen. */
  async #handOver(): Promise<void> {
    const follower = this.#follower;
    if (follower === undefined) return;
    for (const event of follower.take()) {
      try {
        await this.#sink.write(event);
      } catch (error) {
        this.#failed = true;
        throw error;
      }
    }
    if (follower.vmruns > this.#told) this.#options.onProgress?.(follower.vmruns);
    this.#told = follower.vmruns;
  }

  /** Searches for VMRUN for a while; what it took is kept below a share of the guest's time. */
  async #searchOn(follower: Follower): Promise<void> {
    const began = performance.now();
    const files = await Promise.all(this.#threads.map((thread) => this.#gdb.registers(thread)));
    const able = files.filter((registers) => (registers.need("efer") & SVME) !== 0n);
    if (able.length === 0 && this.#search === undefined) {
      this.#note("No vCPU has EFER.SVME set yet: the guest does not use SVM so far");
    } else {
      await this.#slice(follower, able);
    }
    this.#share.spend(performance.now() - began);
  }

  async #slice(follower: Follower, able: readonly GdbRegisters[]): Promise<void> {
    const { durationMs = Infinity, signal } = this.#options;
    if (this.#search === undefined) {
      this.#note("EFER.SVME is set: searching for VMRUN, for a tenth of the guest's time at most");
    }
    const search = this.#search ??= new VmrunSearch(this.#gdb, this.#memory);
    const { rounds, searched } = search;
    const left = durationMs - (performance.now() - this.#started);
    const found = await search.slice(able, Math.min(this.#share.allowance(), left), signal);
    for (const site of found) follower.addSite({ ...site, vmruns: 0 });
    // When there is nothing new to search, the guest is left alone for longer and longer.
    const idle = search.searched === searched && search.rounds > rounds;
    this.#quiet = idle ? Math.min(2 * this.#quiet + FIRST_QUIET_MS, LONGEST_QUIET_MS) : 0;
    if (found.length > 0 || (rounds === 0 && search.rounds > 0)) {
      const mib = (search.searched / 2 ** 20).toFixed(1);
      this.#note(
        `Places that hold the opcode of VMRUN: ${follower.sites.size}, in ${mib} MiB of executable memory`,
      );
    }
  }

  #found(linear: bigint): void {
    this.#note(`VMRUN at ${linear.toString(16)}`);
    if (this.#search === undefined) return;
    const used = [...this.#follower!.sites.values()].filter(({ vmruns }) => vmruns > 0);
    const at = used.map((site) => site.linear.toString(16)).join(",");
    this.#note(`With --at ${at} nothing needs to be searched, if the guest boots alike (nokaslr)`);
  }

  #note(text: string): void {
    if (text === this.#noted) return;
    this.#noted = text;
    this.#options.onNote?.(text);
  }
}
