/**
 * What a debugger sees of a VMRUN on QEMU's processor, for tests of such recordings.
 *
 * @module
 */
import { fieldNamed, REGS_LAYOUT, type VMCB_LAYOUT, writeField } from "../engine/mod.ts";

/** Fields by name. */
export type Values = Readonly<Record<string, bigint>>;

/** The bytes of an image with these fields. */
export function imageOf(
  layout: typeof VMCB_LAYOUT | typeof REGS_LAYOUT,
  values: Values,
): Uint8Array {
  const bytes = new Uint8Array(layout.size);
  for (const [name, value] of Object.entries(values)) {
    writeField(bytes, fieldNamed(layout, name), value);
  }
  return bytes;
}

/** L1 about to execute VMRUN. */
export const L1: Values = {
  rip: 0xffffffffc06eedc9n,
  rflags: 0x246n,
  rax: 0x1fef0000n,
  cr0: 0x80050033n,
  cr3: 0x1a1ec000n,
  cr4: 0x751eb0n,
  efer: 0x1d01n,
  dr6: 0xffff0ff0n,
  dr7: 0x400n,
  cs_selector: 0x10n,
  cs_attrib: 0xa9bn,
  cs_limit: 0xffffffffn,
  ss_selector: 0x18n,
  ss_attrib: 0xc93n,
  ss_limit: 0xffffffffn,
};

/** An L2 in real mode whose CR0, CR4 and EFER L1 watches, with nested paging. */
export const L2: Values = {
  "control.intercept_cr": 0x00110000n,
  "control.intercept_word3": 0x10000001n,
  "control.intercept_word4": 3n,
  "control.iopm_base_pa": 0x4000n,
  "control.msrpm_base_pa": 0x2000n,
  "control.asid": 1n,
  "control.int_ctl": 0x1000000n,
  "control.nested_ctl": 1n,
  "control.nested_cr3": 0x2606000n,
  "save.efer": 0x1000n,
  "save.cr0": 0x10n,
  "save.dr7": 0x400n,
  "save.dr6": 0xffff0ff0n,
  "save.rflags": 2n,
  "save.cs_attrib": 0x9bn,
  "save.g_pat": 0x0007040600070406n,
};

/** A debugger sees neither VM_HSAVE_PA nor what is queued, nor GIF. */
export const SEEN = new Uint8Array(REGS_LAYOUT.size).fill(0xff, 0, 0x1a0);
SEEN.fill(0, fieldNamed(REGS_LAYOUT, "hsave_pa").offset, 0x100);
