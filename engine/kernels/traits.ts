/**
 * Where kernels part in what lies beneath the steps: how KVM injects, runs and resolves faults.
 *
 * @module
 */

import type { GuestTraits } from "./guest_traits.ts";

/** Bits of hflags, each 0 where the kernel keeps the fact elsewhere. */
export interface FlagBits {
  /** L2 runs. */
  readonly guest: number;
  /** The vCPU is in system management mode. */
  readonly smm: number;
  /** The SMI came while NMIs were masked. */
  readonly smmInsideNmi: number;
  /** NMIs are masked. */
  readonly nmiMasked: number;
  /** An IRET was intercepted and has not retired. */
  readonly awaitingIret: number;
}

/** What a kernel does outside the steps of its ways, by named facts; the engine never asks for its name. */
export interface KernelTraits {
  /** What a guest sees of its processor. */
  readonly guest: GuestTraits;
  /** The bits of hflags (HF_*_MASK). */
  readonly flags: FlagBits;
  /** A new CPUID marks the roles of the MMUs as invalid (bit 11), rather than clearing them. */
  readonly invalidatesRoles: boolean;
  /** EFER.LMA of vmcb12 is ignored where EFER.LME is clear; else it is loaded as it stands. */
  readonly ignoresLmaWithoutLme: boolean;
  /** Long mode without CR4.PAE makes KVM give the virtual machine up, rather than being computed with. */
  readonly givesUpLongModeWithoutPae: boolean;
  /** A root beyond guest memory is shadowed by an empty page, and bits beyond bit 51 do not count; else it is a triple fault. */
  readonly shadowsUnreachableRoots: boolean;
  /** The last-branch records are copied at every switch, also while nobody records branches. */
  readonly copiesLbrsAlways: boolean;
  /** A refused entry leaves the clean bits and TLB control of the VMCB as they were. */
  readonly keepsCleanBitsOfRefused: boolean;
  /** KVM_SET_SREGS refuses an EFER that L1's CPUID does not allow. */
  readonly checksEferOfSregs: boolean;
  /** KVM_SET_SREGS requests a flush of the guest's TLB when it resets the MMU. */
  readonly flushesOnSregs: boolean;
  /** V_INTR_MASKING alone decides who owns VINTR while L2 runs; else L1's RFLAGS.IF and its own intercept do. */
  readonly vintrByMaskingAlone: boolean;
  /** L0 intercepts VMMCALL while L2 runs although L1 does not, and answers with #UD. */
  readonly interceptsVmmcallOfL2: boolean;
  /** A #VMEXIT asks for events to be looked at where L1 does not intercept INTR. */
  readonly requestsEventsOnVmexit: boolean;
  /** A failure to leave L2 for an SMI makes KVM give the virtual machine up, rather than going on. */
  readonly givesUpFailedSmi: boolean;
  /** An SMI cannot leave L2 where L1's CPUID lacks long mode, whose SMRAM has no room for that. */
  readonly needsLongModeForSmi: boolean;
  /** The interrupt shadow is kept in SMRAM, and comes back with RSM. */
  readonly keepsShadowInSmram: boolean;
  /** An RSM that fails after L2 was entered leaves L2 again before the vCPU shuts down. */
  readonly failedRsmLeavesL2: boolean;
  /** An RSM that fails shuts down whatever mode it leaves; else one in an impossible mode is #UD, too. */
  readonly failedRsmCompletes: boolean;
  /** RSM without a host save area returns at once; else by the way on which it releases vmcb12. */
  readonly endsRsmWithoutHsave: boolean;
  /** RSM adds the high halves of CR0 and CR4 as they are to those it loads. */
  readonly rsmKeepsHighHalves: boolean;
  /** RSM loads segments by way of descriptors, whose limits have 20 bits. */
  readonly rsmCutsLimits: boolean;
  /**
   * All ioctls that show registers first hand over what a waiting exception brings (DR6, CR2); else
   * only KVM_GET_VCPU_EVENTS does, which comes after them.
   */
  readonly showsPayloads: boolean;
  /** Userspace is told how many NMIs wait; else whether one does. */
  readonly countsWaitingNmis: boolean;
  /** KVM_RUN leaves the exit reason of the last run where it has none of its own. */
  readonly keepsExitReason: boolean;
  /** State pages that cannot be loaded are an internal error, and stay requested; else only a bitmap is, and KVM_RUN ends. */
  readonly retriesStatePages: boolean;
  /** Freeing nested state, as EFER.SVME is cleared, also forgets what L1 injected. */
  readonly freeingDropsTracking: boolean;
  /** Clean bits of a VMCB after a run (VMCB_ALL_CLEAN_MASK less those always dirty). */
  readonly cleanBits: number;
  /**
   * VMLOAD and VMSAVE take of RAX what the mode has of it, and KVM_RUN ends with an internal error
   * where that page is not in memory; else all of RAX counts, and they are #GP there.
   */
  readonly stopsWithoutVmcbPage: boolean;
  /** L0 intercepts ICEBP. */
  readonly interceptsIcebp: boolean;
  /**
   * Intercepts that follow from the guest's CPUID and EFER.SVME are recomputed by a request
   * (KVM_REQ_RECALC_INTERCEPTS), with the MSR bitmap; else vGIF's are never made.
   */
  readonly recalcsByRequest: boolean;
  /** Loading a vCPU asks for its steal time to be updated. */
  readonly updatesStealTime: boolean;
  /** Clearing EFER.SVME while L2 runs shuts L1 down; else L1 goes on where L2 was. */
  readonly clearingSvmeInL2ShutsDown: boolean;
  /** Clearing EFER.SVME sets GIF; else dropping an L2 without a #VMEXIT does. */
  readonly clearingSvmeSetsGif: boolean;
  /** vmcb02 gets the PAT only where the hypervisor uses nested paging. */
  readonly copiesPatForNptOnly: boolean;
  /** An L1 state with EFER.LMA and without EFER.LME is not restored. */
  readonly refusesRestoredLmaWithoutLme: boolean;
  /** GIF can be restored as clear with EFER.SVME clear. */
  readonly restoresGifWithoutSvme: boolean;
  /** A run that userspace restored as pending is told from one that L1 started, and breaks no assertion. */
  readonly marksRestoredRuns: boolean;
  /**
   * An instruction whose fault came while an event was delivered is not emulated: KVM_RUN ends with
   * an internal error, or the guest faults again (svm_check_emulate_instruction).
   */
  readonly emulatesNoDeliveries: boolean;
  /** EXITINFO2 of an access to a port that the emulator lets L1 have is the next RIP; else that of the instruction. */
  readonly emulatesPortsWithNextRip: boolean;
  /** An L2 that took a bus lock at the RIP it is entered at is let through once. */
  readonly tracksBusLocks: boolean;
  /** The next RIP of a restored L2 that had run is taken over, even where the processor has none. */
  readonly takesNextRipOfStoppedL2: boolean;
  /** An L2 in PAE mode under nested paging has its PDPTEs read again; else stale ones stay. */
  readonly rereadsNestedPdptes: boolean;
  /**
   * The first KVM_RUN of a virtual machine starts a worker thread, which takes the processor: what was
   * about to be injected is taken back and injected anew. Likely where there is one processor, not sure.
   */
  readonly yieldsOnFirstRun: boolean;
}
