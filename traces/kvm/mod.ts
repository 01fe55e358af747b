/**
 * Recording from this machine's own KVM.
 *
 * @module
 */
export { KvmError, type KvmErrorCode } from "./error.ts";
export { type KvmFindings, type KvmOptions, KvmRecorder, recordKvm } from "./recorder.ts";
export { type KvmHost } from "./host.ts";
