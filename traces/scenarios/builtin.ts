/**
 * Built-in scenarios, named after what they show. Between them they show every
 * known difference between the policies.
 *
 * @module
 */
import { closest } from "../../engine/closest.ts";
import type { Scenario } from "./scenario.ts";
import { ScenarioError } from "./scenario_error.ts";
import { parseScenario } from "./scenario_reader.ts";

/** A built-in scenario, or a sequence of them on one vCPU. */
export interface Builtin {
  /** What to ask for it by. */
  readonly name: string;
  /** What it shows, in one line. */
  readonly shows: string;
  /** What the kernels do, as observed. */
  readonly observed: string;
  /** MMU mode in which it shows it; both when left out. */
  readonly npt?: "on" | "off";
  /** The specs of its cases in order. */
  readonly specs: readonly string[];
}

const PAE_L2 = "save.efer=1000 save.cr3=50000 save.cs_attrib=c9b";

/** The built-in scenarios. */
export const BUILTINS: readonly Builtin[] = [
  {
    name: "enter",
    shows: "VMRUN enters L2, whose VMMCALL exits to L1",
    observed: "All three enter and leave; unified alone has vmcb01 point at the merged MSR bitmap.",
    specs: [""],
  },
  {
    name: "enter-npt",
    shows: "The same with nested paging for L2",
    observed: "All three run the walker of nested_mmu while L2 runs, and root_mmu after it.",
    specs: ["control.nested_ctl=1 control.nested_cr3=60000"],
  },
  {
    name: "gif-left-set",
    shows: "A failed check leaves GIF as L1 had it, where every #VMEXIT clears it",
    observed:
      "early-exit leaves GIF set; unified and linux-6.12 clear it. All write VMEXIT_INVALID.",
    specs: ["control.asid=0"],
  },
  {
    name: "eventinj-left",
    shows: "A failed check leaves L1's EVENTINJ in vmcb12",
    observed: "early-exit and unified write it back as it was; linux-6.12 writes 0.",
    specs: ["control.event_inj=80000220 control.asid=0"],
  },
  {
    name: "eventinj-left-late",
    shows: "A failure after the switch to vmcb02 leaves EVENTINJ, too",
    observed: "early-exit and unified write it back; linux-6.12 writes 0. All clear GIF.",
    specs: ["control.event_inj=80000302 control.msrpm_base_pa=8000000"],
  },
  {
    name: "msrpm-in-vmcb01",
    shows: "The merged MSR bitmap ends up in vmcb01, so that L1 runs with L2's",
    observed:
      "unified: vmcb01 points at the merged bitmap from the first entry on, also after a failed " +
      "VMRUN, and the recalculate flag stays set until L2 runs again; the other two keep the host's.",
    specs: ["", "keepvm control.asid=0", "keepvm"],
  },
  {
    name: "pae-l2-bad-pdptes-enters",
    shows: "A PAE L2 with reserved bits in a PDPTE gets in when PDPTEs are checked for L1's mode",
    observed:
      "early-exit and linux-6.12 refuse it (!load_pdptrs); unified enters, and L2 runs to its VMMCALL.",
    npt: "on",
    specs: [`${PAE_L2} m.50008=52007`],
  },
  {
    name: "pae-l1-cannot-start-64-bit-l2",
    shows:
      "A PAE L1 cannot start a 64-bit L2 when L2's CR3 is loaded while L1's registers are in place",
    observed:
      "early-exit and linux-6.12 enter; unified fails with !load_pdptrs, since it reads PDPTEs from " +
      "a page table of L2's.",
    npt: "off",
    specs: ["l1pae"],
  },
  {
    name: "pae-l2-faults-for-ever",
    shows: "Under shadow paging a PAE L2 faults for ever when the MMU was set up for L1's mode",
    observed:
      "early-exit and linux-6.12 run it; unified loops in page faults at L2's first instruction until " +
      "it is stopped.",
    npt: "off",
    specs: [PAE_L2],
  },
  {
    name: "late-failure-pdptes",
    shows: "A failure after the switch to vmcb02, in loading CR3",
    observed:
      "early-exit and linux-6.12 do a full #VMEXIT from vmcb02, which clears GIF; unified does not see it.",
    npt: "on",
    specs: [`${PAE_L2} m.50000=51007`],
  },
  {
    name: "late-failure-msrpm",
    shows: "A failure in merging the MSR bitmap: its address is legal, but no memory is there",
    observed:
      "early-exit and linux-6.12 do a full #VMEXIT from vmcb02; unified fails before the switch, without one. " +
      "No check's text is traced. All clear GIF.",
    specs: ["control.msrpm_base_pa=8000000"],
  },
  {
    name: "late-failure-then-enter",
    shows: "What a late failure leaves behind for the next VMRUN",
    observed:
      "All enter afterwards; early-exit and linux-6.12 have used vmcb02 by then, unified has not.",
    specs: ["control.msrpm_base_pa=8000000", "keepvm"],
  },
  {
    name: "nmi-tracking-left",
    shows: "The tracking of an NMI that L1 injected survives the #VMEXIT, until L1 has run",
    observed:
      "early-exit and unified still track it at the #VMEXIT; linux-6.12 drops it. L2 has no IDT and shuts down.",
    specs: ["control.event_inj=80000202", "keepvm control.asid=0"],
  },
  {
    name: "nmi-tracking-dropped-late",
    shows: "The tracking of an NMI that L1 injected, when VMRUN fails late",
    observed: "early-exit, unified and linux-6.12 all drop it.",
    specs: ["control.event_inj=80000202 control.msrpm_base_pa=8000000"],
  },
  {
    name: "soft-interrupt-injected",
    shows: "L1 injects a soft interrupt into an L2 without an IDT",
    observed: "All track it until L2 runs, and L2 shuts down.",
    specs: ["control.event_inj=80000403", "keepvm"],
  },
  {
    name: "rsm",
    shows: "An SMI hits L2, and its handler returns into L2",
    observed: "All return into L2, whose VMMCALL then exits to L1.",
    specs: ["entry=rsm"],
  },
  {
    name: "rsm-into-bad-vmcb12",
    shows: "RSM into an L2 whose vmcb12 broke a check while the SMI handler ran",
    observed:
      "early-exit enters L2 without checking; unified and linux-6.12 refuse (linux-6.12: shutdown).",
    specs: ["entry=rsm late.save.efer=500"],
  },
  {
    name: "guest-mode-left-after-refused-rsm",
    shows:
      "A refused RSM leaves guest mode set with vmcb01 active, and the next #VMEXIT trips an assertion",
    observed:
      "unified leaves guest mode set, and finds svm->vmcb != svm->nested.vmcb02.ptr at the next #VMEXIT; " +
      "linux-6.12 leaves guest mode and shuts down; early-exit does not refuse. All enter at the next VMRUN.",
    specs: ["entry=rsm late.control.asid=0", "keepvm"],
  },
  {
    name: "rsm-msrpm-unmapped",
    shows:
      "RSM into an L2 whose MSR bitmap is in no memory: found only when L2's pages are fetched",
    observed: "All set L2 up, then KVM_RUN ends in an internal error with the run still pending.",
    specs: ["entry=rsm late.control.msrpm_base_pa=8000000"],
  },
  {
    name: "setstate",
    shows: "KVM_SET_NESTED_STATE puts a vCPU into L2",
    observed: "All enter; the MSR bitmap is merged when L2's pages are fetched.",
    specs: ["entry=setstate"],
  },
  {
    name: "setstate-gif-clear",
    shows: "The same with GIF clear, which VMRUN would have set",
    observed: "All run L2 with GIF clear.",
    specs: ["entry=setstate gif=0"],
  },
  {
    name: "setstate-bad-vmcb12",
    shows: "KVM_SET_NESTED_STATE with a control area that breaks a check",
    observed: "All refuse with EINVAL; the vCPU runs L2's code as L1.",
    specs: ["entry=setstate control.asid=0"],
  },
  {
    name: "setstate-bad-host-state",
    shows: "KVM_SET_NESTED_STATE with an L1 save area that breaks a check",
    observed: "All refuse with EINVAL: !(save->efer & EFER_SVME).",
    specs: ["entry=setstate late.hsave.efer=500"],
  },
  {
    name: "failure-with-gif-clear",
    shows: "With GIF clear before VMRUN, a failed check looks the same under every policy",
    observed: "All leave GIF clear.",
    specs: ["gif=0 control.asid=0"],
  },
  {
    name: "shutdown",
    shows: "L2 without an IDT executes an undefined instruction: a triple fault",
    observed: "All give L1 a #VMEXIT for SHUTDOWN.",
    specs: ["m.9000=b0f"],
  },
];

/**
 * The scenarios of a built-in.
 *
 * @param name Its name.
 * @returns Its cases in order: the first under its name, the others with their number behind it.
 * @throws {ScenarioError} When there is no built-in of that name.
 * @example
 * ```ts
 * import { builtinScenarios } from "@vmtape/vmtape/traces";
 * const [first] = builtinScenarios("gif-left-set");
 * if (first?.changes[0]?.gpa !== 0x10058) throw new Error();
 * ```
 */
export function builtinScenarios(name: string): Scenario[] {
  const found = BUILTINS.find((builtin) => builtin.name === name);
  if (!found) {
    const names = BUILTINS.map((builtin) => builtin.name);
    const near = closest(name, names);
    throw new ScenarioError(
      `There is no built-in scenario "${name}"${near ? `; did you mean ${near}?` : ""}`,
      { file: name, line: 1, column: 1, expected: `a file or one of ${names.join(", ")}` },
    );
  }
  return found.specs.map((spec, i) => {
    const numbered = i === 0 ? found.name : `${found.name}.${i + 1}`;
    return parseScenario(`${numbered} ${spec}`, { file: found.name, line: i + 1 });
  });
}
