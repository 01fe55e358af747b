import { assert, assertEquals } from "@std/assert";
import { ARCHITECTURAL, LINUX_6_1, LINUX_7_3, POLICIES } from "../engine/policies/mod.ts";
import { Blame, Foreseer, KNOWN, Pieces, unitsOf } from "../traces/hunt/mod.ts";
import { knownGap, knownIn } from "../traces/hunt/known.ts";
import { generate } from "../traces/generate/generate.ts";

const COUNT = 60;

Deno.test("with all pieces of a kernel, what it is held against does as the kernel does, and with none as before", () => {
  let deviations = 0;
  for (const [seed, name] of ["linux-6.1", "linux-6.12", "linux-7.3", "unified"].entries()) {
    const kernel = POLICIES[name]!;
    const pieces = new Pieces(kernel, ARCHITECTURAL);
    const whole = new Foreseer(kernel, pieces.put(pieces.names), true);
    const plain = new Foreseer(kernel, ARCHITECTURAL, true);
    const none = new Foreseer(kernel, pieces.put([]), true);
    for (const unit of unitsOf(generate({ seed: 90 + seed, count: COUNT }))) {
      assertEquals(whole.foresee(unit).deviations.map(({ key }) => key), [], unit.join("\n"));
      const keys = plain.foresee(unit).deviations.map(({ key }) => key);
      deviations += keys.length;
      assertEquals(none.foresee(unit).deviations.map(({ key }) => key), keys);
    }
  }
  assert(deviations > COUNT / 4, `${deviations}`);
});

Deno.test("a policy is in no piece otherwise than itself", () => {
  for (const policy of Object.values(POLICIES)) {
    assertEquals(new Pieces(policy, policy).names, [], policy.name);
  }
});

Deno.test("a deviation comes from the pieces without which it is gone, and from none that can go", async () => {
  const unit = ["vmmcall c.10.4=1"];
  const { deviations } = new Foreseer(LINUX_6_1, ARCHITECTURAL, true).foresee(unit);
  const [one] = deviations;
  assert(one !== undefined);
  const blame = new Blame(LINUX_6_1, ARCHITECTURAL, true);
  assertEquals(await blame.piecesOf(unit, deviations, one), ["trait interceptsVmmcallOfL2"]);
  const known = knownIn(LINUX_6_1, ARCHITECTURAL);
  const rows = await blame.knownOf(unit, deviations, one, known);
  assertEquals(rows?.map(({ id }) => id), ["6.1-vmmcall"]);
  const others = known.filter(({ id }) => id !== "6.1-vmmcall");
  assertEquals(await blame.knownOf(unit, deviations, one, others), undefined);
});

Deno.test("each known deviation names pieces that its kernels have", () => {
  for (const { id, pieces, gap, kernels = ["linux-6.1", "linux-6.12", "linux-7.3"] } of KNOWN) {
    assert((pieces === undefined) !== (gap === undefined), id);
    if (pieces === undefined) continue;
    const there = kernels.flatMap((name) => new Pieces(POLICIES[name]!, ARCHITECTURAL).names);
    for (const piece of pieces) assert(there.includes(piece), `${id}: ${piece}`);
  }
});

Deno.test("known deviations are known from the manual only, and gaps by their values", () => {
  const known = knownIn(LINUX_7_3, ARCHITECTURAL);
  assert(known.some(({ id }) => id === "vmcb12-not-backed"));
  assert(knownIn(LINUX_7_3, LINUX_6_1).every(({ pieces }) => pieces === undefined));
  const gap = (field: string, a: string, b: string) =>
    knownGap({ key: `gap|vmrun|${field}`, title: "", case: 0, fields: [{ field, a, b }] }, known);
  assertEquals(gap("unmodelled", "absent", "x")?.id, "runs-into-nothing");
  assertEquals(gap("post.rip", "2b60", "b4")?.id, "runs-into-nothing");
  // A loop at L2's first instruction is none of these.
  assertEquals(gap("post.rip", "9000", "8003"), undefined);
  assertEquals(gap("setstate.cpu.req", "501014900", "501214900")?.id, "clock-unstable");
  assertEquals(gap("setstate.cpu.req", "501014900", "501014901"), undefined);
  const injected = "vmexit.vmcb02 control.exit_int_info";
  assertEquals(gap(injected, "80000200", "80000202")?.id, "delivery-disturbed");
  assertEquals(gap(injected, "0", "80000020"), undefined);
});
