/**
 * Where QEMU's own SVM and KVM part: one scenario a difference, with what each
 * did. Seen with QEMU 7.2 and Linux 6.12.117 on 1,098 scenarios.
 *
 * @module
 */

/** One difference. */
export interface QemuFinding {
  /** Name of the scenario that shows it. */
  readonly name: string;
  /** Its changes to the base. */
  readonly spec: string;
  /** Field of the record after the run that differs: `exit`, `gif`, or an 8-byte word of vmcb12 by offset. */
  readonly at: string;
  /** Its value on QEMU; words without leading zeroes, `-` when absent. */
  readonly qemu: string;
  /** Its value on KVM (`linux-6.12`, nested paging in the host). */
  readonly kvm: string;
  /** What QEMU does otherwise. */
  readonly what: string;
}

const INVALID = "ffffffffffffffff";

/** The differences: first checks that QEMU lacks or has, then what it writes. */
export const QEMU_FINDINGS: readonly QemuFinding[] = [
  // Entered or not.
  {
    name: "l2pae_pdpte0_bit1",
    spec: "s.d0=1000 s.150=50000 s.12.2=c9b m.50000=51003",
    at: "070",
    qemu: "81",
    kvm: INVALID,
    what: "The PDPTEs of a PAE L2 are not checked at VMRUN; reserved bits do not stop it",
  },
  {
    name: "efer_bit8",
    spec: "s.d0=1400",
    at: "070",
    qemu: "81",
    kvm: INVALID,
    what:
      "EFER.LMA without LME is taken as it is; KVM derives LMA and finds a PAE L2 without valid PDPTEs",
  },
  {
    name: "msrpm_unmapped",
    spec: "c.48=8000000",
    at: "070",
    qemu: "81",
    kvm: INVALID,
    what: "An MSR bitmap beyond memory does not matter until L2 uses an MSR; KVM reads it at VMRUN",
  },
  {
    name: "ncr3_bit40",
    spec: "c.90=1 c.b0=10000060000",
    at: "070",
    qemu: "400",
    kvm: INVALID,
    what:
      "nCR3 beyond the physical address width is not checked: L2's first fetch is a nested page fault",
  },
  {
    name: "ncr3_bit52",
    spec: "c.90=1 c.b0=10000000060000",
    at: "070",
    qemu: "81",
    kvm: INVALID,
    what: "Bits 63:52 of nCR3 are ignored",
  },
  {
    name: "int_ctl_bit26",
    spec: "c.60.4=4000000",
    at: "070",
    qemu: "81",
    kvm: INVALID,
    what: "V_NMI_ENABLE without intercepted NMIs is not checked: QEMU has no virtual NMI",
  },
  {
    name: "eventinj_t1_v2_err0",
    spec: "c.a8=80000102",
    at: "070",
    qemu: "ffffffff",
    kvm: "81",
    what: "EVENTINJ of the reserved type 1 is refused with every vector; KVM lets vector 2 in",
  },
  {
    name: "cr4_bit17",
    spec: "s.148=20020",
    at: "070",
    qemu: "81",
    kvm: INVALID,
    what:
      "CR4 is checked against the processor's own features (here PCIDE), not those that a hypervisor gives L1",
  },
  {
    name: "efer_bit14",
    spec: "s.d0=5500",
    at: "070",
    qemu: "81",
    kvm: INVALID,
    what: "EFER.FFXSR likewise: the processor has it, L1 under KVM does not",
  },
  {
    name: "vmcb12_gpa_1000000",
    spec: "rax=1000000",
    at: "exit",
    qemu: "2",
    kvm: "8",
    what:
      "A vmcb12 beyond memory is executed (as zeroes: VMRUN fails); KVM gives L1 #GP, and with it a shutdown",
  },
  {
    name: "hsave0",
    spec: "hsave=0",
    at: "exit",
    qemu: "2",
    kvm: "8",
    what: "VM_HSAVE_PA = 0 is a page like others; KVM gives L1 #GP",
  },
  {
    name: "eventinj_t4_v17_err0",
    spec: "c.a8=80000411",
    at: "070",
    qemu: "7f",
    kvm: "81",
    what: "An injected software interrupt 17 ends in a shutdown of L2",
  },
  // What a #VMEXIT writes.
  {
    name: "asid0",
    spec: "c.58.4=0",
    at: "070",
    qemu: "ffffffff",
    kvm: INVALID,
    what: "VMEXIT_INVALID is written as 32 bits: exit_code_hi is 0",
  },
  {
    name: "asid0",
    spec: "c.58.4=0",
    at: "578",
    qemu: "8000",
    kvm: "9000",
    what:
      "A failed VMRUN saves the running state, which is L1's, over vmcb12's save area (RIP, RSP, RAX, CRs, tables)",
  },
  {
    name: "eventinj_t1_v0_err0",
    spec: "c.a8=80000100",
    at: "088",
    qemu: "80000100",
    kvm: "-",
    what: "A failed VMRUN copies EVENTINJ to EXITINTINFO",
  },
  {
    name: "eventinj_t0_v8_err1",
    spec: "c.a8=1280000808",
    at: "088",
    qemu: "1280000808",
    kvm: "80000008",
    what: "EXITINTINFO repeats EVENTINJ with its error code; KVM keeps neither for an interrupt",
  },
  {
    name: "eventinj_t2_v1_err0",
    spec: "c.a8=80000201",
    at: "088",
    qemu: "80000201",
    kvm: "80000200",
    what: "EXITINTINFO of an NMI keeps the vector that EVENTINJ had",
  },
  {
    name: "dr6_bit4",
    spec: "s.168=ffff0fe0",
    at: "568",
    qemu: "ffff0fe0",
    kvm: "ffff0ff0",
    what: "Bits of DR6 that are always 1 are taken from vmcb12 and written back as they were",
  },
  {
    name: "dr7_bit10",
    spec: "s.160=0",
    at: "560",
    qemu: "-",
    kvm: "400",
    what: "Bit 10 of DR7, always 1, likewise",
  },
  {
    name: "int_ctl_bit0",
    spec: "c.60.4=1",
    at: "060",
    qemu: "1",
    kvm: "-",
    what: "V_TPR comes back as it was given; KVM returns that of vmcb02",
  },
  {
    name: "cr0_bit31",
    spec: "s.158=31",
    at: "4d0",
    qemu: "1500",
    kvm: "1100",
    what: "EFER.LMA stays set in an L2 without paging",
  },
];
