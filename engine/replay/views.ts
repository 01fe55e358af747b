/**
 * A running vCPU as the images of events: what userspace sees, what the kernel
 * keeps inside, and its VMCBs.
 *
 * @module
 */
import { offsets } from "../layout.ts";
import { C, S, V, VMCB01_AT, VMCB02_AT, VMCB12_AT } from "../svm/machine.ts";
import { VMCB_SIZE } from "../svm/vmcb_fields.ts";
import { INNER_FIELDS, INNER_SIZE } from "../svm/inner_layout.ts";
import { REGS_FIELDS, REGS_SIZE } from "../svm/regs_layout.ts";
import { HOST } from "../kvm/constants.ts";
import { look } from "../kvm/ioctls.ts";
import { gif, hflags } from "../kvm/control.ts";
import { rflags } from "../kvm/regs.ts";
import { segmentAt, type SegmentName, SEGMENTS } from "../kvm/segments.ts";
import type { Vcpu } from "../kvm/vcpu.ts";

const I = offsets(INNER_FIELDS);
const R = offsets(REGS_FIELDS);

/** Memory for an image, to be filled again and again. */
export class ImageBuffer {
  /** The bytes. */
  readonly bytes: Uint8Array;
  /** The same as 32-bit words. */
  readonly words: Uint32Array;

  /**
   * Makes memory that is all zero.
   *
   * @param size Bytes, a multiple of 4.
   * @example
   * ```ts
   * import { ImageBuffer, INNER_SIZE, innerBytes, UPSTREAM, Vcpu } from "@vmtape/vmtape/engine";
   * const v = new Vcpu({ physicalBits: 40, npt: true, memory: 1 << 24 }, UPSTREAM);
   * const buffer = new ImageBuffer(INNER_SIZE);
   * if (innerBytes(v, 1, buffer) !== buffer.bytes || buffer.words[0] !== 1) throw new Error();
   * ```
   */
  constructor(size: number) {
    this.words = new Uint32Array(size / 4);
    this.bytes = new Uint8Array(this.words.buffer);
  }
}

/** Pairs of 64-bit fields as indexes of words: where to, where from. */
function words(pairs: readonly (readonly [number, number])[]): Int32Array {
  return Int32Array.from(pairs.flat(), (at) => at >> 2);
}

function copyAll(to: Uint32Array, from: Uint32Array, pairs: Int32Array): void {
  for (let i = 0; i < pairs.length; i += 2) {
    const a = pairs[i] as number, b = pairs[i + 1] as number;
    to[a] = from[b] as number;
    to[a + 1] = from[b + 1] as number;
  }
}

function copyWords(to: Uint32Array, at: number, from: Uint32Array, source: number, bytes: number) {
  for (let i = 0; i < bytes >> 2; i++) to[(at >> 2) + i] = from[(source >> 2) + i] as number;
}

function mapKind(v: Vcpu, vmcb: number): number {
  const map = v.u32(vmcb + C.msrpm_base_pa);
  if (map === HOST.MSRPM) return 1;
  // Its address is nobody's once nested state was freed.
  return map === HOST.MERGED_MSRPM && v.u8(V.nested_initialized) !== 0 ? 2 : 3;
}

const INNER_WORDS = words([
  [I.vmcb12_gpa, V.vmcb12_gpa],
  [I.last_vmcb12_gpa, V.last_vmcb12_gpa],
  [I.ctl_ncr3, VMCB12_AT + C.nested_cr3],
  [I.cr0, V.cr0],
  [I.cr3, V.cr3],
  [I.cr4, V.cr4],
  [I.efer, V.efer],
  [I.rip, V.rip],
  [I.rax, V.rax],
  [I.rsp, V.rsp],
  [I.cpu_role, V.root_cpu_role],
  [I.gcpu_role, V.guest_cpu_role],
  [I.ncpu_role, V.nested_cpu_role],
  [I.req, V.requests],
]);

/**
 * The state inside the kernel as one of its functions returns.
 *
 * @param v The vCPU.
 * @param ret What the function returns.
 * @param into Where to, {@linkcode INNER_SIZE} bytes; new memory when left out.
 * @returns An image of layout `inner`.
 * @example
 * ```ts
 * import { fieldNamed, INNER_LAYOUT, innerBytes, readBigint, UPSTREAM, Vcpu } from "@vmtape/vmtape/engine";
 * const v = new Vcpu({ physicalBits: 40, npt: true, memory: 1 << 24 }, UPSTREAM);
 * const bytes = innerBytes(v, 1);
 * if (readBigint(bytes, fieldNamed(INNER_LAYOUT, "ret")) !== 1n) throw new Error();
 * ```
 */
export function innerBytes(
  v: Vcpu,
  ret: number,
  into: ImageBuffer = new ImageBuffer(INNER_SIZE),
): Uint8Array {
  const { bytes, words } = into;
  copyAll(words, v.words, INNER_WORDS);
  words[I.ret >> 2] = ret;
  bytes[I.guest_mode] = v.guestMode ? 1 : 0;
  bytes[I.active] = v.u32(V.active);
  bytes[I.run_pending] = v.u8(V.run_pending);
  bytes[I.gif] = gif(v) ? 1 : 0;
  bytes[I.mmu] = v.u8(V.mmu) + 1;
  bytes[I.walk] = v.u8(V.walk_mmu) + 1;
  bytes[I.msrpm01] = mapKind(v, VMCB01_AT);
  // Without nested state there is no vmcb02.
  bytes[I.msrpm02] = v.u8(V.nested_initialized) === 0 ? 4 : mapKind(v, VMCB02_AT);
  bytes[I.msrpm_recalc] = v.u8(V.msrpm_recalc);
  words[I.rflags >> 2] = rflags(v);
  words[(I.rflags >> 2) + 1] = v.u32(v.vmcb + S.rflags + 4);
  words[I.root_role >> 2] = v.u32(V.root_root_role);
  words[I.groot_role >> 2] = v.u32(V.guest_root_role);
  bytes[I.exc_pend] = v.u8(V.exception_pending);
  bytes[I.exc_inj] = v.u8(V.exception_injected);
  bytes[I.exc_vec] = v.u32(V.exception_vector);
  bytes[I.int_inj] = v.u8(V.interrupt_injected);
  bytes[I.nmi_inj] = v.u8(V.nmi_injected);
  bytes[I.nmi_l1l2] = v.u8(V.nmi_l1_to_l2);
  bytes[I.soft] = v.u8(V.soft_int_injected);
  words[I.hflags >> 2] = hflags(v);
  return bytes;
}

const GPRS = REGS_FIELDS.slice(0, 16);
const PLAIN = words([
  [R.rip, V.rip],
  [R.cr0, V.cr0],
  [R.cr2, V.cr2],
  [R.cr3, V.cr3],
  [R.cr4, V.cr4],
  [R.cr8, V.cr8],
  [R.efer, V.efer],
  [R.dr0, V.dr0],
  [R.dr1, V.dr1],
  [R.dr2, V.dr2],
  [R.dr3, V.dr3],
  [R.dr6, V.dr6],
  [R.dr7, V.dr7],
  [R.hsave_pa, V.hsave_msr],
]);
const SEGMENT_AT = {
  es: R.es_selector,
  cs: R.cs_selector,
  ss: R.ss_selector,
  ds: R.ds_selector,
  fs: R.fs_selector,
  gs: R.gs_selector,
  ldtr: R.ldtr_selector,
  tr: R.tr_selector,
} as const;

/**
 * What userspace sees through the ioctls. Looking counts queued NMIs and SMIs,
 * as the ioctls do.
 *
 * @param v The vCPU.
 * @param into Where to, {@linkcode REGS_SIZE} bytes; new memory when left out.
 * @returns An image of layout `regs`.
 * @example
 * ```ts
 * import { fieldNamed, readBigint, REGS_LAYOUT, regsBytes, UPSTREAM, V, Vcpu } from "@vmtape/vmtape/engine";
 * const v = new Vcpu({ physicalBits: 40, npt: true, memory: 1 << 24 }, UPSTREAM);
 * v.set64(V.rip, 0x1000n);
 * if (readBigint(regsBytes(v), fieldNamed(REGS_LAYOUT, "rip")) !== 0x1000n) throw new Error();
 * ```
 */
export function regsBytes(v: Vcpu, into: ImageBuffer = new ImageBuffer(REGS_SIZE)): Uint8Array {
  look(v);
  const { bytes, words } = into;
  const from = v.words;
  const guestMode = v.guestMode;
  copyWords(words, R.rax, from, V.rax, GPRS.length * 8);
  copyAll(words, from, PLAIN);
  words[R.rflags >> 2] = rflags(v);
  words[(R.rflags >> 2) + 1] = v.u32(v.vmcb + S.rflags + 4);
  words.fill(0, R.vmcb_pa >> 2, (R.vmcb_pa >> 2) + 2);
  if (guestMode) copyWords(words, R.vmcb_pa, from, V.vmcb12_gpa, 8);
  for (let i = 0; i < SEGMENTS.length; i++) {
    const name = SEGMENTS[i] as SegmentName;
    copyWords(words, SEGMENT_AT[name], from, segmentAt(v, name), 16);
  }
  copyWords(words, R.gdtr_selector, from, v.vmcb + S.gdtr_selector, 16);
  copyWords(words, R.idtr_selector, from, v.vmcb + S.idtr_selector, 16);
  words.fill(0, R.gif >> 2);
  bytes[R.gif] = gif(v) ? 1 : 0;
  bytes[R.guest_mode] = guestMode ? 1 : 0;
  bytes[R.run_pending] = guestMode ? v.u8(V.run_pending) : 0;
  bytes[R.smm] = v.smm ? 1 : 0;
  queuedEvents(v, into);
  return bytes;
}

function queuedEvents(v: Vcpu, { bytes, words }: ImageBuffer): void {
  const forExit = v.u8(V.vmexit_pending) !== 0 && v.u8(V.exception_pending) === 0 &&
    v.u8(V.exception_injected) === 0;
  const vector = v.u32(forExit ? V.vmexit_vector : V.exception_vector);
  const pending = v.u8(forExit ? V.vmexit_pending : V.exception_pending);
  // The ioctl does not report exceptions whose instruction KVM would run again.
  if (vector !== 3 && vector !== 4) {
    bytes[R.exception_pending] = pending;
    bytes[R.exception_injected] = forExit ? pending : v.u8(V.exception_injected) | pending;
  }
  bytes[R.exception_vector] = vector;
  words[R.exception_error >> 2] = v.u32(forExit ? V.vmexit_error : V.exception_error);
  const soft = v.u8(V.interrupt_soft) !== 0;
  bytes[R.interrupt_injected] = soft ? 0 : v.u8(V.interrupt_injected);
  bytes[R.interrupt_vector] = v.u8(V.interrupt_vector);
  bytes[R.nmi_injected] = v.u8(V.nmi_injected);
  bytes[R.nmi_pending] = v.u32(V.nmi_pending);
  bytes[R.nmi_masked] = v.u8(V.nmi_masked);
}

/** Bytes of a VMCB image that hold host addresses, ASIDs or clocks, which differ from run to run. */
const HOST_WORDS = [C.iopm_base_pa, C.msrpm_base_pa, C.tsc_offset, C.asid, C.nested_cr3] as const;

const masks = new Map<boolean, Uint8Array>();

/**
 * Mask of a hypervisor's own VMCB: its host addresses, ASID and clock are not
 * comparable between runs, and with shadow paging neither is CR3.
 *
 * @param npt Whether the hypervisor uses nested paging.
 * @returns A mask for {@linkcode Image.known}; shared, not to be changed.
 */
export function hostVmcbMask(npt: boolean): Uint8Array {
  let mask = masks.get(npt);
  if (mask === undefined) {
    mask = new Uint8Array(VMCB_SIZE).fill(0xff);
    for (const at of HOST_WORDS) mask.fill(0, at, at + 8);
    if (!npt) mask.fill(0, S.cr3, S.cr3 + 8);
    masks.set(npt, mask);
  }
  return mask;
}

/** Whether vmcb02 was ever prepared; before that it is an empty page. */
export function vmcb02Used(v: Vcpu): boolean {
  return v.u8(V.nested_initialized) !== 0 && mapKind(v, VMCB02_AT) !== 3;
}
