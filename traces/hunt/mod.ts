/**
 * Hunting for what a kernel does and nobody has explained.
 *
 * @module
 */
export { type Ask, HuntError } from "./asking.ts";
export type { Reached } from "./coverage.ts";
export { Blame } from "./blame.ts";
export { type Deviation, Foreseer, type Foresight, type Unit } from "./foresight.ts";
export {
  BATCH,
  type Funnel,
  Hunt,
  type HuntFinding,
  type HuntOptions,
  type HuntState,
} from "./hunt.ts";
export type { ModelGap } from "./judging.ts";
export { KNOWN, type Known, type KnownKind } from "./known.ts";
export { Pieces } from "./pieces.ts";
export { reduceFindings, type ReduceOptions } from "./reduce.ts";
export { unitsOf } from "./units.ts";
