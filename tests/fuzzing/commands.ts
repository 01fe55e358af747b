/**
 * The commands over one input: every one has to end with a status of the table, and say it in one
 * line.
 *
 * @module
 */
import { cpuUsage } from "node:process";
import { run } from "../../cli/app.ts";
import type { Random } from "../../traces/generate/random.ts";
import { FuzzFailure, type FuzzReport } from "./mutants.ts";

/** The longest that one command may compute, in milliseconds of processor time. */
const TOO_LONG = 60_000;

// deno-lint-ignore no-control-regex
const CONTROLS = /[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]/;

/** Takes at most so much of what is printed. */
class Keeper {
  text = "";
  readonly #decoder = new TextDecoder();

  writeSync(bytes: Uint8Array): number {
    const text = this.#decoder.decode(bytes, { stream: true });
    if (CONTROLS.test(text)) {
      throw new FuzzFailure(
        `A control character is printed: ${JSON.stringify(text.slice(0, 300))}`,
      );
    }
    if (this.text.length < 1 << 16) this.text += text;
    return bytes.length;
  }
}

/**
 * Runs one command, within this process.
 *
 * @param args Its arguments.
 * @param report Where it is counted.
 * @returns Its status and what it printed.
 */
export async function tryCommand(
  args: readonly string[],
  report: FuzzReport,
): Promise<{ readonly status: number; readonly out: string }> {
  const out = new Keeper(), err = new Keeper();
  const start = cpuUsage();
  const status = await run(args, { out, err, color: false, debug: true });
  const { user, system } = cpuUsage(start);
  const took = (user + system) / 1000;
  const shown = `${args.join(" ").slice(0, 300)}: ${err.text.slice(0, 2000)}`;
  if (took > TOO_LONG) throw new FuzzFailure(`It took ${Math.round(took)} ms: ${shown}`);
  if (![0, 1, 2, 3, 4].includes(status)) throw new FuzzFailure(`Status ${status}: ${shown}`);
  if (status > 1 && !err.text.includes("vmtape")) {
    throw new FuzzFailure(`No word of ${status}: ${shown}`);
  }
  report.slowest = Math.max(report.slowest, Math.round(took));
  if (status < 2) report.accepted++;
  else report.errors[`status ${status}`] = (report.errors[`status ${status}`] ?? 0) + 1;
  return { status, out: out.text };
}

const PAIR = ["--policies", "early-exit,linux-6.12"];

/** Command lines over a trace; `IN` is the trace, `OUT` a file to write. */
export const LINES: readonly (readonly string[])[] = [
  ["dump", "IN"],
  ["dump", "IN", "--fields"],
  ["dump", "IN", "--raw"],
  ["dump", "IN", "--json"],
  ["dump", "IN", "--at", "20"],
  ["dump", "IN", "--from", "5", "--to", "30"],
  ["dump", "IN", "--columns", "event,time,exit_code,rip,check"],
  ["dump", "IN", "--where", "exit_code == VMRUN || save.efer & SVME"],
  ["dump", "IN", "-w", "!(control.asid > 0 && vcpu == 0) || regs.rip < 0x9000", "--fields"],
  ["dump", "IN", "--case", "e", "--exit", "NPF", "--check", "asid-zero"],
  ["dump", "IN", "--since", "1", "--until", "1000000", "--kind", "warn,check,inner"],
  ["dump", "IN", "--at", "33", "--policy", "architectural", "--json"],
  ["info", "IN"],
  ["info", "IN", "--json"],
  ["verify", "IN"],
  ["replay", "IN"],
  ["replay", "IN", "--policy", "unified"],
  ["replay", "IN", "--policy", "linux-6.12", "--all"],
  ["replay", "IN", "--policy", "architectural", "--json", "--each"],
  ["replay", "IN", "--policy", "unified", "--from", "20"],
  ["diff", "IN", ...PAIR],
  ["diff", "IN", ...PAIR, "--json"],
  ["diff", "IN", ...PAIR, "--format", "markdown"],
  ["diff", "IN", "--policies", "unified,early-exit,architectural", "--runs"],
  ["diff", "IN", ...PAIR, "--shard", "0/2", "--json"],
  ["replay", "IN", "--shard", "1/3", "--json"],
  ["diff", "IN", "IN", "--runs", "--json"],
  ["diff", "IN", "IN", "--fail-on", "outcome"],
  ["diff", "IN", ...PAIR, "--fail-on", "gif", "--limit", "1"],
  ["explain", "IN", ...PAIR, "--event", "12"],
  ["explain", "IN", "--policies", "linux-6.1", "--event", "20", "--json"],
  ["why", "IN"],
  ["why", "IN", "--json"],
  ["why", "IN", "--event", "15", "--processor", "qemu-7.2"],
  ["identify", "IN"],
  ["identify", "IN", "--json"],
  ["stats", "IN", "--passes", "1"],
  ["stats", "IN", "--passes", "1", "--steps", "--hlog"],
  ["top", "IN"],
  ["top", "IN", "--per-vcpu", "--sort", "handling", "--limit", "3"],
  ["top", "IN", "--json"],
  ["compare", "IN", "IN"],
  ["export", "IN", "--to", "perfetto", "-o", "OUT", "-f"],
  ["export", "IN", "--to", "perfetto-json", "-o", "OUT", "-f"],
  ["export", "IN", "--to", "perfetto", ...PAIR, "-o", "OUT", "-f"],
  ["report", "IN", ...PAIR, "-o", "OUT", "-f"],
  ["minimize", "IN", ...PAIR, "--event", "12"],
  ["cat", "IN", "IN", "-o", "OUT", "-f"],
  ["cut", "IN", "--from", "7", "-o", "OUT", "-f"],
  ["cut", "IN", "--to", "40", "-o", "OUT", "-f"],
  ["filter", "IN", "--failed-only", "-o", "OUT", "-f"],
  ["filter", "IN", "--case", "*e*", "-o", "OUT", "-f"],
  ["recover", "IN", "-o", "OUT", "-f"],
  ["checkpoint", "IN", "--policy", "unified", "--every", "10", "-o", "OUT", "-f"],
];

/** Of them, each way to hold something of a trace once: for measuring memory. */
export const HOLDING: readonly (readonly string[])[] = [
  ["info", "IN"],
  ["verify", "IN"],
  ["dump", "IN", "--check", "asid-zero"],
  ["dump", "IN", "--at", "33", "--policy", "architectural", "--json"],
  ["replay", "IN"],
  ["replay", "IN", "--policy", "linux-6.12", "--all"],
  ["diff", "IN", ...PAIR, "--json"],
  ["diff", "IN", "IN", "--runs", "--json"],
  ["explain", "IN", ...PAIR, "--event", "100000"],
  ["why", "IN"],
  ["identify", "IN"],
  ["stats", "IN", "--passes", "1"],
  ["top", "IN"],
  ["compare", "IN", "IN"],
  ["export", "IN", "--to", "perfetto", "-o", "OUT", "-f"],
  ["export", "IN", "--to", "perfetto", ...PAIR, "-o", "OUT", "-f"],
  ["report", "IN", ...PAIR, "-o", "OUT", "-f"],
  ["minimize", "IN", ...PAIR, "--event", "12"],
  ["cut", "IN", "--from", "7000", "-o", "OUT", "-f"],
  ["filter", "IN", "--failed-only", "-o", "OUT", "-f"],
  ["recover", "IN", "-o", "OUT", "-f"],
  ["checkpoint", "IN", "--policy", "unified", "--every", "10", "-o", "OUT", "-f"],
];

/** Runs one of the commands over a trace; what it writes has to be whole. */
export async function tryTrace(folder: string, random: Random, report: FuzzReport): Promise<void> {
  const [file, other] = [`${folder}/in`, `${folder}/out`];
  const line = random.pick(LINES);
  const args = line.map((word) => word === "IN" ? file : word === "OUT" ? other : word);
  const { status } = await tryCommand([...args, "-q"], report);
  if (status > 1 || !line.includes("OUT") || ["export", "report"].includes(line[0]!)) return;
  const counted = { ...report, errors: {} };
  const after = await tryCommand(["verify", other, "-q"], counted);
  if (after.status !== 0) throw new FuzzFailure(`${line.join(" ")} wrote what is damaged`);
}
