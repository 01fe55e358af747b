/**
 * Numbers of the architecture: flags, exit codes, vectors, statuses.
 *
 * @module
 */
import { lowerCase, RFLAGS, SEGMENT_ATTRIB } from "../svm/bits.ts";
import { EXITS } from "../svm/exit_codes.ts";
import { VECTORS } from "../svm/intercepts.ts";

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
export const FLAG = lowerCase(RFLAGS);

/** Attribute bits of a segment, as the VMCB packs them. */
export const ATTR = lowerCase(SEGMENT_ATTRIB);

/** Exit codes that the processor's own logic needs. */
export const EXIT_CODE = {
  readCr: EXITS.READ_CR0,
  writeCr: EXITS.WRITE_CR0,
  readDr: EXITS.READ_DR0,
  writeDr: EXITS.WRITE_DR0,
  exception: EXITS.EXCP,
  intr: EXITS.INTR,
  vintr: EXITS.VINTR,
  cr0Write: EXITS.CR0_SEL_WRITE,
  idtrRead: EXITS.IDTR_READ,
  gdtrRead: EXITS.GDTR_READ,
  ldtrRead: EXITS.LDTR_READ,
  trRead: EXITS.TR_READ,
  idtrWrite: EXITS.IDTR_WRITE,
  gdtrWrite: EXITS.GDTR_WRITE,
  ldtrWrite: EXITS.LDTR_WRITE,
  trWrite: EXITS.TR_WRITE,
  rdtsc: EXITS.RDTSC,
  rdpmc: EXITS.RDPMC,
  pushf: EXITS.PUSHF,
  popf: EXITS.POPF,
  cpuid: EXITS.CPUID,
  rsm: EXITS.RSM,
  iret: EXITS.IRET,
  swint: EXITS.SWINT,
  invd: EXITS.INVD,
  pause: EXITS.PAUSE,
  hlt: EXITS.HLT,
  invlpg: EXITS.INVLPG,
  invlpga: EXITS.INVLPGA,
  ioio: EXITS.IOIO,
  msr: EXITS.MSR,
  shutdown: EXITS.SHUTDOWN,
  vmrun: EXITS.VMRUN,
  vmmcall: EXITS.VMMCALL,
  vmload: EXITS.VMLOAD,
  vmsave: EXITS.VMSAVE,
  stgi: EXITS.STGI,
  clgi: EXITS.CLGI,
  skinit: EXITS.SKINIT,
  icebp: EXITS.ICEBP,
  wbinvd: EXITS.WBINVD,
  xsetbv: EXITS.XSETBV,
  monitor: EXITS.MONITOR,
  mwait: EXITS.MWAIT,
  npf: EXITS.NPF,
} as const;

/** Vectors of exceptions. */
export const VECTOR = lowerCase(VECTORS);

/** CR4 bits that the processor has: VME to LA57, FSGSBASE, PCIDE, OSXSAVE, SMEP, SMAP, PKE, PKS. */
export const CR4_VALID: number = 0x1fff | 1 << 16 | 1 << 17 | 1 << 18 | 1 << 20 | 1 << 21 |
  1 << 22 | 1 << 24;
/** EFER bits that the processor has: SCE, LME, LMA, NXE, SVME, LMSLE, FFXSR. */
export const EFER_VALID = 0x7d01;
