/**
 * What a debugger sees of a vCPU, as an image of the registers layout: bits
 * that neither the register packet nor QEMU's monitor shows stay unknown.
 *
 * @module
 */
import type { Image } from "../../engine/event.ts";
import type { Field } from "../../engine/layout.ts";
import { REGS_FIELDS, REGS_SIZE } from "../../engine/svm/regs_layout.ts";
import type { GdbRegisters } from "./gdb_registers.ts";

/** Name of a register or flag of the layout. */
export type RegisterName = typeof REGS_FIELDS[number]["name"];

const FIELDS = new Map<string, Field>(REGS_FIELDS.map((field) => [field.name, field]));

/** Registers that GDB and the layout call differently; the rest have one name. */
const GDB_NAMES: Readonly<Record<string, RegisterName>> = {
  eflags: "rflags",
  cs: "cs_selector",
  ss: "ss_selector",
  ds: "ds_selector",
  es: "es_selector",
  fs: "fs_selector",
  gs: "gs_selector",
};

/** Registers of one name in GDB and in the layout. */
const SAME_NAMES: readonly RegisterName[] = [
  ...["rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi"] as const,
  ...["r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"] as const,
  ...["rip", "cr0", "cr2", "cr3", "cr4", "cr8", "efer", "fs_base", "gs_base"] as const,
];

/** OF, DF, SF, ZF, AF, PF, CF: QEMU computes them when asked, and the stub does not ask. */
const LAZY_FLAGS = 0xcd5n;

/**
 * The registers of a vCPU, with what is known of them.
 *
 * @example
 * ```ts
 * import { VcpuView } from "@vmtape/vmtape/traces";
 * const view = new VcpuView().set("efer", 0x1500n);
 * if (view.get("efer") !== 0x1500n || view.get("gif") !== undefined) throw new Error();
 * ```
 */
export class VcpuView {
  readonly #bytes = new Uint8Array(REGS_SIZE);
  readonly #known = new Uint8Array(REGS_SIZE);
  readonly #view = new DataView(this.#bytes.buffer);

  /**
   * Adds what the register packet holds.
   *
   * @param registers The vCPU's registers.
   * @returns This view.
   */
  addRegisters(registers: GdbRegisters): this {
    for (const name of SAME_NAMES) this.#put(name, registers.get(name));
    for (const [gdb, name] of Object.entries(GDB_NAMES)) {
      const unseen = name === "rflags" ? LAZY_FLAGS : 0n;
      this.#put(name, registers.get(gdb), unseen);
    }
    return this;
  }

  /**
   * Adds what the monitor's `info registers` prints: segments, descriptor tables, debug
   * registers, all of RFLAGS, and whether the vCPU is in SMM.
   *
   * @param text Its output for this vCPU.
   * @returns This view.
   */
  addMonitor(text: string): this {
    const segments = /^(ES|CS|SS|DS|FS|GS|LDT|TR) *= *(\w{4}) (\w+) (\w{8}) (\w{8})/gm;
    for (const [, name, selector, base, limit, flags] of text.matchAll(segments)) {
      const row = name === "LDT" ? "ldtr" : name!.toLowerCase();
      const attributes = BigInt(`0x${flags}`);
      this.#put(`${row}_selector` as RegisterName, BigInt(`0x${selector}`));
      this.#put(`${row}_base` as RegisterName, BigInt(`0x${base}`));
      this.#put(`${row}_limit` as RegisterName, BigInt(`0x${limit}`));
      this.#put(
        `${row}_attrib` as RegisterName,
        attributes >> 8n & 0xffn | attributes >> 12n & 0xf00n,
      );
    }
    for (const [, name, base, limit] of text.matchAll(/^([GI]DT)= *(\w+) (\w{8})/gm)) {
      const row = name === "GDT" ? "gdtr" : "idtr";
      this.#put(`${row}_base`, BigInt(`0x${base}`));
      this.#put(`${row}_limit`, BigInt(`0x${limit}`));
    }
    for (const [, name, value] of text.matchAll(/\b(DR[0-367])=(\w+)/g)) {
      this.#put(name!.toLowerCase() as RegisterName, BigInt(`0x${value}`));
    }
    const flags = /\b(?:RFL|EFL)=(\w+)/.exec(text)?.[1];
    if (flags !== undefined) this.#put("rflags", BigInt(`0x${flags}`));
    const smm = /\bSMM=([01])/.exec(text)?.[1];
    if (smm !== undefined) this.#put("smm", BigInt(smm));
    return this;
  }

  /**
   * Sets one register or flag that is known from elsewhere.
   *
   * @param name Its name.
   * @param value Its value; undefined makes it unknown.
   * @returns This view.
   */
  set(name: RegisterName, value: bigint | undefined): this {
    const field = FIELDS.get(name)!;
    this.#bytes.fill(0, field.offset, field.offset + field.size);
    this.#known.fill(0, field.offset, field.offset + field.size);
    this.#put(name, value);
    return this;
  }

  /**
   * One register or flag.
   *
   * @param name Its name.
   * @returns Its value, or undefined when a bit of it is unknown.
   */
  get(name: RegisterName): bigint | undefined {
    const field = FIELDS.get(name)!;
    let value = 0n;
    for (let i = field.size - 1; i >= 0; i--) {
      if (this.#known[field.offset + i] !== 0xff) return undefined;
      value = value << 8n | BigInt(this.#bytes[field.offset + i]!);
    }
    return value;
  }

  /**
   * The registers as an event holds them.
   *
   * @returns A copy, with its mask.
   */
  image(): Image {
    return { bytes: this.#bytes.slice(), known: this.#known.slice() };
  }

  #put(name: RegisterName, value: bigint | undefined, unseen = 0n): void {
    if (value === undefined) return;
    const field = FIELDS.get(name)!;
    if (field.size === 8 && unseen === 0n) {
      this.#view.setBigUint64(field.offset, value, true);
      this.#known.fill(0xff, field.offset, field.offset + 8);
      return;
    }
    for (let i = 0; i < field.size; i++) {
      const mask = 0xff & ~Number(unseen >> BigInt(8 * i) & 0xffn);
      this.#bytes[field.offset + i] = Number(value >> BigInt(8 * i) & 0xffn) & mask;
      this.#known[field.offset + i] = mask;
    }
  }
}

/**
 * The part of `info registers -a` that is about one vCPU.
 *
 * @param text Output of the monitor, for one vCPU or for all.
 * @param index Number of the vCPU, from 0.
 * @returns Its part; empty when there is none.
 * @example
 * ```ts
 * import { monitorSection } from "@vmtape/vmtape/traces";
 * if (monitorSection("\nCPU#0\nRAX=1\n\nCPU#1\nRAX=2\n", 1).trim() !== "RAX=2") throw new Error();
 * ```
 */
export function monitorSection(text: string, index: number): string {
  const sections = text.split(/^CPU#(\d+)\r?\n/m);
  for (let i = 1; i < sections.length; i += 2) {
    if (Number(sections[i]) === index) return sections[i + 1]!;
  }
  return "";
}
