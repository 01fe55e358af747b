/**
 * What a run brought forth inside the kernel: what was recorded of it and what the
 * replay produced, until the run is over and they are compared.
 *
 * @module
 */
import { Buffer } from "node:buffer";
import type { Image } from "../event.ts";
import { compareImages } from "../image/diff.ts";
import { copyImage } from "../image/fields.ts";
import type { Observer } from "../kvm/vcpu.ts";
import { VMCB_SIZE } from "../svm/vmcb_fields.ts";
import type { Agreement } from "./agreement.ts";
import { nameOf, type Produced, type Recorded, sameKind } from "./outcomes.ts";
import { ProducedImages, ProducedVmcb } from "./produced_images.ts";
import { INNER_VIEWER } from "./views.ts";
import { RefilledList } from "./refilled_list.ts";
import { MOST_OUTCOMES, tooManyOutcomes } from "./replay_error.ts";

/** Stands for a state inside the kernel that was recorded as the replay produced it. */
const AS_PRODUCED = "as produced";

/** What is kept of an outcome that was recorded until the run is over. */
type Kept = Recorded | typeof AS_PRODUCED;

/** Collects the outcomes of the run under way. */
export class RunOutcomes {
  /** What the source could see, where it says so; it decides who hears what the replay produces. */
  sees: ReadonlySet<unknown> | undefined;
  /** What a recording lacks is unknown. */
  partial = false;
  readonly #produced = new RefilledList<Produced>();
  readonly #recorded = new RefilledList<Kept>();
  /** Their numbers in the trace. */
  readonly #indexes = new RefilledList<number>();
  readonly #images = new ProducedImages();

  readonly #plain: Observer = {
    check: (id, text) => this.#produce({ kind: "check", id, text }),
    warn: (text) => this.#produce({ kind: "warn", text }),
    viewer: INNER_VIEWER,
    inner: (at, ret, v, shown) => {
      if (this.sees?.has("inner") !== false) this.#produce(this.#images.inner(at, ret, v, shown));
    },
  };
  readonly #switching: Observer = {
    ...this.#plain,
    switched: (to) => this.#produce({ kind: "switch", to }),
  };

  /** Hears what the replay produces. What the source could not see says nothing when it is not in the trace. */
  get observer(): Observer {
    return this.seesSwitches ? this.#switching : this.#plain;
  }

  /** Whether the session tells of every switch of the active VMCB; most do not. */
  get seesSwitches(): boolean {
    return this.sees?.has("switch") === true;
  }

  /**
   * Takes what was recorded.
   *
   * @param event The event; its images need to be valid only during the call.
   * @param index Its number in the trace.
   * @throws {ReplayError} When there are more than a run has.
   */
  record(event: Recorded, index: number): void {
    if (this.#recorded.length === MOST_OUTCOMES) throw tooManyOutcomes(index);
    this.#recorded.push(this.#kept(event));
    this.#indexes.push(index);
  }

  /** The run is over, and compared. */
  reset(): void {
    this.#produced.clear();
    this.#recorded.clear();
    this.#indexes.clear();
    this.#images.reset();
  }

  /**
   * Compares them in order, up to the first that has no counterpart.
   *
   * @param agreement Does it.
   * @param runAt Number of the event that began the run.
   * @param whole Whether the run is known to its end, so that what only one side has is a difference.
   */
  compare(agreement: Agreement, runAt: number, whole: boolean): void {
    const recorded = this.#recorded;
    if (this.partial) {
      const kinds = new Set<string>();
      for (let i = 0; i < recorded.length; i++) {
        const event = recorded.at(i);
        if (event !== undefined) kinds.add(event === AS_PRODUCED ? "inner" : event.kind);
      }
      this.#produced.retain(({ kind }) => kinds.has(kind));
    }
    const { length } = this.#produced;
    const most = whole ? Math.max(recorded.length, length) : Math.min(recorded.length, length);
    for (let i = 0; i < most; i++) {
      const was = recorded.at(i), is = this.#produced.at(i);
      if (was === AS_PRODUCED) {
        agreement.count("inner", true);
        continue;
      }
      const index = this.#indexes.at(i) ?? runAt;
      if (was === undefined || is === undefined || !sameKind(was, is)) {
        agreement.mismatch(index, "outcome", nameOf(was), nameOf(is));
        agreement.count(was?.kind ?? is?.kind ?? "outcome", false);
        return;
      }
      agreement.inside(index, was, is);
    }
  }

  #produce(outcome: Produced): void {
    if (this.sees?.has(outcome.kind) !== false) this.#produced.push(outcome);
  }

  /**
   * An outcome to be compared when the run is over. Images that are as they should be need no
   * copy: what was replayed is there already.
   */
  #kept(event: Recorded): Kept {
    if (event.kind !== "inner") return { ...event };
    const produced = this.partial ? undefined : this.#produced.at(this.#recorded.length);
    const same = produced?.kind === "inner" && produced.at === event.at &&
      agree(event.inner, produced.inner) && agree(event.vmcb01, produced.vmcb01) &&
      agree(event.vmcb02, produced.vmcb02);
    if (same) return AS_PRODUCED;
    const { inner, vmcb01, vmcb02, ...rest } = event;
    return {
      ...rest,
      ...(inner && { inner: copyImage(inner) }),
      ...(vmcb01 && { vmcb01: copyImage(vmcb01) }),
      ...(vmcb02 && { vmcb02: copyImage(vmcb02) }),
    };
  }
}

/** Whether a recorded image is plainly what was replayed; where one is missing nothing is compared. */
function agree(recorded: Image | undefined, replayed: Image | undefined): boolean {
  if (recorded === undefined || replayed === undefined) return true;
  const same = replayed instanceof ProducedVmcb
    ? replayed.equals(recorded)
    : Buffer.compare(recorded.bytes, replayed.bytes) === 0;
  return same ||
    recorded.bytes.length < VMCB_SIZE && compareImages(recorded, replayed) !== "differs";
}
