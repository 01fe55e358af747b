/**
 * The subcommand `compare`.
 *
 * @module
 */
import { compare, formatComparison, skipList } from "../../traces/compare/compare.ts";
import { defineCommand, EXIT } from "../command.ts";
import { UsageError } from "../errors.ts";
import { readText } from "../files.ts";
import { openRecords } from "../inputs.ts";

const LISTED = 40;

async function readSkipList(path: string | undefined) {
  if (path === undefined) return undefined;
  const text = await readText(path);
  try {
    return skipList(JSON.parse(text));
  } catch (error) {
    throw new UsageError(`${path} is no skip list: ${(error as Error).message}`);
  }
}

/** Compares two streams of records. */
export const compareCommand = defineCommand({
  name: "compare",
  summary: "Count how far two recordings of the same cases agree",
  details:
    "Takes records (NDJSON, plain or compressed, as the lab and predict print them) or traces. " +
    "Words that hold host addresses, clocks or ASIDs are left out. A recording of a guest or a log " +
    "holds no such records, and one by Bochs or QEMU's processor only what is there after a case: " +
    "`vmtape diff A B` compares all that was recorded.",
  operands: { usage: "A B", min: 2, max: 2 },
  options: [
    {
      name: "skip",
      kind: "file",
      value: "FILE",
      doc: "Leave out the cases of this JSON file: a list of names, or such lists by recording",
    },
    { name: "limit", kind: "number", doc: `List so many fields that differ (${LISTED})` },
  ],
  examples: [
    {
      line: "compare kernel.ndjson.gz predicted.ndjson",
      doc: "How often a prediction is right, and where it is not",
    },
    {
      line: "compare a.vmtape b.vmtape --json",
      doc: "The same of two traces, for machines",
    },
  ],
  async run(context, { options, operands: [a = "", b = ""] }) {
    if (a === "-" && b === "-") throw new UsageError("Only one of the two can be standard input");
    const skip = await readSkipList(options.skip);
    const result = await compare(await openRecords(a), await openRecords(b), skip ? { skip } : {});
    if (result.compared + result.skipped + result.onlyA.length + result.onlyB.length === 0) {
      throw new UsageError(
        "There is nothing to compare: neither holds a record of a case; vmtape diff A B compares " +
          "recordings of guests and logs",
      );
    }
    if (context.json) context.out.json(result);
    else context.out.text(formatComparison(result, options.limit ?? LISTED));
    const { compared, agreed, onlyA, onlyB, otherSpec } = result;
    const same = compared === agreed &&
      onlyA.length + onlyB.length + otherSpec.length === 0;
    return same ? EXIT.ok : EXIT.differs;
  },
});
