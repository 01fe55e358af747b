/**
 * What differences are about: the fields that make up one subject, and which of two policies is
 * the one to name. What a subject is called is in `wording.ts`.
 *
 * @module
 */
import type { FieldValue } from "../image/fields.ts";
import { fieldMask } from "../image/fields.ts";
import { INTERCEPT, REQ } from "../kvm/constants.ts";
import { ROLE } from "../paging/roles.ts";
import { CLEAN, INT_CTL } from "../svm/control_bits.ts";
import type { INNER_FIELDS } from "../svm/inner_layout.ts";
import type { RegsFieldName } from "../svm/regs_layout.ts";
import type { VCPU_FIELDS } from "../svm/vcpu_fields.ts";
import type { VmcbFieldName } from "../svm/vmcb_fields.ts";
import { type AreaName, areaNamed } from "./areas.ts";
import type { FieldDifference } from "./run_difference.ts";

/** Names of the subjects, in the order in which they are tried. */
export type SubjectId =
  | "gif"
  | "eventinj"
  | "msrpm01"
  | "msrpm-recalc"
  | "vmcb12-gpa"
  | "guest-mode"
  | "own-intercepts"
  | "housekeeping"
  | "npt-walk"
  | "requests"
  | "vmcb02"
  | "pdptrs"
  | "mmu"
  | "ncr3"
  | "tracking"
  | "exit"
  | "events"
  | "l1"
  | "saved-l1"
  | "vmcb01"
  | "l2"
  | "other";

/** Whether a difference is what a subject is about. */
type About = (difference: FieldDifference) => boolean;

/** One subject. */
export interface Subject {
  /** Stable id. */
  readonly id: SubjectId;
  /** Which differences it is about. */
  readonly about: About;
  /**
   * Whether a value is that of the policy that the title is about: the odd one out. Without it,
   * that is the policy that leaves the field alone.
   */
  readonly odd?: (value: FieldValue, difference: FieldDifference) => boolean;
  /** One mechanism whenever it shows, not one for each kind of transition. */
  readonly timeless?: boolean;
  /** Belongs to another subject that differs in the same transition, if there is one. */
  readonly minor?: boolean;
}

/** Names of the fields of each part of the state. */
interface AreaFields {
  readonly vmcb12: VmcbFieldName;
  readonly vmcb01: VmcbFieldName;
  readonly vmcb02: VmcbFieldName;
  readonly L1: RegsFieldName;
  readonly nested: typeof INNER_FIELDS[number]["name"];
  readonly vcpu: typeof VCPU_FIELDS[number]["name"];
}

/** Some fields of a part of the state. */
function fields<A extends AreaName>(area: A, ...names: readonly AreaFields[A][]): About {
  const set: ReadonlySet<string> = new Set(names);
  return (difference) => difference.area === area && set.has(difference.field.name);
}

/** Fields of a part of the state whose names begin alike. */
function family(area: AreaName, ...prefixes: readonly string[]): About {
  const set = new Set(
    areaNamed(area).layout.fields.map(({ name }) => name)
      .filter((name) => prefixes.some((prefix) => name.startsWith(prefix))),
  );
  return (difference) => difference.area === area && set.has(difference.field.name);
}

/** All of a part of the state. */
function all(area: AreaName): About {
  return (difference) => difference.area === area;
}

/** A field in which nothing but some bits differs. */
function onlyBits<A extends AreaName>(area: A, name: AreaFields[A], mask: number): About {
  const is = fields(area, name);
  const others = ~BigInt(mask);
  return (difference) => is(difference) && (difference.differing & others) === 0n;
}

function any(...abouts: readonly About[]): About {
  return (difference) => abouts.some((about) => about(difference));
}

const isSet = ({ value }: FieldValue): boolean => value !== 0n;
const notKnownZero = ({ value, known }: FieldValue, { field }: FieldDifference): boolean =>
  value !== 0n || known !== fieldMask(field);

/** What kernels intercept for themselves in one version and not in another. */
const OWN_INTERCEPTS = [INTERCEPT.ICEBP, INTERCEPT.STGI, INTERCEPT.CLGI]
  .reduce((mask, bit) => mask | 1 << (bit & 31), 0);

/** Requests that only some kernels make whatever the guest does. */
const HOUSEKEEPING = 2 ** REQ.STEAL_UPDATE + 2 ** REQ.RECALC_INTERCEPTS;

/** `msrpm01` and `msrpm02` of the inner state: the bitmap merged for L2. */
const MERGED = 2n;

/** All subjects; the first that fits is meant. */
export const SUBJECTS: readonly Subject[] = [
  {
    id: "gif",
    about: any(
      fields("nested", "gif"),
      onlyBits("vmcb01", "control.int_ctl", INT_CTL.V_GIF),
    ),
    odd: ({ value }, { differing }) => (value & differing) !== 0n,
  },
  {
    id: "eventinj",
    about: fields("vmcb12", "control.event_inj", "control.event_inj_err"),
    odd: notKnownZero,
  },
  {
    id: "msrpm01",
    about: fields("nested", "msrpm01"),
    odd: ({ value }) => value === MERGED,
    timeless: true,
  },
  { id: "msrpm-recalc", about: fields("nested", "msrpm_recalc"), odd: isSet },
  { id: "vmcb12-gpa", about: fields("nested", "vmcb12_gpa") },
  { id: "guest-mode", about: fields("nested", "guest_mode", "active", "run_pending"), odd: isSet },
  {
    id: "own-intercepts",
    about: any(
      onlyBits("vmcb01", "control.intercept_word4", OWN_INTERCEPTS),
      onlyBits("vmcb02", "control.intercept_word4", OWN_INTERCEPTS),
    ),
    odd: ({ value }, { differing }) => (value & differing) !== 0n,
    timeless: true,
  },
  {
    id: "housekeeping",
    about: any(
      onlyBits("nested", "req", HOUSEKEEPING),
      onlyBits("vmcb01", "control.clean", CLEAN.CET),
      onlyBits("vmcb02", "control.clean", CLEAN.CET),
    ),
    timeless: true,
  },
  {
    id: "npt-walk",
    about: any(
      onlyBits("nested", "gcpu_role", ROLE.CR0_WP),
      onlyBits("nested", "groot_role", ROLE.CR0_WP),
    ),
    odd: ({ value }, { differing }) => (value & differing) !== 0n,
    timeless: true,
  },
  {
    id: "requests",
    about: any(
      fields("nested", "req"),
      fields("vcpu", "requests", "mp_state"),
      fields("vmcb01", "control.clean"),
      fields("vmcb02", "control.clean"),
    ),
    minor: true,
  },
  { id: "vmcb02", about: any(all("vmcb02"), fields("nested", "msrpm02", "last_vmcb12_gpa")) },
  { id: "pdptrs", about: family("vcpu", "pdptr"), timeless: true },
  {
    id: "mmu",
    about: fields(
      "nested",
      "mmu",
      "walk",
      "cpu_role",
      "ncpu_role",
      "root_role",
      "gcpu_role",
      "groot_role",
    ),
    timeless: true,
  },
  { id: "ncr3", about: fields("nested", "ctl_ncr3"), odd: notKnownZero },
  {
    id: "tracking",
    about: any(
      fields("nested", "nmi_l1l2", "soft"),
      fields("vcpu", "nmi_l1_to_l2"),
      family("vcpu", "soft_int"),
    ),
    odd: isSet,
  },
  { id: "exit", about: family("vmcb12", "control.exit_") },
  {
    id: "events",
    about: any(
      family("nested", "exc_", "int_", "nmi_"),
      family("vcpu", "vmexit_", "exception_", "interrupt_", "nmi_", "smi_"),
      family("L1", "exception_", "interrupt_", "nmi_"),
    ),
  },
  {
    id: "l1",
    about: any(
      all("L1"),
      fields("nested", "cr0", "cr3", "cr4", "efer", "rip", "rax", "rsp", "rflags"),
    ),
  },
  {
    id: "saved-l1",
    about: fields(
      "vmcb01",
      "save.efer",
      "save.cr0",
      "save.cr3",
      "save.cr4",
      "save.rflags",
      "save.rip",
      "save.rsp",
      "save.rax",
    ),
    timeless: true,
  },
  { id: "vmcb01", about: all("vmcb01") },
  { id: "l2", about: family("vmcb12", "save.") },
];

const OTHER: Subject = { id: "other", about: () => true };

/**
 * What a difference is about.
 *
 * @param difference The difference.
 * @returns The subject.
 */
export function subjectOf(difference: FieldDifference): Subject {
  return SUBJECTS.find(({ about }) => about(difference)) ?? OTHER;
}

/**
 * Which side a title is about: 0 for the first policy, 1 for the other.
 *
 * @param subject What the difference is about.
 * @param difference The difference.
 */
export function oddSide({ odd }: Subject, difference: FieldDifference): 0 | 1 {
  const { a, b, stepA, stepB } = difference;
  if (odd !== undefined) return odd(a, difference) && !odd(b, difference) ? 0 : 1;
  return stepA === undefined && stepB !== undefined ? 0 : 1;
}
