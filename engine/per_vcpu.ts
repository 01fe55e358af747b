/**
 * What is kept for each vCPU of a trace.
 *
 * @module
 */
import { VmtapeError } from "./error.ts";

/** vCPUs that a trace may have; KVM's own limit (KVM_MAX_VCPUS) is below it. */
export const MOST_VCPUS = 4096;

/**
 * A trace with more vCPUs than any machine has.
 *
 * @example
 * ```ts
 * import { MOST_VCPUS, PerVcpu, TooManyVcpusError } from "@vmtape/vmtape/engine";
 * const counts = new PerVcpu(() => 0);
 * try {
 *   for (let vcpu = 0; vcpu <= MOST_VCPUS; vcpu++) counts.of(vcpu);
 * } catch (error) {
 *   if (!(error instanceof TooManyVcpusError)) throw error;
 * }
 * ```
 */
export class TooManyVcpusError extends VmtapeError {
  /** Name of the class, for those who cannot use instanceof. */
  override readonly name = "TooManyVcpusError";

  /** Says how many there may be. */
  constructor() {
    super(`The trace has more than ${MOST_VCPUS} vCPUs: keep some of it with vmtape filter or cut`);
  }
}

/**
 * A value for each vCPU, made when it is first asked for.
 *
 * @example
 * ```ts
 * import { PerVcpu } from "@vmtape/vmtape/engine";
 * const seen = new PerVcpu<number[]>(() => []);
 * seen.of(1).push(7);
 * if (seen.of(1).length !== 1 || seen.size !== 1) throw new Error();
 * ```
 */
export class PerVcpu<T> extends Map<number, T> {
  readonly #make: (vcpu: number) => T;

  /**
   * Begins without any.
   *
   * @param make Makes the value of a vCPU.
   */
  constructor(make: (vcpu: number) => T) {
    super();
    this.#make = make;
  }

  /**
   * The value of a vCPU.
   *
   * @param vcpu Its number.
   * @returns The value.
   * @throws {TooManyVcpusError} When there are too many.
   */
  of(vcpu: number): T {
    let value = this.get(vcpu);
    if (value === undefined) {
      if (this.size >= MOST_VCPUS) throw new TooManyVcpusError();
      this.set(vcpu, value = this.#make(vcpu));
    }
    return value;
  }
}
