/**
 * Which modelled policy stands for what a session was recorded on.
 *
 * @module
 */
import { ARCHITECTURAL, POLICIES } from "./mod.ts";

/** A policy for a session. */
export interface SessionPolicy {
  /** Its name. */
  readonly name: string;
  /** Why it is that one, where the session names no policy; a clause for people. */
  readonly why?: string;
}

/** Names of policies in older recordings, and what each is called now. */
const FORMER_NAMES: Readonly<Record<string, string>> = { upstream: "linux-6.12" };

/** A version's place among others: of 6.12 more than of 6.1. */
type Version = readonly [major: number, minor: number];

function versionIn(text: string, pattern: RegExp): Version | undefined {
  const match = pattern.exec(text);
  return match === null ? undefined : [Number(match[1]), Number(match[2])];
}

function compare([a, b]: Version, [c, d]: Version): number {
  return a - c || b - d;
}

/** The modelled kernels, the oldest first. */
const MODELLED: readonly { readonly name: string; readonly version: Version }[] = Object
  .keys(POLICIES)
  .flatMap((name) => {
    const version = versionIn(name, /^linux-(\d+)\.(\d+)$/);
    return version === undefined ? [] : [{ name, version }];
  })
  .sort((a, b) => compare(a.version, b.version));

/** The newest modelled kernel that is no newer than a version; the oldest for older ones. */
function nearest(version: Version): string | undefined {
  const older = MODELLED.findLast((kernel) => compare(kernel.version, version) <= 0);
  return (older ?? MODELLED[0])?.name;
}

/**
 * The policy that stands for what a session was recorded on: the one it names; for a kernel of a
 * version, the newest modelled one that is no newer; for QEMU's processor, which carries out VMRUN
 * itself, what hardware does.
 *
 * @param meta The session's metadata.
 * @returns The policy; undefined where nothing in the session says so much.
 * @example
 * ```ts
 * import { policyOfSession } from "@vmtape/vmtape/engine";
 * const debian = policyOfSession({ source: "kvm", kernel: "6.1.0-57-cloud-amd64" });
 * if (debian?.name !== "linux-6.1" || debian.why === undefined) throw new Error();
 * if (policyOfSession({ kernel: "unified" })?.why !== undefined) throw new Error();
 * if (policyOfSession({ source: "kvm-tracepoints" }) !== undefined) throw new Error();
 * ```
 */
export function policyOfSession(
  meta: Readonly<Record<string, unknown>> | undefined,
): SessionPolicy | undefined {
  const { policy, kernel, source } = meta ?? {};
  const said = policy ?? kernel;
  if (typeof said === "string") {
    const name = FORMER_NAMES[said] ?? said;
    if (typeof policy === "string" || Object.hasOwn(POLICIES, name)) return { name };
  }
  if (source === "qemu") {
    const why = "QEMU's processor carried out VMRUN itself, so it is what hardware does";
    return { name: ARCHITECTURAL.name, why };
  }
  if (typeof kernel !== "string") return undefined;
  const version = versionIn(kernel, /^(?:[Ll]inux[ -])?v?(\d+)\.(\d+)/);
  const name = version && nearest(version);
  if (name === undefined) return undefined;
  return { name, why: `it is the nearest that is modelled to the recorded kernel, ${kernel}` };
}
