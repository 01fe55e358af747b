import { assertEquals, assertRejects, assertStringIncludes, assertThrows } from "@std/assert";
import fc from "fast-check";
import {
  GdbClient,
  GdbError,
  GdbFramer,
  gdbPacket,
  GdbRegisterLayout,
  GdbRegisters,
  gdbText,
  parseGdbAddress,
} from "../traces/qemu/mod.ts";
import { fakeStub } from "./qemu_process.ts";

const ascii = fc.string({
  unit: fc.integer({ min: 0, max: 255 }).map((c) => String.fromCharCode(c)),
});

function packetOf(body: string): string {
  return gdbText(gdbPacket(body));
}

Deno.test("a packet comes back however the connection cuts it", () => {
  fc.assert(fc.property(fc.array(ascii, { maxLength: 5 }), fc.nat(40), (bodies, step) => {
    const framer = new GdbFramer();
    const bytes = bodies.flatMap((body) => [0x2b, ...gdbPacket(body)]);
    const seen: string[] = [];
    for (let at = 0; at < bytes.length; at += step + 1) {
      framer.push(Uint8Array.from(bytes.slice(at, at + step + 1)));
      for (let frame = framer.next(); frame; frame = framer.next()) {
        assertEquals(frame.intact, true);
        seen.push(gdbText(frame.payload));
      }
    }
    assertEquals(seen, bodies);
  }));
});

Deno.test("a framer says that bytes are not of the protocol, or gives packets, but never fails otherwise", () => {
  fc.assert(fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
    const framer = new GdbFramer();
    framer.push(bytes);
    try {
      while (framer.next()) { /* until it has no more */ }
    } catch (error) {
      assertEquals(error instanceof GdbError && error.code, "protocol");
    }
  }));
});

Deno.test("a damaged packet is told from an intact one", () => {
  const framer = new GdbFramer();
  framer.push(new TextEncoder().encode("$OK#9b"));
  assertEquals(framer.next()?.intact, false);
});

Deno.test("addresses are read as QEMU's -gdb writes them", () => {
  assertEquals(parseGdbAddress("tcp::1234"), {
    transport: "tcp",
    hostname: "localhost",
    port: 1234,
  });
  assertEquals(parseGdbAddress("[::1]:9"), { transport: "tcp", hostname: "::1", port: 9 });
  assertEquals(parseGdbAddress("unix:/run/gdb,server=on"), { transport: "unix", path: "/run/gdb" });
  for (const bad of ["", "host", "host:", "host:0", "host:65536", "unix:", "a:b:1"]) {
    assertEquals(assertThrows(() => parseGdbAddress(bad), GdbError).code, "refused", bad);
  }
});

Deno.test("registers that a description has only in a comment take no room", () => {
  const layout = GdbRegisterLayout.parse([
    `<feature><reg name="rax" bitsize="64"/><!-- <reg name="old" bitsize="64"/> -->`,
    `<reg name="cs" bitsize="32" regnum="7"/><reg name="cr3" bitsize="64"/></feature>`,
  ]);
  assertEquals(layout.get("cr3"), { name: "cr3", number: 8, size: 8, offset: 12 });
  const registers = new GdbRegisters(layout, new Uint8Array(20).fill(1));
  assertEquals(registers.get("cs"), 0x01010101n);
  assertEquals(registers.get("old"), undefined);
  assertEquals(assertThrows(() => registers.need("efer"), GdbError).code, "remote");
  assertThrows(() => GdbRegisterLayout.parse(["<target/>"]), GdbError, "names no register");
});

async function connectError(port: number, timeoutMs = 1000): Promise<GdbError> {
  const address = { transport: "tcp", hostname: "127.0.0.1", port } as const;
  return await assertRejects(() => GdbClient.connect(address, { timeoutMs }), GdbError);
}

Deno.test("nobody at the address: refused, with what to do", async () => {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const { port } = listener.addr as Deno.NetAddr;
  listener.close();
  const error = await connectError(port);
  assertEquals(error.code, "refused");
  assertStringIncludes(error.message, "-gdb tcp::PORT");
});

Deno.test("something else at the address: not a GDB stub, with what it said", async () => {
  for (const banner of ["SSH-2.0-OpenSSH_9.2\r\n", "HTTP/1.1 400 Bad Request\r\n\r\n"]) {
    await using server = fakeStub(() => banner);
    const error = await connectError(server.port);
    assertEquals(error.code, "protocol");
    assertStringIncludes(error.message, banner.slice(0, 8));
  }
});

Deno.test("silence at the address: a time-out that names the likely cause", async () => {
  await using server = fakeStub(() => "");
  const error = await connectError(server.port, 100);
  assertEquals(error.code, "timeout");
  assertStringIncludes(error.message, "another debugger may be attached");
});

Deno.test("a stub that hangs up: closed, not a hang", async () => {
  await using server = fakeStub((heard) => heard === "" ? "" : undefined);
  assertEquals((await connectError(server.port)).code, "closed");
});

Deno.test("a stub of something other than QEMU: what it lacks", async () => {
  await using plain = fakeStub((heard) => heard === "" ? "" : "+" + packetOf("PacketSize=400"));
  assertStringIncludes((await connectError(plain.port)).message, "does not describe its registers");

  const xml = `<target><reg name="rax" bitsize="64"/></target>`;
  await using gdbserver = fakeStub((heard) => {
    if (heard.includes("qSupported")) return "+" + packetOf("qXfer:features:read+");
    if (heard.includes("qXfer")) return "+" + packetOf("l" + xml);
    return heard.includes("$") ? "+" + packetOf("") : "";
  });
  const error = await connectError(gdbserver.port);
  assertEquals(error.code, "remote");
  assertStringIncludes(error.message, "cannot read physical memory");
});
