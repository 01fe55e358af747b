/**
 * Deviations that are known: what a hunt counts and leaves out.
 *
 * @module
 */

/** What a known deviation is. */
export type KnownKind =
  /** A simplification that the kernel makes and says so. */
  | "documented"
  /** The emulated processor beneath. */
  | "emulator"
  /** The model of the kernel. */
  | "model"
  /** What `architectural` leaves open, or borrows from a kernel, where the manual says nothing. */
  | "open"
  /** Reported, or found by a hunt before: see docs/findings.md. */
  | "found";

/** One known deviation. */
export interface Known {
  /** Its name. */
  readonly id: string;
  /** What it is. */
  readonly kind: KnownKind;
  /** What its key is like; see {@linkcode Deviation.key} and {@linkcode ModelGap.key}. */
  readonly key: RegExp;
  /** The kernels that it is known of; all when left out. */
  readonly kernels?: readonly string[];
  /** Why it is so. */
  readonly reason: string;
  /** Where that is said, or what shows it. */
  readonly source: string;
}

/** The known deviations; the first that fits is meant. */
export const KNOWN: readonly Known[] = [];

/**
 * The known deviation that a key belongs to.
 *
 * @param key The key of a deviation or a gap.
 * @param kernel The kernel that was asked.
 * @param list The known ones.
 * @returns It; undefined when it is not known.
 */
export function knownOf(
  key: string,
  kernel: string,
  list: readonly Known[] = KNOWN,
): Known | undefined {
  return list.find((known) => known.key.test(key) && known.kernels?.includes(kernel) !== false);
}
