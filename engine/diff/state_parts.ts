/**
 * The parts of a vCPU's state, looked at once however often they are compared.
 *
 * @module
 */
import type { Image } from "../event.ts";
import type { Vcpu } from "../kvm/vcpu.ts";
import { areaImage, AreaMemory, AREAS } from "./areas.ts";

/** Images of all parts of a vCPU's state. */
export class StateParts {
  readonly #memory = new AreaMemory();
  #images: readonly Image[] | undefined;

  /** The vCPU goes on: what was seen of it counts no more. */
  forget(): void {
    this.#images = undefined;
  }

  /**
   * The parts as they are.
   *
   * @param v The vCPU.
   * @param vmcb12 Guest physical address of vmcb12.
   * @returns An image a part, in the order of {@linkcode AREAS}; the same until
   * {@linkcode StateParts.forget}.
   */
  of(v: Vcpu, vmcb12: number): readonly Image[] {
    return this.#images ??= AREAS.map((area) => areaImage(area, v, vmcb12, this.#memory));
  }
}
