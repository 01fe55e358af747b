/**
 * The engine: the SVM model, policies, replay and diff. It touches no file and
 * no console.
 *
 * @module
 */
export * from "./layout.ts";
export * from "./error.ts";
export * from "./event.ts";
export * from "./closest.ts";
export * from "./hex.ts";
export * from "./svm/bits.ts";
export * from "./svm/control_bits.ts";
export * from "./svm/intercepts.ts";
export * from "./svm/exit_codes.ts";
export * from "./svm/exit_info.ts";
export * from "./svm/vmcb_fields.ts";
export * from "./svm/injectable.ts";
export * from "./svm/memory.ts";
export * from "./svm/vcpu_fields.ts";
export * from "./svm/regs_layout.ts";
export * from "./svm/inner_layout.ts";
export * from "./svm/cpuid.ts";
export type { AccessRecorder } from "./svm/access.ts";
export * from "./svm/machine.ts";
export type { Getter, Place, Source, ViewField, Whereabouts } from "./svm/view_source.ts";
export * from "./cpu/mod.ts";
export * from "./image/fields.ts";
export * from "./image/format.ts";
export * from "./image/slots.ts";
export * from "./image/dump.ts";
export * from "./image/diff.ts";
export {
  END,
  FAIL,
  kernelPolicy,
  list,
  OK,
  onProcessor,
  type Outcome,
  type Policy,
  runList,
  type Step,
  type StepEntry,
  type Way,
  WAYS,
  withChecks,
} from "./policy.ts";
export * from "./checks/sets.ts";
export { CHECKS_APM } from "./checks/apm.ts";
export { CHECKS_6_12 } from "./checks/linux_6_12.ts";
export {
  type BitRule,
  CpuRules,
  cr4Reserved,
  eferReserved,
  featuresOf,
  RULES_6_1,
  RULES_6_12,
  RULES_7_3,
} from "./checks/cpu_rules.ts";
export { checkPolicy, PolicyError } from "./policy_check.ts";
export { type CheckVerdict, checkVerdict } from "./checks/check_verdict.ts";
export { type Evidence, type SetOutcome, type SetVerdict, setVerdict } from "./checks/verdict.ts";
export { type KvmRunResult, LOOSE_FIELDS, type LooseState } from "./kvm/loose_state.ts";
export {
  type Entered,
  type Looker,
  type Noted,
  type Observer,
  type Repeated,
  type ShownImage,
  Tool,
  Vcpu,
  type Viewer,
} from "./kvm/vcpu.ts";
export { type PathCounts, Paths, type PathsOptions, RunPaths } from "./paths/paths.ts";
export { CheckpointError } from "./replay/checkpoint.ts";
export type { PartialResult, SetCount } from "./replay/partial.ts";
export { checksAtRsm } from "./replay/printed.ts";
export { type LoggedRun, type Shown, showsTransitions } from "./replay/logged_runs.ts";
export { Driver } from "./replay/drive.ts";
export { ReplayError } from "./replay/replay_error.ts";
export { capabilitiesOf } from "./replay/session_machine.ts";
export { memoryDigest, RunningDigest, stateDigest } from "./svm/digest.ts";
export { policyOfSession, type SessionPolicy } from "./policies/session.ts";
export { recordedPolicy, type ReplayContext } from "./replay/context.ts";
export type { Added, Mark } from "./replay/totals.ts";
export type { CrcShift } from "./svm/crc.ts";
export type { NestedState, RestoreErrnos, SavedEvents, SavedVcpu } from "./kvm/migrate.ts";
export type { Sregs, Sregs2 } from "./kvm/ioctls.ts";
export * from "./replay/replayer.ts";
export { ImageBuffer, innerBytes, regsBytes } from "./replay/views.ts";
export * from "./replay/identify.ts";
export * from "./kernels/mod.ts";
export { type Fix, FIXES, type FixId, withFixes } from "./kernels/linux_6_12.ts";
export type { FlagBits, KernelTraits } from "./kernels/traits.ts";
export type { GuestTraits } from "./kernels/guest_traits.ts";
export { MMU_6_12, MMU_7_3, type MmuTraits } from "./kernels/mmu_traits.ts";
export type { RolePacking } from "./paging/role_packing.ts";
export {
  type CacheGap,
  type CachePlan,
  cachePlan,
  type CacheRange,
  type Kernel,
  type Ways,
} from "./kernels/kernel.ts";
export * from "./processors/mod.ts";
export * from "./processors/session.ts";
export * from "./diff/mod.ts";
export * from "./memo/mod.ts";
export * from "./session.ts";
export * from "./why/mod.ts";
export * from "./recordings/mod.ts";
export * from "./event_line.ts";
export * from "./exit_stats.ts";
export * from "./per_vcpu.ts";
export * from "./query/mod.ts";
export * from "./latency.ts";
export * from "./step_costs.ts";
export * from "./policies/mod.ts";
export * as steps from "./steps/mod.ts";
export * as stretches from "./kernels/stretches.ts";
