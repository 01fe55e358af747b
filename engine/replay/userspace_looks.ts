/**
 * What userspace saw before and behind a run, held against what it sees in the replay.
 *
 * @module
 */
import type { EventOf, Image } from "../event.ts";
import { ImageKeeper } from "../image/fields.ts";
import type { Looker, ShownImage, Vcpu } from "../kvm/vcpu.ts";
import { ImageBuffer } from "../svm/image_buffer.ts";
import { REGS_LAYOUT, REGS_SIZE } from "../svm/regs_layout.ts";
import type { Agreement } from "./agreement.ts";
import { REGS_VIEWER, regsBytes } from "./views.ts";

/** What userspace saw before a run, and the event's number. */
interface SeenBefore {
  readonly index: number;
  readonly regs: Image | undefined;
  readonly vmcb12: Image | undefined;
  readonly hsave: Image | undefined;
}

/** What the values of a `regs` event are called, or how the names of its fields begin. */
function namesOf(phase: string) {
  const [rc, exit, errno, port] = ["rc", "exit", "errno", "port"].map((name) =>
    `${phase}.${name}`
  ) as [string, string, string, string];
  const regs = `${phase}.`, vmcb12 = `${phase}.vmcb12 `, hsave = `${phase}.hsave `;
  return { phase, rc, exit, errno, port, regs, vmcb12, hsave };
}

/** Holds looks of userspace against those of the recording. */
export class UserspaceLooks {
  /** Looks before a run that {@linkcode UserspaceLooks.begin} said somebody looked at. */
  readonly looker: Looker = {
    viewer: REGS_VIEWER,
    look: (v, shown) => this.#compareBefore(v, shown),
  };
  readonly #agreement: Agreement;
  readonly #look: (look: (v: Vcpu) => void, into: ImageBuffer) => void;
  readonly #seen = new ImageBuffer(REGS_SIZE);
  readonly #lookWhole = (v: Vcpu) => void regsBytes(v, this.#seen);
  /** What userspace saw before the run to come, and before the one under way. */
  #waiting: SeenBefore | undefined;
  #before: SeenBefore | undefined;
  readonly #regs = new ImageKeeper();
  readonly #vmcb12 = new ImageKeeper();
  readonly #hsave = new ImageKeeper();
  /** Names of what userspace saw last. */
  #names = namesOf("post");

  /**
   * Has seen nothing yet.
   *
   * @param agreement Is told what is otherwise.
   * @param look Has userspace look at the vCPU as a run left it.
   */
  constructor(
    agreement: Agreement,
    look: (look: (v: Vcpu) => void, into: ImageBuffer) => void,
  ) {
    this.#agreement = agreement;
    this.#look = look;
  }

  /** Whether userspace looked before a run that has not begun yet. */
  get waiting(): boolean {
    return this.#waiting !== undefined;
  }

  /** There is no such run. */
  forget(): void {
    this.#waiting = undefined;
  }

  /**
   * Takes what userspace saw before the run to come.
   *
   * @param event The event; its images need to be valid only during the call.
   * @param index Its number in the trace.
   */
  keep({ regs, vmcb12, hsave }: EventOf<"regs">, index: number): void {
    this.#waiting = {
      index,
      regs: regs && this.#regs.keep(regs),
      vmcb12: vmcb12 && this.#vmcb12.keep(vmcb12),
      hsave: hsave && this.#hsave.keep(hsave),
    };
  }

  /** The run begins; whether userspace looked before it. */
  begin(): boolean {
    this.#before = this.#waiting;
    this.#waiting = undefined;
    return this.#before !== undefined;
  }

  /**
   * Compares what userspace saw when KVM_RUN had returned.
   *
   * @param v The vCPU, as the replay left it.
   * @param event What was seen.
   * @param phase When.
   * @param index The event's number in the trace.
   * @param interrupted Whether it was ended somewhere by chance, so that the outcome alone counts.
   */
  compare(
    v: Vcpu,
    event: EventOf<"regs">,
    phase: string,
    index: number,
    interrupted: boolean,
  ): void {
    const agreement = this.#agreement, before = agreement.beginOutcome();
    if (this.#names.phase !== phase) this.#names = namesOf(phase);
    const names = this.#names;
    const { rc, errno, exit, port } = v.result;
    agreement.number(index, names.rc, event.rc, rc);
    agreement.number(index, names.exit, event.exit, exit);
    agreement.number(index, names.errno, event.errno, errno);
    if (!interrupted) {
      if (exit === 2) agreement.number(index, names.port, event.port, port);
      this.#look(this.#lookWhole, this.#seen);
      agreement.image(index, names.regs, REGS_LAYOUT, event.regs, { bytes: this.#seen.bytes });
      agreement.page(index, names.vmcb12, event.vmcb12, "vmcb12", v);
      agreement.page(index, names.hsave, event.hsave, "hsave", v);
      agreement.smram(index, phase, event.smram, v);
    }
    agreement.endOutcome(phase, before);
  }

  #compareBefore(v: Vcpu, shown: ShownImage | undefined): void {
    const before = this.#before;
    if (before === undefined) return;
    const agreement = this.#agreement, seen = this.#seen;
    if (shown === undefined) regsBytes(v, seen);
    else shown.fill(seen);
    agreement.image(before.index, "pre.", REGS_LAYOUT, before.regs, { bytes: seen.bytes });
    agreement.page(before.index, "pre.vmcb12 ", before.vmcb12, "vmcb12", v);
    agreement.page(before.index, "pre.hsave ", before.hsave, "hsave", v);
    agreement.count("pre", agreement.clean);
  }
}
