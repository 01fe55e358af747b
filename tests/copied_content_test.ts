/** Logged runs that are shown whole: one of them speaks for those that differ in registers that are copied. */
import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import {
  MemoizedReplayer,
  type Mismatch,
  POLICIES,
  type Policy,
  REGS_LAYOUT,
  Replayer,
  type TraceEvent,
  VMCB_LAYOUT,
} from "../engine/mod.ts";
import { copiedContentOf } from "../engine/replay/copied_content.ts";
import { type LoggedRun, LoggedRunCollector } from "../engine/replay/logged_runs.ts";
import { PartialReplayer } from "../engine/replay/partial.ts";
import { imageOf, L1, L2, SEEN, type Values } from "./debugger_sight.ts";

/** Something that is so most of the time, and else one of other things. */
function mostly<T>(value: T, ...others: T[]): fc.Arbitrary<T> {
  return fc.oneof(
    { weight: 12, arbitrary: fc.constant(value) },
    { weight: 1, arbitrary: fc.constantFrom(...others) },
  );
}

/** Registers that are copied on the way into L2 and out; some that are not come with them. */
const OF_L2 = [
  "rip",
  "rsp",
  "rax",
  "cr2",
  "lstar",
  "fs_base",
  "gs_base",
  "sysenter_eip",
  "tr_base",
];
const VALUE = fc.constantFrom(0n, 1n, 0x8000n, 0xffff_ffff_8180_0000n, (1n << 64n) - 1n);
const REGISTERS = fc.record({
  ...Object.fromEntries(OF_L2.map((name) => [`save.${name}`, VALUE])),
  "save.cr0": mostly(0x10n, 0x11n, 0x20000010n),
  "save.tr_base": mostly(0n, 1n),
});

/** A run: what is there before, what of it is otherwise after, and what is told of it. */
const RUN = fc.record({
  before: REGISTERS,
  after: REGISTERS,
  /** Registers that a #VMEXIT writes, and others. */
  changed: fc.tuple(
    fc.subarray(["rip", "rsp", "rax", "cr2"]),
    mostly<string[]>([], ["lstar"], ["gs_base"], ["tr_base"]),
  ).map((names) => names.flat()),
  rsp: VALUE,
  rspAfter: mostly<bigint | undefined>(undefined, 0n, 1n),
  rbx: VALUE,
  info: VALUE,
  intInfo: mostly(0n, 0x330n, 0x80000302n),
  eventInj: mostly(0n, 0x80000330n, 0x80000480n),
  code: mostly(0x7bn, 0x78n, 0xffffffffn),
});

type Run = typeof RUN extends fc.Arbitrary<infer T> ? T : never;

function* eventsOf(
  runs: Iterable<Run>,
  source: string,
): Generator<TraceEvent> {
  const vcpu = 0;
  yield { kind: "session", vcpu, meta: { source, transitions: true } };
  yield { kind: "memory", vcpu, gpa: 0x2000n, data: { bytes: new Uint8Array(4096).fill(0xff) } };
  for (const run of runs) {
    const after: Values = run.after;
    const changed = Object.fromEntries(
      run.changed.map((name) => [`save.${name}`, after[`save.${name}`] ?? 0x77n]),
    );
    const there = { ...L2, ...run.before, "control.event_inj": run.eventInj };
    const regs = { ...L1, rsp: run.rsp, rbx: run.rbx };
    const bytes = (values: Values) => ({ bytes: imageOf(REGS_LAYOUT, values), known: SEEN });
    yield {
      kind: "vmrun",
      vcpu,
      rip: L1["rip"]! + 3n,
      vmcb12_gpa: L1["rax"]!,
      regs: bytes(regs),
      vmcb12: { bytes: imageOf(VMCB_LAYOUT, there) },
    };
    yield {
      kind: "exit",
      vcpu,
      vmcb12_gpa: L1["rax"]!,
      regs: bytes({
        ...regs,
        rip: L1["rip"]! + 3n,
        rsp: run.rspAfter ?? run.rsp,
        rbx: 5n,
      }),
      vmcb12: {
        bytes: imageOf(VMCB_LAYOUT, {
          ...there,
          ...changed,
          "control.event_inj": 0n,
          "control.exit_code": run.code,
          "control.exit_info_1": run.info,
          "control.exit_int_info": run.intInfo,
        }),
      },
    };
  }
}

function replayed(
  events: readonly TraceEvent[],
  of: (report: (one: Mismatch) => void) => Replayer | MemoizedReplayer,
) {
  const found: Mismatch[] = [];
  const replayer = of((one) => found.push(one));
  for (const event of events) replayer.feed(event);
  return { result: replayer.finish(), found };
}

Deno.test("a run that is shown whole says for others like it what each of them says alone", () => {
  const count = { runs: 0, carriedOut: 0, whole: 0, contradicted: 0 };
  fc.assert(
    fc.property(
      fc.array(RUN, { minLength: 20, maxLength: 40 }),
      fc.constantFrom(...Object.values(POLICIES)),
      fc.constantFrom("qemu", "kvm"),
      (log, policy: Policy, source) => {
        const events = [...eventsOf(log, source)];
        const together = replayed(events, (report) => new MemoizedReplayer(policy, report));
        assertEquals(together, replayed(events, (report) => new Replayer(policy, report)));
        const runs: LoggedRun[] = [];
        const collector = new LoggedRunCollector((run) => runs.push(run));
        events.forEach((event, i) => collector.claims(event) && collector.feed(event, i));
        collector.finish();
        const replayer = new PartialReplayer(policy, () => {});
        for (const run of runs) replayer.take(run);
        count.runs += runs.length;
        count.carriedOut += replayer.carriedOut;
        count.whole += runs.filter((run) => copiedContentOf(run) !== 0).length;
        count.contradicted += new Set(together.found.map(({ event }) => event)).size;
      },
    ),
    { numRuns: 40 },
  );
  assert(count.contradicted > 50 && count.whole > count.runs / 4, JSON.stringify(count));
  assert(count.carriedOut < 0.75 * count.runs, JSON.stringify(count));
});
