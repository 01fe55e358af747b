/**
 * Images of what a run brings forth inside the kernel, in memory that the next run
 * uses again.
 *
 * @module
 */
import { Buffer } from "node:buffer";
import type { Image } from "../event.ts";
import type { Policy } from "../policy.ts";
import { ImageBuffer } from "../svm/image_buffer.ts";
import { INNER_SIZE } from "../svm/inner_layout.ts";
import { VMCB01_AT, VMCB02_AT } from "../svm/machine.ts";
import { VMCB_LAYOUT, VMCB_SIZE } from "../svm/vmcb_fields.ts";
import type { ShownImage, Vcpu } from "../kvm/vcpu.ts";
import type { Produced } from "./outcomes.ts";
import { hostVmcbMask, INNER_VIEWER, innerImage, vmcb02Used } from "./views.ts";

/** Bytes of a VMCB up to the end of its last field: the others of vmcb01 and vmcb02 are always zero. */
const USED = Math.max(...VMCB_LAYOUT.fields.map(({ offset, size }) => offset + size));

/** A VMCB that was another than before is taken to be another so many times more. */
const UNLIKE = 15;

/** A VMCB as it was when something was brought forth, in memory that is used again. */
export class ProducedVmcb implements Image {
  readonly bytes: Uint8Array = new Uint8Array(VMCB_SIZE);
  readonly known: Uint8Array;
  /** Up to the end of its last field. */
  readonly #used = this.bytes.subarray(0, USED);
  // No properties of its own: who compares images sees their content alone.
  #recorded: Image | undefined;
  #revision: number | undefined;
  /** How often it need not be asked whether it is the same as before. */
  #unlike = 0;

  /**
   * Memory for one.
   *
   * @param known What of it can be compared.
   */
  constructor(known: Uint8Array) {
    this.known = known;
  }

  /** Becomes a copy of the first bytes of a VMCB. */
  take(from: Uint8Array): void {
    if (this.#unlike > 0) this.#unlike--;
    else if (Buffer.compare(from, this.#used) === 0) return;
    else this.#unlike = UNLIKE;
    this.#used.set(from);
    this.#recorded = undefined;
  }

  /**
   * Whether it is plainly what was recorded. Where neither is another since that was asked last, the
   * answer is known.
   *
   * @param recorded The image that was recorded.
   */
  equals(recorded: Image): boolean {
    const { revision } = recorded;
    if (recorded === this.#recorded && revision === this.#revision) return true;
    if (Buffer.compare(recorded.bytes, this.bytes) !== 0) return false;
    this.#recorded = revision === undefined ? undefined : recorded;
    this.#revision = revision;
    return true;
  }
}

/** A state inside the kernel, in memory that is used again. */
class ProducedState {
  readonly kind = "inner";
  at = "";
  inner: Image;
  vmcb01: Image;
  vmcb02: Image | undefined;
  readonly #buffer = new ImageBuffer(INNER_SIZE);
  readonly #vmcb01: ProducedVmcb;
  readonly #vmcb02: ProducedVmcb;
  readonly #policy: Policy;

  constructor(policy: Policy, npt: boolean) {
    const known = hostVmcbMask(npt);
    this.#policy = policy;
    this.inner = innerImage(policy, this.#buffer);
    this.vmcb01 = this.#vmcb01 = new ProducedVmcb(known);
    this.#vmcb02 = new ProducedVmcb(known);
  }

  /** Whether it has room for what a vCPU under a policy shows. */
  fits(policy: Policy, npt: boolean): boolean {
    return policy === this.#policy && this.#vmcb01.known === hostVmcbMask(npt);
  }

  take(at: string, ret: number, v: Vcpu, shown: ShownImage | undefined, vmcbs: VmcbViews): void {
    this.at = at;
    if (shown === undefined) INNER_VIEWER.fill(v, ret, this.#buffer);
    else shown.fill(this.#buffer);
    this.#vmcb01.take(vmcbs.vmcb01);
    this.vmcb02 = undefined;
    if (!vmcb02Used(v)) return;
    this.#vmcb02.take(vmcbs.vmcb02);
    this.vmcb02 = this.#vmcb02;
  }
}

/** The VMCBs of a vCPU, up to the end of their last field. */
class VmcbViews {
  readonly of: Uint8Array;
  readonly vmcb01: Uint8Array;
  readonly vmcb02: Uint8Array;

  constructor(bytes: Uint8Array) {
    this.of = bytes;
    this.vmcb01 = bytes.subarray(VMCB01_AT, VMCB01_AT + USED);
    this.vmcb02 = bytes.subarray(VMCB02_AT, VMCB02_AT + USED);
  }
}

/** Memory of images, of which the run under way uses the first few. */
export class ProducedImages {
  readonly #states: ProducedState[] = [];
  #used = 0;
  #views = new VmcbViews(new Uint8Array(0));

  /** The run is over: nobody needs its images any more. */
  reset(): void {
    this.#used = 0;
  }

  /**
   * The state inside the kernel as one of its functions returns.
   *
   * @param at The function.
   * @param ret What it returns.
   * @param v The vCPU.
   * @param shown What it shows, if that is known.
   * @returns The outcome; valid until {@linkcode ProducedImages.reset}.
   */
  inner(at: string, ret: number, v: Vcpu, shown?: ShownImage): Produced {
    const { policy, caps: { npt } } = v;
    let state = this.#states[this.#used];
    if (state === undefined || !state.fits(policy, npt)) {
      state = this.#states[this.#used] = new ProducedState(policy, npt);
    }
    this.#used++;
    if (this.#views.of !== v.bytes) this.#views = new VmcbViews(v.bytes);
    state.take(at, ret, v, shown, this.#views);
    return state;
  }
}
