/**
 * The subcommand `verify`.
 *
 * @module
 */
import { verifyTrace } from "../../codecs/container/verify.ts";
import { defineCommand, EXIT } from "../command.ts";
import { failureOf } from "../errors.ts";
import { openChunks } from "../inputs.ts";

/** Says what of a trace is intact. */
export const verify = defineCommand({
  name: "verify",
  summary: "Read all of a trace, and say what of it is intact",
  details: "Decodes every event. Ends with 3 when anything is wrong; recover saves the rest.",
  operands: { usage: "TRACE", min: 1, max: 1 },
  options: [],
  examples: [{ line: "verify run.vmtape", doc: "Is the whole trace there, as it was written?" }],
  async run(context, { operands: [path = ""] }) {
    const result = await verifyTrace(await openChunks(path));
    const { intact, finished, blocks, events, lost } = result;
    const problems = result.problems.map((error) => {
      const { code, message, details } = failureOf(error);
      return { ...details, code, message };
    });
    if (context.json) context.out.json({ intact, finished, blocks, events, lost, problems });
    else {
      for (const { message } of problems) context.out.line(message);
      const known = lost > 0 ? `, ${lost} are lost` : "";
      const state = intact
        ? "intact"
        : `damaged in ${problems.length} ${problems.length === 1 ? "place" : "places"}`;
      context.out.line(`${path}: ${state}; ${events} events in ${blocks} blocks are right${known}`);
    }
    return intact ? EXIT.ok : EXIT.damaged;
  },
});
