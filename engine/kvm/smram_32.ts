/**
 * The state save area of a vCPU without long mode.
 *
 * @module
 */
import { C, S, V } from "../svm/machine.ts";
import { CLEAN, DR7_FIXED, RFLAGS } from "./constants.ts";
import { markDirty } from "./control.ts";
import { rflags, updateDr7 } from "./regs.ts";
import { reportedAttributes, segmentAt, type SegmentName, setSegment } from "./segments.ts";
import type { Vcpu } from "./vcpu.ts";

/** Offsets in the area (KVM's struct kvm_smram_state_32). */
export const SMRAM_32 = {
  smbase: 0xf8,
  smm_revision: 0xfc,
  cr4: 0x114,
  int_shadow: 0x11a,
  idtr: 0x150,
  gdtr: 0x16c,
  dr7: 0x1c8,
  dr6: 0x1cc,
  gprs: 0x1d0,
  eip: 0x1f0,
  eflags: 0x1f4,
  cr3: 0x1f8,
  cr0: 0x1fc,
} as const;

/** Where each segment register's flags, limit and base are, and its selector; in KVM's order of loading. */
const SEGMENTS: readonly (readonly [SegmentName, at: number, selector: number])[] = [
  ["tr", 0x15c, 0x1c4],
  ["ldtr", 0x178, 0x1c0],
  ["es", 0x184, 0x1a8],
  ["cs", 0x190, 0x1ac],
  ["ss", 0x19c, 0x1b0],
  ["ds", 0x12c, 0x1b4],
  ["fs", 0x138, 0x1b8],
  ["gs", 0x144, 0x1bc],
];
const TABLES = [[SMRAM_32.gdtr, S.gdtr_limit], [SMRAM_32.idtr, S.idtr_limit]] as const;
const GPRS = 8;
/** G of a segment's attributes, and how much of a limit a descriptor holds. */
const PAGES = 0x800, DESCRIPTOR_LIMIT = 0xfffff;

/** Writes the area (enter_smm_save_state_32). */
export function saveState32(v: Vcpu, to: DataView): void {
  const put = (at: number, value: number) => to.setUint32(at, value, true);
  put(SMRAM_32.cr0, v.u32(V.cr0));
  put(SMRAM_32.cr3, v.u32(V.cr3));
  put(SMRAM_32.cr4, v.u32(V.cr4));
  put(SMRAM_32.eflags, rflags(v));
  put(SMRAM_32.eip, v.u32(V.rip));
  for (let i = 0; i < GPRS; i++) put(SMRAM_32.gprs + 4 * i, v.u32(V.rax + 8 * i));
  put(SMRAM_32.dr6, v.u32(V.dr6));
  put(SMRAM_32.dr7, v.u32(V.dr7));
  put(SMRAM_32.smbase, v.u32(V.smbase));
  put(SMRAM_32.smm_revision, 0x00020000);
  for (const [name, at, selector] of SEGMENTS) {
    const from = segmentAt(v, name), attrib = reportedAttributes(v, name);
    put(selector, v.u16(from));
    put(at, (attrib & 0xff) << 8 | (attrib & 0xf00) << 12);
    put(at + 4, v.u32(from + 4));
    put(at + 8, v.u32(from + 8));
  }
  for (const [at, from] of TABLES) {
    put(at + 4, v.u32(v.vmcb + from) & 0xffff);
    put(at + 8, v.u32(v.vmcb + from + 4));
  }
  if (!v.traits.keepsShadowInSmram) return;
  to.setUint8(SMRAM_32.int_shadow, (v.u32(v.vmcb + C.int_state) & 1) !== 0 ? 3 : 0);
}

/** Where RSM leads: what the emulator writes back when the instruction is done. */
export interface Resumed {
  rip: bigint;
  rflags: bigint;
  shadow: boolean;
  gprs: readonly bigint[] | undefined;
}

/**
 * Loads the area but for the control registers, which come last (rsm_load_state_32).
 *
 * @returns CR0, CR3 and CR4.
 */
export function loadState32(v: Vcpu, from: DataView, to: Resumed): readonly bigint[] {
  const get = (at: number) => from.getUint32(at, true);
  to.rflags = BigInt(get(SMRAM_32.eflags) | RFLAGS.FIXED) & 0xffffffffn;
  to.rip = BigInt(get(SMRAM_32.eip));
  to.gprs = Array.from({ length: GPRS }, (_, i) => BigInt(get(SMRAM_32.gprs + 4 * i)));
  v.set64(V.dr6, BigInt(get(SMRAM_32.dr6)) & 0xe00fn | 0xffff0ff0n);
  v.set64(V.dr7, BigInt(get(SMRAM_32.dr7)) & 0xffff2bffn | BigInt(DR7_FIXED));
  updateDr7(v);
  for (const [name, at, selector] of SEGMENTS.slice(0, 2)) load(v, from, name, at, selector);
  for (const [at, limit] of TABLES) {
    v.set32(v.vmcb + limit, get(at + 4) & 0xffff);
    v.set64(v.vmcb + limit + 4, BigInt(get(at + 8)));
    markDirty(v, v.vmcb, CLEAN.DT);
  }
  for (const [name, at, selector] of SEGMENTS.slice(2)) load(v, from, name, at, selector);
  v.set64(V.smbase, BigInt(get(SMRAM_32.smbase)));
  to.shadow = v.traits.keepsShadowInSmram && from.getUint8(SMRAM_32.int_shadow) !== 0;
  return [SMRAM_32.cr0, SMRAM_32.cr3, SMRAM_32.cr4].map((at) => BigInt(get(at)));
}

function load(v: Vcpu, from: DataView, name: SegmentName, at: number, selector: number): void {
  const flags = from.getUint32(at, true), limit = from.getUint32(at + 4, true);
  const attrib = flags >>> 8 & 0xff | flags >>> 12 & 0xf00;
  const pages = (attrib & PAGES) !== 0 ? (limit << 12 | 0xfff) >>> 0 : limit & DESCRIPTOR_LIMIT;
  const base = BigInt(from.getUint32(at + 8, true));
  const cut = v.traits.rsmCutsLimits ? pages : limit;
  setSegment(v, name, from.getUint16(selector, true), attrib, cut, base);
}
