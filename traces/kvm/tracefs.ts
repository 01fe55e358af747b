/**
 * KVM's tracepoints of one thread, through a trace instance of our own: its
 * buffer, its filters and its switches are no one else's.
 *
 * @module
 */
import type { LabEvent } from "../../codecs/lab/record.ts";
import { FtraceText } from "../../codecs/tracepoints/ftrace_text.ts";
import { emptyTracepointStats } from "../../codecs/tracepoints/stats.ts";
import { type Libc, OPEN } from "./libc.ts";

/** Where tracefs is mounted: since Linux 4.1, and before. */
const MOUNTS = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"] as const;

/** Tracepoints that are switched on; those a kernel does not have are left out. */
const NAMES: readonly string[] = [
  "kvm_nested_vmenter",
  "kvm_nested_vmrun",
  "kvm_nested_intercepts",
  "kvm_nested_vmexit",
  "kvm_nested_vmexit_inject",
  "kvm_nested_vmenter_failed",
  "kvm_nested_intr_vmexit",
  "kvm_inj_exception",
  "kvm_inj_virq",
];

/** Most events that one run gives: an L2 that faults for ever gives as many as it has time for. */
const MOST = 120;
/** Size of the buffer, in KiB. */
const BUFFER_KIB = 1024;

/** What of the C library a trace needs. */
export type TraceLibc = Pick<
  Libc,
  "thread" | "mkdir" | "rmdir" | "writeText" | "open" | "read" | "close"
>;

/** What of a kernel's thread is traced. */
export class OwnTrace implements Disposable {
  readonly #libc: TraceLibc;
  readonly #folder: string;
  readonly #pipe: number;
  readonly #chunk = new Uint8Array(1 << 16);

  private constructor(libc: TraceLibc, folder: string, pipe: number) {
    this.#libc = libc;
    this.#folder = folder;
    this.#pipe = pipe;
  }

  /**
   * Begins to trace this thread.
   *
   * @param libc The C library.
   * @returns The trace; undefined where tracefs is not there or not to be used.
   */
  static open(libc: TraceLibc): OwnTrace | undefined {
    for (const mount of MOUNTS) {
      const folder = `${mount}/instances/vmtape-${libc.thread}`;
      if (!libc.mkdir(folder)) continue;
      const own = OwnTrace.#begin(libc, folder);
      if (own !== undefined) return own;
      libc.rmdir(folder);
    }
    return undefined;
  }

  static #begin(libc: TraceLibc, folder: string): OwnTrace | undefined {
    libc.writeText(`${folder}/buffer_size_kb`, `${BUFFER_KIB}\n`);
    // When it is full, what came first stays.
    libc.writeText(`${folder}/options/overwrite`, "0\n");
    if (!libc.writeText(`${folder}/set_event_pid`, `${libc.thread}\n`)) return undefined;
    const on = NAMES.filter((name) => libc.writeText(`${folder}/events/kvm/${name}/enable`, "1\n"));
    if (!on.includes("kvm_nested_vmenter_failed")) return undefined;
    const pipe = libc.open(`${folder}/trace_pipe`, OPEN.read | OPEN.nonBlocking);
    return pipe < 0 ? undefined : new OwnTrace(libc, folder, pipe);
  }

  /** What came since the last time, as the lab's records have it. */
  take(): LabEvent[] {
    const events: LabEvent[] = [];
    const text = new FtraceText(
      {
        record({ name, text }) {
          if (events.length < MOST && !isNoise(name, text)) events.push(labEvent(name, text));
        },
        lost() {},
      },
      emptyTracepointStats(),
      true,
    );
    for (;;) {
      const length = this.#libc.read(this.#pipe, this.#chunk);
      if (length <= 0) return events;
      text.push(this.#chunk.slice(0, length));
    }
  }

  /** Ends it, and leaves tracefs as it was. */
  [Symbol.dispose](): void {
    this.#libc.close(this.#pipe);
    this.#libc.rmdir(this.#folder);
  }
}

function labEvent(name: string, text: string): LabEvent {
  return name === "kvm_nested_vmenter_failed"
    ? { check_failed: text.trim() }
    : { tracepoint: name, text: text.trim() };
}

/** What L2's memory and the host's interrupts cause: L1 sees nothing of it, and it is never twice the same. */
function isNoise(name: string, text: string): boolean {
  return name === "kvm_nested_vmexit" && /reason (npf|interrupt)\b/.test(text);
}
