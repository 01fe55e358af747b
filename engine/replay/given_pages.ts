/**
 * What pages of guest memory were set to from outside, to see that a page is what it is to be.
 *
 * @module
 */
import type { Image } from "../event.ts";
import { type GuestMemory, PAGE_SIZE } from "../svm/memory.ts";

/** The images that pages were set to last. */
export class GivenPages {
  /** Numbers of the pages that were set, in the order in which they were set first. */
  readonly numbers: number[] = [];
  #memory: GuestMemory | undefined;
  /** By number of the page: its image, the image's revision, and the page's version behind that. */
  readonly #images: (Image | undefined)[] = [];
  readonly #revisions: number[] = [];
  readonly #versions: number[] = [];

  /**
   * Whether a page holds an image that it was set to, and neither changed since.
   *
   * @param memory The guest's memory.
   * @param gpa Where the page lies.
   * @param image The image.
   */
  holds(memory: GuestMemory, gpa: number, image: Image): boolean {
    const page = gpa / PAGE_SIZE | 0;
    return this.#images[page] === image && this.#revisions[page] === image.revision &&
      memory === this.#memory && this.#versions[page] === memory.versions[page];
  }

  /**
   * Notes that a page was set to an image.
   *
   * @param memory The guest's memory.
   * @param gpa Where the page lies; not behind the end of memory.
   * @param image The image.
   */
  set(memory: GuestMemory, gpa: number, image: Image): void {
    const page = gpa / PAGE_SIZE | 0, images = this.#images;
    if (memory !== this.#memory) {
      this.#memory = memory;
      images.length = this.numbers.length = 0;
    }
    // Without holes it is no hash table.
    while (images.length <= page) {
      images.push(undefined);
      this.#revisions.push(0);
      this.#versions.push(0);
    }
    if (images[page] === undefined) this.numbers.push(page);
    images[page] = image;
    // Of an image without one it is not known whether it changes: no number is like this one.
    this.#revisions[page] = image.revision ?? NaN;
    this.#versions[page] = memory.versions[page] as number;
  }
}
