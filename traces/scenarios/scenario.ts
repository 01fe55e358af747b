/**
 * What a scenario is: changes to a valid base, and a way into L2.
 *
 * @module
 */
import type { CpuidRegister } from "../../engine/svm/cpuid.ts";
import type { L1State } from "./base.ts";

/**
 * The ways into L2 that a scenario may take: VMRUN; VMRUN, an SMI and RSM; KVM_SET_NESTED_STATE;
 * VMRUN and a stop in L2 at a port write, after which it goes on (`mid`), or goes on in another
 * virtual machine (`migrate`).
 */
export const ENTRIES = ["vmrun", "rsm", "setstate", "mid", "migrate"] as const;

/** Which of them a scenario takes. */
export type Entry = typeof ENTRIES[number];

/** The way into L2 that a line of the case syntax, or a record's spec, names; VMRUN where it names none. */
export function entryOf(spec: string): Entry {
  const named = /(?:^| )entry=(\S+)/.exec(spec)?.[1];
  return ENTRIES.find((entry) => entry === named) ?? "vmrun";
}

/** L1's registers that a scenario may set. */
export const L1_REGISTERS = [
  ...["rax", "rip", "rflags", "cr0", "cr3", "cr4", "efer", "hsave"] as const,
] as const satisfies readonly (keyof L1State)[];

/** Name of such a register. */
export type L1Register = typeof L1_REGISTERS[number];

/** The areas that a scenario may write, by the lab's letter; `nested` is L2's control area in the nested state. */
export const TARGETS = {
  c: "control",
  s: "save",
  m: "memory",
  h: "hsave",
  r: "smram",
  n: "nested",
} as const satisfies Record<string, ChangeTarget>;

/** Name of such an area. */
export type ChangeTarget = "control" | "save" | "memory" | "hsave" | "smram" | "nested";

/** Bits that are taken from L1's CPUID. */
export interface CpuidRemoval {
  /** CPUID function. */
  readonly fn: number;
  /** Its register. */
  readonly register: CpuidRegister;
  /** Bits that are cleared of it. */
  readonly mask: number;
}

/** One write of a scenario before the run. */
export interface Change {
  /** vmcb12's control area, its save area, or plain memory. */
  readonly target: "control" | "save" | "memory";
  /** Guest physical address of the first byte. */
  readonly gpa: number;
  /** Bytes written, 0 to 8. */
  readonly size: number;
  /** Their value, little-endian. */
  readonly value: bigint;
}

/**
 * One write of a scenario on the way: while the SMI handler runs, or L2 is stopped; or to the nested
 * state that is handed to KVM_SET_NESTED_STATE.
 */
export interface LateChange {
  /** The area it was written for. */
  readonly target: ChangeTarget;
  /** Byte offset within the area; `hsave` counts from its save area, at 0x400. */
  readonly offset: number;
  /** Guest physical address; undefined for a write to the nested state, which is a buffer. */
  readonly gpa: number | undefined;
  /** Bytes written, 0 to 8. */
  readonly size: number;
  /** Their value, little-endian. */
  readonly value: bigint;
}

/** One case: what is changed in the base, and how L2 is entered. */
export interface Scenario {
  /** First word of the line. */
  readonly name: string;
  /** The rest of the line, as written. */
  readonly spec: string;
  /** Line in its file, from 1. */
  readonly line: number;
  /** Writes before the run, in order; those beyond the end of memory are left out, as the lab ignores them. */
  readonly changes: readonly Change[];
  /** L1's registers before VMRUN. */
  readonly l1: Readonly<L1State>;
  /** GIF before VMRUN. */
  readonly gif: boolean;
  /** Whether an NMI is queued before the run. */
  readonly nmi: boolean;
  /** Vector handed to KVM_INTERRUPT before the run; 0 for none. KVM refuses (EINVAL) those above 0xff. */
  readonly irq: number;
  /** Way in. */
  readonly entry: Entry;
  /** Whether the state that is restored says that a nested run is pending (`setstate`, `migrate`). */
  readonly pending: boolean;
  /** Whether an NMI is queued while L2 is stopped (`mid`, `migrate`). */
  readonly midNmi: boolean;
  /** Vector handed to KVM_INTERRUPT then; 0 for none. */
  readonly midIrq: number;
  /** What is taken from L1's CPUID, in order. Nothing when the scenario goes on with a machine. */
  readonly cpuid: readonly CpuidRemoval[];
  /** Physical address bits of L1's CPUID, where they are not the machine's. */
  readonly physicalBits: number | undefined;
  /**
   * Writes between the SMI and RSM (`rsm`), while L2 is stopped (`mid`), on the way to another
   * machine (`migrate`), or to the L1 save area handed in (`setstate`, only `hsave`). Those that
   * cannot take effect are left out.
   */
  readonly late: readonly LateChange[];
  /** Go on with the virtual machine and vCPU of the scenario before. */
  readonly keepvm: boolean;
  /** Leave guest memory as it is: the base is not written. */
  readonly keepmem: boolean;
}
