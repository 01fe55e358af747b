/**
 * A vCPU's state as numbers of pages, so that two states are the same when
 * their numbers are.
 *
 * @module
 */
import { Buffer } from "node:buffer";
import { type GuestMemory, PAGE_SIZE } from "../svm/memory.ts";
import { type Capabilities, sameCapabilities } from "../svm/machine.ts";
import type { LooseState } from "../kvm/loose_state.ts";
import { Vcpu } from "../kvm/vcpu.ts";
import type { Policy } from "../policy.ts";
import type { PageStore } from "./page_store.ts";

/** A vCPU with its guest memory, between two runs. */
export interface VcpuPages {
  /** What the processor and the hypervisor can do. */
  readonly caps: Capabilities;
  /** Numbers of the pieces of the machine's bytes, then of the pages of guest memory; 0 for one never written. */
  readonly ids: Int32Array;
  /** A checksum of the numbers, to find the state by. */
  readonly sum: number;
  /** Address below which userspace touched every page. */
  readonly resident: number;
  /** What is in none of these. */
  readonly loose: LooseState;
  /** The same, with the address, as text to compare. */
  readonly key: string;
}

/** Takes the states of one vCPU, and puts them back. */
export class VcpuPager {
  readonly #store: PageStore;
  // Numbers of the pages of guest memory as they were when last looked at.
  #memory: GuestMemory | undefined;
  #ids = new Int32Array(0);
  #versions = new Float64Array(0);

  /** @param store Where the pages are kept. */
  constructor(store: PageStore) {
    this.#store = store;
  }

  /** Forgets what it knows of pages: the store was emptied. */
  clear(): void {
    this.#memory = undefined;
  }

  /** The vCPU's state, all of it. */
  take(v: Vcpu): VcpuPages {
    const { bytes, memory } = v;
    if (memory !== this.#memory) this.#begin(memory);
    const pieces = Math.ceil(bytes.length / PAGE_SIZE);
    let extent = memory.extent;
    while (extent > 0 && !memory.written(extent - 1)) extent--;
    const ids = new Int32Array(pieces + extent);
    for (let i = 0; i < pieces; i++) {
      ids[i] = this.#store.intern(bytes.subarray(i * PAGE_SIZE, (i + 1) * PAGE_SIZE));
    }
    for (let page = 0; page < extent; page++) ids[pieces + page] = this.#page(memory, page);
    const { resident } = memory;
    const key = `${resident}|${v.looseKey}`;
    return { caps: v.caps, ids, sum: sumOf(ids), resident, loose: v.loose(), key };
  }

  /**
   * Makes a vCPU have a state again.
   *
   * @param state The state.
   * @param v The vCPU, if there is one.
   * @param policy Its policy.
   * @returns The vCPU, or another when that one has other capabilities.
   */
  put(state: VcpuPages, v: Vcpu | undefined, policy: Policy): Vcpu {
    const { caps, ids, loose } = state;
    if (v === undefined || !sameCapabilities(v.caps, caps)) v = new Vcpu(caps, policy);
    const { bytes, memory } = v;
    const pieces = Math.ceil(bytes.length / PAGE_SIZE);
    for (let i = 0; i < pieces; i++) bytes.set(this.#store.get(ids[i] as number), i * PAGE_SIZE);
    const extent = Math.max(memory.extent, ids.length - pieces);
    for (let page = 0; page < extent; page++) {
      const id = ids[pieces + page] ?? 0;
      const at = page * PAGE_SIZE;
      if (id === 0) {
        if (memory.written(page)) memory.clear(at, at + PAGE_SIZE);
        continue;
      }
      const kept = this.#store.get(id);
      if (memory.written(page) && Buffer.compare(memory.page(at), kept) === 0) continue;
      memory.writable(at).set(kept);
    }
    memory.resident = state.resident;
    v.adopt(loose);
    return v;
  }

  #page(memory: GuestMemory, page: number): number {
    if (!memory.written(page)) return 0;
    const version = memory.versions[page] as number;
    if (this.#versions[page] !== version) {
      this.#versions[page] = version;
      this.#ids[page] = this.#store.intern(memory.page(page * PAGE_SIZE));
    }
    return this.#ids[page] as number;
  }

  #begin(memory: GuestMemory): void {
    this.#memory = memory;
    this.#versions = new Float64Array(memory.versions.length).fill(-1);
    this.#ids = new Int32Array(memory.versions.length);
  }
}

function sumOf(ids: Int32Array): number {
  let sum = 0;
  for (let i = 0; i < ids.length; i++) sum = Math.imul(sum, 31) + (ids[i] as number) | 0;
  return sum;
}

/** Whether two states of a vCPU are the same. */
export function sameVcpu(a: VcpuPages, b: VcpuPages): boolean {
  if (a.key !== b.key || a.ids.length !== b.ids.length || !sameCapabilities(a.caps, b.caps)) {
    return false;
  }
  for (let i = 0; i < a.ids.length; i++) if (a.ids[i] !== b.ids[i]) return false;
  return true;
}
