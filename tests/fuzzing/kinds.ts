/**
 * Kinds of inputs to mutate beside the container.
 *
 * @module
 */
import { formatLabRecord, labRecords, TraceWriter } from "../../codecs/mod.ts";
import { checkPolicy, PolicyError } from "../../engine/policy_check.ts";
import { EVENTS, type Image, type TraceEvent } from "../../engine/event.ts";
import { Differ, POLICIES, Replayer, ReplayError, UNIFIED, UPSTREAM } from "../../engine/mod.ts";
import { BUILTINS, builtinScenarios } from "../../traces/scenarios/builtin.ts";
import { recordScenarios } from "../../traces/scenarios/record.ts";
import { generate } from "../../traces/generate/generate.ts";
import { parseScenarios } from "../../traces/scenarios/scenario_reader.ts";
import { COMMANDS } from "../../cli/commands.ts";
import { isModule } from "../../cli/policy_modules.ts";
import { checksumOf } from "../../cli/shares/shard_check.ts";
import { tryCommand, tryTrace } from "./commands.ts";
import {
  changed,
  changedBytes,
  changedText,
  CONTROL,
  FuzzFailure,
  type FuzzReport,
  strange,
} from "./mutants.ts";
import type { Random } from "../../traces/generate/random.ts";

/** Tries mutants of one kind, one after the other. */
export type Kind = (random: Random, folder: string, report: FuzzReport) => Promise<void>;

async function recorded(names: readonly string[], npt: boolean): Promise<TraceEvent[]> {
  const scenarios = names.flatMap((name) => builtinScenarios(name));
  const events: TraceEvent[] = [];
  for await (const event of recordScenarios(scenarios, UNIFIED, { npt })) {
    events.push(structuredClone(event));
  }
  return events;
}

const NAMES = BUILTINS.map(({ name }) => name);
let seeds: Promise<TraceEvent[][]> | undefined;

/** Recordings of the emulator, by scenario and MMU mode. */
function recordings(): Promise<TraceEvent[][]> {
  return seeds ??= Promise.all(
    NAMES.flatMap((name) =>
      [true, false].map((npt) =>
        recorded([name, NAMES[(NAMES.indexOf(name) + 3) % NAMES.length]!], npt)
      )
    ),
  );
}

const SIZES = [1, 8, 17, 100, 256, 301, 440, 511, 512, 4095, 4096];

function changedImage({ bytes, known }: Image, random: Random): Image {
  switch (random.below(4)) {
    case 0: {
      const size = random.pick(SIZES);
      const other = new Uint8Array(size);
      other.set(bytes.subarray(0, size));
      return { bytes: other };
    }
    case 1:
      return { bytes, known: new Uint8Array(bytes.length).fill(random.pick([0, 0xff, 0x0f])) };
    default:
      return { bytes: changedBytes(bytes, random), ...(known && { known }) };
  }
}

/** An event with another value in one field, still one that a trace can hold. */
function changedEvent(event: TraceEvent, random: Random): TraceEvent {
  const { fields } = EVENTS.find(({ kind }) => kind === event.kind)!;
  const copy: Record<string, unknown> = { ...event };
  if (random.once(12)) copy.vcpu = random.pick([1, 7, 0xffff_ffff]);
  if (random.once(12)) copy.time = random.pick([0, 1, Number.MAX_SAFE_INTEGER]);
  const { name, type } = random.pick<{ name: string; type: string }>(fields);
  if (random.once(6)) delete copy[name];
  else if (type === "u32") copy[name] = random.pick([0, 1, 2, 0x7fff_ffff, 0xffff_ffff]);
  else if (type === "i32") copy[name] = random.pick([0, -1, 1, -0x8000_0000, 0x7fff_ffff]);
  else if (type === "u64") {
    copy[name] = random.pick([0n, 1n, 0xfffn, 0x10000n, 1n << 36n, 1n << 52n, 2n ** 64n - 1n]);
  } else if (type === "text") {
    copy[name] = changedText(String(copy[name] ?? "nmi"), random).toWellFormed();
  } else if (type === "map") copy[name] = changed(copy[name] ?? {}, random);
  else {
    const image = copy[name] as Image | undefined;
    copy[name] = image === undefined
      ? { bytes: new Uint8Array(random.pick(SIZES)).fill(random.below(256)) }
      : changedImage(image, random);
  }
  return copy as unknown as TraceEvent;
}

function mutateEvents(events: readonly TraceEvent[], random: Random): TraceEvent[] {
  const copy = events.slice();
  for (let i = random.below(6); i >= 0 && copy.length > 0; i--) {
    const at = random.below(copy.length);
    switch (random.below(6)) {
      case 0:
        copy.splice(at, 1 + random.below(3));
        break;
      case 1:
        copy.splice(at, 0, ...copy.slice(random.below(copy.length)).slice(0, 1 + random.below(40)));
        break;
      case 2: {
        const other = random.below(copy.length);
        [copy[at], copy[other]] = [copy[other]!, copy[at]!];
        break;
      }
      default:
        copy[at] = changedEvent(copy[at]!, random);
    }
  }
  return copy;
}

async function writeTrace(path: string, events: readonly TraceEvent[]): Promise<boolean> {
  const chunks: Uint8Array[] = [];
  const writer = new TraceWriter({ write: (chunk) => void chunks.push(chunk) }, {
    flushInterval: 0,
    meta: { source: "fuzz" },
  });
  let count = 0;
  for (const event of events) {
    try {
      writer.write(event);
    } catch {
      // A map that no trace can hold.
      continue;
    }
    if (++count % 50 === 0) writer.flush();
  }
  writer.close();
  await Deno.writeFile(path, new Uint8Array(await new Blob(chunks as BlobPart[]).arrayBuffer()));
  return count > 0;
}

/** Traces with right checksums and wrong events. */
const events: Kind = async (random, folder, report) => {
  const all = await recordings();
  await writeTrace(`${folder}/in`, mutateEvents(random.pick(all), random));
  await tryTrace(folder, random, report);
};

function plainJson(value: unknown): string {
  return JSON.stringify(value, (_, item) => typeof item === "bigint" ? String(item) : item) ??
    "null";
}

let labLines: Promise<string[]> | undefined;

async function makeLabLines(): Promise<string[]> {
  const lines: string[] = [];
  for (const name of NAMES) {
    const source = recordScenarios(builtinScenarios(name), UPSTREAM, { npt: true });
    for await (const record of labRecords(source)) lines.push(formatLabRecord(record));
  }
  return lines;
}

/** Records of the lab's kind. */
const records: Kind = async (random, folder, report) => {
  const lines = await (labLines ??= makeLabLines());
  let chosen = [random.pick(lines), random.pick(lines)];
  chosen = chosen.map((line) =>
    random.once(3) ? changedText(line, random) : plainJson(changed(JSON.parse(line), random))
  );
  await Deno.writeTextFile(`${folder}/records`, chosen.join("\n"));
  if (random.once(3)) {
    await tryCommand(["compare", `${folder}/records`, `${folder}/records`, "-q"], report);
    return;
  }
  const args = ["import", `${folder}/records`, "-o", `${folder}/in`, "-f", "-q"];
  const { status } = await tryCommand(
    [...args, ...random.once(2) ? ["--from", "lab"] : []],
    report,
  );
  if (status === 0) await tryTrace(folder, random, { ...report, errors: {} });
};

const LOGS = [
  `# tracer: nop
 qemu-77    [002] d..1.  100.000001: kvm_nested_vmenter: rip: 0x0000000000008003 vmcb: 0x0000000000010000 nested_rip: 0x0000000000009000 int_ctl: 0x00000000 event_inj: 0x00000000 nested_npt=y nested_cr3: 0x0000000000100000 guest_cr3: 0x0000000000000000
 qemu-77    [002] d..1.  100.000002: kvm_nested_intercepts: cr_read: 0000 cr_write: 0010 excp: 00060042 intercepts: bd4c8027 00003e7f 00000000 00000000
 qemu-77    [002] d..1.  100.000003: kvm_nested_vmenter_failed: control->asid == 0
 qemu-77    [002] d..1.  100.000004: kvm_nested_vmexit: vcpu 0 reason vmmcall rip 0x9000 info1 0x0000000000000000 info2 0x0000000000000000 intr_info 0x00000000 error_code 0x00000000
 qemu-77    [002] d..1.  100.000005: kvm_nested_vmexit_inject: reason: vmmcall ext_inf1: 0x0000000000000000 ext_inf2: 0x0000000000000000 ext_int: 0x00000000 ext_int_err: 0x00000000
CPU:3 [LOST 12 EVENTS]
 qemu-77    [002] d..1.  100.000006: kvm_exit: vcpu 0 reason npf rip 0x9000 info1 0x0000000100000006 info2 0x00000000fee00000 intr_info 0x00000000 error_code 0x00000000
`,
  "version = 6\nCPU 0 is empty\ncpus=4\n qemu 77 [002] 12.345678: kvm:kvm_nested_vmexit: CAN'T FIND FIELD\n",
  "qemu-system-x86  1234 [001]  1000.000001: kvm:kvm_exit: reason EXIT_VMMCALL rip 0x9000 info 0 0\n",
];

/** Logs of tracepoints as text, and what looks like a trace.dat. */
const logs: Kind = async (random, folder, report) => {
  let text = random.pick(LOGS);
  for (let i = random.below(5); i >= 0; i--) text = changedText(text, random);
  let bytes: Uint8Array = new TextEncoder().encode(text);
  if (random.once(5)) {
    const head = [
      0x17,
      0x08,
      0x44,
      ...new TextEncoder().encode("tracing" + random.pick(["6", "7"])),
    ];
    bytes = changedBytes(new Uint8Array([...head, 0, 0, 8, 0, 16, 0, 0, ...bytes]), random);
  }
  await Deno.writeFile(`${folder}/log`, bytes);
  const args = ["import", `${folder}/log`, "-o", `${folder}/in`, "-f", "-q"];
  const { status } = await tryCommand(args, report);
  if (status === 0) await tryTrace(folder, random, { ...report, errors: {} });
};

interface Parts {
  readonly texts: readonly string[];
  readonly out: string;
}
let shardParts: Promise<Parts[]> | undefined;

async function makeShards(folder: string): Promise<Parts[]> {
  const cases = [...generate({ seed: 3, count: 12 })].join("\n");
  const all: TraceEvent[] = [];
  for await (const event of recordScenarios(parseScenarios(cases), UNIFIED, {})) {
    all.push(structuredClone(event));
  }
  await writeTrace(`${folder}/whole`, all);
  const silent: FuzzReport = { inputs: 0, accepted: 0, errors: {}, slowest: 0 };
  const made: Parts[] = [];
  for (
    const line of [
      ["replay", `${folder}/whole`, "--policy", "linux-6.12"],
      ["diff", `${folder}/whole`, "--policies", "unified,linux-6.12"],
    ]
  ) {
    const texts: string[] = [];
    for (let i = 0; i < 3; i++) {
      texts.push((await tryCommand([...line, "--shard", `${i}/3`, "--json", "-q"], silent)).out);
    }
    const { out } = await tryCommand([...line, "-q"], silent);
    made.push({ texts, out });
  }
  return made;
}

/** Parts of runs: what merge takes has to come to the same as the whole run. */
const shards: Kind = async (random, folder, report) => {
  const parts = random.pick(await (shardParts ??= makeShards(folder)));
  const texts: string[] = [...parts.texts];
  const at = random.below(texts.length);
  let sealed = false;
  const how = random.below(12);
  if (how < 4) texts[at] = changedText(texts[at]!, random);
  else if (how === 4) texts.splice(at, 1);
  else if (how === 5) texts.push(texts[at]!);
  else {
    const text = plainJson(changed(JSON.parse(texts[at]!), random));
    const part = JSON.parse(text) as Record<string, unknown>;
    sealed = random.once(2) && typeof part === "object" && part !== null;
    texts[at] = sealed ? JSON.stringify({ ...part, checksum: checksumOf(part) }) : text;
  }
  const names = texts.map((text, i) => {
    Deno.writeTextFileSync(`${folder}/part${i}`, text);
    return `${folder}/part${i}`;
  });
  const { status, out } = await tryCommand(["merge", ...names, "-q"], report);
  // Whoever makes the checksum right again may lie about counts; nobody else.
  if (status < 2 && !sealed && out !== parts.out) {
    throw new FuzzFailure("Parts that were tampered with come to another result");
  }
};

const WEIRD: readonly unknown[] = [
  () => null,
  () => {
    // deno-lint-ignore no-throw-literal
    throw null;
  },
  () => ({}),
  () => 3n,
  Symbol("x"),
  new Proxy({}, {
    get() {
      // deno-lint-ignore no-throw-literal
      throw null;
    },
  }),
  Object.create(null),
];

/** A copy of a policy with something else at one place in it. */
function changedPolicy(value: unknown, random: Random, depth = 0): unknown {
  if (typeof value !== "object" || value === null || random.once(depth < 2 ? 12 : 5)) {
    return random.once(2) ? random.pick(WEIRD) : strange(random);
  }
  if (Array.isArray(value)) {
    if (value.length === 0) return [random.pick(WEIRD)];
    const at = random.below(value.length);
    if (random.once(3)) {
      return random.once(2) ? value.toSpliced(at, 1) : value.toSpliced(at, 0, value[0]);
    }
    return value.with(at, changedPolicy(value[at], random, depth + 1));
  }
  const entries = Object.entries(value);
  if (entries.length === 0) return value;
  const at = random.below(entries.length);
  const [name, item] = entries[at]!;
  return Object.fromEntries(entries.with(at, [name, changedPolicy(item, random, depth + 1)]));
}

/** Policies of the user's own: refused whole, or carried out to the end. */
const policies: Kind = async (random, _folder, report) => {
  const base = { ...random.pick(Object.values(POLICIES)), name: "own" };
  const mutant = changedPolicy(base, random);
  let policy;
  try {
    policy = checkPolicy(mutant);
  } catch (error) {
    if (!(error instanceof PolicyError) && error !== null) throw error;
    report.errors["refused"] = (report.errors["refused"] ?? 0) + 1;
    return;
  }
  const all = random.pick(await recordings());
  const replayer = new Replayer(policy), differ = new Differ([UPSTREAM, policy], () => {});
  try {
    for (const event of all) {
      replayer.feed(event);
      differ.feed(event);
    }
    replayer.finish();
    differ.finish();
    report.accepted++;
  } catch (error) {
    // Kernels and processors are code, too: the command line tells what they throw as theirs.
    const name = error instanceof ReplayError ? "replay" : "theirs";
    report.errors[name] = (report.errors[name] ?? 0) + 1;
  }
};

/** Commands that talk to others than files, or write for as long as they are let. */
const OTHERS: ReadonlySet<string> = new Set(["record qemu", "record bochs", "record kvm", "hunt"]);

/** Numbers that say how much is to be done: large ones are nobody's fault but the user's. */
const AMOUNTS: ReadonlySet<string> = new Set(["count", "repeat", "passes", "seed"]);

const WORDS: readonly string[] = [
  ..."0 1 2 20 -1 -0 1.5 1e9 0x10 0xffffffffffffffff NaN Infinity 007".split(" "),
  ..."9007199254740991 9007199254740993 18446744073709551616 true null - -- = , a,b,".split(" "),
  ..."unified upstream@qemu-7.2 @amd unified@ linux-6.12,linux-6.12 __proto__ constructor".split(
    " ",
  ),
  ..."exit_code== rip>=0x&&1 !!(1) ((((1)))) control.asid==0||save.rip<0x9000 0/0 1/2 -1/3".split(
    " ",
  ),
  "",
  " ",
  "\0",
  CONTROL,
  "9".repeat(400),
  "x".repeat(70_000),
  "(".repeat(20_000),
  "!".repeat(20_000),
  "/",
  "/dev/null",
  "/nonexistent/a/b",
];

/** Command lines with any values in any options: refused in words, or carried out. */
const lines: Kind = async (random, folder, report) => {
  const [name, load] = random.pick(
    COMMANDS.filter((one) => !OTHERS.has(one.name)).map((one) => [one.name, one.load] as const),
  );
  const command = await load();
  if (random.once(20)) await writeTrace(`${folder}/in`, random.pick(await recordings()));
  const file = () => random.once(6) ? random.pick(WORDS) : `${folder}/in`;
  const args: string[] = name.split(" ");
  const most = Math.min(command.operands.max ?? 3, 3);
  const count = random.once(8)
    ? random.below(5)
    : Math.max(command.operands.min, random.below(most + 1));
  for (let i = 0; i < count; i++) args.push(file());
  const taken = command.options.filter((option) =>
    option.name !== "follow" && (option.required || random.once(3))
  );
  for (const option of taken) {
    const word = option.name === "output"
      ? random.once(6) ? random.pick(["/", "/dev/null", "", `${folder}/in`]) : `${folder}/out`
      : option.choices !== undefined && random.once(2)
      ? random.pick(option.choices)
      : AMOUNTS.has(option.name)
      ? random.pick(["1", "2", "-1", "x", "1e3"])
      // A module's thread writes to the real streams.
      : random.pick(option.name.startsWith("polic") ? WORDS.filter((w) => !isModule(w)) : WORDS);
    if (option.kind === "flag") args.push(`--${option.name}${random.once(12) ? "=x" : ""}`);
    else if (random.once(2)) args.push(`--${option.name}`, word);
    else args.push(`--${option.name}=${word}`);
  }
  if (random.once(4)) args.push("--json");
  if (random.once(3)) args.push("-f");
  if (!args.includes("-")) await tryCommand([...args, "-q"], report);
};

const CASES = NAMES.flatMap((name) => builtinScenarios(name)).map(({ name, spec }) =>
  `${name} ${spec}`
);

/** Files of scenarios, for the commands that run them. */
const scenarios: Kind = async (random, folder, report) => {
  const chosen = [
    random.pick(CASES),
    random.pick(CASES),
    ...generate({ seed: random.below(1e6), count: 1 }),
  ];
  const text = chosen.map((line) => random.once(3) ? line : changedText(line, random)).join("\n");
  await Deno.writeTextFile(`${folder}/cases`, text);
  const policy = random.pick(Object.keys(POLICIES));
  const npt = random.pick(["on", "off"]);
  const options = ["-p", policy, "--npt", npt, "-q"];
  if (random.once(2)) await tryCommand(["predict", `${folder}/cases`, ...options], report);
  else {
    const out = ["-o", `${folder}/in`, "-f"];
    const { status } = await tryCommand(["record", `${folder}/cases`, ...options, ...out], report);
    if (status === 0) await tryTrace(folder, random, { ...report, errors: {} });
  }
};

/** Two recordings of the same, of which one was changed. */
const pairs: Kind = async (random, folder, report) => {
  const all = random.pick(await recordings());
  await writeTrace(`${folder}/in`, all);
  await writeTrace(
    `${folder}/other`,
    mutateEvents(random.once(3) ? random.pick(await recordings()) : all, random),
  );
  const files = [`${folder}/in`, `${folder}/other`];
  if (random.once(2)) files.reverse();
  const more = random.pick([[], ["--runs"], ["--json"], ["--format", "markdown"], [
    "--fail-on",
    "outcome",
  ]]);
  await tryCommand(
    [random.once(6) ? "compare" : "diff", ...files, ...more.slice(0, 9), "-q"],
    report,
  );
};

/** All kinds by name, but for the container. */
export const KINDS: Readonly<Record<string, Kind>> = {
  events,
  records,
  logs,
  shards,
  policies,
  lines,
  scenarios,
  pairs,
};
