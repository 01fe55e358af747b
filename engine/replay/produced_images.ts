/**
 * Images of what a run brings forth inside the kernel, in memory that the next run
 * uses again.
 *
 * @module
 */
import { INNER_SIZE } from "../svm/inner_layout.ts";
import { VMCB01_AT, VMCB02_AT } from "../svm/machine.ts";
import { VMCB_LAYOUT, VMCB_SIZE } from "../svm/vmcb_fields.ts";
import type { Vcpu } from "../kvm/vcpu.ts";
import type { Produced } from "./outcomes.ts";
import { hostVmcbMask, ImageBuffer, innerView, vmcb02Used } from "./views.ts";

/** Bytes of a VMCB up to the end of its last field: the others of vmcb01 and vmcb02 are always zero. */
const USED = Math.max(...VMCB_LAYOUT.fields.map(({ offset, size }) => offset + size));

/** Memory of images, of which the run under way uses the first few. */
export class ProducedImages {
  readonly #vmcbs: Uint8Array[] = [];
  readonly #inners: ImageBuffer[] = [];
  #usedVmcbs = 0;
  #usedInners = 0;

  /** The run is over: nobody needs its images any more. */
  reset(): void {
    this.#usedVmcbs = 0;
    this.#usedInners = 0;
  }

  /**
   * The state inside the kernel as one of its functions returns.
   *
   * @param at The function.
   * @param ret What it returns.
   * @param v The vCPU.
   * @returns The outcome; its images are valid until {@linkcode ProducedImages.reset}.
   */
  inner(at: string, ret: number, v: Vcpu): Produced {
    const known = hostVmcbMask(v.caps.npt);
    const buffer = this.#inners[this.#usedInners++] ??= new ImageBuffer(INNER_SIZE);
    return {
      kind: "inner",
      at,
      inner: innerView(v, ret, buffer),
      vmcb01: { bytes: this.#vmcb(v, VMCB01_AT), known },
      vmcb02: vmcb02Used(v) ? { bytes: this.#vmcb(v, VMCB02_AT), known } : undefined,
    };
  }

  #vmcb(v: Vcpu, at: number): Uint8Array {
    const bytes = this.#vmcbs[this.#usedVmcbs++] ??= new Uint8Array(VMCB_SIZE);
    bytes.set(v.bytes.subarray(at, at + USED));
    return bytes;
  }
}
