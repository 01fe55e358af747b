/**
 * The machine's state at an event of a trace, for people and for machines.
 *
 * @module
 */
import type { TraceFile } from "../codecs/mod.ts";
import { areaImage, AREAS } from "../engine/diff/areas.ts";
import { dumpImage } from "../engine/image/dump.ts";
import type { Policy } from "../engine/policy.ts";
import { recordedPolicy } from "../engine/replay/context.ts";
import { Driver } from "../engine/replay/drive.ts";
import { showsTransitions } from "../engine/replay/logged_runs.ts";
import { PAGE_SIZE } from "../engine/svm/memory.ts";
import type { Context } from "./context.ts";
import { UsageError } from "./errors.ts";
import { loadPolicy } from "./policy_input.ts";

/** The state of a vCPU, part by part: fields that are not zero, by name. */
export interface MachineState {
  /** Name of the policy that led there. */
  readonly policy: string;
  /** vmcb12, L1, nested, vmcb01, vmcb02, vcpu, each by field. */
  readonly areas: Readonly<Record<string, Readonly<Record<string, string>>>>;
}

/**
 * Carries a trace out up to an event, and shows the state of its vCPU then.
 *
 * @param trace The trace.
 * @param event Number of the event; it is carried out as well.
 * @param named The policy to carry it out under; the recorded one when left out.
 * @returns The state.
 * @throws {UsageError} When there is no such event, or the trace lacks the inputs or the policy.
 */
export async function stateAt(
  trace: TraceFile,
  event: number,
  named: Policy | undefined,
): Promise<MachineState> {
  if (event >= trace.eventCount) {
    throw new UsageError(`There is no event ${event}: the trace has ${trace.eventCount}`);
  }
  let driver: Driver | undefined;
  let policy = named;
  let vmcb12 = 0n;
  for await (const block of trace.blocks({ from: 0, to: event + 1 })) {
    for (const [number, next] of block.entries()) {
      if (number > event) break;
      if (next.kind === "session") {
        if (showsTransitions(next.meta)) {
          throw new UsageError("The trace shows single transitions, not a machine's whole state");
        }
        policy = named ?? await loadPolicy(recordedPolicy(next) ?? "upstream");
        if (driver?.policy !== policy) driver = undefined;
      }
      if (next.kind === "vmrun") vmcb12 = next.vmcb12_gpa ?? vmcb12;
      if (next.kind === "setstate") vmcb12 = next.vmcb_pa ?? vmcb12;
      if (policy !== undefined) (driver ??= new Driver(policy)).feed(next, number);
    }
  }
  const v = driver?.vcpu;
  if (v === undefined || policy === undefined) {
    throw new UsageError(`No machine is there yet at event ${event}`);
  }
  const gpa = Number(vmcb12 & ~0xfffn);
  const areas = AREAS.map((area) => {
    const image = areaImage(area, v, v.memory.backed(gpa, PAGE_SIZE) ? gpa : 0);
    const rows = dumpImage(area.layout, image, { onlyNonZero: true, onlyKnown: true })
      .filter(({ field }) => area.omit?.has(field) !== true);
    return [area.name, Object.fromEntries(rows.map(({ field, text }) => [field, text]))] as const;
  });
  return { policy: policy.name, areas: Object.fromEntries(areas) };
}

/** Prints a state. */
export function printState(context: Context, event: number, state: MachineState): void {
  const { out } = context;
  if (context.json) {
    out.json({ event, ...state });
    return;
  }
  out.line(`After event ${event}, under ${state.policy}:`);
  for (const [area, fields] of Object.entries(state.areas)) {
    out.line(area);
    for (const [field, text] of Object.entries(fields)) out.line(`    ${field} = ${text}`);
  }
}
