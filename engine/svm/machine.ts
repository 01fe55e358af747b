/**
 * The state of one vCPU and its guest memory: everything a policy's steps read
 * and change.
 *
 * @module
 */
import { type Offsets, offsets } from "../layout.ts";
import type { ProcessorModel } from "../processors/model.ts";
import { type Cpuid, type Feature, LAB_CPUID } from "./cpuid.ts";
import { type AccessRecorder, SETTLED } from "./access.ts";
import { GuestMemory, PAGE_SIZE } from "./memory.ts";
import { VCPU_FIELDS, VCPU_SIZE } from "./vcpu_fields.ts";
import { CONTROL_FIELDS, SAVE_AREA, SAVE_FIELDS, VMCB_SIZE } from "./vmcb_fields.ts";

/** Byte offset of vmcb01 in {@linkcode Machine.bytes}. */
export const VMCB01_AT = 0x1000;
/** Byte offset of vmcb02 in {@linkcode Machine.bytes}. */
export const VMCB02_AT: number = VMCB01_AT + VMCB_SIZE;
/** Byte offset of the cached vmcb12 in {@linkcode Machine.bytes}. */
export const VMCB12_AT: number = VMCB02_AT + VMCB_SIZE;
/** Byte offset of the mapped vmcb12 (or the nested state handed in) in {@linkcode Machine.bytes}: a work area. */
export const MAPPED_AT: number = VMCB12_AT + VMCB_SIZE;
/** Bytes of {@linkcode Machine.bytes} that are state; the work area follows. */
export const STATE_SIZE: number = MAPPED_AT;
/** Bytes of {@linkcode Machine.bytes} up to the hypervisor's own page tables. */
export const MACHINE_SIZE: number = MAPPED_AT + VMCB_SIZE;

/** Shadow pages that there is room for. */
export const SHADOW_PAGES = 40;
/** 32-bit words of a shadow page: four of header, 512 entries. */
export const SHADOW_PAGE_WORDS = 516;
/** Byte offset of the shadow pages in {@linkcode Machine.bytes}. */
export const SHADOW_AT: number = MACHINE_SIZE;
/** Byte offset of the list of device pages that the hypervisor's own nested page tables know. */
export const DEVICES_AT: number = SHADOW_AT + SHADOW_PAGES * SHADOW_PAGE_WORDS * 4;
/** Entries of that list, 8 bytes each. */
export const DEVICES = 16;
/**
 * Byte offset of the hypervisor's own nested page tables in {@linkcode Machine.bytes}: one byte a
 * page of guest memory, bits 0 to 3 present and 4 to 7 writable, a bit for each kind of root.
 */
export const NESTED_AT: number = DEVICES_AT + DEVICES * 8;

/** Offsets of the control area's fields from the start of a VMCB. */
export const C: Offsets<typeof CONTROL_FIELDS> = offsets(CONTROL_FIELDS);
/** Offsets of the save area's fields from the start of a VMCB. */
export const S: Offsets<typeof SAVE_FIELDS> = offsets(SAVE_FIELDS, SAVE_AREA);
/** Offsets of the vCPU's fields in {@linkcode Machine.bytes}. */
export const V: Offsets<typeof VCPU_FIELDS> = offsets(VCPU_FIELDS);

/** What the processor and the hypervisor can do. */
export interface Capabilities {
  /** Physical address bits of L1's CPUID. */
  readonly physicalBits: number;
  /** L1's CPUID; {@linkcode LAB_CPUID} when left out. Its address width is `physicalBits`. */
  readonly cpuid?: Cpuid;
  /** Physical address bits of the processor beneath; those of L1's CPUID when left out. */
  readonly hostPhysicalBits?: number;
  /** What KVM can offer on the processor beneath; what L1's CPUID offers when left out. */
  readonly hostCpuid?: Cpuid;
  /** The hypervisor uses nested paging itself (kvm_amd.npt). */
  readonly npt: boolean;
  /** Bytes of guest memory. */
  readonly memory: number;
  /** Address below which userspace touched every page of it beforehand, so that it is allocated; 0 when left out. */
  readonly resident?: number;
  /** The processor beneath the hypervisor; the manual's when left out. */
  readonly processor?: ProcessorModel;
  /**
   * Bits 11:0 of the address of the hypervisor's own VMRUN, which a processor that leaks them lets
   * a guest see; 0 when left out.
   */
  readonly vmrunRip?: number;
}

/** Whether two machines have the same capabilities. */
export function sameCapabilities(a: Capabilities, b: Capabilities): boolean {
  return a === b ||
    a.physicalBits === b.physicalBits && a.npt === b.npt && a.memory === b.memory &&
      a.resident === b.resident && a.processor === b.processor &&
      a.vmrunRip === b.vmrunRip && a.hostPhysicalBits === b.hostPhysicalBits &&
      (a.cpuid ?? LAB_CPUID).equals(b.cpuid ?? LAB_CPUID) &&
      hostCpuid(a).equals(hostCpuid(b));
}

/** What KVM can offer on the processor beneath. */
export function hostCpuid(caps: Capabilities): Cpuid {
  return caps.hostCpuid ?? caps.cpuid ?? LAB_CPUID;
}

/** Physical address bits of the processor beneath. */
export function hostPhysicalBits(caps: Capabilities): number {
  return caps.hostPhysicalBits ?? caps.physicalBits;
}

/**
 * Whether L1 may use a feature: its CPUID offers it, and KVM can. What needs nested paging is not
 * there without it.
 *
 * @param caps What the processor and the hypervisor can do.
 * @param feature The feature.
 * @returns Whether it is there; no where that is unknown.
 * @example
 * ```ts
 * import { canUse } from "@vmtape/vmtape/engine";
 * const caps = { physicalBits: 40, npt: false, memory: 1 << 24 };
 * if (canUse(caps, "npt") || !canUse({ ...caps, npt: true }, "npt")) throw new Error();
 * ```
 */
export function canUse(caps: Capabilities, feature: Feature): boolean {
  if (!caps.npt && (feature === "npt" || feature === "pku" || feature === "gmet")) return false;
  return (caps.cpuid ?? LAB_CPUID).has(feature);
}

/**
 * A machine with another CPUID.
 *
 * @param caps What it can do otherwise.
 * @param cpuid L1's CPUID.
 * @returns The machine; its address width is what the CPUID says, if it does.
 * @example
 * ```ts
 * import { LAB_CPUID, withCpuid } from "@vmtape/vmtape/engine";
 * const caps = { physicalBits: 40, npt: true, memory: 1 << 24 };
 * if (withCpuid(caps, LAB_CPUID.withPhysicalBits(36)).physicalBits !== 36) throw new Error();
 * ```
 */
export function withCpuid(caps: Capabilities, cpuid: Cpuid): Capabilities {
  return { ...caps, cpuid, physicalBits: cpuid.physicalBits ?? caps.physicalBits };
}

/**
 * One vCPU: {@linkcode Machine.bytes} holds its registers and bookkeeping (the
 * vCPU area), vmcb01, vmcb02 and the cached vmcb12, laid out by the field
 * tables, so that copying, comparing and digesting are native operations.
 *
 * @example
 * ```ts
 * import { Machine, S, VMCB01_AT } from "@vmtape/vmtape/engine";
 * const m = new Machine({ physicalBits: 40, npt: true, memory: 1 << 24 });
 * m.set64(VMCB01_AT + S.efer, 0x1500n);
 * if (m.u32(VMCB01_AT + S.efer) !== 0x1500) throw new Error();
 * ```
 */
export class Machine {
  /** What the processor and the hypervisor can do. */
  readonly caps: Capabilities;
  /** The state: {@linkcode MACHINE_SIZE} bytes, and the hypervisor's page tables behind them. */
  readonly bytes: Uint8Array;
  /** The same bytes as 32-bit words. */
  readonly words: Uint32Array;
  /** The same bytes, for 64-bit values. */
  readonly view: DataView;
  /** Guest memory. */
  memory: GuestMemory;
  /**
   * Who follows what is read and written, if anyone: what goes past the methods here has to tell it.
   */
  recorder: AccessRecorder | undefined;

  /**
   * Makes a machine with all of its state zero.
   *
   * @param caps What the processor and the hypervisor can do.
   */
  constructor(caps: Capabilities) {
    const buffer = new ArrayBuffer(NESTED_AT + Math.ceil(caps.memory / 4096 / 4) * 4);
    this.caps = caps;
    this.bytes = new Uint8Array(buffer);
    this.words = new Uint32Array(buffer);
    this.view = new DataView(buffer);
    this.memory = new GuestMemory(caps.memory);
    this.memory.resident = caps.resident ?? 0;
    this.recorder = undefined;
  }

  /** Byte at an offset. */
  u8(at: number): number {
    const { recorder } = this;
    if (recorder !== undefined && ((recorder.marks[at >> 2] as number) & SETTLED) === 0) {
      recorder.read(at, 1);
    }
    return this.bytes[at] as number;
  }

  /** 16-bit value at an offset. */
  u16(at: number): number {
    this.recorder?.read(at, 2);
    return this.view.getUint16(at, true);
  }

  /** 32-bit value at an offset that is a multiple of 4. */
  u32(at: number): number {
    const { recorder } = this;
    if (recorder !== undefined && ((recorder.marks[at >> 2] as number) & SETTLED) === 0) {
      recorder.read(at, 4);
    }
    return this.words[at >> 2] as number;
  }

  /** The same by the number of the word. */
  word(index: number): number {
    const { recorder } = this;
    if (recorder !== undefined && ((recorder.marks[index] as number) & SETTLED) === 0) {
      recorder.read(index << 2, 4);
    }
    return this.words[index] as number;
  }

  /** 64-bit value at an offset. */
  u64(at: number): bigint {
    this.recorder?.read(at, 8);
    return this.view.getBigUint64(at, true);
  }

  /** Sets a byte. */
  set8(at: number, value: number): void {
    this.recorder?.write(at, 1);
    this.bytes[at] = value;
  }

  /** Sets a 16-bit value. */
  set16(at: number, value: number): void {
    this.recorder?.write(at, 2);
    this.view.setUint16(at, value, true);
  }

  /** Sets a 32-bit value; the offset is a multiple of 4, the value may be signed. */
  set32(at: number, value: number): void {
    this.recorder?.writeWord(at >> 2);
    this.words[at >> 2] = value;
  }

  /** The same by the number of the word. */
  setWord(index: number, value: number): void {
    this.recorder?.writeWord(index);
    this.words[index] = value;
  }

  /** Sets a 64-bit value, taken modulo 2^64. */
  set64(at: number, value: bigint): void {
    this.recorder?.write(at, 8);
    this.view.setBigUint64(at, value, true);
  }

  /** Sets bits of a 32-bit value. */
  or32(at: number, bits: number): void {
    if (this.recorder !== undefined) this.#change(at);
    this.words[at >> 2] = (this.words[at >> 2] as number) | bits;
  }

  /** Clears bits of a 32-bit value. */
  clear32(at: number, bits: number): void {
    if (this.recorder !== undefined) this.#change(at);
    this.words[at >> 2] = (this.words[at >> 2] as number) & ~bits;
  }

  /** Copies a 64-bit value; both offsets are multiples of 4. */
  copy64(to: number, from: number): void {
    this.recorder?.copy(to, from, 8);
    this.words[to >> 2] = this.words[from >> 2] as number;
    this.words[(to >> 2) + 1] = this.words[(from >> 2) + 1] as number;
  }

  /** Copies bytes within the state. */
  copy(to: number, from: number, length: number): void {
    this.recorder?.copy(to, from, length);
    this.bytes.copyWithin(to, from, from + length);
  }

  /** Zeroes bytes from one offset up to another. */
  zero(from: number, to: number): void {
    this.recorder?.write(from, to - from);
    this.bytes.fill(0, from, to);
  }

  /** Copies bytes of one page of guest memory into the state. The address must be backed. */
  copyFromMemory(to: number, gpa: number, length: number): void {
    this.recorder?.copyFromMemory(to, gpa, length);
    const at = gpa % PAGE_SIZE;
    const page = this.memory.page(gpa);
    this.bytes.set(length === PAGE_SIZE ? page : page.subarray(at, at + length), to);
  }

  /** Copies bytes of the state into one page of guest memory. The address must be backed. */
  copyToMemory(gpa: number, from: number, length: number): void {
    this.recorder?.copyToMemory(gpa, from, length);
    this.memory.writable(gpa).set(this.bytes.subarray(from, from + length), gpa % PAGE_SIZE);
  }

  /** Copies words of the state to somewhere outside of it, all by their numbers. */
  copyOut(to: Uint32Array, at: number, from: number, count: number): void {
    this.recorder?.copyOut(to, at, from, count);
    const { words } = this;
    for (let i = 0; i < count; i++) to[at + i] = words[from + i] as number;
  }

  /** Sets a word outside of the state to something that follows from what was read of it. */
  setOut(to: Uint32Array, at: number, value: number): void {
    this.recorder?.setOut(to, at);
    to[at] = value;
  }

  #change(at: number): void {
    this.recorder?.read(at, 4);
    this.recorder?.writeWord(at >> 2);
  }

  /** Byte offset of the active VMCB. */
  get vmcb(): number {
    return this.u32(V.active) === 2 ? VMCB02_AT : VMCB01_AT;
  }

  /** Whether L2 is the one that runs (HF_GUEST_MASK). */
  get guestMode(): boolean {
    return (this.u32(V.hflags) & 1) !== 0;
  }

  /** Whether the vCPU is in system management mode. */
  get smm(): boolean {
    return (this.u32(V.hflags) & 2) !== 0;
  }
}

export { VCPU_SIZE };
