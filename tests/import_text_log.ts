/**
 * Logs in text for the tests of importing, and what is asked of an import.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import { importTracepoints } from "@vmtape/vmtape/codecs";
import { CONTROL_FIELDS, SAVE_AREA, SAVE_FIELDS, type TraceEvent } from "@vmtape/vmtape/engine";

/** Text as a log's bytes. */
export const encoder = new TextEncoder();

/** The texts of some records: what the kernel prints, and what libtraceevent's plugin makes of it. */
export const TEXTS: readonly (readonly [name: string, kernel: string, plugin?: string])[] = [
  [
    "kvm_nested_vmenter",
    "rip: 0x0000000000400863 vmcb: 0x000000000799a000 nested_rip: 0x00000000004001c8 " +
    "int_ctl: 0x01000001 event_inj: 0x80000036 nested_npt=y nested_cr3: 0x0000000001074000",
  ],
  [
    "kvm_nested_intercepts",
    "cr_read: 0018 cr_write: 0001 excp: 00060042 intercepts: bc4c8027 00006e7f 00000001",
  ],
  [
    "kvm_nested_vmexit",
    "vcpu 2 reason DB excp rip 0x4001c8 info1 0x0000000200000006 info2 0xffffffffffffffff " +
    "intr_info 0x80000b0e error_code 0x00000001",
    "<CANT FIND FIELD rip>vcpu 2 reason DB excp rip 0x4001c8 info1 0x0000000200000006 " +
    "info2 0xffffffffffffffff intr_info 0x80000b0e error_code 0x00000001",
  ],
  ["kvm_nested_intr_vmexit", "rip: 0x00000000004001d0"],
  [
    "kvm_nested_vmexit_inject",
    "reason: hypercall ext_inf1: 0x0000000000000001 ext_inf2: 0x0000000000000002 " +
    "ext_int: 0x80000003 ext_int_err: 0x00000004",
    "reason EXIT_VMMCALL info1 1 info2 2 int_info 80000003 int_info_err 4",
  ],
  ["kvm_nested_vmenter_failed", "(save->cr0 & X86_CR0_CD) == 0 && (save->cr0 & X86_CR0_NW)"],
  [
    "kvm_nested_vmenter",
    "rip: 0x0000000000400863 vmcb: 0x000000000799b000 nested_rip: 0x00000000004001c8 " +
    "int_ctl: 0x00000000 event_inj: 0x00000000 nested_npt=n guest_cr3: 0x0000000000001000",
  ],
  [
    "kvm_nested_vmexit_inject",
    "reason: 0xffffffff ext_inf1: 0x0000000000000000 ext_inf2: 0x0000000000000000 " +
    "ext_int: 0x00000000 ext_int_err: 0x00000000",
    "reason EXIT_ERR info1 0 info2 0 int_info 0 int_info_err 0",
  ],
];

const stamp = (i: number) => `5161.${String(124512 + i * 7)}`;

/** A log of those records, as each program prints it for a task. */
export const DIALECTS: Readonly<Record<string, (task: string, pid: number) => string>> = {
  ftrace: (task, pid) =>
    "# tracer: nop\n#\n# entries-in-buffer/entries-written: 8/8   #P:4\n#\n" +
    TEXTS.map(([name, text], i) =>
      `${task.padStart(16)}-${pid}      [002] d..1.  ${stamp(i)}: ${name}: ${text}\n`
    ).join(""),
  "ftrace with thread groups": (task, pid) =>
    TEXTS.map(([name, text], i) =>
      `${task.padStart(16)}-${pid}   (   3412) [002] .N...  ${stamp(i)}: ${name}: ${text}\n`
    ).join(""),
  "trace-cmd": (task, pid) =>
    "cpus=4\n" +
    TEXTS.map(([name, text, plugin], i) =>
      ` ${task}-${pid}  [002]  ${stamp(i)}: ${(name + ":").padEnd(21)} ${plugin ?? text}\n`
    ).join(""),
  "trace-cmd with latency": (task, pid) =>
    "cpus=4\n" +
    TEXTS.map(([name, text, plugin], i) =>
      `${task}-${pid}  [002] d..1  ${stamp(i)}: ${(name + ":").padEnd(21)} ${plugin ?? text}\n`
    ).join(""),
  perf: (task, pid) =>
    "# ========\n# captured on    : Mon Nov 24 2025\n#\n" +
    TEXTS.map(([name, text, plugin], i) =>
      `${task.padStart(16)} ${pid} [002]  ${stamp(i)}: ${`kvm:${name}`.padStart(28)}: ${
        plugin ?? text
      }\n`
    ).join(""),
  "perf with processes and periods": (task, pid) =>
    TEXTS.map(([name, text], i) =>
      `${task.padStart(16)}  3412/${pid}  [002]  ${stamp(i)}:          1 kvm:${name}: ${text}\n`
    ).join(""),
};

/** The events of a log, and the counts. */
export async function imported(text: string | Uint8Array) {
  const log = importTracepoints(typeof text === "string" ? encoder.encode(text) : text);
  return { events: (await Array.fromAsync(log)).flat(), stats: log.stats };
}

/** Known bytes of an event's vmcb12, by field. */
export function seen(event: TraceEvent | undefined): Record<string, bigint> {
  assert(event?.kind === "vmrun" || event?.kind === "exit");
  const { bytes, known } = event.vmcb12!;
  const rows = [
    ...CONTROL_FIELDS,
    ...SAVE_FIELDS.map((field) => ({ ...field, offset: field.offset + SAVE_AREA })),
  ];
  const out: Record<string, bigint> = {};
  let count = 0;
  for (const { name, offset, size } of rows) {
    if (!known!.subarray(offset, offset + size).some((mask) => mask !== 0)) continue;
    let value = 0n;
    for (let i = size; i-- > 0;) value = value << 8n | BigInt(bytes[offset + i]!);
    out[name] = value;
    count += known!.subarray(offset, offset + size).filter((mask) => mask !== 0).length;
  }
  assertEquals(count, known!.filter((mask) => mask !== 0).length, "known bytes outside of fields");
  return out;
}
