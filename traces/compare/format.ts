/**
 * A comparison as a text for people.
 *
 * @module
 */
import { plural } from "../../engine/plural.ts";
import { visible } from "../../codecs/visible.ts";
import { type Group, GROUP_NUMBERS, GROUPS } from "./groups.ts";
import type { ComparisonResult, GroupCount } from "./tally.ts";

/**
 * A comparison as text: the agreement by group, then what differs.
 *
 * @param result The comparison.
 * @param limit How many fields to list; all when left out.
 * @returns Lines, each ended by a line break.
 * @example
 * ```ts
 * import { compare, formatComparison } from "@vmtape/vmtape/traces";
 * const text = formatComparison(await compare([], []));
 * if (!text.startsWith("0 cases compared")) throw new Error();
 * ```
 */
export function formatComparison(result: ComparisonResult, limit = Infinity): string {
  const { compared, agreed, skipped, onlyA, onlyB, otherSpec } = result;
  const lines = [
    `${plural(compared, "case")} compared, ${
      plural(agreed, "agrees", "agree")
    } in everything, ${skipped} left out by the skip list`,
  ];
  const names = (list: readonly string[]) =>
    list.slice(0, 5).join(", ") + (list.length > 5 ? ", …" : "");
  if (onlyA.length > 0) lines.push(`${onlyA.length} only in the first: ${names(onlyA)}`);
  if (onlyB.length > 0) lines.push(`${onlyB.length} only in the second: ${names(onlyB)}`);
  if (otherSpec.length > 0) {
    lines.push(`${otherSpec.length} with another spec: ${names(otherSpec)}`);
  }
  const table = [
    ["kernel", "npt", "entry", "cases", ...GROUP_NUMBERS.map((g) => `group ${g}`)],
    ...result.rows.map((row) => [row.kernel, `${row.npt}`, row.entry, ...counts(row.groups)]),
    ["all", "", "", ...counts(result.groups)],
  ];
  lines.push("", ...columns(table), "");
  for (const group of GROUP_NUMBERS) lines.push(`group ${group}: ${GROUPS[group]}`);
  const shown = result.disagreements.slice(0, limit);
  if (shown.length > 0) lines.push("");
  for (const { group, field, count, examples } of shown) {
    lines.push(`${count} × ${field} (group ${group})`);
    for (const example of examples) {
      lines.push(`    ${example.case}: ${example.a ?? "absent"} / ${example.b ?? "absent"}`);
    }
  }
  const left = result.disagreements.length - shown.length;
  if (left > 0) lines.push(`and ${plural(left, "more field")}`);
  return lines.map((line) => visible(line.trimEnd()) + "\n").join("");
}

function counts(groups: Readonly<Record<Group, GroupCount>>): string[] {
  return [`${groups[1].cases}`, ...GROUP_NUMBERS.map((group) => percent(groups[group]))];
}

/** Rounded down, so that 100 % means all of them. */
function percent({ cases, agreed }: GroupCount): string {
  if (cases === 0) return "unknown";
  return `${(Math.floor(10000 * agreed / cases) / 100).toFixed(2)} %`;
}

function columns(table: readonly (readonly string[])[]): string[] {
  const widths = table[0]!.map((_, i) =>
    table.reduce((width, row) => Math.max(width, row[i]!.length), 0)
  );
  return table.map((row) =>
    row.map((cell, i) => i < 3 ? cell.padEnd(widths[i]!) : cell.padStart(widths[i]!)).join("  ")
  );
}
