/** Logged runs that are alike in what counts: one of them is carried out, and it speaks for the others. */
import { assert, assertEquals, assertNotEquals } from "@std/assert";
import fc from "fast-check";
import {
  checkByText,
  Differ,
  FIXES,
  type Image,
  kernelPolicy,
  LINUX_6_12,
  list,
  MemoizedDiffer,
  MemoizedReplayer,
  type Mismatch,
  OK,
  POLICIES,
  type Policy,
  Replayer,
  type RunDifference,
  type Step,
  type TraceEvent,
  UNIFIED,
  VMCB_LAYOUT,
  VMCB_SIZE,
  withFixes,
} from "../engine/mod.ts";
import { PartialDiffer } from "../engine/diff/partial_differ.ts";
import { fieldNamed, readBigint, writeField } from "../engine/image/fields.ts";
import { contentOf } from "../engine/replay/logged_content.ts";
import { assumptionOf } from "../engine/replay/logged_driver.ts";
import { type LoggedRun, LoggedRunCollector } from "../engine/replay/logged_runs.ts";
import {
  type Contradiction,
  type PartialOptions,
  PartialReplayer,
} from "../engine/replay/partial.ts";
import { REGS_LAYOUT } from "../engine/svm/regs_layout.ts";
import { LoggedOutcomes } from "../report/logged_outcomes.ts";

/** A vmcb12 of which some fields were seen. */
function vmcb(values: Readonly<Record<string, bigint>>): Image {
  const bytes = new Uint8Array(VMCB_SIZE), known = new Uint8Array(VMCB_SIZE);
  for (const [name, value] of Object.entries(values)) {
    const row = fieldNamed(VMCB_LAYOUT, name);
    const all = (1n << BigInt(8 * row.size)) - 1n;
    writeField(bytes, row, value & all);
    writeField(known, row, all);
  }
  return { bytes, known };
}

function regs(rip: bigint): Image {
  const bytes = new Uint8Array(REGS_LAYOUT.size), known = new Uint8Array(REGS_LAYOUT.size);
  const row = fieldNamed(REGS_LAYOUT, "rip");
  writeField(bytes, row, rip);
  writeField(known, row, (1n << 64n) - 1n);
  return { bytes, known };
}

/** Values that are only copied, and those that processors and kernels like to look at. */
const ADDRESS = fc.oneof(
  fc.constantFrom(0n, 1n, 0x400000n, 0xffff_ffffn, 1n << 47n, (1n << 64n) - 1n),
  fc.bigInt(0n, (1n << 64n) - 1n),
);

/** What a log shows of a VMRUN. */
interface Shown {
  readonly rip: bigint;
  readonly l2rip: bigint | undefined;
  readonly info: readonly [bigint, bigint];
  readonly intercepts: bigint;
  readonly eventInj: bigint;
  readonly cr3: bigint;
  readonly npt: boolean;
  readonly check: string | undefined;
  readonly code: bigint | undefined;
  /** What it shows of L2's RIP after the #VMEXIT. */
  readonly left: bigint | undefined;
  /** What it shows of the TSC offset after the #VMEXIT, and before VMRUN. */
  readonly tsc?: bigint | undefined;
  readonly before?: bigint | undefined;
  /** What it shows of EVENTINJ after the #VMEXIT. */
  readonly injected?: bigint | undefined;
}

/** What is only copied on the way into L2 and out. */
const COPIED = fc.record({
  rip: ADDRESS,
  l2rip: fc.option(ADDRESS, { nil: undefined }),
  info: fc.tuple(ADDRESS, ADDRESS),
});

/** All else, with what the log shows of L2's RIP where that is held against the replay. */
const KIND = fc.record({
  intercepts: fc.constantFrom(3n, 3n, 3n, 2n),
  eventInj: fc.constantFrom(0n, 0x80000302n, 0x80000430n),
  cr3: fc.constantFrom(0x1074000n, 1n << 51n),
  npt: fc.boolean(),
  check: fc.constantFrom(
    undefined,
    undefined,
    "control->asid == 0",
    "!kvm_vcpu_is_legal_cr3(vcpu, cr3)",
  ),
  code: fc.constantFrom(0x81n, 0x400n, 0xffffffffn, undefined),
  left: fc.option(ADDRESS, { nil: undefined, freq: 1 }),
  injected: fc.constantFrom(undefined, undefined, 0n, 0x80000302n, 0x302n),
  tsc: fc.constantFrom(undefined, undefined, 0n, 5n, 0x7fffn),
});

/** Logs of few kinds of VMRUNs. */
const LOG: fc.Arbitrary<Shown[]> = fc.array(KIND, { minLength: 1, maxLength: 3 }).chain((kinds) =>
  fc.array(fc.tuple(fc.nat(kinds.length - 1), COPIED), { minLength: 4, maxLength: 24 })
    .map((runs) => runs.map(([kind, copied]) => ({ ...kinds[kind]!, ...copied })))
);

function* eventsOf(runs: readonly Shown[]): Generator<TraceEvent> {
  const vcpu = 0;
  yield { kind: "session", vcpu, meta: { source: "kvm-tracepoints" } };
  for (const run of runs) {
    const { rip, l2rip, info, intercepts, eventInj, cr3, npt, check, code, left, tsc, before } =
      run;
    const { injected } = run;
    const vmcb12 = vmcb({
      "control.intercept_word3": 0x80000000n,
      "control.intercept_word4": intercepts,
      "control.event_inj": eventInj,
      "control.nested_ctl": npt ? 1n : 0n,
      [npt ? "control.nested_cr3" : "save.cr3"]: cr3,
      "save.rip": rip,
      ...(before === undefined ? {} : { "control.tsc_offset": before }),
    });
    yield { kind: "vmrun", vcpu, rip: 0x400863n, vmcb12_gpa: 0x799a000n, vmcb12 };
    if (check !== undefined) {
      yield { kind: "check", vcpu, check: checkByText(check)!.id, text: check };
    } else if (l2rip !== undefined) yield { kind: "l2exit", vcpu, regs: regs(l2rip) };
    if (code === undefined) continue;
    const exited = vmcb({
      "control.exit_code": code,
      "control.exit_info_1": info[0],
      "control.exit_info_2": info[1],
      ...(left === undefined ? {} : { "save.rip": left }),
      ...(tsc === undefined ? {} : { "control.tsc_offset": tsc }),
      ...(injected === undefined ? {} : { "control.event_inj": injected }),
    });
    yield { kind: "exit", vcpu, vmcb12: exited };
  }
}

/** The logged runs of a log, each with what a replay says of it; what it says of the order apart. */
function said(
  events: Iterable<TraceEvent>,
  replayerOf: (report: (found: Contradiction) => void) => () => PartialReplayer,
) {
  const found: Contradiction[] = [];
  const next = replayerOf((one) => {
    if (!/printed/.test(one.recorded + one.replayed)) found.push(one);
  });
  const all: { readonly run: LoggedRun; readonly found: readonly Contradiction[] }[] = [];
  const collector = new LoggedRunCollector((run) => {
    next().take(run);
    all.push({ run, found: found.splice(0) });
  });
  let index = 0;
  for (const event of events) {
    if (collector.claims(event)) collector.feed(event, index);
    index++;
  }
  collector.finish();
  return all;
}

const together = (policy: Policy) => (report: (found: Contradiction) => void) => {
  const replayer = new PartialReplayer(policy, report);
  return () => replayer;
};
const alone = (policy: Policy) => (report: (found: Contradiction) => void) => () =>
  new PartialReplayer(policy, report, { each: true });

/** The logged runs of a log. */
function runsOf(log: readonly Shown[]): LoggedRun[] {
  const runs: LoggedRun[] = [];
  const collector = new LoggedRunCollector((run) => runs.push(run));
  let index = 0;
  for (const event of eventsOf(log)) {
    if (collector.claims(event)) collector.feed(event, index++);
  }
  collector.finish();
  return runs;
}

/** A replay, and what it says. */
function replayOf(policy: Policy, options: PartialOptions) {
  const found: Contradiction[] = [];
  return { found, replayer: new PartialReplayer(policy, (one) => found.push(one), options) };
}

Deno.test("what one run says for others like it is what each of them says alone", () => {
  let shared = 0, contradicted = 0;
  fc.assert(
    fc.property(
      LOG,
      fc.constantFrom(...Object.values(POLICIES)),
      (runs, policy) => {
        const a = said(eventsOf(runs), together(policy)), b = said(eventsOf(runs), alone(policy));
        assertEquals(a.map(({ found }) => found), b.map(({ found }) => found), policy.name);
        contradicted += b.filter(({ found }) => found.length > 0).length;
        const alike = new Set(a.map(({ run }) => contentOf(run).entered));
        const same = new Set(a.map(({ run }) => contentOf(run).all));
        shared += same.size - alike.size;
      },
    ),
    { numRuns: 60 },
  );
  assert(shared > 100, `${shared} runs are like others`);
  assert(contradicted > 50, `${contradicted} runs contradict a policy`);
});

/** A VMRUN that L2 leaves again, but for what is only copied. */
const PLAIN: Omit<Shown, "rip" | "l2rip" | "info"> = {
  intercepts: 3n,
  eventInj: 0n,
  cr3: 0x1074000n,
  npt: true,
  check: undefined,
  code: 0x400n,
  left: undefined,
};

Deno.test("of VMRUNs that differ only in what is copied, one is carried out", () => {
  const runs = Array.from({ length: 50 }, (_, i): Shown => (
    { ...PLAIN, rip: BigInt(i), l2rip: BigInt(7 * i), info: [BigInt(i % 3), BigInt(i)] }
  ));
  const carriedOut = (policy: Policy, all: readonly Shown[]) => {
    const replayer = new PartialReplayer(policy, () => {});
    said(eventsOf(all), () => () => replayer);
    return replayer.carriedOut;
  };
  for (const policy of Object.values(POLICIES)) {
    assertEquals(carriedOut(policy, runs), 1, policy.name);
    const refused = runs.map((run) => ({ ...run, check: "control->asid == 0", code: undefined }));
    assertEquals(carriedOut(policy, refused), 1, policy.name);
  }
  // What a step of one's own goes by is not known.
  const step: Step = { name: "look at RIP", doc: "Looks at L2's RIP", run: () => OK };
  const ways = { ...LINUX_6_12.ways, vmrun: [...list([step]), ...LINUX_6_12.ways.vmrun] };
  assertEquals(carriedOut({ ...LINUX_6_12, name: "own", ways }, runs), 50);
});

Deno.test("what contradicts one way of filling in the unknown alone is not said of a policy", () => {
  const plain: Shown = { ...PLAIN, rip: 0n, l2rip: undefined, info: [0n, 0n] };
  const row = fieldNamed(VMCB_LAYOUT, "control.tsc_offset");
  const { run } = said(eventsOf([plain]), together(LINUX_6_12))[0]!;
  const filled = [0, 1, 2, 3].map((i) => readBigint(assumptionOf(run, i)!.vmcb12, row));
  assertEquals(filled.slice(0, 2), [0n, 0n]);
  for (const policy of Object.values(POLICIES)) {
    const fields = (tsc: bigint, before?: bigint) =>
      said(eventsOf([{ ...plain, tsc, before }]), together(policy))
        .flatMap(({ found }) => found.map(({ field }) => field));
    for (const tsc of filled) assertEquals(fields(tsc), [], policy.name);
    assertEquals(fields(filled[2]!, filled[2]), [], policy.name);
    assertEquals(fields(filled[2]!, 0n), ["exit.vmcb12 control.tsc_offset"], policy.name);
  }
});

Deno.test("what a run came to is taken over by policies that come by the same steps, by no others", () => {
  const fixes = fc.subarray(FIXES.map(({ id }) => id));
  const count = { unshared: 0, carriedOut: 0, apart: 0 };
  fc.assert(
    fc.property(LOG, fc.array(fixes, { minLength: 2, maxLength: 6 }), (log, chosen) => {
      const policies = [...chosen.map((some) => kernelPolicy(withFixes(some))), UNIFIED];
      const runs = runsOf(log);
      const together = policies.map((policy) => replayOf(policy, { trails: true }));
      for (const run of runs) {
        together.forEach(({ replayer }, i) =>
          replayer.take(run, together.slice(0, i).map((other) => other.replayer))
        );
      }
      const said = together.map(({ replayer, found }) => ({ result: replayer.finish(), found }));
      const alone = policies.map((policy) => {
        const { replayer, found } = replayOf(policy, { each: true });
        for (const run of runs) replayer.take(run);
        return { result: replayer.finish(), found };
      });
      assertEquals(said, alone);
      for (const policy of policies) {
        const { replayer } = replayOf(policy, {});
        for (const run of runs) replayer.take(run);
        count.unshared += replayer.carriedOut;
      }
      for (const { replayer } of together) count.carriedOut += replayer.carriedOut;
      if (new Set(alone.map(({ found }) => found.length)).size > 1) count.apart++;
    }),
    { numRuns: 40 },
  );
  assert(count.apart > 5 && count.carriedOut < 0.8 * count.unshared, JSON.stringify(count));
});

Deno.test("a run's content has all of it but its place in the log", () => {
  const [first, ...others] = said(
    eventsOf([0, 1, 2, 3, 4].map((i) => ({
      ...PLAIN,
      rip: i === 1 ? 5n : 4n,
      l2rip: i === 2 ? 7n : 6n,
      info: [8n, i === 3 ? 10n : 9n],
    }))),
    together(LINUX_6_12),
  ).map(({ run }) => contentOf(run));
  assertEquals(others.map(({ entered }) => entered === first!.entered), [true, true, true, true]);
  assertEquals(others.map(({ refused }) => refused === first!.refused), [true, true, false, true]);
  assertEquals(others.map(({ all }) => all === first!.all), [false, false, false, true]);
  assertNotEquals(others[0]!.all, others[1]!.all);
});

Deno.test("L2's RIP counts where the #VMEXIT shows what became of it", () => {
  const runs = [4n, 5n].map((rip): Shown => ({
    ...PLAIN,
    rip,
    l2rip: undefined,
    info: [0n, 0n],
    check: "control->asid == 0",
    code: 0xffffffffn,
    left: 5n,
  }));
  const fields = said(eventsOf(runs), together(LINUX_6_12))
    .map(({ found }) => found.map(({ field }) => field).join());
  assertEquals(fields, ["exit.vmcb12 save.rip", ""]);
});

Deno.test("what two policies part in is for others like a run what it is for each alone", () => {
  let shared = 0, told = 0;
  const policies = fc.shuffledSubarray(Object.values(POLICIES), { minLength: 2, maxLength: 2 });
  fc.assert(
    fc.property(LOG, policies, (log, [a, b]) => {
      const runs = runsOf(log);
      const together = new PartialDiffer(a!, b!);
      for (const run of runs) {
        const answer = together.compare(run);
        assertEquals(answer, new PartialDiffer(a!, b!).compare(run), `${a!.name} ${b!.name}`);
        if (typeof answer === "object") told++;
      }
      shared += runs.length - together.carriedOut;
    }),
    { numRuns: 30 },
  );
  assert(shared > 20, `${shared} runs were not carried out`);
  assert(told > 20, `${told} runs part policies`);
});

Deno.test("with each run of a log carried out, replay and diff say the same", () => {
  const policies = fc.shuffledSubarray(Object.values(POLICIES), { minLength: 2, maxLength: 2 });
  fc.assert(
    fc.property(LOG, policies, (log, [a, b]) => {
      const events = [...eventsOf(log)];
      const replay = (
        of: (report: (found: Mismatch) => void) => Pick<Replayer, "feed" | "finish">,
      ) => {
        const found: Mismatch[] = [];
        const replayer = of((one) => found.push(one));
        for (const event of events) replayer.feed(event);
        return { result: replayer.finish(), found };
      };
      assertEquals(
        replay((report) => new MemoizedReplayer(a!, report)),
        replay((report) => new Replayer(a!, report)),
      );
      const diff = (of: (report: (found: RunDifference) => void) => Differ | MemoizedDiffer) => {
        const found: RunDifference[] = [];
        const differ = of((one) => found.push(one));
        for (const event of events) differ.feed(event);
        return { result: differ.finish(), found };
      };
      assertEquals(
        diff((report) => new MemoizedDiffer([a!, b!], report)),
        diff((report) => new Differ([a!, b!], report, { each: true })),
      );
    }),
    { numRuns: 15 },
  );
});

Deno.test("what a report tells of a run like others is what it tells of it alone", () => {
  const policies = Object.values(POLICIES).slice(0, 3);
  let alike = 0;
  fc.assert(
    fc.property(LOG, (log) => {
      const outcomes = new LoggedOutcomes(policies);
      const seen = new Set<unknown>();
      for (const { run } of said(eventsOf(log), together(LINUX_6_12))) {
        const sides = outcomes.of(run);
        if (seen.has(sides)) alike++;
        seen.add(sides);
        assertEquals(sides, new LoggedOutcomes(policies, true).of(run));
      }
    }),
    { numRuns: 10 },
  );
  assert(alike > 20, `${alike} runs are like others`);
});
