/**
 * Where kernels part in their MMU.
 *
 * @module
 */
import { NARROW_ROLES, type RolePacking, WIDE_ROLES } from "../paging/role_packing.ts";

/** What a kernel's MMU is like. */
export interface MmuTraits {
  /** How it packs roles. */
  readonly roles: RolePacking;
  /**
   * One walker of guest tables (gva_walk), set up for whoever runs, and one of L1's nested page
   * table (ngpa_walk); else root_mmu, guest_mmu and nested_mmu have a CPU role each.
   */
  readonly oneWalker: boolean;
  /** Roles hold CR4.SMEP as it is; else whether it matters for want of CR0.WP. */
  readonly smepInRole: boolean;
  /** L1's nested page table is walked as if CR0.WP were set, and CR4.SMEP and CR4.SMAP were not. */
  readonly nestedTableOwnMode: boolean;
}

/** Linux 6.12 and those before it. */
export const MMU_6_12: MmuTraits = {
  roles: NARROW_ROLES,
  oneWalker: false,
  smepInRole: false,
  nestedTableOwnMode: false,
};

/** Linux 7.3. */
export const MMU_7_3: MmuTraits = {
  roles: WIDE_ROLES,
  oneWalker: true,
  smepInRole: true,
  nestedTableOwnMode: true,
};
