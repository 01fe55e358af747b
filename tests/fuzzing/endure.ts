/**
 * What holds whatever happens: a recorder that is killed, a disk that is full, work shared out in any
 * way. Arguments: what (`kill`, `full`, `signals`, `same`), how often, a seed; or
 * `memory`, blocks of each bomb, a part of the names of those to try.
 *
 * @module
 */
import { POLICIES } from "../../engine/policies/mod.ts";
import { generate } from "../../traces/generate/generate.ts";
import { Random } from "../../traces/generate/random.ts";
import { withFolder, withinProcess } from "../cli_process.ts";
import { BUDGET, memory, type Peak } from "./memory.ts";
import { FuzzFailure } from "./mutants.ts";
import { ThreadPool } from "./thread_pool.ts";

const ROOT = new URL("../..", import.meta.url).pathname;
const MAIN = ["run", "--frozen", "-q", "--no-prompt", "-A", `${ROOT}cli/main.ts`];

/** Runs a command within this process. */
async function vmtape(...args: string[]): Promise<{ status: number; out: string; err: string }> {
  const { code: status, stdout: out, stderr: err } = await withinProcess(args, true);
  return { status, out, err };
}

async function exists(path: string): Promise<boolean> {
  return await Deno.lstat(path).then(() => true, () => false);
}

/** What is left of a command that came to a sudden end: nothing, or something whole, or something to recover. */
async function lookAt(folder: string, file: string): Promise<"nothing" | "whole" | "recovered"> {
  const path = `${folder}/${file}`;
  if (await exists(path)) {
    if (file.endsWith(".html")) {
      if (!(await Deno.readTextFile(path)).trimEnd().endsWith("</html>")) {
        throw new FuzzFailure(`${file} has its name and is not whole`);
      }
    } else {
      const { status, out, err } = await vmtape("verify", path);
      if (status !== 0) throw new FuzzFailure(`${file} has its name and is damaged: ${out}${err}`);
    }
    return "whole";
  }
  const part = `${path}.part`;
  if (!await exists(part) || file.endsWith(".html")) return "nothing";
  const { size } = await Deno.stat(part);
  const saved = await vmtape("recover", part, "-o", `${folder}/saved`, "-q", "-f");
  if (saved.status === 1) return "nothing";
  if (saved.status !== 0) {
    // Killed before the header was written.
    if (saved.status === 3 && size < 4096) return "nothing";
    throw new FuzzFailure(`What is left cannot be recovered: ${saved.err}`);
  }
  const { status, out } = await vmtape("verify", `${folder}/saved`);
  if (status !== 0) throw new FuzzFailure(`What was recovered is damaged: ${out}`);
  return "recovered";
}

const WRITERS: readonly (readonly string[])[] = [
  ["record", "--repeat", "40", "-o", "a.vmtape"],
  ["import", "records", "-o", "a.vmtape"],
  ["checkpoint", "t", "--every", "100", "-o", "a.vmtape"],
  ["cat", "t", "t", "t", "t", "-o", "a.vmtape"],
  ["report", "t", "-p", "unified,linux-6.12", "-o", "a.html"],
];

async function prepare(folder: string): Promise<void> {
  await vmtape("record", "--repeat", "6", "-q", "-o", `${folder}/t`);
  const { out } = await vmtape("predict", "-q");
  await Deno.writeTextFile(`${folder}/records`, out.repeat(6));
}

type Count = Record<string, number>;

function count(counts: Count, what: string): void {
  counts[what] = (counts[what] ?? 0) + 1;
}

/** Starts a command in a folder, and sends it a signal after some milliseconds if it is there still. */
async function cutOff(
  line: readonly string[],
  cwd: string,
  signal: Deno.Signal,
  afterMs: number,
): Promise<Deno.CommandOutput> {
  const child = new Deno.Command(Deno.execPath(), {
    args: [...MAIN, ...line, "-q"],
    cwd,
    stdout: "null",
    stderr: "piped",
  }).spawn();
  const timer = setTimeout(() => {
    try {
      child.kill(signal);
    } catch {
      // It was faster.
    }
  }, afterMs);
  const output = await child.output();
  clearTimeout(timer);
  return output;
}

/** Takes away what commands wrote. */
async function clear(folder: string): Promise<void> {
  for await (const { name } of Deno.readDir(folder)) {
    if (name.startsWith("a.") || name === "saved") await Deno.remove(`${folder}/${name}`);
  }
}

/** Kills commands that write, at random moments. */
export async function kill(times: number, seed: number): Promise<Count> {
  const random = new Random(seed);
  const counts: Count = {};
  await withFolder(async (base) => {
    await prepare(base);
    for (let i = 0; i < times; i++) {
      const line = random.pick(WRITERS);
      await cutOff(line, base, "SIGKILL", 200 + random.below(2500));
      count(counts, await lookAt(base, line.at(-1)!));
      await clear(base);
    }
  });
  return counts;
}

/** Commands that only read, beside the writers. */
const READERS: readonly (readonly string[])[] = [
  ["replay", "t", "-p", "linux-6.12", "--each"],
  ["diff", "t", "-p", "unified,linux-6.12", "-j", "2"],
  ["diff", "t", "t"],
  ["identify", "t"],
  ["stats", "t", "--passes", "40"],
  ["dump", "t", "--fields"],
  ["why", "t"],
  ["top", "t"],
  ["minimize", "t", "--event", "20", "-p", "early-exit,linux-7.3"],
];

/** Sends commands SIGINT or SIGTERM at random moments: each says so, and leaves nothing half done. */
export async function signals(times: number, seed: number): Promise<Count> {
  const random = new Random(seed);
  const counts: Count = {};
  await withFolder(async (base) => {
    await prepare(base);
    for (let i = 0; i < times; i++) {
      const line = random.pick([...WRITERS, ...READERS]);
      const signal = random.pick(["SIGINT", "SIGTERM"] as const);
      // From when the program is there: before it, the signal is the system's.
      const { code, signal: by, stderr } = await cutOff(
        line,
        base,
        signal,
        300 + random.below(3000),
      );
      const said = new TextDecoder().decode(stderr);
      const what = `${line.join(" ")}, ${signal}: status ${code}, ${by}: ${said}`;
      if (![0, 1, 130].includes(code) && by !== signal) throw new FuzzFailure(what);
      if (/^ +at /m.test(said)) throw new FuzzFailure(`A stack trace: ${what}`);
      const file = line.includes("-o") ? line.at(-1)! : undefined;
      count(counts, file === undefined ? `status ${code}` : await lookAt(base, file));
      await clear(base);
    }
  });
  return counts;
}

async function command(name: string, ...args: string[]): Promise<boolean> {
  const { success } = await new Deno.Command(name, { args, stdout: "null", stderr: "null" })
    .output().catch(() => ({ success: false }));
  return success;
}

/** Every command that writes a file, `OUT`; and whether there is one of that name already. */
const FILLERS: readonly (readonly string[])[] = [
  ["record", "--repeat", "3", "-o", "OUT"],
  ["import", "records", "-o", "OUT"],
  ["cut", "t", "--from", "40", "-o", "OUT"],
  ["cat", "t", "t", "-o", "OUT"],
  ["filter", "t", "--failed-only", "-o", "OUT"],
  ["recover", "torn", "-o", "OUT"],
  ["checkpoint", "t", "--every", "100", "-o", "OUT"],
  ["export", "t", "--to", "perfetto", "-o", "OUT.pb"],
  ["export", "t", "--to", "perfetto-json", "-o", "OUT.json"],
  ["export", "t", "--to", "perfetto-json", "-o", "OUT.json.gz"],
  ["report", "t", "-p", "unified,linux-6.12", "--passes", "0", "-o", "OUT.html"],
  ["minimize", "t", "--event", "20", "-p", "early-exit,linux-7.3", "-o", "OUT.cases"],
  ["stats", "t", "--passes", "1", "-p", "unified", "--hgrm", "-o", "OUT.hgrm"],
];

/** All files below a folder by name, each as text that is the same for the same bytes. */
async function contents(folder: string): Promise<Record<string, string>> {
  const found: Record<string, string> = {};
  for await (const { name, isDirectory } of Deno.readDir(folder)) {
    const path = `${folder}/${name}`;
    if (isDirectory) {
      for (const [inner, text] of Object.entries(await contents(path))) {
        found[`${name}/${inner}`] = text;
      }
    } else found[name] = (await Deno.readFile(path)).toHex();
  }
  return found;
}

/** What was there before a command that writes over it. */
const OLD = "what was there before";

/** Runs a command once onto a disk of a size, or none. */
async function fill(base: string, line: readonly string[], over: boolean) {
  const disk = `${base}/disk`;
  const output = `${disk}/${line.at(-1)!.replace("OUT", "a")}`;
  const file = !line.includes("--hgrm");
  if (over && file) await Deno.writeTextFile(output, OLD);
  const args = line.slice(0, -1).map((word) =>
    ["t", "torn", "records"].includes(word) ? `${base}/${word}` : word
  );
  const { status, err } = await vmtape(...args, output, ...over ? ["-f"] : []);
  return { status, err, output, files: await contents(disk), kept: over && file };
}

/**
 * Writes to disks of so many sizes for every command that writes a file, each up to what the command
 * needs.
 *
 * @returns What came of it; undefined where no disk can be made.
 */
export async function full(levels: number): Promise<Count | undefined> {
  const counts: Count = {};
  return await withFolder(async (base) => {
    await prepare(base);
    const whole = await Deno.readFile(`${base}/t`);
    await Deno.writeFile(`${base}/torn`, whole.subarray(0, whole.length - 200));
    const disk = `${base}/disk`;
    await Deno.mkdir(disk);
    const onDisk = async <T>(kib: number, use: () => Promise<T>): Promise<T | undefined> => {
      const options = `size=${kib}k`;
      if (!await command("mount", "-t", "tmpfs", "-o", options, "vmtape", disk)) return undefined;
      try {
        return await use();
      } finally {
        await command("umount", disk);
      }
    };
    for (const line of FILLERS) {
      const shown = line.join(" ");
      const most = await onDisk(1 << 20, () => fill(base, line, false));
      if (most === undefined) return undefined;
      if (most.status > 1) throw new FuzzFailure(`${shown}: status ${most.status}: ${most.err}`);
      const pages = Object.values(most.files).map((hex) => Math.ceil(hex.length / 8192));
      const size = 4 * pages.reduce((sum, count) => sum + count, 0);
      for (let i = 0; i < levels; i++) {
        const kib = Math.max(4, 4 * Math.round(size / 4 * i / levels));
        const over = i % 2 === 1;
        const found = await onDisk(kib, () => fill(base, line, over));
        if (found === undefined) return undefined;
        const { status, err, output, files, kept } = found;
        const name = output.slice(disk.length + 1);
        const why = `${shown} on ${kib} KiB: status ${status}: ${err}`;
        if (status > 2) throw new FuzzFailure(why);
        if (status < 2) {
          if (Object.keys(files).join() !== Object.keys(most.files).join()) {
            throw new FuzzFailure(`${why}: not all files`);
          }
          count(counts, "whole");
          continue;
        }
        if (!err.includes("No space left")) throw new FuzzFailure(why);
        const others = Object.keys(files).filter((one) => one !== name || !kept);
        if (kept && files[name] !== new TextEncoder().encode(OLD).toHex()) {
          throw new FuzzFailure(`${why}: what was there before is gone`);
        }
        if (others.some((one) => !one.includes(".part"))) {
          throw new FuzzFailure(`${why}: ${others.join()} has its name and is not whole`);
        }
        count(counts, others.length === 0 ? "nothing" : await recovered(base, others, files));
      }
    }
    return counts;
  });
}

/** Recovers what a recorder left. */
async function recovered(base: string, names: readonly string[], files: Record<string, string>) {
  for (const name of names) {
    await Deno.writeFile(`${base}/part`, Uint8Array.fromHex(files[name]!));
    const saved = await vmtape("recover", `${base}/part`, "-o", `${base}/saved`, "-q", "-f");
    if (saved.status > 1 && files[name]!.length > 2 * 4096) {
      throw new FuzzFailure(`What is left cannot be recovered: ${saved.err}`);
    }
  }
  return "recovered";
}

const WAYS_IN = ["vmrun", "rsm", "setstate", "mid", "migrate"] as const;

/** Records of a log: a VMRUN and what came of it, of one vCPU. */
function logged(i: number, random: Random): string[] {
  const rip = (0x8000 + 16 * random.below(3)).toString(16), vmcb = 0x10000 + 4096 * random.below(2);
  const number = (value: number, digits = 16) => `0x${value.toString(16).padStart(digits, "0")}`;
  const lines = [
    `kvm_nested_vmenter: rip: ${number(parseInt(rip, 16))} vmcb: ${number(vmcb)} nested_rip: ` +
    `${number(0x9000)} int_ctl: 0x00000000 event_inj: 0x00000000 nested_npt=y nested_cr3: ` +
    `${number(0x100000)} guest_cr3: ${number(0)}`,
    `kvm_nested_intercepts: cr_read: 0000 cr_write: 0010 excp: 00060042 intercepts: bd4c8027 ` +
    `00003e7f 00000000 00000000`,
  ];
  const ways = [
    "kvm_nested_vmenter_failed: control->asid == 0",
    `kvm_nested_vmexit: vcpu ${i} reason vmmcall rip ${number(0x9000)} info1 ${number(0)} info2 ` +
    `${number(0)} intr_info 0x00000000 error_code 0x00000000`,
    `kvm_exit: vcpu ${i} reason npf rip ${number(0x9000)} info1 ${number(0x100000006)} info2 ` +
    `${number(0xfee00000)} intr_info 0x00000000 error_code 0x00000000`,
  ];
  lines.push(random.pick(ways));
  const reason = lines[2]!.includes("failed") ? "0xffffffff" : "vmmcall";
  if (!random.once(4)) {
    lines.push(
      `kvm_nested_vmexit_inject: reason: ${reason} ext_inf1: ${number(0)} ext_inf2: ${number(0)} ` +
        `ext_int: 0x00000000 ext_int_err: 0x00000000`,
    );
  }
  return lines;
}

/** A log of several vCPUs, some of it lost. */
function log(random: Random): string {
  const vcpus = 2 + random.below(3);
  const lines = ["# tracer: nop"];
  let time = 100_000_000;
  for (let i = 0; i < 24; i++) {
    const vcpu = random.below(vcpus);
    if (random.once(20)) lines.push(`CPU:${vcpu} [LOST ${1 + random.below(9)} EVENTS]`);
    for (const text of logged(vcpu, random)) {
      const [s, us] = [Math.floor(time / 1e6), String(time++ % 1_000_000).padStart(6, "0")];
      lines.push(` qemu-${70 + vcpu}    [00${vcpu}] d..1.  ${s}.${us}: ${text}`);
    }
  }
  return `${lines.join("\n")}\n`;
}

/** Makes a trace: by a kernel or policy, in one paging mode, by some of the ways into L2, or a log. */
async function makeTrace(folder: string, seed: number): Promise<string> {
  const random = new Random(seed);
  const t = `${folder}/t`;
  await Deno.remove(`${folder}/log`).catch(() => {});
  if (random.once(6)) {
    await Deno.writeTextFile(`${folder}/log`, log(random));
    await vmtape("import", `${folder}/log`, "-o", t, "-q", "-f");
    return random.pick(NAMES);
  }
  const entries = WAYS_IN.filter(() => random.once(2));
  const cases = [...generate({
    seed,
    count: 3 + random.below(8),
    ...(entries.length > 0 && { entries }),
    sequences: random.pick([0, 30, 100]),
  })];
  // Some go on from the one before: one session, which only checkpoints part.
  const lines = cases.map((line) => random.once(3) ? `${line} keepvm` : line);
  await Deno.writeTextFile(`${folder}/cases`, lines.join("\n"));
  const own = random.pick(NAMES);
  const npt = random.pick(["on", "off"]);
  const line = ["record", `${folder}/cases`, "-p", own, "--npt", npt, "-o", t, "-q", "-f"];
  const made = await vmtape(...line, ...random.once(2) ? ["--repeat", "2"] : []);
  if (made.status !== 0) throw new FuzzFailure(`Trace ${seed}: ${made.err}`);
  return own;
}

const NAMES = Object.keys(POLICIES);

/** How a trace's work is shared out over threads. */
const WAYS = ["1", "2", "4"].flatMap((jobs) => [["-j", jobs], ["-j", jobs, "--each"]]);

/** Shares the work over generated traces out in every way: all come to the same. */
export async function same(traces: number, seed: number): Promise<Count> {
  const counts: Count = {};
  // Else no more threads than the machine has processors would be started.
  Object.defineProperty(navigator, "hardwareConcurrency", { value: 4, configurable: true });
  using pool = new ThreadPool();
  await pool.warmUp();
  await withFolder(async (folder) => {
    for (let i = 0; i < traces; i++) {
      const own = await makeTrace(folder, seed + i);
      const random = new Random(seed + i);
      const t = `${folder}/t`, c = `${folder}/c`;
      await vmtape("checkpoint", t, "-p", own, "--every", "30", "-o", c, "-q", "-f");
      const other = random.pick(NAMES.filter((name) => name !== own));
      // A log is not shared out over machines, which the command says.
      const whole = await exists(`${folder}/log`);
      for (
        const line of [
          ["replay", "-p", own],
          ["replay", "-p", other, "--all"],
          ["diff", "-p", `${own},${other}`, "--runs"],
        ]
      ) {
        const [name = "", ...options] = line;
        const first = await vmtape(name, t, ...options);
        const check = (way: string, { status, out, err }: typeof first) => {
          // The name of the file is in the commands that a diff proposes.
          if (status !== first.status || out.replaceAll(c, t) !== first.out) {
            const what = `Trace ${seed + i}, ${line.join(" ")}, ${way}: another result ${err}`;
            throw new FuzzFailure(what);
          }
          count(counts, name);
        };
        for (const file of [t, c]) {
          for (const way of WAYS) {
            check(`${file} ${way.join(" ")}`, await vmtape(name, file, ...options, ...way));
            await pool.takeBack();
          }
          if (!whole) check(`${file} in shards`, await sharded(folder, [name, file, ...options]));
        }
      }
    }
  });
  return counts;
}

async function sharded(folder: string, [name = "", ...rest]: string[]) {
  const parts: string[] = [];
  for (let i = 0; i < 3; i++) {
    const { out } = await vmtape(name, ...rest, "--shard", `${i}/3`, "--json", "-q");
    const path = `${folder}/${crypto.randomUUID()}`;
    await Deno.writeTextFile(path, out);
    parts.push(path);
  }
  try {
    return await vmtape("merge", ...parts);
  } finally {
    for (const path of parts) await Deno.remove(path);
  }
}

/** Seconds that a command may take over a bomb: what it holds by then is what counts. */
const PATIENCE = 20;

/** The most memory of each command over bombs of so many blocks, those whose names hold a text. */
async function peaks(blocks: number, only: string): Promise<string> {
  const inputs = new Set<string>();
  const over: string[] = [];
  const look = ({ line, input, status, peak }: Peak) => {
    inputs.add(input);
    if (peak > BUDGET || status === 70) {
      over.push(`${line} ${input}: status ${status}, ${peak} MiB`);
    }
  };
  const alone = await memory(blocks, new RegExp(only), (peak) => {
    look(peak);
    Deno.stderr.writeSync(new TextEncoder().encode(`${JSON.stringify(peak)}\n`));
  }, PATIENCE);
  alone.forEach(look);
  if (over.length > 0) throw new FuzzFailure(`More than ${BUDGET} MiB, or status 70: ${over}`);
  const rows = alone.map(({ line, peak, input }) =>
    `${String(peak).padStart(4)} MiB  ${line}  (${input})`
  );
  return `${inputs.size} files\n${rows.join("\n")}`;
}

if (import.meta.main) {
  const [what = "", times = "20", seed = "1"] = Deno.args;
  if (what === "memory") {
    const table = await peaks(Number(times), Deno.args[2] ?? "");
    await Deno.stdout.write(new TextEncoder().encode(`${table}\n`));
    Deno.exit(0);
  }
  const found = what === "kill"
    ? await kill(Number(times), Number(seed))
    : what === "full"
    ? await full(Number(times)) ?? "no disk can be made here"
    : what === "signals"
    ? await signals(Number(times), Number(seed))
    : await same(Number(times), Number(seed));
  await Deno.stdout.write(new TextEncoder().encode(`${what}: ${JSON.stringify(found)}\n`));
}
