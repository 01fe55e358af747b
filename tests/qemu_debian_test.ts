import { assert, assertEquals } from "@std/assert";
import { QemuProcess, recordQemu } from "../traces/qemu/mod.ts";
import { MemorySink } from "./qemu_process.ts";

const SCRIPT = new URL("../examples/nested_guests.sh", import.meta.url).pathname;

/** Some 30 MB are downloaded: that is for continuous integration, or for who asks for it. */
const wanted = Deno.env.get("CI") !== undefined || Deno.env.get("VMTAPE_DEBIAN") !== undefined;

/** Prepares Debian's KVM in a folder; what hindered it, or nothing. */
async function prepare(folder: string): Promise<string | undefined> {
  const { success, stderr } = await new Deno.Command(SCRIPT, {
    args: ["prepare", folder, "kvm"],
    stdout: "null",
    stderr: "piped",
  }).output();
  return success ? undefined : new TextDecoder().decode(stderr);
}

Deno.test({
  name: "Debian's KVM with a QEMU of its own inside is recorded from its first VMRUN on" +
    (wanted ? "" : " (VMTAPE_DEBIAN is not set)"),
  ignore: !wanted,
  async fn() {
    const folder = await Deno.makeTempDir();
    try {
      assertEquals(await prepare(folder), undefined);
      await using qemu = await QemuProcess.start({
        args: [
          ...["-m", "1024", "-nodefaults", "-no-reboot", "-serial", `file:${folder}/console`],
          ...["-kernel", `${folder}/kvm.vmlinuz`, "-initrd", `${folder}/kvm.initrd`],
          ...["-append", "console=ttyS0 panic=-1 quiet nokaslr"],
        ],
      });
      const sink = new MemorySink();
      const notes: string[] = [];
      const result = await recordQemu(qemu.gdb, sink, {
        limit: 50,
        onNote: (note) => notes.push(note),
      });
      assertEquals([result.ended, result.vmruns, result.exits], ["done", 50, 50]);
      assert(notes.some((note) => /^With --at ffffffff\w+ nothing needs/.test(note)));
      // L2 was not under way: its firmware begins at the reset vector.
      const first = sink.events.find((event) => event.kind === "vmrun")!;
      const rip = new DataView(first.vmcb12!.bytes.buffer).getBigUint64(0x578, true);
      assertEquals(rip, 0xfff0n);
    } finally {
      await Deno.remove(folder, { recursive: true });
    }
  },
});
