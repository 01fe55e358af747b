/**
 * Help, made from the tables of options.
 *
 * @module
 */
import { visible } from "../codecs/visible.ts";
import { type Command, COMMON, type Option } from "./command.ts";

const WIDTH = 96;

/** Breaks text into lines at blanks. */
export function wrap(text: string, width: number): string[] {
  const lines: string[] = [];
  let line = "";
  for (const word of text.split(/\s+/)) {
    if (line !== "" && line.length + 1 + word.length > width) {
      lines.push(line);
      line = word;
    } else line = line === "" ? word : `${line} ${word}`;
  }
  if (line !== "") lines.push(line);
  return lines;
}

/** Two columns, the second wrapped. */
export function columns(rows: readonly (readonly [string, string])[]): string {
  const left = Math.min(34, Math.max(...rows.map(([a]) => a.length)) + 2);
  const lines: string[] = [];
  for (const [key, doc] of rows) {
    const name = visible(key);
    const [first = "", ...rest] = wrap(doc, WIDTH - left - 2);
    if (name.length + 2 > left) lines.push(`  ${name}`, `  ${"".padEnd(left)}${first}`);
    else lines.push(`  ${name.padEnd(left)}${first}`);
    for (const more of rest) lines.push(`  ${"".padEnd(left)}${more}`);
  }
  return lines.join("\n");
}

function optionRow(option: Option): readonly [string, string] {
  const short = option.short ? `-${option.short}, ` : "    ";
  const value = option.kind === "flag"
    ? ""
    : ` ${option.value ?? (option.kind === "number" ? "N" : "VALUE")}`;
  const choices = option.choices ? ` (${option.choices.join(", ")})` : "";
  return [`${short}--${option.name}${value}`, option.doc + choices];
}

/** How the command is called, in one line. */
export function usage(command: Command): string {
  const needed = command.options.filter((o) => o.required).map((o) =>
    `${o.short ? `-${o.short}` : `--${o.name}`} ${o.value ?? "VALUE"}`
  );
  return ["vmtape", command.name, command.operands.usage, ...needed, "[options]"]
    .filter((s) => s !== "").join(" ");
}

/** The help of one command. */
export function commandHelp(command: Command): string {
  const parts = [`${command.summary}\n\nUsage: ${usage(command)}`];
  if (command.details) {
    parts.push(
      command.details.split(/\n\s*\n/).map((p) => wrap(p, WIDTH).join("\n")).join("\n\n"),
    );
  }
  if (command.options.length > 0) {
    parts.push(`Options:\n${columns(command.options.map(optionRow))}`);
  }
  parts.push(`Common options:\n${columns(COMMON.map(optionRow))}`);
  parts.push(
    `Examples:\n${command.examples.map((e) => `  # ${e.doc}\n  vmtape ${e.line}`).join("\n")}`,
  );
  return parts.join("\n\n") + "\n";
}

/** The help of the program. */
export function programHelp(commands: readonly (readonly [string, string])[]): string {
  return [
    "A flight recorder and referee for nested virtualization on AMD processors (SVM, KVM).",
    "Usage: vmtape COMMAND [operands] [options]",
    `Commands:\n${columns(commands)}`,
    `Common options:\n${columns(COMMON.map(optionRow))}`,
    `Exit status:\n${
      columns([
        ["0", "done; nothing differs"],
        ["1", "done; something differs"],
        ["2", "wrong command line or scenario, or a file that cannot be opened or written"],
        ["3", "damaged or foreign recording"],
        ["4", "trace of an unsupported version"],
        ["70", "fault of this program"],
        ["130", "stopped by Ctrl-C"],
      ])
    }`,
    'Data goes to standard output, everything else to standard error. Try "vmtape COMMAND --help".',
  ].join("\n\n") + "\n";
}
