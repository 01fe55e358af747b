/**
 * The state of a replay between two runs as bytes, so that a replay can begin
 * in the middle of a trace.
 *
 * Layout, little-endian: `u32` version, `u32` length of a JSON text, the text,
 * the machine's bytes, the pages that the text names.
 *
 * @module
 */
import { VmtapeError } from "../error.ts";
import { bytesOfHex, hexOf } from "../hex.ts";
import { cpuidOfMeta } from "../svm/cpuid.ts";
import { crc32 } from "node:zlib";
import type { Capabilities } from "../svm/machine.ts";
import { PAGE_SIZE } from "../svm/memory.ts";
import { Vcpu } from "../kvm/vcpu.ts";
import type { Policy } from "../policy.ts";

/** Version of the layout; a state of another one is not loaded. */
const VERSION = 4;
const HEAD = 8;

/**
 * A state that cannot be loaded: damaged, or of another version of the model.
 *
 * @example
 * ```ts
 * import { CheckpointError, Replayer, UPSTREAM } from "@vmtape/vmtape/engine";
 * let caught: unknown;
 * try {
 *   new Replayer(UPSTREAM).resume(new Uint8Array(3));
 * } catch (error) {
 *   caught = error;
 * }
 * if (!(caught instanceof CheckpointError)) throw new Error();
 * ```
 */
export class CheckpointError extends VmtapeError {
  /** Name of the class, for those who cannot use instanceof. */
  override readonly name = "CheckpointError";
}

/** What of a replay is not in the vCPU: any JSON value. */
export type SavedContext = Readonly<Record<string, unknown>>;

/** Everything of a vCPU that is neither its bytes nor guest memory, nor stays empty between runs. */
interface Scalars {
  readonly caps: Omit<Capabilities, "cpuid" | "hostCpuid"> & {
    readonly cpuid?: unknown;
    readonly hostCpuid?: unknown;
  };
  readonly resident: number;
  readonly pages: readonly number[];
  readonly machine: number;
  readonly pendingIo: string;
  readonly vmcb12: number;
  readonly failedRet: number;
  readonly fromVmrun: boolean;
  readonly skipFailed: boolean;
  readonly pendingDevice: string | undefined;
  readonly pendingRegisters: string;
  readonly faultGpa: number;
  readonly restoreFlags: number;
  readonly result: { rc: number; errno: number; exit: number; port: number };
}

/**
 * Encodes a vCPU with its guest memory, and what else a replay keeps.
 *
 * @param v The vCPU, between two runs.
 * @param progress What else there is to keep.
 * @returns The bytes.
 */
export function saveState(v: Vcpu, progress: SavedContext): Uint8Array {
  const pages = [...v.memory.pages()];
  const scalars: Scalars = {
    caps: { ...v.caps, cpuid: v.caps.cpuid?.toMeta(), hostCpuid: v.caps.hostCpuid?.toMeta() },
    resident: v.memory.resident,
    pages,
    machine: v.bytes.length,
    pendingIo: String(v.pendingIo),
    vmcb12: v.vmcb12,
    failedRet: v.failedRet,
    fromVmrun: v.fromVmrun,
    skipFailed: v.skipFailed,
    pendingDevice: v.pendingDevice && hexOf(v.pendingDevice),
    pendingRegisters: hexOf(v.pendingRegisters),
    faultGpa: v.faultGpa,
    restoreFlags: v.restoreFlags,
    result: v.result,
  };
  const text = new TextEncoder().encode(JSON.stringify({ scalars, progress }));
  const machineAt = HEAD + text.length, pagesAt = machineAt + v.bytes.length;
  const bytes = new Uint8Array(pagesAt + pages.length * PAGE_SIZE);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, VERSION, true);
  view.setUint32(4, text.length, true);
  bytes.set(text, HEAD);
  bytes.set(v.bytes, machineAt);
  pages.forEach((page, i) => bytes.set(v.memory.page(page * PAGE_SIZE), pagesAt + i * PAGE_SIZE));
  return bytes;
}

/** A state's parts. */
interface Parsed {
  readonly scalars: Scalars;
  readonly progress: SavedContext;
  /** Where the machine's bytes begin, and the pages. */
  readonly machineAt: number;
  readonly pagesAt: number;
}

function parse(bytes: Uint8Array): Parsed {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (bytes.length < HEAD) throw new CheckpointError("A checkpoint is cut off");
  const version = view.getUint32(0, true);
  if (version !== VERSION) {
    throw new CheckpointError(
      `A checkpoint has version ${version}, not ${VERSION}; replay from the start instead`,
    );
  }
  const machineAt = HEAD + view.getUint32(4, true);
  let kept: { scalars: Scalars; progress: SavedContext };
  try {
    kept = JSON.parse(new TextDecoder().decode(bytes.subarray(HEAD, machineAt)));
    if (!Array.isArray(kept.scalars.pages)) throw new TypeError();
  } catch {
    throw new CheckpointError("A checkpoint is damaged");
  }
  const pagesAt = machineAt + kept.scalars.machine;
  if (bytes.length !== pagesAt + kept.scalars.pages.length * PAGE_SIZE) {
    throw new CheckpointError("A checkpoint has not the length it tells");
  }
  return { ...kept, machineAt, pagesAt };
}

/**
 * What of a replay is not in the vCPU, of a state that {@linkcode saveState} encoded.
 *
 * @param bytes The bytes.
 * @returns What was kept.
 * @throws {CheckpointError} When they are damaged, or of another version.
 */
export function progressOf(bytes: Uint8Array): SavedContext {
  return parse(bytes).progress;
}

/**
 * Decodes what {@linkcode saveState} encoded.
 *
 * @param bytes The bytes.
 * @param policy The policy of the vCPU.
 * @returns The vCPU, and what else was kept.
 * @throws {CheckpointError} When they are damaged, or of another version.
 */
export function loadState(
  bytes: Uint8Array,
  policy: Policy,
): { readonly vcpu: Vcpu; readonly progress: SavedContext } {
  const { scalars, progress, machineAt, pagesAt } = parse(bytes);
  const { cpuid: own, hostCpuid: offered, ...rest } = scalars.caps;
  const cpuid = cpuidOfMeta(own), hostCpuid = cpuidOfMeta(offered);
  const caps = {
    ...rest,
    ...(cpuid === undefined ? {} : { cpuid }),
    ...(hostCpuid === undefined ? {} : { hostCpuid }),
  };
  const v = new Vcpu(caps, policy);
  if (v.bytes.length !== scalars.machine) {
    throw new CheckpointError(
      "A checkpoint is of a model with other state; replay from the start instead",
    );
  }
  v.bytes.set(bytes.subarray(machineAt, pagesAt));
  scalars.pages.forEach((page, i) => {
    const at = pagesAt + i * PAGE_SIZE;
    v.memory.writable(page * PAGE_SIZE).set(bytes.subarray(at, at + PAGE_SIZE));
  });
  v.memory.resident = scalars.resident;
  const { pendingDevice: code } = scalars;
  v.adopt({
    ...scalars,
    pendingIo: BigInt(scalars.pendingIo),
    pendingDevice: code === undefined ? undefined : bytesOfHex(code),
    pendingRegisters: bytesOfHex(scalars.pendingRegisters),
    unmodelled: "",
    smram: undefined,
  });
  return { vcpu: v, progress };
}

/**
 * Digest of a saved state, to know a damaged one.
 *
 * @param bytes The state.
 * @returns 4 bytes.
 */
export function checkpointDigest(bytes: Uint8Array): Uint8Array {
  const digest = new Uint8Array(4);
  new DataView(digest.buffer).setUint32(0, crc32(bytes), true);
  return digest;
}
