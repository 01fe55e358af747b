import { assert } from "@std/assert";
import { type Agreement, freshAgreement, LabHangs, labPresent, SETTINGS } from "./lab_fresh.ts";

const COUNT = 200;
/** Part of the steady cases that has to agree in everything; those that go on from one that does not are among them. */
const LEAST = 0.96;
/** Seeds that are tried when a case keeps the kernel itself busy for ever. */
const SEEDS = 3;

async function say(line: string): Promise<void> {
  await Deno.stderr.write(new TextEncoder().encode(line));
}

async function agreement(first: number): Promise<Agreement & { line: string }> {
  for (let seed = first;; seed++) {
    const setting = SETTINGS[seed % SETTINGS.length]!;
    try {
      const found = await freshAgreement(seed, COUNT, setting);
      const { compared, agreed, unsteady } = found;
      const line =
        `seed ${seed}, ${setting}: ${agreed} of ${compared} agree, ${unsteady} unsteady\n`;
      return { ...found, line };
    } catch (error) {
      if (!(error instanceof LabHangs) || seed - first === SEEDS - 1) throw error;
      await say(`seed ${seed}: ${error.message}\n`);
    }
  }
}

Deno.test({
  name: `the model agrees with a real kernel on ${COUNT} cases that nobody has seen`,
  ignore: !await labPresent(),
  async fn() {
    const seed = Number(Deno.env.get("VMTAPE_SEED") ?? crypto.getRandomValues(new Uint32Array(1)));
    const { compared, agreed, text, line } = await agreement(seed);
    await say(line);
    assert(compared >= COUNT / 2, `${line}too few steady cases`);
    assert(agreed >= LEAST * compared, line + text);
  },
});
