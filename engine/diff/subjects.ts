/**
 * What differences are about, in the words of people who work on nested SVM:
 * the fields that make up one subject, and how to say that they differ.
 *
 * @module
 */
import type { FieldDifference, Moment } from "./run_difference.ts";

/** Who does what, for a title. */
export interface Telling {
  /** The policy that leaves the field, or whose value is the odd one. */
  readonly odd: string;
  /** The other policy. */
  readonly other: string;
  /** When it happens, such as ` after a failed consistency check`; empty when that is not known. */
  readonly when: string;
  /** The difference itself, as first seen. */
  readonly first: FieldDifference;
  /** Names of all fields, the most frequent first. */
  readonly fields: readonly string[];
}

/** One subject. */
export interface Subject {
  /** Stable id. */
  readonly id: string;
  /** The fields, as `AREA FIELD`. */
  readonly fields: RegExp;
  /** The bits, where only some of a field's are meant. */
  readonly bits?: readonly string[];
  /** What it is called. */
  readonly noun: string;
  /** The value under the policy that the title is about: the odd one out. Otherwise who leaves it. */
  readonly odd?: RegExp;
  /** One mechanism whenever it shows, not one for each kind of transition. */
  readonly timeless?: boolean;
  /** Belongs to another subject that differs in the same transition, if there is one. */
  readonly minor?: boolean;
  /** Says it. */
  title(telling: Telling): string;
}

const stays = (noun: string) => ({ odd, when }: Telling) =>
  `${noun} stays set${when || " after the run"} under ${odd}`;

/** All subjects; the first that fits is meant. */
export const SUBJECTS: readonly Subject[] = [
  {
    id: "gif",
    fields: /^(nested gif|vmcb01 control\.int_ctl)$/,
    bits: ["V_GIF"],
    noun: "GIF",
    odd: /^0x(1|[0-9a-f]*[2367abef][0-9a-f]{2})\b/,
    title: stays("GIF"),
  },
  {
    id: "eventinj",
    fields: /^vmcb12 control\.event_inj(_err)?$/,
    noun: "EVENTINJ in vmcb12",
    odd: /^(?!0x0\b)/,
    title: ({ odd, when }) => `EVENTINJ stays in vmcb12${when} under ${odd}`,
  },
  {
    id: "msrpm01",
    fields: /^nested msrpm01$/,
    noun: "vmcb01's MSR bitmap",
    odd: /merged/,
    timeless: true,
    title: ({ odd }) =>
      `vmcb01 points at the merged MSR bitmap under ${odd}: L1 runs with L2's from then on`,
  },
  {
    id: "msrpm-recalc",
    fields: /^nested msrpm_recalc$/,
    noun: 'the MSR bitmap\'s "recalculate" flag',
    odd: /^0x1/,
    title: ({ odd, when }) => `The MSR bitmap's "recalculate" flag stays set${when} under ${odd}`,
  },
  {
    id: "vmcb12-gpa",
    fields: /^nested vmcb12_gpa$/,
    noun: "the address of the vmcb12 in use",
    title: ({ odd, other, when }) =>
      `${other} clears the noted address of vmcb12${when}, ${odd} leaves it`,
  },
  {
    id: "guest-mode",
    fields: /^nested (guest_mode|active|run_pending)$/,
    noun: "guest mode",
    odd: /^0x[12]/,
    title: ({ odd, other, when }) => `${odd} is left in guest mode${when}, ${other} is not`,
  },
  {
    id: "requests",
    fields: /^(nested req|vcpu requests|vcpu mp_state|vmcb0[12] control\.clean)$/,
    minor: true,
    noun: "requests to the vCPU",
    title: ({ when }) => `Other requests wait for the vCPU${when}`,
  },
  {
    id: "vmcb02",
    fields: /^(vmcb02 .*|nested (msrpm02|last_vmcb12_gpa))$/,
    noun: "vmcb02",
    title: ({ odd, other, when }) =>
      when.includes("failure") || when.includes("failed")
        ? `vmcb02 has been filled already${when} under ${other}, not under ${odd}`
        : `vmcb02 is not the same${when}`,
  },
  {
    id: "pdptrs",
    fields: /^vcpu (pdptr\d|pdptrs_.*)$/,
    noun: "the cached PDPTRs",
    timeless: true,
    title: () => "The cached PDPTRs differ: they were loaded for another paging mode",
  },
  {
    id: "mmu",
    fields: /^nested (mmu|walk|n?cpu_role|root_role|g(cpu|root)_role)$/,
    noun: "the MMU's mode",
    timeless: true,
    title: () => "The MMU is set up for another paging mode",
  },
  {
    id: "ncr3",
    fields: /^nested ctl_ncr3$/,
    noun: "the cached nCR3",
    odd: /^(?!0x0\b)/,
    title: ({ odd, when }) => `L1's nCR3 stays cached${when} under ${odd}`,
  },
  {
    id: "tracking",
    fields: /^(nested (nmi_l1l2|soft)|vcpu (nmi_l1_to_l2|soft_int.*))$/,
    noun: "the tracking of events that L1 injected",
    odd: /^0x1/,
    title: ({ odd, when }) => `An event that L1 injected stays tracked${when} under ${odd}`,
  },
  {
    id: "exit",
    fields: /^vmcb12 control\.exit_.*$/,
    noun: "the #VMEXIT that L1 sees",
    title: ({ odd, other }) => `L1 sees another #VMEXIT under ${odd} than under ${other}`,
  },
  {
    id: "events",
    fields:
      /^(nested (exc|int|nmi)_.*|vcpu (vmexit|exception|interrupt|nmi|smi)_.*|L1 (exc|int|nmi).*)$/,
    noun: "queued events",
    title: ({ when }) => `Other events are queued${when}`,
  },
  {
    id: "l1",
    fields: /^(L1 .*|nested (cr\d|efer|rip|rax|rsp|rflags))$/,
    noun: "the registers",
    title: ({ fields, when }) => `The registers differ${when}: ${shortNames(fields)}`,
  },
  {
    id: "saved-l1",
    fields: /^vmcb01 save\.(efer|cr0|cr3|cr4|rflags|rip|rsp|rax)$/,
    noun: "L1's registers in vmcb01",
    timeless: true,
    title: ({ odd, other, when, first }) =>
      first.stepA === undefined || first.stepB === undefined
        ? `${other} has saved L1 in vmcb01${when}, ${odd} has not`
        : `vmcb01 holds other registers of L1${when}`,
  },
  {
    id: "vmcb01",
    fields: /^vmcb01 .*$/,
    noun: "vmcb01",
    title: ({ fields, when }) => `vmcb01 is not the same${when}: ${shortNames(fields)}`,
  },
  {
    id: "l2",
    fields: /^vmcb12 save\..*$/,
    noun: "L2's registers in vmcb12",
    title: ({ fields, when }) => `vmcb12 holds other registers of L2${when}: ${shortNames(fields)}`,
  },
];

const OTHER: Subject = {
  id: "other",
  fields: /^/,
  noun: "other state",
  title: ({ fields, when }) => `Other state differs${when}: ${shortNames(fields)}`,
};

/** How many fields a title names. */
const NAMED = 3;

function shortNames(fields: readonly string[]): string {
  const names = fields.slice(0, NAMED).map((field) =>
    field.replace(/^\S+ /, "").replace(/^(save|control)\./, "")
  );
  return names.join(", ") + (fields.length > NAMED ? ", …" : "");
}

/** What a moment is called after a title. */
export const MOMENTS: Readonly<Record<Moment, string>> = {
  "entry": " after VMRUN",
  "failed check": " after a failed consistency check",
  "late failure": " after a late failure (CR3 or MSR bitmap)",
  "refused": " after a refused VMRUN",
  "#VMEXIT": " after a #VMEXIT",
  "RSM": " after RSM",
  "failed RSM": " after a failed RSM",
  "restore": " after restoring nested state",
  "failed restore": " after a failed restore of nested state",
  "pages": " after L2's pages were fetched",
};

/**
 * What a difference is about.
 *
 * @param difference The difference.
 * @returns The subject.
 */
export function subjectOf(difference: FieldDifference): Subject {
  const name = `${difference.area} ${difference.field}`;
  return SUBJECTS.find(({ fields, bits }) =>
    fields.test(name) &&
    (bits === undefined || difference.bits.length === 0 ||
      difference.bits.every((bit) => bits.includes(bit)))
  ) ?? OTHER;
}

/**
 * Which side a title is about: 0 for the first policy, 1 for the other.
 *
 * @param subject What the difference is about.
 * @param difference The difference.
 */
export function oddSide(subject: Subject, difference: FieldDifference): 0 | 1 {
  const { a, b, stepA, stepB } = difference;
  if (subject.odd !== undefined) return subject.odd.test(a) && !subject.odd.test(b) ? 0 : 1;
  return stepA === undefined && stepB !== undefined ? 0 : 1;
}
