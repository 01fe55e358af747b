import { gzipSync } from "node:zlib";
import fc from "fast-check";
import { assert, assertEquals, assertRejects } from "@std/assert";
import { importTracepoints, readTracepoints, TracepointError } from "@vmtape/vmtape/codecs";
import { CONTROL_FIELDS, SAVE_AREA, SAVE_FIELDS, type TraceEvent } from "@vmtape/vmtape/engine";

const encoder = new TextEncoder();

/** The texts of some records: what the kernel prints, and what libtraceevent's plugin makes of it. */
const TEXTS: readonly (readonly [name: string, kernel: string, plugin?: string])[] = [
  [
    "kvm_nested_vmenter",
    "rip: 0x0000000000400863 vmcb: 0x000000000799a000 nested_rip: 0x00000000004001c8 " +
    "int_ctl: 0x01000001 event_inj: 0x80000036 nested_npt=y nested_cr3: 0x0000000001074000",
  ],
  [
    "kvm_nested_intercepts",
    "cr_read: 0018 cr_write: 0001 excp: 00060042 intercepts: bc4c8027 00006e7f 00000001",
  ],
  [
    "kvm_nested_vmexit",
    "vcpu 2 reason DB excp rip 0x4001c8 info1 0x0000000200000006 info2 0xffffffffffffffff " +
    "intr_info 0x80000b0e error_code 0x00000001",
    "<CANT FIND FIELD rip>vcpu 2 reason DB excp rip 0x4001c8 info1 0x0000000200000006 " +
    "info2 0xffffffffffffffff intr_info 0x80000b0e error_code 0x00000001",
  ],
  ["kvm_nested_intr_vmexit", "rip: 0x00000000004001d0"],
  [
    "kvm_nested_vmexit_inject",
    "reason: hypercall ext_inf1: 0x0000000000000001 ext_inf2: 0x0000000000000002 " +
    "ext_int: 0x80000003 ext_int_err: 0x00000004",
    "reason EXIT_VMMCALL info1 1 info2 2 int_info 80000003 int_info_err 4",
  ],
  ["kvm_nested_vmenter_failed", "(save->cr0 & X86_CR0_CD) == 0 && (save->cr0 & X86_CR0_NW)"],
  [
    "kvm_nested_vmenter",
    "rip: 0x0000000000400863 vmcb: 0x000000000799b000 nested_rip: 0x00000000004001c8 " +
    "int_ctl: 0x00000000 event_inj: 0x00000000 nested_npt=n guest_cr3: 0x0000000000001000",
  ],
  [
    "kvm_nested_vmexit_inject",
    "reason: 0xffffffff ext_inf1: 0x0000000000000000 ext_inf2: 0x0000000000000000 " +
    "ext_int: 0x00000000 ext_int_err: 0x00000000",
    "reason EXIT_ERR info1 0 info2 0 int_info 0 int_info_err 0",
  ],
];

const stamp = (i: number) => `5161.${String(124512 + i * 7)}`;

const DIALECTS: Readonly<Record<string, (task: string, pid: number) => string>> = {
  ftrace: (task, pid) =>
    "# tracer: nop\n#\n# entries-in-buffer/entries-written: 8/8   #P:4\n#\n" +
    TEXTS.map(([name, text], i) =>
      `${task.padStart(16)}-${pid}      [002] d..1.  ${stamp(i)}: ${name}: ${text}\n`
    ).join(""),
  "ftrace with thread groups": (task, pid) =>
    TEXTS.map(([name, text], i) =>
      `${task.padStart(16)}-${pid}   (   3412) [002] .N...  ${stamp(i)}: ${name}: ${text}\n`
    ).join(""),
  "trace-cmd": (task, pid) =>
    "cpus=4\n" +
    TEXTS.map(([name, text, plugin], i) =>
      ` ${task}-${pid}  [002]  ${stamp(i)}: ${(name + ":").padEnd(21)} ${plugin ?? text}\n`
    ).join(""),
  "trace-cmd with latency": (task, pid) =>
    "cpus=4\n" +
    TEXTS.map(([name, text, plugin], i) =>
      `${task}-${pid}  [002] d..1  ${stamp(i)}: ${(name + ":").padEnd(21)} ${plugin ?? text}\n`
    ).join(""),
  perf: (task, pid) =>
    "# ========\n# captured on    : Mon Nov 24 2025\n#\n" +
    TEXTS.map(([name, text, plugin], i) =>
      `${task.padStart(16)} ${pid} [002]  ${stamp(i)}: ${`kvm:${name}`.padStart(28)}: ${
        plugin ?? text
      }\n`
    ).join(""),
  "perf with processes and periods": (task, pid) =>
    TEXTS.map(([name, text], i) =>
      `${task.padStart(16)}  3412/${pid}  [002]  ${stamp(i)}:          1 kvm:${name}: ${text}\n`
    ).join(""),
};

async function imported(text: string | Uint8Array) {
  const log = importTracepoints(typeof text === "string" ? encoder.encode(text) : text);
  return { events: (await Array.fromAsync(log)).flat(), stats: log.stats };
}

/** Known bytes of an event's vmcb12, by field. */
function seen(event: TraceEvent | undefined): Record<string, bigint> {
  assert(event?.kind === "vmrun" || event?.kind === "exit");
  const { bytes, known } = event.vmcb12!;
  const rows = [
    ...CONTROL_FIELDS,
    ...SAVE_FIELDS.map((field) => ({ ...field, offset: field.offset + SAVE_AREA })),
  ];
  const out: Record<string, bigint> = {};
  let count = 0;
  for (const { name, offset, size } of rows) {
    if (!known!.subarray(offset, offset + size).some((mask) => mask !== 0)) continue;
    let value = 0n;
    for (let i = size; i-- > 0;) value = value << 8n | BigInt(bytes[offset + i]!);
    out[name] = value;
    count += known!.subarray(offset, offset + size).filter((mask) => mask !== 0).length;
  }
  assertEquals(count, known!.filter((mask) => mask !== 0).length, "known bytes outside of fields");
  return out;
}

Deno.test("each dialect gives the same events", async (t) => {
  const whole = (await imported(DIALECTS.ftrace!("CPU 0/KVM", 3415))).events;
  for (const [name, write] of Object.entries(DIALECTS)) {
    for (const task of ["CPU 0/KVM", "qemu-system-x86", "<...>", "a-1 [000] b: 2"]) {
      await t.step(`${name}, ${task}`, async () => {
        const { events, stats } = await imported(write(task, 3415));
        assertEquals(events.slice(1), whole.slice(1));
        assertEquals(events[0], {
          kind: "session",
          vcpu: 0,
          time: 5161124512000,
          meta: { source: "kvm-tracepoints", task, tid: 3415 },
        });
        assertEquals(stats.form, name.split(" ")[0] as typeof stats.form);
        assertEquals(stats.malformed, 0);
        assertEquals(stats.resolution, 1000);
        assertEquals(Object.values(stats.events).reduce((a, b) => a + b), TEXTS.length);
      });
    }
  }
});

Deno.test("events hold what was printed, and nothing else", async () => {
  const { events } = await imported(DIALECTS.ftrace!("qemu", 7));
  assertEquals(events.map(({ kind }) => kind), [
    "session",
    "vmrun",
    "l2exit",
    "tracepoint",
    "exit",
    "check",
    "vmrun",
    "exit",
  ]);
  const [, vmrun, l2exit, tracepoint, exit, check, shadow, failed] = events;
  assert(vmrun?.kind === "vmrun" && l2exit?.kind === "l2exit" && exit?.kind === "exit");
  assertEquals([vmrun.rip, vmrun.vmcb12_gpa], [0x400863n, 0x799a000n]);
  assertEquals(seen(vmrun), {
    intercept_cr: 0x00010018n,
    intercept_exceptions: 0x00060042n,
    intercept_word3: 0xbc4c8027n,
    intercept_word4: 0x6e7fn,
    intercept_word5: 1n,
    int_ctl: 0x01000001n,
    nested_ctl: 1n,
    event_inj: 0x80000036n,
    nested_cr3: 0x1074000n,
    rip: 0x4001c8n,
  });
  // Of nested_ctl, one bit was printed.
  assertEquals(vmrun.vmcb12?.known?.subarray(0x90, 0x98).join(), "1,0,0,0,0,0,0,0");
  const { regs, ...rest } = l2exit;
  assertEquals(rest, {
    kind: "l2exit",
    vcpu: 0,
    time: 5161124526000,
    exit_code: 0x41n,
    exit_info_1: 0x200000006n,
    exit_info_2: 0xffff_ffff_ffff_ffffn,
    exit_int_info: 0x80000b0e,
    exit_int_info_err: 1,
  });
  assertEquals(
    new DataView(regs!.bytes.buffer, regs!.bytes.byteOffset).getBigUint64(0x80, true),
    0x4001c8n,
  );
  assertEquals(regs!.known?.filter((mask) => mask !== 0).length, 8);
  assertEquals(tracepoint?.kind === "tracepoint" && tracepoint.text, "rip: 0x00000000004001d0");
  assertEquals(exit.vmcb12_gpa, 0x799a000n);
  assertEquals(seen(exit), {
    exit_code: 0x81n,
    exit_info_1: 1n,
    exit_info_2: 2n,
    exit_int_info: 0x80000003n,
    exit_int_info_err: 4n,
  });
  assertEquals(check, {
    kind: "check",
    vcpu: 0,
    time: 5161124547000,
    check: "cr0-nw-without-cd",
    text: TEXTS[5]![1],
  });
  assertEquals(seen(shadow), {
    int_ctl: 0n,
    nested_ctl: 0n,
    event_inj: 0n,
    cr3: 0x1000n,
    rip: 0x4001c8n,
  });
  assertEquals(seen(failed).exit_code, 0xffffffffn);
});

Deno.test("kernels of other ages print other texts", async (t) => {
  const at = (i: number, name: string, text: string) =>
    `q-7 [000] .... 1.00000${i}: ${name}: ${text}\n`;
  await t.step("kvm_nested_vmrun, and intercepts in one number", async () => {
    const { events } = await imported(
      at(
        1,
        "kvm_nested_vmrun",
        "rip: 0x00000000004006fd vmcb: 0x000000003ce20000 nrip: 0xffffffff810a5ab4 " +
          "int_ctl: 0x01000001 event_inj: 0x80000036 npt: on",
      ) + at(
        2,
        "kvm_nested_intercepts",
        "cr_read: 0010 cr_write: 0011 excp: 00060040 intercepts: 00006e7fbc4c8027",
      ),
    );
    assertEquals(events.length, 2);
    assertEquals(seen(events[1]), {
      intercept_cr: 0x00110010n,
      intercept_exceptions: 0x60040n,
      intercept_word3: 0xbc4c8027n,
      intercept_word4: 0x6e7fn,
      int_ctl: 0x01000001n,
      nested_ctl: 1n,
      event_inj: 0x80000036n,
      rip: 0xffffffff810a5ab4n,
    });
  });
  await t.step("kvm_nested_vmexit before and after 5.10, with and without requests", async () => {
    const { events } = await imported(
      at(
        1,
        "kvm_nested_vmexit",
        "rip: 0xffffffff8104d3a6 reason: msr ext_inf1: 0x0000000000000001 " +
          "ext_inf2: 0x0000000000000000 ext_int: 0x00000000 ext_int_err: 0x00000000",
      ) + at(
        2,
        "kvm_nested_vmexit",
        "vcpu 0 reason msr rip 0xffffffff8104d3a6 info1 0x0000000000000001 " +
          "info2 0x0000000000000000 intr_info 0x00000000 error_code 0x00000000 requests 0x0000000000000040",
      ) + at(
        3,
        "kvm_nested_vmexit",
        " rip ffffffff8104d3a6 native_read_msr+0x6 reason EXIT_MSR info1 1 info2 0 int_info 0 int_info_err 0",
      ),
    );
    const found = events.slice(1).map((event) => ({ ...event, time: 0 }));
    assertEquals(found.length, 3);
    assertEquals(found[1], found[0]);
    assertEquals(found[2], found[0]);
  });
  await t.step("an exit code that no one has a name for", async () => {
    const { events } = await imported(
      at(
        1,
        "kvm_nested_vmexit_inject",
        "reason UNKNOWN (1911) info1 0 info2 0 int_info 0 int_info_err 0",
      ),
    );
    assertEquals(seen(events[1]).exit_code, 0x777n);
  });
  await t.step("-1 in all of its bits", async () => {
    const { events } = await imported(
      at(
        1,
        "kvm_nested_vmexit_inject",
        "reason: invalid_guest_state ext_inf1: 0x0000000000000000 ext_inf2: 0x0000000000000000 " +
          "ext_int: 0x00000000 ext_int_err: 0x00000000",
      ),
    );
    assertEquals([seen(events[1]).exit_code, seen(events[1]).exit_code_hi], [
      0xffffffffn,
      0xffffffffn,
    ]);
  });
  await t.step("VMX stays text", async () => {
    const vmx =
      "rip: 0x1 vmcs: 0x2 nested_rip: 0x3 int_ctl: 0x0 event_inj: 0x0 nested_ept=y nested_eptp: 0x5";
    const { events, stats } = await imported(
      at(1, "kvm_nested_vmenter", vmx.replace("vmcs", "vmcb: 0x2 vmcs")) +
        at(
          2,
          "kvm_nested_vmexit",
          "vcpu 0 reason EPT_VIOLATION rip 0x1 info1 0x1 info2 0x0 intr_info 0x0 error_code 0x0",
        ),
    );
    assertEquals(stats.malformed, 0);
    assertEquals(events.map(({ kind }) => kind), ["session", "tracepoint", "tracepoint"]);
  });
});

Deno.test("virtual machines and vCPUs are told apart", async () => {
  const check = (pid: number, i: number) =>
    `q-${pid} [000] .... 1.00000${i}: kvm_nested_vmenter_failed: control->asid == 0\n`;
  const exit = (pid: number, vcpu: number, i: number) =>
    `q-${pid} [000] .... 1.00000${i}: kvm_exit: vcpu ${vcpu} reason hlt rip 0x1 info1 0x0000000000000000 ` +
    "info2 0x0000000000000000 intr_info 0x00000000 error_code 0x00000000\n";
  const { events } = await imported(
    check(7, 1) + check(8, 2) + exit(7, 0, 3) + check(7, 4) + exit(7, 1, 5) + check(7, 6) +
      exit(7, 0, 7) +
      check(7, 8) + check(8, 9),
  );
  assertEquals(events.map(({ kind, vcpu }) => `${kind} ${vcpu}`), [
    "session 0",
    "check 0",
    "session 1",
    "check 1",
    "tracepoint 0",
    "check 0",
    "session 2",
    "tracepoint 2",
    "check 2",
    "tracepoint 0",
    "check 0",
    "check 1",
  ]);
});

Deno.test("a VMRUN waits for its intercepts, whatever comes between", async () => {
  const line = (pid: number, i: number, name: string, text: string) =>
    `q-${pid} [00${pid}] .... 1.00000${i}: ${name}: ${text}\n`;
  const [enter, intercepts] = [TEXTS[0]!, TEXTS[1]!];
  const { events } = await imported(
    line(1, 1, enter[0], enter[1]) + line(2, 2, enter[0], enter[1]) +
      line(1, 3, intercepts[0], intercepts[1]) + line(2, 4, intercepts[0], intercepts[1]) +
      line(1, 5, intercepts[0], intercepts[1]),
  );
  assertEquals(events.map(({ kind, vcpu, time }) => [kind, vcpu, time]), [
    ["session", 0, 1000001000],
    ["vmrun", 0, 1000001000],
    ["session", 1, 1000002000],
    ["vmrun", 1, 1000002000],
    // The line before it was lost.
    ["tracepoint", 0, 1000005000],
  ]);
  assertEquals(seen(events[1]).intercept_word5, 1n);
  assertEquals(seen(events[3]), seen(events[1]));
});

Deno.test("marks of lost events", async () => {
  const check = (pid: number, cpu: number, i: number) =>
    `q-${pid} [00${cpu}] .... 1.00000${i}: kvm_nested_vmenter_failed: control->asid == 0\n`;
  const { events, stats } = await imported(
    "# entries-in-buffer/entries-written: 5/12   #P:4\n" + check(7, 0, 1) + check(8, 1, 2) +
      "CPU:1 [LOST 33 EVENTS]\n" + check(8, 1, 3) + "CPU:0 [LOST EVENTS]\n" +
      "CPU:1 [4 EVENTS DROPPED]\nCPU:0 [EVENTS DROPPED]\n" +
      "q 8 [001] 1.000004: PERF_RECORD_LOST lost 6\n" + check(7, 0, 5),
  );
  assertEquals(
    events.map((event) => event.kind === "lost" ? `${event.vcpu} lost ${event.count}` : event.kind),
    [
      "session",
      "0 lost 7",
      "check",
      "session",
      "check",
      "1 lost 33",
      "check",
      "0 lost undefined",
      "1 lost 4",
      "0 lost undefined",
      "1 lost 6",
      "check",
    ],
  );
  assertEquals([stats.lost, stats.lostMarks, stats.malformed], [50, 6, 0]);
});

Deno.test("lines that almost match are counted, with the line and the reason", async () => {
  const good = DIALECTS.ftrace!("qemu", 7);
  const bad: readonly (readonly [string, RegExp])[] = [
    ["q-7 [000] .... 1.000001: kvm_nested_vmexit: vcpu 0 reason npf rip 0x1", /without all/],
    [
      "q-7 [000] .... 1.000001: kvm_nested_vmexit: vcpu 0 reason npf rip 0x1zz info1 0x0 info2 0x0 " +
      "intr_info 0x0 error_code 0x0",
      /`rip`/,
    ],
    [
      "q-7 [000] .... 1.000001: kvm_nested_vmexit: vcpu x reason npf rip 0x1 info1 0x0 info2 0x0 " +
      "intr_info 0x0 error_code 0x0",
      /`vcpu_id`/,
    ],
    [
      "q-7 [000] .... 1.000001: kvm_nested_vmexit_inject: reason: nonsense ext_inf1: 0x0 ext_inf2: 0x0 " +
      "ext_int: 0x0 ext_int_err: 0x0",
      /`exit_code`/,
    ],
    [
      "q-7 [000] .... 1.000001: kvm_nested_intr_vmexit: rip: 0x12345678901234567",
      /`rip`/,
    ],
    ["kvm_nested_vmenter_failed: control->asid == 0", /before the name/],
    ["q-7 [abc] .... 1.000001: kvm_nested_vmenter_failed: control->asid == 0", /before the name/],
    ["q-7 [000] .... yesterday: kvm_nested_vmenter_failed: control->asid == 0", /before the name/],
  ];
  const lines = good.trimEnd().split("\n");
  for (const [line, expected] of bad) {
    const text = [...lines.slice(0, 6), line, ...lines.slice(6), ""].join("\n");
    const { events, stats } = await imported(text);
    assertEquals(events, (await imported(good)).events);
    assertEquals(stats.malformed, 1, line);
    assertEquals(stats.issues[0]?.line, 7);
    assert(expected.test(stats.issues[0]!.what), stats.issues[0]!.what);
  }
});

Deno.test("a last line that is cut off is not believed", async () => {
  const text = DIALECTS.ftrace!("qemu", 7);
  const whole = (await imported(text)).events;
  const start = text.trimEnd().lastIndexOf("\n") + 1;
  for (let end = text.indexOf("kvm_", start) + 5; end < text.length; end++) {
    const { events, stats } = await imported(text.slice(0, end));
    assertEquals(events, whole.slice(0, -1));
    assertEquals(stats.malformed, 1);
    assertEquals(stats.issues[0]?.line, 12);
  }
});

Deno.test("where the input is cut into pieces makes no difference", async () => {
  const bytes = encoder.encode(DIALECTS.ftrace!("CPU 0/KVM", 3415));
  const whole = await imported(bytes);
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.integer({ min: 1, max: 400 }), { minLength: 1 }),
      async (sizes) => {
        const pieces = async function* () {
          for (let at = 0, i = 0; at < bytes.length; i++) {
            const size = sizes[i % sizes.length]!;
            yield bytes.subarray(at, at += size);
            await Promise.resolve();
          }
        };
        const log = importTracepoints(pieces());
        assertEquals((await Array.fromAsync(log)).flat(), whole.events);
        assertEquals(log.stats, whole.stats);
      },
    ),
    { numRuns: 100 },
  );
});

Deno.test("no text makes the reader throw anything but its own error", async () => {
  const base = DIALECTS["trace-cmd"]!("CPU 0/KVM", 3415);
  const bytes = encoder.encode(base);
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.tuple(fc.nat(bytes.length - 1), fc.integer({ min: 0, max: 255 })), {
        maxLength: 30,
      }),
      async (changes) => {
        const copy = bytes.slice();
        for (const [at, byte] of changes) copy[at] = byte;
        try {
          const { events, stats } = await imported(copy);
          for (const { kind } of events) assert(kind !== undefined);
          assert(stats.lines > 0);
        } catch (error) {
          if (!(error instanceof TracepointError)) throw error;
        }
      },
    ),
    { numRuns: 500 },
  );
});

Deno.test("gzip, its members one after another, and its end missing", async () => {
  const text = DIALECTS.ftrace!("CPU 0/KVM", 3415);
  const whole = (await imported(text)).events;
  const packed = gzipSync(text);
  assertEquals((await imported(packed)).events, whole);
  const halves = [text.slice(0, 700), text.slice(700)].map((half) => gzipSync(half));
  assertEquals((await imported(new Uint8Array(halves.flatMap((half) => [...half])))).events, whole);
  const long = gzipSync(text + text.split("\n").slice(4).join("\n").repeat(500));
  const log = importTracepoints(new Uint8Array(long.subarray(0, long.length / 2)));
  const found: TraceEvent[] = [];
  const error = await assertRejects(async () => {
    for await (const batch of log) found.push(...batch);
  }, TracepointError);
  assertEquals(error.code, "truncated");
  assert(found.length > 500, `${found.length} events`);
  assertEquals(found.slice(0, whole.length), whole);
});

Deno.test("what is no log of tracepoints is refused, with its length", async () => {
  const of = (text: string) => assertRejects(() => imported(text), TracepointError);
  assertEquals((await of("")).code, "not-a-trace");
  assert((await of("")).message.includes("empty"));
  const story = await of("Once upon a time\nthere was a text\n");
  assert(story.message.includes("none of 2 lines"), story.message);
  assert((await of("no line end at all")).message.includes("none of 1 lines"));
  // A gigabyte of it is not read to the end.
  let read = 0;
  const pieces = async function* () {
    for (; read < 1024; read++) {
      yield await Promise.resolve(encoder.encode("words, words\n".repeat(8000)));
    }
  };
  await assertRejects(() => Array.fromAsync(importTracepoints(pieces())), TracepointError);
  assert(read < 100);
});

Deno.test("a log with a header and no events is one", async () => {
  const { events, stats } = await imported("# tracer: nop\n#\n");
  assertEquals([events, stats.form], [[], "ftrace"]);
});

Deno.test("a gigabyte of other events costs no memory", async () => {
  const line =
    "           <idle>-0       [003] d..2.   100.000001: cpu_idle: state=4294967295 cpu_id=3 kvm-free zone\n";
  const piece = encoder.encode(line.repeat(10_000));
  const times = Math.ceil(2 ** 30 / piece.length);
  const pieces = async function* () {
    for (let i = 0; i < times; i++) yield await Promise.resolve(piece);
    yield encoder.encode(DIALECTS.ftrace!("qemu", 7));
  };
  const before = Deno.memoryUsage().rss;
  let most = before, events = 0;
  const log = importTracepoints(pieces());
  for await (const batch of log) events += batch.length;
  most = Math.max(most, Deno.memoryUsage().rss);
  assertEquals(events, 8);
  assertEquals(log.stats.lines, times * 10_000 + 12);
  assertEquals(log.stats.skipped, times * 10_000 + 4);
  assert(most - before < 200e6, `${most - before} bytes more`);
});

Deno.test("a line that never ends is passed over", async () => {
  const pieces = async function* () {
    yield encoder.encode(DIALECTS.ftrace!("qemu", 7));
    for (let i = 0; i < 300; i++) yield await Promise.resolve(encoder.encode("x".repeat(10_000)));
    yield encoder.encode("\n" + DIALECTS.ftrace!("qemu", 7));
  };
  const log = importTracepoints(pieces());
  const events = (await Array.fromAsync(log)).flat();
  assertEquals(events.length, 8 + 7);
  assertEquals(log.stats.issues, [{ line: 13, what: "A line of over 64 KiB" }]);
});

Deno.test("a live pipe is followed as it is written", async () => {
  const text = DIALECTS.ftrace!("qemu", 7).split(/(?<=\n)/);
  const pipe = new TransformStream<Uint8Array, Uint8Array>();
  const writer = pipe.writable.getWriter();
  const batches = importTracepoints(pipe.readable)[Symbol.asyncIterator]();
  const seen: string[] = [];
  const next = async () => {
    const { value } = await batches.next();
    seen.push((value ?? []).map(({ kind }: TraceEvent) => kind).join());
  };
  const write = (piece: string) => void writer.write(encoder.encode(piece));
  text.slice(0, 6).forEach(write);
  await next();
  await next();
  write(text[6]!);
  await next();
  write(text[7]!.slice(0, 50));
  write(text[7]!.slice(50));
  await next();
  // The VMRUN came when its intercepts were there, without waiting for anything after them.
  assertEquals(seen, ["session", "vmrun", "l2exit", "tracepoint"]);
  void writer.close();
  assertEquals((await batches.next()).done, true);
});

Deno.test("other tracepoints of KVM are counted by name", async () => {
  const { events, stats } = await imported(
    DIALECTS.ftrace!("qemu", 7) + "q-7 [000] .... 1.000001: kvm_msr: msr_read 1 = 0x0\n".repeat(3) +
      "q-7 [000] .... 1.000001: sched_switch: prev_comm=kvm_nx prev_pid=1\n",
  );
  assertEquals(events.length, 8);
  assertEquals(stats.others, { kvm_msr: 3 });
  assertEquals(stats.skipped, 8);
});

Deno.test("every tracepoint of a text can be had", async () => {
  const text = "q-7 [001] .... 1.5: sched_switch: prev_comm=kvm_nx: 1 prev_pid=1\n" +
    "q 7 [001] 1.5: sched:sched_switch: prev_comm=x\n";
  const log = readTracepoints(encoder.encode(text), { every: true });
  assertEquals((await Array.fromAsync(log)).flat(), [
    {
      cpu: 1,
      pid: 7,
      task: "q",
      time: 1.5e9,
      name: "sched_switch",
      fields: {},
      text: "prev_comm=kvm_nx: 1 prev_pid=1",
    },
    {
      cpu: 1,
      pid: 7,
      task: "q",
      time: 1.5e9,
      name: "sched_switch",
      fields: {},
      text: "prev_comm=x",
    },
  ]);
});
