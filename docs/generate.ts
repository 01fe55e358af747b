/**
 * Writes the pages of the documentation that are made from tables.
 *
 * @module
 */
import { commandLinePage } from "./command_line_page.ts";
import { policiesPage } from "./policies_page.ts";
import { processorsPage } from "./processors_page.ts";
import { scenariosPage } from "./scenarios_page.ts";
import { traceFormatPage } from "./trace_format_page.ts";
import { vmcbPage } from "./vmcb_page.ts";

/** A generated page. */
export interface Page {
  /** Its file, in this folder. */
  readonly file: string;
  /** Makes its text. */
  readonly render: () => string;
}

/** All generated pages. */
export const PAGES: readonly Page[] = [
  { file: "trace-format.md", render: traceFormatPage },
  { file: "vmcb.md", render: vmcbPage },
  { file: "policies.md", render: policiesPage },
  { file: "processors.md", render: processorsPage },
  { file: "scenarios.md", render: scenariosPage },
  { file: "command-line.md", render: commandLinePage },
];

if (import.meta.main) {
  for (const { file, render } of PAGES) {
    await Deno.writeTextFile(new URL(file, import.meta.url), render());
  }
}
