/**
 * The consistency checks of VMRUN that the AMD manual lists (APM vol. 2,
 * 15.5.1, 15.20 and 15.25.4), for a processor with what the modelled CPU has.
 *
 * @module
 */
import { type Check, check, CR4_PAE, illegal, longPaging } from "./check.ts";
import type { CheckSet } from "./check_set.ts";
import { injectable } from "../svm/injectable.ts";
import { CHECKS_6_12 } from "./linux_6_12.ts";
import { EVENT_INJ, NESTED_CTL } from "../svm/control_bits.ts";
import { C, canUse, type Machine, S } from "../svm/machine.ts";

const NP_ENABLE = NESTED_CTL.NP_ENABLE;
const EVENT_VALID = EVENT_INJ.V;

function nestedPaging(m: Machine, at: number): boolean {
  return (m.u32(at + C.nested_ctl) & NP_ENABLE) !== 0;
}

function in64Bit(m: Machine, at: number): boolean {
  return longPaging(m, at) && (m.u16(at + S.cs_attrib) & 0x200) !== 0;
}

/** Types 1, 5, 6 and 7 are reserved; an exception's vector is that of an exception which L2's mode has. */
function illegalEvent(m: Machine, at: number): boolean {
  const event = m.u32(at + C.event_inj);
  if (event < EVENT_VALID) return false;
  const type = event >>> 8 & 7, vector = event & 0xff;
  return type === 1 || type > 4 ||
    type === 3 && !injectable(vector, in64Bit(m, at), canUse(m.caps, "shstk"));
}

/** Memory types 2, 3 and 8 and above do not exist. */
function illegalPat(m: Machine, at: number): boolean {
  for (let i = 0; i < 8; i++) {
    const type = m.u8(at + S.g_pat + i);
    if (type > 7 || type === 2 || type === 3) return true;
  }
  return false;
}

const KVM: ReadonlyMap<string, Check> = new Map(CHECKS_6_12.checks.map((row) => [row.id, row]));

/** A check that KVM makes as well, in the manual's words. */
function asKvm(id: string, text: string): Check {
  const row = KVM.get(id);
  if (row === undefined) throw new RangeError(`KVM makes no check "${id}"`);
  return { ...row, texts: [text] };
}

const CHECKS: readonly Check[] = [
  asKvm("efer-svme", "EFER.SVME is zero"),
  asKvm("cr0-nw-without-cd", "CR0.CD is zero and CR0.NW is set"),
  asKvm("cr0-high", "CR0[63:32] are not zero"),
  check(
    "save",
    "cr3-mbz",
    "Any MBZ bit of CR3 is set",
    ["save.cr3"],
    "CR3 has a bit beyond the physical address width, whatever the mode",
    (m, at) => illegal(m, at + S.cr3),
  ),
  asKvm("cr4-reserved", "Any MBZ bit of CR4 is set"),
  asKvm("dr6-high", "DR6[63:32] are not zero"),
  asKvm("dr7-high", "DR7[63:32] are not zero"),
  asKvm("efer-reserved", "Any MBZ bit of EFER is set"),
  asKvm("lme-pg-without-pae", "EFER.LME and CR0.PG are both set and CR4.PAE is zero"),
  asKvm("lme-pg-without-pe", "EFER.LME and CR0.PG are both non-zero and CR0.PE is zero"),
  check(
    "save",
    "cs-l-and-d",
    "EFER.LME, CR0.PG, CR4.PAE, CS.L, and CS.D are all non-zero",
    ["save.efer", "save.cr0", "save.cr4", "save.cs_attrib"],
    "EFER.LME, CR0.PG and CR4.PAE are set and CS.L and CS.D are both set",
    (m, at) =>
      longPaging(m, at) && (m.u32(at + S.cr4) & CR4_PAE) !== 0 &&
      (m.u16(at + S.cs_attrib) & 0x600) === 0x600,
  ),
  check(
    "save",
    "g-pat",
    "Any G_PAT.PA field has an unsupported type encoding",
    ["control.nested_ctl", "save.g_pat"],
    "Nested paging is asked for and a field of G_PAT holds no memory type",
    (m, at) => nestedPaging(m, at) && illegalPat(m, at),
  ),
  asKvm("vmrun-intercept", "The VMRUN intercept bit is clear"),
  asKvm(
    "msrpm-address",
    "The MSR intercept table extends beyond the maximum supported physical address",
  ),
  asKvm(
    "iopm-address",
    "The IOIO intercept table extends beyond the maximum supported physical address",
  ),
  check(
    "control",
    "event-injection",
    "Illegal event injection",
    ["control.event_inj", "save.efer", "save.cr0", "save.cs_attrib"],
    "EVENTINJ has a reserved type, or an exception's type with a vector that L2's mode has no exception for",
    illegalEvent,
  ),
  asKvm("asid-zero", "ASID is equal to zero"),
  check(
    "control",
    "np-without-npt",
    "Nested paging is not supported",
    ["control.nested_ctl"],
    "Nested paging is asked for and the processor, as L1 sees it, has none",
    (m, at) => nestedPaging(m, at) && !m.caps.npt,
  ),
  asKvm("ncr3-legal", "Any MBZ bit of nCR3 is set"),
  asKvm("vnmi-without-nmi-intercept", "V_NMI_ENABLE is set and the NMI intercept bit is clear"),
  asKvm("cr3-legal", "Any MBZ bit of CR3 is set (when CR3 is loaded)"),
  asKvm("pdptrs", "The PDPEs contain illegal state"),
  asKvm("pdptrs-pages", "The PDPEs contain illegal state (after a restore)"),
];

/** Checks of the AMD manual, in the order it lists them; it gives none itself. */
export const CHECKS_APM: CheckSet = { name: "apm", maker: "apm", checks: CHECKS };
