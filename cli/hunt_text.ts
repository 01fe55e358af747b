/**
 * A hunt as text for people.
 *
 * @module
 */
import { plural } from "../engine/plural.ts";
import type { Hunt, HuntFinding } from "../traces/hunt/mod.ts";
import { KNOWN } from "../traces/hunt/mod.ts";
import type { HuntSettings } from "./hunt_state.ts";

const count = (n: number): string => n.toLocaleString("en");
const counted = (n: number, word: string, many?: string): string => plural(n, word, many, count(n));
const percent = (n: number, of: number): string =>
  of === 0 ? "-" : `${(100 * n / of).toFixed(2)} %`;

/** Fields of a finding that are shown, and things not reached that are named. */
const SHOWN = 8;

/**
 * What a hunt came to.
 *
 * @param hunt The hunt.
 * @param settings What was hunted.
 */
export function huntText(hunt: Hunt, settings: HuntSettings): string {
  const { funnel, batches, known } = hunt.state;
  const { kernel, against, npt, seed } = settings;
  const lines = [
    `${kernel} with npt ${npt ? "on" : "off"} against ${against}, seed ${seed}: ` +
    `${counted(funnel.asked, "case")} in ${counted(batches, "batch", "batches")}`,
    "",
    `  ${count(funnel.answered)} answered`,
    `  ${count(funnel.steady)} of them the same when asked again, and from a known state`,
    `  ${count(funnel.foreseen)} of those as the model of ${kernel} says (${
      percent(funnel.foreseen, funnel.steady)
    })`,
    `  ${
      count(funnel.differ)
    } of those end otherwise than ${against} in what a guest or userspace sees`,
    `  ${counted(funnel.known, "deviation")} known, ${count(funnel.unknown)} in ${
      counted(hunt.findings.length, "finding")
    } not`,
    "",
    ...hunt.reached.map(({ what, reached, of, missing }) =>
      `  ${what}: ${reached}${of === undefined ? "" : ` of ${of}`}${missingText(missing)}`
    ),
    "",
  ];
  for (const [i, finding] of hunt.findings.entries()) {
    lines.push(...findingText(finding, i, settings));
  }
  const rows = Object.entries(known).sort(([, a], [, b]) => b.count - a.count);
  if (rows.length > 0) lines.push("Known, and left out:");
  for (const [id, row] of rows) {
    const { kind, reason } = KNOWN.find((one) => one.id === id) ?? { kind: "", reason: "" };
    lines.push(`  ${count(row.count)} × ${id} (${kind}): ${reason}`);
  }
  return lines.join("\n").trimEnd() + "\n";
}

function missingText(missing: readonly string[]): string {
  if (missing.length === 0) return "";
  const more = missing.length > SHOWN ? ` and ${missing.length - SHOWN} more` : "";
  return `; not ${missing.slice(0, SHOWN).join(", ")}${more}`;
}

function findingText(finding: HuntFinding, index: number, settings: HuntSettings): string[] {
  const { kind, title, unit, small, fields, parted, pieces, confirmed, shownBy } = finding;
  const other = kind === "gap" ? "its model" : settings.against;
  return [
    `${index + 1}. ${title} (${counted(finding.count, "case")})`,
    ...(small ?? unit).map((line) => `   ${line}`),
    ...(fields.length === 0 ? [] : [`   ${settings.kernel} / ${other}:`]),
    ...fields.slice(0, SHOWN).map(({ field, a, b }) => `     ${field}: ${a} / ${b}`),
    ...(parted === "" ? [] : [`   ${parted}`]),
    ...(pieces === undefined
      ? []
      : [`   Gone when ${other} does as the kernel in: ${pieces.join(", ")}`]),
    ...(shownBy === undefined ? [] : [`   Shown by: ${shownBy.join(", ") || "none"}`]),
    `   ${CONFIRMED[`${confirmed}`]}`,
    "",
  ];
}

const CONFIRMED: Readonly<Record<string, string>> = {
  true: "The kernel showed it again",
  false: "The kernel did not show it again",
  undefined: "The kernel was not asked again",
};
