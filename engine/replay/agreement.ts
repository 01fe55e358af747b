/**
 * Holding what was recorded against what a replay gives, value by value.
 *
 * @module
 */
import { Buffer } from "node:buffer";
import type { Image } from "../event.ts";
import { hexOf } from "../hex.ts";
import type { Field, Layout } from "../layout.ts";
import { diffImages, type FieldDiff } from "../image/diff.ts";
import type { FieldValue } from "../image/fields.ts";
import type { Vcpu } from "../kvm/vcpu.ts";
import { INNER_LAYOUT } from "../svm/inner_layout.ts";
import { VMCB_LAYOUT } from "../svm/vmcb_fields.ts";
import type { Produced, Recorded } from "./outcomes.ts";

/** One place where the replay and the recording differ. */
export interface Mismatch {
  /** Number of the recorded event, from 0; of the logged run's first event when nothing was recorded. */
  readonly event: number;
  /** Name of the scenario, when the trace names it. */
  readonly scenario: string | undefined;
  /** What differs: an event kind and field, such as `post.gif` or `vmexit.vmcb02 save.rip`. */
  readonly field: string;
  /** What was recorded. */
  readonly recorded: string;
  /** What the replay gives. */
  readonly replayed: string;
  /** Both as values, where they are those of a field of an image. */
  readonly values?: MismatchValues;
}

/** A field of an image that is not as it was recorded. */
export interface MismatchValues {
  /** Its row; one made up for bytes that no field covers. */
  readonly field: Field;
  /** What was recorded. */
  readonly recorded: FieldValue;
  /** What the replay gives. */
  readonly replayed: FieldValue;
}

/**
 * A mismatch as JSON shows it: as text alone.
 *
 * @param mismatch The mismatch.
 * @returns A copy without values.
 * @example
 * ```ts
 * import { plainMismatch } from "@vmtape/vmtape/engine";
 * const zero = { value: 0n, known: 0xffn };
 * const values = { field: { name: "gif", offset: 0, size: 1, doc: "" }, recorded: zero, replayed: zero };
 * const one = { event: 1, scenario: "a", field: "post.gif", recorded: "0x0", replayed: "0x1", values };
 * if (JSON.stringify(plainMismatch(one)).includes("values")) throw new Error();
 * ```
 */
export function plainMismatch({ values: _, ...text }: Mismatch): Mismatch {
  return text;
}

/** A field that differs, as a mismatch has it: as text and as values. */
export function mismatchOf(
  { row, a, b, aText, bText }: FieldDiff,
): Required<Pick<Mismatch, "recorded" | "replayed" | "values">> {
  return { recorded: aText, replayed: bText, values: { field: row, recorded: a, replayed: b } };
}

/** Counts of one kind of outcome. */
export interface OutcomeCount {
  /** How many were held against each other. */
  compared: number;
  /** How many agreed in everything. */
  agreed: number;
}

/** Compares values, counts outcomes, and knows whether the run under way agrees so far. */
export class Agreement {
  readonly #count: (kind: string, agreed: boolean) => void;
  /** Whether nothing differed since this was set. */
  clean = true;
  /** Name of the scenario under way. */
  scenario: string | undefined;
  /** Addresses of the pages that the recording shows, by name. */
  shows: Readonly<Record<string, unknown>> = {};
  readonly #report: (mismatch: Mismatch) => void;

  /**
   * Begins with nothing compared.
   *
   * @param report Receives every mismatch as it is found.
   * @param count Receives every outcome that was compared: its kind, and whether it agrees.
   */
  constructor(
    report: (mismatch: Mismatch) => void,
    count: (kind: string, agreed: boolean) => void,
  ) {
    this.#report = report;
    this.#count = count;
  }

  /** Compares a page of guest memory whose address the session tells. */
  page(index: number, prefix: string, recorded: Image | undefined, name: string, v: Vcpu): void {
    const gpa = this.shows[name];
    if (recorded === undefined || typeof gpa !== "number") return;
    this.image(index, prefix, VMCB_LAYOUT, recorded, { bytes: v.memory.page(gpa) });
  }

  /** Compares the state save area of SMM, eight bytes at a time. */
  smram(index: number, phase: string, recorded: Image | undefined, v: Vcpu): void {
    const gpa = this.shows["smram"];
    if (recorded === undefined || typeof gpa !== "number") return;
    const word = (byte: (at: number) => number) =>
      hexOf(Uint8Array.from({ length: 8 }, (_, k) => byte(7 - k)));
    const { bytes } = recorded;
    for (let i = 0; i < bytes.length; i += 8) {
      let same = true;
      for (let k = 0; k < 8; k++) if (bytes[i + k] !== v.memory.read8(gpa + i + k)) same = false;
      if (same) continue;
      const was = word((at) => bytes[i + at] as number);
      const is = word((at) => v.memory.read8(gpa + i + at));
      this.mismatch(index, `${phase}.smram+${i.toString(16).padStart(3, "0")}`, was, is);
    }
  }

  /** Compares one outcome from inside the kernel with one of its kind. */
  inside(index: number, recorded: Recorded, produced: Produced): void {
    this.outcome(recorded.kind, () => {
      if (recorded.kind === "inner" && produced.kind === "inner") {
        const at = produced.at;
        this.image(index, `${at}.`, INNER_LAYOUT, recorded.inner, produced.inner);
        this.image(index, `${at}.vmcb01 `, VMCB_LAYOUT, recorded.vmcb01, produced.vmcb01);
        this.image(index, `${at}.vmcb02 `, VMCB_LAYOUT, recorded.vmcb02, produced.vmcb02);
      } else if (recorded.kind === "warn" && produced.kind === "warn") {
        if (recorded.text !== produced.text) {
          this.mismatch(index, "warn", recorded.text ?? "unknown", produced.text);
        }
      } else if (recorded.kind === "switch" && produced.kind === "switch") {
        this.number(index, "switch.to", recorded.to, produced.to);
      } else if (recorded.kind === "check" && produced.kind === "check") {
        if (recorded.text === produced.text || recorded.check === produced.id) return;
        this.mismatch(index, "check", recorded.text ?? recorded.check ?? "unknown", produced.text);
      }
    });
  }

  /** Makes comparisons that belong to one outcome, and counts it. */
  outcome(kind: string, compare: () => void): void {
    const before = this.beginOutcome();
    compare();
    this.endOutcome(kind, before);
  }

  /**
   * The comparisons that follow belong to one outcome.
   *
   * @returns To be handed to {@linkcode Agreement.endOutcome}.
   */
  beginOutcome(): boolean {
    const before = this.clean;
    this.clean = true;
    return before;
  }

  /** Counts the outcome that was compared. */
  endOutcome(kind: string, before: boolean): void {
    this.count(kind, this.clean);
    this.clean = before && this.clean;
  }

  /** Compares two images; one that is missing on either side says nothing. */
  image(
    index: number,
    prefix: string,
    layout: Layout,
    recorded: Image | undefined,
    replayed: Image | undefined,
  ): void {
    if (recorded === undefined || replayed === undefined) return;
    // Most are the same to the byte: where nobody masks anything, that is all there is to ask.
    const plain = recorded.known === undefined && replayed.known === undefined;
    if (plain && Buffer.compare(recorded.bytes, replayed.bytes) === 0) return;
    for (const row of diffImages(layout, recorded, replayed, { onlyKnown: true })) {
      this.#tell({ event: index, field: prefix + row.field, ...mismatchOf(row) });
    }
  }

  /** Compares a number; one that was not recorded says nothing. */
  number(index: number, field: string, recorded: number | undefined, replayed: number): void {
    if (recorded === undefined || recorded === replayed) return;
    this.mismatch(index, field, String(recorded), String(replayed));
  }

  /** Reports a difference. */
  mismatch(event: number, field: string, recorded: string, replayed: string): void {
    this.#tell({ event, field, recorded, replayed });
  }

  #tell(mismatch: Omit<Mismatch, "scenario">): void {
    this.clean = false;
    this.#report({ ...mismatch, scenario: this.scenario });
  }

  /** Counts an outcome. */
  count(kind: string, agreed: boolean): void {
    this.#count(kind, agreed);
  }
}
