/**
 * The project's guest under a debugger: one scenario in, what became of it out.
 *
 * @module
 */
import { Buffer } from "node:buffer";
import { basePages, L1_RSP, VMCB12_GPA } from "../scenarios/base.ts";
import type { ScenarioOutcome } from "../scenarios/outcome.ts";
import type { Scenario } from "../scenarios/scenario.ts";
import { bytesOf } from "../scenarios/scenario_memory.ts";
import type { GdbClient } from "./gdb_client.ts";
import type { GdbStop } from "./gdb_connection.ts";
import { GdbError } from "./gdb_packets.ts";
import { GUEST_PARAMETERS, PARAMETERS_AT, PRISTINE_AT } from "./machine_code.ts";
import type { ScenarioLabel } from "./machine_code.ts";
import { monitorSection, VcpuView } from "./vcpu_view.ts";
import { isBackInL1, type PendingVmrun, VMRUN_LENGTH } from "./vmrun.ts";

/** Name of the image's file. */
export const ROM_FILE = "guest.rom";

/** Breakpoints that stay set; that after the scenario's VMRUN comes and goes. */
const STOPS: readonly ScenarioLabel[] = [
  "start",
  "ready",
  "done",
  "done32",
  "probe_armed",
  "probe_seen",
  "probe_end",
];

/** Milliseconds for the guest's own code to reach its next stop. */
const OWN_CODE_MS = 5000;

/** Registers that are zero before the scenario's VMRUN. */
export const CLEARED = ["rcx", "rdx", "rbx", "rbp", "rsi", "rdi"].concat(
  ["r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"],
);

/** Drives the guest. One scenario at a time. */
export class ScenarioMachine {
  readonly #gdb: GdbClient;
  readonly #at: Readonly<Record<ScenarioLabel, number>>;
  readonly #limitMs: number;
  #thread = "";
  /** Whether the guest can go on from where the last scenario left it. */
  #usable = false;
  /** Whether a scenario has run in this QEMU. */
  #used = false;

  /**
   * @param gdb Client of a QEMU that was started with the guest's image and not yet run.
   * @param labels Addresses in the image.
   * @param limitMs Milliseconds that a scenario may run.
   */
  constructor(gdb: GdbClient, labels: Readonly<Record<ScenarioLabel, number>>, limitMs: number) {
    this.#gdb = gdb;
    this.#at = labels;
    this.#limitMs = limitMs;
  }

  /**
   * Puts the base where the guest copies it from, and sets the breakpoints.
   *
   * @returns QEMU's version.
   */
  async start(): Promise<string> {
    const gdb = this.#gdb;
    this.#thread = (await gdb.threads())[0]!;
    for (const [gpa, page] of basePages()) await gdb.writeMemory(PRISTINE_AT + gpa, page);
    for (const label of STOPS) await gdb.insertBreakpoint(BigInt(this.#at[label]));
    return (await gdb.monitor("info version")).trim();
  }

  /**
   * Runs one scenario.
   *
   * @param scenario The scenario; `entry=vmrun`, without `irq`.
   * @returns What became of it.
   * @throws {GdbError} `closed` when QEMU dies; `protocol` when the guest does not do what its code says.
   */
  async run(scenario: Scenario): Promise<ScenarioOutcome> {
    const gdb = this.#gdb;
    const fresh = !scenario.keepvm || !this.#used;
    this.#used = true;
    await gdb.writeMemory(PARAMETERS_AT, parameters(scenario));
    if (scenario.keepvm && this.#usable) {
      await this.#goTo("fresh", "ready");
    } else {
      await this.#reset();
      await this.#goOn("start");
      // In real mode RIP counts from the segment's base.
      await this.#setRegister("rip", BigInt(this.#at.boot - this.#at.start));
      await this.#goOn("ready");
    }
    this.#usable = false;
    await Promise.all(scenario.changes.map((c) => gdb.writeMemory(c.gpa, bytesOf(c))));
    const done = scenario.l1.pae ? "done32" : "done";
    const reached = await this.#goTo("load", done, "start");
    if (reached === "start") return this.#setupFailed(scenario, fresh);
    await this.#enterL1(scenario);
    const before = await this.#view();
    before.set("gif", scenario.gif ? 1n : 0n).set("guest_mode", 0n)
      .set("hsave_pa", scenario.l1.hsave);
    const vmcb12Before = await gdb.readMemory(VMCB12_GPA, 0x1000);
    if (scenario.nmi) await gdb.monitor("nmi");
    return await this.#vmrun(scenario, fresh, before, vmcb12Before);
  }

  async #vmrun(
    scenario: Scenario,
    fresh: boolean,
    before: VcpuView,
    vmcb12Before: Uint8Array | undefined,
  ): Promise<ScenarioOutcome> {
    const gdb = this.#gdb;
    const site = scenario.l1.rip;
    const pending: PendingVmrun = {
      site,
      l1: before,
      vmcb12Gpa: scenario.l1.rax,
      vmcb12: scenario.l1.rax === BigInt(VMCB12_GPA) ? vmcb12Before : undefined,
    };
    await gdb.insertBreakpoint(site + VMRUN_LENGTH);
    const startedAt = performance.now();
    gdb.resume();
    const stop = await this.#stop(this.#limitMs);
    const stoppedAt = performance.now();
    await gdb.removeBreakpoint(site + VMRUN_LENGTH);
    const vmcb12 = await gdb.readMemory(VMCB12_GPA, 0x1000);
    const common = {
      fresh,
      before: before.image(),
      vmcb12Gpa: scenario.l1.rax,
      vmcb12Before,
      vmcb12,
      startedAt,
      stoppedAt,
    };
    const after = await this.#view();
    const rip = after.get("rip");
    if (stop?.reason === "breakpoint" && this.#isStart(after)) {
      return { ...common, end: "shutdown", after: undefined };
    }
    if (stop?.reason === "breakpoint" && rip === site + VMRUN_LENGTH) {
      if (isBackInL1(pending, after, vmcb12)) {
        after.set("guest_mode", 0n);
        if (!scenario.l1.pae) after.set("gif", await this.#probeGif());
        return { ...common, end: "exit", after: after.image() };
      }
      return { ...common, end: "l2-port", after: after.set("guest_mode", 1n).image() };
    }
    // VMRUN faults or enters; without a trace of a #VMEXIT it entered, and L2 is what runs.
    const entered = rip !== site && vmcb12 !== undefined && pending.vmcb12 !== undefined &&
      Buffer.compare(vmcb12, pending.vmcb12) === 0;
    if (entered) after.set("guest_mode", 1n);
    const halted = /\bHLT=1/.test(await this.#monitor());
    return { ...common, end: halted ? "hlt" : "limit", after: after.image() };
  }

  /** The guest's own code faulted on the control registers that the scenario gives L1. */
  async #setupFailed(scenario: Scenario, fresh: boolean): Promise<ScenarioOutcome> {
    const vmcb12 = await this.#gdb.readMemory(VMCB12_GPA, 0x1000);
    const { cr0, cr3, cr4, efer, hsave, rax, rip, rflags } = scenario.l1;
    const before = new VcpuView();
    for (const [name, value] of Object.entries({ cr0, cr3, cr4, efer, rax, rip, rflags })) {
      before.set(name as "cr0", value);
    }
    before.set("hsave_pa", hsave).set("gif", scenario.gif ? 1n : 0n);
    const now = performance.now();
    return {
      end: "shutdown",
      fresh,
      before: before.image(),
      after: undefined,
      vmcb12Gpa: rax,
      vmcb12Before: vmcb12,
      vmcb12,
      startedAt: now,
      stoppedAt: now,
    };
  }

  async #enterL1(scenario: Scenario): Promise<void> {
    const { rip, rflags, rax } = scenario.l1;
    await Promise.all([
      this.#setRegister("rax", rax),
      this.#setRegister("rsp", L1_RSP),
      ...CLEARED.map((name) => this.#setRegister(name, 0n)),
      this.#setRegister("eflags", rflags),
      this.#setRegister("rip", rip),
    ]);
  }

  /**
   * Whether an NMI is taken: that is GIF. It runs the guest's own code in L1's place, so it comes last.
   * An NMI that is not taken is let in at the end, so that it does not hit the next scenario.
   */
  async #probeGif(): Promise<bigint | undefined> {
    const counter = PARAMETERS_AT + GUEST_PARAMETERS.nmis;
    const armed = await this.#goTo("probe", "probe_armed", "start");
    if (armed === "start") return undefined;
    await this.#gdb.monitor("nmi");
    await this.#goTo("probe_go", "probe_seen");
    const taken = (await this.#gdb.readMemory(counter, 1))?.[0] ?? 0;
    await this.#goTo("probe_drain", "probe_end");
    const drained = (await this.#gdb.readMemory(counter, 1))?.[0] ?? 0;
    this.#usable = true;
    // An NMI that never came, as with another -cpu, says nothing about GIF.
    return drained === 0 ? undefined : BigInt(taken);
  }

  async #reset(): Promise<void> {
    await this.#gdb.monitor("system_reset");
    // The reset is done by QEMU's main loop some time after the monitor has answered.
    const deadline = performance.now() + OWN_CODE_MS;
    for (;;) {
      const registers = await this.#gdb.registers(this.#thread);
      if (registers.need("rip") === 0xfff0n && registers.need("cs") === 0xf000n) return;
      if (performance.now() > deadline) {
        throw new GdbError("timeout", "QEMU does not reset its machine; try another QEMU");
      }
    }
  }

  async #goTo(from: ScenarioLabel, ...to: ScenarioLabel[]): Promise<ScenarioLabel> {
    await this.#setRegister("rip", BigInt(this.#at[from]));
    return await this.#goOn(...to);
  }

  async #goOn(...to: ScenarioLabel[]): Promise<ScenarioLabel> {
    this.#gdb.resume();
    const stop = await this.#stop(OWN_CODE_MS);
    const registers = await this.#gdb.registers(this.#thread);
    const rip = registers.need("rip");
    const reached = to.find((label) =>
      label === "start"
        ? rip === 0n && registers.need("cs") === 0xf000n
        : rip === BigInt(this.#at[label])
    );
    if (stop?.reason !== "breakpoint" || reached === undefined) {
      throw new GdbError(
        "protocol",
        `The guest stopped at ${rip.toString(16)} (${stop?.text ?? "time limit"}) on its way to ${
          to.join(" or ")
        }; QEMU must be 7.2 or newer with -cpu max`,
      );
    }
    return reached;
  }

  #isStart(view: VcpuView): boolean {
    return view.get("rip") === 0n && view.get("cs_selector") === 0xf000n;
  }

  /** The next stop; after the time limit the guest is interrupted, and the result is undefined. */
  async #stop(limitMs: number): Promise<GdbStop | undefined> {
    const stop = await this.#gdb.stopped(limitMs);
    if (stop?.reason === "gone") throw new GdbError("closed", "QEMU ended while a scenario ran");
    if (stop) return stop;
    this.#gdb.interrupt();
    const late = await this.#gdb.stopped(OWN_CODE_MS);
    // A breakpoint can be hit between the limit and the interrupt.
    return late?.reason === "breakpoint" ? late : undefined;
  }

  async #setRegister(name: string, value: bigint): Promise<void> {
    await this.#gdb.setRegister(this.#thread, name, value);
  }

  async #monitor(): Promise<string> {
    return monitorSection(await this.#gdb.monitor("info registers"), 0);
  }

  async #view(): Promise<VcpuView> {
    const registers = await this.#gdb.registers(this.#thread);
    return new VcpuView().addRegisters(registers).addMonitor(await this.#monitor());
  }
}

/** The parameters of a case, as the guest reads them at {@linkcode PARAMETERS_AT}. */
export function parameters(scenario: Scenario): Uint8Array {
  const bytes = new Uint8Array(0x40);
  const view = new DataView(bytes.buffer);
  const { l1 } = scenario;
  for (const name of ["hsave", "cr4", "cr3", "efer", "cr0"] as const) {
    view.setBigUint64(GUEST_PARAMETERS[name], l1[name], true);
  }
  view.setUint32(GUEST_PARAMETERS.gif, scenario.gif ? 1 : 0, true);
  view.setUint32(GUEST_PARAMETERS.pae, l1.pae ? 1 : 0, true);
  view.setUint32(GUEST_PARAMETERS.keepmem, scenario.keepmem ? 1 : 0, true);
  return bytes;
}
