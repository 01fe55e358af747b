/**
 * A lab that answers as the model does, but for one deviation: GIF stays set when the ASID is 0. It
 * takes what the lab takes. HUNT_PAUSE names a file: while it is not there, the second asking writes
 * it, and waits.
 *
 * @module
 */
import { POLICIES } from "../engine/policies/mod.ts";
import { formatLabRecord, type LabRecord } from "../codecs/lab/record.ts";
import { Emulator } from "../traces/scenarios/emulator.ts";
import { parseScenarios } from "../traces/scenarios/scenario_reader.ts";

/** The deviation. */
export function deviate(record: LabRecord): LabRecord {
  const { post, events } = record;
  const refused = events.at(0);
  if (post === undefined || refused === undefined || !("check_failed" in refused)) return record;
  if (refused.check_failed !== "control->asid == 0" || post.port !== "80") return record;
  return { ...record, post: { ...post, gif: 1 } };
}

if (import.meta.main) {
  const [file = "", , kernel = "", , npt = ""] = Deno.args;
  const pause = Deno.env.get("HUNT_PAUSE");
  if (pause !== undefined) {
    const asked = await Deno.readTextFile(`${pause}.count`).catch(() => "0");
    await Deno.writeTextFile(`${pause}.count`, `${Number(asked) + 1}`);
    if (asked === "2" && !await Deno.stat(pause).then(() => true, () => false)) {
      await Deno.writeTextFile(pause, "");
      await new Promise((resolve) => setTimeout(resolve, 60_000));
    }
  }
  const emulator = new Emulator(POLICIES[kernel]!, { npt: npt === "1", full: true });
  const lines = parseScenarios(await Deno.readTextFile(file)).map((scenario) =>
    formatLabRecord(deviate(emulator.run(scenario)))
  );
  await Deno.stdout.write(new TextEncoder().encode(lines.join("\n") + "\n"));
}
