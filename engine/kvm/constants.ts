/**
 * Numbers the hypervisor model shares: register bits, KVM's request bits,
 * intercept numbers and the symbolic host addresses.
 *
 * @module
 */

/** CR0 bits (APM vol. 2, 3.1.1). */
export const CR0 = {
  PE: 1 << 0,
  MP: 1 << 1,
  EM: 1 << 2,
  TS: 1 << 3,
  ET: 1 << 4,
  NE: 1 << 5,
  WP: 1 << 16,
  AM: 1 << 18,
  NW: 1 << 29,
  CD: 1 << 30,
  PG: 1 << 31,
} as const;

/** CR4 bits (APM vol. 2, 3.1.3). */
export const CR4 = {
  PSE: 1 << 4,
  PAE: 1 << 5,
  MCE: 1 << 6,
  PGE: 1 << 7,
  LA57: 1 << 12,
  PCIDE: 1 << 17,
  OSXSAVE: 1 << 18,
  SMEP: 1 << 20,
  SMAP: 1 << 21,
  PKE: 1 << 22,
} as const;

/** EFER bits (APM vol. 2, 3.1.7). */
export const EFER = { LME: 1 << 8, LMA: 1 << 10, NX: 1 << 11, SVME: 1 << 12 } as const;

/** RFLAGS bits. */
export const RFLAGS = { FIXED: 2, TF: 1 << 8, IF: 1 << 9, RF: 1 << 16, VM: 1 << 17 } as const;

/** DR6 as it is at reset: fixed and active-low bits. */
export const DR6_ACTIVE_LOW = 0xffff0ff0;
/** DR6's always-set bits. */
export const DR6_FIXED = DR6_ACTIVE_LOW & ~0x0001e80f;
/** DR7's always-set bit. */
export const DR7_FIXED = 0x400;

/** int_ctl bits of the control area (APM vol. 2, table B-1, offset 060h). */
export const INT_CTL = {
  V_TPR: 0xf,
  V_IRQ: 1 << 8,
  V_GIF: 1 << 9,
  V_INTR_PRIO: 0xf << 16,
  V_IGN_TPR: 1 << 20,
  V_INTR_MASKING: 1 << 24,
  V_GIF_ENABLE: 1 << 25,
  V_NMI_ENABLE: 1 << 26,
} as const;

/** int_ctl bits that request a virtual interrupt. */
export const V_IRQ_INJECTION = INT_CTL.V_IRQ | INT_CTL.V_INTR_PRIO | INT_CTL.V_IGN_TPR;

/** event_inj and exit_int_info bits (APM vol. 2, 15.20). */
export const EVTINJ = {
  VALID: 1 << 31,
  VALID_ERR: 1 << 11,
  TYPE: 7 << 8,
  INTR: 0 << 8,
  NMI: 2 << 8,
  EXEPT: 3 << 8,
  SOFT: 4 << 8,
} as const;

/** Clean bits of a VMCB (APM vol. 2, 15.15.3). */
export const CLEAN = {
  INTERCEPTS: 0,
  PERM_MAP: 1,
  ASID: 2,
  INTR: 3,
  NPT: 4,
  CR: 5,
  DR: 6,
  DT: 7,
  SEG: 8,
  CR2: 9,
  LBR: 10,
} as const;

/** All clean bits KVM knows, less the two it always rewrites (TPR and CR2). */
export const ALL_CLEAN = (0x80000fff & ~(1 << CLEAN.INTR | 1 << CLEAN.CR2)) >>> 0;

/** Numbers of intercepts, counted over the six words of the control area. */
export const INTERCEPT = {
  CR0_READ: 0,
  CR3_READ: 3,
  CR4_READ: 4,
  CR8_READ: 8,
  CR0_WRITE: 16,
  CR3_WRITE: 19,
  CR4_WRITE: 20,
  CR8_WRITE: 24,
  EXCEPTION: 64,
  INTR: 96,
  NMI: 97,
  SMI: 98,
  INIT: 99,
  VINTR: 100,
  SELECTIVE_CR0: 101,
  RDPMC: 111,
  CPUID: 114,
  RSM: 115,
  IRET: 116,
  INVD: 118,
  HLT: 120,
  INVLPG: 121,
  INVLPGA: 122,
  IOIO_PROT: 123,
  MSR_PROT: 124,
  TASK_SWITCH: 125,
  SHUTDOWN: 127,
  VMRUN: 128,
  VMMCALL: 129,
  VMLOAD: 130,
  VMSAVE: 131,
  STGI: 132,
  CLGI: 133,
  SKINIT: 134,
  WBINVD: 137,
  MONITOR: 138,
  MWAIT: 139,
  XSETBV: 141,
  RDPRU: 142,
} as const;

/** Exit codes the model acts on (APM vol. 2, appendix C). */
export const EXIT = {
  READ_CR0: 0x00,
  WRITE_CR0: 0x10,
  READ_DR0: 0x20,
  WRITE_DR7: 0x3f,
  EXCP: 0x40,
  INTR: 0x60,
  NMI: 0x61,
  SMI: 0x62,
  INIT: 0x63,
  VINTR: 0x64,
  CR0_SEL_WRITE: 0x65,
  IDTR_READ: 0x66,
  GDTR_READ: 0x67,
  LDTR_READ: 0x68,
  TR_READ: 0x69,
  IDTR_WRITE: 0x6a,
  GDTR_WRITE: 0x6b,
  LDTR_WRITE: 0x6c,
  TR_WRITE: 0x6d,
  RDTSC: 0x6e,
  RDPMC: 0x6f,
  PUSHF: 0x70,
  POPF: 0x71,
  CPUID: 0x72,
  RSM: 0x73,
  IRET: 0x74,
  SWINT: 0x75,
  INVD: 0x76,
  PAUSE: 0x77,
  HLT: 0x78,
  INVLPG: 0x79,
  INVLPGA: 0x7a,
  IOIO: 0x7b,
  MSR: 0x7c,
  TASK_SWITCH: 0x7d,
  SHUTDOWN: 0x7f,
  VMRUN: 0x80,
  VMMCALL: 0x81,
  VMLOAD: 0x82,
  VMSAVE: 0x83,
  STGI: 0x84,
  CLGI: 0x85,
  SKINIT: 0x86,
  RDTSCP: 0x87,
  ICEBP: 0x88,
  WBINVD: 0x89,
  MONITOR: 0x8a,
  MWAIT: 0x8b,
  XSETBV: 0x8d,
  RDPRU: 0x8e,
  INVPCID: 0xa2,
  NPF: 0x400,
  /** KVM's own: software-defined exits start here; used for an SMI in L2. */
  SW: 0xf0000000,
} as const;

/** Exception vectors. */
export const VECTOR = {
  DE: 0,
  DB: 1,
  NMI: 2,
  BP: 3,
  OF: 4,
  UD: 6,
  DF: 8,
  TS: 10,
  NP: 11,
  SS: 12,
  GP: 13,
  PF: 14,
  AC: 17,
  MC: 18,
} as const;

/** Bit numbers of KVM's vCPU requests (KVM_REQ_*). */
export const REQ = {
  TLB_FLUSH: 0,
  VM_DEAD: 1,
  MIGRATE_TIMER: 8,
  TRIPLE_FAULT: 10,
  MMU_SYNC: 11,
  CLOCK_UPDATE: 12,
  LOAD_MMU_PGD: 13,
  EVENT: 14,
  STEAL_UPDATE: 16,
  NMI: 17,
  SMI: 20,
  MASTERCLOCK_UPDATE: 21,
  GLOBAL_CLOCK_UPDATE: 24,
  GET_NESTED_STATE_PAGES: 32,
  TLB_FLUSH_CURRENT: 34,
  TLB_FLUSH_GUEST: 35,
  MMU_FREE_OBSOLETE_ROOTS: 39,
} as const;

/** vCPU flags (hflags). */
export const HF = { GUEST: 1, SMM: 2, SMM_INSIDE_NMI: 4 } as const;

/** KVM_EXIT_* reasons that the model produces. */
export const KVM_EXIT = {
  UNKNOWN: 0,
  IO: 2,
  HLT: 5,
  MMIO: 6,
  SHUTDOWN: 8,
  FAIL_ENTRY: 9,
  INTR: 10,
  INTERNAL_ERROR: 17,
} as const;

/**
 * High half of the host addresses in the model. Real ones differ from run to
 * run; here a pointer says what it points at.
 */
export const HOST_HIGH = 0xf0;
/** Low halves of the symbolic host addresses. */
export const HOST = { IOPM: 0x1000, MSRPM: 0x4000, MERGED_MSRPM: 0x8000, ROOT: 0x10000 } as const;
