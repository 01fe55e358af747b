/**
 * Memoization of runs: a run that begins in the same state with the same events
 * ends in the same state with the same result, and need not be carried out again.
 *
 * The trace is cut where nothing but the vCPUs and a little context decides how it goes on. Of a
 * stretch between two such points its events, the state before, the state after and its effect are
 * kept. When the same events come again from the same state, all of them compared byte for byte,
 * the effect is applied. Where anything differs, the state is restored and the events are carried
 * out.
 *
 * @module
 */
import type { TraceEvent } from "../event.ts";
import { shortTexts } from "../short_texts.ts";
import type { Vcpu } from "../kvm/vcpu.ts";
import type { Policy } from "../policy.ts";
import { builtIn } from "../steps/built_in.ts";
import { EventStore, inputSum, type KeptEvent } from "./event_store.ts";
import { PageStore } from "./page_store.ts";
import { sameVcpu, VcpuPager, type VcpuPages } from "./vcpu_pages.ts";

/** What is remembered of all states together, in bytes of their pages. */
const MOST_BYTES = 32 << 20;
/** Events that are remembered at most. */
const MOST_EVENTS = 1 << 14;
/** Ways that lead on from one node before no more are remembered. */
const MOST_BRANCHES = 64;
/** Stretches that are looked at in vain before a pause; one that is known makes up for some. */
const PATIENCE = 4096;
const MAKES_UP = 4;
/** How many stretches the first pause is long, and the longest; each is twice the one before. */
const FIRST_PAUSE = 1 << 17;
const LONGEST_PAUSE = 1 << 22;
/** Entries of the table of stretches, a power of two. */
const INPUTS = 1 << 13;
/** What one stretch that seems to have been met before is worth in others to look at. */
const CREDIT = 16;
const MOST_CREDIT = 128;

/** Everything that decides how a replay goes on, between two runs. */
export interface Rest {
  /** The vCPUs. */
  readonly vcpus: readonly Vcpu[];
  /** Everything else, as text. */
  readonly key: string;
  /** The same, to be handed back. */
  readonly rest: unknown;
}

/** What carries events out, as the memo sees it. */
export interface Memoizable<E> {
  /** Carries an event out. */
  carryOut(event: TraceEvent, index: number): void;
  /** Whether it is between two runs, so that what follows depends on {@linkcode Memoizable.rest} alone. */
  readonly resting: boolean;
  /** Ends the run under way; undefined when there is no state yet, or one that cannot be kept. */
  rest(): Rest | undefined;
  /** One of its vCPUs, if it is there. */
  vcpu(number: number): Vcpu | undefined;
  /** Makes the vCPUs those of a state. */
  restore(vcpus: readonly Vcpu[], rest: unknown): void;
  /** A stretch begins with this event. */
  begin(index: number): void;
  /** The stretch is over, {@linkcode Memoizable.rest} was called: its effect; undefined when it cannot be applied again. */
  end(): E | undefined;
  /** Applies the effect of a stretch. */
  apply(effect: E, index: number): void;
}

/** A state between two runs. */
interface State<E> {
  readonly vcpus: readonly VcpuPages[];
  readonly rest: unknown;
  /** Where the events that begin here lead. */
  readonly from: Node<E>;
}

/** A point in a stretch: its last event, and the effect of the stretch if it may end here. */
interface Node<E> {
  readonly event: KeptEvent | undefined;
  readonly branches: Node<E>[];
  effect: E | undefined;
  to: State<E> | undefined;
}

/** Feeds events to what carries them out, unless it is known where they lead. */
export class Memo<E> {
  /** Events that were not carried out, since their effect was known. */
  repeated = 0;
  readonly #host: Memoizable<E>;
  /** Whether runs under these policies may be memoized at all. */
  readonly #allowed: boolean;
  readonly #policies: readonly Policy[];
  readonly #pages = new PageStore();
  readonly #events = new EventStore(this.#pages);
  readonly #pagers: readonly VcpuPager[];
  // By what is not in pages, and checksums of what is.
  readonly #states = new Map<string, State<E>[]>();
  /** While following what is known: where the stretch began, and where it is. */
  #start: State<E> | undefined;
  #node: Node<E> | undefined;
  /** Events of the stretch up to the node, and how many they are; the list keeps its memory. */
  readonly #followed: KeptEvent[] = [];
  #followedCount = 0;
  #startIndex = 0;
  /** While a stretch is being remembered: where it began, and its events. */
  #origin: State<E> | undefined;
  #met: KeptEvent[] = [];
  /** Checksums of stretches that were carried out; of the one under way, and the one before. */
  readonly #inputs = new Uint32Array(INPUTS);
  #sum = 0;
  #before = 0;
  #credit = 0;
  #vain = 0;
  #pause = 0;
  #nextPause = FIRST_PAUSE;

  /**
   * Begins before the first event.
   *
   * @param host What carries events out.
   * @param policies The policy of each of its vCPUs, in order. Under policies with other steps than
   * the built-in ones every run is carried out.
   */
  constructor(host: Memoizable<E>, policies: readonly Policy[]) {
    this.#host = host;
    this.#allowed = policies.every(builtIn);
    this.#policies = policies;
    this.#pagers = policies.map(() => new VcpuPager(this.#pages));
  }

  /**
   * Takes the next event.
   *
   * @param given The event; its images need to be valid only during the call.
   * @param index Its number.
   */
  feed(given: TraceEvent, index: number): void {
    const event = shortTexts(given);
    if (!this.#allowed) {
      this.#host.carryOut(event, index);
      return;
    }
    const node = this.#node;
    if (node === undefined) {
      this.#carryOut(event, index);
      return;
    }
    const next = branch(node, event);
    if (next !== undefined) {
      this.#followed[this.#followedCount++] = next.event as KeptEvent;
      this.#node = next;
      return;
    }
    if (node.to !== undefined && parts(event)) {
      const state = this.#takeOver(node);
      const first = branch(state.from, event);
      if (first !== undefined) {
        this.#follow(state, first, index);
        return;
      }
      this.#leave(state);
      this.#carryOut(event, index, state);
      return;
    }
    this.#goBack();
    this.#carryOut(event, index);
  }

  /** Has everything carried out that was fed, so that the host's state is the trace's. */
  flush(): void {
    const node = this.#node;
    if (node === undefined) return;
    if (node.to !== undefined) this.#leave(this.#takeOver(node));
    else this.#goBack();
  }

  #carryOut(event: TraceEvent, index: number, known?: State<E>): void {
    const host = this.#host;
    if (parts(event) && host.resting) {
      const state = known ?? this.#arrive(this.#worthwhile());
      if (state !== undefined) {
        const first = branch(state.from, event);
        if (first !== undefined) {
          this.#follow(state, first, index);
          return;
        }
        this.#origin = state;
        this.#met = [];
        host.begin(index);
      }
    }
    this.#sum = inputSum(event, this.#sum);
    if (this.#origin !== undefined) this.#meet(event);
    host.carryOut(event, index);
  }

  /** Remembers an event of the stretch, as long as that is not too long to be worth it. */
  #meet(event: TraceEvent): void {
    if (this.#met.length < MOST_EVENTS && this.#pages.size <= 2 * MOST_BYTES) {
      this.#met.push(this.#events.intern(event));
      return;
    }
    this.#origin = undefined;
    this.#met = [];
    this.#host.end();
  }

  /** A stretch is over: whether it is worth while to remember what comes. */
  #worthwhile(): boolean {
    const own = this.#sum;
    if (own !== 0) {
      // Together with the stretch before: the same VMRUN in another machine is no sign.
      const sum = (Math.imul(own, 31) ^ this.#before) >>> 0;
      this.#before = own;
      this.#sum = 0;
      const at = sum & INPUTS - 1;
      if (this.#inputs[at] === sum) this.#credit = Math.min(this.#credit + CREDIT, MOST_CREDIT);
      else {
        this.#inputs[at] = sum;
        if (this.#credit > 0) this.#credit--;
      }
    }
    if (this.#pause > 0) this.#pause--;
    return this.#credit > 0 && this.#pause === 0;
  }

  /** At rest: remembers the stretch that is over, and finds the state that it led to. */
  #arrive(wanted: boolean): State<E> | undefined {
    const origin = this.#origin;
    this.#origin = undefined;
    if (!wanted) {
      if (origin !== undefined) this.#host.end();
      return undefined;
    }
    if (++this.#vain > PATIENCE) {
      this.#vain = 0;
      this.#pause = this.#nextPause;
      this.#nextPause = Math.min(2 * this.#nextPause, LONGEST_PAUSE);
      this.#forget();
      return undefined;
    }
    const host = this.#host;
    const rest = host.rest();
    if (rest === undefined) return undefined;
    const full = this.#pages.size > MOST_BYTES || this.#events.size > MOST_EVENTS;
    if (full) this.#forget();
    const state = this.#stateOf(rest);
    if (origin === undefined || full) return state;
    const effect = host.end();
    if (effect !== undefined) remember(origin.from, this.#met, effect, state);
    return state;
  }

  #stateOf({ vcpus, key, rest }: Rest): State<E> {
    const taken = vcpus.map((v, i) => (this.#pagers[i] as VcpuPager).take(v));
    const sums = [key, ...taken.map(({ sum }) => sum)].join();
    let list = this.#states.get(sums);
    if (list === undefined) this.#states.set(sums, list = []);
    const found = list.find((state) =>
      state.vcpus.every((known, i) => sameVcpu(known, taken[i] as VcpuPages))
    );
    if (found !== undefined) return found;
    const state: State<E> = { vcpus: taken, rest, from: nodeOf(undefined) };
    list.push(state);
    return state;
  }

  #forget(): void {
    this.#states.clear();
    this.#events.clear();
    this.#pages.clear();
    for (const pager of this.#pagers) pager.clear();
  }

  #follow(state: State<E>, first: Node<E>, index: number): void {
    this.#origin = undefined;
    this.#start = state;
    this.#startIndex = index;
    this.#node = first;
    this.#followed[0] = first.event as KeptEvent;
    this.#followedCount = 1;
  }

  /** The stretch came to what it came to before. */
  #takeOver(node: Node<E>): State<E> {
    this.repeated += this.#followedCount;
    this.#vain = Math.max(0, this.#vain - MAKES_UP);
    this.#nextPause = FIRST_PAUSE;
    this.#host.apply(node.effect as E, this.#startIndex);
    return node.to as State<E>;
  }

  /** No longer follows: the host goes on from a state. */
  #leave(state: State<E>): void {
    this.#node = undefined;
    const policies = this.#policies;
    const vcpus = state.vcpus.map((pages, i) =>
      (this.#pagers[i] as VcpuPager).put(pages, this.#host.vcpu(i), policies[i] as Policy)
    );
    this.#host.restore(vcpus, state.rest);
  }

  /** The stretch goes on as none did before: carries out what was followed of it. */
  #goBack(): void {
    const state = this.#start as State<E>;
    this.#leave(state);
    const followed = this.#followed.slice(0, this.#followedCount);
    let index = this.#startIndex;
    this.#origin = state;
    this.#met = [];
    this.#host.begin(index);
    for (const kept of followed) {
      this.#met.push(kept);
      this.#host.carryOut(kept.event, index++);
    }
  }
}

function nodeOf<E>(event: KeptEvent | undefined): Node<E> {
  return { event, branches: [], effect: undefined, to: undefined };
}

/** Whether a stretch may begin with an event. */
function parts(event: TraceEvent): boolean {
  switch (event.kind) {
    case "session":
    case "case":
    case "setstate":
      return true;
    case "vmrun":
      return event.regs !== undefined;
    default:
      return false;
  }
}

/** Where an event leads; the branch taken last is looked at first. */
function branch<E>({ branches }: Node<E>, event: TraceEvent): Node<E> | undefined {
  for (let i = 0; i < branches.length; i++) {
    const node = branches[i] as Node<E>;
    if (!(node.event as KeptEvent).is(event)) continue;
    if (i > 0) {
      branches.splice(i, 1);
      branches.unshift(node);
    }
    return node;
  }
  return undefined;
}

function remember<E>(
  from: Node<E>,
  events: readonly KeptEvent[],
  effect: E,
  to: State<E>,
): void {
  let node = from;
  for (const event of events) {
    let next = node.branches.find((known) => known.event === event);
    if (next === undefined) {
      if (node.branches.length === MOST_BRANCHES) return;
      next = nodeOf(event);
      node.branches.push(next);
    }
    node = next;
  }
  node.effect = effect;
  node.to = to;
}
