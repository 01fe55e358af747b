/**
 * Markdown as `deno fmt` leaves it, for generated pages.
 *
 * @module
 */

/**
 * A table whose columns are as wide as their longest cell.
 *
 * @param head Headings.
 * @param rows Cells; as many a row as there are headings.
 * @returns The table's lines, each ended.
 */
export function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const widths = head.map((_, i) => Math.max(...[head, ...rows].map((row) => row[i]!.length)));
  const line = (cells: readonly string[]) =>
    `| ${cells.map((cell, i) => cell.padEnd(widths[i]!)).join(" | ")} |\n`;
  return [head, widths.map((width) => "-".repeat(width)), ...rows].map(line).join("");
}

/**
 * A paragraph, filled to 100 columns.
 *
 * @param text The paragraph on one line.
 * @returns Its lines, without an end.
 */
export function paragraph(text: string): string {
  const lines: string[] = [];
  let line = "";
  for (const word of text.split(" ")) {
    if (line !== "" && line.length + 1 + word.length > 100) {
      lines.push(line);
      line = word;
    } else {
      line = line === "" ? word : `${line} ${word}`;
    }
  }
  return [...lines, line].join("\n");
}
