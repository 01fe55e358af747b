/**
 * The ring buffer's pages, as the kernel wrote them (include/linux/ring_buffer.h,
 * kernel/trace/ring_buffer.c):
 *
 *     offset  0  u64   time of the page's first event, ns
 *             8  long  bytes of events; bit 31: events were lost before this page,
 *                      bit 30: how many stands after the events, as a long
 *            16  events, each aligned to 4 bytes   (12 where a long has 4 bytes)
 *
 *     event   0  u32   type_len: 5 bits, time since the event before: 27 bits
 *             type_len 1..28  data of type_len * 4 bytes follow
 *                      0      u32 length, of itself and the data, follows, then the data
 *                      29     padding: to the end of the page where the time is 0, else u32 length
 *                      30     u32 follows: time since the event before, bits 27 and up
 *                      31     u32 follows: absolute time, bits 27..58
 *
 * On a big-endian machine the bit field's first 5 bits are the highest.
 *
 * @module
 */
import type { KvmRecord } from "./kvm_record.ts";
import type { RecordBytes, RecordPlan } from "./trace_dat_format.ts";
import type { TracepointIssue } from "./stats.ts";

/** How pages of one file are laid out. */
export interface PageLayout {
  /** Whether numbers have their low byte first. */
  readonly little: boolean;
  /** Size of a page in bytes. */
  readonly pageSize: number;
  /** Where the length of its events stands. */
  readonly commitOffset: number;
  /** Size of that length: the kernel's long. */
  readonly commitSize: number;
  /** Where its events begin. */
  readonly dataOffset: number;
  /** Nanoseconds per unit of time stamps. */
  readonly scale: number;
  /** Nanoseconds to add to every time. */
  readonly shift: number;
}

/** Gives the next pages of one CPU; none at the end. */
export type NextPages = () => Promise<{ bytes: Uint8Array; offset: number } | undefined>;

const MISSED = 0x80000000, MISSED_COUNTED = 0x40000000, LENGTH = 0x07ffffff;
const PADDING = 29, TIME_EXTEND = 30, TIME_STAMP = 31;

/** The records of one CPU, in order; those that nobody wants are passed over. */
export class CpuRecords {
  /** The CPU. */
  readonly cpu: number;
  /** Time of the record it stands at, in nanoseconds. */
  time = 0;
  /** Records that were lost before the one it stands at: -1 when the number is not known. */
  lost = 0;
  /** Whether records were lost before the one it stands at. */
  isLost = false;
  /** Whether there are no more records. */
  ended = false;
  readonly #layout: PageLayout;
  readonly #plans: readonly (RecordPlan | undefined)[];
  readonly #counts: Float64Array;
  readonly #nextPages: NextPages;
  readonly #fault: (issue: TracepointIssue) => void;
  readonly #source: { bytes: Uint8Array; view: DataView; little: boolean };
  #offset = 0;
  #page = 0;
  #at = 0;
  #end = 0;
  #stamp = 0;
  #plan: RecordPlan | undefined;
  #data = 0;
  #length = 0;

  /**
   * @param cpu The CPU.
   * @param layout How its pages are laid out.
   * @param plans How to read the records that are wanted, by their number.
   * @param counts Counts all records, by their number.
   * @param nextPages Gives its pages.
   * @param fault Told of what cannot be read.
   */
  constructor(
    cpu: number,
    layout: PageLayout,
    plans: readonly (RecordPlan | undefined)[],
    counts: Float64Array,
    nextPages: NextPages,
    fault: (issue: TracepointIssue) => void,
  ) {
    this.cpu = cpu;
    this.#layout = layout;
    this.#plans = plans;
    this.#counts = counts;
    this.#nextPages = nextPages;
    this.#fault = fault;
    const bytes = new Uint8Array(0);
    this.#source = { bytes, view: new DataView(bytes.buffer), little: layout.little };
  }

  /**
   * Goes to the next record that is wanted, as far as the pages in memory reach.
   *
   * @returns Whether there is one; if not, {@linkcode CpuRecords.refill} and ask again.
   */
  next(): boolean {
    const { little } = this.#layout;
    const { view } = this.#source;
    const plans = this.#plans, counts = this.#counts;
    for (;;) {
      if (this.#at + 4 > this.#end) {
        if (!this.#nextPage()) return false;
        continue;
      }
      const at = this.#at;
      const header = view.getUint32(at, little);
      const type = little ? header & 31 : header >>> 27;
      const delta = little ? header >>> 5 : header & LENGTH;
      let data = at + 4, length: number;
      if (type >= 1 && type <= 28) length = type * 4;
      else {
        if (type === PADDING && delta === 0) {
          this.#at = this.#end;
          continue;
        }
        if (at + 8 > this.#end) {
          this.#broken("An event header without its second word");
          continue;
        }
        const word = view.getUint32(at + 4, little);
        if (type === TIME_EXTEND) {
          this.#stamp += delta + word * 0x8000000;
          this.#at = at + 8;
          continue;
        }
        if (type === TIME_STAMP) {
          // The top 5 bits are those of the time before.
          const top = Math.floor(this.#stamp / 2 ** 59) * 2 ** 59;
          this.#stamp = top + delta + word * 0x8000000;
          this.#at = at + 8;
          continue;
        }
        if (type === PADDING) {
          this.#stamp += delta;
          this.#at = at + 4 + word;
          if (word < 4 || this.#at > this.#end) this.#broken("Padding beyond its page");
          continue;
        }
        data = at + 8;
        length = word - 4;
        if (word < 4) {
          this.#broken("An event shorter than its own length");
          continue;
        }
      }
      this.#stamp += delta;
      // Not a bit operation: the length may be anything up to 2^32.
      const after = data + Math.ceil(length / 4) * 4;
      if (after > this.#end) {
        this.#broken("An event beyond its page");
        continue;
      }
      this.#at = after;
      if (length < 2) continue;
      const id = view.getUint16(data, little);
      counts[id]!++;
      const plan = plans[id];
      if (plan === undefined) continue;
      this.#plan = plan;
      this.#data = data;
      this.#length = length;
      this.time = this.#stamp * this.#layout.scale + this.#layout.shift;
      return true;
    }
  }

  /**
   * Reads the record it stands at.
   *
   * @param into Filled in, but for the thread's name.
   * @returns Whether it is as long as its format says.
   */
  read(into: KvmRecord): boolean {
    into.cpu = this.cpu;
    into.time = this.time;
    const source: RecordBytes = this.#source;
    if (this.#length >= 8 && this.#plan!.read(source, this.#data, this.#length, into)) {
      into.pid = source.view.getInt32(this.#data + 4, this.#layout.little);
      return true;
    }
    const what = `A record of ${this.#plan!.name} that is shorter than its format`;
    this.#fault({ offset: this.#offset + this.#data, what });
    return false;
  }

  /** Gets the next pages into memory. */
  async refill(): Promise<void> {
    const next = await this.#nextPages();
    if (next === undefined) {
      this.ended = true;
      return;
    }
    const { bytes, offset } = next;
    this.#source.bytes = bytes;
    this.#source.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.#offset = offset;
    this.#page = 0;
    this.#at = this.#end = 0;
  }

  #nextPage(): boolean {
    const { little, pageSize, commitOffset, commitSize, dataOffset } = this.#layout;
    const { view, bytes } = this.#source;
    const page = this.#page;
    if (page + dataOffset > bytes.length) return false;
    this.#page += pageSize;
    const low = little || commitSize === 4 ? commitOffset : commitOffset + 4;
    const commit = view.getUint32(page + low, little);
    const length = commit & LENGTH;
    this.#at = page;
    if (dataOffset + length > pageSize) {
      this.#broken(
        `A ring-buffer page that says it holds ${length} bytes, more than its ${
          pageSize - dataOffset
        }`,
      );
      return true;
    }
    let end = length;
    if (page + dataOffset + length > bytes.length) {
      const what = `A ring-buffer page that is cut off, on CPU ${this.cpu}`;
      this.#fault({ offset: this.#offset + page, what });
      end = bytes.length - page - dataOffset;
    }
    const first = view.getUint32(page, little), second = view.getUint32(page + 4, little);
    this.#stamp = little ? second * 2 ** 32 + first : first * 2 ** 32 + second;
    this.#at = page + dataOffset;
    this.#end = this.#at + end;
    if ((commit & MISSED) !== 0) {
      const counted = (commit & MISSED_COUNTED) !== 0 &&
        dataOffset + length + commitSize <= pageSize &&
        page + dataOffset + length + commitSize <= bytes.length;
      const place = page + dataOffset + length + (little || commitSize === 4 ? 0 : 4);
      const count = counted ? view.getUint32(place, little) : 0;
      this.lost = this.isLost && this.lost < 0 || !counted ? -1 : this.lost + count;
      this.isLost = true;
    }
    return true;
  }

  /** Gives up the rest of a page; what comes after it is read on. */
  #broken(what: string): void {
    this.#fault({ offset: this.#offset + this.#at, what: `${what}, on CPU ${this.cpu}` });
    this.#at = this.#end = 0;
    this.lost = -1;
    this.isLost = true;
  }
}
