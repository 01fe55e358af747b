/**
 * A vCPU of which every access is told to a recorder.
 *
 * @module
 */
import { SETTLED } from "./words.ts";
import type { AccessRecorder } from "../svm/access.ts";
import type { Machine } from "../svm/machine.ts";
import { copyLoose } from "../kvm/loose_state.ts";
import { Vcpu } from "../kvm/vcpu.ts";

/**
 * Stands in for a vCPU while a path is recorded, on the same bytes and the same memory. That it is
 * another class keeps the vCPU that is not recorded free of any question whether it is.
 */
export class RecordedVcpu extends Vcpu {
  readonly #recorder: AccessRecorder;
  /** What is known of each word: those that are settled need not be told of again. */
  readonly #marks: Uint8Array;

  /**
   * Makes one for vCPUs with the same capabilities under the same policy.
   *
   * @param v One of them.
   * @param recorder Who is told of accesses.
   * @param marks What the recorder knows of each word of the state.
   */
  constructor(v: Vcpu, recorder: AccessRecorder, marks: Uint8Array) {
    // It works on the bytes and on the memory of others: it needs none of its own.
    super({ ...v.caps, memory: 0 }, v.policy);
    Object.assign(this, { caps: v.caps } satisfies Pick<Machine, "caps">);
    this.#recorder = recorder;
    this.#marks = marks;
  }

  #settled(word: number): boolean {
    return ((this.#marks[word] as number) & SETTLED) !== 0;
  }

  /**
   * Stands in for a vCPU from now on.
   *
   * @param v The vCPU.
   */
  begin(v: Vcpu): void {
    const { bytes, words, view, memory } = v;
    const shared: Pick<Machine, "bytes" | "words" | "view" | "memory"> = {
      bytes,
      words,
      view,
      memory,
    };
    Object.assign(this, shared);
    copyLoose(this, v);
    this.recorder = this.memory.recorder = this.#recorder;
  }

  /**
   * Hands over what is no byte, and stops telling of accesses.
   *
   * @param v The vCPU that it stands in for.
   */
  end(v: Vcpu): void {
    copyLoose(v, this);
    this.recorder = this.memory.recorder = undefined;
  }

  /** Byte at an offset. */
  override u8(at: number): number {
    if (!this.#settled(at >> 2)) this.recorder?.read(at, 1);
    return super.u8(at);
  }

  /** 16-bit value at an offset. */
  override u16(at: number): number {
    this.recorder?.read(at, 2);
    return super.u16(at);
  }

  /** 32-bit value at an offset that is a multiple of 4. */
  override u32(at: number): number {
    if (!this.#settled(at >> 2)) this.recorder?.read(at, 4);
    return super.u32(at);
  }

  /** The same by the number of the word. */
  override word(index: number): number {
    if (!this.#settled(index)) this.recorder?.read(index << 2, 4);
    return super.word(index);
  }

  /** 64-bit value at an offset. */
  override u64(at: number): bigint {
    this.recorder?.read(at, 8);
    return super.u64(at);
  }

  /** Sets a byte. */
  override set8(at: number, value: number): void {
    this.recorder?.write(at, 1);
    super.set8(at, value);
  }

  /** Sets a 16-bit value. */
  override set16(at: number, value: number): void {
    this.recorder?.write(at, 2);
    super.set16(at, value);
  }

  /** Sets a 32-bit value; the offset is a multiple of 4, the value may be signed. */
  override set32(at: number, value: number): void {
    this.recorder?.writeWord(at >> 2);
    super.set32(at, value);
  }

  /** The same by the number of the word. */
  override setWord(index: number, value: number): void {
    this.recorder?.writeWord(index);
    super.setWord(index, value);
  }

  /** Sets a 64-bit value, taken modulo 2^64. */
  override set64(at: number, value: bigint): void {
    this.recorder?.write(at, 8);
    super.set64(at, value);
  }

  /** Sets bits of a 32-bit value. */
  override or32(at: number, bits: number): void {
    if (!this.#settled(at >> 2)) this.recorder?.read(at, 4);
    this.recorder?.writeWord(at >> 2);
    super.or32(at, bits);
  }

  /** Clears bits of a 32-bit value. */
  override clear32(at: number, bits: number): void {
    if (!this.#settled(at >> 2)) this.recorder?.read(at, 4);
    this.recorder?.writeWord(at >> 2);
    super.clear32(at, bits);
  }

  /** Copies a 64-bit value; both offsets are multiples of 4. */
  override copy64(to: number, from: number): void {
    this.recorder?.copy(to, from, 8);
    super.copy64(to, from);
  }

  /** Copies bytes within the state. */
  override copy(to: number, from: number, length: number): void {
    this.recorder?.copy(to, from, length);
    super.copy(to, from, length);
  }

  /** Zeroes bytes from one offset up to another. */
  override zero(from: number, to: number): void {
    this.recorder?.write(from, to - from);
    super.zero(from, to);
  }

  /** Copies bytes of one page of guest memory into the state. The address must be backed. */
  override copyFromMemory(to: number, gpa: number, length: number): void {
    this.recorder?.copyFromMemory(to, gpa, length);
    super.copyFromMemory(to, gpa, length);
  }

  /** Copies bytes of the state into one page of guest memory. The address must be backed. */
  override copyToMemory(gpa: number, from: number, length: number): void {
    this.recorder?.copyToMemory(gpa, from, length);
    super.copyToMemory(gpa, from, length);
  }

  /** Copies words of the state to somewhere outside of it. */
  override copyOut(to: Uint32Array, at: number, from: number, count: number): void {
    this.recorder?.copyOut(to, at, from, count);
    super.copyOut(to, at, from, count);
  }

  /** Sets a word outside of the state. */
  override setOut(to: Uint32Array, at: number, value: number): void {
    this.recorder?.setOut(to, at);
    super.setOut(to, at, value);
  }
}
