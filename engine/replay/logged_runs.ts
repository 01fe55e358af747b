/**
 * The events of a log that shows transitions without what is around them, put
 * together: one logged run for each VMRUN that was seen.
 *
 * @module
 */
import { Buffer } from "node:buffer";
import type { EventOf, Image, TraceEvent } from "../event.ts";
import { Cpuid } from "../svm/cpuid.ts";
import type { Capabilities } from "../svm/machine.ts";
import { wordAt } from "../svm/page_word.ts";
import { VMCB_LAYOUT, VMCB_SIZE } from "../svm/vmcb_fields.ts";
import { copyImage, fieldNamed, knownWordsOf, readField } from "../image/fields.ts";
import { ReplayError } from "./replay_error.ts";
import { capabilitiesOf } from "./session_machine.ts";

/** What a vCPU's part of a log shows, as far as it was read: whether what is absent means something. */
export interface Shown {
  /** Whether it shows entries into L2: some are there. */
  entries: boolean;
  /** Whether it shows the #VMEXITs that L1 receives: some are there. */
  exits: boolean;
  /** Whether an entry follows another with nothing between, so that it may lack what ends a run. */
  bare: boolean;
}

/** One VMRUN, or one RSM into L2, with what a log shows of it. */
export interface LoggedRun {
  /** Number of its first event. */
  readonly event: number;
  /** vCPU. */
  readonly vcpu: number;
  /** How L2 was entered, or was to be. */
  readonly way: "vmrun" | "rsm";
  /** Whether the log shows the entry; a kernel may refuse before it says anything of it. */
  readonly entered: boolean;
  /** Whether the log shows that L2 stopped. */
  readonly stopped: boolean;
  /** Whether events before it, or after it, may be missing. */
  readonly gap: { readonly before: boolean; readonly after: boolean };
  /** What the vCPU's part of the log shows. */
  readonly shown: Shown;
  /** What the processor and the hypervisor can do. */
  readonly caps: Capabilities;
  /** Whether KVM made the checks, so that its verdicts tell of bits that were not seen. */
  readonly kvm: boolean;
  /** L1's registers, as far as they were seen. */
  readonly regs: Image | undefined;
  /** Address after the VMRUN; undefined when it was not seen. */
  readonly rip: bigint | undefined;
  /** Guest physical address of vmcb12; undefined when it was not seen. */
  readonly vmcb12Gpa: bigint | undefined;
  /** vmcb12 before it, as far as it was seen. */
  readonly vmcb12: Image;
  /** Pages of guest memory that were seen, by address; shared between logged runs. */
  readonly memory: ReadonlyMap<number, Image>;
  /** Number of the event with the check that failed, and that check. */
  readonly check:
    | { readonly event: number; readonly id: string | undefined; readonly text: string }
    | undefined;
  /** L2's instruction pointer as it stopped; undefined when it was not seen. */
  readonly l2rip: bigint | undefined;
  /** Number of the event with the #VMEXIT that L1 received; and vmcb12 and L1's registers then. */
  readonly exit: {
    readonly event: number;
    readonly vmcb12: Image | undefined;
    readonly regs: Image | undefined;
  } | undefined;
}

/**
 * What a log's session says of its machine. A log that says nothing of L1's processor leaves what
 * not every L1 has unknown; physical address bits that no processor has are none to check addresses by.
 */
function capabilitiesOfLog(meta: Readonly<Record<string, unknown>> | undefined): Capabilities {
  const caps = capabilitiesOf(meta);
  const given = (meta?.["capabilities"] as Record<string, unknown> | undefined)?.["physical_bits"];
  const { physicalBits: bits } = caps;
  const width = Number.isInteger(bits) && bits >= 32 && bits <= 52 ? bits : DEFAULT_BITS;
  const unknown = typeof given === "number" && width === bits
    ? Cpuid.OF_HYPERVISOR.withPhysicalBits(width)
    : Cpuid.OF_HYPERVISOR;
  return { ...caps, physicalBits: width, cpuid: caps.cpuid ?? unknown };
}

const DEFAULT_BITS = capabilitiesOf(undefined).physicalBits;

type Writable<T> = { -readonly [K in keyof T]: T[K] };

/** Nothing of a page is known. */
const UNSEEN: Image = { bytes: new Uint8Array(VMCB_SIZE), known: new Uint8Array(VMCB_SIZE) };

/** vCPUs of a log, and pages of one of them, that are kept at most. */
const MOST_VCPUS = 4096, MOST_PAGES = 4096;

const RIP = { name: "rip", offset: 0x80, size: 8, doc: "" };
/** Exit code of a VMRUN that was refused, low half. */
const INVALID = 0xffffffffn;
const EXIT_CODE = fieldNamed(VMCB_LAYOUT, "control.exit_code");

/**
 * Whether a session shows single transitions only, and nothing of what ran between them.
 *
 * @param meta The session's metadata.
 * @returns Whether it says so.
 * @example
 * ```ts
 * import { showsTransitions } from "@vmtape/vmtape/engine";
 * if (!showsTransitions({ source: "kvm-tracepoints" })) throw new Error();
 * if (showsTransitions({ source: "emulator" })) throw new Error();
 * ```
 */
export function showsTransitions(meta: Readonly<Record<string, unknown>> | undefined): boolean {
  return meta?.["transitions"] === true || meta?.["source"] === "kvm-tracepoints";
}

/** Keeps images of one kind. Those of a log have much in common, most of all what is known of them. */
class SharedImages {
  #last: Image | undefined;
  /** What it is a copy of. */
  #from: Image | undefined;
  #revision: number | undefined;

  /** A copy; where it is as the last one was, or as much is known of it, that is the same object. */
  keep(image: Image): Image {
    const last = this.#last;
    const { revision } = image;
    const unchanged = revision !== undefined && image === this.#from && revision === this.#revision;
    if (unchanged && last !== undefined) return last;
    this.#from = image;
    this.#revision = revision;
    if (last === undefined || !sameBytes(last.known, image.known)) {
      const copy = copyImage(image);
      return this.#last = copy.known ? { ...copy, knownWords: knownWordsOf(copy.known) } : copy;
    }
    if (sameBytes(last.bytes, image.bytes)) return last;
    const { known, knownWords } = last;
    const mask = known && { known, ...(knownWords && { knownWords }) };
    return this.#last = { bytes: image.bytes.slice(), ...mask };
  }
}

function sameBytes(a: Uint8Array | undefined, b: Uint8Array | undefined): boolean {
  return a === undefined || b === undefined ? a === b : Buffer.compare(a, b) === 0;
}

interface LoggedVcpu {
  /** Images of vmcb12 before and after. */
  readonly before: SharedImages;
  readonly after: SharedImages;
  caps: Capabilities;
  kvm: boolean;
  memory: Map<number, Image>;
  /** Whether a logged run has the map. */
  lent: boolean;
  open: Writable<LoggedRun> | undefined;
  shown: Shown;
  /** Nothing came since it is not known what came before. */
  fresh: boolean;
  /** The last event was an RSM. */
  resumed: boolean;
}

/** Puts logged runs together out of the events of vCPUs that show transitions only; several may take turns. */
export class LoggedRunCollector {
  /** vCPUs of which the trace shows single transitions only. */
  readonly #without = new Set<number>();
  readonly #vcpus = new Map<number, LoggedVcpu>();
  readonly #done: (unit: LoggedRun) => void;

  /**
   * Begins before the log's first event.
   *
   * @param done Receives every logged run once it is complete.
   */
  constructor(done: (unit: LoggedRun) => void) {
    this.#done = done;
  }

  /** Whether no vCPU shows transitions only. */
  get idle(): boolean {
    return this.#without.size === 0;
  }

  /**
   * Whether an event is of a vCPU that shows transitions only, and so for {@linkcode LoggedRunCollector.feed}.
   *
   * @param event The next event.
   */
  claims(event: TraceEvent): boolean {
    const without = this.#without;
    if (event.kind === "session") {
      if (showsTransitions(event.meta)) without.add(event.vcpu ?? 0);
      else without.delete(event.vcpu ?? 0);
    }
    return without.size !== 0 && without.has(event.vcpu ?? 0);
  }

  /**
   * Takes the next event that it claims.
   *
   * @param event The event; its images need to be valid only during the call.
   * @param index Its number in the trace.
   */
  feed(event: TraceEvent, index: number): void {
    const number = event.vcpu ?? 0;
    const vcpu = this.#vcpu(number, index);
    const { fresh, resumed } = vcpu;
    vcpu.fresh = vcpu.resumed = false;
    switch (event.kind) {
      case "session":
        this.#close(vcpu, true);
        Object.assign(vcpu, newVcpu(event.meta));
        break;
      case "memory":
        if (event.gpa !== undefined && event.data !== undefined) {
          this.#close(vcpu);
          if (vcpu.lent) vcpu.memory = new Map(vcpu.memory);
          vcpu.lent = false;
          vcpu.memory.set(Number(event.gpa), copyImage(event.data));
          if (vcpu.memory.size > MOST_PAGES) {
            throw new ReplayError(
              `The session sets more than ${MOST_PAGES} pages of guest memory`,
              index,
            );
          }
        }
        vcpu.fresh = fresh;
        break;
      case "vmrun":
        if (vcpu.open?.entered && !vcpu.open.stopped && vcpu.open.check === undefined) {
          vcpu.shown.bare = true;
        }
        this.#close(vcpu);
        vcpu.shown.entries = true;
        vcpu.open = this.#begin(vcpu, number, "vmrun", event, index, fresh);
        break;
      case "check": {
        // A kernel may refuse a VMRUN before it says anything of it.
        const { open } = vcpu;
        if (open === undefined || open.check !== undefined || open.stopped) {
          this.#close(vcpu);
          vcpu.open = this.#begin(vcpu, number, resumed ? "rsm" : "vmrun", undefined, index, fresh);
        }
        vcpu.open!.check = { event: index, id: event.check, text: event.text ?? event.check ?? "" };
        break;
      }
      case "l2exit":
        if (vcpu.open !== undefined && vcpu.open.check === undefined) {
          const { regs } = event;
          const rip = regs && readField(regs, RIP);
          vcpu.open.stopped = true;
          vcpu.open.l2rip = rip?.known === 0xffff_ffff_ffff_ffffn ? rip.value : undefined;
        } else this.#close(vcpu);
        break;
      case "exit":
        vcpu.shown.exits = true;
        this.#exit(vcpu, event, index);
        break;
      case "rsm":
        this.#close(vcpu);
        vcpu.resumed = true;
        if (event.vmcb12 !== undefined) {
          vcpu.open = this.#begin(vcpu, number, "rsm", event, index, fresh);
        }
        break;
      case "lost":
        // What comes next need not belong to what came before.
        this.#close(vcpu, true);
        vcpu.fresh = true;
        break;
      case "smi":
      case "setstate":
        this.#close(vcpu, true);
        vcpu.fresh = true;
        break;
      default:
        vcpu.fresh = fresh;
        vcpu.resumed = resumed;
        break;
    }
  }

  /** No more events come. */
  finish(): void {
    for (const vcpu of this.#vcpus.values()) this.#close(vcpu, true);
  }

  #vcpu(number: number, index: number): LoggedVcpu {
    let vcpu = this.#vcpus.get(number);
    if (vcpu === undefined) {
      if (this.#vcpus.size === MOST_VCPUS) {
        throw new ReplayError(`The trace has more than ${MOST_VCPUS} vCPUs`, index);
      }
      vcpu = newVcpu(undefined);
      this.#vcpus.set(number, vcpu);
    }
    return vcpu;
  }

  #begin(
    vcpu: LoggedVcpu,
    number: number,
    way: LoggedRun["way"],
    from: EventOf<"vmrun"> | EventOf<"rsm"> | undefined,
    index: number,
    fresh: boolean,
  ): Writable<LoggedRun> {
    vcpu.lent = true;
    const vmrun = from?.kind === "vmrun" ? from : undefined;
    return {
      event: index,
      vcpu: number,
      way,
      entered: from !== undefined,
      stopped: false,
      gap: { before: fresh, after: false },
      shown: vcpu.shown,
      caps: vcpu.caps,
      kvm: vcpu.kvm,
      regs: vmrun?.regs && copyImage(vmrun.regs),
      rip: vmrun?.rip,
      vmcb12Gpa: from?.vmcb12_gpa,
      vmcb12: from?.vmcb12 === undefined ? UNSEEN : vcpu.before.keep(from.vmcb12),
      memory: vcpu.memory,
      check: undefined,
      l2rip: undefined,
      exit: undefined,
    };
  }

  #exit(vcpu: LoggedVcpu, event: EventOf<"exit">, index: number): void {
    const { open } = vcpu;
    if (open === undefined) return;
    const code = event.vmcb12 && readField(event.vmcb12, EXIT_CODE);
    const ran = code !== undefined && code.known === 0xffffffffn && code.value !== INVALID;
    // What L2 ran into is no #VMEXIT of a VMRUN that was refused: the entry before it is not shown.
    if (ran && open.check !== undefined) return this.#close(vcpu);
    open.exit = {
      event: index,
      vmcb12: event.vmcb12 && vcpu.after.keep(event.vmcb12),
      regs: event.regs && copyImage(event.regs),
    };
    this.#close(vcpu);
  }

  #close(vcpu: LoggedVcpu, gap = false): void {
    const unit = vcpu.open;
    vcpu.open = undefined;
    if (unit === undefined) return;
    if (gap && unit.exit === undefined) unit.gap = { ...unit.gap, after: true };
    this.#done(unit);
  }
}

function newVcpu(meta: Readonly<Record<string, unknown>> | undefined): LoggedVcpu {
  return {
    before: new SharedImages(),
    after: new SharedImages(),
    caps: capabilitiesOfLog(meta),
    kvm: meta?.["source"] !== "qemu",
    memory: new Map(),
    lent: false,
    open: undefined,
    shown: { entries: false, exits: false, bare: false },
    fresh: true,
    resumed: false,
  };
}

/** The exit code that L1 received, as far as its low half is known. */
export function exitCodeOf(unit: LoggedRun): number | undefined {
  const image = unit.exit?.vmcb12;
  if (image === undefined) return undefined;
  const { bytes, known } = image;
  if (bytes.length < EXIT_CODE.offset + EXIT_CODE.size) return undefined;
  if (known !== undefined && wordAt(known, EXIT_CODE.offset) !== 0xffffffff) return undefined;
  return wordAt(bytes, EXIT_CODE.offset);
}

/**
 * Number of the last event that is part of a logged run.
 *
 * @param run The run, as its collector hands it on.
 * @param before Number of the event before the one that is being fed, or of the trace's last one: it
 * counts where the run shows neither its #VMEXIT nor a failed check, and ended there.
 */
export function lastEventOf(run: LoggedRun, before: number): number {
  return run.exit?.event ?? run.check?.event ?? before;
}
