/**
 * A VMRUN of a log as a case: what was recorded of its vmcb12, on the machine of scenarios.
 *
 * @module
 */
import { readField } from "../../engine/image/fields.ts";
import { assumptionOf } from "../../engine/replay/logged_driver.ts";
import type { LoggedRun } from "../../engine/replay/logged_runs.ts";
import { SAVE_AREA, VMCB_LAYOUT } from "../../engine/svm/vmcb_fields.ts";
import { basePages, VMCB12_GPA } from "./base.ts";
import type { CaseText } from "./minimize.ts";

/** Fields that name places in the memory of the recorded machine, which a scenario does not have. */
const PLACES =
  /_base_pa$|_pa$|^control\.(nested_cr3|avic_|next_rip|tsc_offset)|^save\.(cr3|rip|rsp|[cdefgs]s_base|.*_base|cr2)$/;

/**
 * Cases that set up what a log shows of a VMRUN, and what it implies: a check that failed, for one.
 * Each goes less far than the one before; one of them shows what the log shows, if any does.
 *
 * @param unit The logged run.
 * @returns The cases; none when too little is known of it.
 */
export function casesOfLogged(unit: LoggedRun): CaseText[] {
  const state = assumptionOf(unit, 0);
  if (state === undefined) return [];
  const base = { bytes: basePages().get(VMCB12_GPA) as Uint8Array };
  const words: { readonly field: string; readonly word: string }[] = [];
  for (const row of VMCB_LAYOUT.fields) {
    if (row.size > 8) continue;
    const { value } = readField({ bytes: state.vmcb12 }, row);
    if (value === readField(base, row).value) continue;
    const [letter, at] = row.offset < SAVE_AREA ? ["c", row.offset] : ["s", row.offset - SAVE_AREA];
    const size = row.size === 8 ? "" : `.${row.size}`;
    words.push({
      field: row.name,
      word: `${letter}.${at.toString(16)}${size}=${value.toString(16)}`,
    });
  }
  const name = `event_${unit.event}`;
  const spec = (list: typeof words) => list.map(({ word }) => word).join(" ");
  const placeless = words.filter(({ field }) => !PLACES.test(field));
  return [words, placeless].map((list) => ({ name, spec: spec(list) }));
}
