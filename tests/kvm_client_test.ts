import { assert, assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { cpuidOf, cutCpuid } from "../traces/kvm/cpuid.ts";
import { KvmError, type KvmErrorCode } from "../traces/kvm/error.ts";
import { askHost, type HostLibc, openKvm } from "../traces/kvm/host.ts";
import { Libc, LIBC_PATHS } from "../traces/kvm/libc.ts";
import { Struct } from "../traces/kvm/struct.ts";
import { IOCTL, KVM_CAPS, KVM_IOCTLS, KVM_LAYOUTS } from "../traces/kvm/structs.ts";
import { OwnTrace, type TraceLibc } from "../traces/kvm/tracefs.ts";
import config from "../deno.json" with { type: "json" };
import { KERNEL_NUMBERS, numbersOfTables, numbersProgram } from "./kvm_kernel_numbers.ts";

const ROOT = new URL("..", import.meta.url).pathname;
const words = (text: string) => text.trim().split(/\s+/);

Deno.test("KVM's structures and ioctls are laid out as the kernel's headers say", () => {
  assertEquals(words(numbersOfTables(IOCTL)), words(KERNEL_NUMBERS));
});

const compiles = await new Deno.Command("sh", {
  args: ["-c", "echo '#include <linux/kvm.h>' | cc -E - > /dev/null 2>&1"],
}).output();

Deno.test({
  name: "a compiler with the kernel's headers says the same",
  ignore: !compiles.success || Deno.build.arch !== "x86_64",
  async fn() {
    const folder = await Deno.makeTempDir();
    try {
      await Deno.writeTextFile(`${folder}/numbers.c`, numbersProgram());
      const cc = await new Deno.Command("cc", {
        args: ["-o", `${folder}/numbers`, `${folder}/numbers.c`],
      }).output();
      assert(cc.success, new TextDecoder().decode(cc.stderr));
      const { stdout } = await new Deno.Command(`${folder}/numbers`).output();
      assertEquals(words(new TextDecoder().decode(stdout)), words(KERNEL_NUMBERS));
    } finally {
      await Deno.remove(folder, { recursive: true });
    }
  },
});

/** A machine in files and answers. */
interface Machine {
  readonly cpuinfo?: string;
  readonly parameters?: Readonly<Record<string, string>>;
  readonly errno?: number;
  readonly version?: number;
  readonly lacks?: readonly (keyof typeof KVM_CAPS)[];
}

const AMD = "vendor_id\t: AuthenticAMD\nmodel name\t: AMD EPYC\nflags\t\t: fpu svm npt\n";
const REQUESTS = new Map(Object.keys(KVM_IOCTLS).map((name) => [IOCTL[name as "KVM_RUN"], name]));

function libcOf(machine: Machine): HostLibc {
  const { cpuinfo = AMD, parameters = { nested: "1", npt: "Y" }, errno = 0 } = machine;
  return {
    errno,
    readText: (path) =>
      path === "/proc/cpuinfo" ? cpuinfo : parameters[path.slice(path.lastIndexOf("/") + 1)],
    open: () => errno === 0 ? 7 : -1,
    ioctl(_fd, request, argument) {
      if (REQUESTS.get(request) === "KVM_GET_API_VERSION") return machine.version ?? 12;
      const cap = Object.entries(KVM_CAPS).find(([, number]) => number === argument)?.[0];
      return machine.lacks?.some((name) => name === cap) ? 0 : 2;
    },
  };
}

const OBSTACLES: readonly (readonly [string, Machine, KvmErrorCode, string])[] = [
  ["an Intel processor", { cpuinfo: "vendor_id\t: GenuineIntel\n" }, "processor", "VMX"],
  ["no /dev/kvm", { errno: 2 }, "no-kvm", "modprobe kvm_amd"],
  [
    "no SVM in the processor",
    { errno: 2, cpuinfo: "vendor_id\t: AuthenticAMD\nflags\t: fpu\n" },
    "no-kvm",
    "enable it in the firmware",
  ],
  ["no permission", { errno: 13 }, "permission", "usermod -aG kvm"],
  ["too many files", { errno: 24 }, "no-kvm", "EMFILE"],
  ["another device", { version: -1 }, "not-kvm", "not KVM's device"],
  ["another API", { version: 11 }, "not-kvm", "version 11"],
  ["nested=0", { parameters: { nested: "0" } }, "nested", "kvm_amd nested=1"],
  ["nested=N", { parameters: { nested: "N" } }, "nested", "kvm_amd nested=1"],
  ["an old kernel", { lacks: ["KVM_CAP_NESTED_STATE"] }, "capability", "KVM_CAP_NESTED_STATE"],
  ["no SMM", { lacks: ["KVM_CAP_X86_SMM"] }, "capability", "entry=rsm"],
];

for (const [what, machine, code, says] of OBSTACLES) {
  Deno.test(`recording says what to do about ${what}`, () => {
    const libc = libcOf(machine);
    const error = assertThrows(
      () => askHost(libc, openKvm(libc, "/dev/kvm"), "/dev/kvm", true),
      KvmError,
      says,
    );
    assertEquals([error.code, error.exitStatus], [code, 2]);
  });
}

Deno.test("a machine that can be recorded from is described", () => {
  const libc = libcOf({ parameters: { nested: "1", npt: "N", osrelease: "6.12.117\n" } });
  assertEquals(askHost(libc, openKvm(libc, "/dev/kvm"), "/dev/kvm", true), {
    kernel: "6.12.117",
    processor: "AMD EPYC",
    npt: false,
    smm: true,
  });
});

Deno.test("without SMM, other scenarios can be recorded", () => {
  const libc = libcOf({ lacks: ["KVM_CAP_X86_SMM"] });
  assertEquals(askHost(libc, 7, "/dev/kvm", false).smm, false);
});

Deno.test("L1 gets no more features than the modelled processor has", () => {
  const { kvm_cpuid2, kvm_cpuid_entry2: layout } = KVM_LAYOUTS;
  const leaves = [[0x8000000a, 0], [0x80000008, 48], [0x40000000, 0x40000001], [7, 5]] as const;
  const table = new Uint8Array(kvm_cpuid2.size + leaves.length * layout.size);
  new Struct(kvm_cpuid2, table).set("nent", leaves.length);
  const entries = leaves.map(([leaf, eax], i) => {
    const at = kvm_cpuid2.size + i * layout.size;
    const entry = new Struct(layout, table.subarray(at, at + layout.size));
    entry.set("function", leaf);
    entry.set("eax", eax);
    entry.set("edx", 0xffffffff);
    return entry;
  });
  cutCpuid(table);
  assertEquals(cpuidOf(table).physicalBits, 40);
  assertEquals(entries.map((e) => e.number("edx")), [
    0x10010061,
    0xffffffff,
    0xffffffff,
    0x20000000,
  ]);
  assertEquals(entries.map((e) => e.number("eax")), [0, 40, 0x40000001, 5]);
  cutCpuid(table, {
    cpuid: [{ fn: 0x8000000a, register: "edx", mask: 1 }],
    physicalBits: 36,
  });
  const cpuid = cpuidOf(table);
  assertEquals([cpuid.has("npt"), cpuid.has("vgif"), cpuid.physicalBits], [false, true, 36]);
});

/** A tracefs that takes what is written, and gives text. */
class FakeTracefs implements TraceLibc {
  readonly written = new Map<string, string>();
  readonly folders = new Set<string>();
  readonly thread = 42;
  readonly #pieces: string[];
  readonly #root: string | undefined;

  constructor(pieces: readonly string[], root: string | undefined = "/sys/kernel/tracing") {
    this.#pieces = [...pieces];
    this.#root = root;
  }

  mkdir(path: string): boolean {
    if (this.#root === undefined || !path.startsWith(`${this.#root}/instances/`)) return false;
    this.folders.add(path);
    return true;
  }

  rmdir = (path: string): boolean => this.folders.delete(path);

  writeText(path: string, text: string): boolean {
    if (path.includes("kvm_nested_vmrun")) return false;
    this.written.set(path, text);
    return true;
  }

  open = (): number => 9;
  close(): void {}

  read(_fd: number, into: Uint8Array): number {
    const piece = this.#pieces.shift();
    if (piece === undefined) return -1;
    return new TextEncoder().encodeInto(piece, into).written;
  }
}

const LINES = [
  "             deno-42      [000] .....    10.000001: kvm_nested_vmexit: vcpu 0 reason npf rip 0x9000 " +
  "info1 0x0000000000000000 info2 0x0000000000000000 intr_info 0x00000000 error_code 0x00000000\n" +
  "             deno-42      [000] .....    10.000002: kvm_nested_vmenter_fai",
  "led: control->asid == 0\n" +
  "             deno-42      [000] d..1.    10.000003: kvm_inj_virq: IRQ 0x20\n",
];

Deno.test("own tracepoints are taken as the lab has them, through an instance that is gone after", () => {
  const fake = new FakeTracefs(LINES);
  {
    using trace = OwnTrace.open(fake)!;
    assertEquals(trace.take(), [
      { check_failed: "control->asid == 0" },
      { tracepoint: "kvm_inj_virq", text: "IRQ 0x20" },
    ]);
    assertEquals(trace.take(), []);
    const folder = "/sys/kernel/tracing/instances/vmtape-42";
    assertEquals([...fake.folders], [folder]);
    assertEquals(fake.written.get(`${folder}/set_event_pid`), "42\n");
  }
  assertEquals(fake.folders.size, 0);
});

Deno.test("without tracefs there is no trace", () => {
  assertEquals(OwnTrace.open(new FakeTracefs([], "/elsewhere")), undefined);
});

const linux = Deno.build.os === "linux" && Deno.build.arch === "x86_64";

Deno.test({ name: "the timer ends a call that waits", ignore: !linux }, () => {
  using libc = Libc.load();
  using alarm = libc.alarm();
  const library = Deno.dlopen(libc.path, { pause: { parameters: [], result: "i32" } });
  alarm.set(50);
  assertEquals(library.symbols.pause(), -1);
  assertEquals(libc.errno, 4);
  // It repeats: a signal before the call would else be lost.
  assertEquals(library.symbols.pause(), -1);
  alarm.set(0);
  library.close();
});

Deno.test({ name: "mapped memory is reached within its bounds only", ignore: !linux }, () => {
  using libc = Libc.load();
  const memory = libc.map(8192);
  libc.store(memory, 8190, Uint8Array.of(1, 2));
  const bytes = new Uint8Array(3);
  libc.load(memory, 8189, bytes);
  assertEquals([...bytes], [0, 1, 2]);
  assertThrows(() => libc.load(memory, 8190, bytes), RangeError);
  assertThrows(() => libc.store(memory, -1, bytes), RangeError);
  libc.unmap(memory);
});

async function recordKvm(permissions: readonly string[], args: readonly string[]) {
  const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["run", "-q", "--no-prompt", ...permissions, "cli/main.ts", "record", "kvm", ...args],
    cwd: ROOT,
    env: { NO_COLOR: "1" },
  }).output();
  const decoder = new TextDecoder();
  return { code, stdout: decoder.decode(stdout), stderr: decoder.decode(stderr) };
}

Deno.test(
  { name: "without leave to load the C library, the command says how", ignore: !linux },
  async () => {
    const { code, stderr } = await recordKvm(["--allow-read"], ["-o", "/never"]);
    assertEquals(code, 2);
    assertStringIncludes(stderr, "-P=record");
    assertStringIncludes(stderr, LIBC_PATHS[0]!);
  },
);

Deno.test(
  { name: "the permission set of deno.json is enough to get to KVM", ignore: !linux },
  async () => {
    assertEquals(config.permissions.record.ffi, [...LIBC_PATHS]);
    const { code, stdout } = await recordKvm(["-P=record"], [
      ...["-o", "/never", "--device", "/no/kvm", "--json"],
    ]);
    assertEquals(code, 2);
    const { error } = JSON.parse(stdout);
    assert(["no-kvm", "processor"].includes(error.code), stdout);
  },
);
