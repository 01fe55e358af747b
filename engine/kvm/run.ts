/**
 * KVM_RUN: requests, event injection, entry, exit, until userspace is needed.
 *
 * @module
 */
import { C, S, V } from "../svm/machine.ts";
import { type MsrIntercepted, Processor, runVmcb, unmodelledBytes } from "../cpu/mod.ts";
import { EXIT_CODE } from "../cpu/constants.ts";
import { AMD } from "../processors/amd.ts";
import { hexOf } from "../hex.ts";
import type { ProcessorModel } from "../processors/model.ts";
import { END, FAIL, runWay } from "../policy.ts";
import {
  CR4,
  DR6_ACTIVE_LOW,
  EFER,
  HOST_HIGH,
  INT_CTL,
  INTERCEPT,
  KVM_EXIT,
  REQ,
} from "./constants.ts";
import { completeDevice, DEVICE } from "./emulate_any.ts";
import { completeIo } from "./emulate_ports.ts";
import {
  completeInterrupts,
  disableNmiSinglestep,
  injectEvents,
  nestedTripleFault,
} from "./events.ts";
import { processNmi } from "./queue.ts";
import { handleExit, RESUME, USERSPACE } from "./exits.ts";
import { freeObsoleteRoots, loadPgd, reload } from "./mmu.ts";
import { syncPages } from "../paging/shadow_pages.ts";
import { msrIntercepted } from "./msrpm.ts";
import { CLEAN } from "./constants.ts";
import {
  isIntercept,
  markAllClean,
  markDirty,
  nestedVgif,
  recalcForGuest,
  setDrIntercepts,
} from "./control.ts";
import { updateDr7 } from "./regs.ts";
import { type Entered, Tool, type Vcpu } from "./vcpu.ts";
import { VMCB12_AT } from "../svm/machine.ts";
import { nestedVmexit } from "./vmexit.ts";
import { processorPaging } from "../paging/vcpu_walk.ts";

/** EINTR: what KVM_RUN fails with when a signal ends it. */
const EINTR = 4;
/** ENOSYS: what stands for a run that the model cannot carry on; KVM_RUN itself never fails so. */
const ENOSYS = 38;
/** Entries with the same registers, one after another, before the vCPU counts as looping for ever. */
const SAME_LIMIT = 64;
/** Entries in all before it does: some more than the lab lets a guest have in its second. */
const ENTRY_LIMIT = 8192;

/**
 * Runs the vCPU until it needs userspace (KVM_RUN). A guest that would run or
 * fault for ever ends as the lab ends it: by a signal.
 *
 * @param v The vCPU.
 * @param immediate Whether to come back at once (kvm_run.immediate_exit): only what waited for
 * userspace is completed.
 */
export function runVcpu(v: Vcpu, immediate = false): void {
  const r = v.result;
  r.rc = 0;
  r.errno = 0;
  if (!v.traits.keepsExitReason) {
    r.exit = KVM_EXIT.UNKNOWN;
    r.port = 0;
  }
  if (v.unmodelled !== "") {
    giveUp(v);
    return;
  }
  if (v.requested(REQ.VM_DEAD)) {
    dead(v);
    return;
  }
  if (v.pendingIo >= 0n && !completeIo(v)) return;
  if (isOver(v, RESUME)) return;
  if (v.pendingDevice !== undefined && completeDevice(v, v.pendingDevice) === DEVICE) return;
  enter(v, { entries: immediate ? ENTRY_LIMIT : 0, same: 0, seen: 0 });
}

/**
 * Goes on with a run at a #VMEXIT that is not handled yet.
 *
 * @param v The vCPU, a copy made when {@linkcode Vcpu.exiting} was called of another one.
 * @param entered What that was told.
 */
export function goOnFromExit(v: Vcpu, entered: Entered): void {
  const status = handleExit(v);
  if (isOver(v, status)) return;
  const entries = status === STUCK ? ENTRY_LIMIT : entered.entries + 1;
  enter(v, { ...entered, entries });
}

/** Enters the guest until userspace is needed, or until it made no progress. */
function enter(v: Vcpu, { entries, same, seen }: Entered): void {
  for (; entries < ENTRY_LIMIT; entries++) {
    const place = progress(v);
    same = place === seen ? same + 1 : 0;
    seen = place;
    if (same === SAME_LIMIT) break;
    // From here on it matters what a guest that gets nowhere looks like.
    if (entries === SAME_LIMIT - 1) v.recorder?.giveUp();
    now.entries = entries;
    now.same = same;
    now.seen = seen;
    const status = enterGuest(v);
    if (isOver(v, status)) return;
    if (status === STUCK) break;
  }
  const r = v.result;
  r.rc = -1;
  r.errno = EINTR;
  r.exit = KVM_EXIT.INTR;
}

/** Where the run under way is. */
const now = { entries: 0, same: 0, seen: 0 };

function isOver(v: Vcpu, status: number): boolean {
  if (v.unmodelled === "") return status === USERSPACE;
  giveUp(v);
  return true;
}

/** Instructions that a guest gets carried out, about, before the host's timer ticks. */
const TICK = 500;

/** A number that changes as a guest gets on: of where it is, its stack, and what it counts with. */
function progress({ words }: Vcpu): number {
  let sum = words[V.rip >> 2] as number;
  for (let i = 0; i < 16; i++) sum = Math.imul(sum, 31) + (words[(V.rax >> 2) + 2 * i] as number);
  return sum;
}

/** Ends the run where the model ends. */
function giveUp({ result }: Vcpu): void {
  result.rc = -1;
  result.errno = ENOSYS;
  result.exit = KVM_EXIT.UNKNOWN;
}

const STUCK = 2;
/** Flushes in the high half of the requests. */
const FLUSHES = 1 << REQ.TLB_FLUSH_CURRENT - 32 | 1 << REQ.TLB_FLUSH_GUEST - 32;
/** Requests about clocks and timers, which change nothing here. */
const UPDATES = 1 << REQ.MIGRATE_TIMER | 1 << REQ.MASTERCLOCK_UPDATE |
  1 << REQ.GLOBAL_CLOCK_UPDATE | 1 << REQ.CLOCK_UPDATE;

/** EIO: what every ioctl of a virtual machine fails with that KVM has given up. */
const EIO = 5;

function dead(v: Vcpu): void {
  v.result.rc = -1;
  v.result.errno = EIO;
}

function serveRequests(v: Vcpu): boolean {
  if (v.requested(REQ.VM_DEAD)) {
    dead(v);
    return false;
  }
  if (v.take(REQ.GET_NESTED_STATE_PAGES)) {
    const outcome = runWay(v, "pages");
    if (outcome === FAIL) {
      if (v.traits.retriesStatePages) {
        v.result.exit = KVM_EXIT.INTERNAL_ERROR;
        v.request(REQ.GET_NESTED_STATE_PAGES);
      }
      return false;
    }
    if (outcome === END) { /* it was asked for outside guest mode: nothing to do */ }
  }
  if (v.take(REQ.MMU_FREE_OBSOLETE_ROOTS)) freeObsoleteRoots(v);
  v.clear32(V.requests, UPDATES);
  if (v.take(REQ.MMU_SYNC)) syncPages(v);
  if (v.take(REQ.LOAD_MMU_PGD)) loadPgd(v);
  if ((v.u32(V.requests) & 1 << REQ.TLB_FLUSH) !== 0 || (v.u32(V.requests + 4) & FLUSHES) !== 0) {
    v.unrequest(REQ.TLB_FLUSH);
    v.clear32(V.requests + 4, FLUSHES);
    // Without flushes by ASID, a flush is a new ASID at the next entry.
    v.set32(v.vmcb + C.asid, 0);
  }
  if (v.requested(REQ.TRIPLE_FAULT)) {
    if (v.guestMode) nestedTripleFault(v);
    if (v.take(REQ.TRIPLE_FAULT)) {
      v.result.exit = KVM_EXIT.SHUTDOWN;
      return false;
    }
  }
  v.unrequest(REQ.STEAL_UPDATE);
  if (v.take(REQ.RECALC_INTERCEPTS)) recalcForGuest(v);
  if (v.take(REQ.SMI)) {
    v.set8(V.smi_pending, 1);
    v.requestEvent();
  }
  if (v.take(REQ.NMI)) processNmi(v);
  return true;
}

function enterGuest(v: Vcpu): number {
  let immediate = false;
  // A new virtual machine wants its clock set before anything else.
  const yields = v.traits.yieldsOnFirstRun && v.requested(REQ.MASTERCLOCK_UPDATE);
  if (v.u32(V.requests) !== 0 || v.u32(V.requests + 4) !== 0) {
    if (!serveRequests(v)) return USERSPACE;
    if (v.take(REQ.EVENT)) immediate = injectEvents(v);
  }
  if (!reload(v)) {
    if (immediate) v.requestEvent();
    cancelInjection(v);
    return v.result.rc < 0 ? USERSPACE : RESUME;
  }
  // What was requested meanwhile is served before the guest is entered: an event
  // put into the VMCB is taken back and injected anew.
  if (yields || v.u32(V.requests) !== 0 || v.u32(V.requests + 4) !== 0) {
    if (immediate) v.requestEvent();
    cancelInjection(v);
    return RESUME;
  }
  return run(v, immediate);
}

function cancelInjection(v: Vcpu): void {
  const vmcb = v.vmcb;
  v.copy64(vmcb + C.exit_int_info, vmcb + C.event_inj);
  v.set32(vmcb + C.event_inj, 0);
  completeInterrupts(v);
}

/** Whether L2 has a task priority of its own (nested_svm_virtualize_tpr). */
function virtualTpr(v: Vcpu): boolean {
  return v.guestMode && (v.u32(VMCB12_AT + C.int_ctl) & INT_CTL.V_INTR_MASKING) !== 0;
}

/** The processor that a vCPU runs on, and what that asks for; the model is set for each run. */
class Core {
  readonly processor = new Processor();
  readonly options: {
    msrIntercepted: MsrIntercepted;
    model: ProcessorModel;
    xcr0: number;
    interruptAfter: number | undefined;
    readonly ticks: true;
  };

  constructor(v: Vcpu) {
    this.processor.translations.enabled = true;
    this.options = {
      msrIntercepted: (msr, write) => msrIntercepted(v, v.vmcb, msr, write),
      model: AMD,
      xcr0: 1,
      interruptAfter: undefined,
      ticks: true,
    };
  }
}

const CORE = new Tool((v) => new Core(v));

/** Enters the active VMCB and takes over what the exit left (svm_vcpu_run). */
function run(v: Vcpu, forceExit: boolean): number {
  const vmcb = v.vmcb;
  // KVM also sends itself an interrupt, to be back at once. On the one processor of the
  // recordings' kernels that is nothing: the guest runs until it exits by itself, or the timer ticks.
  if (forceExit) v.requestEvent();
  v.copy64(vmcb + S.rax, V.rax);
  v.copy64(vmcb + S.rsp, V.rsp);
  v.copy64(vmcb + S.rip, V.rip);
  if (v.u8(V.nmi_singlestep) !== 0 && v.u32(vmcb + C.event_inj) !== 0) {
    disableNmiSinglestep(v);
  }
  if (v.u32(vmcb + C.asid) === 0) markDirty(v, vmcb, CLEAN.ASID);
  v.set32(vmcb + C.asid, v.u32(V.active));
  if (!virtualTpr(v)) {
    v.set32(
      vmcb + C.int_ctl,
      v.u32(vmcb + C.int_ctl) & ~INT_CTL.V_TPR | v.u32(V.cr8) & INT_CTL.V_TPR,
    );
  }
  v.copy64(vmcb + S.cr2, V.cr2);
  const freeDr = v.u8(V.dr_wont_exit) !== 0;
  loadDr6(v, vmcb, freeDr);
  if (v.standIn !== undefined) return runStandIn(v, vmcb, freeDr);
  const { processor, options } = CORE.of(v);
  options.model = v.policy.processor ?? v.caps.processor ?? AMD;
  options.xcr0 = v.u32(V.xcr0) ^ 1;
  options.interruptAfter = forceExit ? TICK : undefined;
  const paging = processorPaging(v, !v.caps.npt && mismatched(v));
  const status = runVmcb(processor, v, vmcb, paging, options);
  if (status === "stuck") return STUCK;
  if (status !== "exit") {
    v.miss(`instruction ${hexOf(unmodelledBytes(processor))}`);
    return STUCK;
  }
  if (processor.refusedEarly && options.model.savesOnRefusal) {
    v.miss("the host's registers, which a refused VMRUN leaves in the VMCB");
    return STUCK;
  }
  // A guest that is stuck is left and entered again with each tick, until a signal comes.
  const stuck = !forceExit && v.u32(vmcb + C.exit_code) === EXIT_CODE.intr;
  afterExit(v, vmcb, freeDr);
  if (v.exiting !== undefined) v.exiting({ ...now });
  const outcome = handleExit(v);
  return stuck && outcome === RESUME ? STUCK : outcome;
}

/** Takes what a recording says instead of what the processor does. Which hypervisor handles an exit of L2 is part of it. */
function runStandIn(v: Vcpu, vmcb: number, freeDr: boolean): number {
  const did = v.standIn?.(v) ?? "stop";
  if (did === "stop") return USERSPACE;
  afterExit(v, vmcb, freeDr);
  if (did === "exit") {
    // Without guest code to decode, the length of the instruction has to come from the recording.
    v.copy64(V.next_rip, vmcb + C.next_rip);
    if (v.exiting !== undefined) v.exiting({ ...now });
    return handleExit(v);
  }
  nestedVmexit(v);
  return did === "last" ? USERSPACE : RESUME;
}

function loadDr6(v: Vcpu, vmcb: number, free: boolean): void {
  const lo = free ? v.u32(V.dr6) : DR6_ACTIVE_LOW;
  const hi = free ? v.u32(V.dr6 + 4) : 0;
  if (v.u32(vmcb + S.dr6) === lo && v.u32(vmcb + S.dr6 + 4) === hi) return;
  v.set32(vmcb + S.dr6, lo);
  v.set32(vmcb + S.dr6 + 4, hi);
  markDirty(v, vmcb, CLEAN.DR);
}

/**
 * Under shadow paging the processor must walk as many levels as KVM's shadow
 * tables have. If the MMU was set up for another mode, every access faults, and
 * KVM finds nothing to mend.
 */
function mismatched(v: Vcpu): boolean {
  const vmcb = v.vmcb;
  // Left without a #VMEXIT, L2 leaves L1's own CR3 in vmcb01, which no table of KVM's is at.
  if (v.u32(vmcb + S.cr3 + 4) !== HOST_HIGH) return true;
  const levels = v.u32(v.u8(V.mmu) === 1 ? V.guest_root_role : V.root_root_role) & 15;
  const long = (v.u32(vmcb + S.efer) & EFER.LMA) !== 0;
  return levels !== (!long ? 3 : (v.u32(vmcb + S.cr4) & CR4.LA57) !== 0 ? 5 : 4);
}

function afterExit(v: Vcpu, vmcb: number, freeDr: boolean): void {
  v.copy64(V.cr2, vmcb + S.cr2);
  v.copy64(V.rax, vmcb + S.rax);
  v.copy64(V.rsp, vmcb + S.rsp);
  v.copy64(V.rip, vmcb + S.rip);
  if (!virtualTpr(v) && !isIntercept(v, vmcb, 24)) {
    v.set64(V.cr8, BigInt(v.u32(vmcb + C.int_ctl) & INT_CTL.V_TPR));
  }
  v.set64(V.next_rip, 0n);
  if (v.guestMode) {
    syncControl(v, vmcb);
    v.set8(V.run_pending, 0);
  }
  if (v.u32(vmcb + C.exit_code) !== 0xffffffff || !v.traits.keepsCleanBitsOfRefused) {
    v.set8(vmcb + C.tlb_ctl, 0);
    markAllClean(v, vmcb);
  }
  if (v.caps.npt) v.set8(V.pdptrs_valid, 0);
  completeInterrupts(v);
  if (v.guestMode) v.copy64(VMCB12_AT + C.next_rip, vmcb + C.next_rip);
  if (freeDr) {
    v.copy64(V.dr6, vmcb + S.dr6);
    v.copy64(V.dr7, vmcb + S.dr7);
    v.set8(V.dr_wont_exit, 0);
    setDrIntercepts(v, true);
    updateDr7(v);
  }
}

/** Takes over what L2's run changed of its control area (nested_sync_control_from_vmcb02). */
function syncControl(v: Vcpu, vmcb: number): void {
  const cache = VMCB12_AT;
  v.copy64(cache + C.event_inj, vmcb + C.event_inj);
  v.set32(cache + C.int_state, v.u32(vmcb + C.int_state));
  let mask: number = INT_CTL.V_IRQ | INT_CTL.V_TPR;
  if (isIntercept(v, vmcb, INTERCEPT.VINTR)) {
    // Then V_IRQ may be KVM's own, for an interrupt window.
    const own = v.traits.vintrByMaskingAlone
      ? (v.u32(cache + C.int_ctl) & INT_CTL.V_INTR_MASKING) === 0
      : !isIntercept(v, cache, INTERCEPT.VINTR);
    if (own) mask &= ~INT_CTL.V_IRQ;
  }
  if (nestedVgif(v)) mask |= INT_CTL.V_GIF;
  v.set32(cache + C.int_ctl, v.u32(cache + C.int_ctl) & ~mask | v.u32(vmcb + C.int_ctl) & mask);
}
