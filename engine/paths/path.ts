/**
 * A path: what one way through the model does to a state, without the model.
 *
 * @module
 */
import { copyShort, type ShortState } from "../kvm/loose_state.ts";
import type { Noted, Observer, Repeated, ShownImage, Vcpu } from "../kvm/vcpu.ts";
import type { ImageBuffer } from "../svm/image_buffer.ts";
import { MAPPED_AT } from "../svm/machine.ts";
import { PAGE_SIZE } from "../svm/memory.ts";
import { type CompiledPath, compilePath } from "./compile.ts";
import { type Guards, hold } from "./guards.ts";
import { sizeOf } from "./history.ts";
import type { PathList } from "./program.ts";

/** What follows the words that are set between one thing that is told and the next. */
export interface Stage {
  /** What is neither in the bytes nor in memory, where it changed. */
  readonly loose: ShortState | undefined;
  /** Where the image begins that the observer is to see of it, or whoever has it done, among images; or -1. */
  readonly image: number;
  /** What the observer is told then. */
  readonly tell: ((observer: Observer, v: Vcpu, shown?: ShownImage) => void) | undefined;
}

/** How often a path is followed before it is compiled. */
const HOT = 512;
/** Numbers of a path that is compiled at most: of a longer one the compiler makes no better code. */
const MOST_COMPILED = 1 << 13;

/** What an end takes up, in numbers of 32 bits. */
const END_SIZE = 32;

/** An image that goes with a path. */
class PathImage implements ShownImage {
  #list: Int32Array = new Int32Array(1);
  /** Where it begins in the list. */
  #at = 0;
  #constants: Int32Array | undefined;
  readonly #values: Uint32Array;

  constructor(values: Uint32Array) {
    this.#values = values;
  }

  /**
   * The image at a place of a path's list.
   *
   * @param list The list.
   * @param at The place.
   * @param constants Its words, if somebody looks at them by themselves: they are copied natively then.
   */
  of(list: Int32Array, at: number, constants: Int32Array | undefined): this {
    this.#list = list;
    this.#at = at;
    this.#constants = constants;
    return this;
  }

  fill({ words }: ImageBuffer): void {
    const list = this.#list, values = this.#values;
    let at = this.#at;
    const count = list[at++] as number, constants = this.#constants;
    if (constants !== undefined) words.set(constants);
    else for (let word = 0; word < count; word++) words[word] = list[at + word] as number;
    at += count;
    for (let stretches = list[at++] as number; stretches > 0; stretches--) {
      let to = list[at++] as number, slot = list[at++] as number;
      for (let n = list[at++] as number; n > 0; n--) words[to++] = values[slot++] as number;
    }
  }
}

/** What paths need while one of them is followed: the same for all of a kind stays in the cache. */
export class PathMemory {
  /** Words that are carried. */
  readonly values: Uint32Array;
  /** The image that is shown. */
  readonly image: PathImage;

  /**
   * Makes room.
   *
   * @param slots For how many words.
   */
  constructor(slots: number) {
    this.values = new Uint32Array(slots);
    this.image = new PathImage(this.values);
  }
}

/** What is known of a path besides where it leads. */
class KnownPath implements Repeated {
  readonly notes: readonly Noted[];
  readonly #guards: Guards;
  readonly #carried: Int32Array;
  #words: ReadonlySet<number> | undefined;

  constructor(notes: readonly Noted[], guards: Guards, carried: Int32Array) {
    this.notes = notes;
    this.#guards = guards;
    this.#carried = carried;
  }

  dependsOn(word: number): boolean {
    return (this.#words ??= this.#all()).has(word);
  }

  #all(): ReadonlySet<number> {
    const carried: number[] = [];
    eachCopy(this.#carried, 0, (word) => carried.push(word));
    return new Set([...this.#guards.filter((_, i) => i % 2 === 0), ...carried]);
  }
}

/** What one way through the model does. */
export class Path {
  /** What it depends on. */
  readonly guards: Guards;
  readonly #list: PathList;
  readonly #numbers: Int32Array;
  /** What each stage leaves of what is no byte, and what is told then. */
  readonly #loose: readonly Stage["loose"][];
  readonly #tells: readonly Stage["tell"][];
  #memory: PathMemory | undefined;
  readonly #repeated: Repeated | undefined;
  /** Whether there is more to follow once something else is asked for. */
  readonly hasTail: boolean;
  /** Stages without that. */
  readonly #stages: number;
  /** Where that begins, once the others were followed. */
  #tailAt = 0;
  /** Where it begins. */
  root: object | undefined;
  /** The path that was followed after this one last. */
  next: Path | undefined;
  #followed = 0;
  #compiled: CompiledPath | undefined;
  /** The words of each stage's image, once it is followed often. */
  #constants: (Int32Array | undefined)[] | undefined;

  /**
   * A path.
   *
   * @param guards What it depends on.
   * @param list That, and what it does.
   * @param stages What follows in each stage, in order.
   * @param tail Whether the last stage is one that is not followed with the others.
   * @param history What the observer learns of it afterwards, if it does.
   */
  constructor(
    guards: Guards,
    list: PathList,
    stages: readonly Stage[],
    tail = false,
    history?: readonly Noted[],
  ) {
    const { numbers } = list;
    this.#repeated = history && new KnownPath(history, guards, numbers);
    this.hasTail = tail;
    this.#stages = stages.length - (tail ? 1 : 0);
    this.guards = guards;
    this.#list = list;
    this.#numbers = numbers;
    this.#loose = stages.map(({ loose }) => loose);
    this.#tells = stages.map(({ tell }) => tell);
  }

  /**
   * Uses memory of others while it is followed.
   *
   * @param memory The memory; one with too little room is not used.
   */
  useMemory(memory: PathMemory): void {
    if (memory.values.length >= this.#list.slots) this.#memory = memory;
  }

  get #own(): PathMemory {
    return this.#memory ??= new PathMemory(this.#list.slots);
  }

  /** What it takes up, in numbers of 32 bits. */
  get size(): number {
    return this.#numbers.length + END_SIZE * this.#tells.length +
      sizeOf(this.#repeated?.notes ?? []);
  }

  /**
   * Whether a state goes this path.
   *
   * @param v The state.
   * @returns Whether all guards hold.
   */
  matches(v: Vcpu): boolean {
    const compiled = this.#compiled;
    if (compiled !== undefined) return compiled.matches(v.words, v.memory);
    const { guards, others, guardsEnd } = this.#list;
    return hold(v, this.#numbers, guards, others, guardsEnd);
  }

  /**
   * Has it compiled; done by itself once it was followed often.
   *
   * @param stateWords Words of a state.
   */
  compile(stateWords: number): void {
    const list = this.#list, { numbers } = list, shown = new Set<number>();
    this.#constants = list.images.map((at) => {
      if (at < 0) return undefined;
      const copies = at + 1 + (numbers[at] as number);
      eachCopy(numbers, copies, (_, slot) => shown.add(slot));
      return numbers.subarray(at + 1, copies);
    });
    const { guards } = this;
    this.#compiled = compilePath(guards, stateWords, list, this.#stages, this.hasTail, shown);
  }

  /**
   * Does it.
   *
   * @param v A vCPU whose state goes this path.
   * @param into Where the image belongs that is made at the end, if one is.
   */
  follow(v: Vcpu, into?: ImageBuffer): void {
    const repeated = this.#repeated;
    if (repeated !== undefined) v.observer?.follows?.(repeated, v);
    const compiled = this.#compiled;
    if (compiled !== undefined) {
      compiled.follow(v.words, v.memory, this.#numbers, this.#own.values, this, v, into);
      return;
    }
    const hot = ++this.#followed === HOT && this.#numbers.length <= MOST_COMPILED;
    if (hot) this.compile(v.words.length);
    this.#followList(v, into);
  }

  /**
   * Does what is left.
   *
   * @param v The vCPU, as {@linkcode Path.follow} left it.
   * @param into Where the image belongs that is made.
   */
  followTail(v: Vcpu, into?: ImageBuffer): void {
    const compiled = this.#compiled;
    if (compiled === undefined) this.#followStage(v, this.#stages, this.#tailAt, into);
    else compiled.followTail(v.words, v.memory, this.#numbers, this.#own.values, this, v, into);
  }

  #followList(v: Vcpu, into: ImageBuffer | undefined): void {
    const { words, memory } = v;
    const c = this.#numbers, values = this.#own.values;
    let at = 0;
    for (let stretches = c[at++] as number; stretches > 0; stretches--) {
      let from = c[at++] as number, slot = c[at++] as number;
      for (let n = c[at++] as number; n > 0; n--) values[slot++] = words[from++] as number;
    }
    for (let pages = c[at++] as number; pages > 0; pages--) {
      const page = memory.words((c[at++] as number) * PAGE_SIZE);
      for (let stretches = c[at++] as number; stretches > 0; stretches--) {
        let from = c[at++] as number, slot = c[at++] as number;
        for (let n = c[at++] as number; n > 0; n--) values[slot++] = page[from++] as number;
      }
    }
    this.#tailAt = this.#list.program;
    for (let stage = 0; stage < this.#stages; stage++) {
      this.#tailAt = this.#followStage(v, stage, this.#tailAt, into);
    }
  }

  /** Follows a stage; where the next one begins. */
  #followStage(v: Vcpu, stage: number, at: number, into: ImageBuffer | undefined): number {
    const { words, memory } = v;
    const p = this.#numbers, values = this.#own.values;
    const mapped = p[at++] as number;
    if (mapped >= 0) v.bytes.set(memory.page(mapped * PAGE_SIZE), MAPPED_AT);
    for (let stretches = p[at++] as number; stretches > 0; stretches--) {
      let to = p[at++] as number;
      for (let n = p[at++] as number; n > 0; n--) words[to++] = p[at++] as number;
    }
    for (let stretches = p[at++] as number; stretches > 0; stretches--) {
      let to = p[at++] as number, slot = p[at++] as number;
      for (let n = p[at++] as number; n > 0; n--) words[to++] = values[slot++] as number;
    }
    for (let pages = p[at++] as number; pages > 0; pages--) {
      const gpa = (p[at++] as number) * PAGE_SIZE;
      at = memory.writeConstants(gpa, p, at);
      let stretches = p[at++] as number;
      if (stretches === 0) continue;
      const page = memory.writableWords(gpa);
      for (; stretches > 0; stretches--) {
        let to = p[at++] as number, slot = p[at++] as number;
        for (let n = p[at++] as number; n > 0; n--) page[to++] = values[slot++] as number;
      }
    }
    this.end(stage, v, into);
    return at;
  }

  /**
   * Ends a stage: what is neither in the bytes nor in memory, and what is told.
   *
   * @param stage Its number.
   * @param v The vCPU.
   * @param into Where the image belongs that is made at the end.
   */
  end(stage: number, v: Vcpu, into: ImageBuffer | undefined): void {
    const loose = this.#loose[stage], tell = this.#tells[stage];
    const list = this.#list, at = list.images[stage] as number;
    const image = at < 0
      ? undefined
      : this.#own.image.of(list.numbers, at, this.#constants?.[stage]);
    if (loose !== undefined) copyShort(v, loose);
    if (tell === undefined) {
      if (image !== undefined && into !== undefined) image.fill(into);
    } else if (v.observer !== undefined) tell(v.observer, v, image);
  }
}

/** Calls back with place and slot of each of the copies at a place of a list. */
function eachCopy(
  list: Int32Array,
  at: number,
  each: (place: number, slot: number) => void,
): void {
  let i = at;
  for (let stretches = list[i++] as number; stretches > 0; stretches--) {
    const place = list[i++] as number, slot = list[i++] as number, length = list[i++] as number;
    for (let n = 0; n < length; n++) each(place + n, slot + n);
  }
}
