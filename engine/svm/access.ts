/**
 * Following what a transition reads and writes of a machine.
 *
 * @module
 */

/** Of a word: reading it says nothing new, since it follows from what was read. */
export const SETTLED = 8;

/**
 * Is told of every access before it happens. Offsets are those of `Machine.bytes`, addresses guest
 * physical ones.
 */
export interface AccessRecorder {
  /** What is known of each word of the state; it need not be told that those are read which are {@linkcode SETTLED}. */
  readonly marks: Uint8Array;
  /** What follows depends on these bytes of the state. */
  read(at: number, length: number): void;
  /** These bytes of the state become something that follows from what was read. */
  write(at: number, length: number): void;
  /** The same for one word, by its number. */
  writeWord(word: number): void;
  /** Bytes of the state become copies of others. */
  copy(to: number, from: number, length: number): void;
  /** What follows depends on these bytes of one page of guest memory. */
  readMemory(gpa: number, length: number): void;
  /** These bytes of one page of guest memory become something that follows from what was read. */
  writeMemory(gpa: number, length: number): void;
  /** Bytes of the state become copies of bytes of one page. */
  copyFromMemory(to: number, gpa: number, length: number): void;
  /** Bytes of one page become copies of bytes of the state. */
  copyToMemory(gpa: number, from: number, length: number): void;
  /** Words outside of the state become copies of words of it, all by their numbers. */
  copyOut(to: Uint32Array, at: number, from: number, count: number): void;
  /** A word outside of the state becomes something that follows from what was read. */
  setOut(to: Uint32Array, at: number): void;
  /** What follows depends on whether the page that holds the address is allocated. */
  readAllocated(gpa: number): void;
  /** What follows depends on more than can be followed. */
  giveUp(): void;
}
