/**
 * Page roles: what a shadow page, or a root, was made for (union
 * kvm_mmu_page_role), packed as KVM packs them.
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
  SMM: 1 << 24,
  /** The model's own: a root without a shadow page, which no later CR3 load can reuse. */
  SPECIAL: 1 << 23,
} as const;
