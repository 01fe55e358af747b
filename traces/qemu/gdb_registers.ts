/**
 * The register file of a GDB target, as its own description lays it out.
 *
 * @module
 */
import { GdbError, quoted } from "./gdb_packets.ts";

/** Bits of a register at most; AVX-512's have a quarter. */
const MAX_BITS = 2048;

/** One register of the target. */
export interface GdbRegister {
  /** Name, as in GDB: `rax`, `eflags`, `cr3`, `efer`. */
  readonly name: string;
  /** Number, for the packets that move one register. */
  readonly number: number;
  /** Size in bytes. */
  readonly size: number;
  /** Byte offset in the answer to `g`. */
  readonly offset: number;
}

/**
 * The registers of a target in the order of their numbers.
 *
 * @example
 * ```ts
 * import { GdbRegisterLayout } from "@vmtape/vmtape/traces";
 * const xml = `<target><feature name="org.gnu.gdb.i386.core">
 *   <reg name="rax" bitsize="64"/><reg name="rip" bitsize="64"/></feature></target>`;
 * const layout = GdbRegisterLayout.parse([xml]);
 * if (layout.get("rip")?.offset !== 8) throw new Error();
 * ```
 */
export class GdbRegisterLayout {
  readonly #byName = new Map<string, GdbRegister>();

  /**
   * A layout of known registers.
   *
   * @param registers Every register, in the order of the numbers.
   */
  constructor(registers: Iterable<GdbRegister>) {
    for (const register of registers) this.#byName.set(register.name, register);
  }

  /**
   * Reads target descriptions.
   *
   * @param documents XML of the description and of what it includes, in the order of inclusion.
   * @returns The layout.
   * @throws {GdbError} `protocol`, when no register is described.
   */
  static parse(documents: readonly string[]): GdbRegisterLayout {
    const registers: GdbRegister[] = [];
    let number = 0;
    let offset = 0;
    const xml = documents.join("\n").replace(/<!--.*?-->/gs, "");
    for (const [, tag] of xml.matchAll(/<reg\s([^>]*?)\/?>/g)) {
      const attributes = new Map(
        [...tag!.matchAll(/([\w-]+)\s*=\s*"([^"]*)"/g)].map((m) => [m[1]!, m[2]!]),
      );
      const name = attributes.get("name");
      const bits = Number(attributes.get("bitsize"));
      if (name === undefined || !Number.isInteger(bits) || bits <= 0 || bits > MAX_BITS) {
        throw new GdbError(
          "protocol",
          `The target description has a register without a usable size: ${quoted(tag!)}`,
        );
      }
      const said = attributes.get("regnum");
      if (said !== undefined) number = Number(said);
      registers.push({ name, number, size: bits / 8, offset });
      number++;
      offset += bits / 8;
    }
    if (registers.length === 0) {
      throw new GdbError("protocol", "The target description of the GDB stub names no register");
    }
    return new GdbRegisterLayout(registers);
  }

  /**
   * One register by name.
   *
   * @param name Name, as in GDB.
   * @returns The register, or undefined when the target has none of that name.
   */
  get(name: string): GdbRegister | undefined {
    return this.#byName.get(name);
  }

  /** All names. */
  get names(): string[] {
    return [...this.#byName.keys()];
  }
}

/**
 * Values of the registers of one vCPU at one stop.
 *
 * @example
 * ```ts
 * import { GdbRegisterLayout, GdbRegisters } from "@vmtape/vmtape/traces";
 * const layout = GdbRegisterLayout.parse([`<reg name="rax" bitsize="64"/>`]);
 * const registers = new GdbRegisters(layout, Uint8Array.of(0x34, 0x12, 0, 0, 0, 0, 0, 0));
 * if (registers.get("rax") !== 0x1234n) throw new Error();
 * ```
 */
export class GdbRegisters {
  readonly #layout: GdbRegisterLayout;
  readonly #view: DataView;

  /**
   * The values in one answer.
   *
   * @param layout Where each register is.
   * @param bytes The answer to `g`.
   */
  constructor(layout: GdbRegisterLayout, bytes: Uint8Array) {
    this.#layout = layout;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  /**
   * Value of a register of at most 8 bytes.
   *
   * @param name Name, as in GDB.
   * @returns The value, or undefined when the target does not show it.
   */
  get(name: string): bigint | undefined {
    const register = this.#layout.get(name);
    if (register === undefined || register.offset + register.size > this.#view.byteLength) {
      return undefined;
    }
    if (register.size === 8) return this.#view.getBigUint64(register.offset, true);
    if (register.size === 4) return BigInt(this.#view.getUint32(register.offset, true));
    if (register.size === 2) return BigInt(this.#view.getUint16(register.offset, true));
    return undefined;
  }

  /**
   * Value of a register that the target must have.
   *
   * @param name Name, as in GDB.
   * @returns The value.
   * @throws {GdbError} `remote`, when it does not show that register.
   */
  need(name: string): bigint {
    const value = this.get(name);
    if (value === undefined) {
      throw new GdbError(
        "remote",
        `The GDB stub does not show register ${name}; it must be qemu-system-x86_64, version 7.2 or newer`,
      );
    }
    return value;
  }
}
