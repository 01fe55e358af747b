/**
 * A running vCPU as the images of events: what userspace sees, what the kernel
 * keeps inside, and its VMCBs.
 *
 * @module
 */
import type { Image } from "../event.ts";
import { offsets } from "../layout.ts";
import { C, S, V, VMCB01_AT, VMCB02_AT } from "../svm/machine.ts";
import { VMCB_SIZE } from "../svm/vmcb_fields.ts";
import { INNER_FIELDS, INNER_SIZE, INNER_SIZE_THREE_ROLES } from "../svm/inner_layout.ts";
import { REGS_FIELDS, REGS_SIZE } from "../svm/regs_layout.ts";
import { HOST } from "../kvm/constants.ts";
import { look, looked } from "../kvm/ioctls.ts";
import { toldNmis } from "../kvm/queue.ts";
import { gif, hflags } from "../kvm/control.ts";
import { rflags } from "../kvm/regs.ts";
import { reportedAttributes, segmentAt, type SegmentName, SEGMENTS } from "../kvm/segments.ts";
import type { Vcpu, Viewer } from "../kvm/vcpu.ts";
import type { Policy } from "../policy.ts";
import type { Getter, Whereabouts } from "../svm/view_source.ts";
import { ImageBuffer } from "../svm/image_buffer.ts";
import { View } from "./view.ts";

export { ImageBuffer };

const I = offsets(INNER_FIELDS);
const RET = I.ret >> 2;

function mapKind(v: Vcpu, vmcb: number): number {
  const map = v.u32(vmcb + C.msrpm_base_pa);
  if (map === HOST.MSRPM) return 1;
  // Its address is nobody's once nested state was freed.
  return map === HOST.MERGED_MSRPM && v.u8(V.nested_initialized) !== 0 ? 2 : 3;
}

/** Whether the exception that userspace is shown is one that is to become a #VMEXIT. */
function showsVmexit(v: Vcpu): boolean {
  return v.u8(V.vmexit_pending) !== 0 && v.u8(V.exception_pending) === 0 &&
    v.u8(V.exception_injected) === 0;
}

/** Vector of the exception that userspace is shown. */
function shownVector(v: Vcpu): number {
  return v.u32(showsVmexit(v) ? V.vmexit_vector : V.exception_vector);
}

function shownPending(v: Vcpu): number {
  return v.u8(showsVmexit(v) ? V.vmexit_pending : V.exception_pending);
}

/** Whether the ioctl reports the exception: not where KVM would run the instruction again (#BP, #OF). */
function reported(v: Vcpu): boolean {
  const vector = shownVector(v);
  return vector !== 3 && vector !== 4;
}

const GETTERS: Readonly<Record<Getter, (v: Vcpu) => number>> = {
  guestMode: (v) => v.guestMode ? 1 : 0,
  smm: (v) => v.smm ? 1 : 0,
  gif: (v) => gif(v) ? 1 : 0,
  mmu: (v) => v.u8(V.mmu) + 1,
  walkMmu: (v) => v.u8(V.walk_mmu) + 1,
  msrpm01: (v) => mapKind(v, VMCB01_AT),
  // Without nested state there is no vmcb02.
  msrpm02: (v) => v.u8(V.nested_initialized) === 0 ? 4 : mapKind(v, VMCB02_AT),
  rflags,
  hflags,
  runPendingOfL2: (v) => v.guestMode && v.u8(V.run_pending) !== 0 ? 1 : 0,
  exceptionPending: (v) => reported(v) ? shownPending(v) : 0,
  exceptionInjected: (v) => {
    if (!reported(v)) return 0;
    return showsVmexit(v) ? shownPending(v) : v.u8(V.exception_injected) | shownPending(v);
  },
  exceptionVector: shownVector,
  exceptionError: (v) => v.u32(showsVmexit(v) ? V.vmexit_error : V.exception_error),
  interruptInjected: (v) => v.u8(V.interrupt_soft) !== 0 ? 0 : v.u8(V.interrupt_injected),
};

const WHEREABOUTS: Readonly<Record<Whereabouts, (v: Vcpu) => number>> = {
  es: (v) => segmentAt(v, "es"),
  cs: (v) => segmentAt(v, "cs"),
  ss: (v) => segmentAt(v, "ss"),
  ds: (v) => segmentAt(v, "ds"),
  fs: (v) => segmentAt(v, "fs"),
  gs: (v) => segmentAt(v, "gs"),
  ldtr: (v) => segmentAt(v, "ldtr"),
  tr: (v) => segmentAt(v, "tr"),
  gdtr: (v) => v.vmcb + S.gdtr_selector,
  idtr: (v) => v.vmcb + S.idtr_selector,
  rflags: (v) => v.vmcb + S.rflags,
  currentVmcb12Gpa: (v) => v.guestMode ? V.vmcb12_gpa : -1,
};

/** Where the selector of each segment register is in an image of layout `regs`; attributes follow. */
const SELECTOR_AT = offsets(
  SEGMENTS.map((name) => ({
    ...REGS_FIELDS.find((field) => field.name === `${name}_selector`)!,
    name,
  })),
);

/** Where that image has how many NMIs wait. */
const NMI_PENDING_AT = REGS_FIELDS.find(({ name }) => name === "nmi_pending")!.offset;

const INNER_VIEW = new View(INNER_FIELDS, WHEREABOUTS, GETTERS);
const REGS_VIEW = new View(REGS_FIELDS, WHEREABOUTS, GETTERS);

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
  INNER_VIEW.fill(v, into);
  into.words[RET] = ret;
  return into.bytes;
}

/** CPU roles of kernels with an MMU each for L1, L2 and L1's nested page table. */
const THREE_ROLES = [I.cpu_role, I.gcpu_role, I.ncpu_role] as const;

/** What a kernel with one walker shows: all but those. */
const ONE_WALKER = new Uint8Array(INNER_SIZE).fill(0xff);
for (const at of THREE_ROLES) ONE_WALKER.fill(0, at, at + 8);

/**
 * The state inside the kernel as one of its functions returns, as far as that kernel has it and as
 * it packs it. Without that, {@linkcode innerBytes} is comparable between kernels.
 *
 * @param v The vCPU.
 * @param ret What the function returns.
 * @param into Where to, {@linkcode INNER_SIZE} bytes; new memory when left out.
 * @returns An image of layout `inner`.
 */
export function innerView(
  v: Vcpu,
  ret: number,
  into: ImageBuffer = new ImageBuffer(INNER_SIZE),
): Image {
  INNER_VIEWER.fill(v, ret, into);
  return innerImage(v.policy, into);
}

/** That view, filled into memory of its size. */
export const INNER_VIEWER: Viewer = {
  size: INNER_SIZE,
  fill(v, ret, into) {
    innerBytes(v, ret, into);
    const { oneWalker, roles } = v.policy.kernel.mmu;
    if (!oneWalker) return;
    const { bytes, words } = into;
    const set = (at: number, value: number) => v.setOut(words, at >> 2, value);
    for (const at of THREE_ROLES) {
      set(at, 0);
      set(at + 4, 0);
    }
    for (const [to, from] of [[I.gva_role, V.gva_role], [I.ngpa_role, V.guest_cpu_role]] as const) {
      const base = v.u32(from), ext = v.u32(from + 4);
      set(to, roles.cpu(base, ext));
      set(to + 4, roles.ext(base, ext));
    }
    set(I.root_role, roles.root(v.u32(V.root_root_role)));
    set(I.groot_role, roles.root(v.u32(V.guest_root_role)));
    bytes[I.pdptrs_user] = v.u8(V.pdptrs_from_userspace);
  },
};

/**
 * What was filled in, as the image of an event.
 *
 * @param policy Under which it was.
 * @param buffer Where.
 * @returns An image of layout `inner`, in the buffer's memory.
 */
export function innerImage({ kernel }: Policy, buffer: ImageBuffer): Image {
  return kernel.mmu.oneWalker
    ? { bytes: buffer.bytes, known: ONE_WALKER }
    : { bytes: buffer.beginning(INNER_SIZE_THREE_ROLES) };
}

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
  REGS_VIEW.fill(v, into);
  // Userspace is shown attributes as KVM_GET_SREGS makes them of those in the VMCB.
  for (let i = 0; i < SEGMENTS.length; i++) {
    const name = SEGMENTS[i] as SegmentName;
    const attrib = reportedAttributes(v, name);
    v.setOut(into.words, SELECTOR_AT[name] >> 2, v.u16(segmentAt(v, name)) | attrib << 16);
  }
  into.bytes[NMI_PENDING_AT] = toldNmis(v);
  looked(v);
  return into.bytes;
}

/** That view, filled into memory of its size. */
export const REGS_VIEWER: Viewer = {
  size: REGS_SIZE,
  fill: (v, _, into) => void regsBytes(v, into),
};

/** Bytes of a VMCB image that hold host addresses, ASIDs or clocks, which differ from run to run. */
const HOST_WORDS = [C.iopm_base_pa, C.msrpm_base_pa, C.tsc_offset, C.asid, C.nested_cr3] as const;

const MASKS = { npt: vmcbMask(true), shadow: vmcbMask(false) };

/**
 * Mask of a hypervisor's own VMCB: its host addresses, ASID and clock are not
 * comparable between runs, and with shadow paging neither is CR3.
 *
 * @param npt Whether the hypervisor uses nested paging.
 * @returns A mask for {@linkcode Image.known}; shared, not to be changed.
 */
export function hostVmcbMask(npt: boolean): Uint8Array {
  return npt ? MASKS.npt : MASKS.shadow;
}

function vmcbMask(npt: boolean): Uint8Array {
  const mask = new Uint8Array(VMCB_SIZE).fill(0xff);
  for (const at of HOST_WORDS) mask.fill(0, at, at + 8);
  if (!npt) mask.fill(0, S.cr3, S.cr3 + 8);
  return mask;
}

/** Whether vmcb02 was ever prepared; before that it is an empty page. */
export function vmcb02Used(v: Vcpu): boolean {
  return v.u8(V.nested_initialized) !== 0 && mapKind(v, VMCB02_AT) !== 3;
}
