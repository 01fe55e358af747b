/**
 * Pages of memory that a scenario sets, before it runs and on the way, as the
 * images that events hold.
 *
 * @module
 */
import type { EventOf, Image } from "../../engine/event.ts";
import { VMCB_SIZE } from "../../engine/svm/vmcb_fields.ts";
import { basePages, FRESH_BELOW, type MemoryWriter } from "./base.ts";
import type { ImageArena } from "./image_arena.ts";
import type { LateChange, Scenario } from "./scenario.ts";
import { bytesOf, writeChanges } from "./scenario_memory.ts";
import type { PartialPage } from "./vm.ts";

const ZERO_PAGE = new Uint8Array(VMCB_SIZE);

/** One page that a scenario sets before it runs. */
export interface InputPage {
  /** Guest physical address. */
  readonly gpa: number;
  /** Its bytes, where the scenario says them all. */
  readonly whole: Uint8Array | undefined;
  /** What the scenario's own changes write of it; undefined where they write nothing. */
  readonly written: PartialPage | undefined;
}

/**
 * The pages that a scenario sets, in order of address.
 *
 * @param scenario The scenario.
 * @param zeroed Whether memory is all zeroes before.
 * @param images Where their bytes are to be.
 * @returns All pages of the base and those with changes; with `keepmem` only those with changes,
 * which are whole only where `zeroed` says what they held.
 */
export function inputPages(scenario: Scenario, zeroed: boolean, images: ImageArena): InputPage[] {
  const base = basePages();
  const fresh = !scenario.keepmem;
  // What a page holds before the scenario's own changes, where the scenario says it.
  const before = (gpa: number): Uint8Array | undefined =>
    fresh && gpa < FRESH_BELOW ? base.get(gpa) ?? ZERO_PAGE : zeroed ? ZERO_PAGE : undefined;
  const changed = new WrittenPages(images, before);
  writeChanges(scenario, changed);
  const pages: InputPage[] = [];
  for (const [gpa, page] of changed.pages) {
    if (before(gpa) === undefined) pages.push({ gpa, whole: undefined, written: page });
    else pages.push({ gpa, whole: page.bytes, written: page });
  }
  if (fresh) {
    for (let gpa = 0; gpa < FRESH_BELOW; gpa += VMCB_SIZE) {
      const whole = base.get(gpa);
      if (changed.pages.has(gpa) || zeroed && whole === undefined) continue;
      pages.push({ gpa, whole: whole ?? ZERO_PAGE, written: undefined });
    }
  }
  return pages.sort((a, b) => a.gpa - b.gpa);
}

/** What writes leave, page by page, of pages that hold something before or are not known. */
class WrittenPages implements MemoryWriter {
  /** The pages by address, in the order in which they were first written. */
  readonly pages = new Map<number, { readonly bytes: Uint8Array; readonly spans: number[] }>();
  readonly #images: ImageArena;
  readonly #before: (gpa: number) => Uint8Array | undefined;

  constructor(images: ImageArena, before: (gpa: number) => Uint8Array | undefined) {
    this.#images = images;
    this.#before = before;
  }

  write(gpa: number, bytes: Uint8Array): void {
    // A write of no bytes sets its page all the same: the lab's machine touches it.
    for (let from = 0;;) {
      const at = (gpa + from) % VMCB_SIZE;
      const page = this.#page(gpa + from - at);
      const size = Math.min(bytes.length - from, VMCB_SIZE - at);
      for (let i = 0; i < size; i++) page.bytes[at + i] = bytes[from + i] as number;
      page.spans.push(at, size);
      from += size;
      if (from >= bytes.length) return;
    }
  }

  #page(gpa: number) {
    let page = this.pages.get(gpa);
    if (page === undefined) {
      const before = this.#before(gpa) ?? ZERO_PAGE;
      const bytes = before === ZERO_PAGE
        ? this.#images.blank(VMCB_SIZE)
        : this.#images.copy(before);
      page = { bytes, spans: [] };
      this.pages.set(gpa, page);
    }
    return page;
  }
}

/** What pages hold of which nothing is known. */
function unknown(): undefined {}

/** Masks of pages that are known in part; rounds of a loop write the same places, and share one. */
export class PageMasks {
  #spans: readonly number[] = [];
  #known: Uint8Array = ZERO_PAGE;

  /** The image that an event holds of a page of which some bytes are meant. */
  image({ bytes, spans }: PartialPage): Image {
    const last = this.#spans;
    if (spans.length !== last.length || spans.some((value, i) => value !== last[i])) {
      const known = new Uint8Array(VMCB_SIZE);
      for (let i = 0; i < spans.length; i += 2) {
        const from = spans[i] as number;
        known.fill(0xff, from, from + (spans[i + 1] as number));
      }
      this.#spans = spans;
      this.#known = known;
    }
    return { bytes, known: this.#known };
  }
}

/**
 * What is written to memory on the way, while L2 is stopped or the SMI handler runs.
 *
 * @param late The writes, in order.
 * @param images Where the pages' bytes are to be.
 * @param masks Where their masks are kept.
 * @returns One event a page.
 */
export function lateMemory(
  late: readonly LateChange[],
  images: ImageArena,
  masks: PageMasks,
): EventOf<"memory">[] {
  const written = new WrittenPages(images, unknown);
  for (const change of late) {
    if (change.size > 0 && change.gpa !== undefined) written.write(change.gpa, bytesOf(change));
  }
  return Array.from(written.pages, ([gpa, page]) => memoryEvent(gpa, masks.image(page)));
}

/** The event that tells what a page was set to. */
export function memoryEvent(gpa: number, data: Image): EventOf<"memory"> {
  return { kind: "memory", vcpu: 0, gpa: BigInt(gpa), data };
}
