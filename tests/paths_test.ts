/**
 * Following a path gives what carrying out its steps gives, and depends on nothing else.
 */
import { assert, assertEquals } from "@std/assert";
import { Buffer } from "node:buffer";
import fc from "fast-check";
import type { TraceEvent } from "../engine/event.ts";
import type { Observer, ShownImage, Vcpu, Viewer } from "../engine/kvm/vcpu.ts";
import { LOOSE_FIELDS } from "../engine/kvm/loose_state.ts";
import { runVcpu } from "../engine/kvm/run.ts";
import { GuardTree } from "../engine/paths/guards.ts";
import { PathRecorder } from "../engine/paths/recorder.ts";
import { RunPaths } from "../engine/paths/paths.ts";
import type { Policy } from "../engine/policy.ts";
import { EARLY_EXIT, LINUX_6_1, UNIFIED, UPSTREAM } from "../engine/policies/mod.ts";
import { Differ } from "../engine/diff/differ.ts";
import type { RunDifference } from "../engine/diff/run_difference.ts";
import { Driver } from "../engine/replay/drive.ts";
import { Replayer } from "../engine/replay/replayer.ts";
import { INNER_VIEWER, REGS_VIEWER, regsBytes } from "../engine/replay/views.ts";
import { ImageBuffer } from "../engine/svm/image_buffer.ts";
import { REGS_SIZE } from "../engine/svm/regs_layout.ts";
import { Machine, MACHINE_SIZE, MAPPED_AT, V } from "../engine/svm/machine.ts";
import { copyEvent } from "../codecs/mod.ts";
import { generate } from "../traces/generate/generate.ts";
import { recordScenarios } from "../traces/scenarios/record.ts";
import { parseScenario } from "../traces/scenarios/scenario_reader.ts";

const KERNELS = [EARLY_EXIT, LINUX_6_1, UPSTREAM] as const;
/** Events behind which a run is over, or stands still. */
const RUNS: ReadonlySet<string> = new Set(["vmrun", "setstate", "run", "rsm", "restore"]);

function cases(seed: number, count: number) {
  return [...generate({ seed, count })].map((line) => parseScenario(line));
}

async function record(seed: number, count: number, policy: Policy, npt: boolean, repeat: number) {
  const events = recordScenarios(cases(seed, count), policy, { npt, repeat });
  return await Array.fromAsync(events, copyEvent);
}

/** An image as it is shown on a path, or made of the state; as text. */
function shownAs(viewer: Viewer, ret: number, v: Vcpu, shown: ShownImage | undefined): string {
  const buffer = new ImageBuffer(viewer.size);
  if (shown === undefined) viewer.fill(v, ret, buffer);
  else shown.fill(buffer);
  return buffer.words.join();
}

/** Hears all that is told, or outcomes alone, with a number for the state at that moment. */
function listener(heard: string[], steps: boolean): Observer {
  // The work area is only looked at where steps are.
  const end = steps ? MACHINE_SIZE : MAPPED_AT;
  let mapped = 0;
  const hear = (text: string, v?: Vcpu) => {
    heard.push(v ? `${text} ${sumOf(v, mapped > 0 ? end : MAPPED_AT)}` : text);
  };
  return {
    check: (id) => hear(id),
    warn: (text) => hear(text),
    viewer: INNER_VIEWER,
    looker: {
      viewer: REGS_VIEWER,
      look: (v, shown) => hear(`look ${shownAs(REGS_VIEWER, 0, v, shown)}`),
    },
    inner: (at, ret, v, shown) => {
      hear(`${at} ${ret}`, v);
      hear(shownAs(INNER_VIEWER, ret, v, shown));
    },
    switched: (to, v) => hear(`vmcb0${to}`, v),
    ...(steps && {
      step: (step, v) => {
        hear(step.name, v);
        if (step.maps === true) mapped = 1;
      },
      begin: (way, v) => {
        mapped = 0;
        hear(`> ${way}`, v);
      },
      end: (way, outcome, v) => hear(`< ${way} ${outcome}`, v),
    }),
  };
}

function sumOf({ words, failedRet }: Vcpu, end: number): number {
  let sum = failedRet;
  for (let i = 0; i < end >> 2; i++) sum = Math.imul(sum, 31) + (words[i] as number) | 0;
  return sum;
}

/** The first place in which two vCPUs differ; the work area is nobody's between two transitions. */
function difference(a: Vcpu, b: Vcpu): string | undefined {
  for (const [from, to] of [[0, MAPPED_AT], [MACHINE_SIZE, a.bytes.length]] as const) {
    if (Buffer.compare(a.bytes.subarray(from, to), b.bytes.subarray(from, to)) === 0) continue;
    for (let i = from >> 2; i < to >> 2; i++) {
      if (a.words[i] !== b.words[i]) return `word at ${(i * 4).toString(16)}`;
    }
  }
  for (const name of LOOSE_FIELDS) if (a[name] !== b[name]) return name;
  for (const name of ["rc", "errno", "exit", "port"] as const) {
    if (a.result[name] !== b.result[name]) return name;
  }
  const pages = a.memory.pages();
  if (pages.join() !== b.memory.pages().join()) return "pages";
  for (const page of pages) {
    const x = a.memory.page(page * 4096), y = b.memory.page(page * 4096);
    if (Buffer.compare(x, y) !== 0) return `page ${page}`;
  }
  return undefined;
}

for (const policy of KERNELS) {
  for (const npt of [true, false]) {
    for (const steps of [true, false]) {
      const how = `${policy.name}, npt ${npt ? "on" : "off"}, ${steps ? "steps" : "outcomes"} told`;
      Deno.test(`a run that follows a path does what one does that is carried out: ${how}`, async () => {
        const events = await record(5, 40, policy, npt, 6);
        const carried: string[] = [], followed: string[] = [];
        const a = new Driver(policy), b = new Driver(policy);
        a.observer = listener(carried, steps);
        b.observer = listener(followed, steps);
        b.paths = new RunPaths(policy);
        let name = "";
        const feed = (event: TraceEvent, index: number) => {
          if (event.kind === "case") name = event.name ?? "";
          a.feed(event, index);
          b.feed(event, index);
          if (!RUNS.has(event.kind) || a.vcpu === undefined || b.vcpu === undefined) return;
          assertEquals(difference(a.vcpu, b.vcpu), undefined, `${name}, event ${index}`);
          assertEquals(followed, carried, name);
          carried.length = followed.length = 0;
          // Not behind every run: what was seen of one is nothing that another depends on.
          if (index % 3 !== 0) {
            a.look(userspaceLooks, seen);
            const words = seen.words.join();
            seen.words.fill(0);
            b.look(userspaceLooks, seen);
            assertEquals(seen.words.join(), words, name);
            assertEquals(difference(a.vcpu, b.vcpu), undefined, name);
          }
          a.vcpu.unmodelled = b.vcpu.unmodelled = "";
        };
        events.forEach(feed);
        assert(b.paths.seen.counts.followed > 30, JSON.stringify(b.paths.seen.counts));
      });
    }
  }
}

for (const npt of [true, false]) {
  Deno.test(`a diff that follows paths finds what one does that carries out: npt ${npt ? "on" : "off"}`, async () => {
    const loop = Array.from({ length: 30 }, (_, i) => (
      parseScenario(
        `round${i} s.1d8=${(0x7000 - i * 8).toString(16)} c.50=${i}${i % 7 === 3 ? " c.58=0" : ""}${
          i === 0 ? "" : " keepvm keepmem"
        }`,
      )
    ));
    const events = [
      ...await record(6, 30, UPSTREAM, npt, 5),
      ...await Array.fromAsync(recordScenarios(loop, UPSTREAM, { npt }), copyEvent),
    ];
    const policies = [EARLY_EXIT, UNIFIED, UPSTREAM];
    const find = (paths: boolean) => {
      const found: RunDifference[] = [];
      const differ = new Differ(policies, (difference) => void found.push(difference), { paths });
      for (const event of events) differ.feed(event);
      return { found, result: differ.finish() };
    };
    const carried = find(false);
    assert(carried.found.length > 30, String(carried.found.length));
    assertEquals(find(true), carried);
  });
}

/** A number that looks like none that a test would think of. */
function scrambled(number: number): number {
  return Math.imul(number ^ 0x5bd1e995, 0x9e3779b1) >>> 0;
}

/** Gives words that no path depends on other values. */
function scramble(v: Vcpu, guards: ReadonlySet<number>): void {
  const { words, memory } = v;
  for (let i = 0; i < words.length; i++) {
    // Which VMCB is active decides what is shown of a state, not only what becomes of it.
    if (!guards.has(i) && i !== V.active >> 2) words[i] = scrambled(i);
  }
  for (const page of memory.pages()) {
    const bytes = memory.writable(page * 4096);
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    for (let at = 0; at < 4096; at += 4) {
      const number = words.length + (page * 4096 + at) / 4;
      if (!guards.has(number)) view.setUint32(at, scrambled(number), true);
    }
  }
}

/** Hears what is shown. */
function images(heard: string[]): Observer {
  return {
    check: (id) => heard.push(id),
    warn: (text) => heard.push(text),
    viewer: INNER_VIEWER,
    looker: {
      viewer: REGS_VIEWER,
      look: (v, shown) => heard.push(shownAs(REGS_VIEWER, 0, v, shown)),
    },
    inner: (_, ret, v, shown) => heard.push(shownAs(INNER_VIEWER, ret, v, shown)),
  };
}

/** What userspace saw last. */
const seen = new ImageBuffer(REGS_SIZE);

function userspaceLooks(v: Vcpu): void {
  regsBytes(v, seen);
}

function lookAndRun(v: Vcpu): void {
  v.observer?.looker?.look(v);
  runVcpu(v);
}

for (const policy of [LINUX_6_1, UPSTREAM]) {
  for (const npt of [true, false]) {
    Deno.test(`a path depends on its guards alone: ${policy.name}, npt ${npt ? "on" : "off"}`, async () => {
      const driver = new Driver(policy);
      let looked = 0, name = "";
      driver.ready = (v) => {
        if (v.pendingDevice !== undefined) return;
        const before = v.fork(policy), recorded = v.fork(policy);
        const heard: string[] = [], told: string[] = [], shown: string[] = [];
        recorded.observer = images(heard);
        const recorder = new PathRecorder(v.words.length);
        recorder.begin(recorded, lookAndRun);
        recorded.observer = undefined;
        const { guards, path } = recorder.goOn(recorded, userspaceLooks);
        if (path === undefined) return;
        const numbers = new Set(guards.filter((_, i) => i % 2 === 0));
        const ran = before.fork(policy), a = before.fork(policy);
        for (const v of [ran, a]) {
          scramble(v, numbers);
          told.length = 0;
          v.observer = images(told);
          lookAndRun(v);
        }
        userspaceLooks(a);
        const afterwards = seen.words.join();
        for (const compiled of [false, true]) {
          const b = before.fork(policy);
          scramble(b, numbers);
          b.observer = images(shown);
          if (compiled) path.compile(b.words.length);
          assert(path.matches(b), name);
          path.follow(b);
          assertEquals(difference(ran, b), undefined, name);
          assertEquals(shown, told, name);
          seen.words.fill(0);
          path.followTail(b, seen);
          assertEquals(difference(a, b), undefined, name);
          assertEquals(seen.words.join(), afterwards, name);
          shown.length = 0;
        }
        looked++;
      };
      let index = 0;
      for await (const event of recordScenarios(cases(11, 80), policy, { npt })) {
        if (event.kind === "case") name = event.name ?? "";
        driver.feed(event, index++);
        if (driver.vcpu !== undefined) driver.vcpu.unmodelled = "";
      }
      assert(looked > 40, String(looked));
    });
  }
}

Deno.test("where code must not be made of text, paths are followed all the same", () => {
  const loop = ["round s.1d8=7000", "next s.1d8=6ff8 keepvm keepmem"].map((line) =>
    parseScenario(line)
  );
  const events = [...recordScenarios(loop, UPSTREAM)].map((event) => copyEvent(event));
  const driver = new Driver(UPSTREAM);
  let looked = 0;
  driver.ready = (v) => {
    const a = v.fork(UPSTREAM), b = v.fork(UPSTREAM), c = v.fork(UPSTREAM);
    const recorder = new PathRecorder(v.words.length);
    recorder.begin(a, runVcpu);
    const { path } = recorder.end();
    if (path === undefined) return;
    const made = globalThis.Function;
    try {
      globalThis.Function = function () {
        throw new EvalError("Code generation from strings disallowed for this context");
      } as unknown as FunctionConstructor;
      path.compile(v.words.length);
    } finally {
      globalThis.Function = made;
    }
    assertEquals(path.matches(b), true);
    path.follow(b);
    assertEquals(difference(a, b), undefined);
    path.compile(v.words.length);
    assertEquals(path.matches(c), true);
    path.follow(c);
    assertEquals(difference(a, c), undefined);
    looked++;
  };
  events.forEach((event, index) => driver.feed(event, index));
  assertEquals(looked, 2);
});

Deno.test("paths are recorded where runs come again, and hardly where none does", async () => {
  const replay = async (count: number, repeat: number) => {
    const paths = new RunPaths(UPSTREAM);
    const replayer = new Replayer(UPSTREAM, () => {}, paths);
    for await (const event of recordScenarios(cases(5, count), UPSTREAM, { repeat })) {
      replayer.feed(event);
    }
    return { runs: replayer.finish().runs, ...paths.seen.counts };
  };
  const again = await replay(60, 12);
  assert(again.followed > 0.5 * again.runs, JSON.stringify(again));
  const never = await replay(400, 1);
  assert(never.recorded < 0.1 * never.runs, JSON.stringify(never));
});

Deno.test("a tree gives the path that a state goes, or none", () => {
  // A program that reads a word, and by its value goes on to another.
  const step = fc.record({
    next: fc.integer({ min: 1, max: 5 }),
    times: fc.integer({ min: 1, max: 3 }),
  });
  fc.assert(fc.property(
    fc.array(step, { minLength: 8, maxLength: 8 }),
    fc.array(fc.array(fc.integer({ min: 0, max: 2 }), { minLength: 12, maxLength: 12 }), {
      minLength: 1,
      maxLength: 30,
    }),
    (program, states) => {
      const read = (words: ArrayLike<number>) => {
        const seen = new Set<number>(), guards: number[] = [];
        for (let at = 0, i = 0; i < 6; i++) {
          const { next, times } = program[at % program.length]!;
          for (let k = 0; k < times; k++) {
            const number = (at * 3 + k) % 12;
            if (!seen.has(number)) guards.push(number, words[number] as number);
            seen.add(number);
            at += next * ((words[number] as number) + 1);
          }
        }
        return Int32Array.from(guards);
      };
      const machine = new Machine({ physicalBits: 40, npt: true, memory: 4096 });
      const tree = new GuardTree<string>();
      const known = new Set<string>();
      for (const state of states) {
        machine.words.set(state);
        const guards = read(machine.words);
        const path = guards.join();
        assertEquals(tree.find(machine), known.has(path) ? path : undefined);
        if (!known.has(path)) assert(tree.add(guards, path));
        known.add(path);
      }
    },
  ));
});

/** The buffers of a machine and the pages of memory, without a method around them. */
const RAW =
  /\b(v|m|cpu\.m|this)\.(words|bytes|view)\b|\{[^}]*\b(words|bytes)\b[^}]*\}(: Vcpu| = (v|m|cpu\.m)\b)|\bmemory\.(page|writable)\(/;

Deno.test("what transitions do reaches the state where it can be followed", async () => {
  // These read or write whole buffers, and tell the recorder, give up, or are never part of a run.
  const allowed = [
    "checks/witness.ts",
    "cpu/carried.ts",
    "cpu/processor.ts",
    "cpu/zeros.ts",
    "kvm/code_at_rip.ts",
    "kvm/emulate_any.ts",
    "kvm/ioctls.ts",
    "kvm/migrate.ts",
    "kvm/run.ts",
    "kvm/smm.ts",
    "kvm/vcpu.ts",
    "paging/vcpu_walk.ts",
    "paging/walk.ts",
    "steps/restore.ts",
  ];
  const found: string[] = [];
  for (const room of ["checks", "cpu", "kernels", "kvm", "paging", "processors", "steps"]) {
    const folder = new URL(`../engine/${room}/`, import.meta.url);
    for await (const { name } of Deno.readDir(folder)) {
      const text = await Deno.readTextFile(new URL(name, folder));
      const raw = text.split("\n").some((line) => !/^\s*(\*|\/\/)/.test(line) && RAW.test(line));
      if (raw) found.push(`${room}/${name}`);
    }
  }
  assertEquals(found.sort(), allowed);
});

// In this order they led to other paths than steps while emulation was recorded.
const EMULATED = [
  "x17 m.9000=0439f3ffffffffb8 m.9008=d9010f00040ffe25 s.d0=1000 s.158=31 s.148=0 s.12.2=c9b s.cb.1=3",
  "x19 m.9000=2504c7f0000087b8 m.9008=0000000000200000 m.9010=00042008251c8cf2 m.9018=000420082504b20f m.9020=9090909090d9010f m.42008=f0000087 c.90=1 c.b0=60000 m.62008=87 c.8.4=4040 keepvm",
  "x20 m.9000=2504c7f0000087b8 m.9008=ffffffff00fffffe m.9010=1008bdf0000ffebc m.9018=00202524ff070006 m.9020=909090d9010ffee0 s.d0=1000 s.158=31 s.148=0 s.12.2=c9b c.8.4=ffffffff",
  "x21 m.9000=0000beffffffffb8 m.9008=b900010000bff000 m.9010=3cddf26c00000002 m.9018=ae0ff00004200825 m.9020=010f00fffffe2504 m.9028=90909090909090d9 s.d0=1000 s.158=31 s.148=0 s.12.2=c9b s.170=10046",
  "x22 m.9000=0000bc00000087b8 m.9008=6001fffffebd0006 m.9010=0ffebf00009800be m.9018=ab00000002b90004 m.9020=9090909090d9010f m.42008=f0000087 c.8.4=4040",
  "x23 m.9000=2504c400001234b8 m.9008=90d9010f00200ffe m.42008=f0000087 c.68.4=1",
  "x24 m.9000=010f4100001234b8 m.9008=010f000410002524 m.9010=90909090909090d9 m.42008=f0000087 keepvm",
  "x26 m.9000=010f4100000007b8 m.9008=0ff0000610082534 m.9010=0f000400002504b4 m.9018=909090909090d901 m.42008=f0000087 c.90=1 c.b0=60000 m.62008=87 c.68.4=1",
  "x27 m.9000=fffebe00001234b8 m.9008=b900042004bf00ff m.9010=0000bea700000002 m.9018=b900042004bf0004 m.9020=010fa5fd00000002 m.9028=90909090909090d9 s.d0=1000 s.158=31 s.148=0 s.12.2=c9b",
  "x30 m.9000=010f66ffffffffb8 m.9008=010f00fffffe251c m.9010=90909090909090d9 s.d0=1000 s.158=31 s.148=0 s.12.2=c9b c.8.4=4040",
  "x31 m.9000=14010f00000007b8 m.9008=d9010f0004200425 m.42008=f0000087 c.8.4=ffffffff keepvm",
  "x32 m.9000=0000beffffffffb8 m.9008=b900061008bf0020 m.9010=d9010f6f00000002 m.42008=f0000087 c.90=1 c.b0=60000 m.62008=200087 s.cb.1=3",
  "x33 m.9000=0010bcf0000087b8 m.9008=ff00043000bd0020 m.9010=010f6624048f2434 m.9018=04be000100002514 m.9020=00200ffebf000420 m.9028=010fae00000002b9 m.9030=90909090909090d9 m.42008=f0000087 c.8.4=4040 keepvm",
];

Deno.test("what KVM emulates is replayed alike with paths and without", async () => {
  const events = await Array.fromAsync(
    recordScenarios(EMULATED.map((line) => parseScenario(line)), UPSTREAM, {
      npt: true,
      repeat: 5,
    }),
    copyEvent,
  );
  const digests = [undefined, new RunPaths(UNIFIED)].map((paths) => {
    const replayer = new Replayer(UNIFIED, () => {}, paths);
    for (const event of events) replayer.feed(event);
    const { agreed, digest } = replayer.finish();
    return [agreed, digest];
  });
  assertEquals(digests[1], digests[0]);
});
