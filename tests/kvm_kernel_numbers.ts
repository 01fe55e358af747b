/**
 * What a C compiler makes of the kernel's headers for the structures and ioctls
 * that the recorder uses, and the program that prints it.
 *
 * @module
 */
import { KVM_CAPS, KVM_IOCTLS, KVM_LAYOUTS } from "../traces/kvm/structs.ts";

/** Fields that C reaches through another path than their name; the rest are members. */
const MEMBERS: Readonly<Record<string, string>> = {
  io_port: "io.port",
  vmcb_pa: "hdr.svm.vmcb_pa",
};

function member(layout: string, field: string): string {
  if (layout !== "kvm_vcpu_events" || /payload|sipi|flags/.test(field)) {
    return MEMBERS[field] ?? field;
  }
  return field.replace(/^(exception|interrupt|nmi|smi|triple_fault)_/, "$1.");
}

/** A C program that prints {@linkcode KERNEL_NUMBERS}. */
export function numbersProgram(): string {
  const lines = [
    "#include <stdio.h>",
    "#include <stddef.h>",
    "#include <linux/kvm.h>",
    "int main(void) {",
  ];
  for (const { name, fields } of Object.values(KVM_LAYOUTS)) {
    lines.push(`printf("${name}:%zu", sizeof(struct ${name}));`);
    for (const field of fields) {
      const at = member(name, field.name);
      const size = field.size === 0 ? "(size_t)0" : `sizeof(((struct ${name} *)0)->${at})`;
      lines.push(`printf(" ${field.name}:%zu:%zu", offsetof(struct ${name}, ${at}), ${size});`);
    }
    lines.push('printf("\\n");');
  }
  for (const name of [...Object.keys(KVM_IOCTLS), ...Object.keys(KVM_CAPS)]) {
    lines.push(`printf("${name}:%lx\\n", (unsigned long)${name});`);
  }
  lines.push("}");
  return lines.join("\n");
}

/** The same from the tables, in the program's form. */
export function numbersOfTables(ioctls: Readonly<Record<string, number>>): string {
  const lines = Object.values(KVM_LAYOUTS).map(({ name, size, fields }) =>
    [`${name}:${size}`, ...fields.map((f) => `${f.name}:${f.offset}:${f.size}`)].join(" ")
  );
  for (const name of Object.keys(KVM_IOCTLS)) lines.push(`${name}:${ioctls[name]!.toString(16)}`);
  for (const [name, value] of Object.entries(KVM_CAPS)) lines.push(`${name}:${value.toString(16)}`);
  return lines.join("\n");
}
/** What the program printed with the headers of Linux 6.1. */
export const KERNEL_NUMBERS = `
kvm_regs:144 rax:0:8 rbx:8:8 rcx:16:8 rdx:24:8 rsi:32:8 rdi:40:8 rsp:48:8 rbp:56:8 r8:64:8 r9:72:8
r10:80:8 r11:88:8 r12:96:8 r13:104:8 r14:112:8 r15:120:8 rip:128:8 rflags:136:8
kvm_segment:24 base:0:8 limit:8:4 selector:12:2 type:14:1 present:15:1 dpl:16:1 db:17:1 s:18:1
l:19:1 g:20:1 avl:21:1 unusable:22:1
kvm_sregs:312 cs:0:24 ds:24:24 es:48:24 fs:72:24 gs:96:24 ss:120:24 tr:144:24 ldt:168:24
gdt:192:16 idt:208:16 cr0:224:8 cr2:232:8 cr3:240:8 cr4:248:8 cr8:256:8 efer:264:8 apic_base:272:8
interrupt_bitmap:280:32
kvm_sregs2:320 cs:0:24 ds:24:24 es:48:24 fs:72:24 gs:96:24 ss:120:24 tr:144:24 ldt:168:24
gdt:192:16 idt:208:16 cr0:224:8 cr2:232:8 cr3:240:8 cr4:248:8 cr8:256:8 efer:264:8 apic_base:272:8
flags:280:8 pdptrs:288:32
kvm_mp_state:4 mp_state:0:4
kvm_debugregs:128 db:0:32 dr6:32:8 dr7:40:8 flags:48:8
kvm_vcpu_events:64 exception_injected:0:1 exception_nr:1:1 exception_has_error_code:2:1
exception_pending:3:1 exception_error_code:4:4 interrupt_injected:8:1 interrupt_nr:9:1
interrupt_soft:10:1 interrupt_shadow:11:1 nmi_injected:12:1 nmi_pending:13:1 nmi_masked:14:1
sipi_vector:16:4 flags:20:4 smi_smm:24:1 smi_pending:25:1 smi_smm_inside_nmi:26:1
smi_latched_init:27:1 triple_fault_pending:28:1 exception_has_payload:55:1 exception_payload:56:8
kvm_nested_state:128 flags:0:2 format:2:2 size:4:4 vmcb_pa:8:8 data:128:0
kvm_msrs:8 nmsrs:0:4
kvm_msr_entry:16 index:0:4 data:8:8
kvm_cpuid2:8 nent:0:4
kvm_cpuid_entry2:40 function:0:4 index:4:4 flags:8:4 eax:12:4 ebx:16:4 ecx:20:4 edx:24:4
kvm_userspace_memory_region:32 slot:0:4 flags:4:4 guest_phys_addr:8:8 memory_size:16:8
userspace_addr:24:8
kvm_interrupt:4 irq:0:4
kvm_run:2352 immediate_exit:1:1 exit_reason:8:4 io_port:34:2
KVM_GET_API_VERSION:ae00
KVM_CREATE_VM:ae01
KVM_CHECK_EXTENSION:ae03
KVM_GET_VCPU_MMAP_SIZE:ae04
KVM_GET_SUPPORTED_CPUID:c008ae05
KVM_CREATE_VCPU:ae41
KVM_SET_USER_MEMORY_REGION:4020ae46
KVM_RUN:ae80
KVM_GET_REGS:8090ae81
KVM_SET_REGS:4090ae82
KVM_GET_SREGS:8138ae83
KVM_SET_SREGS:4138ae84
KVM_INTERRUPT:4004ae86
KVM_GET_MSRS:c008ae88
KVM_SET_MSRS:4008ae89
KVM_SET_CPUID2:4008ae90
KVM_GET_MP_STATE:8004ae98
KVM_SET_MP_STATE:4004ae99
KVM_NMI:ae9a
KVM_GET_VCPU_EVENTS:8040ae9f
KVM_SET_VCPU_EVENTS:4040aea0
KVM_GET_DEBUGREGS:8080aea1
KVM_SET_DEBUGREGS:4080aea2
KVM_SMI:aeb7
KVM_GET_NESTED_STATE:c080aebe
KVM_SET_NESTED_STATE:4080aebf
KVM_GET_SREGS2:8140aecc
KVM_SET_SREGS2:4140aecd
KVM_CAP_USER_MEMORY:3
KVM_CAP_EXT_CPUID:7
KVM_CAP_USER_NMI:16
KVM_CAP_VCPU_EVENTS:29
KVM_CAP_DEBUGREGS:32
KVM_CAP_X86_SMM:75
KVM_CAP_MULTI_ADDRESS_SPACE:76
KVM_CAP_IMMEDIATE_EXIT:88
KVM_CAP_NESTED_STATE:9d
KVM_CAP_SREGS2:c8
`;
