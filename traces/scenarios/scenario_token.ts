/**
 * What one word of a scenario means.
 *
 * @module
 */
import type { ChangeTarget, CpuidRemoval, Entry, L1Register } from "./scenario.ts";

/** What one word of a scenario means. */
export type Token =
  | {
    readonly kind: "write";
    readonly target: "control" | "save" | "memory";
    readonly offset: bigint | number;
    readonly size: number;
    readonly value: bigint;
  }
  | {
    readonly kind: "field";
    readonly target: "control" | "save";
    readonly offset: number;
    readonly size: number;
    readonly apply: (before: bigint) => bigint;
  }
  | {
    readonly kind: "late";
    readonly target: ChangeTarget;
    readonly offset: bigint | number;
    readonly size: number;
    readonly value: bigint;
  }
  | {
    readonly kind: "l1";
    readonly register: L1Register;
    readonly apply: (before: bigint) => bigint;
  }
  | { readonly kind: "entry"; readonly entry: Entry }
  | { readonly kind: "gif" | "nmi" | "pending" | "midnmi"; readonly on: boolean }
  | { readonly kind: "irq" | "midirq"; readonly vector: number }
  | {
    readonly kind: "cpuid";
    readonly removal: CpuidRemoval;
  }
  | { readonly kind: "pa"; readonly bits: number }
  | { readonly kind: "pae" | "keepvm" | "keepmem" | "none" };
