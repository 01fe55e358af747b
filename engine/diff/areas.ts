/**
 * The parts of a vCPU's state that two policies are compared in.
 *
 * @module
 */
import type { Image } from "../event.ts";
import type { Field, Layout } from "../layout.ts";
import {
  CPU_FIELDS,
  INNER_FIELDS,
  INNER_LAYOUT,
  INNER_SIZE,
  NESTED_FIELDS,
} from "../svm/inner_layout.ts";
import { MAPPED_AT, VMCB01_AT, VMCB02_AT } from "../svm/machine.ts";
import { REGS_FIELDS, REGS_LAYOUT, REGS_SIZE } from "../svm/regs_layout.ts";
import { VCPU_FIELDS, VCPU_SIZE, type VcpuField } from "../svm/vcpu_fields.ts";
import { type Place, placeOfRow, type ViewField } from "../svm/view_source.ts";
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

const NESTED: ReadonlySet<string> = new Set(NESTED_FIELDS.map(({ name }) => name));
const REGISTERS: ReadonlySet<string> = new Set(REGS_FIELDS.map(({ name }) => name));

/** Of L1's registers, what the nested bookkeeping shows. */
const L1_OMITS = namesOf(REGS_FIELDS, ({ name }) => NESTED.has(name));

/** Of the state inside the kernel, what L1's registers show, and what is nothing of the machine. */
const NESTED_OMITS = new Set([
  ...namesOf(CPU_FIELDS, ({ name }) => REGISTERS.has(name)),
  ...namesOf(INNER_FIELDS, ({ from }) => from.kind === "none"),
  // Its bits are guest mode and SMM.
  "hflags",
]);

/** Of the vCPU area, what either of them shows, and what is internal. */
const VCPU_OMITS = namesOf(
  VCPU_FIELDS as readonly VcpuField[],
  ({ offset, size, internal }) =>
    internal === true ||
    [...REGS_FIELDS, ...INNER_FIELDS].map(placeOfRow).some((shown) =>
      shown.size > 0 && shown.at < offset + size && offset < shown.at + shown.size
    ),
);

function namesOf<F extends Field>(
  fields: readonly F[],
  which: (field: F) => boolean,
): ReadonlySet<string> {
  return new Set(fields.filter(which).map(({ name }) => name));
}

/** All parts, in the order of output. */
export const AREAS: readonly Area[] = [
  { name: "vmcb12", layout: VMCB_LAYOUT },
  { name: "L1", layout: REGS_LAYOUT, omit: L1_OMITS },
  { name: "nested", layout: INNER_LAYOUT, omit: NESTED_OMITS },
  { name: "vmcb01", layout: VMCB_LAYOUT, at: VMCB01_AT },
  { name: "vmcb02", layout: VMCB_LAYOUT, at: VMCB02_AT },
  { name: "vcpu", layout: VCPU_LAYOUT, omit: VCPU_OMITS, at: 0 },
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

/**
 * Where in the machine's bytes a field of a part of the state is, so that its last writer can be
 * found. Fields of vmcb12 are where it is mapped.
 *
 * @param area The part.
 * @param field The field.
 * @returns The place; of size 0 where the field is nowhere in particular.
 */
export function placeOf(area: Area, field: Field): Place {
  if (area.at !== undefined) return { at: area.at + field.offset, size: field.size };
  if (area.name === "vmcb12") return { at: MAPPED_AT + field.offset, size: field.size };
  return VIEWS.has(field) ? placeOfRow(field as ViewField) : { at: 0, size: 0 };
}

const VIEWS: ReadonlySet<Field> = new Set<Field>([...REGS_FIELDS, ...INNER_FIELDS]);

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
