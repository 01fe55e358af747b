/**
 * The record that the readers of all forms fill in and hand on: one object,
 * used again for every record, so that a log of any length costs no memory.
 *
 * @module
 */
import { SLOTS, type SlotValues, type Tracepoint, TRACEPOINTS } from "./kvm_tracepoints.ts";

/** A record as plain data: what a reader makes of one line or one ring-buffer entry. */
export interface TracepointRecord {
  /** CPU it was written on; absent where the log does not say. */
  readonly cpu?: number;
  /** Thread that wrote it, as the kernel numbers threads; absent where the log does not say. */
  readonly pid?: number;
  /** Name of that thread; `<...>` where the source does not know it, absent without a thread. */
  readonly task?: string;
  /** Nanoseconds on the clock of the log, by default since boot; absent where the log has none. */
  readonly time?: number;
  /** Name of the tracepoint, without the subsystem. */
  readonly name: string;
  /** Its values by name: numbers up to 2^53, bigints above. */
  readonly fields: Readonly<Record<string, number | bigint | string>>;
  /** What the kernel prints for it. */
  readonly text: string;
}

/** Receives what a reader finds, in order of time. */
export interface RecordSink {
  /** One record; valid during the call only. */
  record(record: KvmRecord): void;
  /**
   * Records were lost on a CPU.
   *
   * @param cpu The CPU; -1 when the source does not say.
   * @param count How many; nothing when the source does not say.
   * @param time When, in nanoseconds; nothing when the source does not say.
   */
  lost(cpu: number, count: number | undefined, time: number | undefined): void;
  /**
   * A record is there that cannot be read, so that what comes next need not follow what came before.
   *
   * @param cpu The CPU; -1 where that is not known either.
   * @param pid The thread; -1 where that is not known.
   * @param name Name of its tracepoint.
   */
  unread?(cpu: number, pid: number, name: string): void;
}

/** Where a record comes from: gives on demand what most readers of it never ask for. */
export interface RecordSource {
  /** The text that the kernel prints for a record. */
  text(record: KvmRecord): string;
  /** Its fields, where they are not slots. */
  fields?(record: KvmRecord): Record<string, number | bigint | string> | undefined;
}

const NO_SOURCE: RecordSource = { text: () => "" };

/** A record being filled in. */
export class KvmRecord implements SlotValues {
  /** Which tracepoint; `undefined` for one that the table does not have. */
  tracepoint: Tracepoint | undefined = TRACEPOINTS[0];
  /** Its name. */
  name = "";
  /** CPU it was written on; -1 where the log does not say. */
  cpu = 0;
  /** Thread that wrote it; -1 where the log does not say. */
  pid = 0;
  /** Name of that thread. */
  task = "";
  /** Nanoseconds; NaN where the log has none. */
  time = 0;
  /** Bit per slot: it has a value. */
  present = 0;
  /** Bit per slot: the source had all 64 bits of it. */
  wide = 0;
  /** Low halves, by slot. */
  readonly lo: Uint32Array = new Uint32Array(SLOTS.length);
  /** High halves, by slot. */
  readonly hi: Uint32Array = new Uint32Array(SLOTS.length);
  /** Gives what the slots do not hold. */
  source: RecordSource = NO_SOURCE;
  /** First byte of the record, as its source counts. */
  start = 0;
  /** The byte after its last. */
  end = 0;

  /** The text the kernel prints for this record. */
  get text(): string {
    return this.source.text(this);
  }

  /** Copies the record into plain data that stays. */
  plain(): TracepointRecord {
    const { cpu, pid, task, time, name, text } = this;
    return {
      ...(cpu < 0 ? {} : { cpu }),
      ...(pid < 0 ? {} : { pid, task }),
      ...(Number.isNaN(time) ? {} : { time }),
      name,
      fields: this.source.fields?.(this) ?? this.#slots(),
      text,
    };
  }

  #slots(): Record<string, number | bigint | string> {
    const fields: Record<string, number | bigint | string> = {};
    SLOTS.forEach(({ name }, slot) => {
      if ((this.present >>> slot & 1) === 0) return;
      const hi = this.hi[slot]!, lo = this.lo[slot]!;
      fields[name] = hi < 0x200000 ? hi * 2 ** 32 + lo : BigInt(hi) << 32n | BigInt(lo);
    });
    if (this.tracepoint?.free) fields.msg = this.text;
    return fields;
  }
}
