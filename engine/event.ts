/**
 * What a trace is made of: events, each a kind with the fields of one row of
 * {@linkcode EVENTS}. The binary codec, the JSON dump, the importers and the
 * format's specification are generated from that table.
 *
 * A field that a source could not see is absent, never zero. The bytes of an
 * {@linkcode Image} that it could not see are masked out by `known`.
 *
 * @module
 */

/** Bytes of a fixed layout, with a mask of the bits that the source saw. */
export interface Image {
  /** The bytes, as laid out by the table the event field names. */
  readonly bytes: Uint8Array;
  /** Same length as `bytes`; a 1 bit is a known bit. All known when left out. Unknown bits of `bytes` are 0. */
  readonly known?: Uint8Array;
  /** Of an object that is handed out again and again: another number whenever its content is another. */
  readonly revision?: number;
  /** Of such an object with a mask: the numbers of the 32-bit words of which a bit is known. */
  readonly knownWords?: Uint16Array;
}

/** How the value of an event field is typed. */
export type FieldType =
  /** Unsigned, below 2^32: a number. */
  | "u32"
  /** Signed, 32 bits: a number. */
  | "i32"
  /** Unsigned, 64 bits: a bigint. */
  | "u64"
  /** Text; repeated texts are stored once. */
  | "text"
  /** A JSON-like map, for metadata. */
  | "map"
  /** An {@linkcode Image} of a VMCB-shaped page (layout `vmcb`). */
  | "vmcb"
  /** An {@linkcode Image} of a page of guest memory, 4,096 bytes. */
  | "page"
  /** An {@linkcode Image} of the registers and flags that userspace sees (layout `regs`). */
  | "regs"
  /** An {@linkcode Image} of the nested bookkeeping inside the kernel (layout `inner`). */
  | "inner"
  /** An {@linkcode Image} of the SMRAM state save area, 512 bytes. */
  | "smram";

/** One field of an event kind. */
export interface EventField {
  /** Property name in the event object. */
  readonly name: string;
  /** Type of its value. */
  readonly type: FieldType;
  /**
   * Of an image: the `u64` field before it that holds its address. Images at one address are
   * stored as changes against each other.
   */
  readonly at?: string;
  /** Of an image: the `text` field before it that tells moments apart, such as before and after. */
  readonly by?: string;
  /** What it is, in one line. */
  readonly doc: string;
}

/** One kind of event. */
export interface EventRow {
  /** Number in the binary format; never reused. */
  readonly id: number;
  /** Name in the API and in dumps. */
  readonly kind: string;
  /** Minor version of the format that it came with; 0 when left out. */
  readonly since?: number;
  /** `input`: needed to replay. `outcome`: what the recorded side did with it. `mark`: neither. */
  readonly role: "input" | "outcome" | "mark";
  /** Fields in order. Each may be absent, which means unknown. */
  readonly fields: readonly EventField[];
  /** What it is, in one line. */
  readonly doc: string;
}

/** All kinds of events, in order of their number. */
export const EVENTS = [
  {
    id: 1,
    kind: "session",
    role: "input",
    doc: "A virtual machine and its vCPU begin; earlier state of this vCPU is gone",
    fields: [{
      name: "meta",
      type: "map",
      doc: "Source, policy or kernel, MMU mode, CPU capabilities, clock",
    }],
  },
  {
    id: 2,
    kind: "case",
    role: "mark",
    doc: "A scenario begins",
    fields: [
      { name: "name", type: "text", doc: "Name of the scenario" },
      { name: "spec", type: "text", doc: "Its changes to the valid base, in the case syntax" },
    ],
  },
  {
    id: 3,
    kind: "memory",
    role: "input",
    doc: "Guest memory was set from outside",
    fields: [
      { name: "gpa", type: "u64", doc: "Guest physical address of the page" },
      { name: "data", type: "page", at: "gpa", doc: "The page" },
    ],
  },
  {
    id: 4,
    kind: "regs",
    role: "outcome",
    doc: "The state that userspace saw through ioctls at one point of a scenario",
    fields: [
      { name: "phase", type: "text", doc: "pre, mid, smm, restored or post" },
      { name: "rc", type: "i32", doc: "Return value of KVM_RUN" },
      { name: "errno", type: "u32", doc: "errno of KVM_RUN" },
      { name: "exit", type: "u32", doc: "KVM_EXIT_* reason" },
      { name: "port", type: "u32", doc: "I/O port of a KVM_EXIT_IO" },
      { name: "regs", type: "regs", by: "phase", doc: "Registers and flags" },
      { name: "vmcb12_gpa", type: "u64", doc: "Guest physical address of vmcb12" },
      {
        name: "vmcb12",
        type: "vmcb",
        at: "vmcb12_gpa",
        by: "phase",
        doc: "vmcb12 as it stands in memory",
      },
      { name: "hsave", type: "vmcb", by: "phase", doc: "Host save area as it stands in memory" },
      { name: "smram", type: "smram", by: "phase", doc: "SMRAM state save area" },
      { name: "extra", type: "map", doc: "Whatever else the source said, as it said it" },
    ],
  },
  {
    id: 5,
    kind: "inject",
    role: "input",
    doc: "An event was queued from outside",
    fields: [
      { name: "what", type: "text", doc: "nmi, irq or smi" },
      { name: "vector", type: "u32", doc: "Interrupt vector" },
    ],
  },
  {
    id: 6,
    kind: "vmrun",
    role: "input",
    doc: "L1 executed VMRUN",
    fields: [
      { name: "rip", type: "u64", doc: "Address of the instruction after it, in L1" },
      { name: "vmcb12_gpa", type: "u64", doc: "Guest physical address of vmcb12 (RAX)" },
      { name: "regs", type: "regs", doc: "L1's registers before it" },
      { name: "vmcb12", type: "vmcb", at: "vmcb12_gpa", doc: "vmcb12 before it" },
    ],
  },
  {
    id: 7,
    kind: "check",
    role: "outcome",
    doc: "A consistency check failed",
    fields: [
      { name: "check", type: "text", doc: "Stable id of the check" },
      { name: "text", type: "text", doc: "The kernel's own text of it" },
    ],
  },
  {
    id: 8,
    kind: "switch",
    role: "outcome",
    doc: "The active VMCB changed",
    fields: [{ name: "to", type: "u32", doc: "1 for vmcb01, 2 for vmcb02" }],
  },
  {
    id: 9,
    kind: "l2exit",
    role: "input",
    doc: "L2 stopped: the #VMEXIT that the hypervisor received from it",
    fields: [
      { name: "exit_code", type: "u64", doc: "Reason" },
      { name: "exit_info_1", type: "u64", doc: "First word of information" },
      { name: "exit_info_2", type: "u64", doc: "Second word of information" },
      { name: "exit_int_info", type: "u32", doc: "Event whose delivery it interrupted" },
      { name: "exit_int_info_err", type: "u32", doc: "Error code of that event" },
      { name: "regs", type: "regs", doc: "L2's registers" },
    ],
  },
  {
    id: 10,
    kind: "exit",
    role: "outcome",
    doc: "L1 received a #VMEXIT",
    fields: [
      { name: "vmcb12_gpa", type: "u64", doc: "Guest physical address of vmcb12" },
      { name: "regs", type: "regs", doc: "L1's registers after it" },
      { name: "vmcb12", type: "vmcb", at: "vmcb12_gpa", doc: "vmcb12 as written" },
    ],
  },
  {
    id: 11,
    kind: "smi",
    role: "input",
    doc: "The vCPU entered system management mode",
    fields: [{ name: "smram", type: "smram", doc: "State save area as written" }],
  },
  {
    id: 12,
    kind: "rsm",
    role: "input",
    doc: "The handler of an SMI executed RSM",
    fields: [
      { name: "smram", type: "smram", doc: "State save area as read" },
      { name: "vmcb12_gpa", type: "u64", doc: "Guest physical address of vmcb12, if L2 goes on" },
      { name: "vmcb12", type: "vmcb", at: "vmcb12_gpa", doc: "vmcb12, with which L2 goes on" },
    ],
  },
  {
    id: 13,
    kind: "setstate",
    role: "input",
    doc: "Userspace restored nested state (KVM_SET_NESTED_STATE)",
    fields: [
      { name: "sregs_errno", type: "u32", doc: "errno of KVM_SET_SREGS before it" },
      { name: "errno", type: "u32", doc: "errno of KVM_SET_NESTED_STATE" },
      { name: "flags", type: "u32", doc: "KVM_STATE_NESTED_* flags handed in" },
      { name: "vmcb_pa", type: "u64", doc: "Address of vmcb12 handed in" },
      { name: "state", type: "vmcb", doc: "L2's control area and L1's save area handed in" },
      { name: "regs", type: "regs", doc: "Registers that userspace set before it" },
      { name: "l1", type: "regs", doc: "L1's registers, set before those" },
    ],
  },
  {
    id: 14,
    kind: "inner",
    role: "outcome",
    doc: "State inside the kernel as one of its functions returned",
    fields: [
      { name: "at", type: "text", doc: "vmrun, vmexit, rsm or setstate" },
      { name: "inner", type: "inner", by: "at", doc: "Nested bookkeeping and vCPU state" },
      { name: "vmcb01", type: "vmcb", by: "at", doc: "VMCB that L1 runs with" },
      { name: "vmcb02", type: "vmcb", by: "at", doc: "VMCB that L2 runs with" },
    ],
  },
  {
    id: 15,
    kind: "warn",
    role: "outcome",
    doc: "A kernel assertion did not hold",
    fields: [{ name: "text", type: "text", doc: "The assertion" }],
  },
  {
    id: 16,
    kind: "tracepoint",
    role: "outcome",
    doc: "A tracepoint that no other kind stands for, or the text of one that does",
    fields: [
      { name: "name", type: "text", doc: "Name of the tracepoint" },
      { name: "text", type: "text", doc: "What it printed" },
    ],
  },
  {
    id: 17,
    kind: "lost",
    role: "mark",
    doc: "The source dropped events here",
    fields: [{ name: "count", type: "u64", doc: "How many" }],
  },
  {
    id: 18,
    kind: "run",
    since: 1,
    role: "input",
    doc: "Userspace called KVM_RUN once more",
    fields: [{
      name: "immediate",
      type: "u32",
      doc: "1: with immediate_exit, so that only what waited for userspace is completed",
    }],
  },
  {
    id: 19,
    kind: "save",
    since: 1,
    role: "input",
    doc: "Userspace read all state of the vCPU, and tore its virtual machine down",
    fields: [
      { name: "sregs_errno", type: "u32", doc: "errno of KVM_GET_SREGS2" },
      { name: "errno", type: "u32", doc: "errno of KVM_GET_NESTED_STATE" },
    ],
  },
  {
    id: 20,
    kind: "restore",
    since: 1,
    role: "input",
    doc: "Userspace restored that state into a new virtual machine with the same memory, " +
      "in QEMU's order",
    fields: [
      { name: "sregs_errno", type: "u32", doc: "errno of KVM_SET_SREGS2" },
      { name: "errno", type: "u32", doc: "errno of KVM_SET_NESTED_STATE" },
      { name: "regs_errno", type: "u32", doc: "errno of KVM_SET_REGS" },
      { name: "events_errno", type: "u32", doc: "errno of KVM_SET_VCPU_EVENTS" },
      { name: "debugregs_errno", type: "u32", doc: "errno of KVM_SET_DEBUGREGS" },
      { name: "resident", type: "u64", doc: "Address below which all new memory was touched" },
      { name: "flags", type: "u32", doc: "KVM_STATE_NESTED_* flags handed in" },
      { name: "set", type: "u32", doc: "Those of them that were set on the way" },
      {
        name: "state",
        type: "vmcb",
        doc: "L2's control area and L1's save area handed in; none outside guest mode",
      },
      {
        name: "changed",
        type: "vmcb",
        doc: "Bytes of them that were changed on the way; the others are as they were read",
      },
    ],
  },
  {
    id: 21,
    kind: "unmodelled",
    since: 1,
    role: "mark",
    doc: "The model met what it does not model: what follows in this run is unknown",
    fields: [{ name: "what", type: "text", doc: "What it met" }],
  },
] as const satisfies readonly EventRow[];

/** Type of the value that a field of some type has in an event. */
export type EventValue<T extends FieldType> = T extends "u32" | "i32" ? number
  : T extends "u64" ? bigint
  : T extends "text" ? string
  : T extends "map" ? Readonly<Record<string, unknown>>
  : Image;

/** Name of a kind of event. */
export type EventKind = (typeof EVENTS)[number]["kind"];

/** An event of one kind: its fields, the vCPU and the time. */
export type EventOf<K extends EventKind> = Extract<(typeof EVENTS)[number], { kind: K }> extends
  { fields: readonly (infer F)[] } ?
    & {
      readonly kind: K;
      /** Number of the vCPU within the trace. */
      readonly vcpu: number;
      /** Nanoseconds on the session's clock, a whole number below 2^53; absent when the source has none. */
      readonly time?: number;
    }
    & {
      readonly [P in F as P extends { name: infer N extends string } ? N : never]?: P extends
        { type: infer T extends FieldType } ? EventValue<T> : never;
    }
  : never;

/** Any event. */
export type TraceEvent = { [K in EventKind]: EventOf<K> }[EventKind];
