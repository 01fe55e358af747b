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
