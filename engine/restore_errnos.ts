/**
 * What the ioctls that restore a vCPU said.
 *
 * @module
 */

/** The fields of a `restore` event that hold an errno, in the order of the ioctls; the lab's keys too. */
export const RESTORE_ERRNO_KEYS = [
  "sregs_errno",
  "errno",
  "regs_errno",
  "events_errno",
  "debugregs_errno",
] as const;
