/**
 * Steps of the other ways into L2: RSM, and restoring nested state.
 *
 * @module
 */
import { MAPPED_AT, S, V, VMCB01_AT, VMCB02_AT } from "../svm/machine.ts";
import { END, FAIL, OK, type Step } from "../policy.ts";
import { CR0, EFER, KVM_EXIT, REQ, RFLAGS, RUN } from "../kvm/constants.ts";
import { loadCr3 } from "../kvm/mmu.ts";
import { loadPdptrs } from "../paging/pdptrs.ts";
import { merge } from "../kvm/msrpm.ts";
import { leaveNested } from "../kvm/nested_state.ts";
import { markAllDirty, nestedNpt, setGif } from "../kvm/control.ts";
import { copyRunState, SMRAM } from "../kvm/smm.ts";
import { address, cacheControl, checkGroup, mapPage, reportCheck } from "./vmcb12.ts";

/** RSM goes back to L2 only with SVM enabled in the saved EFER. */
export const requireSavedSvme: Step = {
  name: "require saved EFER.SVME",
  doc: "Refuses when the state save area's EFER.SVME is clear",
  run(v) {
    const area = v.smram as Uint8Array;
    return ((area[SMRAM.efer + 1] as number) << 8 & EFER.SVME) !== 0 ? OK : END;
  },
};

/** Maps the vmcb12 that L2 ran with when the SMI came. */
export const mapSavedVmcb12: Step = {
  name: "map saved vmcb12",
  doc: "Maps the vmcb12 whose address the state save area holds",
  maps: true,
  run(v) {
    const area = v.smram as Uint8Array;
    v.bytes.set(
      area.subarray(SMRAM.svm_guest_vmcb_gpa, SMRAM.svm_guest_vmcb_gpa + 8),
      V.pending_vmcb12_gpa,
    );
    return mapPage(v, address(v, V.pending_vmcb12_gpa)) ? OK : END;
  },
};

/** Takes L1's state back from the host save area, since SMM has used vmcb01. */
export const restoreL1FromHsave: Step = {
  name: "L1 from host save area",
  doc: "Copies the state that VMRUN handles from the host save area into vmcb01",
  run(v) {
    const hsave = address(v, V.hsave_msr);
    const page = hsave - hsave % 4096;
    if (!v.memory.backed(page, 4096)) return v.traits.endsRsmWithoutHsave ? END : FAIL;
    if (v.u8(V.nested_initialized) === 0) {
      v.zero(VMCB02_AT, VMCB02_AT + 4096);
      v.set8(V.nested_initialized, 1);
    }
    copyRunState(v, v.bytes, VMCB01_AT, v.memory.page(page), 0);
    markAllDirty(v, VMCB01_AT);
    return OK;
  },
};

/** Checks the control area handed in, then what the vCPU and the L1 state must be like. */
export const checkRestored: Step = {
  name: "check restored state",
  doc: "Checks the control area handed in, CR0 of L2, and the L1 state handed in",
  run(v) {
    if (!checkGroup(v, "control", MAPPED_AT)) return FAIL;
    if ((v.u32(V.cr0) & (CR0.CD | CR0.NW)) === CR0.NW) return FAIL;
    const cr0 = v.u32(MAPPED_AT + S.cr0);
    if ((cr0 & CR0.PG) === 0 || (cr0 & CR0.PE) === 0) return FAIL;
    if ((v.u32(MAPPED_AT + S.rflags) & RFLAGS.VM) !== 0) return FAIL;
    const long = v.u32(MAPPED_AT + S.efer) & (EFER.LME | EFER.LMA);
    if (v.traits.refusesRestoredLmaWithoutLme && long === EFER.LMA) return FAIL;
    return checkGroup(v, "save", MAPPED_AT) ? OK : FAIL;
  },
};

/** Makes room for L2 in vmcb02, and takes over flags, addresses and L1's state. */
export const takeRestored: Step = {
  name: "take restored state",
  doc: "Moves the vCPU's registers to vmcb02, L1's state to vmcb01, and caches the control area",
  run(v) {
    if (v.guestMode) leaveNested(v);
    else v.copy(VMCB02_AT + S.es_selector, VMCB01_AT + S.es_selector, 4096 - 0x400);
    setGif(v, (v.restoreFlags & 0x100) !== 0);
    const pending = v.traits.marksRestoredRuns ? RUN.untrusted : RUN.pending;
    v.set8(V.run_pending, (v.restoreFlags & 2) !== 0 ? pending : RUN.none);
    v.copy64(V.vmcb12_gpa, V.pending_vmcb12_gpa);
    copyRunState(v, v.bytes, VMCB01_AT, v.bytes, MAPPED_AT);
    cacheControl(v);
    return OK;
  },
};

/** Makes the processor load all of vmcb02. */
export const markVmcb02Dirty: Step = {
  name: "mark vmcb02 dirty",
  doc: "Clears vmcb02's clean bits",
  run(v) {
    markAllDirty(v, v.vmcb);
    return OK;
  },
};

/** Loads CR3 once more, now that the nested state is known. */
export const reloadCr3: Step = {
  name: "load CR3 again",
  doc: "Loads the vCPU's CR3 in the MMU that the restored state needs",
  run(v) {
    const failed = loadCr3(v, v.u64(V.cr3), nestedNpt(v), false);
    if (failed === "") return OK;
    reportCheck(v, failed);
    return FAIL;
  },
};

/** Leaves the rest for the next run. */
export const requestRestoredPages: Step = {
  name: "request restored pages",
  doc: "Leaves PDPTEs and the MSR bitmap to be loaded before L2 next runs",
  run(v) {
    v.set8(V.msrpm_recalc, 1);
    v.request(REQ.GET_NESTED_STATE_PAGES);
    return OK;
  },
};

/** Loads the PDPTEs that a restore left for later. */
export const loadPages: Step = {
  name: "load PDPTEs",
  doc: "Reloads the PDPTEs of a PAE L2 without nested paging",
  run(v) {
    if (!v.paePaging) return OK;
    if (nestedNpt(v)) {
      if (v.traits.rereadsNestedPdptes) v.set8(V.pdptrs_valid, 0);
      return OK;
    }
    if (v.u8(V.pdptrs_from_userspace) !== 0) return OK;
    if (loadPdptrs(v, v.u64(V.cr3))) return OK;
    reportCheck(v, "pdptrs-pages");
    return FAIL;
  },
};

/** Merges the MSR bitmap that a restore left for later. */
export const mergePages: Step = {
  name: "merge MSRPM (state pages)",
  doc: "Merges L1's MSR bitmap with the host's",
  run(v) {
    if (merge(v)) return OK;
    v.result.exit = KVM_EXIT.INTERNAL_ERROR;
    return FAIL;
  },
};

/** Asserts that state pages are only asked for while L2 runs. */
export const assertGuestMode: Step = {
  name: "assert guest mode",
  doc: "Reports a request for state pages outside guest mode, and ends",
  run(v) {
    v.assertThat(v.guestMode, "!is_guest_mode(vcpu)");
    return v.guestMode ? OK : END;
  },
};
