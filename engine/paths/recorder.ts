/**
 * Recording a path: following, word by word, what a run reads, and where what it writes comes from.
 *
 * A word that is only copied says nothing of the way that the run took: it is carried, whatever it
 * holds. Every other one that is read is a guard: the path is another one where it holds something
 * else. What follows from guards alone is the same each time.
 *
 * @module
 */
import {
  changeOfShort,
  copyShort,
  type Observer,
  sameShort,
  shortState,
  type Vcpu,
} from "../kvm/vcpu.ts";
import type { AccessRecorder } from "../svm/access.ts";
import { MACHINE_SIZE, MAPPED_AT } from "../svm/machine.ts";
import { PAGE_SIZE } from "../svm/memory.ts";
import { wordAt } from "../svm/page_word.ts";
import { HistoryRecorder } from "./history.ts";
import { allocatedWord, type Guards, memoryWord, peek, type WordNumber } from "./guards.ts";
import { RecordedVcpu } from "./recorded_vcpu.ts";
import { type PageWrites, Path, type Stage, type Writes } from "./path.ts";

/** A word that follows from guards alone. */
const FOLLOWS = -1;
/** Words that a path depends on or writes at most: a longer one is not worth it. */
const LONGEST = 1 << 11;
/** Words of the work area: nobody reads them without having mapped a page there. */
const WORK_FROM = MAPPED_AT >> 2, WORK_TO = MACHINE_SIZE >> 2;
const PAGE_WORDS = PAGE_SIZE / 4;

/** What is known of a word that may have been written. */
const DIRTY = 1, WRITTEN = 2, GUARD = 4;

/** What is written of the state or of a page, while it is collected. */
class Writing implements Writes {
  readonly copied: number[] = [];
  readonly carried: number[] = [];
  readonly set: number[] = [];
  readonly values: number[] = [];
}

/** Words of the state, or of a page of guest memory, as the run leaves them. */
class Words {
  /** Where each comes from, and what is known of it. */
  readonly origin: Int32Array;
  readonly marks: Uint8Array;
  /** Those that were set since something was last told. */
  dirty: number[] = [];
  /** Number of the first. */
  readonly first: WordNumber;

  constructor(first: WordNumber, count: number) {
    this.first = first;
    this.origin = new Int32Array(count);
    this.marks = new Uint8Array(count);
    this.begin();
  }

  /** Each is what it was. */
  begin(): void {
    for (let i = 0; i < this.origin.length; i++) this.origin[i] = this.first + i;
    this.marks.fill(0);
    this.dirty = [];
  }

  set(word: number, from: number): void {
    const mark = this.marks[word] as number;
    if (this.origin[word] === from && from !== FOLLOWS && (mark & (DIRTY | WRITTEN)) === 0) return;
    this.origin[word] = from;
    if ((mark & DIRTY) === 0) this.dirty.push(word);
    this.marks[word] = mark | DIRTY;
  }
}

/** A page of guest memory that the run has written. */
class Page extends Words {
  /** Whether since something was last told. */
  touched = false;
}

/** Records paths of vCPUs of one size, one path at a time. */
export class PathRecorder implements AccessRecorder {
  readonly #given: boolean;
  readonly #stateWords: number;
  readonly #state: Words;
  #recorded: RecordedVcpu | undefined;
  #v!: Vcpu;
  #words!: Uint32Array;
  readonly #pages = new Map<number, Page>();
  #numbers: WordNumber[] = [];
  #values: number[] = [];
  /** Values of guards by their numbers. */
  readonly #guards = new Map<WordNumber, number>();
  readonly #carried = new Map<WordNumber, number>();
  #stages: Stage[] = [];
  #loose!: ReturnType<typeof shortState>;
  #failed = false;
  /** Whether steps are told, for which the work area is as they leave it. */
  #steps = false;
  /** What the observer learns afterwards instead of being told. */
  #history: HistoryRecorder | undefined;
  /** Page that the work area became a copy of before anything else happened in this stage; or -1. */
  #mapped = -1;

  /**
   * Makes room for the words of a state.
   *
   * @param stateWords How many.
   * @param given Whether the work area holds something to begin with.
   */
  constructor(stateWords: number, given: boolean) {
    this.#given = given;
    this.#stateWords = stateWords;
    this.#state = new Words(0, stateWords);
  }

  /**
   * Has something done, and records its path.
   *
   * @param v The vCPU.
   * @param run What is to be done.
   * @returns What the path depends on, and the path; without it where it could not be followed to its
   * end, which depends on the same.
   */
  record(v: Vcpu, run: (v: Vcpu) => void): { guards: Guards; path: Path | undefined } {
    const { observer } = v;
    this.#history = observer?.followed && new HistoryRecorder();
    this.#steps = observer?.step !== undefined && this.#history === undefined;
    const recorded = this.#recorded ??= new RecordedVcpu(v, this);
    this.#begin(v);
    recorded.begin(v);
    recorded.observer = observer && this.#listen(observer, recorded);
    try {
      run(recorded);
    } finally {
      recorded.end(v);
    }
    const guards = { numbers: this.#numbers, values: this.#values };
    if (this.#failed) return { guards, path: undefined };
    const history = this.#history;
    if (history !== undefined) {
      this.#note(undefined);
      // What could be told is known; all is set at once.
      this.#state.dirty = [...history.ever];
    }
    this.#tell(undefined);
    const sources = [...this.#carried.keys()];
    const path = new Path(this.#stateWords, sources, this.#stages, history?.notes);
    return { guards, path };
  }

  #begin(v: Vcpu): void {
    this.#state.begin();
    this.#pages.clear();
    this.#numbers = [];
    this.#values = [];
    this.#guards.clear();
    this.#carried.clear();
    this.#stages = [];
    this.#failed = false;
    this.#mapped = -1;
    this.#v = v;
    this.#words = v.words;
    this.#loose = shortState(v);
  }

  /** Hears what an observer is to be told, and has it told each time the path is followed. */
  #listen(observer: Observer, recorded: RecordedVcpu): Observer {
    const tell = (what: (observer: Observer, v: Vcpu) => void) => {
      const v = this.#v;
      copyShort(v, recorded);
      if (this.#failed) {
        what(observer, v);
        return;
      }
      if (this.#history === undefined) this.#tell(what);
      else this.#note(what);
      v.memory.recorder = undefined;
      what(observer, v);
      v.memory.recorder = this;
    };
    const { begin, end, step, switched, unmodelled } = observer;
    return {
      check: (id, text) => tell((o) => o.check(id, text)),
      warn: (text, step) => tell((o) => o.warn(text, step)),
      inner: (at, ret) => {
        if (this.#history === undefined) tell((o, v) => o.inner(at, ret, v));
      },
      ...(switched && { switched: (to) => tell((o, v) => o.switched?.(to, v)) }),
      ...(unmodelled && { unmodelled: (what) => tell((o) => o.unmodelled?.(what)) }),
      ...(begin && { begin: (way) => tell((o, v) => o.begin?.(way, v)) }),
      ...(end && { end: (way, outcome) => tell((o, v) => o.end?.(way, outcome, v)) }),
      ...(step && { step: (step) => tell((o, v) => o.step?.(step, v)) }),
    };
  }

  /** Is told of reads of the state. */
  read(at: number, length: number): void {
    const last = at + length - 1 >> 2;
    for (let i = at >> 2; i <= last; i++) {
      const from = this.#state.origin[i] as number;
      if (from !== FOLLOWS) this.#guard(from, this.#words[i] as number);
    }
  }

  /** Is told of writes of the state. */
  write(at: number, length: number): void {
    const first = at >> 2, last = at + length - 1 >> 2;
    // Of a word that is written in part, the rest must follow from guards, too.
    if ((at & 3) !== 0) this.read(first * 4, 1);
    if ((at + length & 3) !== 0) this.read(last * 4, 1);
    for (let i = first; i <= last; i++) this.#set(i, FOLLOWS);
  }

  /** Is told of copies within the state. */
  copy(to: number, from: number, length: number): void {
    if (((to | from | length) & 3) !== 0) {
      this.read(from, length);
      this.write(to, length);
      return;
    }
    const first = to >> 2, source = from >> 2, count = length >> 2;
    if (to <= from) {
      for (let i = 0; i < count; i++) {
        this.#set(first + i, this.#state.origin[source + i] as number);
      }
    } else {
      for (let i = count - 1; i >= 0; i--) {
        this.#set(first + i, this.#state.origin[source + i] as number);
      }
    }
  }

  /** Is told of reads of guest memory. */
  readMemory(gpa: number, length: number): void {
    const { memory } = this.#v;
    for (let at = gpa - gpa % 4; at < gpa + length; at += 4) {
      const from = this.#from(at);
      if (from !== FOLLOWS) this.#guard(from, peek(memory, at));
    }
  }

  /** Is told of writes of guest memory. */
  writeMemory(gpa: number, length: number): void {
    const end = gpa + length;
    if (gpa % 4 !== 0) this.readMemory(gpa, 1);
    if (end % 4 !== 0) this.readMemory(end - 1, 1);
    const page = this.#page(gpa);
    for (let at = gpa - gpa % 4; at < end; at += 4) page.set(at % PAGE_SIZE >> 2, FOLLOWS);
  }

  /** Is told of copies from guest memory. */
  copyFromMemory(to: number, gpa: number, length: number): void {
    if (((to | length) & 3) !== 0 || gpa % 4 !== 0) {
      this.readMemory(gpa, length);
      this.write(to, length);
      return;
    }
    const whole = to === MAPPED_AT && length === PAGE_SIZE;
    const maps = this.#steps && whole, history = whole ? this.#history : undefined;
    // What was written up to here is there when the page is copied whole.
    if (maps) this.#tell(undefined);
    if (history !== undefined) {
      this.#note(undefined);
      history.map(Math.floor(gpa / PAGE_SIZE));
    }
    const { origin: own } = this.#pages.get(Math.floor(gpa / PAGE_SIZE)) ?? {};
    const inPage = gpa % PAGE_SIZE >> 2, first = memoryWord(this.#stateWords, gpa), into = to >> 2;
    for (let i = 0; i < length >> 2; i++) {
      const from = own === undefined ? first + i : own[inPage + i] as number;
      if (!maps && history === undefined) {
        this.#set(into + i, from);
        continue;
      }
      this.#state.origin[into + i] = from;
      if (from !== first + i) history?.work(into + i);
    }
    if (maps) this.#mapped = Math.floor(gpa / PAGE_SIZE);
  }

  /** Is told of copies to guest memory. */
  copyToMemory(gpa: number, from: number, length: number): void {
    if (((from | length) & 3) !== 0 || gpa % 4 !== 0) {
      this.read(from, length);
      this.writeMemory(gpa, length);
      return;
    }
    const page = this.#page(gpa);
    for (let i = 0; i < length; i += 4) {
      page.set((gpa + i) % PAGE_SIZE >> 2, this.#state.origin[from + i >> 2] as number);
    }
  }

  /** Is told when a page's being there is looked at. */
  readAllocated(gpa: number): void {
    // What the run itself has written is there.
    if (this.#pages.has(Math.floor(gpa / PAGE_SIZE))) return;
    const { memory } = this.#v;
    memory.recorder = undefined;
    this.#guard(allocatedWord(gpa), memory.allocated(gpa) ? 1 : 0);
    memory.recorder = this;
  }

  /** Is told that what follows depends on more than can be followed. */
  giveUp(): void {
    this.#failed = true;
    this.#v.memory.recorder = undefined;
    if (this.#recorded !== undefined) this.#recorded.recorder = undefined;
  }

  #guard(number: WordNumber, value: number): void {
    if (number >= 0 && number < this.#stateWords) {
      if (((this.#state.marks[number] as number) & GUARD) !== 0) return;
      this.#state.marks[number]! |= GUARD;
      if (!this.#given && number >= WORK_FROM && number < WORK_TO) this.giveUp();
    } else if (this.#guards.has(number)) return;
    if (this.#numbers.length === LONGEST) this.giveUp();
    if (this.#failed) return;
    this.#guards.set(number, value);
    this.#numbers.push(number);
    this.#values.push(value);
  }

  #set(word: number, from: number): void {
    const nobodys = !this.#steps && word >= WORK_FROM && word < WORK_TO;
    if (nobodys) {
      this.#state.origin[word] = from;
      // What it was before would count, and is nobody's.
      if (this.#history?.work(word) === false) this.giveUp();
    } else this.#state.set(word, from);
  }

  /** Where the word of guest memory at an address comes from. */
  #from(gpa: number): number {
    const page = this.#pages.get(Math.floor(gpa / PAGE_SIZE));
    return page === undefined
      ? memoryWord(this.#stateWords, gpa)
      : page.origin[gpa % PAGE_SIZE >> 2] as number;
  }

  /** A page that is about to be written. */
  #page(gpa: number): Page {
    const number = Math.floor(gpa / PAGE_SIZE);
    let page = this.#pages.get(number);
    if (page === undefined) {
      page = new Page(memoryWord(this.#stateWords, number * PAGE_SIZE), PAGE_WORDS);
      this.#pages.set(number, page);
    }
    page.touched = true;
    return page;
  }

  /** Notes what was set up to here, and what is told. */
  #note(tell: Stage["tell"]): void {
    const { dirty, marks, origin } = this.#state;
    for (const word of dirty) {
      marks[word]! &= ~DIRTY;
      const from = origin[word] as number;
      // Of words behind the machine's nobody keeps what they were.
      const behind = from >= MACHINE_SIZE >> 2 && from < this.#stateWords;
      if (behind) this.#guard(from, this.#words[word] as number);
    }
    const copied = (from: WordNumber) => this.#guards.has(from) ? FOLLOWS : from;
    this.#history?.note(dirty, (word) => copied(origin[word] as number), this.#words, tell);
    this.#state.dirty = [];
  }

  /** Ends a stage. */
  #tell(tell: Stage["tell"]): void {
    const state = this.#writesOf(this.#state, 1, (word) => this.#words[word] as number);
    const { memory } = this.#v;
    const pages: PageWrites[] = [];
    for (const [number, page] of this.#pages) {
      if (!page.touched) continue;
      page.touched = false;
      const bytes = memory.page(number * PAGE_SIZE);
      const writes = this.#writesOf(page, 4, (word) => wordAt(bytes, word * 4));
      pages.push({ page: number, ...writes });
    }
    const mapped = this.#mapped;
    this.#mapped = -1;
    this.#stages.push({ ...state, mapped, pages, ...this.#short(), tell });
  }

  /** What was set of words; a word's place is its number times a size. */
  #writesOf(words: Words, size: number, valueOf: (word: number) => number): Writes {
    const { origin, marks, first, dirty } = words;
    const writing = new Writing();
    for (const word of dirty) {
      const mark = marks[word] as number;
      const from = origin[word] as number, written = (mark & WRITTEN) !== 0;
      const noted = this.#emit(writing, word * size, first + word, from, valueOf(word), written);
      marks[word] = noted ? mark & ~DIRTY | WRITTEN : mark & ~DIRTY;
    }
    words.dirty = [];
    return writing;
  }

  /** Notes what a word becomes, unless it is that already; whether it was noted. */
  #emit(
    into: Writing,
    at: number,
    number: WordNumber,
    from: number,
    value: number,
    written: boolean,
  ): boolean {
    const known = from === FOLLOWS ? value : this.#guards.get(from);
    if (!written) {
      if (from === number || known !== undefined && this.#guards.get(number) === known) {
        return false;
      }
    }
    if (known !== undefined) {
      into.set.push(at);
      into.values.push(known);
      return true;
    }
    let slot = this.#carried.get(from);
    if (slot === undefined) this.#carried.set(from, slot = this.#carried.size);
    into.copied.push(at);
    into.carried.push(slot);
    return true;
  }

  /** What changed since the last stage of what is no byte. */
  #short(): Pick<Stage, "loose" | "result"> {
    const v = this.#v, before = this.#loose;
    if (sameShort(v, before)) return { loose: undefined, result: undefined };
    const loose = changeOfShort(before, v);
    copyShort(before, v);
    return { loose, result: { ...v.result } };
  }
}
