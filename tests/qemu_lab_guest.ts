/**
 * A guest whose L2 counts the interrupts that L1 injects, on a kernel of the
 * lab: how to boot it, and what it counted.
 *
 * @module
 */
import { missing as missingLab } from "./kvm_lab.ts";

const SHARED = new URL("../../shared/", import.meta.url);
const PROGRAM = new URL("faults/double-irq/irq", SHARED);

/** Interrupts that one run of the program injects. */
export const INJECTED = 600;

/** What is missing to run it; empty when nothing is. */
export async function missing(): Promise<string[]> {
  const out = await missingLab();
  const there = await Deno.stat(PROGRAM).then(() => true, () => false);
  return there ? out : [...out, "../shared/faults"];
}

/** The guest's files, in a folder that goes away at the end. */
export class InterruptGuest implements AsyncDisposable {
  readonly #folder: string;

  private constructor(folder: string) {
    this.#folder = folder;
  }

  /**
   * Builds the root folder.
   *
   * @param atOnce How many programs run at the same time.
   * @param rounds How often.
   * @returns The guest.
   */
  static async build(atOnce: number, rounds: number): Promise<InterruptGuest> {
    const folder = await Deno.makeTempDir();
    const round = Array(atOnce).fill(`/irq ${INJECTED} &`).join(" ") + " wait\n";
    await Deno.mkdir(`${folder}/root`);
    await Deno.copyFile(PROGRAM, `${folder}/root/irq`);
    await Deno.writeTextFile(
      `${folder}/root/init`,
      `#!/busybox sh
/busybox mkdir /dev
/busybox mount -t devtmpfs dev /dev
${round.repeat(rounds)}
/busybox poweroff -f
`,
      { mode: 0o755 },
    );
    const { success } = await new Deno.Command("sh", {
      args: [
        "-c",
        'cp "$(command -v busybox)" busybox && find . | cpio -o -H newc --quiet > ../initrd',
      ],
      cwd: `${folder}/root`,
      stderr: "null",
    }).output();
    if (!success) throw new Error("The root folder of the guest could not be packed");
    return new InterruptGuest(folder);
  }

  /**
   * QEMU's options that boot it.
   *
   * @param kernel A kernel of the lab.
   * @param vcpus Number of vCPUs.
   */
  args(kernel: string, vcpus: number): string[] {
    return [
      ...["-m", "512", "-smp", `${vcpus}`, "-nodefaults", "-no-reboot"],
      ...["-serial", `file:${this.#folder}/console`],
      ...["-kernel", new URL(`lab/kernels/${kernel}.bz`, SHARED).pathname],
      ...["-initrd", `${this.#folder}/initrd`],
      ...["-append", "console=ttyS0 panic=-1 loglevel=4 kvm_amd.nested=1"],
    ];
  }

  /**
   * What the programs said that ended so far.
   *
   * @returns Of each, how often the handler in L2 ran.
   */
  async counted(): Promise<number[]> {
    const text = await Deno.readTextFile(`${this.#folder}/console`);
    const lines = text.matchAll(/irq: 600 interrupts injected, handler ran (\d+) times, rsp 8000/g);
    return Array.from(lines, ([, count]) => Number(count));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Deno.remove(this.#folder, { recursive: true });
  }
}
