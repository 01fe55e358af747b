/**
 * Rounds of scenarios that have come to repeat themselves: a machine that begins
 * a round as it began the one before goes through the same round again.
 *
 * @module
 */
import { Buffer } from "node:buffer";
import { copyEvent } from "../../codecs/mod.ts";
import type { TraceEvent } from "../../engine/event.ts";
import type { Vcpu } from "../../engine/kvm/vcpu.ts";
import { PAGE_SIZE } from "../../engine/svm/memory.ts";

/** Rounds that are watched before giving up on a machine that never settles. */
const PATIENCE = 8;
/** Most bytes of events that are kept of a round. */
const MOST_KEPT = 64 << 20;

/** Watches rounds, and keeps the events of the last one. */
export class FixedPoint {
  #before: Vcpu | undefined;
  #events: TraceEvent[] = [];
  #size = 0;
  #watched = 0;

  /** Whether it goes on watching. */
  get watching(): boolean {
    return this.#watched <= PATIENCE && this.#size <= MOST_KEPT;
  }

  /**
   * A round is about to begin.
   *
   * @param v The machine.
   * @returns Whether the round before began with the same machine: its events are those of all
   * rounds to come.
   */
  begins(v: Vcpu): boolean {
    if (!this.watching) return false;
    if (this.#before !== undefined && sameMachine(this.#before, v)) return true;
    this.#watched++;
    this.#before = v.fork(v.policy);
    this.#events = [];
    this.#size = 0;
    return false;
  }

  /** Keeps an event of the round under way. */
  keep(event: TraceEvent): void {
    if (this.#before === undefined || !this.watching) return;
    this.#events.push(copyEvent(event));
    // Images are all that counts; each event has a few.
    this.#size += event.kind === "inner" || event.kind === "regs" ? 3 * PAGE_SIZE : PAGE_SIZE;
    if (!this.watching) this.#events = [];
  }

  /** Events of the last round. */
  get events(): readonly TraceEvent[] {
    return this.#events;
  }
}

/** Whether two machines are the same in everything that a run reads. */
function sameMachine(a: Vcpu, b: Vcpu): boolean {
  return Buffer.compare(a.bytes, b.bytes) === 0 && rest(a) === rest(b) && sameMemory(a, b) &&
    Buffer.compare(a.smram ?? new Uint8Array(), b.smram ?? new Uint8Array()) === 0;
}

function rest(v: Vcpu): string {
  const { result, pendingIo, vmcb12, failedRet, fromVmrun, restoreFlags, unmodelled } = v;
  const { rc, errno, exit, port } = result;
  return [rc, errno, exit, port, pendingIo, vmcb12, failedRet, fromVmrun, restoreFlags, unmodelled]
    .join();
}

function sameMemory(a: Vcpu, b: Vcpu): boolean {
  const x = [...a.memory.pages()], y = [...b.memory.pages()];
  if (x.length !== y.length || a.memory.resident !== b.memory.resident) return false;
  return x.every((number, i) =>
    number === y[i] &&
    Buffer.compare(a.memory.page(number * PAGE_SIZE), b.memory.page(number * PAGE_SIZE)) === 0
  );
}
