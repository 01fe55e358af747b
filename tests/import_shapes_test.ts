import fc from "fast-check";
import { assert, assertEquals } from "@std/assert";
import { importTracepoints, TracepointError, TraceWriter } from "@vmtape/vmtape/codecs";
import { encoder, imported } from "./import_text_log.ts";
import { table } from "../docs/markdown.ts";
import { KINDS, RECORDS, SHAPES, wrapped } from "./import_shapes.ts";

for (const { name, text, timed, thread } of SHAPES) {
  Deno.test(`a log of this shape gives the same events: ${name}`, async () => {
    const whole = (await imported(SHAPES[0]!.text)).events;
    const { events, stats } = await imported(text);
    assertEquals([stats.malformed, stats.issues], [0, []]);
    assertEquals(Object.values(stats.events), RECORDS.map(() => 1));
    const untimed = ({ time: _, ...rest }: typeof whole[number]) => rest;
    assertEquals(events.slice(1).map(untimed), whole.slice(1).map(untimed));
    const [session] = events;
    assertEquals(session?.kind === "session" && session.meta?.["tid"], thread ? 4321 : undefined);
    // Microseconds in all of them, so the times are the same, or there are none.
    assertEquals(
      events.map(({ time }) => time),
      whole.map(({ time }) => timed ? time : undefined),
    );
    assertEquals(stats.resolution, timed ? 1000 : undefined);
  });
}

const PLAIN = SHAPES[0]!.text;

Deno.test("where mail breaks the lines, and how deep it quotes them, makes no difference", async () => {
  const whole = (await imported(PLAIN)).events;
  await fc.assert(
    fc.asyncProperty(
      fc.integer({ min: 56, max: 200 }),
      fc.constantFrom("", " ", "    ", "\t"),
      fc.constantFrom("", "> ", ">> ", "> > >", " > ", "&gt; "),
      fc.boolean(),
      async (width, indent, quote, bare) => {
        const lines = bare ? PLAIN.replace(/^.*?: /gm, "") : PLAIN;
        const { events, stats } = await imported(
          wrapped(lines, width, indent).replace(/^/gm, quote),
        );
        assertEquals([stats.malformed, stats.issues], [0, []]);
        const body = (found: typeof events) => found.slice(1).map(({ time: _, ...rest }) => rest);
        assertEquals(body(events), body(whole));
      },
    ),
    { numRuns: 200 },
  );
});

Deno.test("the pieces in which a log comes make no difference, whatever its shape", async () => {
  for (const { text } of SHAPES) {
    const bytes = encoder.encode(text);
    const whole = await imported(bytes);
    await fc.assert(
      fc.asyncProperty(fc.integer({ min: 1, max: 300 }), async (size) => {
        const pieces = async function* () {
          for (let at = 0; at < bytes.length; at += size) {
            yield await Promise.resolve(bytes.subarray(at, at + size));
          }
        };
        const log = importTracepoints(pieces());
        assertEquals((await Array.fromAsync(log)).flat(), whole.events);
        assertEquals(log.stats, whole.stats);
      }),
      { numRuns: 10 },
    );
  }
});

/** A log of one record of each kind, whose lines are cut to a length. */
function cutAt(record: number, length: number): string {
  const lines = PLAIN.trimEnd().split("\n");
  lines[record] = lines[record]!.slice(0, length);
  return lines.join("\n") + "\n";
}

Deno.test("a line that is cut anywhere in its values is damage, with its number", async () => {
  const whole = (await imported(PLAIN)).events;
  for (let record = 0; record < 4; record++) {
    const line = PLAIN.split("\n")[record]!;
    const [name] = RECORDS[record]!;
    for (let length = line.indexOf(name) + name.length + 1; length < line.length; length++) {
      const { events, stats } = await imported(cutAt(record, length));
      assertEquals(
        [stats.malformed, stats.issues[0]?.line],
        [1, record + 1],
        line.slice(0, length),
      );
      // The intercepts are part of the VMRUN before them; without that they are text.
      const lost = record === 1 ? 0 : 1;
      const there = events.filter(({ kind }) => kind !== "lost").length;
      assert(there <= whole.length - lost + Number(record === 0), `${length}`);
    }
  }
});

Deno.test("a number with fewer digits than the kernel pads it to is damage", async () => {
  for (let record = 0; record < 4; record++) {
    const [name, text] = RECORDS[record]!;
    for (const match of text.matchAll(/(?<=0x|[: ])[0-9a-f]{4,16}\b/g)) {
      // The address where L2 stopped is printed at its own length.
      if (text.slice(0, match.index).endsWith("rip 0x")) continue;
      const short = text.slice(0, match.index) + text.slice(match.index + 1);
      const { stats } = await imported(PLAIN.replace(text, short));
      assertEquals(stats.malformed, 1, `${name}: ${short}`);
      assertEquals(stats.issues[0]?.line, record + 1);
    }
  }
});

Deno.test("numbers that no kernel has are damage, not values", async () => {
  const check = "kvm_nested_vmenter_failed: control->asid == 0\n";
  const odd = [
    ` qemu-7  [000] .....  99999999999999999999999.648900: ${check}`,
    ` qemu-7  [000] .....  9007199.254740993: ${check}`,
    ` qemu-7  [000] .....  3.99999999999999999999: ${check}`,
    ` qemu-7  [99999999999] .....  3.648900: ${check}`,
    ` qemu-99999999999999  [000] .....  3.648900: ${check}`,
    `qemu-sys-7    5d..1. 99999999999999999us : ${check}`,
    "CPU:3 [LOST 99999999999999999999999 EVENTS]\n",
    "CPU:99999999 [LOST 9 EVENTS]\n",
    "# entries-in-buffer/entries-written: 1/99999999999999999999999   #P:1\n",
    "# entries-in-buffer/entries-written: 9/1   #P:1\n",
  ];
  for (const line of odd) {
    const { events, stats } = await imported(PLAIN + line + PLAIN);
    const records = events.filter(({ kind }) => kind !== "lost").length;
    assertEquals([stats.malformed, stats.issues[0]?.line, records], [1, 6, 9], line);
  }
});

Deno.test("a text that is cut is no VMX: VMX has names of its own", async () => {
  const inject = "reason EXIT_NPF info1 200000006 info2 1ab000 int_info 0 int_info_err 0";
  const line = (text: string) => ` q-7 [000]  1.000001: kvm_nested_vmexit_inject: ${text}\n`;
  const { stats } = await imported(line(inject) + line(inject.replace("EXIT_NPF", "EXIT_NP")));
  assertEquals([stats.malformed, stats.vmx], [1, {}]);
});

Deno.test("a thread without a name for its kernel log, and records of a log without threads", async () => {
  const bare = SHAPES.find(({ name }) => name.startsWith("without anything"))!.text;
  const { stats } = await imported(PLAIN + bare);
  // Whose they are is not known, so they are no thread's.
  assertEquals([stats.malformed, stats.issues[0]?.line], [RECORDS.length, RECORDS.length + 1]);
});

Deno.test("two records in one line are damage, not one of both", async () => {
  const joined = PLAIN.split("\n").slice(0, 2).join(" ") + "\n";
  const { events, stats } = await imported(PLAIN + joined);
  assertEquals([stats.malformed, stats.issues[0]?.line, events.length], [1, 6, 6]);
  assert(/and another record in one line/.test(stats.issues[0]!.what));
});

Deno.test("what perf trace prints is named, with what to do", async () => {
  const line = "     0.000 CPU 0/KVM/4321 kvm:kvm_nested_vmexit(exit_reason: 1024, isa: 2)\n";
  const error = await imported(line).then(() => undefined, (error) => error);
  assert(/perf trace.*perf script/.test(error.message), error.message);
});

Deno.test("whatever becomes of a log, its events can be written, and its lines add up", async () => {
  const bytes = SHAPES.map(({ text }) => encoder.encode(text));
  const change = fc.tuple(fc.nat(4000), fc.integer({ min: 0, max: 255 }), fc.nat(60));
  await fc.assert(
    fc.asyncProperty(
      fc.constantFrom(...bytes),
      fc.array(change, { minLength: 1, maxLength: 8 }),
      async (whole, changes) => {
        let log = whole;
        for (const [place, byte, cut] of changes) {
          const at = place % log.length;
          const rest = log.subarray(at + (cut < 20 ? cut : 0));
          log = Uint8Array.of(...log.subarray(0, at), byte, ...rest);
        }
        const writer = new TraceWriter({ write() {} }, { flushInterval: 0 });
        try {
          const { events, stats } = await imported(log);
          for (const event of events) writer.write(event);
          assert(stats.skipped >= 0, JSON.stringify(stats));
        } catch (error) {
          if (!(error instanceof TracepointError)) throw error;
        }
        writer.close();
      },
    ),
    { numRuns: 500 },
  );
});

Deno.test("a line on which one record is cut off and the next one begins counts once", async () => {
  const head = (time: string) => `qemu-sys-4321    5d..1   398.${time}:`;
  const info = ["0x0000000200000006", "0x00000000001ab000"];
  const exit = `vcpu 0 reason npf rip 0xffffffffffbb0119 info1 ${info[0]} info2 ${info[1]} ` +
    "intr_info 0x00000000 error_";
  const inject = `reason: npf ext_inf1: ${info[0]} ext_inf2: ${info[1]} ` +
    "ext_int: 0x00000000 ext_int_err: 0x00000000";
  const { stats } = await imported(encoder.encode(
    `${head("691410")} kvm_nested_intercepts: cr_read: 0018 cr_write: 0001 excp: 00060042 ` +
      "intercepts: bc4c8027 00006e7f 00000001\n" +
      `${head("691416")} kvm_nested_vmexit: ${exit} ${head("691419")}\n` +
      ` kvm_nested_vmexit_inject: ${inject}\n`,
  ));
  const { lines, malformed, continued, skipped, events } = stats;
  assertEquals({ lines, malformed, continued, skipped }, {
    lines: 3,
    malformed: 1,
    continued: 0,
    skipped: 0,
  });
  assertEquals(events, { kvm_nested_intercepts: 1, kvm_nested_vmexit_inject: 1 });
});

/** What became of a log, in a row of the documentation's table. */
async function tableRow(name: string, text: string): Promise<string[]> {
  const { stats } = await imported(text);
  const total = (counts: Readonly<Record<string, number>>) =>
    Object.values(counts).reduce((a, b) => a + b, 0);
  const passed = [
    stats.continued > 0 ? `${stats.continued} the rest of a record` : "",
    total(stats.vmx) > 0 ? `${total(stats.vmx)} of VMX` : "",
    total(stats.others) > 0 ? Object.keys(stats.others).join(", ") : "",
    stats.skipped > total(stats.others) ? `${stats.skipped - total(stats.others)} not KVM's` : "",
    stats.lostMarks > 0 ? `${stats.lost} lost` : "",
    stats.malformed > 0 ? `${stats.malformed} not understood` : "",
  ];
  const time = stats.resolution === undefined ? "none" : "µs";
  const events = String(total(stats.events));
  return [name, String(stats.lines), events, passed.filter((what) => what !== "").join("; "), time];
}

Deno.test("docs/recording.md has the table of what is read, as it is", async () => {
  const rows = [];
  for (const { name, text } of SHAPES) rows.push(await tableRow(name, text));
  for (const [name, text] of KINDS) rows.push(await tableRow(name, text));
  const wanted = table(["log", "lines", "records", "passed over", "times"], rows);
  const page = new URL("../docs/recording.md", import.meta.url);
  const text = await Deno.readTextFile(page);
  const found = /^\| log .*\n(?:\|.*\n)+/m.exec(text)?.[0] ?? "";
  if (Deno.env.has("VMTAPE_UPDATE")) await Deno.writeTextFile(page, text.replace(found, wanted));
  else assertEquals(found, wanted, "VMTAPE_UPDATE=1 writes it");
});
