/**
 * Round trips to measure with: a steady loop, and a mix of scenarios half of
 * which fail.
 *
 * @module
 */
import { importTracepoints, TraceWriter } from "../codecs/mod.ts";
import type { TraceEvent } from "../engine/event.ts";
import { fieldNamed, writeField } from "../engine/image/fields.ts";
import type { Layout } from "../engine/layout.ts";
import type { Policy } from "../engine/policy.ts";
import { REGS_LAYOUT } from "../engine/svm/regs_layout.ts";
import { VMCB_LAYOUT } from "../engine/svm/vmcb_fields.ts";
import { builtinScenarios } from "../traces/scenarios/builtin.ts";
import { Emulator } from "../traces/scenarios/emulator.ts";
import { generate } from "../traces/generate/generate.ts";
import { recordScenarios } from "../traces/scenarios/record.ts";
import type { Scenario } from "../traces/scenarios/scenario.ts";
import { parseScenario } from "../traces/scenarios/scenario_reader.ts";

/** Rounds after which the loop's machine begins each round alike. */
const SETTLED = 4;
/** Scenarios of the mix. */
const MIXED = 200;

/**
 * L1 in a loop that executes VMRUN with a valid vmcb12; L2's VMMCALL gives
 * control back. Set up once: a round is VMRUN with L1's registers and vmcb12,
 * the kernel's state after VMRUN and after #VMEXIT, and what userspace sees.
 *
 * @param policy The policy it is recorded under.
 * @param rounds How many round trips.
 */
export function* steadyLoop(policy: Policy, rounds: number): Generator<TraceEvent> {
  const all = [...recordScenarios(builtinScenarios("enter"), policy, { repeat: SETTLED })];
  const last = all.findLastIndex((event) => event.kind === "case");
  yield* all.slice(0, last);
  const round = all.slice(last).filter(({ kind }, i) =>
    kind !== "case" && kind !== "memory" && (kind !== "regs" || all[last + i + 1] === undefined)
  );
  for (let i = SETTLED - 1; i < rounds; i++) yield* round;
}

/**
 * A loop as a machine at work goes through it: the same way in and out each time, with other values
 * in vmcb12's RSP, RAX, CR2 and the TSC offset, so that no two rounds are the same.
 *
 * @param rounds How many round trips.
 */
export function varyingScenarios(rounds: number): Scenario[] {
  return Array.from({ length: rounds }, (_, i) => {
    const hex = (value: number) => value.toString(16);
    const walk = (i * 2654435761) % 2 ** 32;
    const spec = `s.1d8=${hex(0x7000 - i % 64 * 8)} s.1f8=${hex(walk)} s.240=${hex(i)} c.50=${
      hex(i)
    }`;
    return parseScenario(`round${i} ${spec}${i === 0 ? "" : " keepvm keepmem"}`);
  });
}

/**
 * That loop, recorded.
 *
 * @param policy The policy it is recorded under.
 * @param rounds How many round trips.
 */
export function varyingLoop(policy: Policy, rounds: number): Generator<TraceEvent> {
  return recordScenarios(varyingScenarios(rounds), policy);
}

/**
 * Scenarios of VMRUN, each different, every second one failing a check.
 *
 * @param policy The policy under which they fail.
 * @param count How many.
 */
export function mixedScenarios(policy: Policy, count = MIXED): Scenario[] {
  const emulator = new Emulator(policy, { npt: true });
  const found = { good: [] as Scenario[], bad: [] as Scenario[] };
  const half = count / 2;
  for (const line of generate({ seed: 7, count: 20 * count, entries: ["vmrun"], sequences: 0 })) {
    const scenario = parseScenario(line);
    const { events, post } = emulator.run(scenario);
    if (emulator.vcpu?.unmodelled || post?.rc !== 0) continue;
    const failed = events.some((event) => "check_failed" in event);
    const list = failed ? found.bad : found.good;
    if (list.length < half) list.push(scenario);
    if (found.good.length + found.bad.length === count) break;
  }
  return found.bad.flatMap((bad, i) => [bad, found.good[i]!]);
}

/**
 * The mix so many VMRUNs long, on one vCPU.
 *
 * @param policy The policy it is recorded under.
 * @param runs How many VMRUNs, rounded up to whole rounds of the mix.
 */
export function mix(policy: Policy, runs: number): Generator<TraceEvent> {
  const scenarios = mixedScenarios(policy);
  return recordScenarios(scenarios, policy, { repeat: Math.ceil(runs / scenarios.length) });
}

/**
 * A log of tracepoints: VMRUNs that L2 leaves again, each from another place in its code and every
 * second one for another address, every tenth refused.
 *
 * @param runs How many VMRUNs.
 * @param spaces How many address spaces L2 takes turns with: as many other values in a field that is checked.
 */
export async function* log(runs: number, spaces = 1): AsyncGenerator<TraceEvent> {
  const hex = (value: number) => `0x${value.toString(16).padStart(16, "0")}`;
  let lines = "";
  let time = 1;
  const line = (name: string, values: string) => {
    lines += ` qemu-system-x86-31    [000]  ${(time += 1e-5).toFixed(6)}: ${name}: ${values}\n`;
  };
  for (let i = 0; i < runs; i++) {
    const rip = hex(0x400000 + i), cr3 = hex(0x1074000 + 4096 * (i % spaces));
    line(
      "kvm_nested_vmenter",
      `rip: ${hex(0x400863)} vmcb: ${hex(0x799a000)} nested_rip: ${rip} int_ctl: 0x00000000 ` +
        `event_inj: 0x00000000 nested_npt=y nested_cr3: ${cr3}`,
    );
    line(
      "kvm_nested_intercepts",
      "cr_read: 0000 cr_write: 0000 excp: 00000000 intercepts: 80000000 00000003 00000000",
    );
    if (i % 10 === 9) {
      line("kvm_nested_vmenter_failed", "!kvm_vcpu_is_legal_cr3(vcpu, cr3)");
      continue;
    }
    const faults = i % 2 === 1;
    const reason = faults ? "npf" : "hypercall";
    const error = hex(faults ? 0x100000014 : 0), address = hex(faults ? 4096 * i : 0);
    const left = `info1 ${error} info2 ${address} intr_info 0x00000000 error_code 0x00000000`;
    line("kvm_nested_vmexit", `vcpu 0 reason ${reason} rip ${rip} ${left}`);
    line(
      "kvm_nested_vmexit_inject",
      `reason: ${reason} ext_inf1: ${error} ext_inf2: ${address} ext_int: 0x00000000 ` +
        "ext_int_err: 0x00000000",
    );
  }
  for await (const batch of importTracepoints(new TextEncoder().encode(lines))) yield* batch;
}

/** Registers of L1's, and vmcb12 of an L2 with nested paging. */
const L1 = {
  rflags: 2n,
  rax: 0x799a000n,
  cr0: 0x80000011n,
  cr3: 0x1000n,
  cr4: 0x20n,
  efer: 0x1500n,
  dr6: 0xffff0ff0n,
  dr7: 0x400n,
  cs_attrib: 0xa9bn,
  cs_limit: 0xffffffffn,
};
/** Those that a debugger sees: neither VM_HSAVE_PA, nor GIF, nor what is queued. */
const SEEN: Uint8Array = new Uint8Array(REGS_LAYOUT.size).fill(0xff, 0, 0x1a0);
SEEN.fill(0, fieldNamed(REGS_LAYOUT, "hsave_pa").offset, 0x100);

const VMCB12 = {
  "control.intercept_word4": 3n,
  "control.msrpm_base_pa": 0x30000n,
  "control.iopm_base_pa": 0x34000n,
  "control.asid": 1n,
  "control.nested_ctl": 1n,
  "control.nested_cr3": 0x1074000n,
  "save.efer": 0x1500n,
  "save.cr0": 0x80000011n,
  "save.cr3": 0x40000n,
  "save.cr4": 0x20n,
  "save.rflags": 2n,
  "save.dr6": 0xffff0ff0n,
  "save.dr7": 0x400n,
};

/**
 * What a debugger sees of a hypervisor: each VMRUN and #VMEXIT whole, and nothing of what ran between.
 * L2 has other registers each time.
 *
 * @param runs How many VMRUNs.
 */
export function* seenWhole(runs: number): Generator<TraceEvent> {
  const image = (layout: Layout, values: Readonly<Record<string, bigint>>) => {
    const bytes = new Uint8Array(layout.size);
    for (const [name, value] of Object.entries(values)) {
      writeField(bytes, fieldNamed(layout, name), value);
    }
    return { bytes };
  };
  const where = { vcpu: 0, vmcb12_gpa: L1.rax };
  yield { kind: "session", vcpu: 0, meta: { source: "qemu", transitions: true } };
  for (let i = 0; i < runs; i++) {
    const rsp = BigInt(0x8000 - i % 64 * 8), count = BigInt(i);
    const before = { ...VMCB12, "save.rip": 0x400000n + count, "save.rsp": rsp, "save.rax": count };
    const l1 = { ...L1, rip: 0x400860n, rsp: 0x7000n, rbx: count, rcx: 2n * count };
    yield {
      kind: "vmrun",
      ...where,
      rip: l1.rip + 3n,
      regs: { ...image(REGS_LAYOUT, l1), known: SEEN },
      vmcb12: image(VMCB_LAYOUT, before),
    };
    const after = { ...l1, rip: l1.rip + 3n, rbx: 3n * count };
    const left = { "control.exit_code": 0x81n, "save.rip": before["save.rip"] + 9n };
    yield {
      kind: "exit",
      ...where,
      regs: { ...image(REGS_LAYOUT, after), known: SEEN },
      vmcb12: image(VMCB_LAYOUT, { ...before, ...left }),
    };
  }
}

/**
 * Events as the blocks of a trace, in memory.
 *
 * @param events The events.
 */
export async function encode(
  events: AsyncIterable<TraceEvent> | Iterable<TraceEvent>,
): Promise<Uint8Array[]> {
  const chunks: Uint8Array[] = [];
  const writer = new TraceWriter({ write: (chunk) => void chunks.push(chunk) });
  for await (const event of events) writer.write(event);
  writer.close();
  return chunks;
}
