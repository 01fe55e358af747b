/**
 * The subcommand `hunt`.
 *
 * @module
 */
import config from "../../deno.json" with { type: "json" };
import { KERNELS } from "../../engine/kernels/mod.ts";
import { kernelPolicy } from "../../engine/policy.ts";
import type { LabRecord } from "../../codecs/lab/record.ts";
import { type Ask, BATCH, Hunt, reduceFindings, unitsOf } from "../../traces/hunt/mod.ts";
import { defineCommand, EXIT, FORCE } from "../command.ts";
import type { Context } from "../context.ts";
import { InterruptedError, UsageError } from "../errors.ts";
import { askLab } from "../hunt_lab.ts";
import { askLive } from "../hunt_live.ts";
import { type HuntSettings, readState, writeState } from "../hunt_state.ts";
import { huntText } from "../hunt_text.ts";
import { openRecords } from "../inputs.ts";
import { isModule } from "../policy_modules.ts";
import { MMU, PROCESSOR } from "../policy_options.ts";
import { loadPolicy, onChosen, POLICY_NAMES } from "../policy_input.ts";
import { untilAborted } from "../until_aborted.ts";

const AGAINST = "architectural";
const COUNT = 1000;
/** Seconds that a lab is given, and how many more for each case: a multiple of what it takes alone. */
const PATIENCE = 30, PATIENCE_PER_CASE = 0.3;
const MAX_SEED = 0xffff_ffff;

/** Looks for what nobody has reported. */
export const huntCommand = defineCommand({
  name: "hunt",
  summary: "Ask a kernel about random cases, and say what it does that nobody has explained",
  details:
    "Thinks of cases that reach what was seldom reached, asks the kernel, and holds its answers " +
    "against its own model and against what --against names. What differs and is not on the list of " +
    "known deviations is made as small as it can be, and asked once more. The kernel is asked by a " +
    "command that takes a file of cases, --kernel and --npt, and prints records (NDJSON), or is this " +
    "machine's own. Needs permission to start that command: deno task hunt.\n\nThe folder keeps what " +
    "a hunt has come to after each batch, and the same command goes on with it. The same seed and " +
    "number of cases have the same findings. The status is 1 when there are any.",
  operands: { usage: "", min: 0, max: 0 },
  options: [
    {
      name: "kernel",
      short: "k",
      kind: "text",
      value: "KERNEL",
      choices: POLICY_NAMES,
      open: true,
      required: true,
      doc: "The kernel that answers: a modelled one, or, with --records, a module of your own",
    },
    {
      name: "against",
      short: "a",
      kind: "text",
      value: "POLICY",
      choices: POLICY_NAMES,
      open: true,
      doc: `What it is held against (${AGAINST})`,
    },
    { name: "lab", kind: "text", value: "CMD", doc: "Command that asks the kernel" },
    { name: "live", kind: "flag", doc: "Ask this machine's own KVM, as record kvm does" },
    { name: "records", kind: "file", value: "FILE", doc: "Judge records that are there already" },
    MMU,
    PROCESSOR,
    { name: "seed", kind: "number", doc: "Where the random numbers begin (1)" },
    { name: "count", short: "n", kind: "number", doc: `How many cases in all (${COUNT})` },
    { name: "minutes", kind: "number", doc: "Begin no batch after so many minutes" },
    { name: "output", short: "o", kind: "file", value: "FOLDER", doc: "Folder to keep it in" },
    FORCE,
  ],
  needs: ["run", "ffi"],
  examples: [
    {
      line: 'hunt -k linux-7.3 --lab "../shared/lab/lab" -o hunt-7.3 --minutes 30',
      doc: "Half an hour; the same line goes on later",
    },
    {
      line: "hunt -k linux-6.12 --records answers.ndjson.gz",
      doc: "What is there in answers that were recorded before?",
    },
  ],
  async run(context, { options }) {
    const { lab, live, records, seed = 1, processor, force } = options;
    const source = sourceOf(lab, live, records);
    if (records === undefined && [options.kernel, options.against ?? ""].some(isModule)) {
      throw new UsageError(
        "A policy of your own runs where nothing can be started: have the lab answer into a file " +
          "(vmtape generate makes cases), and hunt in it with --records",
      );
    }
    if (seed > MAX_SEED) throw new UsageError(`Option --seed is at most ${MAX_SEED}`);
    if (records === undefined && options.output === undefined) {
      throw new UsageError("Say where to keep the hunt: -o FOLDER");
    }
    const chosen = live ? processor ?? "amd" : processor;
    const kernel = await loadPolicy(options.kernel, chosen);
    const against = await loadPolicy(options.against ?? AGAINST, chosen);
    const npt = options.npt !== "off";
    const settings: HuntSettings = {
      format: 2,
      version: config.version,
      kernel: kernel.name,
      against: against.name,
      processor: chosen ?? "",
      npt,
      seed,
      source,
    };
    const folder = options.output;
    if (folder !== undefined) await Deno.mkdir(folder, { recursive: true });
    const before = folder === undefined || force ? undefined : await readState(folder, settings);
    const hunt = new Hunt({ kernel, against, npt, seed }, before);
    const { signal } = context;
    const keep = () => {
      if (folder !== undefined) writeState(context, folder, settings, hunt.state);
    };
    let ask: Ask | undefined;
    let interrupted = false;
    try {
      if (records !== undefined) await takeAll(context, hunt, await openRecords(records));
      else {
        const patience = [PATIENCE, PATIENCE_PER_CASE] as const;
        const words = lab?.split(/\s+/).filter((word) => word !== "") ?? [];
        ask = live ? askLive(signal) : askLab({
          ...{ words, kernel: kernel.name, npt, folder: folder!, patience, signal },
          note: (text) => context.note(text),
        });
        await batches(context, hunt, ask, options, keep);
      }
      const kernels = KERNELS.map((one) => onChosen(kernelPolicy(one), chosen));
      const found = hunt.findings;
      await reduceFindings(found, {
        foreseer: hunt.foreseer,
        kernel,
        against,
        npt,
        kernels,
        ask,
        signal,
      });
      hunt.keep(found);
    } catch (error) {
      if (!(error instanceof InterruptedError)) throw error;
      interrupted = true;
    }
    keep();
    if (context.json) context.out.json({ ...settings, ...hunt.state, reached: hunt.reached });
    else context.out.text(huntText(hunt, settings));
    if (interrupted) {
      context.note("Interrupted; the same command goes on");
      return EXIT.interrupted;
    }
    return hunt.findings.length === 0 ? EXIT.ok : EXIT.differs;
  },
});

function sourceOf(lab: string | undefined, live: boolean, records: string | undefined): string {
  const given = [lab, live ? "live" : undefined, records].filter((one) => one !== undefined);
  if (given.length === 1) return given[0]!;
  throw new UsageError("Say who answers: --lab CMD, --live or --records FILE, one of them");
}

/** Batches until there are enough cases, or no time is left. */
async function batches(
  context: Context,
  hunt: Hunt,
  ask: Ask,
  { count, minutes }: { readonly count: number | undefined; readonly minutes: number | undefined },
  keep: () => void,
): Promise<void> {
  const enough = count ?? (minutes === undefined ? COUNT : Infinity);
  const end = performance.now() + 60_000 * (minutes ?? Infinity);
  using progress = context.progress("cases", Number.isFinite(enough) ? enough : undefined);
  while (hunt.state.funnel.asked < enough && performance.now() < end) {
    context.signal.throwIfAborted();
    await hunt.batch(ask, Math.min(BATCH, enough - hunt.state.funnel.asked));
    keep();
    progress.update(hunt.state.funnel.asked);
  }
}

/** Judges records, unit by unit. */
async function takeAll(
  context: Context,
  hunt: Hunt,
  records: AsyncIterable<LabRecord>,
): Promise<void> {
  using progress = context.progress("cases");
  let lines: string[] = [];
  let unit: LabRecord[] = [];
  let n = 0;
  const take = async () => {
    if (lines.length > 0) await hunt.take(lines, unit);
    [lines, unit] = [[], []];
  };
  for await (const record of untilAborted(records, context.signal)) {
    const line = `${record.case} ${record.spec}`.trimEnd();
    if (unitsOf([...lines.slice(-1), line]).length > 1) await take();
    lines.push(line);
    unit.push(record);
    progress.update(++n);
  }
  await take();
}
