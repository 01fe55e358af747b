/**
 * Recording a path: following, word by word, what a run reads, and where what it writes comes from.
 *
 * A word that is only copied says nothing of the way that the run took: it is carried, whatever it
 * holds. Every other one that is read is a guard: the path is another one where it holds something
 * else. What follows from guards alone is the same each time.
 *
 * @module
 */
import { changeOfShort, copyShort, sameShort, shortState } from "../kvm/loose_state.ts";
import type { Observer, ShownImage, Vcpu } from "../kvm/vcpu.ts";
import type { AccessRecorder } from "../svm/access.ts";
import { MACHINE_SIZE, MAPPED_AT } from "../svm/machine.ts";
import { PAGE_SIZE } from "../svm/memory.ts";
import { allocatedWord, type Guards, memoryWord, peek, type WordNumber } from "./guards.ts";
import { HistoryRecorder } from "./history.ts";
import { ImageRecorder } from "./image_recorder.ts";
import { Path, type Stage, type Template } from "./path.ts";
import { PathWriter } from "./path_writer.ts";
import { DIRTY, FOLLOWS, GUARD, Page, SETTLED, Words } from "./words.ts";

/** Words that a path depends on or writes at most: a longer one is not worth it. */
const LONGEST = 1 << 11;
/** Words of the work area: nobody reads them without having mapped a page there. */
const WORK_FROM = MAPPED_AT >> 2, WORK_TO = MACHINE_SIZE >> 2;

/** What was recorded. */
export interface Recorded {
  /** What the path depends on. */
  readonly guards: Guards;
  /** The path; undefined where it could not be followed to its end. */
  readonly path: Path | undefined;
}

/** Records paths of vCPUs of one size, one path at a time. */
export class PathRecorder implements AccessRecorder {
  /** Whether the work area holds something to begin with. */
  #given = false;
  readonly #stateWords: number;
  readonly #state: Words;
  #v!: Vcpu;
  #words!: Uint32Array;
  readonly #pages = new Map<number, Page>();
  readonly #sparePages: Page[] = [];
  #numbers: WordNumber[] = [];
  #values: number[] = [];
  /** Values of guards of the state, of which {@linkcode GUARD} says so; and those of memory. */
  readonly #stateGuards: Uint32Array;
  readonly #guards = new Map<WordNumber, number>();
  readonly #writer: PathWriter;
  #stages: Stage[] = [];
  #loose!: ReturnType<typeof shortState>;
  #failed = false;
  /** Whether steps are told, for which the work area is as they leave it. */
  #steps = false;
  /** What the observer learns afterwards instead of being told. */
  #history: HistoryRecorder | undefined;
  readonly #images = new ImageRecorder();
  /** Page that the work area became a copy of before anything else happened in this stage; or -1. */
  #mapped = -1;

  /**
   * Makes room for the words of a state.
   *
   * @param stateWords How many.
   */
  constructor(stateWords: number) {
    this.#stateWords = stateWords;
    this.#state = new Words(0, stateWords);
    this.#stateGuards = new Uint32Array(stateWords);
    this.#writer = new PathWriter(stateWords, (number) => this.#guarded(number));
  }

  /**
   * Has something done, and records it, without an end yet.
   *
   * @param v The vCPU.
   * @param run What is to be done.
   * @param given Whether the work area holds something to begin with.
   */
  begin(v: Vcpu, run: (v: Vcpu) => void, given = false): void {
    const { observer } = v;
    this.#given = given;
    this.#history = observer?.follows && new HistoryRecorder();
    this.#steps = observer?.step !== undefined && this.#history === undefined;
    this.#begin(v);
    this.#standIn(v, observer, run);
    if (this.#failed) return;
    const history = this.#history;
    if (history !== undefined) {
      this.#note(undefined);
      // What could be told is known; all is set at once.
      for (const word of history.ever) this.#state.dirty.push(word);
    }
    this.#tell(undefined, this.#image());
  }

  /**
   * Has something more done with the vCPU as it was left, of which nothing is told.
   *
   * @param v The vCPU.
   * @param then What is to be done: the path's last stage, which need not be followed with the others.
   * @returns As {@linkcode PathRecorder.end}.
   */
  goOn(v: Vcpu, then: (v: Vcpu) => void): Recorded {
    if (!this.#failed) {
      this.#standIn(v, undefined, then);
      if (!this.#failed) this.#tell(undefined, this.#image());
    } else then(v);
    return this.#recordedWith(true);
  }

  /**
   * Ends what was begun.
   *
   * @returns What the path depends on, and the path; without it where it could not be followed to its
   * end, which depends on the same.
   */
  end(): Recorded {
    return this.#recordedWith(false);
  }

  #recordedWith(tail: boolean): Recorded {
    const guards = { numbers: this.#numbers, values: this.#values };
    if (this.#failed) return { guards, path: undefined };
    const lists = this.#writer.lists();
    return { guards, path: new Path(guards, lists, this.#stages, tail, this.#history?.notes) };
  }

  #standIn(v: Vcpu, observer: Observer | undefined, run: (v: Vcpu) => void): void {
    const heard = v.observer;
    v.observer = observer && this.#listen(observer);
    v.recorder = v.memory.recorder = this;
    try {
      run(v);
    } finally {
      v.recorder = v.memory.recorder = undefined;
      v.observer = heard;
    }
  }

  #begin(v: Vcpu): void {
    this.#state.begin(0);
    this.#sparePages.push(...this.#pages.values());
    this.#pages.clear();
    this.#writer.begin();
    this.#numbers = [];
    this.#values = [];
    this.#guards.clear();
    this.#stages = [];
    this.#failed = false;
    this.#mapped = -1;
    this.#images.clear();
    this.#v = v;
    this.#words = v.words;
    this.#loose = shortState(v);
  }

  /** Hears what an observer is to be told, and has it told each time the path is followed. */
  #listen(observer: Observer): Observer {
    const tell = (
      what: (observer: Observer, v: Vcpu, shown?: ShownImage) => void,
      sees: "state" | "memory" | "nothing" = "state",
    ) => {
      const v = this.#v;
      if (this.#failed) {
        what(observer, v);
        return;
      }
      const later = sees === "nothing" || sees === "memory" && this.#pages.size === 0;
      if (this.#history !== undefined) this.#note(what);
      else if (later) this.#show(what, this.#image());
      else this.#tell(what, this.#image());
      v.recorder = v.memory.recorder = undefined;
      what(observer, v);
      v.recorder = v.memory.recorder = this;
    };
    const { begin, end, step, switched, unmodelled, viewer, looker } = observer;
    return {
      check: (id, text) => tell((o) => o.check(id, text), "nothing"),
      warn: (text, step) => tell((o) => o.warn(text, step), "nothing"),
      inner: (at, ret) => {
        if (this.#history !== undefined) return;
        if (viewer && !this.#failed) viewer.fill(this.#v, ret, this.#images.buffer(viewer.size));
        tell((o, v, shown) => o.inner(at, ret, v, shown));
      },
      ...(looker && {
        looker: {
          viewer: looker.viewer,
          look: () => {
            looker.viewer.fill(this.#v, 0, this.#images.buffer(looker.viewer.size));
            tell((o, v, shown) => o.looker?.look(v, shown), "memory");
          },
        },
      }),
      ...(switched && { switched: (to) => tell((o, v) => o.switched?.(to, v)) }),
      ...(unmodelled && { unmodelled: (what) => tell((o) => o.unmodelled?.(what), "nothing") }),
      ...(begin && { begin: (way) => tell((o, v) => o.begin?.(way, v)) }),
      ...(end && { end: (way, outcome) => tell((o, v) => o.end?.(way, outcome, v)) }),
      ...(step && { step: (step) => tell((o, v) => o.step?.(step, v)) }),
    };
  }

  /** Is told of reads of the state. */
  read(at: number, length: number): void {
    const last = at + length - 1 >> 2;
    const state = this.#state;
    for (let i = at >> 2; i <= last; i++) {
      if (((state.marks[i] as number) & SETTLED) !== 0) continue;
      state.marks[i]! |= SETTLED;
      const from = state.from(i);
      if (from !== FOLLOWS) this.#guard(from, this.#words[i] as number);
    }
  }

  /** Is told of writes of the state. */
  write(at: number, length: number): void {
    const first = at >> 2, last = at + length - 1 >> 2;
    // Of a word that is written in part, the rest must follow from guards, too.
    if ((at & 3) !== 0) this.read(first * 4, 1);
    if ((at + length & 3) !== 0) this.read(last * 4, 1);
    for (let i = first; i <= last; i++) this.#setWord(i, FOLLOWS);
  }

  /** Is told of writes of whole words. */
  writeWord(word: number): void {
    this.#setWord(word, FOLLOWS);
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
        this.#setWord(first + i, this.#state.from(source + i));
      }
    } else {
      for (let i = count - 1; i >= 0; i--) {
        this.#setWord(first + i, this.#state.from(source + i));
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
    const own = this.#pages.get(Math.floor(gpa / PAGE_SIZE));
    const inPage = gpa % PAGE_SIZE >> 2, first = memoryWord(this.#stateWords, gpa), into = to >> 2;
    for (let i = 0; i < length >> 2; i++) {
      const from = own === undefined ? first + i : own.from(inPage + i);
      if (!maps && history === undefined) {
        this.#setWord(into + i, from);
        continue;
      }
      this.#state.place(into + i, from);
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
      page.set((gpa + i) % PAGE_SIZE >> 2, this.#state.from(from + i >> 2));
    }
  }

  /** Is told of copies to an image. */
  copyOut(to: Uint32Array, at: number, from: number, count: number): void {
    this.#images.copy(to, at, this.#state, from, count);
  }

  /** Is told of words of an image that follow from guards. */
  setOut(to: Uint32Array, at: number): void {
    this.#images.set(to, at);
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
    this.#v.recorder = this.#v.memory.recorder = undefined;
  }

  #guard(number: WordNumber, value: number): void {
    if (number >= 0 && number < this.#stateWords) {
      if (((this.#state.marks[number] as number) & GUARD) !== 0) return;
      this.#state.marks[number]! |= GUARD;
      this.#stateGuards[number] = value;
      if (!this.#given && number >= WORK_FROM && number < WORK_TO) this.giveUp();
    } else if (this.#guards.has(number)) return;
    if (this.#numbers.length === LONGEST) this.giveUp();
    if (this.#failed) return;
    if (number < 0 || number >= this.#stateWords) this.#guards.set(number, value);
    this.#numbers.push(number);
    this.#values.push(value);
  }

  /** Value of a word that is a guard; undefined for others. */
  #guarded(number: WordNumber): number | undefined {
    if (number < 0 || number >= this.#stateWords) return this.#guards.get(number);
    const mark = this.#state.marks[number] as number;
    return (mark & GUARD) !== 0 ? this.#stateGuards[number] : undefined;
  }

  #setWord(word: number, from: number): void {
    const nobodys = !this.#steps && word >= WORK_FROM && word < WORK_TO;
    if (nobodys) {
      this.#state.place(word, from);
      // What it was before would count, and is nobody's.
      if (this.#history?.work(word) === false) this.giveUp();
    } else this.#state.set(word, from);
  }

  /** Where the word of guest memory at an address comes from. */
  #from(gpa: number): number {
    const page = this.#pages.get(Math.floor(gpa / PAGE_SIZE));
    return page === undefined ? memoryWord(this.#stateWords, gpa) : page.from(gpa % PAGE_SIZE >> 2);
  }

  /** A page that is about to be written. */
  #page(gpa: number): Page {
    const number = Math.floor(gpa / PAGE_SIZE);
    let page = this.#pages.get(number);
    if (page === undefined) {
      const first = memoryWord(this.#stateWords, number * PAGE_SIZE);
      page = this.#sparePages.pop() ?? new Page(first, PAGE_SIZE / 4);
      page.begin(first);
      this.#pages.set(number, page);
    }
    page.touched = true;
    return page;
  }

  /** The image that was made since something was last told, if there is one. */
  #image(): Template | undefined {
    return this.#images.take(
      (number) => this.#guarded(number) !== undefined,
      (number) => this.#writer.slot(number),
    );
  }

  /** Notes what was set up to here, and what is told. */
  #note(tell: Stage["tell"]): void {
    const state = this.#state;
    const { dirty, marks } = state;
    for (const word of dirty) {
      marks[word]! &= ~DIRTY;
      const from = state.from(word);
      // Of words behind the machine's nobody keeps what they were.
      const behind = from >= MACHINE_SIZE >> 2 && from < this.#stateWords;
      if (behind) this.#guard(from, this.#words[word] as number);
    }
    const copied = (from: WordNumber) => this.#guarded(from) === undefined ? from : FOLLOWS;
    this.#history?.note(dirty, (word) => copied(state.from(word)), this.#words, tell);
    dirty.length = 0;
  }

  /** Ends a stage. */
  #tell(tell: Stage["tell"], image?: Template): void {
    this.#writer.stage(this.#mapped, this.#state, this.#pages, this.#v);
    this.#mapped = -1;
    this.#stages.push({ ...this.#short(), image, tell });
  }

  /** Ends a stage of whose state nothing is seen but an image: what was set is set in the next one. */
  #show(tell: Stage["tell"], image: Template | undefined): void {
    this.#writer.empty();
    this.#stages.push({ loose: undefined, result: undefined, image, tell });
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
