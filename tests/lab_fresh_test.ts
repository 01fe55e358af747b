import { assert } from "@std/assert";
import { freshAgreement, labPresent, SETTINGS } from "./lab_fresh.ts";

const COUNT = 200;
/** Part of the steady cases that has to agree in everything. */
const LEAST = 0.97;

Deno.test({
  name: `the model agrees with a real kernel on ${COUNT} cases that nobody has seen`,
  ignore: !await labPresent(),
  async fn() {
    const seed = Number(Deno.env.get("VMTAPE_SEED") ?? crypto.getRandomValues(new Uint32Array(1)));
    const setting = SETTINGS[seed % SETTINGS.length]!;
    const { compared, agreed, unsteady, text } = await freshAgreement(seed, COUNT, setting);
    const line = `seed ${seed}, ${setting}: ${agreed} of ${compared} agree, ${unsteady} unsteady\n`;
    await Deno.stderr.write(new TextEncoder().encode(line));
    assert(compared >= COUNT / 2, `${line}too few steady cases`);
    assert(agreed >= LEAST * compared, line + text);
  },
});
