/**
 * Where the rows of a view of a vCPU come from. The views, the places that a diff watches for their
 * last writer, and what one view leaves out since another shows it are generated from it.
 *
 * @module
 */
import type { Field } from "../layout.ts";

/** Some bytes of `Machine.bytes`, or some bits of one of them. */
export interface Place {
  /** Byte offset. */
  readonly at: number;
  /** Bytes; 0 for a value that is nowhere in particular. */
  readonly size: number;
  /** The bits of each byte that count; all when left out. */
  readonly mask?: number;
}

/** Names of what lies elsewhere depending on the state; the value is the offset in `Machine.bytes`. */
export type Whereabouts =
  | "es"
  | "cs"
  | "ss"
  | "ds"
  | "fs"
  | "gs"
  | "gdtr"
  | "ldtr"
  | "idtr"
  | "tr"
  | "rflags"
  | "currentVmcb12Gpa";

/** Names of values that are computed, of at most 32 bits. */
export type Getter =
  | "guestMode"
  | "smm"
  | "gif"
  | "mmu"
  | "walkMmu"
  | "msrpm01"
  | "msrpm02"
  | "rflags"
  | "hflags"
  | "runPendingOfL2"
  | "exceptionPending"
  | "exceptionInjected"
  | "exceptionVector"
  | "exceptionError"
  | "interruptInjected";

/** Where the value of a row comes from. */
export type Source =
  /** The low bytes of what is at a fixed offset in `Machine.bytes`. */
  | { readonly kind: "copy"; readonly at: number }
  /** What is so many bytes behind a place that depends on the state; zeros where that is nowhere. */
  | { readonly kind: "follow"; readonly what: Whereabouts; readonly plus: number }
  /** The same, with the low half computed. */
  | { readonly kind: "mixed"; readonly what: Whereabouts; readonly low: Getter }
  /** A computed value, and the bytes that decide it most. */
  | { readonly kind: "get"; readonly getter: Getter; readonly place: Place }
  /** Nothing of the machine: the value is handed in, or always 0. */
  | { readonly kind: "none" };

/** A row of a view. */
export interface ViewField extends Field {
  /** Where its value comes from. */
  readonly from: Source;
}

/** A source of kind `copy`. */
export function copyOf(at: number): { readonly kind: "copy"; readonly at: number } {
  return { kind: "copy", at };
}

/** A source of kind `get`; without a size the value is nowhere in particular. */
export function got(getter: Getter, at = 0, size = 0, mask?: number): Source {
  return { kind: "get", getter, place: { at, size, ...(mask !== undefined && { mask }) } };
}

/** A source of kind `none`. */
export const NOWHERE = { kind: "none" } as const satisfies Source;

/**
 * The bytes whose last writer is the writer of a row.
 *
 * @param row The row.
 * @returns The place; of size 0 where there is none.
 */
export function placeOfRow({ from, size }: ViewField): Place {
  switch (from.kind) {
    case "copy":
      return { at: from.at, size };
    case "get":
      return from.place;
    default:
      return { at: 0, size: 0 };
  }
}
