/**
 * kvm-unit-tests' svm suite on three kernels, each log in three forms: the
 * events in all of them, and what only the binary one knows. The logs are not
 * part of this repository; without them these tests are skipped.
 */
import { gunzipSync } from "node:zlib";
import { assert, assertEquals } from "@std/assert";
import { importTracepoints } from "@vmtape/vmtape/codecs";
import type { TraceEvent } from "@vmtape/vmtape/engine";

const FOLDER = new URL("../../shared/kvm-traces/", import.meta.url);
const KERNELS = ["early-exit", "unified", "linux-6.12"] as const;
/** What a kernel is called in the names of the files, some of which are older than its name. */
const fileOf = (kernel: string) => kernel === "linux-6.12" ? "upstream" : kernel;
const FORMS = ["ftrace.txt.gz", "trace-cmd-report.txt.gz", "trace.dat"] as const;

function there(): boolean {
  try {
    return Deno.statSync(FOLDER).isDirectory;
  } catch {
    return false;
  }
}

const ignore = !there();

function log(kernel: string, form: string): Uint8Array {
  return Deno.readFileSync(new URL(`kut-svm.${fileOf(kernel)}.${form}`, FOLDER));
}

async function imported(kernel: string, form: string) {
  const reading = importTracepoints(log(kernel, form));
  return { events: (await Array.fromAsync(reading)).flat(), stats: reading.stats };
}

/** How often each tracepoint's name stands before a colon, by a search that knows no format. */
function grep(kernel: string): Record<string, number> {
  const text = new TextDecoder().decode(gunzipSync(log(kernel, "ftrace.txt.gz")));
  const counts: Record<string, number> = {};
  for (const [, name] of text.matchAll(/^[^#\n].*? (kvm_\w+): /gm)) {
    counts[name!] = (counts[name!] ?? 0) + 1;
  }
  return counts;
}

for (const kernel of KERNELS) {
  for (const form of FORMS) {
    Deno.test({
      name: `${kernel}, ${form}: every nested event, and 137 checks by their id`,
      ignore,
      async fn() {
        const { events, stats } = await imported(kernel, form);
        const expected = grep(kernel);
        assertEquals(stats.events, expected);
        assertEquals([stats.malformed, stats.lost, stats.issues], [0, 0, []]);
        const kinds: Record<string, number | undefined> = {};
        for (const { kind } of events) kinds[kind] = (kinds[kind] ?? 0) + 1;
        assertEquals<typeof kinds>(kinds, {
          session: 1,
          vmrun: expected.kvm_nested_vmenter,
          l2exit: expected.kvm_nested_vmexit,
          exit: expected.kvm_nested_vmexit_inject,
          check: 137,
          tracepoint: expected.kvm_nested_intr_vmexit,
        });
        const checks = events.filter((event) => event.kind === "check");
        assertEquals(checks.filter(({ check }) => check === undefined), []);
        assertEquals(new Set(checks.map(({ check }) => check)).size, 16);
        const vmruns = events.filter((event) => event.kind === "vmrun");
        // Each line of intercepts found its VMRUN.
        assert(
          vmruns.every(({ vmcb12 }) => vmcb12!.known!.subarray(0x0c, 0x18).every((b) => b === 255)),
        );
      },
    });
  }

  Deno.test({
    name: `${kernel}: the three forms give the same trace`,
    ignore,
    async fn() {
      const [ftrace, report, binary] = await Promise.all(
        FORMS.map((form) => imported(kernel, form)),
      );
      assertEquals([ftrace, report, binary].map((log) => log!.stats.form), [
        "ftrace",
        "trace-cmd",
        "trace.dat",
      ]);
      const untimed = (events: readonly TraceEvent[]) =>
        events.map((event) => ({ ...event, time: 0 }));
      assertEquals(untimed(report!.events), untimed(ftrace!.events));
      assertEquals(untimed(binary!.events), untimed(ftrace!.events));
      for (const { events, stats } of [ftrace!, report!]) {
        assertEquals(stats.resolution, 1000);
        events.forEach(({ time }, i) => {
          const apart = Math.abs(time! - binary!.events[i]!.time!);
          assert(apart <= 500, `event ${i} is ${apart} ns apart`);
        });
      }
    },
  });
}
