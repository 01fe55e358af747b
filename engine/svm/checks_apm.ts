/**
 * The consistency checks of VMRUN that the AMD manual lists (APM vol. 2,
 * 15.5.1, 15.20 and 15.25.4), for a processor with what the modelled CPU has.
 *
 * @module
 */
import {
  bitmapIllegal,
  type Check,
  check,
  CR0_CD,
  CR0_NW,
  CR0_PE,
  CR4_PAE,
  CR4_PKE,
  CR4_VALID,
  EFER_SVME,
  EFER_VALID,
  illegal,
  IOPM_SIZE,
  longPaging,
  MSRPM_SIZE,
} from "./check.ts";
import { LINUX_6_12 } from "./checks_linux.ts";
import { C, type Machine, S } from "./machine.ts";

const NP_ENABLE = 1;
const EVENT_VALID = 0x80000000;

function nestedPaging(m: Machine, at: number): boolean {
  return (m.u32(at + C.nested_ctl) & NP_ENABLE) !== 0;
}

/** Types 1, 5, 6 and 7 are reserved; an exception's vector is below 32 and not NMI's. */
function illegalEvent(m: Machine, at: number): boolean {
  const event = m.u32(at + C.event_inj);
  if (event < EVENT_VALID) return false;
  const type = event >>> 8 & 7, vector = event & 0xff;
  return type === 1 || type > 4 || type === 3 && (vector === 2 || vector > 31);
}

/** Memory types 2, 3 and 8 and above do not exist. */
function illegalPat(m: Machine, at: number): boolean {
  for (let i = 0; i < 8; i++) {
    const type = m.u8(at + S.g_pat + i);
    if (type > 7 || type === 2 || type === 3) return true;
  }
  return false;
}

/** What is checked when CR3 is loaded does not differ from KVM's checks. */
const CR3_TEXTS: Readonly<Record<string, string>> = {
  "cr3-legal": "Any MBZ bit of CR3 is set (when CR3 is loaded)",
  "pdptrs": "The PDPEs contain illegal state",
  "pdptrs-pages": "The PDPEs contain illegal state (after a restore)",
};

/** Checks of the AMD manual. The order is the manual's; it gives none itself. */
export const APM: readonly Check[] = [
  check(
    "save",
    "efer-svme",
    "EFER.SVME is zero",
    ["save.efer"],
    "EFER.SVME is clear",
    (m, at) => (m.u32(at + S.efer) & EFER_SVME) === 0,
  ),
  check(
    "save",
    "cr0-nw-without-cd",
    "CR0.CD is zero and CR0.NW is set",
    ["save.cr0"],
    "CR0.NW is set and CR0.CD is clear",
    (m, at) => (m.u32(at + S.cr0) & (CR0_CD | CR0_NW)) === CR0_NW,
  ),
  check(
    "save",
    "cr0-high",
    "CR0[63:32] are not zero",
    ["save.cr0"],
    "A bit of CR0[63:32] is set",
    (m, at) => m.u32(at + S.cr0 + 4) !== 0,
  ),
  check(
    "save",
    "cr3-mbz",
    "Any MBZ bit of CR3 is set",
    ["save.cr3"],
    "CR3 has a bit beyond the physical address width, whatever the mode",
    (m, at) => illegal(m, at + S.cr3),
  ),
  check(
    "save",
    "cr4-reserved",
    "Any MBZ bit of CR4 is set",
    ["save.cr4"],
    "A reserved bit of CR4 is set",
    (m, at) =>
      m.u32(at + S.cr4 + 4) !== 0 ||
      (m.u32(at + S.cr4) & ~(m.caps.npt ? CR4_VALID | CR4_PKE : CR4_VALID)) !== 0,
  ),
  check(
    "save",
    "dr6-high",
    "DR6[63:32] are not zero",
    ["save.dr6"],
    "A bit of DR6[63:32] is set",
    (m, at) => m.u32(at + S.dr6 + 4) !== 0,
  ),
  check(
    "save",
    "dr7-high",
    "DR7[63:32] are not zero",
    ["save.dr7"],
    "A bit of DR7[63:32] is set",
    (m, at) => m.u32(at + S.dr7 + 4) !== 0,
  ),
  check(
    "save",
    "efer-reserved",
    "Any MBZ bit of EFER is set",
    ["save.efer"],
    "A reserved bit of EFER is set",
    (m, at) => m.u32(at + S.efer + 4) !== 0 || (m.u32(at + S.efer) & ~EFER_VALID) !== 0,
  ),
  check(
    "save",
    "lme-pg-without-pae",
    "EFER.LME and CR0.PG are both set and CR4.PAE is zero",
    ["save.efer", "save.cr0", "save.cr4"],
    "EFER.LME and CR0.PG are set and CR4.PAE is clear",
    (m, at) => longPaging(m, at) && (m.u32(at + S.cr4) & CR4_PAE) === 0,
  ),
  check(
    "save",
    "lme-pg-without-pe",
    "EFER.LME and CR0.PG are both non-zero and CR0.PE is zero",
    ["save.efer", "save.cr0"],
    "EFER.LME and CR0.PG are set and CR0.PE is clear",
    (m, at) => longPaging(m, at) && (m.u32(at + S.cr0) & CR0_PE) === 0,
  ),
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
  check(
    "control",
    "vmrun-intercept",
    "The VMRUN intercept bit is clear",
    ["control.intercept_word4"],
    "VMRUN is not intercepted",
    (m, at) => (m.u32(at + C.intercept_word4) & 1) === 0,
  ),
  check(
    "control",
    "msrpm-address",
    "The MSR intercept table extends beyond the maximum supported physical address",
    ["control.msrpm_base_pa"],
    "The MSR permission map reaches beyond the physical address width",
    (m, at) => bitmapIllegal(m, at + C.msrpm_base_pa, MSRPM_SIZE),
  ),
  check(
    "control",
    "iopm-address",
    "The IOIO intercept table extends beyond the maximum supported physical address",
    ["control.iopm_base_pa"],
    "The I/O permission map reaches beyond the physical address width",
    (m, at) => bitmapIllegal(m, at + C.iopm_base_pa, IOPM_SIZE),
  ),
  check(
    "control",
    "event-injection",
    "Illegal event injection",
    ["control.event_inj"],
    "EVENTINJ has a reserved type, or an exception's type with a vector that is no exception",
    illegalEvent,
  ),
  check(
    "control",
    "asid-zero",
    "ASID is equal to zero",
    ["control.asid"],
    "The ASID is 0",
    (m, at) => m.u32(at + C.asid) === 0,
  ),
  check(
    "control",
    "np-without-npt",
    "Nested paging is not supported",
    ["control.nested_ctl"],
    "Nested paging is asked for and the processor, as L1 sees it, has none",
    (m, at) => nestedPaging(m, at) && !m.caps.npt,
  ),
  check(
    "control",
    "ncr3-legal",
    "Any MBZ bit of nCR3 is set",
    ["control.nested_ctl", "control.nested_cr3"],
    "Nested paging is asked for and nCR3 has a bit beyond the physical address width",
    (m, at) => nestedPaging(m, at) && illegal(m, at + C.nested_cr3),
  ),
  check(
    "control",
    "vnmi-without-nmi-intercept",
    "V_NMI_ENABLE is set and the NMI intercept bit is clear",
    ["control.int_ctl", "control.intercept_word3"],
    "Virtual NMIs are asked for and NMIs are not intercepted",
    (m, at) => (m.u32(at + C.int_ctl) & 1 << 26) !== 0 && (m.u32(at + C.intercept_word3) & 2) === 0,
  ),
  ...LINUX_6_12.filter((row) => row.group === "cr3").map((row) => ({
    ...row,
    texts: [CR3_TEXTS[row.id] ?? row.doc],
  })),
];
