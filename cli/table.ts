/**
 * Tables as text.
 *
 * @module
 */
import { visible } from "../codecs/visible.ts";
import { unicodeWidth } from "@std/cli/unicode-width";

/**
 * A table as text: the first column to the left, the others to the right, each
 * line indented by two blanks.
 *
 * @param head Names of the columns.
 * @param rows The rows.
 * @returns Lines, each ended by a line break; nothing without rows.
 */
export function formatTable(
  head: readonly string[],
  rows: readonly (readonly string[])[],
): string {
  if (rows.length === 0) return "";
  const all = [head, ...rows].map((row) => row.map(visible));
  const widths = head.map((_, i) => Math.max(...all.map((row) => unicodeWidth(row[i] ?? ""))));
  return all.map((row) =>
    `  ${
      head.map((_, i) => {
        const cell = row[i] ?? "";
        const blanks = " ".repeat(widths[i]! - unicodeWidth(cell));
        return i === 0 ? cell + blanks : blanks + cell;
      }).join("  ")
    }`.trimEnd() + "\n"
  ).join("");
}
