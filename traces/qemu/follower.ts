/**
 * Follows the vCPUs of a guest from stop to stop: what each stop means, the
 * events that it makes, and how the vCPU gets past the breakpoint it stands at.
 *
 * @module
 */
import { Buffer } from "node:buffer";
import type { TraceEvent } from "../../engine/event.ts";
import { C } from "../../engine/svm/machine.ts";
import type { Breakpoints } from "./breakpoints.ts";
import type { GdbClient } from "./gdb_client.ts";
import type { GdbStop } from "./gdb_connection.ts";
import { GdbError } from "./gdb_packets.ts";
import { HandlerFinder } from "./l2_handler.ts";
import type { ReadGuess, VcpuReader, VcpuSnapshot } from "./vcpu_reader.ts";
import type { VcpuView } from "./vcpu_view.ts";
import { injectsInterrupt, isBackInL1, type PendingVmrun, VMRUN_LENGTH } from "./vmrun.ts";
import { VMRUN_OPCODE, vmrunInputs } from "./vmrun.ts";

/** One VMRUN instruction of the guest. */
export interface VmrunSite {
  /** Linear address. */
  readonly linear: bigint;
  /** Physical address, when it was found by searching. */
  readonly physical?: bigint;
  /** How often a vCPU stopped there to execute VMRUN. */
  vmruns: number;
}

/** Milliseconds for a step or an interrupt to take effect. */
export const STEP_MS = 2000;
/** Milliseconds that one vCPU runs alone from an injected interrupt to its #VMEXIT; L1's tick comes before. */
const ALONE_MS = 1000;
/** Times that a vCPU is sent over one VMRUN. */
const ATTEMPTS = 4;
/** Pages of inputs remembered at most. */
const MAX_PAGES = 1024;
/** Breakpoints set at most: what looks like VMRUN in so many places is data. */
const MAX_SITES = 512;
/** Stops at no breakpoint of ours, one after the other. */
const MAX_STRAY = 200;
/** EFER.SVME: without it VMRUN does not exist. */
const SVME = 1n << 12n;

/** What the follower needs of the recording it serves. */
export interface FollowerHost {
  /** Time of an event, as a part of it. */
  time(): { time: number };
  /** A VMRUN was executed, the first one at its address. */
  found(linear: bigint): void;
}

/** The last VMRUN of a vCPU: most likely its next one is like it. */
interface Habit {
  readonly site: bigint;
  /** CR3, under which the instruction there was seen to be VMRUN. */
  readonly cr3: bigint | undefined;
  readonly pages: readonly bigint[];
}

/** Follows the vCPUs of one guest. */
export class Follower {
  readonly #gdb: GdbClient;
  readonly #threads: readonly string[];
  readonly #reader: VcpuReader;
  readonly #breakpoints: Breakpoints;
  readonly #host: FollowerHost;
  readonly #handlers: HandlerFinder;
  readonly #sites = new Map<bigint, VmrunSite>();
  /** VMRUNs without their #VMEXIT, by vCPU. */
  readonly #pending = new Map<string, PendingVmrun>();
  /** Addresses behind a VMRUN, and how many vCPUs wait for their #VMEXIT there. */
  readonly #after = new Map<bigint, number>();
  /** Pages as they were recorded last, by vCPU and address. */
  readonly #recorded = new Map<string, Uint8Array>();
  readonly #habits = new Map<string, Habit>();
  #events: TraceEvent[] = [];
  #closing = false;
  #attempts = 0;
  #stray = 0;
  /** VMRUN instructions executed. */
  vmruns = 0;
  /** #VMEXITs seen. */
  exits = 0;
  /** Those of them that an interrupt of L1's caused (SVM_EXIT_INTR). */
  interrupts = 0;

  /**
   * @param gdb Client of the guest.
   * @param threads Its vCPUs.
   * @param reader Reads them.
   * @param breakpoints Its breakpoints.
   * @param host The recording.
   */
  constructor(
    gdb: GdbClient,
    threads: readonly string[],
    reader: VcpuReader,
    breakpoints: Breakpoints,
    host: FollowerHost,
  ) {
    this.#gdb = gdb;
    this.#threads = threads;
    this.#reader = reader;
    this.#breakpoints = breakpoints;
    this.#host = host;
    this.#handlers = new HandlerFinder((gpa, length) => reader.memory(gpa, length));
  }

  /** VMRUN instructions that are known. */
  get sites(): ReadonlyMap<bigint, VmrunSite> {
    return this.#sites;
  }

  /** Whether a VMRUN waits for its #VMEXIT. */
  get waiting(): boolean {
    return this.#pending.size > 0;
  }

  /** Whether the breakpoint at a VMRUN is lifted until its #VMEXIT. */
  get lifted(): boolean {
    return [...this.#pending.values()].some(({ site }) => !this.#breakpoints.has(site));
  }

  /** @returns The events since the last call. */
  take(): TraceEvent[] {
    return this.#events.splice(0);
  }

  /** @param site A VMRUN instruction at which vCPUs are to stop. */
  addSite(site: VmrunSite): void {
    if (this.#sites.has(site.linear) || this.#sites.size >= MAX_SITES) return;
    this.#sites.set(site.linear, site);
    this.#breakpoints.set(site.linear);
  }

  /** Takes the breakpoints at VMRUNs away; those behind them stay for the #VMEXITs that are due. */
  followNoMore(): void {
    this.#closing = true;
    for (const linear of this.#sites.keys()) this.#breakpoints.clear(linear);
  }

  /** Sets again what was lifted for a vCPU that did not come back: the guest may have reset itself. */
  rearm(): void {
    if (this.#closing) return;
    for (const { site } of this.#pending.values()) this.#breakpoints.set(site);
  }

  /**
   * A vCPU stopped at a breakpoint, or at the end of a step.
   *
   * @param stop The stop.
   * @throws {GdbError} As the client does; `protocol` when the stub stops again and again for nothing.
   */
  async atStop(stop: GdbStop): Promise<void> {
    const thread = stop.thread ?? this.#threads[0]!;
    if (!this.#threads.includes(thread)) throw this.#strayStop(stop);
    const pending = this.#pending.get(thread);
    const seen = await this.#reader.read(thread, this.#guess(thread, pending));
    const at = seen.linear;
    if (pending && at === pending.site + VMRUN_LENGTH && await this.#exit(thread, pending, seen)) {
      // Another vCPU may still wait there; then this one has to be taken past the breakpoint.
      if (this.#breakpoints.has(at)) await this.#step(thread);
    } else if (this.#breakpoints.has(at)) {
      const site = this.#sites.get(at);
      if (site && await this.#isVmrun(thread, seen, pending)) await this.#vmrun(thread, site, seen);
      else await this.#step(thread);
    } else {
      if (++this.#stray > MAX_STRAY) throw this.#strayStop(stop);
      return;
    }
    this.#stray = 0;
  }

  #strayStop(stop: GdbStop): GdbError {
    return new GdbError(
      "protocol",
      `The GDB stub stops for no reason that is known here (thread ${stop.thread ?? "none"})`,
    );
  }

  #guess(thread: string, pending: PendingVmrun | undefined): ReadGuess {
    if (pending) return { pages: [pending.vmcb12Gpa] };
    const habit = this.#habits.get(thread);
    return { pages: habit?.pages ?? [] };
  }

  /** Whether a stop at a candidate is L1 about to execute VMRUN: this is what verifies it. */
  async #isVmrun(
    thread: string,
    seen: VcpuSnapshot,
    pending: PendingVmrun | undefined,
  ): Promise<boolean> {
    const { view } = seen;
    if (((view.get("efer") ?? 0n) & SVME) === 0n) return false;
    const habit = this.#habits.get(thread);
    if (habit?.site !== seen.linear || habit.cr3 !== view.get("cr3")) {
      const code = await seen.code();
      if (code === undefined || Buffer.compare(code, VMRUN_OPCODE) !== 0) return false;
    }
    // While a #VMEXIT is awaited, the same code under other page tables is L2's.
    return pending === undefined || view.get("cr3") === pending.l1.get("cr3");
  }

  async #vmrun(thread: string, site: VmrunSite, seen: VcpuSnapshot): Promise<void> {
    const vcpu = this.#threads.indexOf(thread);
    const { view } = seen;
    const before = this.#pending.get(thread);
    if (before?.site === site.linear && unmoved(before.l1, view) && this.#attempts < ATTEMPTS) {
      // Now and then QEMU ends a step before the instruction was executed.
      this.#attempts++;
      return await this.#pass(thread, before);
    }
    this.#attempts = 1;
    if (before) {
      // L1 is back without having passed the breakpoint: a reset, or a handler that jumped.
      this.#forget(thread, before);
      this.#events.push({ kind: "lost", vcpu, ...this.#host.time(), count: 1n });
    }
    view.set("guest_mode", 0n);
    const vmcb12Gpa = view.get("rax")!;
    const vmcb12 = await seen.page(vmcb12Gpa);
    const inputs = vmcb12 ? vmrunInputs(vmcb12) : [];
    await this.#inputs(vcpu, seen, inputs);
    this.#habits.set(thread, {
      site: site.linear,
      cr3: view.get("cr3"),
      pages: [vmcb12Gpa, ...inputs],
    });
    if (site.vmruns++ === 0) this.#host.found(site.linear);
    this.vmruns++;
    this.#events.push({
      kind: "vmrun",
      vcpu,
      ...this.#host.time(),
      rip: view.get("rip")! + VMRUN_LENGTH,
      vmcb12_gpa: vmcb12Gpa,
      regs: view.image(),
      ...(vmcb12 === undefined ? {} : { vmcb12: { bytes: vmcb12 } }),
    });
    const pending = { site: site.linear, l1: view, vmcb12Gpa, vmcb12 };
    this.#pending.set(thread, pending);
    const after = site.linear + VMRUN_LENGTH;
    this.#after.set(after, (this.#after.get(after) ?? 0) + 1);
    this.#breakpoints.set(after);
    await this.#pass(thread, pending);
  }

  /** Records the pages that VMRUN depends on, when they are not as they were recorded last. */
  async #inputs(vcpu: number, seen: VcpuSnapshot, inputs: readonly bigint[]): Promise<void> {
    const pages = await Promise.all(inputs.map((gpa) => seen.page(gpa)));
    for (const [i, gpa] of inputs.entries()) {
      const bytes = pages[i];
      const key = `${vcpu} ${gpa}`;
      const before = this.#recorded.get(key);
      if (!bytes || (before && Buffer.compare(before, bytes) === 0)) continue;
      if (this.#recorded.size >= MAX_PAGES) this.#recorded.clear();
      this.#recorded.set(key, bytes);
      this.#events.push({ kind: "memory", vcpu, ...this.#host.time(), gpa, data: { bytes } });
    }
  }

  /**
   * Lets a vCPU execute the VMRUN at which it stands, at a breakpoint.
   *
   * The breakpoint of a vCPU that is the only one is lifted until its #VMEXIT: it cannot pass another
   * VMRUN before. Of several, the others stay stopped while it is, so that none passes one unseen.
   *
   * An interrupt that VMRUN injects is delivered by QEMU within the instruction, and stays noted as
   * an exception that is due until another event clears it: when the vCPU is made to stop meanwhile,
   * by a timer, another vCPU's breakpoint or the end of a step, it is delivered again. A breakpoint
   * clears it, so there is one at the first instruction of L2's handler, where that is known.
   */
  async #pass(thread: string, { site, vmcb12, l1 }: PendingVmrun): Promise<void> {
    const alone = this.#threads.length === 1;
    const injects = vmcb12 !== undefined && injectsInterrupt(vmcb12);
    if (!injects) return alone ? this.#breakpoints.clear(site) : await this.#step(thread);
    const handler = await this.#handlers.find(vmcb12, l1);
    if (handler === undefined && alone) return this.#breakpoints.clear(site);
    this.#breakpoints.clear(site);
    if (handler !== undefined) this.#breakpoints.set(handler);
    const stop = await this.#run(`c:${thread}`, ALONE_MS);
    if (handler !== undefined) this.#breakpoints.clear(handler);
    if (!alone && !this.#closing) this.#breakpoints.set(site);
    if (stop.reason === "gone") throw new GdbError("closed", "QEMU ended between two stops");
  }

  /** Records a #VMEXIT, if that is what it is. */
  async #exit(thread: string, pending: PendingVmrun, seen: VcpuSnapshot): Promise<boolean> {
    const { view } = seen;
    const vmcb12 = await seen.page(pending.vmcb12Gpa);
    if (!isBackInL1(pending, view, vmcb12)) return false;
    this.#forget(thread, pending);
    view.set("guest_mode", 0n);
    this.exits++;
    if (vmcb12 && exitCode(vmcb12) === SVM_EXIT_INTR) this.interrupts++;
    this.#events.push({
      kind: "exit",
      vcpu: this.#threads.indexOf(thread),
      ...this.#host.time(),
      vmcb12_gpa: pending.vmcb12Gpa,
      regs: view.image(),
      ...(vmcb12 === undefined ? {} : { vmcb12: { bytes: vmcb12 } }),
    });
    return true;
  }

  #forget(thread: string, { site }: PendingVmrun): void {
    this.#pending.delete(thread);
    const after = site + VMRUN_LENGTH;
    const waiting = this.#after.get(after)! - 1;
    this.#after.set(after, waiting);
    if (waiting === 0) this.#breakpoints.clear(after);
    if (!this.#closing) this.#breakpoints.set(site);
  }

  /** Lets one vCPU execute one instruction, past any breakpoint; the others stay stopped. */
  async #step(thread: string): Promise<void> {
    const stop = await this.#run(`s:${thread}`, STEP_MS);
    if (stop.reason === "gone") throw new GdbError("closed", "QEMU ended during a step");
  }

  async #run(actions: string, ms: number): Promise<GdbStop> {
    this.#gdb.resume(actions);
    await this.#breakpoints.settled();
    return await stopWithin(this.#gdb, ms);
  }
}

/** Exit code of an interrupt (APM vol. 2, appendix C). */
const SVM_EXIT_INTR = 0x60;

function exitCode(vmcb12: Uint8Array): number {
  return new DataView(vmcb12.buffer, vmcb12.byteOffset).getUint32(C.exit_code, true);
}

/** Whether a vCPU stands where it stood before a VMRUN that it did not execute. */
function unmoved(before: VcpuView, now: VcpuView): boolean {
  return (["rip", "rsp", "rax", "cr3"] as const).every((name) =>
    before.get(name) === now.get(name)
  );
}

/**
 * The next stop of a guest; when none comes in time, the guest is interrupted for one.
 *
 * @param gdb Client of the guest, which runs.
 * @param ms Milliseconds to wait; Infinity for ever.
 * @returns The stop.
 * @throws {GdbError} `timeout`, when it does not stop then either.
 */
export async function stopWithin(gdb: GdbClient, ms: number): Promise<GdbStop> {
  const limit = ms === Infinity ? undefined : Math.max(1, ms);
  const stop = await gdb.stopped(limit);
  if (stop) return stop;
  gdb.interrupt();
  const late = await gdb.stopped(STEP_MS);
  if (late) return late;
  throw new GdbError("timeout", "QEMU does not stop its guest; it may hang or be stopped itself");
}
