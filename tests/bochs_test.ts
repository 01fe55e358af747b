import { assert, assertEquals } from "@std/assert";
import { C, S } from "../engine/svm/machine.ts";
import type { TraceEvent } from "../engine/event.ts";
import { BochsError, recordBochsScenarios } from "../traces/bochs/mod.ts";
import { parseScenarios } from "../traces/scenarios/scenario_reader.ts";

/** Whether Bochs is installed. */
async function installed(): Promise<boolean> {
  try {
    return (await new Deno.Command("bochs", { args: ["--help"], stdin: "null", stdout: "null" })
      .output()).code !== 127;
  } catch {
    return false;
  }
}

const ignore = !await installed();

async function record(cases: string) {
  const events: TraceEvent[] = [];
  let closed = 0;
  const sink = {
    write: (event: TraceEvent) => void events.push(event),
    close: () => void closed++,
  };
  const result = await recordBochsScenarios(parseScenarios(cases), sink);
  assertEquals(closed, 1);
  return { events, ...result };
}

Deno.test({
  name: "bochs: what L1 finds in vmcb12 after its #VMEXITs",
  ignore,
  async fn() {
    const { events, recorded, skipped, version } = await record(
      [
        "base",
        "asid0 control.asid=0",
        "icebp control.intercept_word4|=ICEBP m.9000.1=f1",
        "int3 control.intercept_exceptions|=BP m.9000.1=cc",
      ].join("\n"),
    );
    assertEquals([recorded, skipped.length], [4, 0]);
    assert(/^2\./.test(version), version);
    const codes = events.flatMap((event) => {
      if (event.kind !== "exit") return [];
      const { bytes } = event.vmcb12!;
      return [new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(C.exit_code, true)];
    });
    assertEquals(codes, [0x81n, 0xffffffffffffffffn, 0x88n, 0x43n]);
    const vmrun = events.find((event) => event.kind === "vmrun");
    const page = vmrun?.vmcb12?.bytes;
    assertEquals(
      page && new DataView(page.buffer, page.byteOffset).getUint32(S.efer, true),
      0x1500,
    );
    const session = events.find((event) => event.kind === "session");
    assertEquals(session?.meta?.["source"], "bochs");
  },
});

Deno.test({
  name: "bochs: cases that it cannot have are left out, and named",
  ignore,
  async fn() {
    const { recorded, skipped } = await record(
      "a entry=rsm\nb nmi=1\nc rflags=202\nd nocpu.7.c=10000\ne entry=setstate",
    );
    assertEquals(recorded, 0);
    assertEquals(skipped.map(({ name }) => name), ["a", "b", "c", "d", "e"]);
    for (const { reason } of skipped) assert(reason.length > 20, reason);
  },
});

Deno.test({
  name: "bochs: without the program, the error says what is missing",
  permissions: { read: true, write: true, env: true, run: false },
  async fn() {
    let caught: unknown;
    try {
      await record("base");
    } catch (error) {
      caught = error;
    }
    assert(caught instanceof BochsError && /bochs-term/.test(caught.message), String(caught));
  },
});
