/**
 * L2's exits by reason: how often, how long L2 ran before each, and how long it took until L2 ran
 * again.
 *
 * @module
 */
import type { TraceEvent } from "./event.ts";
import { fieldNamed, readField } from "./image/fields.ts";
import { PerVcpu } from "./per_vcpu.ts";
import { exitCodeName, shortExitName } from "./svm/exit_codes.ts";
import { VMCB_LAYOUT, VMCB_SIZE } from "./svm/vmcb_fields.ts";

/** Times of one kind, in nanoseconds by the recording's clock. */
export interface TimeStats {
  /** How many are known. */
  readonly known: number;
  /** Their sum. */
  readonly total: number;
  /** The shortest; 0 when none is known. */
  readonly min: number;
  /** The longest; 0 when none is known. */
  readonly max: number;
}

/** What is known of the exits of one reason. */
export interface ExitRow {
  /** Name of the exit code, such as `NPF`; `?` when it was not seen. */
  readonly reason: string;
  /** The exit code; undefined when it was not seen. */
  readonly code: bigint | undefined;
  /** How many. */
  readonly count: number;
  /** How many of them L1 received; the others the hypervisor below handled itself. */
  readonly toL1: number;
  /** How long L2 ran before them, where its entry was seen. */
  readonly l2: TimeStats;
  /** How long it took until L2 was entered again, where that was seen. */
  readonly handling: TimeStats;
}

class Times {
  known = 0;
  total = 0;
  min = 0;
  max = 0;

  add(from: number | undefined, to: number | undefined): void {
    if (from === undefined || to === undefined || to < from) return;
    const time = to - from;
    this.min = this.known === 0 ? time : Math.min(this.min, time);
    this.max = Math.max(this.max, time);
    this.known++;
    this.total += time;
  }

  row(): TimeStats {
    const { known, total, min, max } = this;
    return { known, total, min, max };
  }
}

class Reason {
  count = 0;
  toL1 = 0;
  readonly l2 = new Times();
  readonly handling = new Times();
  readonly code: bigint | undefined;

  constructor(code: bigint | undefined) {
    this.code = code;
  }
}

/** An exit that is being handled. */
interface Open {
  readonly reason: Reason;
  readonly time: number | undefined;
}

/** Where a vCPU is. */
interface VcpuExits {
  /** When L2 was entered; undefined when it does not run or that was not seen. */
  entered: number | undefined;
  /** Whether L2 runs, or is about to. */
  inside: boolean;
  open: Open | undefined;
}

function outside(): VcpuExits {
  return { entered: undefined, inside: false, open: undefined };
}

/** Reasons that are told apart; a trace with more has codes that no processor knows. */
const MOST_REASONS = 4096;
/** What the rest is counted under. */
const OTHERS = "others";

const EXIT_CODE = fieldNamed(VMCB_LAYOUT, "control.exit_code");
const ALL = 0xffffffffn;
/** Exit codes that are no exit of L2: a VMRUN that was refused. */
const REFUSED = 0xffffffffn;

/** A name as the kernel's tools print it: without the prefix that all have in common. */
function shortName(code: bigint | undefined): string {
  if (code === undefined) return "?";
  // Emulators write 32 bits of it where they refuse a VMRUN that the hypervisor let pass.
  return code === REFUSED ? "VMEXIT_INVALID" : shortExitName(exitCodeName(code));
}

/**
 * Counts L2's exits while a trace is read.
 *
 * @example
 * ```ts
 * import { ExitStats } from "@vmtape/vmtape/engine";
 * const stats = new ExitStats();
 * stats.feed({ kind: "vmrun", vcpu: 0, time: 100 });
 * stats.feed({ kind: "l2exit", vcpu: 0, time: 250, exit_code: 0x400n });
 * stats.feed({ kind: "exit", vcpu: 0, time: 260 });
 * stats.feed({ kind: "vmrun", vcpu: 0, time: 900 });
 * const [row] = stats.rows();
 * if (row?.reason !== "NPF" || row.toL1 !== 1) throw new Error();
 * if (row.l2.total !== 150 || row.handling.total !== 650) throw new Error();
 * ```
 */
export class ExitStats {
  readonly #reasons = new Map<string, Reason>();
  readonly #vcpus = new PerVcpu<VcpuExits>(outside);
  readonly #only: number | undefined;
  #exits = 0;
  #entries = 0;
  #refused = 0;
  #first: number | undefined;
  #last: number | undefined;

  /**
   * Begins with nothing counted.
   *
   * @param vcpu The only vCPU that counts; all when left out.
   */
  constructor(vcpu?: number) {
    this.#only = vcpu;
  }

  /** Exits so far. */
  get exits(): number {
    return this.#exits;
  }

  /** VMRUNs so far, those that were refused among them. */
  get entries(): number {
    return this.#entries;
  }

  /** VMRUNs that were refused: VMEXIT_INVALID without L2 having run. */
  get refused(): number {
    return this.#refused;
  }

  /** Nanoseconds from the first event with a time to the last; undefined without times. */
  get duration(): number | undefined {
    return this.#first === undefined ? undefined : (this.#last ?? this.#first) - this.#first;
  }

  /** Numbers of the vCPUs that were seen, in order. */
  get vcpus(): readonly number[] {
    return [...this.#vcpus.keys()].sort((a, b) => a - b);
  }

  /**
   * Takes the next event of the trace.
   *
   * @param event The event; its images need to be valid only during the call.
   */
  feed(event: TraceEvent): void {
    const number = event.vcpu ?? 0;
    if (this.#only !== undefined && number !== this.#only) return;
    const { time } = event;
    if (time !== undefined) {
      this.#first ??= time;
      this.#last = Math.max(this.#last ?? time, time);
    }
    switch (event.kind) {
      case "session":
      case "lost":
        Object.assign(this.#vcpus.of(number), outside());
        break;
      case "vmrun":
        this.#entries++;
        this.#enter(this.#vcpus.of(number), time);
        break;
      case "rsm":
        this.#enter(this.#vcpus.of(number), time);
        break;
      case "tracepoint":
        // The hypervisor enters the guest again after an exit that it handled itself.
        if (event.name === "kvm_entry") this.#reenter(this.#vcpus.of(number), time);
        break;
      case "check":
        this.#refuse(this.#vcpus.of(number));
        break;
      case "l2exit":
        this.#exit(this.#vcpus.of(number), event.exit_code, time);
        break;
      case "exit":
        this.#deliver(this.#vcpus.of(number), event.vmcb12, time);
        break;
      case "regs":
        // A recording from outside shows an exit only by what it left in vmcb12.
        if (event.phase === "post") this.#deliver(this.#vcpus.of(number), event.vmcb12, undefined);
        break;
    }
  }

  /** The reasons, the most frequent one first. */
  rows(): ExitRow[] {
    return [...this.#reasons].map(([reason, { code, count, toL1, l2, handling }]) => ({
      ...{ reason, code, count, toL1, l2: l2.row(), handling: handling.row() },
    })).sort((a, b) => b.count - a.count || (a.reason < b.reason ? -1 : 1));
  }

  #enter(vcpu: VcpuExits, time: number | undefined): void {
    vcpu.open?.reason.handling.add(vcpu.open.time, time);
    vcpu.open = undefined;
    vcpu.inside = true;
    vcpu.entered = time;
  }

  #reenter(vcpu: VcpuExits, time: number | undefined): void {
    if (vcpu.inside && vcpu.open !== undefined) this.#enter(vcpu, time);
  }

  #refuse(vcpu: VcpuExits): void {
    if (!vcpu.inside) this.#entries++;
    this.#refused++;
    vcpu.inside = false;
    vcpu.entered = undefined;
  }

  #exit(vcpu: VcpuExits, code: bigint | undefined, time: number | undefined): void {
    const known = this.#reasons.size < MOST_REASONS || this.#reasons.has(shortName(code));
    const name = known ? shortName(code) : OTHERS;
    let reason = this.#reasons.get(name);
    if (reason === undefined) {
      this.#reasons.set(name, reason = new Reason(known ? code : undefined));
    }
    this.#exits++;
    reason.count++;
    // Between two exits without an entry in between, when L2 ran again was not seen.
    if (vcpu.open === undefined) reason.l2.add(vcpu.entered, time);
    vcpu.open = { reason, time };
    vcpu.entered = undefined;
    vcpu.inside = true;
  }

  /** L1 receives a #VMEXIT; where the exit itself was not seen it is read from vmcb12. */
  #deliver(
    vcpu: VcpuExits,
    vmcb12: { readonly bytes: Uint8Array } | undefined,
    time?: number,
  ): void {
    if (!vcpu.inside) return;
    const seen = vmcb12?.bytes.length === VMCB_SIZE ? readField(vmcb12, EXIT_CODE) : undefined;
    const code = seen?.known === ALL ? seen.value : undefined;
    if (vcpu.open === undefined) {
      if (code === REFUSED) {
        this.#refused++;
        vcpu.inside = false;
        return;
      }
      this.#exit(vcpu, code, time);
    }
    if (vcpu.open !== undefined) vcpu.open.reason.toL1++;
    vcpu.inside = false;
  }
}
