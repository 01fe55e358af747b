/**
 * What holds whatever happens: a recorder that is killed, a disk that is full, work shared out in any
 * way. Arguments: what (`kill`, `full`, `same`), how often, a seed.
 */
import { run } from "../../cli/app.ts";
import { generate } from "../../traces/generate/generate.ts";
import { Random } from "../../traces/generate/random.ts";
import { FuzzFailure } from "./mutants.ts";

const ROOT = new URL("../..", import.meta.url).pathname;
const MAIN = ["run", "--frozen", "-q", "--no-prompt", "-A", `${ROOT}cli/main.ts`];

/** Keeps what is printed. */
class Keeper {
  text = "";
  readonly #decoder = new TextDecoder();

  writeSync(bytes: Uint8Array): number {
    this.text += this.#decoder.decode(bytes, { stream: true });
    return bytes.length;
  }
}

/** Runs a command within this process. */
async function vmtape(...args: string[]): Promise<{ status: number; out: string; err: string }> {
  const out = new Keeper(), err = new Keeper();
  const status = await run(args, { out, err, color: false, debug: true });
  return { status, out: out.text, err: err.text };
}

async function exists(path: string): Promise<boolean> {
  return await Deno.lstat(path).then(() => true, () => false);
}

async function withFolder<T>(use: (folder: string) => Promise<T>): Promise<T> {
  const folder = await Deno.makeTempDir({ prefix: "vmtape-endure-" });
  try {
    return await use(folder);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
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

/** Kills commands that write, at random moments. */
export async function kill(times: number, seed: number): Promise<Count> {
  const random = new Random(seed);
  const counts: Count = {};
  await withFolder(async (base) => {
    await prepare(base);
    for (let i = 0; i < times; i++) {
      const line = random.pick(WRITERS);
      const file = line.at(-1)!;
      const child = new Deno.Command(Deno.execPath(), {
        args: [...MAIN, ...line, "-q"],
        cwd: base,
        stdout: "null",
        stderr: "null",
      }).spawn();
      const timer = setTimeout(() => {
        try {
          child.kill("SIGKILL");
        } catch {
          // It was faster.
        }
      }, 200 + random.below(2500));
      await child.status;
      clearTimeout(timer);
      count(counts, await lookAt(base, file));
      for await (const { name } of Deno.readDir(base)) {
        if (name.startsWith("a.") || name === "saved") await Deno.remove(`${base}/${name}`);
      }
    }
  });
  return counts;
}

async function command(name: string, ...args: string[]): Promise<boolean> {
  const { success } = await new Deno.Command(name, { args, stdout: "null", stderr: "null" })
    .output().catch(() => ({ success: false }));
  return success;
}

/**
 * Writes to a disk of so many sizes, each too small or just large enough.
 *
 * @returns What came of it; undefined where no disk can be made.
 */
export async function full(levels: number): Promise<Count | undefined> {
  const counts: Count = {};
  return await withFolder(async (base) => {
    await prepare(base);
    const disk = `${base}/disk`;
    await Deno.mkdir(disk);
    for (let i = 0; i < levels; i++) {
      const size = `${4 * (1 + Math.floor(i * i * 0.7))}k`;
      if (!await command("mount", "-t", "tmpfs", "-o", `size=${size}`, "vmtape", disk)) {
        return undefined;
      }
      try {
        for (const line of WRITERS) {
          const file = `disk/${line.at(-1)!}`;
          const { code, stderr } = await new Deno.Command(Deno.execPath(), {
            args: [...MAIN, ...line.slice(0, -1), file],
            cwd: base,
            stdout: "null",
            stderr: "piped",
          }).output();
          const said = new TextDecoder().decode(stderr);
          if (code > 2) throw new FuzzFailure(`Status ${code} at ${size}: ${said}`);
          if (code === 2 && !said.includes("No space left")) {
            throw new FuzzFailure(`At ${size}: ${said}`);
          }
          const left = await lookAt(base, file);
          if (left === "whole" !== code < 2) {
            throw new FuzzFailure(`${left} at ${size}, status ${code}`);
          }
          count(counts, left);
          for await (const { name } of Deno.readDir(disk)) await Deno.remove(`${disk}/${name}`);
        }
      } finally {
        await command("umount", disk);
      }
    }
    return counts;
  });
}

/** Shares the work over generated traces out in every way: all come to the same. */
export async function same(traces: number, seed: number): Promise<Count> {
  const counts: Count = {};
  await withFolder(async (folder) => {
    for (let i = 0; i < traces; i++) {
      const random = new Random(seed + i);
      const cases = [...generate({ seed: seed + i, count: 8 + random.below(16) })];
      // Some go on from the one before: one session, which only checkpoints part.
      const lines = cases.map((line) => random.once(3) ? `${line} keepvm` : line);
      await Deno.writeTextFile(`${folder}/cases`, lines.join("\n"));
      const own = random.pick(["unified", "early-exit", "linux-6.12"]);
      const t = `${folder}/t`, c = `${folder}/c`;
      await vmtape("record", `${folder}/cases`, "-p", own, "-o", t, "-q", "-f");
      await vmtape("checkpoint", t, "-p", own, "--every", "60", "-o", c, "-q", "-f");
      const other = own === "unified" ? "early-exit" : "unified";
      for (
        const line of [["replay"], ["replay", "-p", other, "--all"], [
          "diff",
          "-p",
          `${own},${other}`,
          "--runs",
        ]]
      ) {
        const [name = "", ...options] = line;
        const first = await vmtape(name, t, ...options);
        const ways: [string, Promise<{ status: number; out: string; err: string }>][] = [];
        for (const file of [t, c]) {
          for (const jobs of ["1", "2", "4"]) {
            for (const each of [[], ["--each"]]) {
              ways.push([
                `${file} -j ${jobs} ${each}`,
                vmtape(name, file, ...options, "-j", jobs, ...each),
              ]);
            }
          }
          ways.push([`${file} in shards`, sharded(folder, [name, file, ...options])]);
        }
        for (const [way, result] of ways) {
          const { status, out, err } = await result;
          // The name of the file is in the commands that a diff proposes.
          const plain = out.replaceAll(c, t);
          if (status !== first.status || plain !== first.out) {
            throw new FuzzFailure(
              `Trace ${seed + i}, ${line.join(" ")}, ${way}: another result ${err}`,
            );
          }
          count(counts, name);
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
  return await vmtape("merge", ...parts);
}

if (import.meta.main) {
  const [what = "", times = "20", seed = "1"] = Deno.args;
  const found = what === "kill"
    ? await kill(Number(times), Number(seed))
    : what === "full"
    ? await full(Number(times)) ?? "no disk can be made here"
    : await same(Number(times), Number(seed));
  await Deno.stdout.write(new TextEncoder().encode(`${what}: ${JSON.stringify(found)}\n`));
}
