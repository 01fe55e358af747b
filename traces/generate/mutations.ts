/**
 * What a random case may change in the valid base. One row a field or a
 * behaviour; between them they reach every field that a check reads, every
 * class of bits, all ways in, L1's processor and what L2 does.
 *
 * @module
 */
import type { Mutation } from "./mutation.ts";
import { CONTROL_MUTATIONS } from "./mutations_control.ts";
import { ENTRY_MUTATIONS } from "./mutations_entry.ts";
import { L1_MUTATIONS } from "./mutations_l1.ts";
import { L2_MUTATIONS } from "./mutations_l2.ts";
import { PROCESSOR_MUTATIONS } from "./mutations_processor.ts";
import { SAVE_MUTATIONS } from "./mutations_save.ts";

export type { Mutation } from "./mutation.ts";

/** The mutations. A seed's cases depend on their order. */
export const MUTATIONS: readonly Mutation[] = [
  ...CONTROL_MUTATIONS,
  ...SAVE_MUTATIONS,
  ...L1_MUTATIONS,
  ...L2_MUTATIONS,
  ...ENTRY_MUTATIONS,
  ...PROCESSOR_MUTATIONS,
];
