/**
 * Where kernels part in what a guest sees of its processor: MSRs and CPUID.
 *
 * @module
 */

/** What a kernel shows a guest. */
export interface GuestTraits {
  /** Bits of HWCR that a guest may set, beside those whose setting is ignored. */
  readonly hwcrBits: bigint;
  /** Writing 0 to HWCR leaves it as it is. */
  readonly hwcrKeptByZero: boolean;
  /** A guest may only write to DE_CFG what the processor has; else also less. */
  readonly deCfgFixed: boolean;
  /** Performance counters that RDPMC reads, all of them 0, where the host has none for a guest. */
  readonly counters: number;
  /** Accesses to the GHCB's MSR are never intercepted, whatever the guest is. */
  readonly passesGhcb: boolean;
  /** Bits of CPUID that it offers on the lab's machine and Linux 6.12 does not, by leaf and register. */
  readonly offered: Readonly<Record<string, number>>;
  /** Bits that it does not offer there and Linux 6.12 does. */
  readonly notOffered: Readonly<Record<string, number>>;
  /** Leaves that it does not show there, and Linux 6.12 does. */
  readonly hiddenLeaves: readonly string[];
}

/** Linux 6.12. */
export const GUEST_6_12: GuestTraits = {
  hwcrBits: 1n << 18n | 1n << 24n,
  hwcrKeptByZero: false,
  deCfgFixed: false,
  counters: 0,
  passesGhcb: true,
  offered: {},
  notOffered: {},
  hiddenLeaves: [],
};

/** Linux 6.1: of HWCR only McStatusWrEn. */
export const GUEST_6_1: GuestTraits = {
  ...GUEST_6_12,
  hwcrBits: 1n << 18n,
  hwcrKeptByZero: true,
  deCfgFixed: true,
  counters: 4,
  notOffered: { "80000008 eax": 0xff0000, "8000000a edx": 1 << 6 },
  hiddenLeaves: ["80000005"],
};

/** Linux 7.3: the GHCB's MSR only for guests that have one; the hypervisor bit and the TSC deadline timer. */
export const GUEST_7_3: GuestTraits = {
  ...GUEST_6_12,
  passesGhcb: false,
  offered: { "1 ecx": 1 << 31 | 1 << 24 },
};
