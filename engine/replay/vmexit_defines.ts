/**
 * What a #VMEXIT decides, and what is L2's own when it comes: only the first can
 * be held against what was there before VMRUN.
 *
 * @module
 */
import type { Image } from "../event.ts";
import { fieldMask, fieldNamed, readBigint, readField, writeField } from "../image/fields.ts";
import type { Layout } from "../layout.ts";
import { REGS_LAYOUT } from "../svm/regs_layout.ts";
import { VMCB_LAYOUT, VMCB_SIZE } from "../svm/vmcb_fields.ts";
import type { LoggedRun } from "./logged_runs.ts";

const SEGMENT_PARTS = ["selector", "attrib", "limit", "base"] as const;

/** Of the registers those that a #VMEXIT loads for L1 (APM vol. 2, 15.6), and the flags it changes. */
const LOADED: ReadonlySet<string> = new Set([
  ...["rip", "rsp", "rax", "rflags", "cr0", "cr3", "cr4", "efer", "dr7"],
  ...["es", "cs", "ss", "ds", "gdtr", "idtr"].flatMap((segment) =>
    SEGMENT_PARTS.map((part) => `${segment}_${part}`)
  ),
  ...["gif", "guest_mode", "vmcb_pa"],
]);

/** All bits of a field, however wide it is. */
const ALL = -1n;

/** Bits of CR_WRITE intercepts and other controls, as the field table has them. */
const CR_WRITE = 16n;
const MSR_PROT = 1n << 28n;
const NP_ENABLE = 1n;
const V_INTR_MASKING = 1n << 24n, V_GIF_ENABLE = 1n << 25n;
/** V_TPR and V_IRQ, which L2 changes by what it does. */
const V_TPR_IRQ = 0x1ffn;
const V_GIF = 1n << 9n;
const LBR_CTL = 1n;
const EVENT_VALID = 1n << 31n;
/** Bits of DR6 that are always 1: all but those that say what happened. */
const DR6_ONES = 0xffff07f0n;

const DR6 = fieldNamed(VMCB_LAYOUT, "save.dr6");
const EVENT = fieldNamed(VMCB_LAYOUT, "control.exit_int_info");

/** What a #VMEXIT writes about L2, or what is L2's own while it runs. */
const LEFT_BEHIND = [
  ...["int_state", "next_rip", "insn_len", "insn_bytes", "bus_lock_counter"]
    .map((name) => `control.${name}`),
  ...["spec_ctrl", "s_cet", "ssp", "isst_addr"].map((name) => `save.${name}`),
];

/** Of a save area what LBR virtualization lets L2 change. */
const LBR_FIELDS = ["dbgctl", "br_from", "br_to", "last_excp_from", "last_excp_to"];

/** Byte and bit of the MSR permission map that intercepts writes of EFER (0xc0000080). */
const EFER_AT = 0x820, EFER_WRITE = 2;

/** The bits of a field of vmcb12 that are known to be set. */
function sure(vmcb12: Image, name: string): bigint {
  const { value, known } = readField(vmcb12, fieldNamed(VMCB_LAYOUT, name));
  return value & known;
}

/** The bits of a field of vmcb12 that may be set. */
function possible(vmcb12: Image, name: string): bigint {
  const row = fieldNamed(VMCB_LAYOUT, name);
  const { value, known } = readField(vmcb12, row);
  return value | ~known & fieldMask(row);
}

/** Whether L1 is told of each write of EFER by L2. */
function interceptsEfer(unit: LoggedRun): boolean {
  if ((sure(unit.vmcb12, "control.intercept_word3") & MSR_PROT) === 0n) return false;
  const row = fieldNamed(VMCB_LAYOUT, "control.msrpm_base_pa");
  const { value, known } = readField(unit.vmcb12, row);
  if (known !== fieldMask(row)) return false;
  const page = unit.memory.get(Number(value & ~0xfffn));
  const bits = (page?.bytes[EFER_AT] ?? 0) & (page?.known?.[EFER_AT] ?? 0xff);
  return (bits & EFER_WRITE) !== 0;
}

/** What L2 may do, a bit each: L1 does not hear of its writes of these registers, and what it has. */
const MAY = { cr0: 1, cr3: 2, cr4: 4, efer: 8, gif: 16, nested: 32, lbr: 64 } as const;

/** What L2 may do in a logged run. */
function freedomOf(unit: LoggedRun): number {
  const { vmcb12 } = unit;
  const writes = sure(vmcb12, "control.intercept_cr") >> CR_WRITE;
  const nested = (possible(vmcb12, "control.nested_ctl") & NP_ENABLE) !== 0n;
  const gif = (possible(vmcb12, "control.int_ctl") & V_GIF_ENABLE) !== 0n;
  const lbr = (possible(vmcb12, "control.virt_ext") & LBR_CTL) !== 0n;
  return ((writes >> 0n & 1n) === 0n ? MAY.cr0 : 0) |
    (nested || (writes >> 3n & 1n) === 0n ? MAY.cr3 : 0) |
    ((writes >> 4n & 1n) === 0n ? MAY.cr4 : 0) |
    (interceptsEfer(unit) ? 0 : MAY.efer) |
    (gif ? MAY.gif : 0) | (nested ? MAY.nested : 0) | (lbr ? MAY.lbr : 0);
}

/** Fields of vmcb12 that L2 may have changed before its #VMEXIT, with the bits that it may have. */
function* ofL2(may: number): Generator<readonly [name: string, bits: bigint]> {
  for (const name of ["cr0", "cr3", "cr4", "efer"] as const) {
    if ((may & MAY[name]) !== 0) yield [`save.${name}`, ALL];
  }
  yield ["save.dr6", ALL & ~DR6_ONES];
  yield ["control.int_ctl", V_TPR_IRQ | ((may & MAY.gif) !== 0 ? V_GIF : 0n)];
  for (const name of LEFT_BEHIND) yield [name, ALL];
  if ((may & MAY.nested) !== 0) yield ["save.g_pat", ALL];
  if ((may & MAY.lbr) !== 0) { for (const name of LBR_FIELDS) yield [`save.${name}`, ALL]; }
}

/** Makes bits of a field unknown. */
function forget({ bytes, known }: Image, layout: Layout, name: string, bits: bigint): void {
  const row = layout.fields.find((field) => field.name === name);
  if (row === undefined || known === undefined) return;
  const image = { bytes, known };
  const { value, known: before } = readField(image, row);
  const after = before & ~bits & fieldMask(row);
  writeField(known, row, after);
  writeField(bytes, row, value & after);
}

/** What stays known of an image of a layout when bits of its fields are forgotten. */
function keptOf(layout: Layout, forgotten: Iterable<readonly [name: string, bits: bigint]>) {
  const known = new Uint8Array(layout.size).fill(0xff);
  const image = { bytes: new Uint8Array(layout.size), known };
  for (const [name, bits] of forgotten) forget(image, layout, name, bits);
  return known;
}

/** Makes all unknown but some bits. */
function keep({ bytes, known }: Image, kept: Uint8Array): void {
  if (known === undefined) return;
  for (let i = 0; i < kept.length; i++) {
    if ((known[i]! & ~kept[i]!) === 0) continue;
    known[i] = known[i]! & kept[i]!;
    bytes[i] = bytes[i]! & known[i]!;
  }
}

/** What stays known of vmcb12, by what L2 may do. */
const keptOfVmcb12: Uint8Array[] = [];
// Several replays look at one run.
const freedoms = new WeakMap<LoggedRun, number>();

/** Bits of vmcb12 that L2 cannot have changed before a #VMEXIT: a mask, not to be changed. */
function keptOfExit(unit: LoggedRun): Uint8Array {
  let may = freedoms.get(unit);
  if (may === undefined) freedoms.set(unit, may = freedomOf(unit));
  return keptOfVmcb12[may] ??= keptOf(VMCB_LAYOUT, ofL2(may));
}

/**
 * Makes unknown of vmcb12 what L2 may have changed before a #VMEXIT.
 *
 * @param run The transition.
 * @param vmcb12 vmcb12 as a replay leaves it; changed.
 */
export function leaveVmcb12(unit: LoggedRun, vmcb12: Image): void {
  keep(vmcb12, keptOfExit(unit));
}

/** What a #VMEXIT restores of L1's registers: without CR8, and with it. */
const [WITHOUT_CR8, WITH_CR8] = [false, true].map((masked) =>
  keptOf(
    REGS_LAYOUT,
    REGS_LAYOUT.fields
      .filter(({ name }) => !LOADED.has(name) && !(name === "cr8" && masked))
      .map(({ name }) => [name, ALL] as const),
  )
) as [Uint8Array, Uint8Array];

/**
 * The bits of L1's registers that a #VMEXIT restores.
 *
 * @param run The transition.
 * @returns A mask of their size, not to be changed.
 */
export function keptOfRegs(unit: LoggedRun): Uint8Array {
  const masked = (sure(unit.vmcb12, "control.int_ctl") & V_INTR_MASKING) !== 0n;
  return masked ? WITH_CR8 : WITHOUT_CR8;
}

/**
 * Makes unknown of L1's registers what a #VMEXIT does not restore.
 *
 * @param run The transition.
 * @param regs L1's registers as a replay leaves them; changed.
 */
export function leaveRegs(unit: LoggedRun, regs: Image): void {
  keep(regs, keptOfRegs(unit));
}

/** What a refused VMRUN may write when the processor saves its own state, and the event, all the same. */
function onRefusal(image: Image): void {
  for (const { name } of VMCB_LAYOUT.fields) {
    if (name.startsWith("save.")) forget(image, VMCB_LAYOUT, name, ALL);
  }
  forget(image, VMCB_LAYOUT, "control.exit_int_info", ALL);
  forget(image, VMCB_LAYOUT, "control.exit_int_info_err", ALL);
}

/**
 * Makes unknown, or sets, what the processor is known to leave in vmcb12 otherwise than the manual
 * says, where it carried out the VMRUN itself.
 *
 * @param run The transition.
 * @param refused Whether L2 never ran.
 * @param vmcb12 vmcb12 as a replay leaves it; changed.
 */
export function applyQuirks(unit: LoggedRun, refused: boolean, vmcb12: Image): void {
  if (unit.kvm) return;
  const { processor } = unit.caps;
  if (processor?.savesOnRefusal && refused) onRefusal(vmcb12);
  if (processor?.invalidExitCode32 && refused) {
    forget(vmcb12, VMCB_LAYOUT, "control.exit_code_hi", ALL);
  }
  if (processor?.debugBitsAsGiven) {
    const row = DR6;
    const before = readField(unit.vmcb12, row);
    const now = readField(vmcb12, row);
    const ones = DR6_ONES & before.known & now.known;
    forget(vmcb12, VMCB_LAYOUT, row.name, DR6_ONES & ~before.known);
    writeField(vmcb12.bytes, row, now.value & ~DR6_ONES | before.value & ones);
  }
}

/**
 * vmcb12 with what {@linkcode applyQuirks} sets; what that makes unknown stays as it is.
 *
 * @param run The transition.
 * @param page vmcb12 as a replay leaves it; not changed.
 * @returns The page itself where nothing is set, or one that is used again; undefined where it depends
 * on what was not seen.
 */
export function withQuirks(unit: LoggedRun, page: Uint8Array): Uint8Array | undefined {
  if (unit.kvm || unit.caps.processor?.debugBitsAsGiven !== true) return page;
  const before = readField(unit.vmcb12, DR6), now = readBigint(page, DR6);
  if ((before.known & DR6_ONES) !== DR6_ONES) return undefined;
  const ones = before.value & DR6_ONES;
  if ((now & DR6_ONES) === ones) return page;
  quirky.set(page);
  writeField(quirky, DR6, now & ~DR6_ONES | ones);
  return quirky;
}

const quirky = new Uint8Array(VMCB_SIZE);

/**
 * Takes back an EXITINTINFO that says nothing: without its valid bit, what else is in it has no
 * meaning, whichever side it is of.
 *
 * @param recorded vmcb12 as recorded.
 * @param replayed vmcb12 as a replay leaves it; changed.
 */
export function dropInvalidEvent(recorded: Image, replayed: Image): void {
  const row = EVENT;
  const was = readField(recorded, row), is = readField(replayed, row);
  if (((was.value | is.value) & EVENT_VALID) !== 0n) return;
  forget(replayed, VMCB_LAYOUT, row.name, ~EVENT_VALID & ALL);
  forget(replayed, VMCB_LAYOUT, "control.exit_int_info_err", ALL);
}

/** By what else is kept: the same without an event that says nothing. */
const withoutEvent = new WeakMap<Uint8Array, Uint8Array>();
const ALL_OF_VMCB12: Uint8Array = keptOf(VMCB_LAYOUT, []);

/**
 * The bits of vmcb12 that a recorded #VMEXIT is held against a replay in: those of which neither
 * {@linkcode leaveVmcb12} nor {@linkcode dropInvalidEvent} says that they may be anything.
 *
 * @param run The transition.
 * @param ran Whether L2 ran.
 * @param recorded vmcb12 as recorded.
 * @param replayed vmcb12 as a replay leaves it.
 * @returns A mask of a VMCB's size, not to be changed.
 */
export function comparedOfVmcb12(
  unit: LoggedRun,
  ran: boolean,
  recorded: Image,
  replayed: Uint8Array,
): Uint8Array {
  const kept = ran ? keptOfExit(unit) : ALL_OF_VMCB12;
  const at = EVENT.offset + 3, valid = (recorded.bytes[at] ?? 0) | (replayed[at] ?? 0);
  if ((valid & 0x80) !== 0) return kept;
  let without = withoutEvent.get(kept);
  if (without === undefined) {
    const image = { bytes: new Uint8Array(VMCB_SIZE), known: kept.slice() };
    forget(image, VMCB_LAYOUT, EVENT.name, ~EVENT_VALID & ALL);
    forget(image, VMCB_LAYOUT, "control.exit_int_info_err", ALL);
    withoutEvent.set(kept, without = image.known);
  }
  return without;
}

/** Types of events in EVENTINJ and EXITINTINFO. */
const TYPE_SHIFT = 8n, TYPE = 7n, EXCEPTION = 3n;
/** Vectors below are exceptions. */
const INTERRUPTS = 32n;
const INTERCEPT_INTR = 1n, V_IRQ = 1n << 8n;

/**
 * An interrupt that L2 took and nobody gave it. A processor that keeps the last event it delivered
 * in EXITINTINFO, without the valid bit, and takes an interrupt that was not injected for an
 * exception, tells of it: L1 intercepts interrupts and has none virtual, so there was none to take.
 *
 * @param run The transition.
 * @returns The vector, or undefined when there is no such thing.
 */
export function strayInterrupt(unit: LoggedRun): bigint | undefined {
  const { exit, vmcb12 } = unit;
  if (unit.kvm || !unit.caps.processor?.keepsEventBits || exit?.vmcb12 === undefined) return;
  const row = fieldNamed(VMCB_LAYOUT, "control.exit_int_info");
  const { value, known } = readField(exit.vmcb12, row);
  const vector = value & 0xffn;
  const told = known === fieldMask(row) && (value & EVENT_VALID) === 0n &&
    (value >> TYPE_SHIFT & TYPE) === EXCEPTION && vector >= INTERRUPTS;
  if (!told || (sure(vmcb12, "control.intercept_word3") & INTERCEPT_INTR) === 0n) return;
  if ((possible(vmcb12, "control.int_ctl") & V_IRQ) !== 0n) return;
  return vector;
}
