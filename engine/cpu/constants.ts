/**
 * Numbers of the architecture: flags, exit codes, vectors, statuses.
 *
 * @module
 */

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

/** CR4 bits that the processor has: VME to LA57, FSGSBASE, PCIDE, OSXSAVE, SMEP, SMAP, PKE, PKS. */
export const CR4_VALID: number = 0x1fff | 1 << 16 | 1 << 17 | 1 << 18 | 1 << 20 | 1 << 21 |
  1 << 22 | 1 << 24;
/** EFER bits that the processor has: SCE, LME, LMA, NXE, SVME, FFXSR. */
export const EFER_VALID = 0x5d01;
