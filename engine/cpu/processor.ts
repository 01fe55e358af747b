/**
 * The processor between VMRUN and #VMEXIT: its registers, the way it loads a
 * VMCB, refuses one, raises exceptions and leaves.
 *
 * @module
 */
import { C, type Machine, S, V, VMCB01_AT } from "../svm/machine.ts";
import { SAVE_AREA } from "../svm/vmcb_fields.ts";
import { Instruction } from "./decode.ts";
import type { Paging } from "./paging.ts";
import { QEMU, type Quirks } from "./quirks.ts";
import { FETCH, READ, SUPERVISOR, SUPERVISOR_AC, USER, Walk, WALK_STAGE2, WRITE } from "./walk.ts";

/** The instruction finished; go on. */
export const NEXT = 0;
/** A #VMEXIT happened; exit code and information are in the VMCB. */
export const EXIT = 1;
/** An exception waits for delivery. */
export const FAULT = 2;
/** The processor would never exit: halted with nothing to wake it. */
export const HALTED = 3;
/** The instruction is not modelled. */
export const UNMODELLED = 4;
/** VMRUN was refused before guest state was loaded; there is nothing to write back. */
export const REFUSED = 5;

/** Segment registers, in the order of the save area. */
export const SEG = {
  es: 0,
  cs: 1,
  ss: 2,
  ds: 3,
  fs: 4,
  gs: 5,
  gdtr: 6,
  ldtr: 7,
  idtr: 8,
  tr: 9,
} as const;

/** RFLAGS bits. */
export const FLAG = {
  cf: 1,
  pf: 4,
  af: 0x10,
  zf: 0x40,
  sf: 0x80,
  tf: 0x100,
  if: 0x200,
  df: 0x400,
  of: 0x800,
  iopl: 0x3000,
  nt: 0x4000,
  rf: 0x10000,
  vm: 0x20000,
  ac: 0x40000,
} as const;

/** Attribute bits of a segment, as the VMCB packs them. */
export const ATTR = {
  type: 15,
  s: 0x10,
  dpl: 0x60,
  p: 0x80,
  l: 0x200,
  db: 0x400,
  g: 0x800,
} as const;

/** Exit codes that the processor's own logic needs. */
export const EXIT_CODE = {
  readCr: 0x00,
  writeCr: 0x10,
  readDr: 0x20,
  writeDr: 0x30,
  exception: 0x40,
  vintr: 0x64,
  cr0Write: 0x65,
  idtrRead: 0x66,
  gdtrRead: 0x67,
  ldtrRead: 0x68,
  trRead: 0x69,
  idtrWrite: 0x6a,
  gdtrWrite: 0x6b,
  ldtrWrite: 0x6c,
  trWrite: 0x6d,
  rdtsc: 0x6e,
  rdpmc: 0x6f,
  pushf: 0x70,
  popf: 0x71,
  cpuid: 0x72,
  rsm: 0x73,
  iret: 0x74,
  swint: 0x75,
  invd: 0x76,
  pause: 0x77,
  hlt: 0x78,
  invlpg: 0x79,
  invlpga: 0x7a,
  ioio: 0x7b,
  msr: 0x7c,
  shutdown: 0x7f,
  vmrun: 0x80,
  vmmcall: 0x81,
  vmload: 0x82,
  vmsave: 0x83,
  stgi: 0x84,
  clgi: 0x85,
  skinit: 0x86,
  wbinvd: 0x89,
  monitor: 0x8a,
  mwait: 0x8b,
  npf: 0x400,
} as const;

/** Vectors of exceptions. */
export const VECTOR = {
  de: 0,
  db: 1,
  nmi: 2,
  of: 4,
  br: 5,
  ud: 6,
  nm: 7,
  df: 8,
  ts: 10,
  np: 11,
  ss: 12,
  gp: 13,
  pf: 14,
} as const;

/** Whether the hypervisor's MSR bitmap intercepts an access; the bitmap is not in guest memory. */
export type MsrIntercepted = (index: number, write: boolean) => boolean;

const word = (offset: number) => offset >> 2;
const CONTROL = {
  crs: word(C.intercept_cr),
  drs: word(C.intercept_dr),
  exceptions: word(C.intercept_exceptions),
  word3: word(C.intercept_word3),
  word4: word(C.intercept_word4),
  asid: word(C.asid),
  intCtl: word(C.int_ctl),
  intVector: word(C.int_vector),
  intState: word(C.int_state),
  exitCode: word(C.exit_code),
  info1: word(C.exit_info_1),
  info2: word(C.exit_info_2),
  exitIntInfo: word(C.exit_int_info),
  eventInj: word(C.event_inj),
};
const SAVE = {
  segments: word(SAVE_AREA),
  cpl: S.cpl,
  efer: word(S.efer),
  cr4: word(S.cr4),
  cr3: word(S.cr3),
  cr0: word(S.cr0),
  dr7: word(S.dr7),
  dr6: word(S.dr6),
  rflags: word(S.rflags),
  rip: word(S.rip),
  rsp: word(S.rsp),
  rax: word(S.rax),
  cr2: word(S.cr2),
};
const GPR = word(V.rax);
const HIGH = 0x1_0000_0000;

const VIRTUAL_ADDRESS_SHIFT = 64 - 57;
/** CR4 bits that the processor has: VME to LA57, FSGSBASE, PCIDE, OSXSAVE, SMEP, SMAP, PKE, PKS. */
export const CR4_VALID: number = 0x1fff | 1 << 16 | 1 << 17 | 1 << 18 | 1 << 20 | 1 << 21 |
  1 << 22 | 1 << 24;
// SCE, LME, LMA, NXE, SVME, FFXSR.
const EFER_VALID = 0x5d01;
const EFER_LMA = 1 << 10;

/** The processor. One instance serves any number of runs, one after another. */
export class Processor {
  /** General registers, low and high halves in turn, in the order of their numbers. */
  readonly gpr: Uint32Array = new Uint32Array(32);
  /** Selectors, by {@linkcode SEG}. */
  readonly selector: Uint16Array = new Uint16Array(10);
  /** Attributes, by {@linkcode SEG}. */
  readonly attrib: Uint16Array = new Uint16Array(10);
  /** Limits, by {@linkcode SEG}. */
  readonly limit: Uint32Array = new Uint32Array(10);
  /** Bases, low and high halves in turn, by {@linkcode SEG}. */
  readonly segBase: Uint32Array = new Uint32Array(20);
  /** RIP, low half. */
  ripLo = 0;
  /** RIP, high half. */
  ripHi = 0;
  /** RFLAGS. */
  rflags = 2;
  /** CR0. */
  cr0 = 0;
  /** CR2, low half. */
  cr2Lo = 0;
  /** CR2, high half. */
  cr2Hi = 0;
  /** CR3. */
  cr3 = 0;
  /** CR4. */
  cr4 = 0;
  /** EFER, low half. */
  efer = 0;
  /** DR6. */
  dr6 = 0;
  /** DR7. */
  dr7 = 0;
  /** Current privilege level. */
  cpl = 0;
  /** Width of the code segment: 16, 32 or 64. */
  width: 16 | 32 | 64 = 64;
  /** Interrupt shadow. */
  inhibit = false;
  /** V_INTR control, as the processor holds it. */
  intCtl = 0;
  /** A virtual interrupt is pending. */
  virq = false;
  /** Virtual GIF, or GIF when it is not virtual. */
  vgif = true;
  /** Vector of the exception under delivery before this one, -1 for none. */
  oldException = -1;
  /** Pending exception: its vector. */
  vector = 0;
  /** Pending exception: its error code. */
  errorCode = 0;
  /** Pending exception: it is a software interrupt. */
  isInt = false;
  /** Pending exception: RIP after the software interrupt, low half. */
  nextLo = 0;
  /** Pending exception: RIP after the software interrupt, high half. */
  nextHi = 0;
  /** Result of a failed memory access: {@linkcode FAULT} or {@linkcode EXIT}. */
  failure = NEXT;
  /** Value read last, or to be written, low half. */
  lo = 0;
  /** Its high half. */
  hi = 0;
  /** The instruction being executed. */
  readonly insn: Instruction = new Instruction();
  /** Its bytes. */
  readonly code: Uint8Array = new Uint8Array(16);
  /** The last walk. */
  readonly walk: Walk = new Walk();
  /** FS, GS, TR or LDTR were changed by the guest. */
  hostSegmentsDirty = false;
  /** The instruction ends QEMU's translation block. */
  endOfBlock = false;
  /** The instruction starts an interrupt shadow. */
  shadow = false;
  /** Selected deviations. */
  quirks: Quirks = QEMU;
  /** What the hypervisor's MSR bitmap says. */
  msrIntercepted: MsrIntercepted = () => true;
  /** Whether the hypervisor's I/O bitmap intercepts a port. */
  ioIntercepted: (port: number, size: number) => boolean = () => true;
  /** The machine of this run. */
  m!: Machine;
  /** Byte offset of its VMCB. */
  vmcb = 0;
  /** Word offset of its VMCB. */
  at = 0;
  /** Its way to memory. */
  paging!: Paging;
  readonly #second: Walk = new Walk();

  /** Whether long mode is active. */
  get longMode(): boolean {
    return (this.efer & EFER_LMA) !== 0;
  }

  /** Whether CR0.PE is set. */
  get protectedMode(): boolean {
    return (this.cr0 & 1) !== 0;
  }

  /** Whether virtual-8086 mode is active. */
  get vm86(): boolean {
    return (this.rflags & FLAG.vm) !== 0;
  }

  /** Current IOPL. */
  get iopl(): number {
    return this.rflags >> 12 & 3;
  }

  /**
   * VMRUN: loads the VMCB and refuses it where the processor does, in the order
   * of QEMU's helper_vmrun.
   */
  load(m: Machine, vmcb: number, paging: Paging): number {
    this.m = m;
    this.vmcb = vmcb;
    this.paging = paging;
    const at = this.at = vmcb >> 2;
    const words = m.words;
    const word = (index: number) => words[at + index] as number;
    this.oldException = -1;
    this.inhibit = false;
    this.hostSegmentsDirty = false;
    // Nothing of the guest is loaded yet: the save area stays as it is.
    if ((word(CONTROL.word4) & 1) === 0 || word(CONTROL.asid) === 0) return this.#refuseEarly();
    const cr0 = word(SAVE.cr0);
    if (word(SAVE.cr0 + 1) !== 0 || (cr0 & 0x60000000) === 0x20000000) return this.#refuseEarly();
    const cr3Hi = word(SAVE.cr3 + 1);
    if (cr3Hi >>> m.caps.physicalBits - 32 !== 0) return this.#refuseEarly();
    const cr4 = word(SAVE.cr4);
    if (word(SAVE.cr4 + 1) !== 0 || (cr4 & ~CR4_VALID) !== 0) return this.#refuseEarly();
    words[at + CONTROL.info2] = 0;
    words[at + CONTROL.info2 + 1] = 0;
    this.cr0 = (cr0 | 0x10) >>> 0;
    this.cr4 = cr4;
    this.cr3 = cr3Hi * HIGH + word(SAVE.cr3);
    this.cr2Lo = word(SAVE.cr2);
    this.cr2Hi = word(SAVE.cr2 + 1);
    this.intCtl = word(CONTROL.intCtl);
    this.efer = word(SAVE.efer);
    this.rflags = word(SAVE.rflags) | 2;
    for (let i = 0; i < 10; i++) {
      const host = i === SEG.fs || i === SEG.gs || i === SEG.ldtr || i === SEG.tr;
      this.#loadSegment(i, (host ? VMCB01_AT >> 2 : at) + SAVE.segments + i * 4);
    }
    this.cpl = this.quirks.cplFromSs
      ? (this.attrib[SEG.ss] as number) >> 5 & 3
      : m.u8(vmcb + SAVE.cpl) & 3;
    this.setWidth();
    this.ripLo = word(SAVE.rip);
    this.ripHi = word(SAVE.rip + 1);
    const gpr = this.gpr;
    gpr.set(words.subarray(GPR, GPR + 32));
    gpr[0] = word(SAVE.rax);
    gpr[1] = word(SAVE.rax + 1);
    gpr[8] = word(SAVE.rsp);
    gpr[9] = word(SAVE.rsp + 1);
    this.dr6 = word(SAVE.dr6);
    this.dr7 = word(SAVE.dr7);
    if (word(SAVE.dr6 + 1) !== 0 || word(SAVE.dr7 + 1) !== 0 || this.#invalidEfer()) {
      return this.refuse();
    }
    if (!this.quirks.ignoresInterruptShadow) this.inhibit = (word(CONTROL.intState) & 1) !== 0;
    this.virq = this.#hasVirq();
    this.vgif = (this.intCtl & 1 << 25) === 0 || (this.intCtl & 1 << 9) !== 0;
    return NEXT;
  }

  #loadSegment(i: number, from: number): void {
    const words = this.m.words;
    const first = words[from] as number;
    this.selector[i] = first & 0xffff;
    this.attrib[i] = first >>> 16 & 0xfff;
    this.limit[i] = words[from + 1] as number;
    this.segBase[i * 2] = words[from + 2] as number;
    const high = words[from + 3] as number;
    this.segBase[i * 2 + 1] = (high << VIRTUAL_ADDRESS_SHIFT) >> VIRTUAL_ADDRESS_SHIFT;
  }

  /** Recomputes the width of the code segment after CS or EFER changed. */
  setWidth(): void {
    const cs = this.attrib[SEG.cs] as number;
    this.width = this.longMode && (cs & ATTR.l) !== 0 ? 64 : (cs & ATTR.db) !== 0 ? 32 : 16;
  }

  #invalidEfer(): boolean {
    const efer = this.efer;
    if ((efer & 1 << 12) === 0 || (efer & ~EFER_VALID) !== 0) return true;
    if (this.m.words[this.at + SAVE.efer + 1] !== 0) return true;
    if ((efer & 1 << 8) === 0 || this.cr0 < 0x80000000) return false;
    const cs = this.attrib[SEG.cs] as number;
    return (this.cr4 & 0x20) === 0 || (this.cr0 & 1) === 0 ||
      (cs & (ATTR.l | ATTR.db)) === (ATTR.l | ATTR.db);
  }

  #hasVirq(): boolean {
    const ctl = this.intCtl;
    if ((ctl & 0x100) === 0) return false;
    if ((ctl & 1 << 20) !== 0) return true;
    const priority = ctl >>> 16 & 15;
    const tpr = ctl & 15;
    return priority > tpr || (priority === tpr && this.quirks.virqAtEqualPriority);
  }

  /** Task priority was written: a virtual interrupt may become deliverable. */
  setTaskPriority(value: number): void {
    this.intCtl = this.intCtl & ~15 | value & 15;
    this.virq = this.#hasVirq();
  }

  #invalidExit(): number {
    this.vmexit(0xffffffff, 0);
    if (!this.quirks.invalidExitCode32) this.m.words[this.at + CONTROL.exitCode + 1] = 0xffffffff;
    return EXIT;
  }

  // Refused before anything of the guest was loaded.
  #refuseEarly(): number {
    this.#invalidExit();
    this.#finishControl();
    return REFUSED;
  }

  /** Refuses VMRUN after the guest state was loaded. */
  refuse(): number {
    if (this.quirks.leaksHostRip) {
      this.ripLo = (this.ripLo & 0xfffff000 | this.quirks.hostRipLow) >>> 0;
    }
    return this.#invalidExit();
  }

  /** Whether an exit code below 0x90 is intercepted. */
  intercepted(code: number): boolean {
    const words = this.m.words;
    if (code >= 0x60) {
      const bits = words[this.at + CONTROL.word3 + (code >> 5) - 3] as number;
      return (bits >>> (code & 31) & 1) !== 0;
    }
    const index = code < 0x20 ? CONTROL.crs : code < 0x40 ? CONTROL.drs : CONTROL.exceptions;
    return ((words[this.at + index] as number) >>> (code & 31) & 1) !== 0;
  }

  /** #VMEXIT with an exit code and EXITINFO1. */
  vmexit(code: number, info1: number, info1High = 0): number {
    const words = this.m.words;
    words[this.at + CONTROL.exitCode] = code;
    words[this.at + CONTROL.exitCode + 1] = 0;
    words[this.at + CONTROL.info1] = info1;
    words[this.at + CONTROL.info1 + 1] = info1High;
    this.oldException = -1;
    return EXIT;
  }

  /** EXITINFO2. */
  setInfo2(lo: number, hi: number): void {
    this.m.words[this.at + CONTROL.info2] = lo;
    this.m.words[this.at + CONTROL.info2 + 1] = hi;
  }

  /** Exits if the code is intercepted. */
  check(code: number, info1 = 0): boolean {
    if (!this.intercepted(code)) return false;
    this.vmexit(code, info1);
    return true;
  }

  /** Raises an exception: its intercept, double faults and shutdown come first. */
  raise(vector: number, error = 0): number {
    if (this.intercepted(EXIT_CODE.exception + vector)) {
      return this.vmexit(EXIT_CODE.exception + vector, error);
    }
    const old = this.oldException;
    if (old === VECTOR.df) return this.vmexit(EXIT_CODE.shutdown, 0);
    const contributory = vector === 0 || (vector >= 10 && vector <= 13);
    if (
      ((old === 0 || (old >= 10 && old <= 13)) && contributory) ||
      (old === VECTOR.pf && (contributory || vector === VECTOR.pf))
    ) {
      vector = VECTOR.df;
      error = 0;
      if (!this.quirks.doubleFaultNotIntercepted && this.intercepted(EXIT_CODE.exception + 8)) {
        return this.vmexit(EXIT_CODE.exception + 8, 0);
      }
    }
    if (contributory || vector === VECTOR.pf || vector === VECTOR.df) this.oldException = vector;
    this.vector = vector;
    this.errorCode = error;
    this.isInt = false;
    return FAULT;
  }

  /** Raises a software interrupt (INT n, INT3, INTO). */
  softInterrupt(vector: number, nextLo: number, nextHi: number): number {
    if (this.check(EXIT_CODE.swint)) return EXIT;
    this.vector = vector;
    this.errorCode = 0;
    this.isInt = true;
    this.nextLo = nextLo;
    this.nextHi = nextHi;
    return FAULT;
  }

  /** Word of EVENTINJ or its error code. */
  eventInjected(part = 0): number {
    return this.m.words[this.at + CONTROL.eventInj + part] as number;
  }

  /** Sets EVENTINJ or its error code, where the processor keeps the event under delivery. */
  setEvent(value: number, part = 0): void {
    this.m.words[this.at + CONTROL.eventInj + part] = value;
  }

  /** Vector of the virtual interrupt; QEMU takes the whole word. */
  get virqVector(): number {
    return (this.m.words[this.at + CONTROL.intVector] as number) & 0xff;
  }

  /** #VMEXIT's write-back of the guest state to the VMCB (QEMU's do_vmexit). */
  writeBack(): void {
    const words = this.m.words;
    const at = this.at;
    for (let i = 0; i < 4; i++) this.#storeSegment(i, at + SAVE.segments + i * 4);
    for (let i: number = SEG.gdtr; i <= SEG.idtr; i += 2) {
      const to = at + SAVE.segments + i * 4;
      words[to + 1] = this.limit[i] as number;
      words[to + 2] = this.segBase[i * 2] as number;
      words[to + 3] = this.segBase[i * 2 + 1] as number;
    }
    if (this.hostSegmentsDirty) {
      for (let i: number = SEG.fs; i <= SEG.tr; i++) {
        if (i === SEG.gdtr || i === SEG.idtr) continue;
        this.#storeSegment(i, (VMCB01_AT >> 2) + SAVE.segments + i * 4);
      }
    }
    words[at + SAVE.efer] = this.efer;
    words[at + SAVE.cr0] = this.cr0;
    words[at + SAVE.cr0 + 1] = 0;
    words[at + SAVE.cr2] = this.cr2Lo;
    words[at + SAVE.cr2 + 1] = this.cr2Hi;
    const cr3Lo = this.cr3 % HIGH;
    words[at + SAVE.cr3] = cr3Lo;
    words[at + SAVE.cr3 + 1] = (this.cr3 - cr3Lo) / HIGH;
    words[at + SAVE.cr4] = this.cr4;
    words[at + SAVE.rflags] = this.rflags;
    words[at + SAVE.rflags + 1] = 0;
    words[at + SAVE.rip] = this.ripLo;
    words[at + SAVE.rip + 1] = this.ripHi;
    const gpr = this.gpr;
    words[at + SAVE.rsp] = gpr[8] as number;
    words[at + SAVE.rsp + 1] = gpr[9] as number;
    words[at + SAVE.rax] = gpr[0] as number;
    words[at + SAVE.rax + 1] = gpr[1] as number;
    words[at + SAVE.dr6] = this.dr6;
    words[at + SAVE.dr7] = this.dr7;
    this.m.bytes[this.vmcb + SAVE.cpl] = this.cpl;
    for (let i = 2; i < 32; i++) if (i !== 8 && i !== 9) words[GPR + i] = gpr[i] as number;
    words[at + CONTROL.intCtl] = this.intCtl;
    words[at + CONTROL.intState] = this.inhibit ? 1 : 0;
    this.#finishControl();
  }

  #finishControl(): void {
    const words = this.m.words;
    const at = this.at;
    const event = words[at + CONTROL.eventInj] as number;
    const kept = event >= 0x80000000 || this.quirks.keepsEventBits;
    words[at + CONTROL.exitIntInfo] = kept ? event : 0;
    words[at + CONTROL.exitIntInfo + 1] = kept ? words[at + CONTROL.eventInj + 1] as number : 0;
    words[at + CONTROL.eventInj] = 0;
  }

  #storeSegment(i: number, to: number): void {
    const words = this.m.words;
    words[to] = (this.selector[i] as number) | (this.attrib[i] as number) << 16;
    words[to + 1] = this.limit[i] as number;
    words[to + 2] = this.segBase[i * 2] as number;
    words[to + 3] = this.segBase[i * 2 + 1] as number;
  }

  /** Privilege of the program's own accesses. */
  get who(): number {
    return this.cpl === 3 ? USER : this.whoSystem;
  }

  /** Privilege of the processor's accesses to descriptor tables and the TSS. */
  get whoSystem(): number {
    return this.cpl < 3 && (this.rflags & FLAG.ac) !== 0 ? SUPERVISOR_AC : SUPERVISOR;
  }

  /** Translates; on failure {@linkcode Processor.failure} says what happened. */
  translate(lo: number, hi: number, access: number, who: number, out: Walk): boolean {
    // Which addresses have 64 bits: the program's in 64-bit mode, the system's in long mode.
    if (this.width !== 64 && !(this.longMode && this.#system)) hi = 0;
    if (this.longMode && this.cr0 >= 0x80000000) {
      const top = hi >> 15;
      if (top !== 0 && top !== -1) {
        if (this.intercepted(EXIT_CODE.exception + VECTOR.gp)) {
          this.setInfo2(this.cr2Lo, this.cr2Hi);
        }
        this.failure = this.raise(VECTOR.gp);
        return false;
      }
    }
    if (this.paging.translate(this.m, this, lo, hi, access, who, out)) return true;
    if (out.outcome === WALK_STAGE2) {
      const low = out.stage2Address % HIGH;
      this.setInfo2(low, (out.stage2Address - low) / HIGH);
      this.failure = this.vmexit(EXIT_CODE.npf, out.error, out.onTable ? 2 : 1);
      return false;
    }
    if (this.intercepted(EXIT_CODE.exception + VECTOR.pf)) this.setInfo2(lo, hi);
    else {
      this.cr2Lo = lo;
      this.cr2Hi = hi >>> 0;
    }
    this.failure = this.raise(VECTOR.pf, out.error);
    return false;
  }

  #system = false;

  /** Reads 1, 2, 4 or 8 bytes at a linear address into {@linkcode Processor.lo} and `hi`. */
  read(lo: number, hi: number, size: number, who: number): boolean {
    const walk = this.walk;
    if (!this.translate(lo, hi, READ, who, walk)) return false;
    const first = walk.gpa;
    const room = 4096 - (lo & 0xfff);
    let second = first + room;
    if (size > room) {
      const next = (lo + room) >>> 0;
      if (!this.translate(next, next < lo ? hi + 1 >>> 0 : hi, READ, who, this.#second)) {
        return false;
      }
      second = this.#second.gpa;
    }
    const memory = this.m.memory;
    this.hi = 0;
    if (size <= room) {
      const page = memory.page(first);
      const at = first % 4096;
      if (size === 1) this.lo = page[at] as number;
      else if (size === 2) this.lo = (page[at] as number) | (page[at + 1] as number) << 8;
      else {
        this.lo = quad(page, at);
        if (size === 8) this.hi = quad(page, at + 4);
      }
      return true;
    }
    this.lo = 0;
    for (let i = 0; i < size; i++) {
      const byte = memory.read8(i < room ? first + i : second + i - room);
      if (i < 4) this.lo = (this.lo | byte << i * 8) >>> 0;
      else this.hi = (this.hi | byte << (i - 4) * 8) >>> 0;
    }
    return true;
  }

  /** Writes 1, 2, 4 or 8 bytes at a linear address from `valueLo` and `valueHi`. */
  write(
    lo: number,
    hi: number,
    size: number,
    valueLo: number,
    valueHi: number,
    who: number,
  ): boolean {
    const walk = this.walk;
    if (!this.translate(lo, hi, WRITE, who, walk)) return false;
    const first = walk.gpa;
    const room = 4096 - (lo & 0xfff);
    let second = first + room;
    if (size > room) {
      const next = (lo + room) >>> 0;
      if (!this.translate(next, next < lo ? hi + 1 >>> 0 : hi, WRITE, who, this.#second)) {
        return false;
      }
      second = this.#second.gpa;
    }
    const memory = this.m.memory;
    if (size <= room) {
      const page = memory.writable(first);
      const at = first % 4096;
      page[at] = valueLo;
      if (size > 1) page[at + 1] = valueLo >>> 8;
      if (size > 2) {
        page[at + 2] = valueLo >>> 16;
        page[at + 3] = valueLo >>> 24;
      }
      for (let i = 4; i < size; i++) page[at + i] = valueHi >>> (i - 4) * 8;
      return true;
    }
    for (let i = 0; i < size; i++) {
      const byte = (i < 4 ? valueLo >>> i * 8 : valueHi >>> (i - 4) * 8) & 0xff;
      memory.write8(i < room ? first + i : second + i - room, byte);
    }
    return true;
  }

  /** Reads for the processor itself (descriptor tables, TSS, IDT). */
  readSystem(lo: number, hi: number, size: number): boolean {
    this.#system = true;
    const ok = this.read(lo, hi, size, this.whoSystem);
    this.#system = false;
    return ok;
  }

  /** Writes for the processor itself (stack frames, busy bits). */
  writeSystem(lo: number, hi: number, size: number, valueLo: number, valueHi: number): boolean {
    this.#system = true;
    const ok = this.write(lo, hi, size, valueLo, valueHi, this.whoSystem);
    this.#system = false;
    return ok;
  }

  /**
   * Fetches the bytes at RIP, up to 15 or the end of the page; `more` continues
   * on the next page.
   *
   * @returns How many bytes there are, or -1 with {@linkcode Processor.failure} set.
   */
  fetch(from: number): number {
    const base = this.width === 64 ? 0 : this.segBase[SEG.cs * 2] as number;
    let lo = (base + this.ripLo) >>> 0;
    let hi = this.width === 64 ? this.ripHi : 0;
    if (from > 0) {
      const next = (lo + from) >>> 0;
      if (next < lo) hi = this.width === 64 ? hi + 1 >>> 0 : 0;
      lo = next;
    }
    if (!this.translate(lo, hi, FETCH, this.who, this.walk)) return -1;
    const gpa = this.walk.gpa;
    const page = this.m.memory.page(gpa);
    const at = gpa % 4096;
    const room = Math.min(15 - from, 4096 - at);
    const code = this.code;
    for (let i = 0; i < room; i++) code[from + i] = page[at + i] as number;
    return from + room;
  }
}

function quad(page: Uint8Array, at: number): number {
  return ((page[at] as number) | (page[at + 1] as number) << 8 | (page[at + 2] as number) << 16 |
    (page[at + 3] as number) << 24) >>> 0;
}
