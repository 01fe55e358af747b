/**
 * Deviations that are known: what a hunt counts and leaves out.
 *
 * @module
 */

/** What a known deviation is. */
export type KnownKind =
  /** A simplification that the kernel makes and says so. */
  | "documented"
  /** The emulated processor beneath. */
  | "emulator"
  /** The model of the kernel. */
  | "model"
  /** What `architectural` leaves open, or borrows from a kernel, where the manual says nothing. */
  | "open"
  /** Reported, or found by a hunt before: see docs/findings.md. */
  | "found";

/** One known deviation. */
export interface Known {
  /** Its name. */
  readonly id: string;
  /** What it is. */
  readonly kind: KnownKind;
  /** What its key is like; see {@linkcode Deviation.key} and {@linkcode ModelGap.key}. */
  readonly key: RegExp;
  /** The kernels that it is known of; all when left out. */
  readonly kernels?: readonly string[];
  /** Why it is so. */
  readonly reason: string;
  /** Where that is said, or what shows it. */
  readonly source: string;
}

/** The known deviations; the first that fits is meant. */
export const KNOWN: readonly Known[] = [
  {
    id: "clock-unstable",
    kind: "emulator",
    key: /^gap\|\w+\|(setstate\.cpu\.req|vmexit\.vmcb02 control\.clean)$/,
    reason:
      "A kernel that found its host's TSC unstable asks for no master clock, and writes the TSC offset anew",
    source: "kvm_guest_time_update; depends on the boot, not on the case",
  },
  {
    id: "runs-into-nothing",
    kind: "model",
    key: /^gap\|\w+\|unmodelled$/,
    reason: "L1 or L2 runs on into memory that holds no program; the model gives up and says so",
    source: "what `predict` calls not modelled",
  },
  {
    id: "pae-l1-accessed-bits",
    kind: "emulator",
    key: /^outcome\|\w+\|[^|]*:vmcb12(,vmcb12)*\|architectural:[^|]*pdptrs/,
    reason:
      "Under nested paging of its own, QEMU sets Accessed bits in the PDPTEs of an L1 with PAE, which are then refused when L1's CR3 is loaded again",
    source: "docs/findings.md, known before",
  },

  // What a kernel leaves out and says so.
  {
    id: "g-pat-unchecked",
    kind: "documented",
    key: /^outcome\|\w+\|[^|]*:\|architectural:vmcb12\|g-pat$/,
    reason: "KVM does not use L1's G_PAT, and does not check it",
    source: "a FIXME in nested_vmcb02_compute_g_pat",
  },
  {
    id: "event-injection-unchecked",
    kind: "documented",
    key: /^outcome\|\w+\|[^|]*:\|architectural:vmcb12\|event-injection$/,
    reason:
      "KVM checks EVENTINJ not at all before 7.3, and 7.3 takes #BR and #OF in 64-bit mode; the processor beneath decides, and QEMU's injects any vector",
    source: "nested_svm_check_event_inj; docs/processors.md, injectsAnyVector",
  },
  {
    id: "np-without-npt",
    kind: "documented",
    key: /\|np-without-npt$/,
    kernels: ["linux-7.3"],
    reason: "7.3 clears NP_ENABLE where L1 has no NPT, instead of refusing it",
    source: "nested_svm_sanitize_control, and the check that was removed for it",
  },
  {
    id: "intercept-of-missing-instruction",
    kind: "documented",
    key:
      /SVM_EXIT_SHUTDOWN\] 0x[0-9a-f]+ \[SVM_EXIT_SKINIT\]|^l2\|#VMEXIT\|architectural\|vmcb12 save\.rflags$|^events\|between\|architectural\|L1 exception_vector$/,
    kernels: ["linux-7.3"],
    reason: "7.3 drops the intercepts of instructions that L1's processor has not got: L2 gets #UD",
    source: "nested_svm_sanitize_control",
  },
  {
    id: "vmcb12-not-backed",
    kind: "documented",
    key:
      /^(events\|(refused|between|#VMEXIT)|l1\|(between|#VMEXIT)|guest-mode\|#VMEXIT|outcome\|vmrun\|linux-7\.3:\|architectural:\|ends in an internal error)\|/,
    kernels: ["linux-7.3"],
    reason:
      "Where nothing backs vmcb12, 7.3 ends VMRUN with an emulation error to userspace, and a #VMEXIT with a triple fault; the manual has no such memory",
    source: "nested_svm_vmrun, nested_svm_vmexit",
  },
  {
    id: "int-state-cut",
    kind: "documented",
    key: /^other\|late failure\|architectural\|vmcb12 control\.int_state$/,
    kernels: ["linux-7.3"],
    reason: "7.3 keeps bit 0 of int_state only",
    source: "nested_copy_vmcb_control_to_cache",
  },

  // What the manual says nothing of.
  {
    id: "rsm-refused",
    kind: "open",
    key: /^(gif\|[^|]*\|architectural\|nested gif$|outcome\|rsm\|[^|]*:(vmcb12|cr3-legal)\|)/,
    reason:
      "How a hypervisor shuts a vCPU down whose RSM finds a vmcb12 that it refuses: 7.3 has restored L1 by then, with GIF clear",
    source: "svm_leave_smm; docs/findings.md",
  },
  {
    id: "restore-refused",
    kind: "open",
    key: /^outcome\|setstate\|[^|]*:vmcb12(,vmcb12)*\|architectural:(vmcb12|$|\|)/,
    reason: "Which of several broken rules makes KVM_SET_NESTED_STATE fail, and what L1 does then",
    source: "svm_set_nested_state",
  },

  {
    id: "restore-of-illegal-l1",
    kind: "documented",
    key: /^(gif|exit|l2)\|#VMEXIT\|linux-7\.3\|/,
    kernels: ["linux-7.3"],
    reason: "7.3 refuses to restore an L1 with EFER.LMA and without LME",
    source: "svm_set_nested_state",
  },

  // Found by hunts.
  {
    id: "refused-cr3-overwritten",
    kind: "found",
    key: /^outcome\|\w+\|[^|]*:(cr3-legal|pdptrs)(,pdptrs)?\|architectural:vmcb12\|/,
    reason: "A VMRUN that is refused for its CR3 or PDPTEs leaves L1's CR3 in vmcb12",
    source: "docs/findings.md",
  },
  {
    id: "soft-event-lost",
    kind: "found",
    key:
      /^exit\|#VMEXIT\|.*(SVM_EXIT_SHUTDOWN\] 0x81 \[SVM_EXIT_VMMCALL\],|\|)vmcb12 control\.exit_in/,
    kernels: ["linux-6.12", "linux-7.3"],
    reason:
      "A software interrupt or #BP that L1 injects is lost when L2's first entry is disturbed",
    source: "docs/findings.md",
  },
  {
    id: "soft-event-unsteady",
    kind: "found",
    key: /^gap\|\w+\|vmexit\.cpu\.(soft|nmi_l1l2)$/,
    reason:
      "Whether the delivery of an injected event is disturbed depends on the host's interrupts and page faults",
    source: "docs/findings.md",
  },
  {
    id: "failed-vmrun-single-step",
    kind: "found",
    key: /^outcome\|vmrun\|linux-7\.3:vmcb12\|architectural:vmcb12\|shuts down\|ends in/,
    kernels: ["linux-7.3"],
    reason: "A failed VMRUN that is single-stepped raises no #DB any more",
    source: "docs/findings.md",
  },

  // An old kernel, and what the newer ones mended.
  {
    id: "6.1-eventinj",
    kind: "documented",
    key: /^(eventinj\||outcome\|vmrun\|linux-6\.1:vmcb12(,vmcb12)*\|architectural:vmcb12)/,
    kernels: ["linux-6.1"],
    reason: "6.1 leaves EVENTINJ in vmcb12; 6.12 clears it",
    source: "docs/policies.md",
  },
  {
    id: "6.1-rsm-unchecked",
    kind: "documented",
    key: /^outcome\|rsm\|linux-6\.1:(pdptrs)?\|architectural:/,
    kernels: ["linux-6.1"],
    reason: "RSM of 6.1 checks nothing; 6.12 does",
    source: "docs/policies.md",
  },
  {
    id: "6.1-run-pending-assertion",
    kind: "found",
    key: /^outcome\|vmexit\|linux-6\.1:(assertion|pdptrs|\|)/,
    kernels: ["linux-6.1"],
    reason: "L1 can make 6.1 break the assertion that no run is pending at a #VMEXIT",
    source: "docs/findings.md",
  },
  {
    id: "6.1-nmi-masked",
    kind: "documented",
    key: /^events\|between\|architectural\|L1 nmi_masked$/,
    kernels: ["linux-6.1"],
    reason: "6.1 does not mask NMIs while L1 handles a #VMEXIT for one",
    source: "docs/policies.md",
  },
  {
    id: "6.1-vnmi",
    kind: "documented",
    key: /\|vnmi-without-nmi-intercept$/,
    kernels: ["linux-6.1"],
    reason: "6.1 knows no virtual NMIs",
    source: "docs/policies.md",
  },
  {
    id: "6.1-pdptrs",
    kind: "documented",
    key: /^outcome\|(vmrun|pages|vmexit)\|linux-6\.1:[^|]*\|architectural:.*pdptrs(-pages)?$/,
    kernels: ["linux-6.1"],
    reason:
      "EFER.LMA without LME: 6.1 leaves it, and goes by it where it asks for L2's paging mode",
    source: "svm_set_efer",
  },
];

/**
 * The known deviation that a key belongs to.
 *
 * @param key The key of a deviation or a gap.
 * @param kernel The kernel that was asked.
 * @param list The known ones.
 * @returns It; undefined when it is not known.
 */
export function knownOf(
  key: string,
  kernel: string,
  list: readonly Known[] = KNOWN,
): Known | undefined {
  return list.find((known) => known.key.test(key) && known.kernels?.includes(kernel) !== false);
}
