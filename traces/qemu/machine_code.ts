/**
 * The machine code of the guest that runs scenarios, one row an instruction: what an
 * assembler would print, written by hand. The image, the labels and the listing
 * in the folder's README come from this table.
 *
 * @module
 */

/** Bytes of an instruction: a byte, or a reference to a label that is filled in. */
export type CodeItem<L extends string = string> =
  | number
  /** Address of a label: 4 bytes absolute, 2 bytes within the segment, 1 byte relative to the next instruction. */
  | { readonly abs32: L }
  | { readonly abs16: L }
  | { readonly rel8: L };

/** One instruction, or one run of data. */
export interface CodeRow<L extends string = string> {
  /** Name of its address. */
  readonly label?: L;
  /** Its bytes. */
  readonly bytes: readonly CodeItem<L>[];
  /** As an assembler spells it. */
  readonly text: string;
}

/** Where the image's first byte is in the guest's memory: the last 64 KiB below 1 MiB, and below 4 GiB. */
export const ROM_BASE = 0xf0000;
/** Size of the image in bytes. */
export const ROM_SIZE = 0x10000;
/** The guest's own page tables inside the image: identity over the first and the fourth GiB. */
export const ROM_TABLES: number = ROM_BASE + 0x1000;
/**
 * Parameters of a case, laid out by {@linkcode GUEST_PARAMETERS}. Like {@linkcode PRISTINE_AT} it is where no
 * address of the base leads when one bit of it is changed.
 */
export const PARAMETERS_AT = 0xb00000;
/** The base's memory below 0x80000, which the guest copies down before each case. */
export const PRISTINE_AT = 0xc00000;

/** Byte offsets of the parameters of a case: what L1 gets, and what to do. */
export const GUEST_PARAMETERS = {
  hsave: 0x00,
  cr4: 0x08,
  cr3: 0x10,
  efer: 0x18,
  cr0: 0x20,
  gif: 0x28,
  pae: 0x2c,
  keepmem: 0x30,
  /** Counts the NMIs that the GIF probe saw. */
  nmis: 0x34,
} as const;

const P = GUEST_PARAMETERS;
const u32 = (value: number): number[] => [
  value & 0xff,
  value >>> 8 & 0xff,
  value >>> 16 & 0xff,
  value >>> 24,
];
const EFER = u32(0xc0000080);
const SEGMENTS: readonly CodeRow<never>[] = [
  { bytes: [0x66, 0xb8, 0x10, 0x00], text: "mov ax, 0x10" },
  { bytes: [0x8e, 0xd8], text: "mov ds, ax" },
  { bytes: [0x8e, 0xc0], text: "mov es, ax" },
  { bytes: [0x8e, 0xd0], text: "mov ss, ax" },
  { bytes: [0x8e, 0xe0], text: "mov fs, ax" },
  { bytes: [0x8e, 0xe8], text: "mov gs, ax" },
];

/** Clears the arithmetic flags: QEMU keeps them apart, where a debugger's write to RFLAGS does not reach them. */
const CLEAR_FLAGS: readonly CodeRow<never>[] = [
  { bytes: [0xb8, ...u32(1)], text: "mov eax, 1" },
  { bytes: [0x85, 0xc0], text: "test eax, eax" },
];

/** Labels that every image has. */
export type CommonLabel = "start" | "boot" | "long" | "gdt64" | "gdtr64";

/** From reset to 64-bit mode with EFER.SVME set; every image begins with it. */
export const PRELUDE: readonly CodeRow<CommonLabel>[] = [
  // Real mode to long mode, with EFER.SVME set.
  // The debugger stops here, so that a guest that resets is seen before its memory is touched, and goes on at boot.
  { label: "start", bytes: [0x90], text: "nop" },
  { label: "boot", bytes: [0xfa], text: "cli" },
  { bytes: [0x2e, 0x66, 0x0f, 0x01, 0x16, { abs16: "gdtr64" }], text: "o32 lgdt cs:[gdtr64]" },
  { bytes: [0x66, 0xb8, ...u32(0x20)], text: "mov eax, CR4.PAE" },
  { bytes: [0x0f, 0x22, 0xe0], text: "mov cr4, eax" },
  { bytes: [0x66, 0xb8, ...u32(ROM_TABLES)], text: "mov eax, tables" },
  { bytes: [0x0f, 0x22, 0xd8], text: "mov cr3, eax" },
  { bytes: [0x66, 0xb9, ...EFER], text: "mov ecx, EFER" },
  { bytes: [0x66, 0x31, 0xd2], text: "xor edx, edx" },
  { bytes: [0x66, 0xb8, ...u32(0x1100)], text: "mov eax, LME | SVME" },
  { bytes: [0x0f, 0x30], text: "wrmsr" },
  { bytes: [0x66, 0xb8, ...u32(0x80000011)], text: "mov eax, PG | ET | PE" },
  { bytes: [0x0f, 0x22, 0xc0], text: "mov cr0, eax" },
  { bytes: [0x66, 0xea, { abs32: "long" }, 0x08, 0x00], text: "jmp far 8:long" },
  { label: "long", ...SEGMENTS[0]! },
  ...SEGMENTS.slice(1),
];

/** The descriptor table that it loads; every image holds it. */
export const PRELUDE_TABLES: readonly CodeRow<CommonLabel>[] = [
  { label: "gdt64", bytes: [0, 0, 0, 0, 0, 0, 0, 0], text: "null" },
  { bytes: [0xff, 0xff, 0, 0, 0, 0x9b, 0xaf, 0], text: "64-bit code" },
  { bytes: [0xff, 0xff, 0, 0, 0, 0x93, 0xcf, 0], text: "data, 4 GiB" },
  { label: "gdtr64", bytes: [0x17, 0, { abs32: "gdt64" }], text: "limit, base" },
];

/** Labels of the image that runs scenarios. */
export type ScenarioLabel =
  | CommonLabel
  | "fresh"
  | "ready"
  | "load"
  | "gif_set"
  | "done"
  | "narrow"
  | "narrow32"
  | "done32"
  | "probe"
  | "probe_armed"
  | "probe_go"
  | "probe_seen"
  | "probe_drain"
  | "probe_end"
  | "nmi"
  | "gdt32"
  | "idt"
  | "gdtr32"
  | "gdtr_probe"
  | "idtr_probe"
  | "table0";

/** The image that runs scenarios. Execution begins at `start` in real mode, from the jump at the reset vector. */
export const MACHINE_CODE: readonly CodeRow<ScenarioLabel>[] = [
  ...PRELUDE,

  // Memory below 0x80000 as the base has it, unless the case keeps it.
  { label: "fresh", bytes: [0xb8, ...u32(ROM_TABLES)], text: "mov eax, tables" },
  { bytes: [0x0f, 0x22, 0xd8], text: "mov cr3, rax" },
  { bytes: [0xbb, ...u32(PARAMETERS_AT)], text: "mov ebx, parameters" },
  { bytes: [0x83, 0x7b, P.keepmem, 0x00], text: "cmp dword [rbx + keepmem], 0" },
  { bytes: [0x75, { rel8: "ready" }], text: "jne ready" },
  { bytes: [0xbe, ...u32(PRISTINE_AT)], text: "mov esi, pristine" },
  { bytes: [0x31, 0xff], text: "xor edi, edi" },
  { bytes: [0xb9, ...u32(0x10000)], text: "mov ecx, 0x10000" },
  { bytes: [0xfc], text: "cld" },
  { bytes: [0xf3, 0x48, 0xa5], text: "rep movsq" },
  // The debugger stops here, writes the case and its parameters, and goes on at load.
  { label: "ready", bytes: [0x90], text: "nop" },

  // L1's state: VM_HSAVE_PA, an IDT of zeroes as a new vCPU has, GIF, control registers.
  {
    label: "load",
    bytes: [0xbc, ...u32(PARAMETERS_AT + 0x1000)],
    text: "mov esp, parameters + 0x1000",
  },
  { bytes: [0xbb, ...u32(PARAMETERS_AT)], text: "mov ebx, parameters" },
  { bytes: [0xb9, ...u32(0xc0010117)], text: "mov ecx, VM_HSAVE_PA" },
  { bytes: [0x8b, 0x43, P.hsave], text: "mov eax, [rbx + hsave]" },
  { bytes: [0x8b, 0x53, P.hsave + 4], text: "mov edx, [rbx + hsave + 4]" },
  { bytes: [0x0f, 0x30], text: "wrmsr" },
  { bytes: [0x0f, 0x01, 0x1c, 0x25, { abs32: "table0" }], text: "lidt [table0]" },
  { bytes: [0x0f, 0x01, 0xdc], text: "stgi" },
  { bytes: [0x83, 0x7b, P.gif, 0x00], text: "cmp dword [rbx + gif], 0" },
  { bytes: [0x75, { rel8: "gif_set" }], text: "jne gif_set" },
  { bytes: [0x0f, 0x01, 0xdd], text: "clgi" },
  { label: "gif_set", bytes: [0x83, 0x7b, P.pae, 0x00], text: "cmp dword [rbx + pae], 0" },
  { bytes: [0x75, { rel8: "narrow" }], text: "jne narrow" },
  { bytes: [0x48, 0x8b, 0x43, P.cr4], text: "mov rax, [rbx + cr4]" },
  { bytes: [0x0f, 0x22, 0xe0], text: "mov cr4, rax" },
  { bytes: [0x48, 0x8b, 0x43, P.cr3], text: "mov rax, [rbx + cr3]" },
  { bytes: [0x0f, 0x22, 0xd8], text: "mov cr3, rax" },
  { bytes: [0xb9, ...EFER], text: "mov ecx, EFER" },
  { bytes: [0x8b, 0x43, P.efer], text: "mov eax, [rbx + efer]" },
  { bytes: [0x8b, 0x53, P.efer + 4], text: "mov edx, [rbx + efer + 4]" },
  { bytes: [0x0f, 0x30], text: "wrmsr" },
  { bytes: [0x48, 0x8b, 0x43, P.cr0], text: "mov rax, [rbx + cr0]" },
  { bytes: [0x0f, 0x22, 0xc0], text: "mov cr0, rax" },
  { bytes: [0x0f, 0x01, 0x14, 0x25, { abs32: "table0" }], text: "lgdt [table0]" },
  ...CLEAR_FLAGS,
  // The debugger stops here, sets L1's general registers, RIP and RFLAGS, and lets L1 run.
  { label: "done", bytes: [0x90], text: "nop" },

  // An L1 in 32-bit PAE mode: through compatibility mode, paging off, and on again.
  { label: "narrow", bytes: [0x0f, 0x01, 0x14, 0x25, { abs32: "gdtr32" }], text: "lgdt [gdtr32]" },
  { bytes: [0x6a, 0x08], text: "push 8" },
  { bytes: [0x68, { abs32: "narrow32" }], text: "push narrow32" },
  { bytes: [0x48, 0xcb], text: "retfq" },
  { label: "narrow32", bytes: [0x0f, 0x20, 0xc0], text: "mov eax, cr0" },
  { bytes: [0x25, ...u32(0x7fffffff)], text: "and eax, ~PG" },
  { bytes: [0x0f, 0x22, 0xc0], text: "mov cr0, eax" },
  { bytes: [0xb9, ...EFER], text: "mov ecx, EFER" },
  { bytes: [0x8b, 0x43, P.efer], text: "mov eax, [ebx + efer]" },
  { bytes: [0x8b, 0x53, P.efer + 4], text: "mov edx, [ebx + efer + 4]" },
  { bytes: [0x0f, 0x30], text: "wrmsr" },
  { bytes: [0x8b, 0x43, P.cr4], text: "mov eax, [ebx + cr4]" },
  { bytes: [0x0f, 0x22, 0xe0], text: "mov cr4, eax" },
  { bytes: [0x8b, 0x43, P.cr3], text: "mov eax, [ebx + cr3]" },
  { bytes: [0x0f, 0x22, 0xd8], text: "mov cr3, eax" },
  { bytes: [0x8b, 0x43, P.cr0], text: "mov eax, [ebx + cr0]" },
  { bytes: [0x0f, 0x22, 0xc0], text: "mov cr0, eax" },
  ...SEGMENTS,
  { bytes: [0x0f, 0x01, 0x15, { abs32: "table0" }], text: "lgdt [table0]" },
  ...CLEAR_FLAGS,
  { label: "done32", bytes: [0x90], text: "nop" },

  // GIF after the #VMEXIT, seen from inside: an NMI is taken at once only when GIF is set.
  {
    label: "probe",
    bytes: [0xbc, ...u32(PARAMETERS_AT + 0x1000)],
    text: "mov esp, parameters + 0x1000",
  },
  { bytes: [0xb8, ...u32(ROM_TABLES)], text: "mov eax, tables" },
  { bytes: [0x0f, 0x22, 0xd8], text: "mov cr3, rax" },
  { bytes: [0xbb, ...u32(PARAMETERS_AT)], text: "mov ebx, parameters" },
  { bytes: [0x0f, 0x01, 0x14, 0x25, { abs32: "gdtr_probe" }], text: "lgdt [gdtr_probe]" },
  { bytes: [0x0f, 0x01, 0x1c, 0x25, { abs32: "idtr_probe" }], text: "lidt [idtr_probe]" },
  // The debugger stops here, raises an NMI, and goes on at probe_go.
  { label: "probe_armed", bytes: [0x90], text: "nop" },
  { label: "probe_go", bytes: [0x90, 0x90, 0x90], text: "nop (3)" },
  // The debugger stops here, reads the count of NMIs, and goes on at probe_drain: the NMI must not stay pending.
  { label: "probe_seen", bytes: [0x90], text: "nop" },
  { label: "probe_drain", bytes: [0x0f, 0x01, 0xdc], text: "stgi" },
  { bytes: [0x90, 0x90, 0x90], text: "nop (3)" },
  { label: "probe_end", bytes: [0x90], text: "nop" },
  { label: "nmi", bytes: [0xff, 0x43, P.nmis], text: "inc dword [rbx + nmis]" },
  { bytes: [0x48, 0xcf], text: "iretq" },

  // Descriptor tables: null, code (8), data (0x10).
  ...PRELUDE_TABLES,
  { label: "gdt32", bytes: [0, 0, 0, 0, 0, 0, 0, 0], text: "null" },
  { bytes: [0xff, 0xff, 0, 0, 0, 0x9b, 0xcf, 0], text: "32-bit code, 4 GiB" },
  { bytes: [0xff, 0xff, 0, 0, 0, 0x93, 0xcf, 0], text: "data, 4 GiB" },
  { label: "idt", bytes: new Array(32).fill(0), text: "vectors 0 and 1: none" },
  {
    // The handler is in the 64 KiB from 0xf0000, so that the gate's upper halves are constants.
    bytes: [{ abs16: "nmi" }, 0x08, 0, 0, 0x8e, ROM_BASE >> 16, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    text: "vector 2: interrupt gate to 8:nmi",
  },
  { label: "gdtr32", bytes: [0x17, 0, { abs32: "gdt32" }, 0, 0, 0, 0], text: "limit, base" },
  { label: "gdtr_probe", bytes: [0x17, 0, { abs32: "gdt64" }, 0, 0, 0, 0], text: "limit, base" },
  { label: "idtr_probe", bytes: [0x2f, 0, { abs32: "idt" }, 0, 0, 0, 0], text: "limit, base" },
  { label: "table0", bytes: [0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0], text: "limit 0xffff, base 0" },
];
