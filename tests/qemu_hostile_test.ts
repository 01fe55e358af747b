import {
  assert,
  assertEquals,
  assertRejects,
  assertStringIncludes,
  assertThrows,
} from "@std/assert";
import {
  GdbClient,
  GdbError,
  type GdbErrorCode,
  gdbPacket,
  gdbText,
  gdbUnescape,
  quoted,
  recordQemu,
} from "../traces/qemu/mod.ts";
import { fakeStub, MemorySink } from "./qemu_process.ts";

/** What a stub answers to requests that begin with a text; the first row that fits counts. */
type Answers = readonly (readonly [string, string | (() => string)])[];

const XML = "<target>" +
  ["rax", "rsp", "rip", "cr0", "cr3", "cr4", "efer"]
    .map((name) => `<reg name="${name}" bitsize="64"/>`).join("") +
  "</target>";

/** A packet whose payload is sent as it is, without escapes. */
function rawPacket(payload: string): string {
  let sum = 0;
  for (let i = 0; i < payload.length; i++) sum += payload.charCodeAt(i);
  return `$${payload}#${(sum & 0xff).toString(16).padStart(2, "0")}`;
}

/** A stub as QEMU's is. */
const POLITE: Answers = [
  ["qSupported", "PacketSize=1000;qXfer:features:read+;vContSupported+"],
  ["qXfer", "l" + XML],
  ["qfThread", "m1"],
  ["qsThread", "l"],
  ["g", "00".repeat(56)],
  ["m", "E01"],
  ["vCont;", "T05thread:01;"],
  ["", "OK"],
];

/** A stub that is polite but for some answers. */
function stub(answers: Answers) {
  return fakeStub((heard) => {
    let out = "";
    for (const [, request] of heard.matchAll(/\$([^#]*)#../g)) {
      const [, answer] = [...answers, ...POLITE].find(([start]) => request!.startsWith(start))!;
      const said = typeof answer === "function" ? answer() : answer;
      // What begins with a dollar sign is packets already.
      out += "+" + (said.startsWith("$") ? said : gdbText(gdbPacket(said)));
    }
    return out;
  });
}

/** Milliseconds in which a busy machine, too, gets to what is wrong. */
const PATIENT = 60_000;

const connect = (port: number, timeoutMs: number) =>
  GdbClient.connect({ transport: "tcp", hostname: "127.0.0.1", port }, { timeoutMs });

/** Stubs that would hold a client for ever, or make it hold everything. */
const AT_ONCE: readonly (readonly [string, GdbErrorCode, RegExp, Answers])[] = [
  [
    "describes its registers one character at a time",
    "timeout",
    /takes longer than 300 ms to describe its registers/,
    [["qXfer", "m "]],
  ],
  [
    "includes one document after the other",
    "protocol",
    /does not describe its registers \("x/,
    [["qXfer", () => `l<xi:include href="x${Math.random()}.xml"/>`.repeat(30)]],
  ],
  [
    "repeats one character a hundred million times",
    "protocol",
    /longer than a megabyte/,
    [["qXfer", () => rawPacket("l0" + "*~".repeat(400_000))]],
  ],
  ["ends no packet", "protocol", /does not end/, [["qXfer", () => "$" + "a".repeat(3 << 20)]]],
  [
    "has registers of gigabytes",
    "protocol",
    /without a usable size/,
    [["qXfer", `l<reg name="a" bitsize="99999999999"/>`]],
  ],
  [
    "damages every packet",
    "protocol",
    /bad checksum/,
    [["QStart", "E01"], ["qSupported", () => "$OK#00".repeat(100)]],
  ],
  [
    "says what nobody asked for",
    "protocol",
    /nobody asked for/,
    [["qSupported", () => gdbText(gdbPacket("qXfer:features:read+")).repeat(1000)]],
  ],
];
for (const [what, code, message, answers] of AT_ONCE) {
  Deno.test(`a stub that ${what} is left, with an error`, async () => {
    await using server = stub(answers);
    const error = await assertRejects(
      () => connect(server.port, code === "timeout" ? 300 : PATIENT),
      GdbError,
    );
    assertEquals([error.code, message.test(error.message)], [code, true], error.message);
  });
}

Deno.test("a stub that lists vCPUs, or prints, without end is left", async () => {
  const printed = gdbText(gdbPacket("O" + "41".repeat(200_000))).repeat(40);
  const cases: readonly (readonly [string, string, (gdb: GdbClient) => Promise<unknown>])[] = [
    ["qsThread", "m1,1,1", (gdb) => gdb.threads()],
    ["qRcmd", printed, (gdb) => gdb.monitor("info version")],
  ];
  for (const [request, said, use] of cases) {
    await using server = stub([[request, said]]);
    const gdb = await connect(server.port, PATIENT);
    const error = await assertRejects(() => use(gdb), GdbError);
    assertEquals(error.code, "protocol", error.message);
    gdb.close();
  }
});

Deno.test("a stub that stops for nothing does not hold a recording", async () => {
  const mtree = new TextEncoder().encode(
    ` AS "memory", root: system\n  ${"0".repeat(16)}-${"0".repeat(11)}fffff (prio 0, ram): ram\n`,
  ).toHex();
  await using server = stub([
    ["qRcmd", () => gdbText(gdbPacket("O" + mtree)) + gdbText(gdbPacket("OK"))],
    ["D", "OK"],
  ]);
  const gdb = await connect(server.port, PATIENT);
  const sink = new MemorySink();
  const error = await assertRejects(() => recordQemu(gdb, sink, { at: [0x1000n] }), GdbError);
  assertEquals([error.code, sink.closed], ["protocol", 1], error.message);
  assertStringIncludes(error.message, "stops for no reason");
});

Deno.test("a stub that talks nonsense in the middle is an error, not the end of QEMU", async () => {
  await using server = stub([["qRcmd", gdbText(gdbPacket("O" + "41".repeat(200_000))).repeat(40)]]);
  const sink = new MemorySink();
  const gdb = await connect(server.port, PATIENT);
  const error = await assertRejects(() => recordQemu(gdb, sink), GdbError, "prints without end");
  assertEquals([error.code, sink.closed], ["protocol", 1]);
});

Deno.test("what a stub says is quoted without what a terminal obeys", async () => {
  await using server = stub([["Qqemu", "E\x1b]0;x\x07\x9b31m"], ["qXfer", "l" + XML]]);
  const error = await assertRejects(() => connect(server.port, PATIENT), GdbError);
  const words = `${(error.cause as Error).message} ${error.message}`;
  // deno-lint-ignore no-control-regex
  assert(!/[\x00-\x1f\x7f-\x9f]/.test(words), words);
  assertEquals(quoted("a".repeat(60)).length, 45);
});

Deno.test("an answer is only as long as it may be", () => {
  const long = new TextEncoder().encode("0" + "*~".repeat(20_000));
  assertEquals(assertThrows(() => gdbUnescape(long), GdbError).code, "protocol");
});
