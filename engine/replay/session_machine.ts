/**
 * The machine that a session describes.
 *
 * @module
 */
import { processorOfSession, vmrunRipOfSession } from "../processors/session.ts";
import { cpuidOfMeta } from "../svm/cpuid.ts";
import type { Capabilities } from "../svm/machine.ts";
import { PAGE_SIZE } from "../svm/memory.ts";
import { ReplayError } from "./replay_error.ts";

/** What a session says of its machine, where the trace says nothing. */
export const DEFAULTS: Capabilities = { physicalBits: 40, npt: true, memory: 16 << 20 };

/**
 * The machine a session describes.
 *
 * @param meta The session's metadata: `npt`, and `capabilities` with `physical_bits`, `cpuid` (see
 * {@linkcode cpuidOfMeta}), `host_cpuid`, `host_physical_bits`, `memory` (bytes) and `resident` (the address below
 * which all of it was touched beforehand).
 * @returns What it says; 40 address bits, nested paging and 16 MiB where it says nothing.
 * @example
 * ```ts
 * import { capabilitiesOf } from "@vmtape/vmtape/engine";
 * const caps = capabilitiesOf({ npt: 0, capabilities: { physical_bits: 48 } });
 * if (caps.npt || caps.physicalBits !== 48 || caps.memory !== 16 << 20) throw new Error();
 * ```
 */
export function capabilitiesOf(meta: Readonly<Record<string, unknown>> | undefined): Capabilities {
  const caps = meta?.["capabilities"];
  const given = (typeof caps === "object" && caps !== null ? caps : {}) as Record<string, unknown>;
  const number = (value: unknown, otherwise: number) =>
    typeof value === "number" ? value : otherwise;
  const npt = meta?.["npt"];
  const resident = given["resident"], host = given["host_physical_bits"];
  const cpuid = cpuidOfMeta(given["cpuid"]), offered = cpuidOfMeta(given["host_cpuid"]);
  return {
    physicalBits: cpuid?.physicalBits ?? number(given["physical_bits"], DEFAULTS.physicalBits),
    ...(cpuid === undefined ? {} : { cpuid }),
    ...(offered === undefined ? {} : { hostCpuid: offered }),
    ...(typeof host === "number" ? { hostPhysicalBits: host } : {}),
    memory: number(given["memory"], DEFAULTS.memory),
    npt: npt === undefined ? DEFAULTS.npt : npt === 1 || npt === true || npt === "on",
    processor: processorOfSession(meta),
    vmrunRip: vmrunRipOfSession(meta),
    ...(typeof resident === "number" ? { resident } : {}),
  };
}

/** Guest memory that is modelled at most, in bytes. */
const MOST_MEMORY = 2 ** 31;

/** Refuses a machine that a trace claims and that nothing here was made for. */
export function modelled(caps: Capabilities, event: number): Capabilities {
  const { physicalBits, memory } = caps;
  if (!Number.isInteger(physicalBits) || physicalBits < 32 || physicalBits > 52) {
    throw new ReplayError(
      `The session says ${physicalBits} physical address bits; replay models 32 to 52`,
      event,
    );
  }
  if (!(memory >= 0 && memory <= MOST_MEMORY)) {
    throw new ReplayError(
      `The session says ${memory} bytes of guest memory; replay models up to ${MOST_MEMORY}`,
      event,
    );
  }
  return { ...caps, memory: Math.ceil(memory / PAGE_SIZE) * PAGE_SIZE };
}
