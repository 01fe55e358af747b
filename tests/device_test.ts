import { assertEquals } from "@std/assert";
import { LINUX_6_12 } from "../engine/mod.ts";
import { Emulator } from "../traces/scenarios/emulator.ts";
import { parseScenario } from "../traces/scenarios/scenario_reader.ts";

// What the kernels do: L2 without paging runs into vmcb12's own bytes, an ADD to a device's
// address; userspace does not answer, and restores a 64-bit L2 meanwhile.
for (const npt of [true, false]) {
  Deno.test(`an instruction that waited for a device goes on in its old mode, npt ${npt}`, () => {
    const emulator = new Emulator(LINUX_6_12, { npt });
    const read = emulator.run(
      parseScenario("read m.9000=320f s.d0=1000 s.158=31 s.148=0 s.12.2=c9b"),
    );
    const seen = ({ post }: typeof read) => [post?.rip, post?.rflags, post?.rax, post?.exit];
    assertEquals(seen(read), ["10401", "46", "0", 6]);
    const written = emulator.run(parseScenario("write entry=setstate keepvm"));
    assertEquals(seen(written), ["10407", "46", "1234", 6]);
    // The write is another access to the device: KVM_RUN ends with it, before L2 goes on.
    assertEquals(written.events.filter((event) => "at" in event).map(({ at }) => at), ["setstate"]);
  });
}

// ADD [0xf0000010], EAX of an L2 without paging: the value that it adds to is the device's.
for (const npt of [true, false]) {
  Deno.test(`a device that userspace does not answer for is zero whatever memory holds, npt ${npt}`, () => {
    const emulator = new Emulator(LINUX_6_12, { npt });
    // SF and PF tell the sum with it.
    const held = "m.10.4=deadbeef";
    emulator.run(
      parseScenario(`read m.9000=f00000100501 s.d0=1000 s.158=31 s.148=0 s.12.2=c9b ${held}`),
    );
    const { post } = emulator.run(parseScenario(`write entry=setstate keepvm ${held}`));
    assertEquals([post?.rip, post?.rflags, post?.exit], ["9006", "2", 6]);
  });
}
