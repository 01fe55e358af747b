/**
 * What one of the lab's records holds, and what to throw at a line that is none.
 *
 * @module
 */
import { VmtapeError } from "../../engine/error.ts";
import type {
  CPU_KEYS,
  NESTED_KEYS,
  PHASES,
  RESTORE_ERRNO_KEYS,
  STATE_FLAG_KEYS,
  STATE_HEX_KEYS,
} from "./keys.ts";

/** Non-zero 8-byte words by offset: three hexadecimal digits to sixteen. */
export type WordMap = Readonly<Record<string, string>>;

/** One of {@linkcode PHASES}. */
export type Phase = typeof PHASES[number];

/** What userspace saw at one point of a case. Numbers in text are hexadecimal unless said otherwise. */
export interface LabState
  extends
    Partial<Readonly<Record<typeof STATE_HEX_KEYS[number], string>>>,
    Partial<Readonly<Record<typeof STATE_FLAG_KEYS[number], number>>> {
  /** CS: selector (hexadecimal), L, DB. */
  readonly cs?: string;
  /** SS selector. */
  readonly ss?: string;
  /** Address of vmcb12 while in guest mode. */
  readonly vmcb_pa?: string;
  /** Exception: injected, pending, vector (hexadecimal), error code (hexadecimal). */
  readonly ev_exc?: string;
  /** Interrupt: injected, vector (decimal). */
  readonly ev_int?: string;
  /** NMI: injected, pending, masked. */
  readonly ev_nmi?: string;
  /** Return value of KVM_RUN. */
  readonly rc?: number;
  /** errno of KVM_RUN. */
  readonly errno?: number;
  /** KVM_EXIT_* reason. */
  readonly exit?: number;
  /** Reason of a KVM_EXIT_INTERNAL_ERROR (KVM_INTERNAL_ERROR_*). */
  readonly suberr?: number;
  /** I/O port of a KVM_EXIT_IO. */
  readonly port?: string;
  /** vmcb12 in memory. */
  readonly vmcb12?: WordMap;
  /** Host save area in memory. */
  readonly hsave?: WordMap;
  /** SMRAM state save area. */
  readonly smram?: WordMap;
  /** Names of ioctls that failed while the case was set up, with their errno (decimal). */
  readonly setup_errors?: Readonly<Record<string, string>>;
}

/** State inside the kernel as one of its functions returned. */
export interface LabInner {
  /** The function: vmrun, vmexit, rsm or setstate. */
  readonly at: string;
  /** Nested bookkeeping. */
  readonly nested: Readonly<Partial<Record<typeof NESTED_KEYS[number], string>>>;
  /** vCPU state. */
  readonly cpu?: Readonly<Partial<Record<typeof CPU_KEYS[number], string>>>;
  /** vmcb01's control area. */
  readonly ctl01?: WordMap;
  /** vmcb01's save area, offsets within it. */
  readonly sav01?: WordMap;
  /** vmcb02's control area. */
  readonly ctl02?: WordMap;
  /** vmcb02's save area, offsets within it. */
  readonly sav02?: WordMap;
}

/** One of the things a kernel reported during a case. */
export type LabEvent =
  | { readonly check_failed: string }
  | { readonly warn: string }
  /** Of a prediction: what the model met and does not model, which ended the run. */
  | { readonly unmodelled: string }
  | { readonly tracepoint: string; readonly text: string }
  | LabInner;

/** What moving a vCPU's state to another virtual machine came to: the errno of each ioctl, and the nested state. */
export interface LabMigrate
  extends Partial<Readonly<Record<typeof RESTORE_ERRNO_KEYS[number], number>>> {
  /** errno of KVM_GET_NESTED_STATE. */
  readonly get_errno?: number;
  /** errno of KVM_GET_SREGS2. */
  readonly get_sregs_errno?: number;
  /** KVM_STATE_NESTED_* flags handed in, hexadecimal. */
  readonly flags?: string;
  /** L2's control area and L1's save area handed in. */
  readonly state?: WordMap;
}

/** What one kernel did with one case. */
export interface LabRecord {
  /** Name of the case. */
  readonly case: string;
  /** Its changes, as written. */
  readonly spec: string;
  /** The kernel, or the policy of a prediction. */
  readonly kernel: string;
  /** 1 with nested paging, 0 with shadow paging. */
  readonly npt: number;
  /** True when the source sees less than the lab does: what is absent is then unknown, and `events` is empty for that. */
  readonly partial?: boolean;
  /** What of `events` the source can see: check, warn, inner; all of them when left out, unless `partial`. */
  readonly sees?: readonly string[];
  /** Of a source that knows it: how many of `events` came before userspace looked on the way. */
  readonly looked?: { readonly mid?: number; readonly smm?: number; readonly restored?: number };
  /** What was reported, in order. */
  readonly events: readonly LabEvent[];
  /** Before the run. */
  readonly pre?: LabState;
  /** With `entry=rsm`, `mid` and `migrate`: when L2 stopped at its port write. */
  readonly mid?: LabState;
  /** With `entry=rsm`: in the SMI handler. */
  readonly smm?: LabState;
  /** With `entry=setstate`: errno of the ioctls. */
  readonly setstate?: { readonly sregs_errno: number; readonly errno: number };
  /** With `entry=migrate`: what the ioctls said, and what was handed in. */
  readonly migrate?: LabMigrate;
  /** With `entry=migrate`: the new vCPU before it runs. */
  readonly restored?: LabState;
  /** After the run. */
  readonly post?: LabState;
  /** Lines of the console that look like a kernel warning. */
  readonly warnings?: readonly string[];
}

/**
 * A record that is not one, or holds what cannot be.
 *
 * @example
 * ```ts
 * import { LabRecordError, parseLabRecord } from "@vmtape/vmtape/codecs";
 * try {
 *   parseLabRecord('{"case": 1}', { line: 7 });
 * } catch (error) {
 *   if (!(error instanceof LabRecordError) || error.line !== 7) throw error;
 * }
 * ```
 */
export class LabRecordError extends VmtapeError {
  /** `LabRecordError`. */
  override readonly name = "LabRecordError";
  /** Name of the file, when there is one. */
  readonly file: string | undefined;
  /** Line, from 1. */
  readonly line: number;
  /** Path of the field within the record, such as `post.rip`; empty when it is the whole line. */
  readonly field: string;

  /**
   * Says what is wrong, and where.
   *
   * @param what What is wrong.
   * @param where The file, the line and the field.
   * @param options The cause.
   */
  constructor(
    what: string,
    where: { readonly file?: string | undefined; readonly line: number; readonly field?: string },
    options?: ErrorOptions,
  ) {
    const place = where.file === undefined ? `Line ${where.line}` : `${where.file}:${where.line}`;
    super(`${place}: ${what}`, options);
    this.file = where.file;
    this.line = where.line;
    this.field = where.field ?? "";
  }
}
