/**
 * The subcommand `generate`.
 *
 * @module
 */
import { generate } from "../../traces/generate/generate.ts";
import { ENTRIES } from "../../traces/scenarios/scenario.ts";
import { defineCommand, EXIT } from "../command.ts";
import { UsageError } from "../errors.ts";

const COUNT = 100;
const MAX_SEED = 0xffff_ffff;

/** Prints random cases. */
export const generateCommand = defineCommand({
  name: "generate",
  summary: "Print random cases near the boundary of what is valid",
  details: "The same seed gives the same cases, whatever the count. The lab runs them as they are.",
  operands: { usage: "", min: 0, max: 0 },
  options: [
    { name: "seed", kind: "number", doc: "Where the random numbers begin (1)" },
    { name: "count", short: "n", kind: "number", doc: `How many cases (${COUNT})` },
    {
      name: "entries",
      kind: "list",
      choices: ENTRIES,
      doc: "Ways into L2 to use; all when left out",
    },
    {
      name: "sequences",
      kind: "number",
      doc: "How many in a hundred begin a sequence on one vCPU",
    },
  ],
  examples: [
    { line: "generate --seed 7 --count 500 > cases.txt", doc: "A file of cases" },
    {
      line: "generate --seed 7 | vmtape predict - --policy linux-6.12",
      doc: "What a kernel would do with them",
    },
  ],
  run(context, { options }) {
    const { seed = 1, count = COUNT, entries, sequences } = options;
    if (seed > MAX_SEED) throw new UsageError(`Option --seed is at most ${MAX_SEED}`);
    const lines = generate({
      seed,
      count,
      ...(entries.length > 0
        ? { entries: ENTRIES.filter((entry) => entries.includes(entry)) }
        : {}),
      ...(sequences === undefined ? {} : { sequences }),
    });
    for (const line of lines) {
      if (context.json) context.out.json({ case: line });
      else context.out.line(line);
    }
    return EXIT.ok;
  },
});
