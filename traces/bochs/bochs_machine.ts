/**
 * The project's guest on Bochs: one scenario is one machine, led by the commands of Bochs' own
 * debugger, and what that prints says what became of it.
 *
 * @module
 */
import { VmtapeError } from "../../engine/error.ts";
import { PAGE_SIZE } from "../../engine/svm/memory.ts";
import { L1_RSP, VMCB12_GPA } from "../scenarios/base.ts";
import type { ScenarioOutcome } from "../scenarios/outcome.ts";
import type { Scenario } from "../scenarios/scenario.ts";
import { setUpMemory } from "../scenarios/scenario_memory.ts";
import { buildGuest } from "../qemu/guest.ts";
import { MACHINE_CODE, PARAMETERS_AT, PRISTINE_AT } from "../qemu/machine_code.ts";
import { CLEARED, parameters } from "../qemu/scenario_machine.ts";
import { type RegisterName, VcpuView } from "../qemu/vcpu_view.ts";
import { isBackInL1, VMRUN_LENGTH } from "../qemu/vmrun.ts";

/** Bochs cannot be started, or does not do what its debugger is told. */
export class BochsError extends VmtapeError {
  /** Name of the class, for those who cannot use instanceof. */
  override readonly name = "BochsError";
}

/** Memory that the guest copies from the image, as it comes up. */
const COPIED = 0x80000;
const MEMORY = 16 << 20;
/** Images that Bochs loads into memory at most; of a larger one than 256 KiB it loads no more. */
const IMAGES = 4;
/** Where the 64 KiB image has to be, so that Bochs finds the reset vector in it. */
const ROM_AT = 0xffff0000;
/** Milliseconds for Bochs to start, and for the guest's own code. */
const STARTS_MS = 10_000;

/** Starts a Bochs for each scenario. */
export class BochsMachine {
  readonly #folder: string;
  readonly #cpu: string;
  readonly #limitMs: number;
  readonly #labels = buildGuest(MACHINE_CODE).labels;
  /** Bochs' version, once it has run. */
  version = "unknown";

  /**
   * @param folder An empty folder of one's own.
   * @param cpu The processor that Bochs is to be, such as `ryzen`.
   * @param limitMs Milliseconds that a scenario may run.
   */
  constructor(folder: string, cpu: string, limitMs: number) {
    this.#folder = folder;
    this.#cpu = cpu;
    this.#limitMs = limitMs;
    Deno.writeFileSync(`${folder}/guest.rom`, buildGuest(MACHINE_CODE).bytes);
  }

  /**
   * Runs one scenario.
   *
   * @param scenario The scenario; `entry=vmrun`, without NMI or interrupt.
   * @param signal Ends it.
   * @returns What became of it; undefined when `signal` ended it.
   * @throws {BochsError} When Bochs cannot be started, or the guest does not come up in it.
   */
  async run(scenario: Scenario, signal?: AbortSignal): Promise<ScenarioOutcome | undefined> {
    const memory = new Uint8Array(MEMORY);
    setUpMemory(scenario, { write: (gpa, bytes) => memory.set(bytes, gpa) }, true);
    this.#write(scenario, memory);
    const startedAt = performance.now();
    const { text, late } = await this.#start(signal);
    const stoppedAt = performance.now();
    if (signal?.aborted) return undefined;
    this.version = /Bochs x86 Emulator ([\d.]+)/.exec(text)?.[1] ?? this.version;
    const vmcb12Before = memory.slice(VMCB12_GPA, VMCB12_GPA + PAGE_SIZE);
    const [, first, second] = text.split(/^CPU0:/m);
    const l1 = viewOf(first ?? "").set("gif", scenario.gif ? 1n : 0n).set("guest_mode", 0n)
      .set("hsave_pa", scenario.l1.hsave);
    const common = {
      fresh: true,
      before: l1.image(),
      vmcb12Gpa: scenario.l1.rax,
      vmcb12Before,
      startedAt,
      stoppedAt,
    };
    if (l1.get("rip") === undefined) {
      if (late) {
        throw new BochsError("Bochs does not come up in time; try it again, or another --cpu");
      }
      // The guest's own code faulted on what the scenario loads into L1's registers.
      return { ...common, end: "shutdown", after: undefined, vmcb12: vmcb12Before };
    }
    if (second === undefined) {
      const end = late ? "limit" : "shutdown";
      return { ...common, end, after: undefined, vmcb12: undefined };
    }
    const after = viewOf(second), vmcb12 = pageOf(second);
    const pending = {
      site: scenario.l1.rip,
      l1,
      vmcb12Gpa: scenario.l1.rax,
      vmcb12: scenario.l1.rax === BigInt(VMCB12_GPA) ? vmcb12Before : undefined,
    };
    const back = isBackInL1(pending, after, vmcb12);
    after.set("guest_mode", back ? 0n : 1n);
    return { ...common, end: back ? "exit" : "l2-port", after: after.image(), vmcb12 };
  }

  /** Writes the machine's description, its memory, and what its debugger is to do. */
  #write(scenario: Scenario, memory: Uint8Array): void {
    const folder = this.#folder;
    const { l1 } = scenario;
    const images: string[] = [];
    for (let part = 0; part < IMAGES; part++) {
      const from = part * COPIED / IMAGES;
      Deno.writeFileSync(
        `${folder}/memory${part}.bin`,
        memory.subarray(from, from + COPIED / IMAGES),
      );
      const at = (PRISTINE_AT + from).toString(16);
      images.push(`optramimage${part + 1}: file=${folder}/memory${part}.bin, address=0x${at}`);
    }
    Deno.writeTextFileSync(
      `${folder}/machine.txt`,
      [
        "config_interface: textconfig",
        "display_library: term",
        `cpu: model=${this.#cpu}, count=1, ips=50000000, reset_on_triple_fault=0`,
        "memory: guest=32, host=32",
        `romimage: file=${folder}/guest.rom, address=0x${ROM_AT.toString(16)}`,
        ...images,
        `log: ${folder}/log.txt`,
        "panic: action=fatal",
        "error: action=ignore",
        "info: action=ignore",
      ].join("\n") + "\n",
    );
    const hex = (value: bigint | number) => `0x${value.toString(16)}`;
    const look = [
      'print-string "vmtape-state"',
      "r",
      "creg",
      "sreg",
      `xp /512gx ${hex(VMCB12_GPA)}`,
    ];
    const set = (name: string, value: bigint) => `set ${name} = ${hex(value)}`;
    const words = (bytes: Uint8Array, at: number) => {
      const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
      return Array.from({ length: bytes.length >> 2 }, (_, i) => view.getUint32(i * 4, true))
        .flatMap((word, i) => word === 0 ? [] : [`setpmem ${hex(at + i * 4)} 4 ${hex(word)}`]);
    };
    const beyond = words(memory.subarray(COPIED, PARAMETERS_AT), COPIED);
    Deno.writeTextFileSync(
      `${folder}/commands.txt`,
      [
        ...words(parameters(scenario), PARAMETERS_AT),
        `lb ${hex(this.#labels[l1.pae ? "done32" : "done"])}`,
        "c",
        ...beyond,
        set("rax", l1.rax),
        set("rsp", L1_RSP),
        ...CLEARED.map((name) => set(name, 0n)),
        set("rip", l1.rip),
        ...look,
        `lb ${hex(l1.rip + VMRUN_LENGTH)}`,
        "c",
        ...look,
        "q",
      ].join("\n") + "\n",
    );
  }

  async #start(signal: AbortSignal | undefined): Promise<{ text: string; late: boolean }> {
    const folder = this.#folder;
    const limit = AbortSignal.timeout(STARTS_MS + this.#limitMs);
    let output: Deno.CommandOutput;
    try {
      output = await new Deno.Command("bochs", {
        args: ["-q", "-f", `${folder}/machine.txt`, "-rc", `${folder}/commands.txt`],
        env: { TERM: "vt100" },
        stdin: "null",
        stdout: "piped",
        stderr: "piped",
        signal: signal === undefined ? limit : AbortSignal.any([limit, signal]),
      }).output();
    } catch (cause) {
      throw new BochsError(
        "Bochs cannot be started: it needs the program bochs 2.7 with its debugger and its terminal " +
          "display (Debian: bochs, bochs-term), and leave to run it (--allow-run=bochs)",
        { cause },
      );
    }
    const decoder = new TextDecoder();
    return {
      text: decoder.decode(output.stdout) + decoder.decode(output.stderr),
      late: limit.aborted,
    };
  }
}

/** Registers of the debugger's `r`, `creg` and `sreg`. */
function viewOf(text: string): VcpuView {
  const view = new VcpuView();
  const put = (name: string, value: string) =>
    view.set(name as RegisterName, BigInt(`0x${value.replace("_", "")}`));
  for (const [, name, value] of text.matchAll(/^(r[a-z0-9]{1,2}) *: ([0-9a-f]{8}_[0-9a-f]{8})/gm)) {
    put(name!, value!);
  }
  const flags = /^eflags 0x([0-9a-f]+)/m.exec(text)?.[1];
  if (flags !== undefined) put("rflags", flags);
  for (const [, name, value] of text.matchAll(/^(CR[0348]|EFER)=0x([0-9a-f_]+)/gm)) {
    put(name!.toLowerCase(), value!);
  }
  const cr2 = /^CR2=page fault laddr=0x([0-9a-f_]+)/m.exec(text)?.[1];
  if (cr2 !== undefined) put("cr2", cr2);
  const segments = /^([c-gs]s):0x([0-9a-f]{4}), dh=0x([0-9a-f]{8}), dl=0x([0-9a-f]{8})/gm;
  for (const [, name, selector, high, low] of text.matchAll(segments)) {
    const dh = parseInt(high!, 16), dl = parseInt(low!, 16);
    const limit = dl & 0xffff | dh & 0xf0000;
    const values = {
      selector: parseInt(selector!, 16),
      attrib: dh >>> 8 & 0xff | dh >>> 12 & 0xf00,
      limit: (dh & 1 << 23) !== 0 ? (limit << 12 | 0xfff) >>> 0 : limit,
      base: (dl >>> 16 | (dh & 0xff) << 16 | dh & 0xff000000) >>> 0,
    };
    for (const [part, value] of Object.entries(values)) {
      view.set(`${name}_${part}` as RegisterName, BigInt(value));
    }
  }
  return view;
}

/** The page that the debugger printed as 512 words; undefined when it did not. */
function pageOf(text: string): Uint8Array | undefined {
  const page = new Uint8Array(PAGE_SIZE), view = new DataView(page.buffer);
  let words = 0;
  for (const [, line] of text.matchAll(/<bogus\+ *\d+>:([^\n]*)/g)) {
    for (const [, word] of line!.matchAll(/0x([0-9a-f]{8,16})/g)) {
      if (words < 512) view.setBigUint64(8 * words++, BigInt(`0x${word}`), true);
    }
  }
  return words === 512 ? page : undefined;
}
