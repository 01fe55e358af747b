import { assertEquals } from "@std/assert";
import { type Inner, type Record_, replay } from "./cpu_lab.ts";

const ROOT = new URL("../../shared/ground-truth/", import.meta.url);

async function exists(): Promise<boolean> {
  try {
    await Deno.stat(ROOT);
    return true;
  } catch {
    return false;
  }
}

// Not the processor's doing: KVM's own error code for a reserved bit in L1's tables, and a page of L1's
// tables that KVM protects and emulates the instruction for.
const OF_THE_HYPERVISOR = new Set(["ncr3_bit13", "ncr3_bit17"]);

async function records(file: string): Promise<Record_[]> {
  const bytes = await Deno.readFile(new URL(file, ROOT));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return (await new Response(stream).text()).trim().split("\n").map((l) =>
    JSON.parse(l) as Record_
  );
}

const present = await exists();

for (const npt of [0, 1]) {
  Deno.test({
    name: `cpu: what L2 did in the recordings, npt=${npt}`,
    ignore: !present,
    async fn() {
      const unsteady = JSON.parse(await Deno.readTextFile(new URL("unsteady.json", ROOT)));
      const name = `A-linux-6.12-npt${npt}`;
      const left = new Set<string>(Object.values(unsteady).flat() as string[]);
      const off: string[] = [];
      let same = 0;
      for (const record of await records(`${name}.ndjson.gz`)) {
        const inner = record.events.filter((e) => e.at === "vmrun") as Inner[];
        const first = inner[0];
        if (first === undefined || inner.length !== 1 || first.nested.guest_mode !== "1") continue;
        if (/entry=|keep/.test(record.spec) || left.has(record.case)) continue;
        if (OF_THE_HYPERVISOR.has(record.case)) continue;
        const outcome = replay(record, first);
        if (outcome === "same") same++;
        else if (!outcome.startsWith("skip")) off.push(`${record.case}: ${outcome}`);
      }
      assertEquals(off, []);
      assertEquals(same > 400, true, `only ${same} records compared`);
    },
  });
}
