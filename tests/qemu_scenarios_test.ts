import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import type { EventOf, TraceEvent } from "../engine/event.ts";
import { offsets } from "../engine/layout.ts";
import { REGS_FIELDS } from "../engine/svm/regs_layout.ts";
import { labRecords } from "../codecs/lab/recorder.ts";
import { type LabRecord, readLabRecords } from "../codecs/lab/record.ts";
import { compareRecords } from "../traces/compare/compare.ts";
import { parseScenarios } from "../traces/scenarios/scenario_reader.ts";
import {
  QEMU_BINARY,
  QEMU_FINDINGS,
  QEMU_KERNEL,
  type QemuScenarioOptions,
  type QemuScenarioResult,
  recordQemuScenarios,
} from "../traces/qemu/mod.ts";
import { hasQemu, MemorySink } from "./qemu_process.ts";

const R = offsets(REGS_FIELDS);

const qemuTest = (name: string, fn: () => Promise<void>) =>
  Deno.test({ name: `QEMU's SVM: ${name}`, ignore: !hasQemu, fn });

async function run(text: string, options: QemuScenarioOptions = {}): Promise<
  { result: QemuScenarioResult; records: LabRecord[]; sink: MemorySink }
> {
  const sink = new MemorySink();
  const result = await recordQemuScenarios(parseScenarios(text), sink, {
    limitMs: 150,
    ...options,
  });
  assertEquals(sink.closed, 1);
  const records = await Array.fromAsync(labRecords(sink.events));
  return { result, records, sink };
}

/** A field of a record after the run, as a finding names it. */
function outcome(record: LabRecord | undefined, at: string): string {
  const post = record?.post;
  if (/^[0-9a-f]{3}$/.test(at)) return post?.vmcb12?.[at]?.replace(/^0+/, "") ?? "-";
  return String(post?.[at as "exit" | "gif"] ?? "-");
}

qemuTest("the base enters L2, and its VMMCALL comes back to an L1 as it was", async () => {
  const { result, records: [record], sink } = await run("ok");
  assertEquals([result.ended, result.recorded, result.skipped.length], ["done", 1, 0]);
  const { vmcb12, ...post } = record!.post!;
  assertEquals(post, {
    rip: "8003",
    rax: "10000",
    rsp: "7800",
    rflags: "2",
    cr0: "80000011",
    cr2: "0",
    cr3: "1000",
    cr4: "20",
    efer: "1500",
    dr6: "ffff0ff0",
    dr7: "400",
    cs: "8/1/0",
    ss: "10",
    gif: 0,
    guest_mode: 0,
    smm: 0,
    rc: 0,
    errno: 0,
    exit: 2,
    port: "80",
  });
  assertEquals(vmcb12!["070"], "0000000000000081");
  assertEquals([record!.pre!.gif, record!.pre!.rflags], [1, "2"]);
  assertEquals([record!.kernel, record!.partial], [QEMU_KERNEL, true]);
  const kinds = sink.events.map((event) => event.kind === "regs" ? event.phase : event.kind)
    .filter((kind) => kind !== "memory");
  assertEquals(kinds, ["session", "case", "pre", "vmrun", "exit", "post"]);
  const session = sink.events[0] as EventOf<"session">;
  assertEquals([session.meta?.source, session.meta?.kernel], ["qemu", QEMU_KERNEL]);
  assertStringIncludes(String(session.meta?.qemu), "7.");
});

qemuTest("each event of L1 has its time and all registers that the debugger saw", async () => {
  const { sink } = await run("ok\nfault rax=10001\nkept keepvm");
  const regs = (kind: TraceEvent["kind"]) =>
    sink.events.flatMap((event) => event.kind === kind && "regs" in event ? [event] : []);
  const vmruns = regs("vmrun"),
    pre = regs("regs").filter((e) => e.kind === "regs" && e.phase === "pre");
  assertEquals(vmruns.map(({ regs }) => regs), pre.map(({ regs }) => regs));
  const times = [...vmruns, ...regs("exit")].map(({ time }) => time ?? -1);
  assertEquals(times.length, 5);
  assert(times.every((time) => time > 0), times.join());
  const { known } = vmruns[0]!.regs!;
  for (const name of ["r15", "cs_base", "tr_attrib", "idtr_limit", "hsave_pa"] as const) {
    assertEquals(known?.[R[name]], 0xff, name);
  }
  const { regs: gone, ...fault } = sink.events.filter((e) => e.kind === "regs")[3]!;
  assertEquals([gone, fault.phase], [undefined, "post"], "a shutdown leaves no registers to see");
});

qemuTest("each way for a scenario to end is told from the others", async () => {
  const { records } = await run([
    "pae l1pae",
    "loop m.9000.2=feeb",
    "halt c.c.4=0 m.9000.1=f4",
    "fault rax=10001",
    "nmi_in_l1 nmi=1",
    "nmi_in_l2 nmi=1 gif=0 c.c.4=91000002",
    "l2_at_l1s_port s.178=8003",
    "l2_runs_l1s_vmrun s.178=8000 s.1f8=10000",
    "later_is_fresh",
  ].join("\n"));
  assertEquals(
    records.map(({ case: name, post }) => [name, post?.rc, post?.exit, post?.guest_mode]),
    [
      ["pae", 0, 2, 0],
      ["loop", -1, undefined, 1],
      ["halt", 0, 5, 1],
      ["fault", 0, 8, undefined],
      ["nmi_in_l1", 0, 8, undefined],
      ["nmi_in_l2", 0, 2, 0],
      ["l2_at_l1s_port", 0, 2, 1],
      ["l2_runs_l1s_vmrun", 0, 2, 0],
      ["later_is_fresh", 0, 2, 0],
    ],
  );
  assertEquals(records[0]!.pre!.cs, "8/0/1");
  assertEquals(records[0]!.post!.gif, undefined, "the probe is 64-bit code: GIF stays unknown");
  assertEquals(outcome(records[5], "070"), "61", "an NMI that GIF held back");
  assertEquals(outcome(records[7], "070"), "80", "VMRUN, intercepted in L2");
});

qemuTest("GIF is set before and clear after every #VMEXIT, failed VMRUNs too", async () => {
  const { records } = await run("ok\nok_gif0 gif=0\nasid0 c.58.4=0\nasid0_gif0 gif=0 c.58.4=0");
  assertEquals(records.map(({ pre, post }) => [pre?.gif, post?.gif]), [
    [1, 0],
    [0, 0],
    [1, 0],
    [0, 0],
  ]);
});

qemuTest("keepvm goes on with memory renewed, keepmem with what is there", async () => {
  const { records, sink } = await run([
    "write c.58.4=0 m.60000=1234",
    "kept keepvm keepmem c.0a8=80000220",
    "renewed keepvm",
  ].join("\n"));
  assertEquals(records.map((record) => outcome(record, "058")), ["-", "-", "1"]);
  assertEquals(sink.count("session"), 1);
});

qemuTest("what only an ioctl can do is skipped, with the reason", async () => {
  const { result } = await run(
    "a entry=rsm\nb entry=setstate\nc irq=20\nd\ne entry=mid midnmi=1\nf entry=migrate\ng pa=24",
  );
  assertEquals(result.skipped.map(({ name }) => name), ["a", "b", "c", "e", "f", "g"]);
  for (const { reason } of result.skipped) assertStringIncludes(reason, "predict");
  assertEquals(result.recorded, 1);
});

qemuTest("each finding shows", async () => {
  const text = QEMU_FINDINGS.map(({ name, spec }) => `${name} ${spec}`).join("\n");
  const { records } = await run(text);
  const seen = QEMU_FINDINGS.map(({ at }, i) => outcome(records[i], at));
  assertEquals(seen, QEMU_FINDINGS.map(({ qemu }) => qemu));
});

const GROUND_TRUTH = new URL(
  "../../shared/ground-truth/A-linux-6.12-npt1.ndjson.gz",
  import.meta.url,
);
const hasGroundTruth = (() => {
  try {
    return Deno.statSync(GROUND_TRUTH).isFile;
  } catch {
    return false;
  }
})();

Deno.test({
  name: "QEMU's findings: what they say of KVM is what the lab recorded",
  ignore: !hasGroundTruth,
  async fn() {
    const wanted = new Map(QEMU_FINDINGS.map((finding) => [finding.name, finding.spec]));
    const records = new Map<string, LabRecord>();
    using file = await Deno.open(GROUND_TRUTH);
    for await (const record of readLabRecords(file.readable)) {
      if (wanted.get(record.case) === record.spec) records.set(record.case, record);
    }
    const said = QEMU_FINDINGS.map(({ kvm }) => kvm);
    assertEquals(QEMU_FINDINGS.map(({ name, at }) => outcome(records.get(name), at)), said);
  },
});

Deno.test("a finding is a difference, and each is said once", () => {
  for (const { qemu, kvm, what } of QEMU_FINDINGS) assert(qemu !== kvm && what !== "");
  const keys = QEMU_FINDINGS.map(({ name, at }) => `${name} ${at}`);
  assertEquals(new Set(keys).size, keys.length);
});

Deno.test("of a partial record only what it holds is compared", () => {
  const whole = { case: "a", spec: "", kernel: "linux-6.12", npt: 1, events: [{ warn: "x" }] };
  const kvm: LabRecord = { ...whole, post: { gif: 1, run_pending: 0, rip: "8003" } };
  const seen: LabRecord = {
    ...whole,
    kernel: QEMU_KERNEL,
    partial: true,
    events: [],
    post: { gif: 0, rip: "8003" },
  };
  const { disagreements, unknown } = compareRecords(kvm, seen);
  assertEquals(disagreements.map((d) => d.field), ["post.gif"]);
  assertEquals([...unknown], [1, 2, 3]);
  const { partial: _, ...claimed } = seen;
  const fields = compareRecords(kvm, claimed).disagreements.map((d) => d.field);
  assertEquals(fields, ["warn", "post.gif", "post.run_pending"]);
});

/** A QEMU whose process id is known, so that a test can end it. */
async function withPid(
  use: (binary: string, pid: () => number) => Promise<void>,
): Promise<void> {
  const folder = await Deno.makeTempDir();
  const binary = `${folder}/qemu`;
  const script = `#!/bin/sh\necho $$ > '${folder}/pid'\nexec ${QEMU_BINARY} "$@"\n`;
  await Deno.writeTextFile(binary, script, { mode: 0o755 });
  try {
    await use(binary, () => Number(Deno.readTextFileSync(`${folder}/pid`)));
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

qemuTest("a crash is reported, and the scenario is run on a new QEMU", async () => {
  await withPid(async (binary, pid) => {
    let crashes = 0;
    const { result } = await run("a\nb\nc", {
      qemu: { binary },
      onRecorded: ({ name }) => {
        if (name === "a" && crashes++ === 0) Deno.kill(pid(), "SIGABRT");
      },
    });
    assertEquals([result.ended, result.recorded], ["done", 3]);
    assertEquals(result.crashes.map(({ name }) => name), ["b"]);
  });
});

qemuTest("one that somebody kills ends the recording, which stays valid", async () => {
  await withPid(async (binary, pid) => {
    const { result, sink } = await run("a\nb\nc", {
      qemu: { binary },
      onRecorded: ({ name }) => name === "b" && Deno.kill(pid(), "SIGKILL"),
    });
    assertEquals([result.ended, result.recorded], ["gone", 2]);
    assertEquals([sink.count("case"), sink.count("exit")], [2, 2]);
  });
});

qemuTest("Ctrl-C ends it after the scenario under way", async () => {
  const stop = new AbortController();
  const { result, sink } = await run("a\nb\nc", {
    signal: stop.signal,
    onRecorded: ({ name }) => name === "b" && stop.abort(),
  });
  assertEquals([result.ended, result.recorded, sink.count("case")], ["interrupted", 2, 2]);
});

Deno.test("docs/recording.md tells each finding as it is", async () => {
  const text = await Deno.readTextFile(new URL("../docs/recording.md", import.meta.url));
  const rows = new Set(
    text.split("\n").filter((line) => line.startsWith("|"))
      .map((line) => line.split("|").slice(1, -1).map((cell) => cell.trim()).join("|")),
  );
  for (const { name, spec, at, qemu, kvm, what } of QEMU_FINDINGS) {
    assert(rows.has([`\`${name} ${spec}\``, at, qemu, kvm, what].join("|")), name);
  }
});
