/**
 * What of a vCPU is neither in its bytes nor in guest memory: copied, compared and changed by the
 * names of its fields.
 *
 * @module
 */

/** What KVM_RUN leaves for userspace. */
export interface KvmRunResult {
  /** 0, or -1 with `errno`. */
  rc: number;
  /** errno of KVM_RUN. */
  errno: number;
  /** KVM_EXIT_* reason. */
  exit: number;
  /** Port of a KVM_EXIT_IO. */
  port: number;
}

/** What of a vCPU is neither in its bytes nor in guest memory. A vCPU is one itself. */
export interface LooseState {
  /** The last KVM_RUN's result. */
  readonly result: KvmRunResult;
  /** An I/O instruction waits for userspace to have done its part: which (`waitingIo`), or -1. */
  readonly pendingIo: bigint;
  /** Address of the vmcb12 that the transition under way is about. */
  readonly vmcb12: number;
  /** What the function returned whose step failed last. */
  readonly failedRet: number;
  /** Whether the transition under way is a VMRUN, rather than RSM or a restore. */
  readonly fromVmrun: boolean;
  /** Whether the VMRUN under way could not be skipped, so that KVM_RUN ends after it. */
  readonly skipFailed: boolean;
  /** Code of an instruction that waits for the value of a device, if one does. */
  readonly pendingDevice: Uint8Array | undefined;
  /**
   * What it goes on with: general registers and RIP as they were then, as in the vCPU area (136
   * bytes), the active VMCB (4,096) and the address of the fault, a big-endian double, -1 for none.
   */
  readonly pendingRegisters: Uint8Array;
  /** Physical address of the #NPF under repair, which KVM's emulator need not look up again; or -1. */
  readonly faultGpa: number;
  /** What the model met and does not model, which ended the run; empty while all is well. */
  readonly unmodelled: string;
  /** KVM_STATE_NESTED_* flags of the state being restored. */
  readonly restoreFlags: number;
  /** State save area that RSM reads, while it does. */
  readonly smram: Uint8Array | undefined;
}

/**
 * Names of the fields of a vCPU that are neither in its bytes nor in guest memory, and copied as
 * they are.
 *
 * @example
 * ```ts
 * import { LOOSE_FIELDS, UPSTREAM, Vcpu } from "@vmtape/vmtape/engine";
 * const caps = { physicalBits: 40, npt: true, memory: 1 << 24 };
 * const a = new Vcpu(caps, UPSTREAM), b = new Vcpu(caps, UPSTREAM);
 * a.failedRet = -22;
 * b.adopt(a.loose());
 * if (LOOSE_FIELDS.some((name) => a[name] !== b[name])) throw new Error();
 * ```
 */
export const LOOSE_FIELDS = [
  "pendingIo",
  "vmcb12",
  "failedRet",
  "fromVmrun",
  "skipFailed",
  "pendingDevice",
  "faultGpa",
  "unmodelled",
  "restoreFlags",
  "smram",
] as const satisfies readonly (keyof LooseState)[];

type Never<T extends never> = T;

/** What may be written of something that is otherwise read only. */
export type Writable<T> = { -readonly [K in keyof T]: T[K] };

/**
 * Copies what of a vCPU is neither in its bytes nor in guest memory.
 *
 * @param to Where to. Pages that it refers to are shared, and nobody writes them.
 * @param from Where from.
 */
export function copyLoose(to: Writable<LooseState>, from: LooseState): void {
  copyShort(to, from);
  to.pendingRegisters.set(from.pendingRegisters);
}

/** What of a vCPU is neither in its bytes nor in guest memory, but for what an instruction waits with. */
export type ShortState = Omit<LooseState, "pendingRegisters">;

/** Copies that; see {@linkcode copyLoose}. Each field by its own name costs a fifth of a loop over the names. */
export function copyShort(to: Writable<ShortState>, from: ShortState): void {
  const { rc, errno, exit, port } = from.result;
  const { result } = to;
  result.rc = rc;
  result.errno = errno;
  result.exit = exit;
  result.port = port;
  to.pendingIo = from.pendingIo;
  to.vmcb12 = from.vmcb12;
  to.failedRet = from.failedRet;
  to.fromVmrun = from.fromVmrun;
  to.skipFailed = from.skipFailed;
  to.pendingDevice = from.pendingDevice;
  to.faultGpa = from.faultGpa;
  to.unmodelled = from.unmodelled;
  to.restoreFlags = from.restoreFlags;
  to.smram = from.smram;
}

/** Whether two are the same. */
export function sameShort(a: ShortState, b: ShortState): boolean {
  const r = a.result, s = b.result;
  if (r.rc !== s.rc || r.errno !== s.errno || r.exit !== s.exit || r.port !== s.port) return false;
  return a.pendingIo === b.pendingIo &&
    a.vmcb12 === b.vmcb12 &&
    a.failedRet === b.failedRet &&
    a.fromVmrun === b.fromVmrun &&
    a.skipFailed === b.skipFailed &&
    a.pendingDevice === b.pendingDevice &&
    a.faultGpa === b.faultGpa &&
    a.unmodelled === b.unmodelled &&
    a.restoreFlags === b.restoreFlags &&
    a.smram === b.smram;
}

/** Fields that are not copied and compared there: one more, and this does not compile. */
export type Unnamed = Never<
  Exclude<
    typeof LOOSE_FIELDS[number],
    | "pendingIo"
    | "vmcb12"
    | "failedRet"
    | "fromVmrun"
    | "skipFailed"
    | "pendingDevice"
    | "faultGpa"
    | "unmodelled"
    | "restoreFlags"
    | "smram"
  >
>;

/** A copy of it. */
export function shortState(from: ShortState): Writable<ShortState> {
  const copy = { ...NOTHING, result: { ...NOTHING.result } };
  copyShort(copy, from);
  return copy;
}

/** A state to be copied into: all of it as in a new vCPU. */
export function looseState(): Writable<LooseState> {
  return {
    ...NOTHING,
    result: { ...NOTHING.result },
    pendingRegisters: new Uint8Array(PENDING),
  };
}

/** Bytes that an instruction goes on with which waits for a device. */
export const PENDING = 136 + 4096 + 8;

/** What a new vCPU has of it. */
export const NOTHING: LooseState = {
  result: { rc: 0, errno: 0, exit: 0, port: 0 },
  pendingIo: -1n,
  vmcb12: 0,
  failedRet: 0,
  fromVmrun: false,
  skipFailed: false,
  pendingDevice: undefined,
  pendingRegisters: new Uint8Array(PENDING),
  faultGpa: -1,
  unmodelled: "",
  restoreFlags: 0,
  smram: undefined,
};
