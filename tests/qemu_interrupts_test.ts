import { assert, assertEquals } from "@std/assert";
import type { EventOf } from "../engine/event.ts";
import { injectsInterrupt, QemuProcess, recordQemu } from "../traces/qemu/mod.ts";
import { INJECTED, InterruptGuest, missing } from "./qemu_lab_guest.ts";
import { MemorySink } from "./qemu_process.ts";

const lacking = await missing();

// On one vCPU twice one after the other, on two at once.
for (const [vcpus, rounds] of [[1, 2], [2, 1]] as const) {
  Deno.test({
    name: `each interrupt that L1 injects reaches L2 once while ${vcpus} vCPUs are recorded${
      lacking.length > 0 ? ` (missing: ${lacking.join(", ")})` : ""
    }`,
    ignore: lacking.length > 0,
    async fn() {
      await using guest = await InterruptGuest.build(vcpus, rounds);
      await using qemu = await QemuProcess.start({ args: guest.args("linux-6.12", vcpus) });
      const sink = new MemorySink();
      const result = await recordQemu(qemu.gdb, sink);
      assertEquals(await guest.counted(), Array(vcpus * rounds).fill(INJECTED));
      // Nearly all of them were recorded: the guest ended, and what it did first was searched for.
      const injections = sink.events.filter((event): event is EventOf<"vmrun"> =>
        event.kind === "vmrun" && injectsInterrupt(event.vmcb12!.bytes)
      );
      assert(injections.length > INJECTED, `${injections.length} injections seen`);
      assertEquals(result.exits, result.vmruns);
      assertEquals(sink.count("lost"), 0);
    },
  });
}
