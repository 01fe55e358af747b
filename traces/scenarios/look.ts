/**
 * What userspace sees of a machine at one point of a scenario, as an event.
 *
 * @module
 */
import type { EventOf, Image } from "../../engine/event.ts";
import { VMCB_SIZE } from "../../engine/svm/vmcb_fields.ts";
import { type LookPhase, SHOWN_PAGES, type ShownPage, type VmRun } from "./vm.ts";

/** KVM_EXIT_IO. */
const EXIT_IO = 2;
/** Bytes of the SMRAM state save area. */
const SMRAM_SIZE = 512;

/** What was seen. */
export interface Seen {
  /** Registers and flags, of layout `regs`. */
  readonly regs: Image;
  /** What KVM_RUN came back with before, where that is told. */
  readonly run: VmRun | undefined;
  /** KVM_EXIT_* reason. */
  readonly exit: number;
  /** Port of a KVM_EXIT_IO. */
  readonly port: number;
  /** Reads a page of guest memory. */
  readonly page: (gpa: number) => Uint8Array;
}

type Draft = { -readonly [K in keyof EventOf<"regs">]: EventOf<"regs">[K] };

/**
 * The event that tells of it.
 *
 * @param phase The point of the scenario.
 * @param pages Pages that are shown.
 * @param seen What was seen.
 * @returns The event, with the fields that the lab's program prints at that point.
 */
export function lookEvent(
  phase: LookPhase,
  pages: readonly ShownPage[],
  { regs, run, exit, port, page }: Seen,
): EventOf<"regs"> {
  // Field by field: this is done for each run, and spreading costs more than all else here.
  const event: Draft = { kind: "regs", vcpu: 0, phase };
  if (run !== undefined) {
    const end = phase === "post";
    event.rc = run.rc;
    event.exit = exit;
    if (end) event.errno = run.errno;
    // Where L2 was to stop and did not, port 0 is told, but not at the end.
    if (!end || exit === EXIT_IO) event.port = exit === EXIT_IO ? port : 0;
  }
  event.regs = regs;
  for (const name of pages) {
    const gpa = SHOWN_PAGES[name];
    const from = gpa % VMCB_SIZE;
    const bytes = page(gpa - from);
    event[name] = { bytes: name === "smram" ? bytes.slice(from, from + SMRAM_SIZE) : bytes };
  }
  return event;
}
