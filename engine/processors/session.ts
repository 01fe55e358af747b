/**
 * Which processor a session was recorded on.
 *
 * @module
 */
import { AMD } from "./amd.ts";
import type { ProcessorModel } from "./model.ts";
import { PROCESSORS } from "./mod.ts";
import { QEMU_11_1 } from "./qemu_11_1.ts";
import { QEMU_7_2 } from "./qemu_7_2.ts";

/** Sources of sessions that, where they do not say so, ran on QEMU 7.2's processor. */
const ON_QEMU: ReadonlySet<unknown> = new Set(["lab", "emulator", "qemu"]);

/**
 * The processor that a session was recorded on, as far as one is modelled.
 *
 * @param meta The session's metadata: `processor_model` names it; other recordings tell by their
 * `source`, those of QEMU by its version in `qemu`, and those of /dev/kvm by the brand string in
 * `processor`.
 * @returns The processor; the manual's where nothing says otherwise.
 * @example
 * ```ts
 * import { AMD, processorOfSession, QEMU_11_1, QEMU_7_2 } from "@vmtape/vmtape/engine";
 * if (processorOfSession({ source: "lab" }) !== QEMU_7_2) throw new Error();
 * if (processorOfSession({ source: "qemu", qemu: "10.0.2" }) !== QEMU_11_1) throw new Error();
 * if (processorOfSession({ source: "kvm", processor: "AMD EPYC 7401P" }) !== AMD) throw new Error();
 * ```
 */
export function processorOfSession(
  meta: Readonly<Record<string, unknown>> | undefined,
): ProcessorModel {
  const { processor_model: model, source, processor: brand, qemu } = meta ?? {};
  if (typeof model === "string" && Object.hasOwn(PROCESSORS, model)) return PROCESSORS[model]!;
  const emulated = typeof brand === "string" && brand.includes("QEMU TCG");
  return ON_QEMU.has(source) || emulated ? nearestQemu(qemu) : AMD;
}

/** The modelled QEMU whose version is the nearest to the one that a session names. */
function nearestQemu(version: unknown): ProcessorModel {
  const major = typeof version === "string" ? /\d+/.exec(version)?.[0] : undefined;
  return major !== undefined && Number(major) > (7 + 11) / 2 ? QEMU_11_1 : QEMU_7_2;
}

/** Bits 11:0 of the address of VMRUN in the kernels that the lab's recordings were made with. */
const LAB_VMRUN: Readonly<Record<string, number>> = {
  "early-exit": 0xa8c,
  "unified": 0xb4c,
  "linux-6.1": 0x0b8,
  "linux-6.12": 0xacc,
  "linux-7.3": 0x2d8,
  "upstream": 0xacc,
};

/**
 * Where the VMRUN of a session's hypervisor lies within its page, which some processors let a guest see.
 *
 * @param meta The session's metadata: `vmrun_rip` says it; of the lab's kernels it is known.
 * @returns Bits 11:0 of its address; 0 where nothing is known.
 * @example
 * ```ts
 * import { vmrunRipOfSession } from "@vmtape/vmtape/engine";
 * if (vmrunRipOfSession({ source: "lab", kernel: "unified" }) !== 0xb4c) throw new Error();
 * ```
 */
export function vmrunRipOfSession(meta: Readonly<Record<string, unknown>> | undefined): number {
  const { vmrun_rip: given, source, kernel, policy } = meta ?? {};
  if (typeof given === "number" && Number.isInteger(given)) return given & 0xfff;
  if (source !== "lab" && source !== "emulator") return 0;
  return LAB_VMRUN[String(policy ?? kernel)] ?? 0;
}
