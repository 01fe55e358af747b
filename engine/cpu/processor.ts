/**
 * The processor between VMRUN and #VMEXIT: how it raises exceptions, exits and
 * reaches memory.
 *
 * @module
 */
import { EXIT, EXIT_CODE, FAULT, FLAG, SEG, VECTOR } from "./constants.ts";
import { ALL_REGISTERS, recordUse } from "./carried.ts";
import { watch } from "./breakpoints.ts";
import { Registers } from "./registers.ts";
import { CONTROL } from "./vmcb_words.ts";
import { wordAt } from "../svm/page_word.ts";
import { Translations } from "../paging/translations.ts";
import {
  FETCH,
  PF,
  READ,
  SUPERVISOR,
  SUPERVISOR_AC,
  USER,
  Walk,
  WALK_STAGE2,
  WRITE,
} from "../paging/walk.ts";

const HIGH = 0x1_0000_0000;

/** The processor. One instance serves any number of runs, one after another. */
export class Processor extends Registers {
  readonly #second: Walk = new Walk();
  /** What it knows of where addresses lead, as long as that is what its tables say. */
  readonly translations: Translations = new Translations();
  // Whether the access is the processor's own, to descriptor tables and the like.
  #system = false;

  /** What follows depends on registers that the guest carries. */
  uses(registers: number): void {
    if (this.m.recorder !== undefined) recordUse(this, registers);
  }

  /** Whether an exit code below 0x90 is intercepted. */
  intercepted(code: number): boolean {
    if (code >= 0x60) {
      const bits = this.m.word(this.at + CONTROL.word3 + (code >> 5) - 3);
      return (bits >>> (code & 31) & 1) !== 0;
    }
    const index = code < 0x20 ? CONTROL.crs : code < 0x40 ? CONTROL.drs : CONTROL.exceptions;
    return (this.m.word(this.at + index) >>> (code & 31) & 1) !== 0;
  }

  /** #VMEXIT with an exit code and EXITINFO1. */
  vmexit(code: number, info1: number, info1High = 0): number {
    const { m, at } = this;
    m.setWord(at + CONTROL.exitCode, code);
    m.setWord(at + CONTROL.exitCode + 1, 0);
    m.setWord(at + CONTROL.info1, info1);
    m.setWord(at + CONTROL.info1 + 1, info1High);
    this.oldException = -1;
    return EXIT;
  }

  /** EXITINFO2. */
  setInfo2(lo: number, hi: number): void {
    this.m.setWord(this.at + CONTROL.info2, lo);
    this.m.setWord(this.at + CONTROL.info2 + 1, hi);
  }

  /** Exits if the code is intercepted. */
  check(code: number, info1 = 0): boolean {
    if (!this.intercepted(code)) return false;
    this.vmexit(code, info1);
    return true;
  }

  /** Raises an exception: its intercept, double faults and shutdown come first. */
  raise(vector: number, error = 0): number {
    if (vector >= VECTOR.ts && vector <= VECTOR.gp) error |= this.external;
    this.injected = false;
    this.checksDpl = false;
    if (this.intercepted(EXIT_CODE.exception + vector)) {
      return this.vmexit(EXIT_CODE.exception + vector, error);
    }
    const old = this.oldException;
    if (old === VECTOR.df) return this.vmexit(EXIT_CODE.shutdown, 0);
    const contributory = vector === 0 || (vector >= 10 && vector <= 13);
    if (
      ((old === 0 || (old >= 10 && old <= 13)) && contributory) ||
      (old === VECTOR.pf && (contributory || vector === VECTOR.pf))
    ) {
      vector = VECTOR.df;
      error = 0;
      if (!this.model.doubleFaultNotIntercepted && this.intercepted(EXIT_CODE.exception + 8)) {
        return this.vmexit(EXIT_CODE.exception + 8, 0);
      }
    }
    if (contributory || vector === VECTOR.pf || vector === VECTOR.df) this.oldException = vector;
    this.vector = vector;
    this.errorCode = error;
    this.isInt = false;
    return FAULT;
  }

  /** Raises the exception of INT3 or INTO. */
  softException(vector: number, nextLo: number, nextHi: number): number {
    if (this.model.breakpointIsInterrupt) return this.softInterrupt(vector, nextLo, nextHi);
    if (this.check(EXIT_CODE.exception + vector)) return EXIT;
    return this.#soft(vector, nextLo, nextHi, true);
  }

  /** Raises the #DB of ICEBP, which the intercept of #DB does not see. */
  icebp(nextLo: number, nextHi: number): number {
    if (this.check(EXIT_CODE.icebp)) return EXIT;
    return this.#soft(VECTOR.db, nextLo, nextHi, true);
  }

  /** Raises a software interrupt (INT n). */
  softInterrupt(vector: number, nextLo: number, nextHi: number): number {
    if (this.check(EXIT_CODE.swint)) return EXIT;
    return this.#soft(vector, nextLo, nextHi, false);
  }

  #soft(vector: number, nextLo: number, nextHi: number, isException: boolean): number {
    this.vector = vector;
    this.errorCode = 0;
    this.isInt = true;
    this.isException = isException;
    this.injected = false;
    this.checksDpl = false;
    this.nextLo = nextLo;
    this.nextHi = nextHi;
    return FAULT;
  }

  /** Word of EVENTINJ or its error code. */
  eventInjected(part = 0): number {
    return this.m.word(this.at + CONTROL.eventInj + part);
  }

  /** Sets EVENTINJ or its error code, where the processor keeps the event under delivery. */
  setEvent(value: number, part = 0): void {
    this.m.setWord(this.at + CONTROL.eventInj + part, value);
  }

  /** Vector of the virtual interrupt; QEMU takes the whole word. */
  get virqVector(): number {
    return this.m.word(this.at + CONTROL.intVector) & 0xff;
  }

  /** Privilege of the program's own accesses. */
  get who(): number {
    return this.cpl === 3 ? USER : this.whoSystem;
  }

  /** Privilege of the processor's accesses to descriptor tables and the TSS. */
  get whoSystem(): number {
    return this.cpl < 3 && (this.rflags & FLAG.ac) !== 0 ? SUPERVISOR_AC : SUPERVISOR;
  }

  /** Translates; on failure {@linkcode Processor.failure} says what happened. */
  translate(lo: number, hi: number, access: number, who: number, out: Walk): boolean {
    // Which addresses have 64 bits: the program's in 64-bit mode, the system's in long mode.
    if (this.width !== 64 && !(this.longMode && this.#system)) hi = 0;
    if (this.longMode && this.cr0 >= 0x80000000) {
      const top = hi >> ((this.cr4 & 1 << 12) !== 0 ? 24 : 15);
      if (top !== 0 && top !== -1) {
        if (this.intercepted(EXIT_CODE.exception + VECTOR.gp)) {
          this.uses(ALL_REGISTERS);
          this.setInfo2(this.cr2Lo, this.cr2Hi);
        }
        this.failure = this.raise(VECTOR.gp);
        return false;
      }
    }
    const known = this.translations;
    if (known.find(this, lo, hi, access, who, out)) return true;
    if (this.paging.translate(this.m, this, lo, hi, access, who, out)) {
      known.add(this, lo, hi, access, who, out);
      return true;
    }
    if (out.outcome === WALK_STAGE2) {
      const low = out.stage2Address >>> 0;
      this.setInfo2(low, (out.stage2Address - low) / HIGH);
      this.failure = this.vmexit(EXIT_CODE.npf, out.error, out.onTable ? 2 : 1);
      return false;
    }
    if (this.intercepted(EXIT_CODE.exception + VECTOR.pf)) this.setInfo2(lo, hi);
    else {
      this.uses(ALL_REGISTERS);
      this.cr2Lo = lo;
      this.cr2Hi = hi >>> 0;
    }
    const { error } = out;
    const bare = (error & PF.reserved) === 0 || this.model.reservedWithoutPresent;
    this.failure = this.raise(VECTOR.pf, bare ? error : error | PF.present);
    return false;
  }

  /** Reads 1, 2, 4 or 8 bytes at a linear address into {@linkcode Processor.lo} and `hi`. */
  read(lo: number, hi: number, size: number, who: number): boolean {
    const walk = this.walk;
    if (!this.translate(lo, hi, READ, who, walk)) return false;
    if (this.armed !== 0) watch(this, lo, hi, size, false);
    const first = walk.gpa;
    const room = 4096 - (lo & 0xfff);
    let second = first + room;
    if (size > room) {
      const next = (lo + room) >>> 0;
      if (!this.translate(next, next < lo ? hi + 1 >>> 0 : hi, READ, who, this.#second)) {
        return false;
      }
      second = this.#second.gpa;
    }
    const memory = this.m.memory;
    this.hi = 0;
    if (size <= room) {
      memory.recorder?.readMemory(first, size);
      const page = memory.page(first);
      const at = lo & 0xfff;
      if (size === 1) this.lo = page[at] as number;
      else if (size === 2) this.lo = (page[at] as number) | (page[at + 1] as number) << 8;
      else {
        this.lo = wordAt(page, at);
        if (size === 8) this.hi = wordAt(page, at + 4);
      }
      return true;
    }
    this.lo = 0;
    for (let i = 0; i < size; i++) {
      const byte = memory.read8(i < room ? first + i : second + i - room);
      if (i < 4) this.lo = (this.lo | byte << i * 8) >>> 0;
      else this.hi = (this.hi | byte << (i - 4) * 8) >>> 0;
    }
    return true;
  }

  /** Writes 1, 2, 4 or 8 bytes at a linear address from `valueLo` and `valueHi`. */
  write(
    lo: number,
    hi: number,
    size: number,
    valueLo: number,
    valueHi: number,
    who: number,
  ): boolean {
    const walk = this.walk;
    if (!this.translate(lo, hi, WRITE, who, walk)) return false;
    if (this.armed !== 0) watch(this, lo, hi, size, true);
    const first = walk.gpa;
    const room = 4096 - (lo & 0xfff);
    let second = first + room;
    if (size > room) {
      const next = (lo + room) >>> 0;
      if (!this.translate(next, next < lo ? hi + 1 >>> 0 : hi, WRITE, who, this.#second)) {
        return false;
      }
      second = this.#second.gpa;
    }
    const memory = this.m.memory;
    if (size <= room) {
      memory.recorder?.writeMemory(first, size);
      const page = memory.writable(first);
      const at = lo & 0xfff;
      page[at] = valueLo;
      if (size > 1) page[at + 1] = valueLo >>> 8;
      if (size > 2) {
        page[at + 2] = valueLo >>> 16;
        page[at + 3] = valueLo >>> 24;
      }
      for (let i = 4; i < size; i++) page[at + i] = valueHi >>> (i - 4) * 8;
      return true;
    }
    for (let i = 0; i < size; i++) {
      const byte = (i < 4 ? valueLo >>> i * 8 : valueHi >>> (i - 4) * 8) & 0xff;
      memory.write8(i < room ? first + i : second + i - room, byte);
    }
    return true;
  }

  /** Reads for the processor itself (descriptor tables, TSS, IDT). */
  readSystem(lo: number, hi: number, size: number): boolean {
    this.#system = true;
    const ok = this.read(lo, hi, size, this.whoSystem);
    this.#system = false;
    return ok;
  }

  /** Writes for the processor itself (stack frames, busy bits). */
  writeSystem(lo: number, hi: number, size: number, valueLo: number, valueHi: number): boolean {
    this.#system = true;
    const ok = this.write(lo, hi, size, valueLo, valueHi, this.whoSystem);
    this.#system = false;
    return ok;
  }

  /**
   * Fetches the bytes at RIP, up to 15 or the end of the page; `more` continues
   * on the next page.
   *
   * @returns How many bytes there are, or -1 with {@linkcode Processor.failure} set.
   */
  fetch(from: number): number {
    const base = this.width === 64 ? 0 : this.segBase[SEG.cs * 2] as number;
    let lo = (base + this.ripLo) >>> 0;
    let hi = this.width === 64 ? this.ripHi : 0;
    if (from > 0) {
      const next = (lo + from) >>> 0;
      if (next < lo) hi = this.width === 64 ? hi + 1 >>> 0 : 0;
      lo = next;
    }
    if (!this.translate(lo, hi, FETCH, this.who, this.walk)) return -1;
    const gpa = this.walk.gpa;
    const page = this.m.memory.page(gpa);
    const at = lo & 0xfff;
    const room = Math.min(15 - from, 4096 - at);
    this.m.recorder?.readMemory(gpa, room);
    const code = this.code;
    for (let i = 0; i < room; i++) code[from + i] = page[at + i] as number;
    return from + room;
  }
}
