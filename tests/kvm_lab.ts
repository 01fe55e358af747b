/**
 * Boots a kernel of the lab with Deno and the bundled command line in it, lets
 * it record scenarios through its /dev/kvm, and brings the trace out.
 *
 * By hand: `deno run -A tests/kvm_lab.ts linux-6.12 1 cases.txt out.vmtape`.
 *
 * @module
 */

/** The lab, next to the repository. */
const LAB = new URL("../../shared/lab/", import.meta.url);
const ROOT = new URL("../", import.meta.url);
/** Memory of the machine, in MiB: the root folder is in it twice while it is unpacked. */
const MEMORY_MIB = 2048;
/** The C library as the recorder looks for it first. */
const LIBC = "/lib/x86_64-linux-gnu/libc.so.6";

const INIT = `#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin HOME=/root NO_COLOR=1
# The kernel has no file locks. Deno would try for 40 s to open its caches in a folder that it can make.
export DENO_DIR=/proc/none
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mount -t tmpfs tmp /tmp && cd /tmp
mount -t tracefs tracefs /sys/kernel/tracing
echo "init at $(cut -d' ' -f1 /proc/uptime) s"
stty -F /dev/ttyS1 raw
/deno run --no-prompt --no-config --allow-read --allow-write=/tmp --allow-ffi=${LIBC} \\
  /vmtape.js record kvm --scenario /cases.txt -o t.vmtape 2> said
status=$?
echo "recorded at $(cut -d' ' -f1 /proc/uptime) s"
cat said
echo "status $status"
wc -c < t.vmtape
cat t.vmtape > /dev/ttyS1
sleep 1
poweroff -f
`;

/** A recording made in the lab. */
export interface LabRecording {
  /** The trace. */
  readonly trace: Uint8Array<ArrayBuffer>;
  /** What the console said. */
  readonly console: string;
}

async function output(command: string, args: readonly string[], cwd?: string): Promise<string> {
  const { code, stdout, stderr } = await new Deno.Command(command, {
    args: [...args],
    ...(cwd === undefined ? {} : { cwd }),
    env: { NO_COLOR: "1" },
  }).output();
  const decoder = new TextDecoder();
  if (code !== 0) throw new Error(`${command} ended with ${code}: ${decoder.decode(stderr)}`);
  return decoder.decode(stdout);
}

/** Whether a program is there. */
export async function installed(program: string): Promise<boolean> {
  const which = await new Deno.Command("sh", {
    args: ["-c", `command -v ${program}`],
    stdout: "null",
  }).output();
  return which.success;
}

/** What is missing to run the lab; empty when nothing is. */
export async function missing(): Promise<string[]> {
  const out: string[] = [];
  try {
    await Deno.stat(new URL("boot", LAB));
  } catch {
    out.push("../shared/lab");
  }
  for (const program of ["qemu-system-x86_64", "cpio", "busybox"]) {
    if (!await installed(program)) out.push(program);
  }
  return out;
}

/** Copies a file and what its path needs. */
async function copy(from: string, root: string, to = from): Promise<void> {
  const path = `${root}${to}`;
  await Deno.mkdir(path.slice(0, path.lastIndexOf("/")), { recursive: true });
  await Deno.copyFile(from, path);
}

/**
 * Builds the root folder: busybox, Deno with its libraries, the command line in one file.
 *
 * @param root An empty folder.
 */
export async function buildRoot(root: string): Promise<void> {
  for (const folder of ["proc", "sys", "dev", "tmp", "root", "bin"]) {
    await Deno.mkdir(`${root}/${folder}`);
  }
  await copy((await output("sh", ["-c", "command -v busybox"])).trim(), root, "/bin/busybox");
  const deno = await Deno.realPath(Deno.execPath());
  await copy(deno, root, "/deno");
  for (const [path] of (await output("ldd", [deno])).matchAll(/\/\S+/g)) await copy(path, root);
  await copy(LIBC, root);
  await output(Deno.execPath(), [
    ...["bundle", "--quiet", "--platform", "deno"],
    ...["-o", `${root}/vmtape.js`, "cli/main.ts"],
  ], ROOT.pathname);
  await Deno.writeTextFile(`${root}/init`, INIT, { mode: 0o755 });
}

/**
 * Records on one of the lab's kernels.
 *
 * @param root A folder that {@linkcode buildRoot} filled.
 * @param kernel Name of the kernel.
 * @param npt 1 with nested paging, 0 with shadow paging.
 * @param cases The cases.
 * @returns The trace.
 * @throws {Error} When the recording fails, with what the console said.
 */
export async function recordInLab(
  root: string,
  kernel: string,
  npt: number,
  cases: string,
): Promise<LabRecording> {
  const out = await Deno.makeTempFile({ prefix: "vmtape-lab-" });
  try {
    await Deno.writeTextFile(`${root}/cases.txt`, cases);
    const { stdout, stderr } = await new Deno.Command(new URL("boot", LAB).pathname, {
      args: [root, "--kernel", kernel, "--npt", `${npt}`, "--mem", `${MEMORY_MIB}`, "--out", out],
      env: { LAB_TIMEOUT: "1800" },
    }).output();
    const decoder = new TextDecoder();
    const console = decoder.decode(stdout) + decoder.decode(stderr);
    const trace = await Deno.readFile(out);
    const status = /^status 0\s+(\d+)\s/m.exec(console);
    if (!status) throw new Error(`The recording failed:\n${console}`);
    if (Number(status[1]) !== trace.length) {
      throw new Error(`${trace.length} of ${status[1]} bytes came out:\n${console}`);
    }
    return { trace, console };
  } finally {
    await Deno.remove(out);
  }
}

if (import.meta.main) {
  const [kernel = "linux-6.12", npt = "1", cases = "", to = "lab.vmtape"] = Deno.args;
  const root = await Deno.makeTempDir({ prefix: "vmtape-root-" });
  try {
    await buildRoot(root);
    const text = await Deno.readTextFile(cases);
    const { trace, console: said } = await recordInLab(root, kernel, Number(npt), text);
    await Deno.writeFile(to, trace);
    Deno.stdout.writeSync(new TextEncoder().encode(said));
  } finally {
    await Deno.remove(root, { recursive: true });
  }
}
