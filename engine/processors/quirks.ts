/**
 * Where the processors that are modelled part from the AMD manual.
 *
 * @module
 */

/** One deviation from the AMD manual. */
export interface Quirk {
  /** Its name, and the switch of it in a model. */
  readonly id: string;
  /** What a processor with it does. */
  readonly doc: string;
  /** What the manual says instead. */
  readonly manual: string;
  /** A scenario that shows it; none where a hypervisor hides it, or only a recording's bits show it. */
  readonly scenario: string | undefined;
}

/** Room for descriptors, and for gates to a handler at 0x9100. */
const GATES = "save.gdtr_limit=ffff m.4008=af9b000000ffff save.idtr_limit=fff";

/** The deviations, one a row. Which processor has which stands with the processor; the manual's has none. */
export const QUIRKS = [
  {
    id: "ignoresInterruptShadow",
    doc: "VMRUN ignores the interrupt shadow in the VMCB (int_state)",
    manual: "A guest may begin within an interrupt shadow (15.21.5)",
    scenario: "control.int_state=1",
  },
  {
    id: "invalidExitCode32",
    doc: "VMEXIT_INVALID sets only the low 32 bits of the exit code",
    manual: "It is -1 in all 64 bits (appendix C)",
    scenario: "control.event_inj=80000302",
  },
  {
    id: "leaksHostRip",
    doc:
      "A VMRUN that is refused after guest state was loaded leaves the host's RIP[11:0] in the saved RIP",
    manual: "The guest's RIP is as it was (15.5.1)",
    scenario: "control.event_inj=80000302",
  },
  {
    id: "savesOnRefusal",
    doc: "A refused VMRUN saves the running state, and copies EVENTINJ to EXITINTINFO",
    manual: "It saves nothing of a guest that never ran (15.5.1)",
    scenario: undefined,
  },
  {
    id: "debugBitsAsGiven",
    doc: "The bits of DR6 that are always 1 are taken from the VMCB, and written back as they were",
    manual: "They are always 1",
    scenario: undefined,
  },
  {
    id: "refusesLmsle",
    doc: "VMRUN refuses EFER.LMSLE",
    manual: "It is reserved only where CPUID says so (EferLmsleUnsupported)",
    scenario: "save.efer=3500",
  },
  {
    id: "cplFromSs",
    doc: "CPL comes from SS.DPL at VMRUN",
    manual: "It comes from the VMCB's CPL (15.5.1)",
    scenario: "save.cpl=3",
  },
  {
    id: "injectsAnyVector",
    doc: "An exception of any vector but 2 and those from 31 on can be injected",
    manual: "Reserved vectors cannot, nor #BR and #OF in 64-bit mode (15.20)",
    scenario: "control.event_inj=80000305",
  },
  {
    id: "injectsWithoutDpl",
    doc: "An injected #BP or #OF passes a gate of any DPL",
    manual: "They behave as INT3 and INTO do, which need the gate's DPL (15.20)",
    scenario: undefined,
  },
  {
    id: "forgetsInjected",
    doc: "A fault while an injected exception is delivered never makes a double fault of the two",
    manual: "An injected exception counts as if it had occurred in the guest (15.20)",
    scenario:
      `${GATES} m.50d0=8e0000089100 m.5080=8e0000089200 m.9100=d9010f m.9200=d9010f control.event_inj=80000300`,
  },
  {
    id: "errorCodeByVector",
    doc: "Whether an injected exception pushes an error code follows from its vector",
    manual: "It follows from EVENTINJ.EV (15.20)",
    scenario: `${GATES} m.50d0=8e0000089100 m.9100=d9010f58 control.event_inj=8000030d`,
  },
  {
    id: "keepsEventBits",
    doc: "EXITINTINFO repeats EVENTINJ after delivery too, with the valid bit clear",
    manual: "It is of use only with the valid bit; the model clears it",
    scenario: undefined,
  },
  {
    id: "virqReportedAsException",
    doc: "A virtual interrupt whose delivery faults is an exception in EXITINTINFO",
    manual: "Its type there is 0, an interrupt (15.7.2)",
    scenario: "control.int_ctl=f0100 control.int_vector=40 save.rflags=202",
  },
  {
    id: "doubleFaultNotIntercepted",
    doc: "A double fault is intercepted only as the exception that it was before",
    manual: "The intercept of #DF applies to it (15.12.9)",
    scenario: "control.event_inj=8000030d control.intercept_exceptions=100",
  },
  {
    id: "breakpointIsInterrupt",
    doc: "INT3 and INTO exit by the intercept of INTn, and are software interrupts in EXITINTINFO",
    manual: "The intercepts of #BP and #OF apply, and they are exceptions (15.12.4, 15.12.5)",
    scenario: "control.intercept_exceptions|=BP m.9000.1=cc",
  },
  {
    id: "icebpUndefined",
    doc: "ICEBP is #UD, intercepted or not",
    manual:
      "It has an intercept; without, it is a #DB that the intercept of #DB does not see (15.9)",
    scenario: "control.intercept_word4|=ICEBP m.9000.1=f1",
  },
  {
    id: "invdIsWbinvd",
    doc: "INVD exits by the intercept of WBINVD",
    manual: "It has an intercept of its own (15.9)",
    scenario: "control.intercept_word3|=INVD m.9000=080f",
  },
  {
    id: "noXsetbvIntercept",
    doc: "XSETBV has no intercept",
    manual: "It has one (15.9)",
    scenario: "control.intercept_word4|=XSETBV save.cr4=40020 m.9000.4=d1010f",
  },
  {
    id: "xsetbvExitsFirst",
    doc: "XSETBV exits although CR4.OSXSAVE is clear",
    manual: "#UD comes before intercepts (15.7)",
    scenario: "control.intercept_word4|=XSETBV m.9000.4=d1010f",
  },
  {
    id: "cr3ReadNeedsWrite",
    doc: "Reading CR3 exits only if writing it would too",
    manual: "It has an intercept (15.9)",
    scenario: "control.intercept_cr|=CR3_READ m.9000.4=d8200f",
  },
  {
    id: "badControlRegisterExits",
    doc: "Loading CR3 or CR4 with a reserved bit is a #VMEXIT with VMEXIT_INVALID",
    manual: "It is #GP",
    scenario: "save.rax=8000000000000 m.9000.4=d8220f",
  },
  {
    id: "gateErrorInBytes",
    doc: "The error code of a bad gate in long mode counts the vector by 16 bytes",
    manual: "Its index is the vector",
    scenario: "control.intercept_exceptions=2000 m.9000.2=80cd",
  },
  {
    id: "noExternalBit",
    doc: "Error codes of faults while an interrupt is delivered have EXT clear",
    manual: "It is set, since the source is outside the program",
    scenario: "control.event_inj=80000020 control.intercept_exceptions=2000",
  },
  {
    id: "reservedWithoutPresent",
    doc: "A page fault for a reserved bit has P clear in its error code",
    manual: "P is set, since the page is present (8.4.2)",
    scenario: "m.42000=200000000087 control.intercept_exceptions=4000",
  },
  {
    id: "resumeFlagLingers",
    doc: "RFLAGS.RF stays set until a translated block ends",
    manual: "It is cleared by the instruction",
    scenario: "save.rflags=10002 m.9000.1=90",
  },
  {
    id: "mixesUnchecked",
    doc:
      "Instructions between MMX and SSE (MOVDQ2Q and its like) need neither CR4.OSFXSR nor CR0.EM and TS clear",
    manual: "They are SSE2 instructions",
    scenario: "m.9000.8=90d9010fc0d60ff2 control.intercept_exceptions=40",
  },
  {
    id: "taskSwitchedFirst",
    doc: "CR0.TS makes MMX and SSE instructions #NM even with CR0.EM",
    manual: "With CR0.EM they are #UD",
    scenario: "m.9000.4=90c06f0f save.cr0=8000003d control.intercept_exceptions=c0",
  },
  {
    id: "popsAnyReg",
    doc: "POP with an operand (8F) pops whatever ModRM.reg is",
    manual: "Another ModRM.reg than 0 is #UD, or XOP",
    scenario: "m.9000.2=c88f control.intercept_exceptions=40",
  },
  {
    id: "sysenterInCompatibility",
    doc: "SYSENTER and SYSEXIT are there in compatibility mode",
    manual: "They are #UD in long mode",
    scenario: "save.cs_attrib=c9b m.9000=340f control.intercept_exceptions=2040",
  },
  {
    id: "unknownMsrsAreZero",
    doc: "MSRs that it does not have read as 0, and what is written to them is dropped",
    manual: "They are #GP",
    scenario: "m.9000=f320fc0010130b9 m.9008=d901",
  },
  {
    id: "savesNoNextRip",
    doc: "The next RIP is not saved, whatever CPUID says",
    manual: "It is saved where CPUID offers it (15.7.1)",
    scenario: "m.9000=d9010f",
  },
] as const satisfies readonly Quirk[];

/** Name of a deviation. */
export type QuirkId = typeof QUIRKS[number]["id"];
