/**
 * A small hypervisor to try a recorder on: every processor of the machine runs
 * an L2 of its own for ever, from two VMRUN instructions in turn.
 *
 * @module
 */
import { SAVE_AREA } from "../../engine/svm/vmcb_fields.ts";
import { S } from "../../engine/svm/machine.ts";
import { type CodeItem, type CodeRow, type CommonLabel, ROM_TABLES } from "./machine_code.ts";
import { PRELUDE, PRELUDE_TABLES } from "./machine_code.ts";

/** vmcb12 of the first processor; each next one has its own 64 KiB further up. */
export const DEMO_VMCB = 0x100000;
/** Bytes between the processors' VMCBs. */
export const DEMO_STRIDE = 0x10000;

/** Labels of the image. */
export type DemoLabel =
  | CommonLabel
  | "fill"
  | "first"
  | "loop"
  | "second"
  | "l2"
  | "words"
  | "words_end"
  | "wake_done";

/** Address of the interrupt command register of the local APIC. */
const APIC_ICR = [0x00, 0x03, 0xe0, 0xfe];
const u32 = (value: number): number[] => [
  value & 0xff,
  value >>> 8 & 0xff,
  value >>> 16 & 0xff,
  value >>> 24,
];

/** Non-zero 8-byte words of each vmcb12: offset, value. L2's RIP and the maps' addresses are set by code. */
const VMCB_WORDS: readonly (readonly [number, bigint])[] = [
  [0x008, 0x81000000_00000000n], // HLT, SHUTDOWN
  [0x010, 0x3n], // VMRUN, VMMCALL
  [0x058, 0x1n], // ASID
  [S.es_selector, 0xffffffff_0c930010n],
  [S.cs_selector, 0xffffffff_0a9b0008n],
  [S.ss_selector, 0xffffffff_0c930010n],
  [S.ds_selector, 0xffffffff_0c930010n],
  [S.efer, 0x1500n],
  [S.cr4, 0x20n],
  [S.cr3, BigInt(ROM_TABLES)],
  [S.cr0, 0x80000011n],
  [S.dr7, 0x400n],
  [S.dr6, 0xffff0ff0n],
  [S.rflags, 0x2n],
  [S.rsp, 0x7000n],
  [S.g_pat, 0x0007040600070406n],
];

const RIP = u32(S.rip);

/** The image. Processors after the first come to `start` too, by the interrupts that the first one sends. */
export const DEMO_CODE: readonly CodeRow<DemoLabel>[] = [
  ...PRELUDE,
  // Which processor this is: its APIC id. The first one wakes the others: INIT, then start-up at 0xf0000.
  { bytes: [0xb8, ...u32(1)], text: "mov eax, 1" },
  { bytes: [0x0f, 0xa2], text: "cpuid" },
  { bytes: [0xc1, 0xeb, 0x18], text: "shr ebx, 24" },
  { bytes: [0x75, { rel8: "wake_done" }], text: "jnz wake_done" },
  { bytes: [0xbf, ...APIC_ICR], text: "mov edi, APIC ICR" },
  { bytes: [0xc7, 0x07, ...u32(0xc4500)], text: "mov dword [rdi], INIT to all others" },
  { bytes: [0xc7, 0x07, ...u32(0xc46f0)], text: "mov dword [rdi], start-up to all others" },
  // rax = this processor's vmcb12; VM_HSAVE_PA is the page behind it.
  { label: "wake_done", bytes: [0xc1, 0xe3, 0x10], text: "shl ebx, 16" },
  { bytes: [0x81, 0xc3, ...u32(DEMO_VMCB)], text: "add ebx, vmcb12 of the first" },
  { bytes: [0xb9, ...u32(0xc0010117)], text: "mov ecx, VM_HSAVE_PA" },
  { bytes: [0x8d, 0x83, ...u32(0x1000)], text: "lea eax, [rbx + 0x1000]" },
  { bytes: [0x31, 0xd2], text: "xor edx, edx" },
  { bytes: [0x0f, 0x30], text: "wrmsr" },
  { bytes: [0x8d, 0x83, ...u32(0x2000)], text: "lea eax, [rbx + 0x2000]" },
  { bytes: [0x48, 0x89, 0x43, 0x48], text: "mov [rbx + msrpm_base_pa], rax" },
  { bytes: [0x8d, 0x83, ...u32(0x4000)], text: "lea eax, [rbx + 0x4000]" },
  { bytes: [0x48, 0x89, 0x43, 0x40], text: "mov [rbx + iopm_base_pa], rax" },
  { bytes: [0xb8, { abs32: "l2" }], text: "mov eax, l2" },
  { bytes: [0x48, 0x89, 0x83, ...RIP], text: "mov [rbx + save.rip], rax" },
  // The other words of vmcb12.
  { bytes: [0xbe, { abs32: "words" }], text: "mov esi, words" },
  { label: "fill", bytes: [0xad], text: "lodsd" },
  { bytes: [0x89, 0xc7], text: "mov edi, eax" },
  { bytes: [0x48, 0xad], text: "lodsq" },
  { bytes: [0x48, 0x89, 0x04, 0x1f], text: "mov [rdi + rbx], rax" },
  { bytes: [0x81, 0xfe, { abs32: "words_end" }], text: "cmp esi, words_end" },
  { bytes: [0x75, { rel8: "fill" }], text: "jne fill" },
  { bytes: [0x89, 0xd8], text: "mov eax, ebx" },
  // For ever: two VMRUNs; L2's RIP is moved past its VMMCALL after each.
  { label: "loop", bytes: [0x90], text: "nop" },
  { label: "first", bytes: [0x0f, 0x01, 0xd8], text: "vmrun" },
  { bytes: [0x48, 0x83, 0x80, ...RIP, 0x03], text: "add qword [rax + save.rip], 3" },
  { label: "second", bytes: [0x0f, 0x01, 0xd8], text: "vmrun" },
  { bytes: [0x48, 0x83, 0x80, ...RIP, 0x03], text: "add qword [rax + save.rip], 3" },
  { bytes: [0xeb, { rel8: "loop" }], text: "jmp loop" },
  { label: "l2", bytes: [0x0f, 0x01, 0xd9], text: "vmmcall" },
  { bytes: [0xeb, { rel8: "l2" }], text: "jmp l2" },
  ...PRELUDE_TABLES,
  ...VMCB_WORDS.map(([offset, value], i): CodeRow<DemoLabel> => ({
    ...(i === 0 ? { label: "words" } : {}),
    bytes: [...u32(offset), ...words64(value)],
    text: offset < SAVE_AREA
      ? `control ${offset.toString(16)}`
      : `save ${(offset - SAVE_AREA).toString(16)}`,
  })),
  { label: "words_end", bytes: [], text: "" },
];

function words64(value: bigint): CodeItem<DemoLabel>[] {
  return [...u32(Number(value & 0xffff_ffffn)), ...u32(Number(value >> 32n))];
}
