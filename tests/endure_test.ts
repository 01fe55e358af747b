/** A few of what `deno task endure` tries many of. */
import { assert } from "@std/assert";
import { full, kill, same } from "./fuzzing/endure.ts";

Deno.test("writers that are killed leave nothing, something whole, or something to recover", async () => {
  const found = await kill(4, 1);
  assert(Object.values(found).reduce((sum, n) => sum + n, 0) === 4);
});

Deno.test({
  name: "a full disk ends in words, takes nothing away, and leaves no file that is not whole",
  // A command that cannot write ends its process with what it reads open.
  sanitizeResources: false,
  async fn(t) {
    const found = await full(3);
    if (found === undefined) {
      await t.step({ name: "(skipped: no small disk can be mounted here)", ignore: true, fn() {} });
      return;
    }
    assert((found["nothing"] ?? 0) + (found["recovered"] ?? 0) > 10, JSON.stringify(found));
  },
});

Deno.test("work shared out over threads, shards and checkpoints comes to the same", async () => {
  const found = await same(1, 1);
  assert((found["replay"] ?? 0) > 10 && (found["diff"] ?? 0) > 10, JSON.stringify(found));
});
