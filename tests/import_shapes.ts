/**
 * Shapes in which people paste KVM's tracepoints, each made of the same records.
 *
 * @module
 */
/** One record of every kind that a VMRUN with its #VMEXIT leaves, as kernels since 6.0 print it. */
export const RECORDS: readonly (readonly [name: string, text: string])[] = [
  [
    "kvm_nested_vmenter",
    "rip: 0x000000007ff00280 vmcb: 0x0000000008224000 nested_rip: 0xffffffffffbb0119 " +
    "int_ctl: 0x01020000 event_inj: 0x80000036 nested_npt=y nested_cr3: 0x0000000001074000",
  ],
  [
    "kvm_nested_intercepts",
    "cr_read: 0018 cr_write: 0001 excp: 00060042 intercepts: bc4c8027 00006e7f 00000001",
  ],
  [
    "kvm_nested_vmexit",
    "vcpu 0 reason npf rip 0xffffffffffbb0119 info1 0x0000000200000006 " +
    "info2 0x00000000001ab000 intr_info 0x00000000 error_code 0x00000000",
  ],
  [
    "kvm_nested_vmexit_inject",
    "reason: npf ext_inf1: 0x0000000200000006 ext_inf2: 0x00000000001ab000 " +
    "ext_int: 0x00000000 ext_int_err: 0x00000000",
  ],
  ["kvm_nested_vmenter_failed", "(save->cr0 & X86_CR0_CD) == 0 && (save->cr0 & X86_CR0_NW)"],
];

/** A shape: what prints it, and how it looks. */
export interface Shape {
  /** What it is, as the table in the documentation says it. */
  readonly name: string;
  /** Text of the records. */
  readonly text: string;
  /** Whether its records have times. */
  readonly timed: boolean;
  /** Whether they have a thread. */
  readonly thread: boolean;
}

const stamp = (i: number) => `398.6914${String(10 + 3 * i)}`;
const usual = (i: number, name: string, text: string) =>
  ` qemu-system-x86-4321    [005] d..1.   ${stamp(i)}: ${name}: ${text}`;

function each(line: (i: number, name: string, text: string) => string): string {
  return RECORDS.map(([name, text], i) => line(i, name, text) + "\n").join("");
}

/** Breaks lines as mail does: at blanks, before a width. */
export function wrapped(text: string, width: number, indent: string): string {
  return text.split("\n").map((line) => {
    const lines: string[] = [];
    let left = line;
    while (left.length > width) {
      const at = left.lastIndexOf(" ", width);
      if (at <= 0 || left.slice(0, at).trim() === "") break;
      lines.push(left.slice(0, at).trimEnd());
      left = indent + left.slice(at + 1).trimStart();
    }
    return [...lines, left].join("\n");
  }).join("\n");
}

/** The same records, field by field. */
const FIELDS: readonly string[] = [
  "rip=0x000000007ff00280 vmcb=0x0000000008224000 nested_rip=0xffffffffffbb0119 " +
  "int_ctl=0x01020000 event_inj=0x80000036 tdp_enabled=1 guest_pgd=0x0000000001074000 isa=2",
  "cr_read=0018 cr_write=0001 exceptions=00060042 intercept1=bc4c8027 intercept2=00006e7f " +
  "intercept3=00000001",
  "exit_reason=1024 guest_rip=0xffffffffffbb0119 isa=2 info1=0x0000000200000006 " +
  "info2=0x00000000001ab000 intr_info=0x00000000 error_code=0x00000000 vcpu_id=0",
  "exit_code=1024 exit_info1=0x0000000200000006 exit_info2=0x00000000001ab000 " +
  "exit_int_info=0x00000000 exit_int_info_err=0x00000000 isa=2",
  "msg=(save->cr0 & X86_CR0_CD) == 0 && (save->cr0 & X86_CR0_NW) err=0",
];

/** The same lines as mail sends them that may only hold short lines of ASCII (quoted-printable). */
function encoded(text: string): string {
  return text.replaceAll("=", "=3D").split("\n").map((line) =>
    line.match(/.{1,75}/g)?.join("=\n").replace(/=\n3D|=3=\nD/g, "=3D\n") ?? ""
  ).join("\n");
}

const latency = (i: number, name: string, text: string) =>
  `qemu-sys-4321    5d..1. ${398691410 + 3 * i}us : ${name}: ${text}`;
const dmesg = (i: number, name: string, text: string) => `[  ${stamp(i)}] ${name}: ${text}`;
const at = "Nov 24 12:34:56";

/** All shapes; the first is what tracefs prints. */
export const SHAPES: readonly Shape[] = [
  ["tracefs `trace`", each(usual)],
  [
    "`trace-cmd report`",
    "cpus=8\n" +
    each((i, name, text) =>
      ` CPU 0/KVM-4321  [005]   ${stamp(i)}: ${`${name}:`.padEnd(22)} ${text}`
    ),
  ],
  [
    "`trace-cmd report -l`",
    each((i, name, text) => `qemu-sys-4321    5d..1   ${stamp(i)}: ${name}: ${text}`),
  ],
  [
    "`trace-cmd report --ts-diff`",
    each((i, name, text) =>
      ` qemu-system-x86-4321  [005]   ${stamp(i)}: ${(i ? "(+3)" : "").padEnd(8)} ${name}: ${text}`
    ),
  ],
  [
    "`trace-cmd report -R`",
    FIELDS.map((text, i) =>
      ` CPU 0/KVM-4321  [005]   ${stamp(i)}: ${`${RECORDS[i]![0]}:`.padEnd(22)}  ${text}\n`
    ).join(""),
  ],
  [
    "`perf script`",
    each((i, name, text) =>
      `       CPU 0/KVM  4300/4321  [005]   ${stamp(i)}: kvm:${name}: ${text}`
    ),
  ],
  [
    "`perf script -F tid,cpu,time,event,trace`",
    each((i, name, text) => `4321 [005]   ${stamp(i)}: kvm:${name}: ${text}`),
  ],
  ["tracefs with `latency-format`", "# tracer: nop\n#\n" + each(latency)],
  [
    "function_graph between",
    "# tracer: function_graph\n#\n# CPU  DURATION            FUNCTION CALLS\n" +
    " 5)   0.320 us    |  vmcb_is_dirty();\n" +
    each((_, name, text) => ` 5)               |  /* ${name}: ${text} */`),
    "no time, no thread",
  ],
  [
    "function_graph with `funcgraph-abstime` and `funcgraph-proc`",
    each((i, name, text) =>
      ` ${stamp(i)} |   5)  qemu-sy-4321   |               |  /* ${name}: ${text} */`
    ),
  ],
  [
    "function_graph without CPUs and durations",
    each((_, name, text) => `  /* ${name}: ${text} */`),
    "no time, no thread",
  ],
  ["times cut out", each(usual).replace(/\d+\.\d{6}: /g, ""), "no time"],
  ["numbered by `cat -n`", each((i, name, text) => `     ${i + 1}\t${usual(i, name, text)}`)],
  [
    "an oops's `ftrace_dump`",
    "[  400.1] Dumping ftrace buffer:\n" +
    each((i, name, text) => `[  400.123456] ${latency(i, name, text)}`),
  ],
  ["`tp_printk`, by dmesg", each(dmesg), "no thread"],
  [
    "`tp_printk` with the caller",
    each((i, name, text) => `[  ${stamp(i)}][ T4321] ${name}: ${text}`),
  ],
  [
    "`tp_printk`, by /dev/kmsg",
    each((i, name, text) => `6,${100 + i},${398691410 + 3 * i},-;${name}: ${text}`),
    "no thread",
  ],
  [
    "`tp_printk`, by syslog",
    each((i, name, text) => `${at} host kernel: ${dmesg(i, name, text)}`),
    "no thread",
  ],
  [
    "`tp_printk`, by the journal",
    each((_, name, text) => `${at} host kernel: ${name}: ${text}`),
    "no time, no thread",
  ],
  [
    "`tp_printk`, by `dmesg -T`",
    each((_, name, text) => `[Mon Nov 24 12:34:56 2025] ${name}: ${text}`),
    "no time, no thread",
  ],
  [
    "without anything before the names",
    each((_, name, text) => `${name}:     ${text}`),
    "no time, no thread",
  ],
  [
    "colours of grep, in one line",
    each(usual).replace(/kvm_nested_vmexit\b/, "\x1b[01;31m\x1b[K$&\x1b[m\x1b[K"),
  ],
  ["colours of grep, in all", each(usual).replace(/kvm_\w+/g, "\x1b[01;31m\x1b[K$&\x1b[m\x1b[K")],
  ["the same, as less shows it", each(usual).replace(/kvm_\w+/g, "ESC[01;31mESC[K$&ESC[mESC[K")],
  ["the same, copied from a terminal", each(usual).replace(/kvm_\w+/g, "[01;31m[K$&[m[K")],
  ["`grep -n`", each((i, name, text) => `${17 + i}:${usual(i, name, text)}`)],
  ["broken by mail at 72 columns", wrapped(each(usual), 72, "")],
  ["broken by mail, indented", wrapped(each(usual), 76, "    ")],
  ["quoted in a mail", each(usual).replace(/^/gm, "> > ")],
  ["broken by mail, then quoted", wrapped(each(usual), 72, "").replace(/^/gm, "> ")],
  [
    "without anything before the names, broken and quoted",
    wrapped(each((_, name, text) => `${name}: ${text}`), 68, "      ").replace(/^/gm, "> >   "),
    "no time, no thread",
  ],
  ["mail as it is sent (quoted-printable)", encoded(each(usual))],
  [
    "line ends of Windows, tabs and hard spaces",
    each(usual).replaceAll("\n", "\r\n").replaceAll(" rip", "\trip").replaceAll(
      " vcpu",
      "\u00a0vcpu",
    ),
  ],
].map(([name, text, lacks = ""]) => ({
  name: name!,
  text: text!,
  timed: !lacks.includes("time"),
  thread: !lacks.includes("thread"),
}));

const head = " qemu-system-x86-4321    [005] d..1.   398.691401:";
const EXIT = "info1 0x0000000000000000 info2 0x0000000000000000 intr_info 0x00000000 " +
  "error_code 0x00000000";

/** Logs of other content, for the table in the documentation. */
export const KINDS: readonly (readonly [name: string, text: string])[] = [
  [
    "kernels before 5.10: `intercept:`, one number",
    `${head} kvm_nested_vmrun: rip: 0x000000007ff00280 vmcb: 0x0000000008224000 ` +
    "nrip: 0xffffffffffbb0119 int_ctl: 0x01020000 event_inj: 0x00000000 npt: on\n" +
    `${head} kvm_nested_intercepts: cr_read: 0000 cr_write: 0010 excp: 40060002 ` +
    "intercept: 0000217ffd44bfeb\n",
  ],
  [
    "`[immediate exit]` after a number",
    `${head} kvm_entry: vcpu 0, rip 0x7ff00280 intr_info 0x80000036 error_code 0x00000000` +
    "[immediate exit]\n",
  ],
  [
    "RSM into L2, and an emulated instruction",
    `${head} kvm_exit: vcpu 0 reason rsm rip 0x7ff00280 ${EXIT}\n` +
    `${head} kvm_emulate_insn: 0:7ff00280: 0f aa\n` +
    `${head} kvm_smm_transition: vcpu 0: leaving SMM, smbase 0x7ff03000\n` +
    `${head} ${RECORDS[0]!.join(": ")}\n`,
  ],
  [
    "VMX",
    `${head} kvm_nested_vmexit: vcpu 3 reason EPT_VIOLATION rip 0x103c00 ${EXIT}\n` +
    `${head} kvm_nested_vmenter_failed: !nested_host_cr0_valid(vcpu, vmcs12->host_cr0)\n`,
  ],
  [
    "a number that is cut off, and one with more digits than fit",
    `${head} ${RECORDS[3]!.join(": ").slice(0, -2)}\n` +
    " qemu-7 [000] 99999999999999999999999.648900: kvm_nested_vmenter_failed: control->asid == 0\n",
  ],
  ["lost records", `${usual(0, ...RECORDS[4]!)}\nCPU:5 [LOST 12 EVENTS]\n`],
];
