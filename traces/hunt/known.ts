/**
 * Deviations that are known: what a hunt counts and leaves out.
 *
 * @module
 */

import { HARDWARE } from "../../engine/kernels/hardware.ts";
import type { Policy } from "../../engine/policy.ts";
import type { ModelGap } from "./judging.ts";

/** What a known deviation is. */
export type KnownKind =
  /** A simplification that the kernel makes and says so. */
  | "documented"
  /** What a newer kernel does otherwise. */
  | "mended"
  /** The emulated processor beneath. */
  | "emulator"
  /** The model of the kernel. */
  | "model"
  /** What `architectural` leaves open, or borrows from a kernel, where the manual says nothing. */
  | "open"
  /** Reported, or found by a hunt before: see docs/findings.md. */
  | "found";

/** One known deviation from `architectural`, or one known gap of a model. */
export interface Known {
  /** Its name. */
  readonly id: string;
  /** What it is. */
  readonly kind: KnownKind;
  /**
   * Of a deviation: the pieces of the kernel that it comes from; see {@linkcode Pieces}. It is this
   * one when it is gone as soon as `architectural` has them, too.
   */
  readonly pieces?: readonly string[];
  /** Of a gap: what its key and fields are like, as `KEY KERNEL MODEL; FIELD KERNEL MODEL;` and so on. */
  readonly gap?: RegExp;
  /** The kernels that it is known of; all when left out. */
  readonly kernels?: readonly string[];
  /** Why it is so. */
  readonly reason: string;
  /** Where that is said, or what shows it. */
  readonly source: string;
}

/** Kernels before 7.3. */
const BEFORE_7_3 = ["linux-6.1", "linux-6.12", "unified", "early-exit"];
const FINDINGS = "docs/findings.md";

/** The known deviations; where one alone explains it, the first that does is meant. */
export const KNOWN: readonly Known[] = [
  // What the kernels leave out.
  {
    id: "g-pat-unchecked",
    kind: "documented",
    pieces: ["check g-pat"],
    reason: "KVM runs L2 with L1's own PAT, and does not check G_PAT",
    source: "nested_vmcb02_compute_g_pat, which says that the two are to be merged one day",
  },
  {
    id: "event-injection-unchecked",
    kind: "documented",
    pieces: ["check event-injection"],
    kernels: BEFORE_7_3,
    reason: "Before 7.3 EVENTINJ is not checked: what may be injected is up to the processor",
    source: "nested_vmcb_check_controls, which reads no EVENTINJ",
  },
  {
    id: "event-injection-by-vector",
    kind: "documented",
    pieces: ["check event-injection", "check event-inj"],
    kernels: ["linux-7.3"],
    reason: "7.3 goes by the vector alone: #BR and #OF can be injected into 64-bit mode",
    source: "nested_svm_check_event_inj, which does not ask for L2's mode",
  },
  {
    id: "np-without-npt",
    kind: "documented",
    pieces: ["check np-without-npt"],
    kernels: BEFORE_7_3,
    reason: "Before 7.3 NP_ENABLE is refused where KVM has no nested paging, not where L1 has none",
    source: "nested_vmcb_check_controls, which asks for npt_enabled",
  },
  {
    id: "np-cleared-without-npt",
    kind: "documented",
    pieces: ["check np-without-npt", "caching vmcb12", "setstate: cut restored controls"],
    kernels: ["linux-7.3"],
    reason: "7.3 clears NP_ENABLE where L1 has no nested paging, instead of refusing it",
    source: "the copy of vmcb12's controls into the cache",
  },
  {
    id: "first-run-yields",
    kind: "open",
    pieces: ["trait yieldsOnFirstRun"],
    kernels: ["linux-6.1", "linux-7.3"],
    reason:
      "Whether the first KVM_RUN gives the processor away, so that what was to be injected is injected anew",
    source: `kvm_mmu_post_init_vm, which 6.12 calls in the first KVM_RUN; ${FINDINGS}`,
  },
  {
    id: "refused-cr3-overwritten",
    kind: "found",
    pieces: ["check cr3-mbz", "check lme-pg-cr3"],
    reason:
      "Outside long mode CR3 is checked when it is loaded, after the switch: L1's CR3 gets into vmcb12",
    source: FINDINGS,
  },
  {
    id: "l1-cr3-not-reloaded",
    kind: "emulator",
    pieces: ["vmrun: check save fails: load L1 CR3"],
    reason:
      "A check that fails before the switch does not load L1's CR3 again; where it is, with PAE, it meets the Accessed bits that QEMU sets in PDPTEs under nested paging",
    source: `nested_svm_vmrun; ${FINDINGS}`,
  },
  {
    id: "l1-breakpoints-kept",
    kind: "documented",
    pieces: ["vmrun: check save fails: disable breakpoints"],
    reason: "A check that fails before the switch leaves L1's DR7 as it was",
    source: "nested_svm_vmrun; the manual clears it at every #VMEXIT (15.6)",
  },
  {
    id: "unified-cr3-in-l1-mode",
    kind: "found",
    pieces: ["vmrun: order", "vmrun: check save fails: leave guest mode (failed entry)"],
    kernels: ["unified"],
    reason:
      "All that can fail comes before the switch, L2's CR3 too: it is loaded while L1's paging is in force, as if L2 had the same",
    source: FINDINGS,
  },
  {
    id: "checks-before-l1-is-saved",
    kind: "documented",
    pieces: ["vmrun: order", "vmrun: check save fails: cancel run"],
    kernels: ["linux-6.1", "linux-6.12", "linux-7.3", "early-exit"],
    reason: "Checks come before anything of L1 is saved, so a failed one has nothing to take back",
    source: "nested_svm_vmrun",
  },
  {
    id: "which-check-is-first",
    kind: "open",
    pieces: ["order of the checks", "check cs-l-and-d"],
    reason: "Which of several broken rules is found first; the manual gives no order",
    source: "__nested_vmcb_check_save, __nested_vmcb_check_controls",
  },

  {
    id: "single-step-in-dr6",
    kind: "open",
    pieces: ["vmrun: check save fails: trap on completion"],
    kernels: BEFORE_7_3,
    reason:
      "The #DB behind a single-stepped VMRUN whose checks fail comes with DR6.BS, as VMRUN is skipped; `architectural` raises it as a #VMEXIT of KVM's does, without",
    source: "kvm_vcpu_do_singlestep beside the end of nested_svm_vmexit",
  },

  // 7.3.
  {
    id: "vmcb12-not-backed",
    kind: "documented",
    pieces: ["mapping vmcb12 and moving past VMRUN", "vmrun: order"],
    kernels: ["linux-7.3"],
    reason:
      "Where nothing backs vmcb12, 7.3 ends VMRUN with an emulation error to userspace, and a #VMEXIT with a triple fault",
    source: "nested_svm_vmrun, nested_svm_vmexit; the manual knows no memory that is not there",
  },
  {
    id: "failed-vmrun-single-step",
    kind: "found",
    pieces: [
      "mapping vmcb12 and moving past VMRUN",
      ...["vmrun: order", "vmrun: check save fails: trap on completion"],
    ],
    kernels: ["linux-7.3"],
    reason: "A failed VMRUN that is single-stepped raises no #DB any more",
    source: FINDINGS,
  },
  {
    id: "cached-and-cut",
    kind: "documented",
    pieces: ["caching vmcb12", "setstate: cut restored controls"],
    kernels: ["linux-7.3"],
    reason:
      "7.3 copies all of vmcb12 before it checks anything, and cuts off what L1's processor has not got: intercepts of missing instructions, reserved bits of EVENTINJ, all but bit 0 of int_state",
    source: "nested_svm_copy_vmcb12_to_cache and the copy of its controls",
  },
  {
    id: "gif-clear-after-shutdown",
    kind: "open",
    pieces: ["trait clearingSvmeSetsGif"],
    kernels: ["linux-7.3"],
    reason:
      "Where L2 is dropped without a #VMEXIT, 7.3 leaves GIF as it is, and sets it with EFER.SVME cleared",
    source: `svm_leave_nested, svm_set_efer; ${FINDINGS}`,
  },
  {
    id: "svme-cleared-in-l2",
    kind: "documented",
    pieces: ["trait clearingSvmeInL2ShutsDown"],
    kernels: ["linux-7.3"],
    reason: "An L2 that clears EFER.SVME unseen by L1 shuts L1 down",
    source: "svm_set_efer; the manual calls the outcome undefined (3.1.7)",
  },
  {
    id: "restore-of-illegal-l1",
    kind: "documented",
    pieces: ["trait refusesRestoredLmaWithoutLme"],
    kernels: ["linux-7.3"],
    reason: "7.3 refuses to restore an L1 with EFER.LMA and without LME",
    source: "svm_set_nested_state",
  },
  {
    id: "gif-restored-without-svme",
    kind: "documented",
    pieces: ["trait restoresGifWithoutSvme"],
    kernels: ["linux-7.3"],
    reason:
      "Userspace can restore a clear GIF with EFER.SVME clear in 7.3; the others refuse, and GIF stays set",
    source: `svm_set_nested_state; ${FINDINGS}`,
  },
  {
    id: "restored-run-is-marked",
    kind: "documented",
    pieces: ["trait marksRestoredRuns"],
    kernels: ["linux-7.3"],
    reason: "A pending run that userspace restored is told from one that L1 started",
    source: "svm_set_nested_state",
  },
  {
    id: "no-emulation-in-delivery",
    kind: "documented",
    pieces: ["trait emulatesNoDeliveries"],
    kernels: ["linux-7.3"],
    reason:
      "An access that cannot be carried out while an event is delivered ends in an internal error in 7.3; before, KVM emulated the instruction at L2's RIP",
    source: `svm_check_emulate_instruction; ${FINDINGS}`,
  },
  {
    id: "emulated-port-next-rip",
    kind: "open",
    pieces: ["trait emulatesPortsWithNextRip"],
    kernels: ["linux-7.3"],
    reason:
      "EXITINFO2 of an access to a port that KVM emulates: the next RIP in 7.3, as the manual has it; the instruction's own before, which `architectural` borrows",
    source: "svm_check_intercept; the manual, 15.10.2",
  },
  {
    id: "rsm-fails-otherwise",
    kind: "open",
    pieces: ["rsm: result of a failure"],
    reason: "How the vCPU shuts down whose RSM finds a vmcb12 that it refuses",
    source: `svm_leave_smm; ${FINDINGS}`,
  },
  {
    id: "nested-pdptes-read-again",
    kind: "documented",
    pieces: ["trait rereadsNestedPdptes"],
    kernels: ["linux-7.3"],
    reason:
      "7.3 reads the PDPTEs of an L2 under nested paging again, where the others keep stale ones",
    source: "nested_svm_load_cr3",
  },
  {
    id: "other-guest-cpu",
    kind: "documented",
    pieces: [
      ...["guest passesGhcb", "guest offered", "guest notOffered", "guest hiddenLeaves"],
      ...["guest hwcrBits", "guest hwcrKeptByZero", "guest deCfgFixed", "guest counters"],
    ],
    reason: "What KVM shows a guest of its processor (CPUID, HWCR, DE_CFG, performance counters)",
    source: "kvm_set_cpu_caps, svm_set_msr, kvm_set_msr_common",
  },
  {
    id: "other-reserved-bits",
    kind: "documented",
    pieces: ["reserved bits", "check cr4-reserved", "check efer-reserved"],
    reason: "Which bits of CR4 and EFER the kernel knows of, and so lets a guest have",
    source: "__kvm_is_valid_cr4, __kvm_valid_efer",
  },

  // What 6.1 does, and the newer kernels do otherwise.
  {
    id: "6.1-early-eventinj",
    kind: "mended",
    pieces: ["vmrun: check save fails: clear EVENTINJ"],
    kernels: ["linux-6.1", "unified", "early-exit"],
    reason: "A check that fails before the switch leaves EVENTINJ in vmcb12",
    source: "nested_svm_vmrun of 6.1, which writes the exit code and infos only",
  },
  {
    id: "6.1-vmexit-eventinj",
    kind: "mended",
    pieces: [
      ...["vmexit: clear EVENTINJ", "vmexit: write back EVENTINJ and TLB control"],
      "vmexit: write back EVENTINJ",
    ],
    kernels: ["linux-6.1", "unified", "early-exit"],
    reason: "A #VMEXIT writes EVENTINJ (6.1: and TLB control) back as they were cached",
    source: "nested_svm_vmexit of 6.1",
  },
  {
    id: "6.1-rsm-unchecked",
    kind: "mended",
    pieces: ["rsm: check save", "rsm: check controls"],
    kernels: ["linux-6.1", "early-exit"],
    reason: "RSM copies vmcb12 into the cache and enters L2 without a check",
    source: "svm_leave_smm of 6.1",
  },
  {
    id: "6.1-tracking-kept",
    kind: "mended",
    pieces: ["vmexit: drop injection tracking"],
    kernels: ["linux-6.1", "unified", "early-exit"],
    reason: "What was injected for L1 is not forgotten at a #VMEXIT",
    source: "nested_svm_vmexit of 6.1",
  },
  {
    id: "6.1-unreachable-root",
    kind: "found",
    pieces: ["trait shadowsUnreachableRoots"],
    kernels: ["linux-6.1"],
    reason:
      "A root of L1's page tables beyond memory shuts L2 down before it has run, which breaks the assertion that no run is pending",
    source: `mmu_check_root of 6.1; ${FINDINGS}`,
  },
  {
    id: "6.1-failed-rsm-stays-in-l2",
    kind: "found",
    pieces: ["trait failedRsmLeavesL2"],
    kernels: ["linux-6.1"],
    reason: "An RSM that fails behind the switch shuts the vCPU down in L2, with the run pending",
    source: `em_rsm of 6.1, which never leaves L2 again; ${FINDINGS}`,
  },
  {
    id: "6.1-failed-rsm-ends",
    kind: "mended",
    pieces: ["trait failedRsmCompletes"],
    kernels: ["linux-6.1"],
    reason:
      "An RSM that fails is over in 6.1; 6.12 still asks which mode it left, and may raise #UD",
    source: "em_rsm of both; emulator_recalc_and_set_mode",
  },
  {
    id: "6.1-payload-shown-late",
    kind: "mended",
    pieces: ["trait showsPayloads"],
    kernels: ["linux-6.1"],
    reason:
      "What a waiting #DB or #PF brings (DR6, CR2) is not among the registers that userspace reads before the events, and so is lost where they are restored",
    source: "kvm_vcpu_ioctl_x86_get_vcpu_events of 6.1; kvm_handle_exception_payload_quirk of 6.12",
  },
  {
    id: "6.1-nmis-not-counted",
    kind: "mended",
    pieces: ["trait countsWaitingNmis"],
    kernels: ["linux-6.1"],
    reason:
      "6.1 tells userspace whether NMIs wait, the newer ones how many do: two come back as one",
    source: "kvm_vcpu_ioctl_x86_get_vcpu_events of both",
  },
  {
    id: "6.1-nmi-mask-and-init",
    kind: "mended",
    pieces: ["trait flags"],
    kernels: ["linux-6.1"],
    reason: "INIT, which a shutdown brings, unmasks NMIs, as the mask is one of hflags",
    source: "kvm_vcpu_reset of 6.1 clears hflags; 6.12 clears svm->nmi_masked at a reset only",
  },
  {
    id: "6.1-lma-without-lme",
    kind: "mended",
    pieces: ["trait ignoresLmaWithoutLme", "trait givesUpLongModeWithoutPae"],
    kernels: ["linux-6.1"],
    reason:
      "EFER.LMA without LME is loaded into L2 as it stands, and long mode without CR4.PAE is computed with",
    source: "svm_set_efer and is_long_mode of 6.1",
  },
  {
    id: "6.1-vmmcall",
    kind: "mended",
    pieces: ["trait interceptsVmmcallOfL2"],
    kernels: ["linux-6.1"],
    reason:
      "A VMMCALL that L1 does not intercept is #UD on the processor, which 6.1 intercepts, writes a VMMCALL over it, and lets L2 try again, for ever",
    source: "recalc_intercepts, handle_ud and em_hypercall of 6.1; vmmcall_interception of 6.12",
  },
  {
    id: "6.1-vnmi-unknown",
    kind: "documented",
    pieces: ["check vnmi-without-nmi-intercept"],
    kernels: ["linux-6.1"],
    reason: "6.1 knows no virtual NMIs",
    source: "nested.c of 6.1",
  },
  {
    id: "6.1-sregs-efer",
    kind: "mended",
    pieces: ["trait checksEferOfSregs"],
    kernels: ["linux-6.1"],
    reason: "KVM_SET_SREGS takes an EFER that the guest's CPUID does not allow",
    source: "kvm_is_valid_sregs of 6.1",
  },
  {
    id: "6.1-state-pages-given-up",
    kind: "mended",
    pieces: ["trait retriesStatePages"],
    kernels: ["linux-6.1"],
    reason:
      "State pages that cannot be loaded end KVM_RUN without a reason, and are not asked for again",
    source: "vcpu_enter_guest and svm_get_nested_state_pages of 6.1",
  },
  {
    id: "6.1-rsm-by-hand",
    kind: "mended",
    pieces: ["trait rsmKeepsHighHalves", "trait rsmCutsLimits", "trait keepsShadowInSmram"],
    kernels: ["linux-6.1"],
    reason:
      "RSM adds the high halves of CR0 and CR4, takes limits of 20 bits, and knows no interrupt shadow",
    source: "rsm_enter_protected_mode and rsm_load_seg_64 of 6.1",
  },
  {
    id: "6.1-smi-in-l2",
    kind: "mended",
    pieces: ["trait givesUpFailedSmi"],
    kernels: ["linux-6.1"],
    reason: "An SMI in an L2 whose vmcb12 is not mapped goes on; 6.12 gives the virtual machine up",
    source: "enter_smm of 6.1",
  },
  {
    id: "6.1-vintr",
    kind: "mended",
    pieces: ["trait vintrByMaskingAlone", "trait requestsEventsOnVmexit"],
    kernels: ["linux-6.1"],
    reason:
      "V_INTR_MASKING alone decides who owns the virtual interrupt, and a #VMEXIT does not look for events",
    source: "recalc_intercepts and nested_svm_vmexit of 6.1",
  },
  {
    id: "6.1-bookkeeping",
    kind: "mended",
    pieces: [
      "trait freeingDropsTracking",
      "trait keepsExitReason",
      "trait keepsCleanBitsOfRefused",
    ],
    kernels: ["linux-6.1"],
    reason: "When tracking is forgotten and the exit reason of an earlier KVM_RUN stays",
    source: "svm_leave_nested, kvm_arch_vcpu_ioctl_run of 6.1",
  },

  // The two policies of the patch.
  {
    id: "unified-refused-rsm",
    kind: "found",
    pieces: ["rsm: order", "vmexit: assert vmcb02"],
    kernels: ["unified"],
    reason:
      "A vmcb12 that RSM refuses is left by the #VMEXIT for L2 before vmcb02 is current: an assertion breaks, and L1's registers get into vmcb12",
    source: FINDINGS,
  },
  {
    id: "early-exit-gif",
    kind: "mended",
    pieces: ["vmrun: check save fails: clear GIF"],
    kernels: ["early-exit"],
    reason: "A check that fails before the switch leaves GIF set",
    source: "nested_svm_vmrun before the fixes",
  },

  // Gaps of the models.
  {
    id: "clock-unstable",
    kind: "emulator",
    // Requests 21 (master clock) and 24 (global clock), and the clean bit of the TSC offset.
    gap:
      /^gap\|\w+\|(?:setstate\.cpu\.req (\w*)(?:0(\w{5}) \1(?:2)\2|1(\w{6}) \1(?:0)\3)|vmexit\.vmcb02 control\.clean (\w+)6 \4(?:7));/,
    reason:
      "A kernel that found its host's TSC unstable asks for no master clock, and writes the TSC offset anew",
    source: "kvm_guest_time_update; depends on the boot, not on the case",
  },
  {
    id: "steal-time",
    kind: "emulator",
    // Request 16, which an interrupt of the host's can bring at any time.
    gap: /^gap\|\w+\|\w+\.cpu\.req (?:(\w*)1(\w{4}) \1(?:0)\2|10000 0);/,
    kernels: BEFORE_7_3,
    reason: "The host's scheduler took the processor away: the steal time is to be updated",
    source: "kvm_arch_vcpu_load; depends on the host's interrupts, not on the case",
  },
  {
    id: "delivery-disturbed",
    kind: "found",
    gap:
      /^gap\|\w+\|vmexit\.(?:cpu\.(?:soft|nmi_l1l2) |vmcb02 control\.exit_(?:.*exit_)?int_info (?:80000200 800002\w\w|0 80000[34]\w\w);)/,
    reason:
      "Whether L2's first entry is disturbed is chance: what was injected is then queued anew, an NMI without its vector, a software event not at all",
    source: `svm_complete_interrupts; ${FINDINGS}`,
  },
  {
    id: "runs-into-nothing",
    kind: "model",
    // Programs lie in the pages 8, 9 and 0xb, and at the reset vector.
    gap: /^gap\|\w+\|(?:unmodelled |(?:mid|post|restored)\.rip (?![89b]\w{3} |fff0 ))/,
    reason:
      "L1 or L2 runs on into memory that holds no program: how far it gets is up to the host's clock, or not modelled",
    source: "what `predict` calls not modelled; asked again, it is elsewhere",
  },
];

/**
 * Those of a list that can be met.
 *
 * @param kernel The policy that is asked: the rows of its name, and of the kernel that it works on.
 * @param against What it is held against: deviations are known from what the manual says.
 * @param list The list.
 */
export function knownIn(
  { name, kernel }: Policy,
  against: Policy,
  list: readonly Known[] = KNOWN,
): readonly Known[] {
  return list.filter(({ kernels, gap }) =>
    (kernels === undefined || kernels.includes(name) || kernels.includes(kernel.name)) &&
    (gap !== undefined || against.kernel.name === HARDWARE.name)
  );
}

/**
 * The known gap that this one is.
 *
 * @param gap A gap of the kernel's model.
 * @param known What is known of the kernel.
 * @returns It; undefined when it is not known.
 */
export function knownGap({ key, fields }: ModelGap, known: readonly Known[]): Known | undefined {
  const text = fields.map(({ field, a, b }, i) => `${i === 0 ? key : field} ${a} ${b};`).join(" ");
  return known.find(({ gap }) => gap?.test(text));
}
