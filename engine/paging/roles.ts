/**
 * Page roles: what a shadow page, or a root, was made for (union
 * kvm_mmu_page_role), packed as Linux 6.12 packs them.
 *
 * @module
 */

/** Bits of a page role. Bits 0 to 3 are the level. */
export const ROLE = {
  LEVEL: 15,
  FOUR_BYTE_GPTE: 1 << 4,
  QUADRANT: 3 << 5,
  DIRECT: 1 << 7,
  ACCESS: 7 << 8,
  INVALID: 1 << 11,
  EFER_NX: 1 << 12,
  CR0_WP: 1 << 13,
  SMEP_ANDNOT_WP: 1 << 14,
  SMAP_ANDNOT_WP: 1 << 15,
  GUEST_MODE: 1 << 17,
  PASSTHROUGH: 1 << 18,
  /** CR4.SMEP itself, of kernels whose roles hold it instead of SMEP_ANDNOT_WP. */
  SMEP: 1 << 20,
  SMM: 1 << 24,
  /** The model's own: a root without a shadow page, which no later CR3 load can reuse. */
  SPECIAL: 1 << 23,
} as const;

/** Bits of the extended half of a CPU role (union kvm_mmu_extended_role). */
export const EXT = {
  VALID: 1,
  PSE: 4,
  PKE: 8,
  SMAP: 16,
  SMEP: 32,
  LA57: 64,
  LMA: 128,
} as const;
