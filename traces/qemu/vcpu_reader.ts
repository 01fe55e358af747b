/**
 * Reads a stopped vCPU: registers, segments and the pages that will be wanted,
 * all asked for at once, since what costs is the round trip.
 *
 * @module
 */
import { VMCB_SIZE } from "../../engine/svm/vmcb_fields.ts";
import { inMemory, type MemoryRegion } from "./memory_map.ts";
import type { GdbClient } from "./gdb_client.ts";
import { monitorSection, VcpuView } from "./vcpu_view.ts";

/** What to read beside the registers, as far as it can be guessed before they are known. */
export interface ReadGuess {
  /** Physical addresses of pages. */
  readonly pages: readonly bigint[];
}

/** A vCPU as it stands, and memory as it is meanwhile. */
export interface VcpuSnapshot {
  /** Its registers. */
  readonly view: VcpuView;
  /** RIP as a linear address: outside 64-bit mode CS has a base. */
  readonly linear: bigint;
  /**
   * A page of physical memory.
   *
   * @param gpa Its address.
   * @returns Its bytes, or undefined where there is no memory.
   */
  page(gpa: bigint): Promise<Uint8Array | undefined>;
  /**
   * The instruction at RIP.
   *
   * @returns Its first three bytes, or undefined when they are not mapped.
   */
  code(): Promise<Uint8Array | undefined>;
}

/** Bytes of an instruction that are looked at. */
const CODE_BYTES = 3;

/** Reads the vCPUs of one guest. */
export class VcpuReader {
  readonly #gdb: GdbClient;
  readonly #threads: readonly string[];
  readonly #memory: readonly MemoryRegion[];

  /**
   * @param gdb Client of the guest.
   * @param threads Its vCPUs.
   * @param memory Where its memory is: elsewhere nothing is read, which could disturb a device.
   */
  constructor(gdb: GdbClient, threads: readonly string[], memory: readonly MemoryRegion[]) {
    this.#gdb = gdb;
    this.#threads = threads;
    this.#memory = memory;
  }

  /**
   * Reads a vCPU of a stopped guest.
   *
   * @param thread The vCPU.
   * @param guess What will be wanted, so that it comes in the same exchange.
   * @returns What it shows.
   */
  async read(thread: string, guess: ReadGuess): Promise<VcpuSnapshot> {
    const gdb = this.#gdb;
    const index = this.#threads.indexOf(thread);
    const pages = new Map(guess.pages.map((gpa) => [gpa, this.#page(gpa)]));
    const [registers, text] = await Promise.all([
      gdb.registers(thread),
      gdb.monitor(`info registers ${index}`),
      ...pages.values(),
    ]);
    const view = new VcpuView().addRegisters(registers).addMonitor(monitorSection(text, index));
    const linear = linearRip(view);
    return {
      view,
      linear,
      page: (gpa) => {
        let page = pages.get(gpa);
        if (page === undefined) pages.set(gpa, page = this.#page(gpa));
        return page;
      },
      code: () => gdb.readLinear(thread, linear, CODE_BYTES),
    };
  }

  /**
   * Reads physical memory.
   *
   * @param gpa First byte.
   * @param length Number of bytes.
   * @returns The bytes, or undefined where there is no memory.
   */
  memory(gpa: bigint, length: number): Promise<Uint8Array | undefined> {
    return inMemory(this.#memory, gpa, length)
      ? this.#gdb.readMemory(gpa, length)
      : Promise.resolve(undefined);
  }

  #page(gpa: bigint): Promise<Uint8Array | undefined> {
    return this.memory(gpa, VMCB_SIZE);
  }
}

/** EFER.LMA and the code segment's L bit: the processor is in 64-bit mode. */
const EFER_LMA = 0x400n, ATTRIB_L = 0x200n;

function linearRip(view: VcpuView): bigint {
  const rip = view.get("rip")!;
  const long = ((view.get("efer") ?? 0n) & EFER_LMA) !== 0n &&
    ((view.get("cs_attrib") ?? 0n) & ATTRIB_L) !== 0n;
  return long ? rip : (view.get("cs_base") ?? 0n) + rip & 0xffff_ffffn;
}
