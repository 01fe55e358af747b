/**
 * How kernels pack the roles of their MMUs: the model keeps them in one form, and shows them in
 * that of the kernel.
 *
 * @module
 */
import { EXT, ROLE } from "./roles.ts";

/** How a kernel packs roles. */
export interface RolePacking {
  /** The role of a root, 32 bits. */
  root(role: number): number;
  /** The low half of a CPU role. */
  cpu(base: number, ext: number): number;
  /** The high half of a CPU role. */
  ext(base: number, ext: number): number;
}

/** As Linux 6.12 and those before it do, which is the model's own form. */
export const NARROW_ROLES: RolePacking = {
  root: (role) => role,
  cpu: (base) => base,
  ext: (_base, ext) => ext,
};

/** Bits of a role where access has four, one for execution in user mode. */
const WIDE = {
  ACCESS: 15 << 8,
  INVALID: 1 << 12,
  EFER_NX: 1 << 13,
  CR0_WP: 1 << 14,
} as const;

/** Bits that are where they were. */
const SAME = ROLE.LEVEL | ROLE.FOUR_BYTE_GPTE | ROLE.QUADRANT | ROLE.DIRECT |
  ROLE.SMAP_ANDNOT_WP | ROLE.GUEST_MODE | ROLE.PASSTHROUGH | ROLE.SMEP | ROLE.SMM;

/** Bits of the extended half there; HAS_FETCH: error codes tell fetches apart. */
const WIDE_EXT = { LA57: 32, LMA: 64, HAS_FETCH: 128 } as const;

function widen(role: number): number {
  return role & SAME | ((role & ROLE.ACCESS) !== 0 ? WIDE.ACCESS : 0) |
    ((role & ROLE.INVALID) !== 0 ? WIDE.INVALID : 0) |
    ((role & ROLE.EFER_NX) !== 0 ? WIDE.EFER_NX : 0) |
    ((role & ROLE.CR0_WP) !== 0 ? WIDE.CR0_WP : 0);
}

/** As Linux 7.3 does. */
export const WIDE_ROLES: RolePacking = {
  root: widen,
  cpu: widen,
  ext: (base, ext) =>
    ext & (EXT.VALID | EXT.PSE | EXT.PKE | EXT.SMAP) |
    ((ext & EXT.LA57) !== 0 ? WIDE_EXT.LA57 : 0) | ((ext & EXT.LMA) !== 0 ? WIDE_EXT.LMA : 0) |
    ((base & ROLE.EFER_NX) !== 0 || (ext & EXT.SMEP) !== 0 ? WIDE_EXT.HAS_FETCH : 0),
};
