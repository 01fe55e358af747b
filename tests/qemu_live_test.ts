import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import type { EventOf } from "../engine/event.ts";
import { TraceWriter } from "../codecs/container/writer.ts";
import { readTrace } from "../codecs/container/reader.ts";
import {
  buildGuest,
  DEMO_CODE,
  GdbClient,
  GdbError,
  guestArguments,
  parseGdbAddress,
  parseMemoryMap,
  QEMU_BINARY,
  QemuError,
  QemuProcess,
  recordQemu,
  recordQemuGuest,
} from "../traces/qemu/mod.ts";
import { VmrunSearch } from "../traces/qemu/vmrun_search.ts";
import { hasQemu, MemorySink } from "./qemu_process.ts";

const qemuTest = (name: string, fn: () => Promise<void>) =>
  Deno.test({ name: `QEMU: ${name}`, ignore: !hasQemu, fn });

/** A file of the demonstration guest, and QEMU's options for it. */
class Demo implements AsyncDisposable {
  readonly folder: string;
  readonly image: string;

  private constructor(folder: string) {
    this.folder = folder;
    this.image = `${folder}/demo.rom`;
  }

  static async write(): Promise<Demo> {
    const demo = new Demo(await Deno.makeTempDir());
    await Deno.writeFile(demo.image, buildGuest(DEMO_CODE).bytes);
    return demo;
  }

  args(vcpus = 1): string[] {
    return ["-m", "16", "-smp", `${vcpus}`, "-nodefaults", "-vga", "none", "-bios", this.image];
  }

  async start(vcpus = 1): Promise<QemuProcess> {
    return await QemuProcess.start({ args: this.args(vcpus) });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Deno.remove(this.folder, { recursive: true });
  }
}

function freePort(): number {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  listener.close();
  return (listener.addr as Deno.NetAddr).port;
}

const EXIT_VMMCALL = 0x81;

function exitCode(event: EventOf<"exit"> | EventOf<"vmrun">): number {
  const { bytes } = event.vmcb12!;
  return new DataView(bytes.buffer, bytes.byteOffset).getUint32(0x70, true);
}

qemuTest("VMRUNs are found and followed, two of them on three vCPUs", async () => {
  await using demo = await Demo.write();
  await using qemu = await demo.start(3);
  const sink = new MemorySink();
  const notes: string[] = [];
  const result = await recordQemu(qemu.gdb, sink, { limit: 60, onNote: (n) => notes.push(n) });
  const { first, second } = buildGuest(DEMO_CODE).labels;
  assertEquals(result.ended, "done");
  assertEquals([result.vmruns, result.exits, result.vcpus], [60, 60, 3]);
  assertEquals(result.sites.map((s) => Number(s.linear)).sort(), [first, second]);
  assertEquals(result.unused, 2, "the image is at two addresses, and runs at one");
  assertEquals([sink.count("session"), sink.closed, sink.count("lost")], [3, 1, 0]);
  assertEquals(sink.count("memory"), 6, "each vCPU's MSR bitmap once, since it does not change");
  assertStringIncludes(notes.join("\n"), `VMRUN at ${first.toString(16)}`);
  const open = new Map<number, EventOf<"vmrun">>();
  for (const event of sink.events) {
    if (event.kind === "vmrun") {
      assert(!open.has(event.vcpu), "a VMRUN follows a #VMEXIT");
      open.set(event.vcpu, event);
      assertEquals(event.vmcb12_gpa, 0x100000n + BigInt(event.vcpu) * 0x10000n);
    } else if (event.kind === "exit") {
      const vmrun = open.get(event.vcpu)!;
      open.delete(event.vcpu);
      assertEquals(event.vmcb12_gpa, vmrun.vmcb12_gpa);
      assertEquals(exitCode(event), EXIT_VMMCALL);
      assert(event.time! >= vmrun.time!);
      // GIF is a byte that nobody sees; CR3 is one that everybody does.
      assertEquals(event.regs!.known![0x1a0], 0);
      assertEquals(event.regs!.known![0x0a0], 0xff);
    }
  }
  assertEquals(new Set(sink.events.map((e) => e.vcpu)).size, 3);
});

qemuTest("what was recorded is a trace that reads back", async () => {
  await using demo = await Demo.write();
  await using qemu = await demo.start();
  const chunks: Uint8Array[] = [];
  const writer = new TraceWriter({
    write: (chunk) => {
      chunks.push(chunk.slice());
    },
    close() {},
  }, { meta: { source: "qemu" } });
  await recordQemu(qemu.gdb, writer, { limit: 5 });
  const kinds: string[] = [];
  const stream = await readTrace(new Blob(chunks as BlobPart[]).stream());
  for await (const event of stream.events()) {
    kinds.push(event.kind);
  }
  assertEquals(kinds.filter((kind) => kind === "exit").length, 5);
  assertEquals(kinds[0], "session");
});

qemuTest("a running guest is attached to, by address, and runs on after", async () => {
  await using demo = await Demo.write();
  const port = freePort();
  await using qemu = await QemuProcess.start({ args: demo.args(), port });
  qemu.gdb.resume();
  await qemu.gdb.detach();
  assertEquals(qemu.gdb.ended?.code, "closed");
  const { second } = buildGuest(DEMO_CODE).labels;
  const attach = () => GdbClient.connect(parseGdbAddress(`127.0.0.1:${port}`));
  const sink = new MemorySink();
  const result = await recordQemu(await attach(), sink, { at: [BigInt(second)], limit: 7 });
  assertEquals([result.vmruns, result.exits, result.sites.length], [7, 7, 1]);
  assertEquals(
    sink.events.filter((e) => e.kind === "vmrun").map((e) => e.rip),
    new Array(7).fill(BigInt(second + 3)),
  );
  // It runs: nothing of the recorder's is left to stop it, and its RIP is not always the same.
  const again = await attach();
  const seen = new Set<bigint>();
  for (let i = 0; i < 40 && seen.size < 2; i++) {
    again.resume();
    assertEquals(await again.stopped(20), undefined, "a breakpoint was left behind");
    again.interrupt();
    assertEquals((await again.stopped())?.reason, "interrupt");
    seen.add((await again.registers((await again.threads())[0]!)).need("rip"));
  }
  assertEquals(seen.size, 2);
  await again.detach();
});

qemuTest("memory is searched alike through a file and through the stub", async () => {
  await using demo = await Demo.write();
  const port = freePort();
  await using qemu = await QemuProcess.start({ args: demo.args(), port });
  assert(qemu.gdb.local);
  const memory = parseMemoryMap(await qemu.gdb.monitor("info mtree -f"));
  const search = async (gdb: GdbClient) => {
    await using search = new VmrunSearch(gdb, memory);
    const [thread = ""] = await gdb.threads();
    const found: bigint[] = [];
    // In slices that are over at once; the processor still stands in real mode.
    for (let i = 0; i < 10_000 && search.rounds === 0; i++) {
      const slice = await search.slice([await gdb.registers(thread)], 0.01);
      found.push(...slice.map(({ physical }) => physical));
    }
    assertEquals(search.searched, memory.reduce((sum, r) => sum + Number(r.end - r.start), 0));
    return found;
  };
  const near = await search(qemu.gdb);
  await qemu.gdb.detach();
  const conn = await Deno.connect({ hostname: "127.0.0.1", port });
  conn.setNoDelay(true);
  const far = await GdbClient.over(conn, "elsewhere:1");
  assert(!far.local);
  assertEquals(await search(far), near);
  await far.detach();
  const { first, second } = buildGuest(DEMO_CODE).labels;
  for (const label of [first, second]) assert(near.includes(BigInt(label)));
});

qemuTest("an address at which there is no VMRUN is not taken for one", async () => {
  await using demo = await Demo.write();
  await using qemu = await demo.start();
  const sink = new MemorySink();
  const { loop } = buildGuest(DEMO_CODE).labels;
  const result = await recordQemu(qemu.gdb, sink, { at: [BigInt(loop)], durationMs: 500 });
  assertEquals([result.ended, result.vmruns, result.unused], ["done", 0, 1]);
});

qemuTest("a guest that does not use SVM is waited for, and says so", async () => {
  await using qemu = await QemuProcess.start({ args: ["-m", "16", "-nodefaults"] });
  const notes: string[] = [];
  const sink = new MemorySink();
  const onNote = (note: string) => notes.push(note);
  const result = await recordQemu(qemu.gdb, sink, { durationMs: 600, onNote });
  assertEquals([result.ended, result.vmruns], ["done", 0]);
  assertEquals(notes.length, 1);
  assertStringIncludes(notes[0]!, "EFER.SVME");
});

qemuTest("Ctrl-C leaves what was recorded, and the guest running", async () => {
  await using demo = await Demo.write();
  await using qemu = await demo.start();
  const stop = new AbortController();
  const sink = new MemorySink((_, count) => count === 22 && stop.abort());
  const result = await recordQemu(qemu.gdb, sink, { signal: stop.signal });
  assertEquals([result.ended, sink.closed], ["interrupted", 1]);
  assert(result.vmruns >= 9 && result.vmruns < 15);
  // While it waits for a stop that does not come.
  const idle = await QemuProcess.start({ args: ["-m", "16", "-nodefaults"] });
  await using _idle = idle;
  const later = new AbortController();
  const timer = setTimeout(() => later.abort(), 100);
  const { first } = buildGuest(DEMO_CODE).labels;
  const none = await recordQemu(idle.gdb, new MemorySink(), {
    at: [BigInt(first)],
    signal: later.signal,
  });
  clearTimeout(timer);
  assertEquals(none.ended, "interrupted");
});

qemuTest("a sink that fails ends the recording with its error, and the guest runs on", async () => {
  await using demo = await Demo.write();
  const port = freePort();
  await using qemu = await QemuProcess.start({ args: demo.args(), port });
  const attach = () => GdbClient.connect(parseGdbAddress(`127.0.0.1:${port}`));
  await qemu.gdb.detach();
  const sink = new MemorySink((_, count) => {
    if (count === 5) throw new RangeError("No space left on device");
  });
  const { first } = buildGuest(DEMO_CODE).labels;
  const gdb = await attach();
  await assertRejects(
    () => recordQemu(gdb, sink, { at: [BigInt(first)] }),
    RangeError,
    "No space left",
  );
  assertEquals(sink.closed, 1);
  const again = await attach();
  again.resume();
  assertEquals(await again.stopped(50), undefined, "a breakpoint was left behind");
  await again.detach();
});

qemuTest("a QEMU that is killed in the middle leaves what was recorded", async () => {
  await using demo = await Demo.write();
  await using qemu = await demo.start(2);
  const sink = new MemorySink((_, count) => count === 20 && Deno.kill(qemu.pid, "SIGKILL"));
  const result = await recordQemu(qemu.gdb, sink);
  assertEquals([result.ended, sink.closed], ["gone", 1]);
  assert(sink.events.length >= 20);
  await assertRejects(() => qemu.gdb.threads(), GdbError, "QEMU ended or was killed");
});

qemuTest("an image of the user's is booted and followed, then QEMU ends", async () => {
  await using demo = await Demo.write();
  const sink = new MemorySink();
  const result = await recordQemuGuest(demo.image, sink, {
    limit: 3,
    qemu: { args: ["-m", "16", "-nodefaults", "-vga", "none"] },
  });
  assertEquals([result.exits, sink.closed], [3, 1]);
  const session = sink.events[0] as EventOf<"session">;
  assertEquals(session.meta?.guest, demo.image);
});

qemuTest("what is no image is said before QEMU starts, and the sink is closed", async () => {
  const file = await Deno.makeTempFile();
  await Deno.writeTextFile(file, "not an image");
  const sink = new MemorySink();
  await assertRejects(() => recordQemuGuest(file, sink), QemuError, "is no image that QEMU boots");
  assertEquals(sink.closed, 1);
  await Deno.remove(file);
  await assertRejects(() => guestArguments(file), QemuError, "cannot be read");
});

qemuTest("QEMU's own words when it cannot start", async () => {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const { port } = listener.addr as Deno.NetAddr;
  const taken = await assertRejects(() => QemuProcess.start({ port }), QemuError);
  listener.close();
  assertStringIncludes(taken.message, `Port ${port} is in use`);
  const machine = await assertRejects(
    () => QemuProcess.start({ args: ["-machine", "abacus"] }),
    QemuError,
  );
  assertStringIncludes(machine.message, "unsupported machine type");
});

Deno.test("a QEMU that is not installed is named, with what to install", async () => {
  const error = await assertRejects(
    () => QemuProcess.start({ binary: `/nonexistent/${QEMU_BINARY}` }),
    QemuError,
  );
  assertStringIncludes(error.message, "apt-get install qemu-system-x86");
});
