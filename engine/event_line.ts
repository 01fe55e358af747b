/**
 * An event in the words of the field: what happened, with exit codes, checks and bits by name.
 *
 * @module
 */
import type { EventOf, Image, TraceEvent } from "./event.ts";
import { fieldMask, fieldNamed, fits, readField } from "./image/fields.ts";
import { formatValue } from "./image/format.ts";
import type { Layout } from "./layout.ts";
import { exitCodeName, shortExitName } from "./svm/exit_codes.ts";
import { describeExitInfo } from "./svm/exit_info.ts";
import { INNER_LAYOUT } from "./svm/inner_layout.ts";
import { REGS_LAYOUT } from "./svm/regs_layout.ts";
import { VMCB_LAYOUT } from "./svm/vmcb_fields.ts";

const KVM_EXITS: Readonly<Record<number, string>> = {
  0: "unknown",
  2: "port I/O",
  4: "debug",
  5: "HLT",
  6: "MMIO",
  8: "shutdown",
  9: "entry failed",
  10: "interrupted",
  17: "internal error",
};

/** The words of the session's metadata that a line shows, in order. */
const SESSION = ["policy", "kernel", "processor_model", "processor", "npt", "qemu"] as const;

function hex(value: bigint | number): string {
  return `0x${value.toString(16)}`;
}

/**
 * An exit code without the prefix that all have in common, and what its information says; an
 * emulator's 32-bit -1 by its name too.
 */
function exitText(code: bigint, info1 = 0n, info2 = 0n): string {
  const name = code === 0xffff_ffffn
    ? "VMEXIT_INVALID (32 bits)"
    : shortExitName(exitCodeName(code));
  return name + describeExitInfo(code, info1, info2);
}

/** A field's value as text; undefined when the image lacks it, or is of another version's size. */
function value(layout: Layout, image: Image | undefined, name: string): string | undefined {
  if (image === undefined || !fits(layout, image)) return undefined;
  const row = fieldNamed(layout, name);
  const seen = readField(image, row);
  return seen.known === 0n ? undefined : formatValue(row, seen);
}

function number(layout: Layout, image: Image | undefined, name: string): bigint | undefined {
  if (image === undefined || !fits(layout, image)) return undefined;
  const row = fieldNamed(layout, name);
  const seen = readField(image, row);
  return seen.known === fieldMask(row) ? seen.value : undefined;
}

/** `label value` for what there is. */
function pairs(...items: readonly (readonly [string, string | undefined])[]): string[] {
  return items.flatMap(([label, text]) => text === undefined ? [] : [`${label} ${text}`]);
}

/** Fields that are only worth their place when they are not zero. */
function unlessZero(text: string | undefined): string | undefined {
  return text === "0x0" ? undefined : text;
}

function exitOf(image: Image | undefined): string[] {
  const low = number(VMCB_LAYOUT, image, "control.exit_code");
  const high = number(VMCB_LAYOUT, image, "control.exit_code_hi");
  const code = low === undefined ? undefined : (high ?? 0n) << 32n | low;
  const text = (name: string) => unlessZero(value(VMCB_LAYOUT, image, `control.${name}`));
  const info = (word: 1 | 2) => number(VMCB_LAYOUT, image, `control.exit_info_${word}`);
  return [
    ...(code === undefined ? [] : [
      high === undefined && low === 0xffff_ffffn
        ? "VMEXIT_INVALID"
        : exitText(code, info(1), info(2)),
    ]),
    ...pairs(
      ["EXITINTINFO", text("exit_int_info")],
      ["EVENTINJ", text("event_inj")],
    ),
  ];
}

/** What L2 is entered with. */
function entryText({ vmcb12_gpa, vmcb12 }: EventOf<"vmrun"> | EventOf<"rsm">): string[] {
  const text = (name: string) => value(VMCB_LAYOUT, vmcb12, name);
  return pairs(
    ["vmcb12", vmcb12_gpa === undefined ? undefined : hex(vmcb12_gpa)],
    ["L2 rip", text("save.rip")],
    ["ASID", text("control.asid")],
    ["nCR3", unlessZero(text("control.nested_cr3"))],
    ["EVENTINJ", unlessZero(text("control.event_inj"))],
  );
}

function vmrunText(event: EventOf<"vmrun">): string[] {
  const { rip } = event;
  const next = pairs(["next rip", rip === undefined ? undefined : hex(rip)]);
  return ["VMRUN", ...next, ...entryText(event)];
}

function rsmText(event: EventOf<"rsm">): string[] {
  const entry = entryText(event);
  return entry.length === 0 ? [] : ["into L2", ...entry];
}

function l2exitText(event: EventOf<"l2exit">): string[] {
  const { exit_code, exit_info_1, exit_info_2, exit_int_info, exit_int_info_err, regs } = event;
  const some = (value: bigint | number | undefined) => value ? hex(value) : undefined;
  return [
    "L2 exit",
    ...(exit_code === undefined ? [] : [exitText(exit_code, exit_info_1, exit_info_2)]),
    ...pairs(
      ["rip", value(REGS_LAYOUT, regs, "rip")],
      ["EXITINTINFO", some(exit_int_info)],
      ["error", some(exit_int_info_err)],
    ),
  ];
}

function regsText(event: EventOf<"regs">): string[] {
  const { phase, rc, errno, exit, port, regs, vmcb12 } = event;
  const ran = rc === undefined
    ? []
    : rc !== 0
    ? [`KVM_RUN failed with errno ${errno ?? "?"}`]
    : [`KVM_RUN left for ${KVM_EXITS[exit ?? -1] ?? `exit ${exit}`}`];
  const text = (name: string) => value(REGS_LAYOUT, regs, name);
  return [
    ...(phase === undefined ? [] : [phase]),
    ...ran,
    ...(exit === 2 && port !== undefined ? [`port ${hex(port)}`] : []),
    ...pairs(
      ["rip", text("rip")],
      ["rax", text("rax")],
      ["GIF", text("gif")?.replace(/^0x/, "")],
      ["guest mode", text("guest_mode")?.replace(/^0x/, "")],
    ),
    ...(phase === "post" && vmcb12 !== undefined ? ["vmcb12", ...exitOf(vmcb12)] : []),
  ];
}

function innerText({ at, inner }: EventOf<"inner">): string[] {
  const text = (name: string) => value(INNER_LAYOUT, inner, name)?.replace(/^0x/, "");
  return [
    ...(at === undefined ? [] : [`${at} returned`]),
    ...pairs(
      ["ret", text("ret")],
      ["active", text("active")],
      ["GIF", text("gif")],
      ["guest mode", text("guest_mode")],
      ["run pending", text("run_pending")],
      ["MMU", text("mmu")],
      ["msrpm01", text("msrpm01")],
    ),
  ];
}

function sessionText({ meta = {} }: EventOf<"session">): string[] {
  const said = SESSION.flatMap((key) => {
    const value = meta[key];
    return value === undefined || typeof value === "object" ? [] : [`${key} ${value}`];
  });
  return [String(meta["source"] ?? "session"), ...said];
}

function words(event: TraceEvent): string[] {
  switch (event.kind) {
    case "session":
      return sessionText(event);
    case "case":
      return [event.name ?? "", ...(event.spec ? [event.spec] : [])];
    case "memory":
      return event.gpa === undefined ? [] : [hex(event.gpa)];
    case "regs":
      return regsText(event);
    case "inject":
      return [
        event.what ?? "",
        ...pairs(["vector", event.vector && hex(event.vector) || undefined]),
      ];
    case "vmrun":
      return vmrunText(event);
    case "rsm":
      return rsmText(event);
    case "check":
      return [event.check ?? "unknown check", `failed: ${event.text ?? event.check ?? ""}`];
    case "switch":
      return [`to vmcb0${event.to ?? "?"}`];
    case "l2exit":
      return l2exitText(event);
    case "exit":
      return ["#VMEXIT", ...exitOf(event.vmcb12)];
    case "setstate":
      return [
        "KVM_SET_NESTED_STATE",
        event.errno === undefined
          ? ""
          : event.errno === 0
          ? "done"
          : `refused, errno ${event.errno}`,
        ...pairs(
          ["flags", event.flags === undefined ? undefined : hex(event.flags)],
          ["vmcb12", event.vmcb_pa === undefined ? undefined : hex(event.vmcb_pa)],
        ),
      ];
    case "inner":
      return innerText(event);
    case "warn":
      return [`assertion did not hold: ${event.text ?? ""}`];
    case "tracepoint":
      return [`${event.name ?? ""}:`, event.text ?? ""];
    case "lost":
      return [
        event.count === undefined ? "events were dropped" : `${event.count} events were dropped`,
      ];
    case "unmodelled":
      return [`not modelled: ${event.what ?? ""}`];
    default:
      return [];
  }
}

/**
 * What an event says, for people.
 *
 * @param event The event.
 * @returns Its words in one line, without its number, time, vCPU and kind.
 * @example
 * ```ts
 * import { eventLine } from "@vmtape/vmtape/engine";
 * const line = eventLine({ kind: "l2exit", vcpu: 0, exit_code: 0x400n, exit_info_1: 4n });
 * if (!line.startsWith("L2 exit NPF info1 0x4 [US]")) throw new Error(line);
 * ```
 */
export function eventLine(event: TraceEvent): string {
  return words(event).filter((word) => word !== "").join(" ");
}
