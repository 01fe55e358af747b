/**
 * How the hypervisor and the processor under it turn a guest's addresses into
 * memory: which tables, in which mode, as the MMU roles say.
 *
 * @module
 */
import { C, hostPhysicalBits, S, V, VMCB01_AT, VMCB12_AT } from "../svm/machine.ts";
import { RFLAGS } from "../svm/bits.ts";
import { memoryOnly, type Paging, walkMode } from "./paging.ts";
import {
  FETCH,
  PF,
  type Stage2,
  SUPERVISOR,
  SUPERVISOR_AC,
  USER,
  Walk,
  WALK_FAULT,
  WRITE,
} from "./walk.ts";
import { type KvmWalkMode, walkKvm } from "./walk_kvm.ts";
import { walkProcessor } from "./walk_processor.ts";
import {
  findRoot,
  lookUpDirect,
  lookUpNested,
  lookUpShadow,
  nestedRoot,
  ShadowRoot,
} from "./shadow_walk.ts";
import { ROLE } from "./roles.ts";
import { Tool, type Vcpu } from "../kvm/vcpu.ts";

/** A walk mode that is filled in anew for each use. */
class Mode implements KvmWalkMode {
  levels = 0;
  narrow = false;
  writeProtect = false;
  largePages = false;
  noExecute = false;
  smep = false;
  smap = false;
  root = 0;
  pdptrs?: Uint32Array;
}

function number(v: Vcpu, at: number): number {
  return v.u32(at) + (v.u32(at + 4) & 0xfffff) * 0x1_0000_0000;
}

/** The mode that a packed CPU role describes, over the tables at CR3. */
export function roleMode(v: Vcpu, role: number): KvmWalkMode {
  const base = v.u32(role), ext = v.u32(role + 4);
  const { mode } = WALKS.of(v);
  mode.levels = base & 15;
  mode.narrow = (base & ROLE.FOUR_BYTE_GPTE) !== 0;
  mode.noExecute = (base & 1 << 12) !== 0;
  mode.writeProtect = (base & 1 << 13) !== 0;
  mode.largePages = (ext & 4) !== 0;
  mode.smap = (ext & 16) !== 0;
  mode.smep = (ext & 32) !== 0;
  mode.root = number(v, V.cr3);
  if (mode.levels === 3) v.recorder?.read(V.pdptr0, 32);
  mode.pdptrs = v.words.subarray(V.pdptr0 >> 2, (V.pdptr0 >> 2) + 8);
  return mode;
}

/** The processor's own walk of the guest's tables, over a second stage. */
function twoStage(stage2: Stage2): Paging {
  return {
    translate: (m, r, lo, hi, access, who, out) =>
      walkProcessor(
        m.memory,
        hostPhysicalBits(m.caps),
        walkMode(r.cr0, r.cr4, r.efer),
        r.cr3,
        lo,
        hi,
        access,
        who,
        stage2,
        out,
      ),
  };
}

/** Shadow tables of another depth than the processor walks: it finds nothing. */
const unusable: Paging = {
  translate(_m, _r, _lo, _hi, access, who, out) {
    out.outcome = WALK_FAULT;
    out.error = (access === WRITE ? PF.write : 0) | (access === FETCH ? PF.fetch : 0) |
      (who === USER ? PF.user : 0);
    return false;
  },
};

/** What a vCPU walks tables with. Modes and walks are filled in anew for each use. */
class Walks {
  readonly mode = new Mode();
  readonly npt = new Mode();
  /** The last walk of a fault. */
  readonly fault = new Walk();
  /** The emulator's walk. */
  readonly emulator = new Walk();
  /** The tables that the processor runs on: which of KVM's own, or whose shadow pages. */
  directRoot = 0;
  readonly root = new ShadowRoot();
  readonly direct: Paging;
  readonly nested: Paging;
  readonly shadow: Paging;
  /** Second stage of L1's own addresses: memory as it is, anything else is not there. */
  readonly memory: Stage2;
  /** Second stage of L2's addresses: L1's nested page table. */
  readonly l1: Stage2;

  constructor(v: Vcpu) {
    const { root } = this;
    this.direct = twoStage((gpa, access, table, out) =>
      lookUpDirect(v, this.directRoot, gpa, access, table, out)
    );
    this.nested = twoStage((gpa, access, table, out) =>
      lookUpNested(v, root, gpa, access, table, out)
    );
    this.shadow = {
      translate: (_m, r, lo, hi, access, who, out) =>
        lookUpShadow(v, root, r.cr4, lo, hi, access, who, out),
    };
    this.memory = memoryOnly(v);
    this.l1 = (gpa, _access, table) => {
      const at = walkL1Npt(v, gpa);
      return table && !v.memory.backed(at) ? -1 : at;
    };
  }
}

const WALKS = new Tool((v) => new Walks(v));

/**
 * How the processor reaches memory when it next runs the active VMCB.
 *
 * @param v The vCPU.
 * @param wrongDepth Whether KVM's shadow tables have another depth than the processor walks.
 */
export function processorPaging(v: Vcpu, wrongDepth: boolean): Paging {
  const walks = WALKS.of(v);
  if (v.caps.npt && v.u8(V.mmu) === 0) {
    const role = v.u32(V.root_root_role);
    walks.directRoot = nestedRoot(v.u8(V.stale_root) === 0 ? role : role & ~ROLE.GUEST_MODE);
    return walks.direct;
  }
  findRoot(v, walks.root);
  if (v.caps.npt) return walks.nested;
  return wrongDepth ? unusable : walks.shadow;
}

/** Mode of L1's nested page table: L1's CR4 and EFER in vmcb01 (nested_svm_init_mmu_context). */
function npt(v: Vcpu): KvmWalkMode {
  const m = walkMode(0x80000000, v.u32(VMCB01_AT + S.cr4), v.u32(VMCB01_AT + S.efer));
  const nptTables = WALKS.of(v).npt;
  nptTables.levels = m.levels;
  nptTables.writeProtect = m.writeProtect;
  nptTables.largePages = m.largePages;
  nptTables.noExecute = m.noExecute;
  nptTables.smep = m.smep;
  nptTables.smap = m.smap;
  nptTables.root = number(v, VMCB12_AT + C.nested_cr3);
  return nptTables;
}

/** Where L1's nested page table puts an L2 physical address, or -1. */
export function walkL1Npt(v: Vcpu, gpa: number): number {
  const lo = gpa % 0x1_0000_0000;
  const hi = (gpa - lo) / 0x1_0000_0000;
  const { fault, memory } = WALKS.of(v);
  const ok = walkKvm(
    v.memory,
    v.caps.physicalBits,
    npt(v),
    lo,
    hi,
    0,
    USER,
    memory,
    fault,
  );
  return ok ? fault.gpa : -1;
}

/** The last walk of a fault. */
export function lastWalk(v: Vcpu): Walk {
  return WALKS.of(v).fault;
}

/** Mode of the guest's own tables, as its role says. */
export function guestMode(v: Vcpu): KvmWalkMode {
  return roleMode(v, V.root_cpu_role);
}

/** Mode of L1's nested page table. */
export function nptGuestMode(v: Vcpu): KvmWalkMode {
  return npt(v);
}

/** Whom KVM takes an access of the guest's for: with RFLAGS.AC, SMAP does not stop a supervisor. */
function asWhom(v: Vcpu, user: boolean): number {
  if (user) return USER;
  return (v.u32(v.vmcb + S.rflags) & RFLAGS.AC) !== 0 ? SUPERVISOR_AC : SUPERVISOR;
}

/** Error code of the last walk that failed. */
export function walkError(v: Vcpu): number {
  return WALKS.of(v).fault.error;
}

/**
 * Walks L1's nested page table for a fault that the processor reported, as KVM
 * does before it decides whose fault it is.
 *
 * @returns Whether L1 maps the address.
 */
export function walkNptFault(
  v: Vcpu,
  lo: number,
  hi: number,
  access: number,
  user = true,
): boolean {
  const who = user ? USER : SUPERVISOR;
  const { fault, memory } = WALKS.of(v);
  return walkKvm(v.memory, v.caps.physicalBits, npt(v), lo, hi, access, who, memory, fault);
}

/**
 * Walks the guest's own tables for a fault under shadow paging.
 *
 * @returns Whether the guest maps the address.
 */
export function walkShadowFault(
  v: Vcpu,
  lo: number,
  hi: number,
  access: number,
  user: boolean,
): boolean {
  const { fault, memory } = WALKS.of(v);
  return walkKvm(
    v.memory,
    v.caps.physicalBits,
    roleMode(v, V.root_cpu_role),
    lo,
    hi,
    access,
    asWhom(v, user),
    memory,
    fault,
  );
}

/**
 * Walks the guest's tables for KVM's emulator; with nested paging every table
 * goes through L1's nested page table.
 *
 * @returns The guest physical address, L2's with nested paging, or -1 with {@linkcode walkError} set.
 */
export function walkForEmulator(
  v: Vcpu,
  role: number,
  lo: number,
  hi: number,
  access: number,
  user: boolean,
): number {
  const { emulator, fault, memory, l1 } = WALKS.of(v);
  const stage2 = v.u8(V.walk_mmu) === 1 ? l1 : memory;
  const bits = v.caps.physicalBits;
  const who = asWhom(v, user);
  if (walkKvm(v.memory, bits, roleMode(v, role), lo, hi, access, who, stage2, emulator)) {
    return emulator.gpa;
  }
  fault.error = emulator.error;
  return -1;
}
