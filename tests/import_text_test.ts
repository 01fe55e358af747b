import { assert, assertEquals } from "@std/assert";
import { readTracepoints } from "@vmtape/vmtape/codecs";
import { DIALECTS, encoder, imported, seen, TEXTS } from "./import_text_log.ts";

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
  await t.step("VMX is passed over by name", async () => {
    const vmx = "rip: 0x00000000ffff8002 vmcs: 0x0000000000007000 nested_rip: 0x0000000000103c00 " +
      "int_ctl: 0x00000000 event_inj: 0x00000000 nested_ept=y nested_eptp: 0x000000000000205e";
    const { events, stats } = await imported(
      at(1, "kvm_nested_vmenter", vmx) + at(2, "kvm_nested_vmenter", vmx) +
        at(
          2,
          "kvm_nested_vmexit",
          "vcpu 0 reason EPT_VIOLATION rip 0x1 info1 0x0000000000000001 info2 0x0000000000000000 " +
            "intr_info 0x00000000 error_code 0x00000000",
        ) + at(3, "kvm_entry", "vcpu 0, rip 0x1") +
        at(3, "kvm_nested_vmenter_failed", "!nested_host_cr0_valid(vcpu, vmcs12->host_cr0)"),
    );
    assertEquals([stats.malformed, stats.skipped, events], [0, 0, []]);
    assertEquals(stats.vmx, {
      kvm_nested_vmenter: 2,
      kvm_nested_vmexit: 1,
      kvm_entry: 1,
      kvm_nested_vmenter_failed: 1,
    });
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
    // What cannot be read is missing, and that is marked; whose #VMEXIT it is may not be known then.
    const there = (found: typeof events) =>
      found.filter(({ kind }) => kind !== "lost").map((event) =>
        event.kind === "exit" ? { ...event, vmcb12_gpa: 0n } : event
      );
    assertEquals(there(events), there((await imported(good)).events));
    assertEquals(events.filter(({ kind }) => kind === "lost").length, 1, line);
    assertEquals(stats.malformed, 1, line);
    assertEquals(stats.issues[0]?.line, 7);
    assert(expected.test(stats.issues[0]!.what), stats.issues[0]!.what);
  }
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
