/**
 * Where L2's handler of an injected interrupt begins: its IDT entry is read
 * through its page tables and, with nested paging, through L1's.
 *
 * @module
 */
import { C, S } from "../../engine/svm/machine.ts";
import { type PagingMode, type ReadPhysical, translateLinear } from "./page_walk.ts";
import type { VcpuView } from "./vcpu_view.ts";

/** CR0.PE, EFER.LMA, NP_ENABLE. */
const PE = 1n, LMA = 0x400n, NP_ENABLE = 1;
/** Gates of the IDT that hold 32 bits of offset: types 14 and 15. */
const GATE_32 = 14;
/** Handlers remembered at most. */
const MAX_HANDLERS = 4096;

/**
 * Finds handlers and remembers them. What L2 changes meanwhile goes unnoticed: the answer is
 * for a breakpoint, and one that is not reached does no harm.
 *
 * @example
 * ```ts
 * import { HandlerFinder, VcpuView } from "@vmtape/vmtape/traces";
 * const finder = new HandlerFinder(() => Promise.resolve(Uint8Array.of(0x34, 0x12, 0x00, 0x10)));
 * const vmcb12 = new Uint8Array(4096); // an L2 in real mode
 * if (await finder.find(vmcb12, new VcpuView()) !== 0x11234n) throw new Error();
 * ```
 */
export class HandlerFinder {
  readonly #read: ReadPhysical;
  readonly #known = new Map<string, bigint>();

  /**
   * Begins with no handler known.
   *
   * @param read Reads L1's physical memory.
   */
  constructor(read: ReadPhysical) {
    this.#read = read;
  }

  /**
   * The handler of the interrupt that a VMRUN injects.
   *
   * @param vmcb12 The VMCB, with EVENTINJ.
   * @param l1 L1's registers, whose paging mode nested paging has.
   * @returns Linear address of its first instruction, or undefined when it cannot be told.
   */
  async find(vmcb12: Uint8Array, l1: VcpuView): Promise<bigint | undefined> {
    const view = new DataView(vmcb12.buffer, vmcb12.byteOffset, vmcb12.byteLength);
    const vector = view.getUint32(C.event_inj, true) & 0xff;
    const words = [S.idtr_base, S.cr0, S.efer].map((at) => view.getBigUint64(at, true));
    const key = `${words.join()} ${vector} ${view.getUint32(C.asid, true)}`;
    const known = this.#known.get(key);
    if (known !== undefined) return known;
    const handler = await this.#look(view, vector, l1);
    if (this.#known.size >= MAX_HANDLERS) this.#known.clear();
    if (handler !== undefined) this.#known.set(key, handler);
    return handler;
  }

  async #look(view: DataView, vector: number, l1: VcpuView): Promise<bigint | undefined> {
    const [cr0, cr3, cr4, efer, base] = [S.cr0, S.cr3, S.cr4, S.efer, S.idtr_base]
      .map((at) => view.getBigUint64(at, true)) as [bigint, bigint, bigint, bigint, bigint];
    const nested = (view.getUint32(C.nested_ctl, true) & NP_ENABLE) !== 0;
    const nestedMode = {
      cr0: 1n << 31n,
      cr3: view.getBigUint64(C.nested_cr3, true),
      cr4: l1.get("cr4") ?? 0n,
      efer: l1.get("efer") ?? 0n,
    };
    const physical: ReadPhysical = async (gpa, length) => {
      const at = nested ? await translateLinear(nestedMode, gpa, this.#read) : gpa;
      return at === undefined ? undefined : await this.#read(at, length);
    };
    const mode: PagingMode = { cr0, cr3, cr4, efer };
    const real = (cr0 & PE) === 0n;
    const long = (efer & LMA) !== 0n;
    const size = real ? 4 : long ? 16 : 8;
    const at = await translateLinear(mode, base + BigInt(vector * size), physical);
    const gate = at === undefined ? undefined : await physical(at, size);
    if (gate === undefined) return undefined;
    const bytes = new DataView(gate.buffer, gate.byteOffset, gate.byteLength);
    const low = BigInt(bytes.getUint16(0, true));
    if (real) return BigInt(bytes.getUint16(2, true)) * 16n + low;
    const wide = (gate[5]! & 0xf) >= GATE_32;
    const offset = wide ? BigInt(bytes.getUint16(6, true)) << 16n | low : low;
    return long ? BigInt(bytes.getUint32(8, true)) << 32n | offset : offset;
  }
}
