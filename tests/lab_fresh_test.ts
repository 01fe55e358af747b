import { assert, assertEquals, assertThrows } from "@std/assert";
import { answersIn } from "../cli/hunt_lab.ts";
import { HuntError } from "../traces/hunt/mod.ts";
import { freshAgreement, KERNELS, LabHangs, labPresent } from "./lab_fresh.ts";

/** Cases in all, each kernel its share. */
const COUNT = 200;
/**
 * Part of the steady cases that has to agree in everything; those that go on from one that does
 * not are among them.
 */
const LEAST = 0.95;
/** Seeds that are tried when a case keeps the kernel itself busy for ever. */
const SEEDS = 3;

async function say(line: string): Promise<void> {
  await Deno.stderr.write(new TextEncoder().encode(line));
}

/** What the model and a kernel make of fresh cases, with or without nested paging as the seed has it. */
async function agreement(kernel: string, first: number) {
  for (let seed = first;; seed++) {
    const setting = `${kernel}-npt${seed % 2}`;
    try {
      const found = await freshAgreement(seed, COUNT / KERNELS.length, setting);
      const { compared, agreed, unsteady } = found;
      await say(
        `seed ${seed}, ${setting}: ${agreed} of ${compared} agree, ${unsteady} unsteady\n`,
      );
      return found;
    } catch (error) {
      if (!(error instanceof LabHangs) || seed - first === SEEDS - 1) throw error;
      await say(`seed ${seed}: ${error.message}\n`);
    }
  }
}

Deno.test({
  name: `the model agrees with the real kernels on ${COUNT} cases that nobody has seen`,
  ignore: !await labPresent(),
  async fn() {
    const given = Deno.env.get("VMTAPE_SEED");
    const first = given === undefined
      ? crypto.getRandomValues(new Uint32Array(1))[0]! >>> 1
      : Number(given);
    let compared = 0, agreed = 0, texts = "";
    for (const [i, kernel] of KERNELS.entries()) {
      const found = await agreement(kernel, first + i * SEEDS);
      compared += found.compared;
      agreed += found.agreed;
      if (found.agreed < found.compared) texts += found.text;
    }
    assert(compared >= COUNT / 2, "too few steady cases");
    assert(agreed >= LEAST * compared, `${agreed} of ${compared} agree\n${texts}`);
  },
});

Deno.test("what cannot be read of the lab's answers is no answer, and loses no other", () => {
  const record = (name: string, cs: string) =>
    JSON.stringify({
      case: name,
      spec: "s",
      kernel: "linux-6.12",
      npt: 1,
      events: [],
      post: { cs },
    });
  const read = (...lines: string[]) =>
    answersIn(lines.join("\n")).map((answer) => [answer.case, answer.post?.cs]);
  const whole = record("a", "8/1/0"), odd = record("b", "8/1");
  assertEquals(read(whole, odd, whole), [["a", "8/1/0"], ["b", undefined], ["a", "8/1/0"]]);
  assertEquals(read(whole, odd.slice(0, -9)), [["a", "8/1/0"]]);
  assertThrows(() => read("Kernel panic"), HuntError);
});
