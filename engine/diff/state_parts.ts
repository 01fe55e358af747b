/**
 * The parts of a vCPU's state, looked at once however often they are compared.
 *
 * @module
 */
import type { Image } from "../event.ts";
import { look, looked } from "../kvm/ioctls.ts";
import type { Vcpu } from "../kvm/vcpu.ts";
import type { Paths } from "../paths/paths.ts";
import { innerBytes, regsBytes } from "../replay/views.ts";
import { VMCB12_AT } from "../svm/machine.ts";
import { areaImage, AreaMemory, AREAS } from "./areas.ts";

const NO_BYTES = new Uint8Array(0), NO_WORDS = new Uint32Array(0);

/** All parts of a vCPU's state. */
export class StateParts {
  /** What userspace sees of it, and the state inside the kernel. */
  readonly memory: AreaMemory = new AreaMemory();
  /** The vCPU area and the hypervisor's own VMCBs. */
  bytes: Uint8Array = NO_BYTES;
  /** The same as 32-bit words; others of the machine follow. */
  words: Uint32Array = NO_WORDS;
  #machine: Uint8Array | undefined;
  readonly #see = (v: Vcpu) => void regsBytes(v, this.memory.regs);
  #looked = false;
  #images: readonly Image[] | undefined;

  /** The vCPU goes on: what was seen of it counts no more. */
  forget(): void {
    this.#looked = false;
    this.#images = undefined;
  }

  /**
   * Looks at the vCPU, unless it was since {@linkcode StateParts.forget}.
   *
   * @param v The vCPU; looking moves queued events on, as the ioctls do.
   * @param paths Paths that looking may follow, if any.
   * @param regs Whether what userspace sees is asked for.
   */
  look(v: Vcpu, paths: Paths | undefined, regs = true): void {
    if (this.#looked) return;
    this.#looked = true;
    if (regs) {
      if (paths === undefined) regsBytes(v, this.memory.regs);
      else paths.run(v, this.#see, this.memory.regs);
    } else {
      look(v);
      looked(v);
    }
    innerBytes(v, 0, this.memory.inner);
    if (this.#machine === v.bytes) return;
    this.#machine = v.bytes;
    this.bytes = v.bytes.subarray(0, VMCB12_AT);
    this.words = v.words;
  }

  /**
   * The parts as images.
   *
   * @param v The vCPU.
   * @param vmcb12 Guest physical address of vmcb12.
   * @returns An image a part, in the order of {@linkcode AREAS}; the same until
   * {@linkcode StateParts.forget}.
   */
  of(v: Vcpu, vmcb12: number): readonly Image[] {
    this.look(v, undefined);
    return this.#images ??= AREAS.map((area) => {
      if (area.name === "L1") return { bytes: this.memory.regs.bytes };
      if (area.name === "nested") return { bytes: this.memory.inner.bytes };
      return areaImage(area, v, vmcb12);
    });
  }
}
