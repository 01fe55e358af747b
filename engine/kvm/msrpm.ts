/**
 * The MSR permission map that L2 runs with: the host's, merged with L1's.
 *
 * @module
 */
import { C, V, VMCB12_AT } from "../svm/machine.ts";
import { HOST, HOST_HIGH } from "./constants.ts";
import type { Vcpu } from "./vcpu.ts";

/**
 * 32-bit words of the map that hold MSRs KVM may let through, in the order in
 * which it merges them; L1's say in all other words is moot, since L0 always
 * intercepts what they cover.
 */
const WORDS = [0x208, 0x17, 0x210, 0x4, 0x10, 0x1d, 0xda, 0x27, 0x413] as const;

/** MSRs that the host lets through: SYSENTER, SYSCALL, and the bases of FS and GS. */
const PASSED_THROUGH = [
  0x174,
  0x175,
  0x176,
  0xc0000081,
  0xc0000082,
  0xc0000083,
  0xc0000084,
  0xc0000100,
  0xc0000101,
  0xc0000102,
];
const GHCB = 0xc0010130;

/** The same words as the host starts with: 0 bits let an access through. */
const WITH_GHCB = hostWords([...PASSED_THROUGH, GHCB]), WITHOUT_GHCB = hostWords(PASSED_THROUGH);

function hostWords(passed: readonly number[]): readonly number[] {
  return WORDS.map((word) => {
    let bits = 0xffffffff;
    for (const msr of passed) if (wordOf(msr) === word) bits &= ~(3 << (msr & 15) * 2);
    return bits >>> 0;
  });
}

function host(v: Vcpu): readonly number[] {
  return v.traits.guest.passesGhcb ? WITH_GHCB : WITHOUT_GHCB;
}

/** Word of the map that covers an MSR, or -1 when the map does not (svm_msrpm_offset). */
export function wordOf(msr: number): number {
  const low = msr & 0xffff;
  if (low >= 0x2000) return -1;
  switch (msr >>> 16) {
    case 0:
      return low >> 4;
    case 0xc000:
      return 0x200 + (low >> 4);
    case 0xc001:
      return 0x400 + (low >> 4);
    default:
      return -1;
  }
}

/** Copies the host's own map into the merged one, as it is when first allocated. */
export function initMerged(v: Vcpu): void {
  host(v).forEach((bits, i) => v.set32(V.merged_msrpm + i * 4, bits));
}

/**
 * Merges L1's map into the host's (nested_svm_vmrun_msrpm).
 *
 * @returns Whether L1's map could be read.
 */
export function merge(v: Vcpu): boolean {
  if ((v.u32(VMCB12_AT + C.intercept_word3) & 1 << 28) === 0) return true;
  const base = v.u32(VMCB12_AT + C.msrpm_base_pa) +
    v.u32(VMCB12_AT + C.msrpm_base_pa + 4) * 2 ** 32;
  const own = host(v);
  for (let i = 0; i < WORDS.length; i++) {
    const at = base + (WORDS[i] as number) * 4;
    if (!v.memory.backed(at, 4)) return false;
    v.set32(V.merged_msrpm + i * 4, (own[i] as number) | v.memory.read(at, 4));
  }
  v.set8(V.msrpm_recalc, 0);
  setMap(v, v.vmcb, HOST.MERGED_MSRPM);
  return true;
}

/** Points a VMCB at one of the host's maps. */
export function setMap(v: Vcpu, vmcb: number, map: number): void {
  v.set32(vmcb + C.msrpm_base_pa, map);
  v.set32(vmcb + C.msrpm_base_pa + 4, HOST_HIGH);
}

/** Whether the map that a VMCB points at intercepts an access to an MSR. */
export function msrIntercepted(v: Vcpu, vmcb: number, msr: number, write: boolean): boolean {
  const word = wordOf(msr);
  const index = WORDS.indexOf(word as typeof WORDS[number]);
  if (index < 0) return true;
  const merged = v.u32(vmcb + C.msrpm_base_pa) === HOST.MERGED_MSRPM;
  const bits = merged ? v.u32(V.merged_msrpm + index * 4) : host(v)[index] as number;
  return (bits >>> (msr & 15) * 2 + (write ? 1 : 0) & 1) === 1;
}
