/**
 * The processor's registers and what it remembers during a run.
 *
 * @module
 */
import { EFER } from "../svm/bits.ts";
import type { Machine } from "../svm/machine.ts";
import { ATTR, FLAG, NEXT, SEG } from "./constants.ts";
import { Instruction } from "./decode.ts";
import type { Paging } from "../paging/paging.ts";
import { AMD } from "../processors/amd.ts";
import type { ProcessorModel } from "../processors/model.ts";
import { Walk } from "../paging/walk.ts";

/** Whether the hypervisor's MSR bitmap intercepts an access; the bitmap is not in guest memory. */
export type MsrIntercepted = (index: number, write: boolean) => boolean;

const EFER_LMA = EFER.LMA;

/** Registers and bookkeeping of one processor. */
export class Registers {
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
  /** Breakpoints that are watched for, a bit each. */
  armed = 0;
  /** Breakpoints on data that the instruction touched, a bit each. */
  hits = 0;
  /** General registers whose content nobody can predict, a bit each. */
  unknown = 0;
  /** Bytes of the instruction that put it there. */
  unknownSince: Uint8Array = new Uint8Array(0);
  /** Current privilege level. */
  cpl = 0;
  /** Width of the code segment: 16, 32 or 64. */
  width: 16 | 32 | 64 = 64;
  /** Interrupt shadow. */
  inhibit = false;
  /** XCR0, low half. */
  xcr0 = 1;
  /** V_INTR control, as the processor holds it. */
  intCtl = 0;
  /** A virtual interrupt is pending. */
  virq = false;
  /** Virtual GIF, or GIF when it is not virtual. */
  vgif = true;
  /** Vector of the exception under delivery before this one, -1 for none. */
  oldException: number = -1;
  /** Which of the registers that it carries the run has used, while somebody follows. */
  used = 0;
  /** Pending exception: its vector. */
  vector = 0;
  /** Pending exception: its error code. */
  errorCode = 0;
  /** Pending exception: it is a software interrupt. */
  isInt = false;
  /** Pending software interrupt: INT3 or INTO, which EXITINTINFO tells as an exception. */
  isException = false;
  /** Pending exception: it was injected, and is not yet delivered. */
  injected = false;
  /** The event under delivery passes a gate only if CPL is not above the gate's DPL. */
  checksDpl = false;
  /** EXT bit of error codes that refer to a selector: 1 while an interrupt is delivered. */
  external = 0;
  /** Pending exception: RIP after the software interrupt, low half. */
  nextLo = 0;
  /** Pending exception: RIP after the software interrupt, high half. */
  nextHi = 0;
  /** Result of a failed memory access: {@linkcode FAULT} or {@linkcode EXIT}. */
  failure: number = NEXT;
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
  /** VMRUN was refused before anything of the guest was loaded. */
  refusedEarly = false;
  /** The instruction ends QEMU's translation block. */
  endOfBlock = false;
  /** The instruction starts an interrupt shadow. */
  shadow = false;
  /** Selected deviations. */
  model: ProcessorModel = AMD;
  /** What the hypervisor's MSR bitmap says. */
  msrIntercepted: MsrIntercepted = () => true;
  /** The machine of this run. */
  m!: Machine;
  /** Byte offset of its VMCB. */
  vmcb = 0;
  /** Word offset of its VMCB. */
  at = 0;
  /** Its way to memory. */
  paging!: Paging;

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

  /** Recomputes the width of the code segment after CS or EFER changed. */
  setWidth(): void {
    const cs = this.attrib[SEG.cs] as number;
    this.width = this.longMode && (cs & ATTR.l) !== 0 ? 64 : (cs & ATTR.db) !== 0 ? 32 : 16;
  }
}
