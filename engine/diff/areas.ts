/**
 * The parts of a vCPU's state that two policies are compared in.
 *
 * @module
 */
import type { Image } from "../event.ts";
import type { Field, Layout } from "../layout.ts";
import { INNER_LAYOUT, INNER_SIZE } from "../svm/inner_layout.ts";
import { VMCB01_AT, VMCB02_AT, VMCB12_AT } from "../svm/machine.ts";
import { REGS_LAYOUT, REGS_SIZE } from "../svm/regs_layout.ts";
import { VCPU_FIELDS, VCPU_SIZE } from "../svm/vcpu_fields.ts";
import { VMCB_LAYOUT, VMCB_SIZE } from "../svm/vmcb_fields.ts";
import type { Vcpu } from "../kvm/vcpu.ts";
import { hostVmcbMask, ImageBuffer, innerBytes, regsBytes } from "../replay/views.ts";

/** The vCPU area as a layout. */
export const VCPU_LAYOUT: Layout = { name: "vcpu", size: VCPU_SIZE, fields: VCPU_FIELDS };

/** Name of a part of the state. */
export type AreaName = "vmcb12" | "vmcb01" | "vmcb02" | "L1" | "nested" | "vcpu";

/** One part of the state. */
export interface Area {
  /** Its name in output. */
  readonly name: AreaName;
  /** Its layout. */
  readonly layout: Layout;
  /** Fields left out: what another area shows already, or what only the model has. */
  readonly omit?: ReadonlySet<string>;
  /**
   * Where the area lies in `Machine.bytes`, so that the step that wrote a field
   * can be found; absent for views that are computed.
   */
  readonly at?: number;
}

/** Fields of the vCPU area that the other areas show, and cached roots, which only the model has. */
const SHOWN = new Set<string>(
  VCPU_FIELDS.map((field) => field.name).filter((name) =>
    REGS_LAYOUT.fields.some((field) => field.name === name) ||
    INNER_LAYOUT.fields.some((field) => field.name === name) ||
    /^(pgd|prev|guest_p|root_|guest_root|guest_cpu|nested_cpu|merged|pending_vmcb12|active|next_rip|mmu|walk|map|slot)/
      .test(name) ||
    /^(hsave_msr|requests|exception_|interrupt_|soft_int_injected|nmi_l1_to_l2|nmi_masked)/
      .test(name)
  ),
);
const REGISTERS = new Set<string>(
  REGS_LAYOUT.fields.map((field) => field.name).filter((name) =>
    name === "run_pending" || name === "guest_mode" || name === "gif"
  ),
);
const DUPLICATED = new Set<string>(
  INNER_LAYOUT.fields.map((field) => field.name).filter((name) =>
    name === "ret" || name === "hflags" ||
    ["cr0", "cr3", "cr4", "efer", "rip", "rax", "rsp", "rflags"].includes(name)
  ),
);

/** All parts, in the order of output. */
export const AREAS: readonly Area[] = [
  { name: "vmcb12", layout: VMCB_LAYOUT },
  { name: "L1", layout: REGS_LAYOUT, omit: REGISTERS },
  { name: "nested", layout: INNER_LAYOUT, omit: DUPLICATED },
  { name: "vmcb01", layout: VMCB_LAYOUT, at: VMCB01_AT },
  { name: "vmcb02", layout: VMCB_LAYOUT, at: VMCB02_AT },
  { name: "vcpu", layout: VCPU_LAYOUT, omit: SHOWN, at: 0 },
];

/** The part of the state with a name. */
export function areaNamed(name: AreaName): Area {
  return AREAS.find((area) => area.name === name) as Area;
}

/**
 * The row of a field of a part of the state.
 *
 * @param name Name of the part.
 * @param field What a row says of where it is; of bytes that no field covers, all there is.
 */
export function rowOf(name: AreaName, field: Pick<Field, "name" | "offset" | "size">): Field {
  return areaNamed(name).layout.fields.find((row) => row.name === field.name) ??
    { ...field, doc: "Reserved" };
}

/** Byte offset of the cached vmcb12, which differs only where vmcb12 did. */
export const CACHE_AT: number = VMCB12_AT;

/**
 * Memory for the parts of a vCPU's state that need computing, to be filled again and again.
 *
 * @example
 * ```ts
 * import { areaImage, AreaMemory, AREAS, UPSTREAM, Vcpu } from "@vmtape/vmtape/engine";
 * const v = new Vcpu({ physicalBits: 40, npt: true, memory: 1 << 24 }, UPSTREAM);
 * const memory = new AreaMemory();
 * const images = AREAS.map((area) => areaImage(area, v, 0x10000, memory));
 * if (!images.some(({ bytes }) => bytes === memory.regs.bytes)) throw new Error();
 * ```
 */
export class AreaMemory {
  /** What userspace sees. */
  readonly regs: ImageBuffer = new ImageBuffer(REGS_SIZE);
  /** The state inside the kernel. */
  readonly inner: ImageBuffer = new ImageBuffer(INNER_SIZE);
}

/**
 * One part of a vCPU's state as an image.
 *
 * @param area Which.
 * @param v The vCPU.
 * @param vmcb12 Guest physical address of vmcb12.
 * @param memory Where parts are put that need computing; new memory when left out.
 * @returns The image; parts that need no computing are the vCPU's own bytes, not to be changed.
 * @example
 * ```ts
 * import { areaImage, AREAS, UPSTREAM, Vcpu } from "@vmtape/vmtape/engine";
 * const v = new Vcpu({ physicalBits: 40, npt: true, memory: 1 << 24 }, UPSTREAM);
 * v.memory.write8(0x10000, 0x12);
 * for (const area of AREAS) {
 *   const { bytes } = areaImage(area, v, 0x10000);
 *   if (bytes.length !== area.layout.size) throw new Error(area.name);
 *   if (area.name === "vmcb12" && bytes[0] !== 0x12) throw new Error();
 * }
 * ```
 */
export function areaImage(area: Area, v: Vcpu, vmcb12: number, memory?: AreaMemory): Image {
  switch (area.name) {
    case "vmcb12":
      return { bytes: v.memory.backed(vmcb12, VMCB_SIZE) ? v.memory.page(vmcb12) : NOTHING };
    case "L1":
      return { bytes: regsBytes(v, memory?.regs) };
    case "nested":
      return { bytes: innerBytes(v, 0, memory?.inner) };
    case "vcpu":
      return { bytes: v.bytes.subarray(0, VCPU_SIZE) };
    default: {
      const at = area.at as number;
      return { bytes: v.bytes.subarray(at, at + VMCB_SIZE), known: hostVmcbMask(v.caps.npt) };
    }
  }
}

const NOTHING = new Uint8Array(VMCB_SIZE);
