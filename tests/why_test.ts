import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import fc from "fast-check";
import {
  type Capabilities,
  CHECK_SETS,
  checkVerdict,
  diagnose,
  FailureFinder,
  fieldMask,
  fieldNamed,
  LINUX_6_12,
  readFields,
  VMCB_LAYOUT,
  VMCB_SIZE,
  writeField,
} from "../engine/mod.ts";
import { builtinScenarios, recordScenarios } from "../traces/mod.ts";
import { shell, vmtape, withFolder } from "./cli_process.ts";

const caps: Capabilities = { physicalBits: 40, npt: true, memory: 1 << 16 };
const rows = CHECK_SETS.flatMap(({ checks }) => checks);

Deno.test("of every check that fails, a change that is offered makes it pass, and no part of it does alone", () => {
  let offered = 0;
  fc.assert(
    fc.property(
      fc.constantFrom(...rows),
      fc.array(fc.bigInt(0n, 0xffff_ffff_ffff_ffffn), { minLength: 6, maxLength: 6 }),
      (check, values) => {
        const image = { bytes: new Uint8Array(VMCB_SIZE) };
        const write = (name: string, value: bigint) => {
          const row = fieldNamed(VMCB_LAYOUT, name);
          writeField(image.bytes, row, value & fieldMask(row));
        };
        check.reads.forEach((name, i) => write(name, values[i % values.length]!));
        if (checkVerdict(check, caps, image) !== "fails") return;
        readFields(check, caps, image).forEach(({ field, passesWith }, i) => {
          if (passesWith === undefined) return;
          offered++;
          const there = values[i % values.length]! & fieldMask(fieldNamed(VMCB_LAYOUT, field));
          const passing = BigInt(passesWith.split(" ")[0]!);
          write(field, passing);
          assertEquals(checkVerdict(check, caps, image), "passes");
          for (let bit = 1n; bit <= (there ^ passing); bit <<= 1n) {
            if (((there ^ passing) & bit) === 0n) continue;
            write(field, passing ^ bit);
            assertEquals(checkVerdict(check, caps, image), "fails", `${check.id} ${field} ${bit}`);
          }
          write(field, there);
        });
      },
    ),
    { numRuns: 400 },
  );
  assert(offered > 50, String(offered));
});

Deno.test("what an image shorter than a VMCB lacks is unknown to every check", () => {
  for (const size of [0, 3, 0x5e, 0x400, 0x401, VMCB_SIZE - 1]) {
    const short = { bytes: new Uint8Array(size) };
    const known = new Uint8Array(VMCB_SIZE).fill(0xff, 0, size);
    for (const check of rows) {
      const whole = { bytes: new Uint8Array(VMCB_SIZE), known };
      assertEquals(checkVerdict(check, caps, short), checkVerdict(check, caps, whole), check.id);
      assertEquals(readFields(check, caps, short), readFields(check, caps, whole), check.id);
    }
  }
});

Deno.test("the last VMRUN that failed is found, or the one of an event", async () => {
  const scenarios = ["gif-left-set", "enter", "eventinj-left"].flatMap((name) =>
    builtinScenarios(name)
  );
  const events = await Array.fromAsync(recordScenarios(scenarios, LINUX_6_12));
  const starts = events.flatMap((event, i) => event.kind === "vmrun" ? [i] : []);
  const find = (event?: number) => {
    const finder = new FailureFinder(event);
    for (const next of events) finder.feed(next);
    return finder.finish();
  };
  assertEquals(find()?.event, starts.at(-1));
  for (const start of starts) assertEquals(find(start)?.event, start);
  const entered = find(starts[1])!;
  assertEquals([entered.check, entered.exitCode], [undefined, 0x81n]);
  assert(!diagnose(entered).failed);
  assertEquals(find(0), undefined);
});

Deno.test("why tells the check, its field and bits, who makes it, and what policies leave", () =>
  withFolder(async (folder) => {
    const { stdout } = await shell(
      "vmtape record gif-left-set -p early-exit -o t -q; vmtape why t; echo status $?",
      folder,
    );
    assertMatch(stdout, /^VMRUN at event \d+ failed \(gif-left-set control\.asid=0\)$/m);
    assertStringIncludes(stdout, "Check asid-zero: The ASID is 0\n");
    assertStringIncludes(stdout, "  The kernel says  control->asid == 0\n");
    assertStringIncludes(stdout, "  control.asid  0x0, would pass with 0x1\n");
    assertMatch(stdout, /^ {2}early-exit +refused \(asid-zero\) +-1 +1 /m);
    assertMatch(stdout, /^ {2}unified +refused \(asid-zero\) +-1 +0 /m);
    assertStringIncludes(stdout, "status 1\n");
    const json = JSON.parse((await vmtape(["why", `${folder}/t`, "--json"])).stdout);
    assertEquals([json.check.id, json.fields[0].passesWith], ["asid-zero", "0x1"]);
    assertEquals(json.policies[0].gif, true);
  }));

Deno.test("why of a log says what was recorded, and what it would take to tell the rest", () =>
  withFolder(async (folder) => {
    await Deno.writeTextFile(
      `${folder}/log`,
      " q-7 [000] .....  3.648900: kvm_nested_vmenter_failed: control->asid == 0\n",
    );
    const { stdout } = await shell("vmtape import log -o t -q; vmtape why t", folder);
    assertStringIncludes(stdout, "  control.asid  ?  not recorded\n");
    assertMatch(stdout, /^ {2}linux-6\.12 +fails asid-zero$/m);
    assertMatch(stdout, /^ {2}apm +cannot tell: would need save\.efer, .*control\.asid/m);
    assertMatch(stdout, /^ {2}early-exit +refused \(asid-zero\) +-1 +\? /m);
    assertMatch(stdout, /^ {2}unified +refused \(asid-zero\) +-1 +0 /m);
  }));

Deno.test("why of a trace without a failed VMRUN, or of no event of it, says so", () =>
  withFolder(async (folder) => {
    const { stdout, stderr } = await shell(
      "vmtape record enter -o t -q && vmtape why t && vmtape why t --json && " +
        "vmtape record enter enter -o u -q && vmtape why u && " +
        "{ vmtape why t -e 0; vmtape why t -e 999; }",
      folder,
    );
    // That none failed is an answer, with status 0.
    assertEquals(
      stdout,
      "The trace's one VMRUN did not fail, as far as was recorded\n" +
        '{"failed":false,"runs":1,"failures":0}\n' +
        "None of 2 VMRUNs failed, as far as was recorded\n",
    );
    assertMatch(stderr, /--event N asks about one/);
    assertMatch(stderr, /Event 0 belongs to no VMRUN/);
    assertMatch(stderr, /There is no event 999: the trace has \d+/);
  }));

Deno.test("why of a restore that no check refuses says that the ioctl did", () =>
  withFolder(async (folder) => {
    await Deno.writeTextFile(`${folder}/c`, "far entry=setstate rax=10000000000\n");
    const { stdout } = await shell("vmtape record c -o t -q; vmtape why t", folder);
    assertMatch(stdout, /^KVM_SET_NESTED_STATE at event \d+ was refused with errno 22/);
    assertMatch(stdout, /^Refused by the ioctl's own conditions .*: no check fails\.$/m);
  }));
