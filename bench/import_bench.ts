/**
 * How fast tracepoint logs are imported, beside `trace-cmd report` on the same
 * file in the same run: `deno bench -A bench/import_bench.ts` gives times,
 * `deno run -A bench/import_bench.ts table` MB/s.
 *
 * The log: VMRUNs with eleven exits of L2 each and the #VMEXIT, as
 * kvm-unit-tests' svm suite has them, with values that vary; and the same among
 * nine times as many events of other kinds.
 *
 * @module
 */
import { fileSource, importTracepoints, readTracepoints } from "../codecs/mod.ts";
import { Random } from "../traces/generate/random.ts";
import { buildTraceDat, type BuiltRecord } from "../tests/import_dat_builder.ts";

const SIZE = 64 << 20;

function records(others: number): BuiltRecord[] {
  const out: BuiltRecord[] = [];
  let time = 1e9;
  const random = new Random(1);
  const push = (name: string, values: BuiltRecord["values"]) => {
    for (let i = 0; i < others; i++) {
      out.push({
        name: "sched_wakeup",
        time: time += 200,
        pid: 9,
        values: { comm: "kworker", target_cpu: i },
      });
    }
    out.push({ name, time: time += 500 + random.below(3000), pid: 7, values });
  };
  for (let i = 0; i < 200; i++) {
    push("kvm_nested_vmenter", {
      rip: 0x400863,
      vmcb: 0x799a000,
      nested_rip: 0x400000 + random.below(0x10000),
      event_inj: random.below(8) === 0 ? 0x80000306 : 0,
      tdp_enabled: 1,
      guest_pgd: 0x1074000,
      isa: 2,
    });
    push("kvm_nested_intercepts", { intercept1: 0x80000000, intercept2: 3 });
    if (random.below(3) === 0) {
      push("kvm_nested_vmenter_failed", { msg: "!kvm_vcpu_is_legal_cr3(vcpu, cr3)" });
      continue;
    }
    for (let j = 0; j < 11; j++) {
      push("kvm_nested_vmexit", {
        exit_reason: [0x400, 0x7b, 0x81, 0x7c][random.below(4)]!,
        guest_rip: 0x400000 + random.below(0x100000),
        info1: 0x100000000 + random.below(0x100),
        info2: random.below(0x1000000),
        isa: 2,
      });
    }
    push("kvm_nested_vmexit_inject", { exit_code: 0x81, exit_info1: random.below(0x1000), isa: 2 });
  }
  return out;
}

/** Repeats the pages of a file of version 6 with one CPU, each time later. */
function enlarge(file: Uint8Array): Uint8Array<ArrayBuffer> {
  const view = new DataView(file.buffer);
  const table = new TextDecoder("latin1").decode(file).indexOf("flyrecord\0") + 10;
  const start = Number(view.getBigUint64(table, true));
  const pages = file.subarray(start);
  const times = Math.ceil((SIZE - start) / pages.length);
  const out = new Uint8Array(start + pages.length * times);
  out.set(file.subarray(0, start));
  const into = new DataView(out.buffer);
  into.setBigUint64(table + 8, BigInt(pages.length * times), true);
  for (let i = 0; i < times; i++) {
    const at = start + pages.length * i;
    out.set(pages, at);
    for (let page = at; page < at + pages.length; page += 4096) {
      into.setBigUint64(page, into.getBigUint64(page, true) + BigInt(i) * 10_000_000_000n, true);
    }
  }
  return out;
}

async function text(file: Uint8Array): Promise<Uint8Array<ArrayBuffer>> {
  let lines = "";
  for await (const batch of readTracepoints(file, { every: true })) {
    for (const { cpu = 0, pid = 0, task = "", time = 0, name, text } of batch) {
      lines += `${task.padStart(16)}-${pid}      [${String(cpu).padStart(3, "0")}] ..... ` +
        `${(time / 1e9).toFixed(6).padStart(12)}: ${name}: ${text}\n`;
    }
  }
  const once = new TextEncoder().encode(lines);
  const out = new Uint8Array(Math.ceil(SIZE / once.length) * once.length);
  for (let at = 0; at < out.length; at += once.length) out.set(once, at);
  return out;
}

async function run(bytes: Uint8Array): Promise<void> {
  for await (const _ of importTracepoints(bytes));
}

async function runFile(path: string): Promise<void> {
  using file = fileSource(path);
  for await (const _ of importTracepoints(file));
}

async function traceCmd(path: string): Promise<void> {
  const command = new Deno.Command("trace-cmd", {
    args: ["report", "-i", path],
    stdout: "null",
    stderr: "null",
  });
  await command.output();
}

interface Row {
  readonly name: string;
  readonly group: string;
  readonly bytes: number;
  readonly run: () => Promise<void>;
}

async function rows(): Promise<Row[]> {
  const out: Row[] = [];
  for (const [group, others] of [["nested events", 0], ["one nested event in ten", 9]] as const) {
    const built = records(others);
    const file = { little: true, longSize: 8, cpus: [{ cpu: 0, records: built }] } as const;
    const once = buildTraceDat({ ...file, version: 6, compression: "none" });
    const dat = enlarge(once);
    const lines = await text(once);
    out.push({ name: "ftrace text", group, bytes: lines.length, run: () => run(lines) });
    const path = await Deno.makeTempFile({ prefix: "vmtape-bench-", suffix: ".dat" });
    await Deno.writeFile(path, dat);
    addEventListener("unload", () => Deno.removeSync(path));
    // The whole way, as it is done for a user: from the file, not from memory.
    out.push({ name: "trace.dat", group, bytes: dat.length, run: () => runFile(path) });
    const there = await traceCmd(path).then(() => true, () => false);
    if (there) {
      out.push({
        name: "trace-cmd report of that file",
        group,
        bytes: dat.length,
        run: () => traceCmd(path),
      });
    }
  }
  return out;
}

if (Deno.args[0] === "table") {
  for (const { name, group, bytes, run } of await rows()) {
    let best = Infinity;
    for (let i = 0; i < 3; i++) {
      const start = performance.now();
      await run();
      best = Math.min(best, performance.now() - start);
    }
    const speed = (bytes / 1e3 / best).toFixed(0);
    // deno-lint-ignore no-console
    console.log(`${group.padEnd(24)} ${name.padEnd(32)} ${speed.padStart(5)} MB/s`);
  }
} else {
  for (const { name, group, bytes, run } of await rows()) {
    Deno.bench({
      name: `${name}, ${(bytes / 1e6).toFixed(0)} MB`,
      group,
      n: 2,
      warmup: 1,
      // Deno awaits only what is written as an async function.
      fn: async () => await run(),
    });
  }
}
