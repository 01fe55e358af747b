/**
 * What goes wrong with /dev/kvm.
 *
 * @module
 */
import { VmtapeError } from "../../engine/error.ts";
/** Why a recording from KVM cannot be made. */
export type KvmErrorCode =
  /** Not Linux on x86-64. */
  | "platform"
  /** Deno may not load the C library. */
  | "ffi"
  /** There is no /dev/kvm. */
  | "no-kvm"
  /** The user may not open it. */
  | "permission"
  /** It is something else, or speaks another version of the API. */
  | "not-kvm"
  /** The processor is not AMD's, or has no SVM. */
  | "processor"
  /** kvm_amd is loaded without nested virtualization. */
  | "nested"
  /** The kernel lacks a capability that is needed. */
  | "capability"
  /** A call failed that should not. */
  | "call";

/**
 * KVM cannot be recorded from: what is wrong, and what to do.
 *
 * @example
 * ```ts
 * import { KvmError } from "@vmtape/vmtape/traces";
 * const error = new KvmError("no-kvm", "There is no /dev/kvm; run: modprobe kvm_amd");
 * if (error.code !== "no-kvm" || error.errno !== undefined) throw new Error();
 * ```
 */
export class KvmError extends VmtapeError {
  /** `KvmError`. */
  override readonly name = "KvmError";
  /** Kind of obstacle. */
  readonly code: KvmErrorCode;
  /** Exit status for a command line: the same as for a file that cannot be opened. */
  readonly exitStatus = 2;
  /** errno of the call that failed, where one did. */
  readonly errno: number | undefined;

  /**
   * Says what is wrong.
   *
   * @param code Kind of obstacle.
   * @param message What is wrong and what to do.
   * @param errno errno of the call that failed.
   */
  constructor(code: KvmErrorCode, message: string, errno?: number) {
    super(message);
    this.code = code;
    this.errno = errno;
  }
}

/** errno values that calls here can fail with, by number (Linux, x86-64). */
const NAMES: Readonly<Record<number, string>> = {
  1: "EPERM",
  2: "ENOENT",
  4: "EINTR",
  6: "ENXIO",
  7: "E2BIG",
  9: "EBADF",
  11: "EAGAIN",
  12: "ENOMEM",
  13: "EACCES",
  14: "EFAULT",
  16: "EBUSY",
  17: "EEXIST",
  19: "ENODEV",
  22: "EINVAL",
  24: "EMFILE",
  25: "ENOTTY",
};

/** A number of errno, with its name where it is known. */
export function errnoText(errno: number): string {
  const name = NAMES[errno];
  return name === undefined ? `errno ${errno}` : `${name} (errno ${errno})`;
}
