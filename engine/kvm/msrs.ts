/**
 * The MSRs that a guest may read and write through an exit (kvm_get_msr_common, kvm_set_msr_common,
 * svm_get_msr, svm_set_msr).
 *
 * @module
 */
import { type CpuidLeaf, type CpuidRegister, LAB_CPUID } from "../svm/cpuid.ts";
import { C, canUse, S, V, VMCB01_AT, VMCB02_AT, VMCB12_AT } from "../svm/machine.ts";
import { MSR_FIELDS } from "../svm/msr_fields.ts";
import { setGuestEfer } from "./control_registers.ts";
import { isLabMachine, LAB_ARCH_CAPABILITIES } from "./lab_machine.ts";
import { CLEAN, EFER } from "./constants.ts";
import { markDirty } from "./control.ts";
import type { Vcpu } from "./vcpu.ts";

/** How KVM answers for one MSR. What it has not for an access is #GP. */
interface Msr {
  /** Its value; undefined for #GP. */
  read?(v: Vcpu, index: number): bigint | undefined;
  /** Takes a value; false for #GP. */
  write?(v: Vcpu, value: bigint, index: number): boolean;
}

const MASK32 = 0xffff_ffffn;

const TABLE = new Map<number, Msr>();

function add(indices: Iterable<number>, msr: Msr): void {
  for (const index of indices) TABLE.set(index, msr);
}

function range(first: number, count: number, step = 1): number[] {
  return Array.from({ length: count }, (_, i) => first + i * step);
}

/** A value that never changes; writing it is #GP. */
function constant(value: bigint): Msr {
  return { read: () => value };
}

/** A value that never changes; what is written is dropped. */
function unmoved(value: bigint): Msr {
  return { read: () => value, write: () => true };
}

/** What is written is dropped; reading it is #GP. */
const WRITE_ONLY: Msr = { write: () => true };

/** Kept in the VMCB that L1 runs with, whoever asks. */
function inVmcb01(field: number): Msr {
  return {
    read: (v) => v.u64(VMCB01_AT + field),
    write(v, value) {
      v.set64(VMCB01_AT + field, value);
      return true;
    },
  };
}

/** Kept in the vCPU area, as far as `valid` takes it. */
function stored(
  name: typeof MSR_FIELDS[number]["name"],
  valid: (v: Vcpu, value: bigint, index: number) => bigint | undefined = (_v, value) => value,
): Msr {
  const row = MSR_FIELDS.find((field) => field.name === name) as typeof MSR_FIELDS[number];
  const reset = "reset" in row ? row.reset : 0n;
  const at = (index: number) => row.offset + (row.size > 8 ? placeOf(index, row.msr) * 8 : 0);
  return {
    read: (v, index) => v.u64(at(index)) ^ reset,
    write(v, value, index) {
      const taken = valid(v, value, index);
      if (taken === undefined) return false;
      v.set64(at(index), taken ^ reset);
      return true;
    },
  };
}

/** The fixed MTRRs have gaps between their numbers. */
const FIXED_MTRRS = [0x250, 0x258, 0x259, ...range(0x268, 8)];

function placeOf(index: number, first: number): number {
  return first === 0x250 ? FIXED_MTRRS.indexOf(index) : index - first;
}

/** Only there for who has something, and then not modelled. */
function restricted(has: (v: Vcpu) => boolean): Msr {
  const missed = (v: Vcpu, index: number, what: string) => {
    if (has(v)) v.miss(`${what} MSR ${index.toString(16)}`);
  };
  return {
    read(v, index) {
      missed(v, index, "reading");
      return undefined;
    },
    write(v, _value, index) {
      missed(v, index, "writing");
      return false;
    },
  };
}

function memoryType(type: bigint): boolean {
  return type < 8n && (0x73n >> type & 1n) === 1n;
}

function memoryTypes(value: bigint): boolean {
  for (let at = 0n; at < 64n; at += 8n) if (!memoryType(value >> at & 0xffn)) return false;
  return true;
}

/** Bits beyond the width of physical addresses. */
function beyond(v: Vcpu): bigint {
  return ~((1n << BigInt(v.caps.physicalBits)) - 1n) & 0xffff_ffff_ffff_ffffn;
}

function when(ok: boolean, value: bigint): bigint | undefined {
  return ok ? value : undefined;
}

function variableMtrr(v: Vcpu, value: bigint, index: number): bigint | undefined {
  if ((index & 1) !== 0) return when((value & (beyond(v) | 0x7ffn)) === 0n, value);
  return when(memoryType(value & 0xffn) && (value & (beyond(v) | 0xf00n)) === 0n, value);
}

const X2APIC = 0x400n, APIC_ENABLE = 0x800n;

function apicBase(v: Vcpu, value: bigint): bigint | undefined {
  const mode = (base: bigint) => base & (X2APIC | APIC_ENABLE);
  const old = mode(v.u64(V.apic_base) ^ 0xfee00900n), asked = mode(value);
  const reserved = beyond(v) | 0x2ffn | (offers(v, "1", "ecx", 21) ? 0n : X2APIC);
  const refused = (value & reserved) !== 0n || asked === X2APIC ||
    old === (X2APIC | APIC_ENABLE) && asked === APIC_ENABLE ||
    old === 0n && asked === (X2APIC | APIC_ENABLE);
  return when(!refused, value);
}

/** Bits of MISC_ENABLE that nobody changes: PEBS and BTS are not there; and one whose setting is dropped. */
const MISC_FIXED = 0x1800n, MISC_EMON = 0x80n;

function miscEnable(v: Vcpu, value: bigint): bigint | undefined {
  const old = v.u64(V.misc_enable) ^ 0x1800n;
  return when(((old ^ value) & MISC_FIXED) === 0n, value & ~MISC_EMON | old & MISC_EMON);
}

/** HWCR bits whose setting is ignored: flush filter, IGNNE emulation, TLB cache. */
const HWCR_IGNORED = 0x148n;

function hwcr(v: Vcpu, value: bigint): bigint | undefined {
  const { hwcrBits, hwcrKeptByZero } = v.traits.guest;
  const kept = value & ~HWCR_IGNORED;
  if ((kept & ~hwcrBits) !== 0n) return undefined;
  return kept === 0n && hwcrKeptByZero ? v.u64(V.hwcr) : kept;
}

/** MCi_CTL takes 0 or all ones, less two bits that old kernels clear; MCi_STATUS 0, unless HWCR says otherwise. */
function mceBank(v: Vcpu, value: bigint, index: number): bigint | undefined {
  const kind = index & 3;
  if (kind === 0) return when(value === 0n || (value | 0x401n) === 0xffff_ffff_ffff_ffffn, value);
  return when(kind !== 1 || value === 0n || (v.u32(V.hwcr) & 1 << 18) !== 0, value);
}

/** VM_CR: what is set stays although the guest gets #GP for disabling what it uses. */
const VM_CR: Msr = {
  ...stored("vm_cr"),
  write(v, value) {
    if (value > 0x1fn) return false;
    const old = v.u64(V.vm_cr);
    const changeable = (old & 0x10n) !== 0n ? 0x07n : 0x1fn;
    const now = old & ~changeable | value & changeable;
    v.set64(V.vm_cr, now);
    return (now & 0x10n) === 0n || (v.u32(V.efer) & EFER.SVME) === 0;
  },
};

/** Page attributes: L2 has those of L1. */
const PAT: Msr = {
  ...stored("pat"),
  write(v, value) {
    // Of the types 0 to 7, 2 and 3 are none.
    const none = (value | (value & 0x0202020202020202n) << 1n) !== value;
    if (none || (value & 0xf8f8f8f8f8f8f8f8n) !== 0n) return false;
    v.set64(V.pat, value ^ 0x0007040600070406n);
    setPat(v, value);
    return true;
  },
};

/** Gives the VMCBs L1's page attribute table (svm_set_msr). */
export function setPat(v: Vcpu, value: bigint): void {
  if (v.traits.copiesPatForNptOnly && !v.caps.npt) return;
  v.set64(VMCB01_AT + S.g_pat, value);
  if (v.guestMode && v.u8(V.nested_initialized) !== 0) v.set64(VMCB02_AT + S.g_pat, value);
  markDirty(v, v.vmcb, CLEAN.NPT);
  if (v.traits.copiesPatForNptOnly) markDirty(v, VMCB01_AT, CLEAN.NPT);
}

/**
 * The time stamp counter. No time passes in the model: it reads as it was last set, with the offset
 * that L1 gave L2.
 */
const TSC: Msr = {
  read: (v) => {
    const offset = v.guestMode ? v.u64(VMCB12_AT + C.tsc_offset) : 0n;
    return BigInt.asUintN(64, v.u64(V.tsc) + offset);
  },
  write(v, value) {
    v.set64(V.tsc_adjust, v.u64(V.tsc_adjust) + value - v.u64(V.tsc));
    v.set64(V.tsc, value);
    return true;
  },
};

const TSC_ADJUST: Msr = {
  ...stored("tsc_adjust"),
  write(v, value) {
    v.set64(V.tsc, v.u64(V.tsc) + value - v.u64(V.tsc_adjust));
    v.set64(V.tsc_adjust, value);
    return true;
  },
};

/**
 * An MSR of KVM itself, which hands it memory. What KVM writes there, a clock or counters, is not
 * modelled.
 *
 * @param name Where it is kept.
 * @param taken Bits that a guest may set.
 * @param on The bit that makes KVM write; 0 where any value does.
 */
function shared(name: typeof MSR_FIELDS[number]["name"], taken: bigint, on: bigint): Msr {
  const kept = stored(name, (_v, value) => when((value & ~taken) === 0n, value));
  return {
    ...kept,
    write(v, value, index) {
      if (kept.write?.(v, value, index) !== true) return false;
      const writes = on === 0n ? value !== 0n : (value & on) !== 0n;
      const gpa = Number(value & ~on);
      if (writes && v.memory.backed(gpa)) {
        v.miss(`what KVM writes to memory for MSR ${index.toString(16)}`);
      }
      return true;
    },
  };
}

const HSAVE_PA: Msr = {
  read: (v) => v.u64(V.hsave_msr),
  write(v, value) {
    if ((value & (0xfffn | beyond(v))) !== 0n) return false;
    v.set64(V.hsave_msr, value);
    return true;
  },
};

/** LBR virtualization is a matter of the host; without it these are not there. */
const LBR: Msr = {
  read(v, index) {
    if (canUse(v.caps, "lbrv")) v.miss(`reading MSR ${index.toString(16)} with lbrv`);
    return 0n;
  },
  write(v, _value, index) {
    if (canUse(v.caps, "lbrv")) v.miss(`writing MSR ${index.toString(16)} with lbrv`);
    return index === 0x1d9;
  },
};

add([0, 1, 0x17, 0x2a, 0x34, 0x199, 0x606, 0x611, 0x619, 0x639, 0x641], constant(0n));
add([0xc0010010, 0xc0010055, 0xc0010112, 0xc0010113, 0xc0011021], constant(0n));
for (
  const [index, value] of [
    [0x2c, 1n << 24n],
    [0xcd, 3n],
    [0xce, 1n << 31n],
    [0xfe, 0x508n],
    [0x179, 0x20n],
    [0x198, 0x400000003e8n],
  ] as const
) TABLE.set(index, constant(value));
add([0xc1, 0xc2, 0x186, 0x187, 0x6e0, ...range(0xc0010000, 8)], unmoved(0n));
add([0xc001001f, 0xc0011022, 0xc0011023, 0xc001102a, 0xc001102c], unmoved(0n));
TABLE.set(0x8b, unmoved(0x1000065n));
TABLE.set(0x11e, unmoved(0xbe702111n));
TABLE.set(0xc001001b, unmoved(0x20000000n));
add([0x79, 0xc0010020, 0xc0010115], WRITE_ONLY);
TABLE.set(0xc0010058, { read: () => 0n, write: (_v, value) => value === 0n });
add([0x1d9, 0x1db, 0x1dc, 0x1dd, 0x1de], LBR);

TABLE.set(0x10, TSC);
TABLE.set(0x3b, TSC_ADJUST);
TABLE.set(0x1b, stored("apic_base", apicBase));
TABLE.set(0x140, stored("misc_features", (_v, value) => when(value <= 1n, value)));
TABLE.set(0x17a, stored("mcg_status"));
TABLE.set(0x1a0, stored("misc_enable", miscEnable));
TABLE.set(0x1fc, stored("power_ctl"));
TABLE.set(0x277, PAT);
add(range(0x200, 16), stored("mtrr_variable", variableMtrr));
add(FIXED_MTRRS, stored("mtrr_fixed", (_v, value) => when(memoryTypes(value), value)));
TABLE.set(
  0x2ff,
  stored(
    "mtrr_def_type",
    (_v, value) => when((value & ~0xcffn) === 0n && memoryType(value & 0xffn), value),
  ),
);
add(range(0x400, 128), stored("mce_banks", mceBank));
TABLE.set(0xc0010015, stored("hwcr", hwcr));
TABLE.set(0xc0010114, VM_CR);
TABLE.set(0xc0010117, HSAVE_PA);
TABLE.set(
  0xc0011029,
  // LFENCE_SERIALIZE is all there is, and every processor with SVM has it.
  stored(
    "de_cfg",
    (v, value) => when(v.traits.guest.deCfgFixed ? value === 2n : (value & ~2n) === 0n, value),
  ),
);
TABLE.set(0xc0000103, {
  read: (v) => auxiliary(v) ? v.u64(V.tsc_aux) : undefined,
  write(v, value) {
    if (!auxiliary(v)) return false;
    v.set64(V.tsc_aux, value & MASK32);
    return true;
  },
});
TABLE.set(0xc0000080, {
  read: (v) => v.u64(V.efer),
  write: (v, value) => setGuestEfer(v, value, false),
});

for (
  const [index, field] of [
    [0x174, S.sysenter_cs],
    [0x175, S.sysenter_esp],
    [0x176, S.sysenter_eip],
    [0xc0000081, S.star],
    [0xc0000082, S.lstar],
    [0xc0000083, S.cstar],
    [0xc0000084, S.sfmask],
    [0xc0000100, S.fs_base],
    [0xc0000101, S.gs_base],
    [0xc0000102, S.kernel_gs_base],
  ] as const
) TABLE.set(index, inVmcb01(field));

const ALL = 0xffff_ffff_ffff_ffffn;
add([0x11, 0x4b564d00], shared("wall_clock", ALL, 0n));
add([0x12, 0x4b564d01], shared("system_time", ALL, 1n));
// Asynchronous page faults and their interrupt need an APIC in the kernel.
TABLE.set(0x4b564d02, { read: () => 0n, write: (_v, value) => value === 0n });
TABLE.set(0x4b564d03, shared("steal_time", ALL ^ 0x3en, 1n));
TABLE.set(
  0x4b564d04,
  stored("pv_eoi", (v, value) => {
    const on = (value & 1n) !== 0n, gpa = value & ~1n;
    return when((value & 2n) === 0n && (!on || v.memory.backed(Number(gpa))), value);
  }),
);
TABLE.set(0x4b564d05, stored("poll_control", (_v, value) => when(value <= 1n, value)));
TABLE.set(0x4b564d06, constant(0n));
TABLE.set(0x4b564d07, unmoved(0n));

/** Speculation control, which the host has to have as well. */
const SPEC_CTRL = restricted((v) =>
  offers(v, "7", "edx", 26) || [12, 14, 15, 24].some((n) => offers(v, "80000008", "ebx", n))
);
add([0x48, 0x49], SPEC_CTRL);
TABLE.set(0x10b, restricted((v) => offers(v, "7", "edx", 28)));
TABLE.set(0x345, restricted((v) => offers(v, "1", "ecx", 15)));
TABLE.set(0xc001011f, restricted((v) => offers(v, "80000008", "ebx", 25)));
add([0xc0010140, 0xc0010141], restricted((v) => offers(v, "80000001", "ecx", 9)));
TABLE.set(0xc0000104, restricted((v) => canUse(v.caps, "tsc_scale")));
TABLE.set(0x10a, {
  read(v) {
    if (!offers(v, "7", "edx", 29)) return undefined;
    if (!isLabMachine(v.caps)) v.miss("reading MSR 10a of this host");
    return LAB_ARCH_CAPABILITIES;
  },
});

/** TSC_AUX is there for RDTSCP or RDPID. */
function auxiliary(v: Vcpu): boolean {
  return canUse(v.caps, "rdtscp") || offers(v, "7", "ecx", 22);
}

/** Whether L1's CPUID has a bit. */
function offers(v: Vcpu, leaf: CpuidLeaf, register: CpuidRegister, bit: number): boolean {
  return ((v.caps.cpuid ?? LAB_CPUID).register(leaf, register) >>> bit & 1) === 1;
}

/**
 * Reads an MSR for the guest.
 *
 * @returns Its value, or undefined where KVM gives #GP.
 */
export function readMsr(v: Vcpu, index: number): bigint | undefined {
  return TABLE.get(index)?.read?.(v, index);
}

/**
 * Writes an MSR for the guest.
 *
 * @returns Whether KVM accepts it; if not, the guest gets #GP.
 */
export function writeMsr(v: Vcpu, index: number, value: bigint): boolean {
  return TABLE.get(index)?.write?.(v, value, index) ?? false;
}
