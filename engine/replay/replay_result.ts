/**
 * What a replay comes to.
 *
 * @module
 */
import type { OutcomeCount } from "./agreement.ts";
import type { PartialResult } from "./partial.ts";

/** What a replay found. */
export interface ReplayResult {
  /** Name of the policy. */
  readonly policy: string;
  /** Events read. */
  readonly events: number;
  /** Runs carried out: VMRUNs and restores with their inputs. */
  readonly runs: number;
  /** Runs that agree with the recording in everything. */
  readonly agreed: number;
  /** Runs whose inputs are not in the trace, so that nothing could be said. */
  readonly skipped: number;
  /** Outcomes by kind: check, warn, inner, pre, mid, smm, post, setstate. */
  readonly outcomes: ReadonlyMap<string, OutcomeCount>;
  /** Digest over all modelled state at the end of every run: the same trace and policy give the same. */
  readonly digest: string;
  /** Bytes of state that the digest is over. */
  readonly digested: number;
  /** What the model met and does not model, with how many runs it left unknown. */
  readonly unmodelled: ReadonlyMap<string, number>;
  /** What was found in transitions that were recorded without memory, when there were any. */
  readonly partial: PartialResult | undefined;
}
