/**
 * Differences, findings and explanations as JSON shows them: fields by name, values as text, bits by
 * name.
 *
 * @module
 */
import type { ExplainedStep, Explanation } from "./explain.ts";
import type { Finding } from "./findings.ts";
import type { RunDifference } from "./run_difference.ts";
import { fieldText, valueTexts } from "./wording.ts";

/**
 * A finding whose fields are text.
 *
 * @param finding The finding.
 * @returns A plain object: of each field `field` (part of the state and name), `a`, `b` (the values
 * in the first run), `bits` (those that differ in any run) and `runs`.
 * @example
 * ```ts
 * import { builtinScenarios, recordScenarios } from "@vmtape/vmtape/traces";
 * import { Differ, EARLY_EXIT, Findings, plainFinding, UNIFIED } from "@vmtape/vmtape/engine";
 * const findings = new Findings();
 * const differ = new Differ([EARLY_EXIT, UNIFIED], (difference) => findings.add(difference));
 * for await (const event of recordScenarios(builtinScenarios("gif-left-set"), EARLY_EXIT)) {
 *   differ.feed(event);
 * }
 * differ.finish();
 * const text = JSON.stringify(plainFinding(findings.list()[0]!));
 * if (!text.includes('{"field":"nested gif","a":"0x1","b":"0x0","bits":[],"runs":1}')) throw text;
 * ```
 */
export function plainFinding(finding: Finding): Record<string, unknown> {
  const fields = finding.fields.map((field) => (
    { field: fieldText(field), ...valueTexts(field), runs: field.runs }
  ));
  return { ...finding, fields };
}

/**
 * A run's differences whose fields are text.
 *
 * @param difference The run's differences.
 * @returns A plain object: of each field `area`, `field` (its name), `a`, `b`, `bits`, and the rest
 * of {@linkcode FieldDifference} as it is.
 */
export function plainDifference(difference: RunDifference): Record<string, unknown> {
  const fields = difference.fields.map((field) => {
    const { area, field: { name }, a: _a, b: _b, differing: _differing, ...rest } = field;
    return { area, field: name, ...valueTexts(field), ...rest };
  });
  return { ...difference, fields };
}

/**
 * An explanation whose fields are text.
 *
 * @param explanation The explanation.
 * @returns A plain object: of each change `area`, `field`, `before`, `after` and `bits`.
 */
export function plainExplanation(explanation: Explanation): Record<string, unknown> {
  const plain = (step: ExplainedStep | undefined) =>
    step && {
      ...step,
      changes: step.changes.map((change) => {
        const { a: before, b: after, bits } = valueTexts(change);
        return { area: change.area, field: change.field.name, before, after, bits };
      }),
    };
  const { rows, difference } = explanation;
  return {
    ...explanation,
    rows: rows.map(({ a, b, parts }) => ({ a: plain(a), b: plain(b), parts })),
    difference: difference && plainDifference(difference),
  };
}
