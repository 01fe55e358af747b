/**
 * How KVM's emulator turns a linear address into memory (kvm_mmu_gva_to_gpa).
 *
 * @module
 */
import { V } from "../svm/machine.ts";
import { readPdptrs } from "./pdptrs.ts";
import type { Vcpu } from "../kvm/vcpu.ts";
import { walkForEmulator, walkL1Npt } from "./vcpu_walk.ts";

/**
 * The guest physical address of a linear address.
 *
 * @param v The vCPU.
 * @param lo The address, low half.
 * @param hi Its high half.
 * @param access READ, WRITE or FETCH.
 * @param user Whether the guest is at CPL 3.
 * @returns The address, or -1: the error code of the #PF is that of the last walk.
 */
export function linearToGpa(
  v: Vcpu,
  lo: number,
  hi: number,
  access: number,
  user: boolean,
): number {
  const nested = v.u8(V.walk_mmu) === 1;
  const role = nested ? V.nested_cpu_role : V.root_cpu_role;
  const levels = v.u32(role) & 15;
  if (levels === 0) {
    const gpa = (hi & 0xfffff) * 0x1_0000_0000 + lo;
    return nested ? walkL1Npt(v, gpa) : gpa;
  }
  // Under nested paging the cached entries are stale after every exit.
  if (levels === 3 && v.caps.npt) readPdptrs(v);
  const gpa = walkForEmulator(v, role, lo, hi, access, user);
  return gpa < 0 || !nested ? gpa : walkL1Npt(v, gpa);
}
