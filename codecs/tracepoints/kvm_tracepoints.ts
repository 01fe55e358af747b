/**
 * KVM's tracepoints about nested virtualization, as one table: which values
 * each carries, under which names logs print them and format files describe
 * them, and how the kernel prints them (arch/x86/kvm/trace.h).
 *
 * Names have changed from kernel to kernel; a value keeps one slot under all of
 * them.
 *
 * @module
 */
import { exitReasonName } from "./kvm_exit_reasons.ts";

/** How the text of a value is read. */
export type SlotKind =
  /** Hexadecimal, with or without 0x; as many digits as its key says. */
  | "hex"
  /** Decimal. */
  | "dec"
  /** Name or number of an exit code. */
  | "reason"
  /** y, n, on or off. */
  | "flag"
  /** Three words, or the two of kernels before 5.10 in one number. */
  | "intercepts"
  /** Both words of exit information. */
  | "pair"
  /** `entering` or `leaving`, which are their own keys. */
  | "smm"
  /** Says that the log is of VMX. */
  | "vmx";

/** When a kernel pads a number to a width: always, after `key:` only, or after `0x` only. */
export type Padded = "always" | "colon" | "0x";

/** A word before a value, and how wide the kernel prints the value after it. */
export interface SlotKey {
  /** Word of the text that stands before the value. */
  readonly word: string;
  /** Digits, where the kernel pads it: fewer of them are a number that was cut. */
  readonly digits?: number;
  /** When it pads it. */
  readonly when?: Padded;
  /** How the value after it is read, where that is otherwise than after the slot's other keys. */
  readonly kind?: SlotKind;
}

/** One value that tracepoints carry. */
export interface Slot {
  /** Name in a neutral record. */
  readonly name: string;
  /** How its text is read. */
  readonly kind: SlotKind;
  /** Words before it in texts. */
  readonly keys: readonly SlotKey[];
  /** Names in format files. */
  readonly fields: readonly string[];
}

/** A key whose value is printed at its own length. */
function free(...words: string[]): SlotKey[] {
  return words.map((word) => ({ word }));
}

/** A key whose value is padded with zeroes. */
function padded(digits: number, ...words: string[]): SlotKey[] {
  return words.map((word) => ({ word, digits, when: "always" }));
}

/** A key whose value the kernel pads, and libtraceevent's plugin, which prints no 0x or colon, does not. */
function kernel(digits: number, when: Padded, word: string): SlotKey[] {
  return [{ word, digits, when }];
}

/** Names of fields, which `trace-cmd report -R` prints in place of the kernel's words. */
function raw(kind: SlotKind, ...words: string[]): SlotKey[] {
  return words.map((word) => ({ word, kind }));
}

/** All values, one slot each; fewer than 31, since sets of slots are bits of a number. */
export const SLOTS = [
  {
    name: "rip",
    kind: "hex",
    keys: [...kernel(16, "colon", "rip"), ...free("guest_rip")],
    fields: ["rip", "guest_rip"],
  },
  { name: "vmcb", kind: "hex", keys: padded(16, "vmcb"), fields: ["vmcb"] },
  {
    name: "nested_rip",
    kind: "hex",
    keys: padded(16, "nested_rip", "nrip"),
    fields: ["nested_rip"],
  },
  { name: "int_ctl", kind: "hex", keys: padded(8, "int_ctl"), fields: ["int_ctl"] },
  { name: "event_inj", kind: "hex", keys: padded(8, "event_inj"), fields: ["event_inj"] },
  {
    name: "npt",
    kind: "flag",
    keys: free("nested_npt", "npt", "tdp_enabled"),
    fields: ["tdp_enabled", "npt"],
  },
  {
    name: "nested_cr3",
    kind: "hex",
    keys: padded(16, "nested_cr3", "guest_pgd"),
    fields: ["guest_pgd"],
  },
  { name: "guest_cr3", kind: "hex", keys: padded(16, "guest_cr3"), fields: [] },
  {
    name: "isa",
    kind: "vmx",
    keys: [...free("vmcs", "nested_ept", "ept", "nested_eptp"), ...raw("dec", "isa")],
    fields: ["isa"],
  },
  { name: "cr_read", kind: "hex", keys: padded(4, "cr_read"), fields: ["cr_read"] },
  { name: "cr_write", kind: "hex", keys: padded(4, "cr_write"), fields: ["cr_write"] },
  {
    name: "exceptions",
    kind: "hex",
    keys: padded(8, "excp", "exceptions"),
    fields: ["exceptions"],
  },
  {
    name: "intercept1",
    kind: "intercepts",
    keys: [
      ...free("intercepts", "intercept"),
      { word: "intercept1", digits: 8, when: "always", kind: "hex" },
    ],
    fields: ["intercept1", "intercept"],
  },
  { name: "intercept2", kind: "hex", keys: padded(8, "intercept2"), fields: ["intercept2"] },
  { name: "intercept3", kind: "hex", keys: padded(8, "intercept3"), fields: ["intercept3"] },
  { name: "vcpu_id", kind: "dec", keys: free("vcpu", "vcpu_id"), fields: ["vcpu_id"] },
  {
    name: "exit_code",
    kind: "reason",
    keys: [...free("reason"), ...raw("dec", "exit_reason", "exit_code")],
    fields: ["exit_reason", "exit_code"],
  },
  {
    name: "exit_info_1",
    kind: "hex",
    keys: [...kernel(16, "0x", "info1"), ...padded(16, "ext_inf1", "exit_info1")],
    fields: ["info1", "exit_info1"],
  },
  {
    name: "exit_info_2",
    kind: "hex",
    keys: [...kernel(16, "0x", "info2"), ...padded(16, "ext_inf2", "exit_info2")],
    fields: ["info2", "exit_info2"],
  },
  {
    name: "exit_int_info",
    kind: "hex",
    keys: [...padded(8, "intr_info", "ext_int", "exit_int_info"), ...free("int_info")],
    fields: ["intr_info", "exit_int_info"],
  },
  {
    name: "exit_int_info_err",
    kind: "hex",
    keys: [...padded(8, "error_code", "ext_int_err", "exit_int_info_err"), ...free("int_info_err")],
    fields: ["error_code", "exit_int_info_err"],
  },
  { name: "requests", kind: "hex", keys: padded(16, "requests"), fields: ["requests"] },
  { name: "asid", kind: "dec", keys: free("asid"), fields: ["asid"] },
  { name: "address", kind: "hex", keys: padded(16, "address"), fields: ["address"] },
  { name: "slb", kind: "hex", keys: padded(8, "slb"), fields: ["slb"] },
  { name: "info", kind: "pair", keys: free("info"), fields: [] },
  { name: "err", kind: "dec", keys: [], fields: ["err"] },
  { name: "immediate_exit", kind: "dec", keys: free("immediate_exit"), fields: ["immediate_exit"] },
  { name: "entering", kind: "smm", keys: free("entering", "leaving"), fields: ["entering"] },
  { name: "smbase", kind: "hex", keys: free("smbase"), fields: ["smbase"] },
] as const satisfies readonly Slot[];

/** Name of a slot. */
export type SlotName = typeof SLOTS[number]["name"];

/** Number of each slot, by name. */
export const SLOT: Readonly<Record<SlotName, number>> = Object.fromEntries(
  SLOTS.map(({ name }, index) => [name, index]),
) as Record<SlotName, number>;

/** The `isa` of KVM on Intel processors. */
export const ISA_VMX = 1;

/** What a tracepoint means to a recording. */
export type TracepointRole =
  | "vmrun"
  | "intercepts"
  | "l2exit"
  | "exit"
  | "check"
  /** The vCPU enters or leaves system management mode. */
  | "smm"
  | "other";

/** One tracepoint that is read. */
export interface Tracepoint {
  /** Name, without the subsystem. */
  readonly name: string;
  /** What it becomes. */
  readonly role: TracepointRole;
  /** Bits of the slots without which it is not believed. */
  readonly needs: number;
  /**
   * Bits of the slots that its text never lacks; a format file of another age may. A text without
   * them was cut.
   */
  readonly prints: number;
  /** Whether its text is one string, not a list of values. */
  readonly free: boolean;
  /** The text the kernel prints for it; free texts print themselves. */
  readonly print: (values: SlotValues) => string;
}

/** The values of one record, by slot. */
export interface SlotValues {
  /** Bit per slot: it has a value. */
  present: number;
  /** Bit per slot: the source had all 64 bits of it. */
  wide: number;
  /** Low halves, by slot. */
  readonly lo: Uint32Array;
  /** High halves, by slot. */
  readonly hi: Uint32Array;
}

const VMRUN = "rip vmcb nested_rip int_ctl event_inj";
const VMEXIT = "exit_code rip exit_info_1 exit_info_2 exit_int_info exit_int_info_err";
const INJECT = "exit_code exit_info_1 exit_info_2 exit_int_info exit_int_info_err";

/** All tracepoints that are read. */
export const TRACEPOINTS: readonly Tracepoint[] = [
  row("kvm_nested_vmenter", "vmrun", VMRUN, printVmenter, { prints: "npt" }),
  row("kvm_nested_vmrun", "vmrun", VMRUN, printVmenter, { prints: "npt" }),
  row(
    "kvm_nested_intercepts",
    "intercepts",
    "cr_read cr_write exceptions intercept1",
    (v) =>
      `cr_read: ${hex(v, "cr_read", 4)} cr_write: ${hex(v, "cr_write", 4)} ` +
      `excp: ${hex(v, "exceptions", 8)} ` +
      (has(v, "intercept2")
        ? `intercepts: ${hex(v, "intercept1", 8)} ${hex(v, "intercept2", 8)} ${
          hex(v, "intercept3", 8)
        }`
        : `intercept: ${hex(v, "intercept1", 16)}`),
  ),
  row("kvm_nested_vmexit", "l2exit", VMEXIT, printExit),
  row(
    "kvm_nested_vmexit_inject",
    "exit",
    INJECT,
    (v) =>
      `reason: ${reason(v)} ext_inf1: 0x${hex(v, "exit_info_1", 16)} ` +
      `ext_inf2: 0x${hex(v, "exit_info_2", 16)} ext_int: 0x${hex(v, "exit_int_info", 8)} ` +
      `ext_int_err: 0x${hex(v, "exit_int_info_err", 8)}`,
  ),
  row("kvm_nested_vmenter_failed", "check", "", () => "", { free: true }),
  row("kvm_nested_intr_vmexit", "other", "rip", (v) => `rip: 0x${hex(v, "rip", 16)}`),
  row(
    "kvm_invlpga",
    "other",
    "rip asid address",
    (v) =>
      `rip: 0x${hex(v, "rip", 16)} asid: ${v.lo[SLOT.asid]} address: 0x${hex(v, "address", 16)}`,
  ),
  row(
    "kvm_skinit",
    "other",
    "rip slb",
    (v) => `rip: 0x${hex(v, "rip", 16)} slb: 0x${hex(v, "slb", 8)}`,
  ),
  row("kvm_entry", "other", "vcpu_id", (v) =>
    `vcpu ${v.lo[SLOT.vcpu_id]}` +
    (has(v, "rip") ? `, rip 0x${hex(v, "rip", 1)}` : "") +
    (has(v, "exit_int_info")
      ? ` intr_info 0x${hex(v, "exit_int_info", 8)} error_code 0x${hex(v, "exit_int_info_err", 8)}`
      : "") +
    (v.lo[SLOT.immediate_exit] && has(v, "immediate_exit") ? "[immediate exit]" : "")),
  row("kvm_exit", "other", "exit_code rip", printExit, { prints: "exit_info_2" }),
  row("kvm_smm_transition", "smm", "vcpu_id entering", printSmm, { prints: "smbase" }),
  row("kvm_enter_smm", "smm", "vcpu_id entering", printSmm, { prints: "smbase" }),
];

/** The row of each tracepoint, by name. */
export const TRACEPOINT_BY_NAME: ReadonlyMap<string, Tracepoint> = new Map(
  TRACEPOINTS.map((tracepoint) => [tracepoint.name, tracepoint]),
);

/**
 * Puts the root of paging where it belongs: newer kernels have one field for nCR3 and for L2's CR3, which it
 * is without nested paging.
 *
 * @param into The values of an entry; changed.
 */
export function tellRoots(into: SlotValues): void {
  const { nested_cr3: nested, guest_cr3: guest, npt } = SLOT;
  const there = (slot: number) => (into.present >>> slot & 1) !== 0;
  if (!there(npt) || into.lo[npt] !== 0 || !there(nested)) return;
  into.present = into.present & ~(1 << nested) | 1 << guest;
  into.lo[guest] = into.lo[nested]!;
  into.hi[guest] = into.hi[nested]!;
}

function row(
  name: string,
  role: TracepointRole,
  needs: string,
  print: (values: SlotValues) => string,
  more: { readonly prints?: string; readonly free?: boolean } = {},
): Tracepoint {
  const bits = (names: string) =>
    (names === "" ? [] : names.split(" ") as SlotName[])
      .reduce((bits, slot) => bits | 1 << SLOT[slot], 0);
  const must = bits(needs);
  return {
    name,
    role,
    print,
    free: more.free === true,
    needs: must,
    prints: must | bits(more.prints ?? ""),
  };
}

function has(values: SlotValues, slot: SlotName): boolean {
  return (values.present >>> SLOT[slot] & 1) !== 0;
}

function hex(values: SlotValues, slot: SlotName, digits: number): string {
  const lo = values.lo[SLOT[slot]]!, hi = values.hi[SLOT[slot]]!;
  if (digits <= 8 && hi === 0) return lo.toString(16).padStart(digits, "0");
  return (hi.toString(16) + lo.toString(16).padStart(8, "0")).padStart(digits, "0");
}

function reason(values: SlotValues): string {
  const lo = values.lo[SLOT.exit_code]!;
  if (has(values, "isa") && values.lo[SLOT.isa] === ISA_VMX) return `0x${lo.toString(16)}`;
  return exitReasonName(lo, values.hi[SLOT.exit_code]!);
}

function printVmenter(v: SlotValues): string {
  const vmx = has(v, "isa") && v.lo[SLOT.isa] === ISA_VMX;
  const head = `rip: 0x${hex(v, "rip", 16)} ${vmx ? "vmcs" : "vmcb"}: 0x${hex(v, "vmcb", 16)} `;
  const controls = `int_ctl: 0x${hex(v, "int_ctl", 8)} event_inj: 0x${hex(v, "event_inj", 8)} `;
  const npt = v.lo[SLOT.npt] !== 0;
  const root = has(v, "guest_cr3") ? "guest_cr3" : "nested_cr3";
  if (!has(v, root)) {
    return `${head}nrip: 0x${hex(v, "nested_rip", 16)} ${controls}npt: ${npt ? "on" : "off"}`;
  }
  return `${head}nested_rip: 0x${hex(v, "nested_rip", 16)} ${controls}` +
    `nested_${vmx ? "ept" : "npt"}=${npt ? "y" : "n"} ` +
    `${npt ? (vmx ? "nested_eptp" : "nested_cr3") : "guest_cr3"}: 0x${hex(v, root, 16)}`;
}

function printExit(v: SlotValues): string {
  // Kernels before 5.10 had no vcpu_id in it, and spelled the rest otherwise.
  if (!has(v, "vcpu_id")) {
    return `rip: 0x${hex(v, "rip", 16)} reason: ${reason(v)} ` +
      `ext_inf1: 0x${hex(v, "exit_info_1", 16)} ext_inf2: 0x${hex(v, "exit_info_2", 16)} ` +
      `ext_int: 0x${hex(v, "exit_int_info", 8)} ext_int_err: 0x${hex(v, "exit_int_info_err", 8)}`;
  }
  return `vcpu ${v.lo[SLOT.vcpu_id]} reason ${reason(v)} rip 0x${hex(v, "rip", 1)} ` +
    `info1 0x${hex(v, "exit_info_1", 16)} info2 0x${hex(v, "exit_info_2", 16)} ` +
    `intr_info 0x${hex(v, "exit_int_info", 8)} error_code 0x${hex(v, "exit_int_info_err", 8)}` +
    (has(v, "requests") ? ` requests 0x${hex(v, "requests", 16)}` : "");
}

function printSmm(v: SlotValues): string {
  return `vcpu ${v.lo[SLOT.vcpu_id]}: ${v.lo[SLOT.entering] ? "entering" : "leaving"} SMM, ` +
    `smbase 0x${hex(v, "smbase", 1)}`;
}
