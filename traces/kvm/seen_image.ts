/**
 * What KVM's ioctls show of a vCPU, as an image of layout `regs`; and segment
 * registers, which KVM and a VMCB pack differently.
 *
 * @module
 */
import type { Image } from "../../engine/event.ts";
import { offsets } from "../../engine/layout.ts";
import { REGS_FIELDS as R_FIELDS, REGS_SIZE } from "../../engine/svm/regs_layout.ts";
import type { BaseSegment } from "../scenarios/base.ts";
import { NESTED_FLAGS } from "../scenarios/inputs.ts";
import { Struct } from "./struct.ts";
import {
  type DEBUGREGS_FIELDS,
  type EVENTS_FIELDS,
  KVM_LAYOUTS,
  type NESTED_FIELDS,
  REGS_FIELDS,
  type SREGS_FIELDS,
} from "./structs.ts";

const R = offsets(R_FIELDS);

/** What the ioctls gave. */
export interface Shown {
  /** KVM_GET_REGS. */
  readonly regs: Struct<typeof REGS_FIELDS>;
  /** KVM_GET_SREGS. */
  readonly sregs: Struct<typeof SREGS_FIELDS>;
  /** KVM_GET_DEBUGREGS. */
  readonly debug: Struct<typeof DEBUGREGS_FIELDS>;
  /** KVM_GET_VCPU_EVENTS. */
  readonly events: Struct<typeof EVENTS_FIELDS>;
  /** KVM_GET_NESTED_STATE. */
  readonly nested: Struct<typeof NESTED_FIELDS>;
}

/**
 * All of it as an image.
 *
 * @param shown What the ioctls gave.
 * @returns The image; what they do not show is not known.
 */
export function seenImage({ regs, sregs, debug, events, nested }: Shown): Image {
  const bytes = new Uint8Array(REGS_SIZE), known = new Uint8Array(REGS_SIZE);
  const view = new DataView(bytes.buffer);
  const u64 = (at: number, value: bigint) => {
    view.setBigUint64(at, value, true);
    known.fill(0xff, at, at + 8);
  };
  for (const { name } of REGS_FIELDS) u64(R[name], regs.get(name));
  for (const name of ["cr0", "cr2", "cr3", "cr4", "cr8", "efer"] as const) {
    u64(R[name], sregs.get(name));
  }
  const db = new DataView(debug.bytes.buffer);
  for (const i of [0, 1, 2, 3] as const) u64(R[`dr${i}`], db.getBigUint64(8 * i, true));
  for (const name of ["dr6", "dr7"] as const) u64(R[name], debug.get(name));
  u64(R.vmcb_pa, nested.get("vmcb_pa"));
  for (const [name, part] of SEGMENTS) {
    const at = R[`${name}_selector`];
    bytes.set(packSegment(sregs.part(part)), at);
    known.fill(0xff, at, at + 16);
  }
  for (const [name, part] of [["gdtr", "gdt"], ["idtr", "idt"]] as const) {
    const table = new DataView(sregs.bytes.buffer, sregs.part(part).byteOffset);
    view.setUint32(R[`${name}_limit`], table.getUint16(8, true), true);
    view.setBigUint64(R[`${name}_base`], table.getBigUint64(0, true), true);
    known.fill(0xff, R[`${name}_limit`], R[`${name}_base`] + 8);
  }
  const flags = nested.number("flags");
  const e = (name: Parameters<typeof events.number>[0]) => events.number(name);
  const flag = (at: number, value: number) => {
    bytes[at] = value;
    known[at] = 0xff;
  };
  const bit = (mask: number) => (flags & mask) === 0 ? 0 : 1;
  flag(R.gif, bit(NESTED_FLAGS.gif));
  flag(R.guest_mode, bit(NESTED_FLAGS.guestMode));
  flag(R.run_pending, bit(NESTED_FLAGS.runPending));
  flag(R.smm, e("smi_smm"));
  flag(R.triple_fault, e("triple_fault_pending"));
  flag(R.exception_injected, e("exception_injected"));
  flag(R.exception_pending, e("exception_pending"));
  flag(R.exception_vector, e("exception_nr"));
  view.setUint32(R.exception_error, e("exception_error_code"), true);
  known.fill(0xff, R.exception_error, R.exception_error + 4);
  flag(R.interrupt_injected, e("interrupt_injected"));
  flag(R.interrupt_vector, e("interrupt_nr"));
  flag(R.nmi_injected, e("nmi_injected"));
  flag(R.nmi_pending, e("nmi_pending"));
  flag(R.nmi_masked, e("nmi_masked"));
  return { bytes, known };
}

/** A segment register as KVM_SET_SREGS takes it, from its 12 packed attribute bits. */
export function setSegment(bytes: Uint8Array<ArrayBuffer>, from: BaseSegment): void {
  const segment = new Struct(KVM_LAYOUTS.kvm_segment, bytes);
  const { selector, attrib, limit, base } = from;
  const bit = (at: number) => attrib >> at & 1;
  segment.set("base", base);
  segment.set("limit", limit);
  segment.set("selector", selector);
  segment.set("type", attrib & 15);
  segment.set("s", bit(4));
  segment.set("dpl", attrib >> 5 & 3);
  segment.set("present", bit(7));
  segment.set("avl", bit(8));
  segment.set("l", bit(9));
  segment.set("db", bit(10));
  segment.set("g", bit(11));
  segment.set("unusable", 0);
}

/** Segment registers of an image, and of `struct kvm_sregs`. */
const SEGMENTS = [
  ["es", "es"],
  ["cs", "cs"],
  ["ss", "ss"],
  ["ds", "ds"],
  ["fs", "fs"],
  ["gs", "gs"],
  ["ldtr", "ldt"],
  ["tr", "tr"],
] as const;

/** A segment register as a VMCB has it, from KVM_GET_SREGS. */
function packSegment(bytes: Uint8Array<ArrayBuffer>): Uint8Array {
  const from = new Struct(KVM_LAYOUTS.kvm_segment, bytes);
  const n = (name: Parameters<typeof from.number>[0]) => from.number(name);
  const out = new Uint8Array(16);
  const view = new DataView(out.buffer);
  const attrib = n("type") | n("s") << 4 | n("dpl") << 5 | n("present") << 7 | n("avl") << 8 |
    n("l") << 9 | n("db") << 10 | n("g") << 11;
  view.setUint16(0, n("selector"), true);
  view.setUint16(2, attrib, true);
  view.setUint32(4, n("limit"), true);
  view.setBigUint64(8, from.get("base"), true);
  return out;
}
