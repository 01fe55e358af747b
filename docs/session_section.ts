/**
 * What a session's metadata tells, as a section of the trace format's page.
 *
 * @module
 */
import { CPUID_REGISTERS, FEATURE_NAMES, FEATURES, LAB_CPUID } from "../engine/svm/cpuid.ts";
import { paragraph, table } from "./markdown.ts";

/** Keys of the metadata that a reader acts on, and of its map `capabilities`. */
const KEYS: readonly (readonly [key: string, type: string, meaning: string])[] = [
  ["`source`", "text", "Who recorded: `emulator`, `qemu`, `kvm`, `lab`, `kvm-tracepoints`"],
  ["`policy`, `kernel`", "text", "What handled the nested transitions"],
  ["`npt`", "0, 1", "Whether the hypervisor uses nested paging itself (kvm_amd.npt); 1 if absent"],
  ["`processor_model`", "text", "The model of the processor beneath; else `source` tells"],
  ["`processor`", "text", "The processor's brand string"],
  ["`vmrun_rip`", "number", "Bits 11:0 of the address of the hypervisor's VMRUN"],
  [
    "`transitions`",
    "boolean",
    "The trace shows single transitions, and nothing of what ran between",
  ],
  ["`capabilities`", "map", "What the machine can do:"],
  [
    "`capabilities.physical_bits`",
    "number",
    "Physical address bits of L1's CPUID; what `cpuid` says counts more",
  ],
  ["`capabilities.memory`", "number", "Bytes of guest memory"],
  ["`capabilities.resident`", "number", "The address below which all of it was touched beforehand"],
  ["`capabilities.cpuid`", "map, nil", "L1's CPUID, see below; nil: nothing of it is known"],
  [
    "`capabilities.host_cpuid`",
    "map",
    "What KVM could offer there (KVM_GET_SUPPORTED_CPUID); as `cpuid` if absent",
  ],
  [
    "`capabilities.host_physical_bits`",
    "number",
    "Physical address bits of the processor; L1's if absent",
  ],
];

/** Lines of the page's section on what a session says. */
export function sessionSection(): string[] {
  const [leaf, values] = Object.entries(LAB_CPUID.toMeta()).at(-1)!;
  return [
    "### What a session tells",
    "All keys may be absent; a reader ignores those that it does not know.",
    table(["Key", "Type", "Meaning"], KEYS.map((row) => [...row])),
    paragraph(
      "`cpuid` has a key for each leaf that is not all zero: the function in hexadecimal, with `.` " +
        "and the index where that is not 0. Its value is a list of four, " +
        `${CPUID_REGISTERS.map((name) => name.toUpperCase()).join(", ")}: a number; nil if ` +
        "unknown; or a list of two, value and mask of known bits. " +
        `Leaf \`${leaf}\` of the machine that most recordings were made on: ` +
        `\`${
          JSON.stringify(values)
        }\`. A trace of single transitions without \`cpuid\` leaves it ` +
        "unknown but for what every L1 has that runs VMRUN, and checks that depend on it are " +
        "answered so; any other trace without it has that machine's. These bits matter:",
    ),
    table(
      ["Name", "Leaf", "Register", "Bit", "What it offers"],
      FEATURE_NAMES.map((name) => {
        const { leaf, register, bit, doc } = FEATURES[name];
        return [`\`${name}\``, leaf, register.toUpperCase(), String(bit), doc];
      }),
    ),
  ];
}
