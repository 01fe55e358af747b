/**
 * Finds a guest's VMRUN instructions, a slice of time after the other: the
 * opcode in what its page tables make executable, the kernel's part first.
 *
 * @module
 */
import { Buffer } from "node:buffer";
import type { GdbClient } from "./gdb_client.ts";
import type { GdbRegisters } from "./gdb_registers.ts";
import { inMemory, type MemoryRegion } from "./memory_map.ts";
import { MemorySource } from "./memory_source.ts";
import { type ExecutableRun, executableRuns, type PagingMode } from "./page_walk.ts";
import { VMRUN_OPCODE } from "./vmrun.ts";

/** A place that may be a VMRUN; only a stop there shows that it is. */
export interface Candidate {
  /** Linear address. */
  readonly linear: bigint;
  /** Physical address of the opcode. */
  readonly physical: bigint;
}

/** Memory read at once: a slice may take so much longer than it should. */
const CHUNK = 256 << 10;
/** Bytes of an opcode that may be on the next page. */
const OVERLAP = VMRUN_OPCODE.length - 1;
/** Page tables remembered at most, one for each CR3. */
const MAX_ROOTS = 64;
/** Rounds until what was searched is searched once more, since its content may be another; then twice as many. */
const ROUNDS_UNTIL_AGAIN = 64;

const OPCODE = Buffer.from(VMRUN_OPCODE);

/**
 * The search. A round goes through all page tables that are known, first through what only a
 * kernel may execute, then through the rest, and searches what no round before it has searched.
 */
export class VmrunSearch implements AsyncDisposable {
  readonly #gdb: GdbClient;
  readonly #memory: readonly MemoryRegion[];
  readonly #source: MemorySource;
  readonly #roots = new Map<bigint, PagingMode>();
  /** What was searched: physical by linear address. */
  readonly #seen = new Map<bigint, bigint>();
  #round: AsyncGenerator<Candidate[]> | undefined;
  /** The lowest bytes of what was searched last, for an opcode that begins below them. */
  #above: { readonly linear: bigint; readonly bytes: Uint8Array } | undefined;
  /** Number of the round after which everything is searched once more. */
  #again = ROUNDS_UNTIL_AGAIN;
  /** Bytes searched, each once. */
  searched = 0;
  /** Rounds that came to their end. */
  rounds = 0;

  /**
   * @param gdb Client of the guest.
   * @param memory Where its memory is.
   */
  constructor(gdb: GdbClient, memory: readonly MemoryRegion[]) {
    this.#gdb = gdb;
    this.#memory = memory;
    this.#source = new MemorySource(gdb);
  }

  /**
   * Goes on searching; the guest must be stopped.
   *
   * @param vcpus Registers of the vCPUs whose page tables count.
   * @param ms Milliseconds to take, about.
   * @param signal Gives up early.
   * @returns What was found meanwhile.
   */
  async slice(
    vcpus: readonly GdbRegisters[],
    ms: number,
    signal?: AbortSignal,
  ): Promise<Candidate[]> {
    const end = performance.now() + ms;
    for (const registers of vcpus) this.#learn(registers);
    const found: Candidate[] = [];
    this.#round ??= this.#searchAll();
    while (performance.now() < end && !signal?.aborted) {
      const step = await this.#round.next();
      if (step.done) {
        this.#round = undefined;
        break;
      }
      found.push(...step.value);
    }
    return found;
  }

  #learn(registers: GdbRegisters): void {
    const [cr0, cr3, cr4, efer] = ["cr0", "cr3", "cr4", "efer"].map((name) => registers.need(name));
    this.#roots.delete(cr3!);
    this.#roots.set(cr3!, { cr0: cr0!, cr3: cr3!, cr4: cr4!, efer: efer! });
    if (this.#roots.size > MAX_ROOTS) this.#roots.delete(this.#roots.keys().next().value!);
  }

  async *#searchAll(): AsyncGenerator<Candidate[]> {
    for (const user of [false, true]) {
      const visited = new Set<string>();
      for (const mode of [...this.#roots.values()].reverse()) {
        const read = async (at: bigint, length: number) =>
          inMemory(this.#memory, at, length) ? await this.#gdb.readMemory(at, length) : undefined;
        yield* this.#searchRuns(executableRuns(mode, read, { user, visited }));
      }
    }
    if (++this.rounds < this.#again) return;
    this.#again *= 2;
    this.#seen.clear();
    this.searched = 0;
  }

  /** Joins runs that continue each other, downwards, until they are worth reading. */
  async *#searchRuns(runs: AsyncIterable<ExecutableRun>): AsyncGenerator<Candidate[]> {
    let joined: ExecutableRun | undefined;
    for await (const run of runs) {
      if (this.#seen.get(run.linear) === run.physical) continue;
      this.#seen.set(run.linear, run.physical);
      const { linear, physical, size } = run;
      const continues = joined !== undefined && joined.size < CHUNK &&
        linear + size === joined.linear && physical + size === joined.physical;
      if (joined && continues) {
        joined = { linear, physical, size: size + joined.size };
      } else {
        if (joined) yield* this.#searchRun(joined);
        joined = run;
      }
      // The tables take time, too.
      yield [];
    }
    if (joined) yield* this.#searchRun(joined);
  }

  /** The memory in a run, from its end to its beginning. */
  async *#searchRun(run: ExecutableRun): AsyncGenerator<Candidate[]> {
    const end = run.physical + run.size;
    for (const region of this.#memory.toReversed()) {
      const low = region.start > run.physical ? region.start : run.physical;
      for (let high = region.end < end ? region.end : end; high > low;) {
        const at = high - low > CHUNK ? high - BigInt(CHUNK) : low;
        yield await this.#searchChunk(run.linear + at - run.physical, at, Number(high - at));
        high = at;
      }
    }
  }

  async #searchChunk(linear: bigint, physical: bigint, length: number): Promise<Candidate[]> {
    const bytes = await this.#source.read(physical, length);
    if (bytes === undefined) return [];
    this.searched += length;
    const above = this.#above?.linear === linear + BigInt(length) ? this.#above.bytes : [];
    const text = Buffer.concat([bytes, Uint8Array.from(above)]);
    this.#above = { linear, bytes: bytes.slice(0, OVERLAP) };
    const found: Candidate[] = [];
    for (let i = text.indexOf(OPCODE); i >= 0; i = text.indexOf(OPCODE, i + 1)) {
      found.push({ linear: linear + BigInt(i), physical: physical + BigInt(i) });
    }
    return found;
  }

  /** Takes away what the search needed. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#source[Symbol.asyncDispose]();
  }
}
