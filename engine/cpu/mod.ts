/**
 * A small, deterministic model of the processor that executes a VMCB.
 *
 * @module
 */
export { type CodeWidth, decode, type DecodeOutcome, Instruction, PREFIX } from "./decode.ts";
export { type Paging, type PagingRegisters, walkMode } from "../paging/paging.ts";
export {
  INSTRUCTION_BUDGET,
  type RunOptions,
  type RunStatus,
  runVmcb,
  unmodelledBytes,
} from "./run.ts";
export { Processor } from "./processor.ts";
export type { Registers } from "./registers.ts";
export type { Translations, TranslationSource } from "../paging/translations.ts";
export type { MsrIntercepted } from "./registers.ts";
export {
  FETCH,
  PF,
  READ,
  type Stage2,
  SUPERVISOR,
  SUPERVISOR_AC,
  USER,
  Walk,
  WALK_FAULT,
  WALK_OK,
  WALK_STAGE2,
  type WalkMode,
  WRITE,
} from "../paging/walk.ts";
export { type KvmWalkMode, walkKvm } from "../paging/walk_kvm.ts";
export { walkProcessor } from "../paging/walk_processor.ts";
