/**
 * What pages of guest memory were set to from outside, to see that a page is what it is to be.
 *
 * @module
 */
import type { Image } from "../event.ts";
import { type GuestMemory, PAGE_SIZE } from "../svm/memory.ts";
import { PageHistory } from "../svm/page_history.ts";

/** No revision is like this. */
const NOT_TOLD = -1;

/** The images that pages were set to last. */
export class GivenPages {
  /** Numbers of the pages that were set, in the order in which they were set first. */
  readonly numbers: number[] = [];
  #memory: GuestMemory | undefined;
  /** By number of the page: its image, the image's revision, and the page's version behind that. */
  readonly #images: (Image | undefined)[] = [];
  #revisions = new Float64Array(0);
  #versions = new Uint32Array(0);
  /** The number of its content. */
  #contents = new Float64Array(0);

  /**
   * Whether a page holds an image that it was set to, and neither changed since. Where paths alone
   * wrote the page since, that is undone.
   *
   * @param memory The guest's memory.
   * @param gpa Where the page lies; not behind the end of memory.
   * @param image The image.
   */
  holds(memory: GuestMemory, gpa: number, image: Image): boolean {
    const page = gpa / PAGE_SIZE | 0;
    if (this.#images[page] !== image || this.#revisions[page] !== image.revision) return false;
    if (memory !== this.#memory) return false;
    return this.#versions[page] === memory.versions[page] || this.#undone(memory, page);
  }

  #undone(memory: GuestMemory, page: number): boolean {
    const { bytes } = this.#images[page] as Image;
    if (!memory.undoWrites(page, bytes)) return false;
    this.#begin(memory, page);
    return true;
  }

  /**
   * Notes that a page was set to an image.
   *
   * @param memory The guest's memory.
   * @param gpa Where the page lies; not behind the end of memory.
   * @param image The image.
   */
  set(memory: GuestMemory, gpa: number, image: Image): void {
    const page = gpa / PAGE_SIZE | 0;
    if (memory !== this.#memory) this.#take(memory);
    const images = this.#images, contents = this.#contents;
    // Without holes it is no hash table.
    while (images.length <= page) images.push(undefined);
    const before = images[page], revision = image.revision ?? NOT_TOLD;
    if (before === undefined) this.numbers.push(page);
    // Of an image without a revision it is not known whether it changes.
    if (before !== image || revision === NOT_TOLD || revision !== this.#revisions[page]) {
      images[page] = image;
      this.#revisions[page] = revision;
      contents[page] = PageHistory.another();
    }
    this.#begin(memory, page);
  }

  /** Begins with another memory, of which no page was set. */
  #take(memory: GuestMemory): void {
    this.#memory = memory;
    this.#images.length = 0;
    this.numbers.length = 0;
    const { length } = memory.versions;
    // Nobody looks at what is there of pages without an image.
    if (this.#versions.length >= length) return;
    this.#revisions = new Float64Array(length);
    this.#versions = new Uint32Array(length);
    this.#contents = new Float64Array(length);
  }

  #begin(memory: GuestMemory, page: number): void {
    const { bytes } = this.#images[page] as Image;
    // A shorter image says nothing of the rest of the page.
    if (bytes.length === PAGE_SIZE) memory.setTo(page, this.#contents[page] as number);
    this.#versions[page] = memory.versions[page] as number;
  }
}
