/**
 * Recording a path: following, word by word, what a run reads, and where what it writes comes from.
 *
 * A word that is only copied says nothing of the way that the run took: it is carried, whatever it
 * holds. Every other one that is read is a guard: the path is another one where it holds something
 * else. What follows from guards alone is the same each time.
 *
 * @module
 */
import { copyShort, sameShort, type ShortState, shortState } from "../kvm/loose_state.ts";
import type { Observer, ShownImage, Vcpu } from "../kvm/vcpu.ts";
import { type AccessRecorder, SETTLED } from "../svm/access.ts";
import { MACHINE_SIZE, MAPPED_AT } from "../svm/machine.ts";
import { PAGE_SIZE } from "../svm/memory.ts";
import { Arena } from "./arena.ts";
import { allocatedWord, type Guards, memoryWord, peek, type WordNumber } from "./guards.ts";
import { HistoryRecorder } from "./history.ts";
import { ImageRecorder } from "./image_recorder.ts";
import { Path, type Stage } from "./path.ts";
import { PathWriter } from "./path_writer.ts";
import { Shadow } from "./shadow.ts";
import { DIRTY, FOLLOWS, GUARD, type Page, type Words } from "./words.ts";

/** Words that a path depends on or writes at most: a longer one is not worth it. */
const LONGEST = 1 << 13;
/** States of what is no byte that are shared among stages at most. */
const MOST_KNOWN = 1 << 5;
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
  /** What is known of each word of the state. */
  readonly marks: Uint8Array;
  readonly #stateWords: number;
  readonly #arena: Arena;
  readonly #shadow: Shadow;
  readonly #state: Words;
  #v!: Vcpu;
  #words!: Uint32Array;
  /** Guards: number and value of each; how many numbers that makes. */
  readonly #guards = new Int32Array(2 * LONGEST);
  #guardsEnd = 0;
  /** Pages of which it is a guard whether they are allocated. */
  readonly #allocated = new Set<WordNumber>();
  readonly #writer: PathWriter;
  #listened: Observer | undefined;
  #listener: Observer | undefined;
  #stages: Stage[] = [];
  /** Whether a page was written. */
  #writes = false;
  #loose!: ReturnType<typeof shortState>;
  /** States that stages left of what is no byte: most leave one that others left. */
  readonly #known: ShortState[] = [];
  #failed = false;
  /** Whether steps are told, for which the work area is as they leave it. */
  #steps = false;
  /** What the observer learns afterwards instead of being told. */
  #history: HistoryRecorder | undefined;
  /** The memory for it, once somebody learned anything so. */
  #ownHistory: HistoryRecorder | undefined;
  /** What a word of the state is a copy of, if that decides nothing. */
  readonly #originOf = (word: number): WordNumber => {
    const from = this.#state.from(word);
    return from === FOLLOWS || this.#shadow.guarded(from) !== undefined ? FOLLOWS : from;
  };
  readonly #images = new ImageRecorder();
  /** Page that the work area became a copy of before anything else happened in this stage; or -1. */
  #mapped = -1;

  /**
   * Makes room for the words of a state.
   *
   * @param stateWords How many.
   * @param arena Where what is recorded is kept.
   */
  constructor(stateWords: number, arena: Arena = new Arena()) {
    this.#stateWords = stateWords;
    this.#arena = arena;
    this.#shadow = new Shadow(stateWords);
    this.#state = this.#shadow.state;
    this.marks = this.#state.marks;
    this.#writer = new PathWriter(stateWords, this.#shadow, arena);
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
    this.#history = observer?.follows &&
      (this.#ownHistory ??= new HistoryRecorder(this.#stateWords, this.#arena));
    this.#history?.begin();
    this.#steps = observer?.step !== undefined && this.#history === undefined;
    this.#begin(v);
    this.#standIn(v, observer, run);
    if (this.#failed) return;
    const history = this.#history;
    if (history !== undefined) {
      this.#note(undefined);
      // What could be told is known; all is set at once.
      for (const word of history.ever) this.#state.setLater(word);
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
    const guards = this.#arena.take(this.#guardsEnd);
    guards.set(this.#guards.subarray(0, this.#guardsEnd));
    if (this.#failed) return { guards, path: undefined };
    const stages = this.#stages, list = this.#writer.list(guards, stages.map(({ image }) => image));
    return { guards, path: new Path(guards, list, stages, tail, this.#history?.notes) };
  }

  #standIn(v: Vcpu, observer: Observer | undefined, run: (v: Vcpu) => void): void {
    const heard = v.observer;
    v.observer = observer && this.#listenerOf(observer);
    this.#follow();
    try {
      run(v);
    } finally {
      v.recorder = v.memory.recorder = undefined;
      v.observer = heard;
    }
  }

  /** Hears of what is read and written from now on, as long as that can be followed. */
  #follow(): void {
    const v = this.#v;
    v.recorder = v.memory.recorder = this.#failed ? undefined : this;
  }

  #begin(v: Vcpu): void {
    this.#shadow.begin();
    this.#writer.begin();
    this.#guardsEnd = 0;
    this.#allocated.clear();
    this.#stages = [];
    this.#failed = this.#writes = false;
    this.#mapped = -1;
    this.#images.clear();
    this.#v = v;
    this.#words = v.words;
    this.#loose = shortState(v);
  }

  /** Who hears what an observer is to be told; the same as long as it is the same one. */
  #listenerOf(observer: Observer): Observer {
    if (observer !== this.#listened) {
      this.#listened = observer;
      this.#listener = this.#listen(observer);
    }
    return this.#listener as Observer;
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
      const later = sees === "nothing" || sees === "memory" && !this.#writes;
      if (this.#history !== undefined) this.#note(what);
      else if (later) this.#show(what, this.#image());
      else this.#tell(what, this.#image());
      v.recorder = v.memory.recorder = undefined;
      what(observer, v);
      this.#follow();
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
    const last = at + length - 1 >> 2, { marks } = this.#state;
    for (let i = at >> 2; i <= last; i++) {
      if (((marks[i] as number) & SETTLED) === 0) this.#readWord(i);
    }
  }

  #readWord(word: number): void {
    const state = this.#state, from = state.from(word);
    state.marks[word]! |= SETTLED;
    if (from !== FOLLOWS) this.#guard(from, this.#words[word] as number);
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
      const from = this.#shadow.page(Math.floor(at / PAGE_SIZE)).from(at % PAGE_SIZE >> 2);
      if (from !== FOLLOWS) this.#guard(from, peek(memory, at));
    }
  }

  /** Is told of writes of guest memory. */
  writeMemory(gpa: number, length: number): void {
    const end = gpa + length;
    if (gpa % 4 !== 0) this.readMemory(gpa, 1);
    if (end % 4 !== 0) this.readMemory(end - 1, 1);
    const page = this.#written(gpa);
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
    const page = this.#shadow.page(Math.floor(gpa / PAGE_SIZE));
    const inPage = gpa % PAGE_SIZE >> 2, first = memoryWord(this.#stateWords, gpa), into = to >> 2;
    const count = length >> 2;
    if (!whole) {
      for (let i = 0; i < count; i++) this.#setWord(into + i, page.from(inPage + i));
      return;
    }
    this.#state.placeAll(into, page, inPage, count);
    for (let i = 0; history !== undefined && i < count; i++) {
      if (page.from(inPage + i) !== first + i) history.work(into + i);
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
    this.#written(gpa).setAll(gpa % PAGE_SIZE >> 2, this.#state, from >> 2, length >> 2);
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
    const number = allocatedWord(gpa);
    if (this.#shadow.page(Math.floor(gpa / PAGE_SIZE)).written || this.#allocated.has(number)) {
      return;
    }
    this.#allocated.add(number);
    const { memory } = this.#v;
    memory.recorder = undefined;
    this.#addGuard(number, memory.allocated(gpa) ? 1 : 0);
    this.#follow();
  }

  /** Is told that what follows depends on more than can be followed. */
  giveUp(): void {
    this.#failed = true;
    this.#v.recorder = this.#v.memory.recorder = undefined;
  }

  /** The path depends on a word of the state or of guest memory. */
  #guard(number: WordNumber, value: number): void {
    if (number < this.#stateWords) {
      const state = this.#state;
      if (((state.marks[number] as number) & GUARD) !== 0) return;
      if (!this.#given && number >= WORK_FROM && number < WORK_TO) this.giveUp();
      state.guard(number, value);
    } else if (!this.#shadow.guard(number, value)) return;
    this.#addGuard(number, value);
  }

  #addGuard(number: WordNumber, value: number): void {
    if (this.#guardsEnd === this.#guards.length) this.giveUp();
    if (this.#failed) return;
    this.#guards[this.#guardsEnd++] = number;
    this.#guards[this.#guardsEnd++] = value;
  }

  #setWord(word: number, from: number): void {
    const nobodys = !this.#steps && word >= WORK_FROM && word < WORK_TO;
    if (nobodys) {
      this.#state.place(word, from);
      // What it was before would count, and is nobody's.
      if (this.#history?.work(word) === false) this.giveUp();
    } else this.#state.set(word, from);
  }

  /** A page that is about to be written. */
  #written(gpa: number): Page {
    const page = this.#shadow.page(Math.floor(gpa / PAGE_SIZE));
    page.written = page.touched = this.#writes = true;
    return page;
  }

  /** Where the image was put down that was made since something was last told; -1 without one. */
  #image(): number {
    return this.#images.take(this.#shadow, this.#writer);
  }

  /** Notes what was set up to here, and what is told. */
  #note(tell: Stage["tell"]): void {
    const state = this.#state, { marks } = state, dirty = state.takeDirty();
    for (let i = 0; i < dirty.length; i++) {
      const word = dirty[i] as number, from = state.from(word);
      marks[word]! &= ~DIRTY;
      // Of words behind the machine's nobody keeps what they were.
      const behind = from >= MACHINE_SIZE >> 2 && from < this.#stateWords;
      if (behind) this.#guard(from, this.#words[word] as number);
    }
    this.#history?.note(dirty, this.#originOf, this.#words, tell);
  }

  /** Ends a stage. */
  #tell(tell: Stage["tell"], image = -1): void {
    this.#writer.stage(this.#mapped, this.#v);
    this.#mapped = -1;
    this.#stages.push({ loose: this.#short(), image, tell });
  }

  /** Ends a stage of whose state nothing is seen but an image: what was set is set in the next one. */
  #show(tell: Stage["tell"], image: number): void {
    this.#writer.empty();
    this.#stages.push({ loose: undefined, image, tell });
  }

  /** What is no byte, if it changed since the last stage. */
  #short(): ShortState | undefined {
    const v = this.#v, before = this.#loose;
    if (sameShort(v, before)) return undefined;
    copyShort(before, v);
    const known = this.#known.find((state) => sameShort(state, v));
    if (known !== undefined) return known;
    const state = shortState(v);
    if (this.#known.length < MOST_KNOWN) this.#known.push(state);
    return state;
  }
}
