/**
 * How KVM's emulator turns a linear address into memory (kvm_mmu_gva_to_gpa).
 *
 * @module
 */
import { V } from "../svm/machine.ts";
import { FETCH, READ, WRITE } from "../cpu/walk.ts";
import { readPdptrs } from "./pdptrs.ts";
import type { Vcpu } from "./vcpu.ts";
import { walkForEmulator, walkL1Npt } from "./walk.ts";

/**
 * The guest physical address of a linear address.
 *
 * @param v The vCPU.
 * @param linear The address.
 * @param fetch Whether code is read.
 * @param user Whether the guest is at CPL 3.
 * @param write Whether it is to be written.
 * @returns The address, or -1: the error code of the #PF is that of the last walk.
 */
export function linearToGpa(
  v: Vcpu,
  linear: bigint,
  fetch: boolean,
  user: boolean,
  write = false,
): number {
  const nested = v.u8(V.walk_mmu) === 1;
  const role = nested ? V.nested_cpu_role : V.root_cpu_role;
  const levels = v.u32(role) & 15;
  if (levels === 0) {
    const gpa = Number(linear & 0xfffffffffffffn);
    return nested ? walkL1Npt(v, gpa) : gpa;
  }
  // Under nested paging the cached entries are stale after every exit.
  if (levels === 3 && v.caps.npt) readPdptrs(v);
  const access = fetch ? FETCH : write ? WRITE : READ;
  const lo = Number(linear & 0xffffffffn), hi = Number(linear >> 32n & 0xffffffffn);
  const gpa = walkForEmulator(v, role, lo, hi, access, user);
  return gpa < 0 || !nested ? gpa : walkL1Npt(v, gpa);
}
