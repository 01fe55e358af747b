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
  readonly #revisions: number[] = [];
  readonly #versions: number[] = [];
  /** The number of its content. */
  readonly #contents: number[] = [];

  /**
   * Whether a page holds an image that it was set to, and neither changed since. Where paths alone
   * wrote the page since, that is undone.
   *
   * @param memory The guest's memory.
   * @param gpa Where the page lies.
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
    const images = this.#images, contents = this.#contents;
    if (memory !== this.#memory) {
      this.#memory = memory;
      for (const list of [images, contents, this.#revisions, this.#versions, this.numbers]) {
        list.length = 0;
      }
    }
    // Without holes they are no hash tables.
    while (images.length <= page) {
      images.push(undefined);
      contents.push(0);
      this.#revisions.push(NOT_TOLD);
      this.#versions.push(0);
    }
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

  #begin(memory: GuestMemory, page: number): void {
    const { bytes } = this.#images[page] as Image;
    // A shorter image says nothing of the rest of the page.
    if (bytes.length === PAGE_SIZE) memory.setTo(page, this.#contents[page] as number);
    this.#versions[page] = memory.versions[page] as number;
  }
}
