/**
 * What KVM offers L1 on the machine that most recordings were made on, beyond what
 * {@linkcode LAB_CPUID} holds: nothing in nested transitions depends on it, but L2 can read it.
 *
 * @module
 */
import { LAB_CPUID } from "../svm/cpuid.ts";
import type { Capabilities } from "../svm/machine.ts";

/** Whether L1's processor is that of the machine, whatever features were taken away. */
export function isLabMachine({ cpuid }: Capabilities): boolean {
  return cpuid === undefined || cpuid.register("1", "eax") === LAB_CPUID.register("1", "eax");
}

/** ARCH_CAPABILITIES of the machine. */
export const LAB_ARCH_CAPABILITIES = 0x400000000c000079n;

/** EAX, EBX, ECX and EDX of its other leaves, by function and index. All others are zero. */
export const LAB_LEAVES: Readonly<Record<string, readonly [number, number, number, number]>> = {
  "0": [0xd, 0x68747541, 0x444d4163, 0x69746e65],
  "6": [4, 0, 0, 0],
  "d": [0x207, 0x240, 0xa88, 0],
  "d.1": [5, 0, 0, 0],
  "d.2": [0x100, 0x240, 0, 0],
  "d.9": [8, 0xa80, 0, 0],
  "40000000": [0x40000001, 0x4b4d564b, 0x564b4d56, 0x4d],
  "40000001": [0x01007efb, 0, 0, 0],
  "80000000": [0x8000000a, 0x68747541, 0x444d4163, 0x69746e65],
  "80000005": [0x01ff01ff, 0x01ff01ff, 0x40020140, 0x40020140],
  "80000006": [0, 0x42004200, 0x02008140, 0x00808140],
};
