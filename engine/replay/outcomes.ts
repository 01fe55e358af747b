/**
 * What a run brings forth inside the kernel, as it was recorded and as a replay
 * produces it.
 *
 * @module
 */
import type { EventOf, Image } from "../event.ts";

/** An outcome that a replay produced. */
export type Produced =
  | { readonly kind: "check"; readonly id: string; readonly text: string }
  | { readonly kind: "warn"; readonly text: string }
  | { readonly kind: "switch"; readonly to: number }
  | {
    readonly kind: "inner";
    readonly at: string;
    readonly inner: Image;
    readonly vmcb01: Image;
    readonly vmcb02: Image | undefined;
  };

/** An outcome that was recorded. */
export type Recorded = EventOf<"check"> | EventOf<"warn"> | EventOf<"inner"> | EventOf<"switch">;

/** Whether two outcomes are of one kind, and so can be compared. */
export function sameKind(recorded: Recorded, produced: Produced): boolean {
  if (recorded.kind !== produced.kind) return false;
  return recorded.kind !== "inner" || produced.kind !== "inner" || recorded.at === produced.at;
}

/** What an outcome is called. */
export function nameOf(outcome: Recorded | Produced | undefined): string {
  if (outcome === undefined) return "nothing";
  switch (outcome.kind) {
    case "inner":
      return `state at ${outcome.at}`;
    case "check":
      return `check failed: ${outcome.text}`;
    case "switch":
      return `switch to vmcb0${outcome.to}`;
    default:
      return `warning: ${outcome.text}`;
  }
}
