/**
 * Colours, and text as a terminal may get it.
 *
 * @module
 */
import { visible } from "../codecs/visible.ts";

/** Colours of what is printed, each an SGR code. */
const CODES = {
  bold: "1",
  dim: "2",
  red: "31",
  green: "32",
  yellow: "33",
  cyan: "36",
} as const;

/** Name of a colour. */
export type Colour = keyof typeof CODES;

/** Colours text; leaves it alone where colours are not wanted. */
export type Paint = (colour: Colour, text: string) => string;

/**
 * Stands for the beginning of a terminal's sequence until the text is printed. Nothing that was
 * recorded can hold it, so that colours are told from what only looks like one.
 */
const SEQUENCE = `\x1b${crypto.randomUUID()}[`;

/**
 * Makes a painter.
 *
 * @param color Whether colours are wanted.
 * @returns The painter. It gives text of no width back as it is; {@linkcode terminalLine} shows it.
 */
export function painter(color: boolean): Paint {
  if (!color) return (_colour, text) => text;
  return (colour, text) => text === "" ? "" : `${SEQUENCE}${CODES[colour]}m${text}${SEQUENCE}0m`;
}

/** A line as a terminal may get it: with the painter's colours, and no other control character. */
export function terminalLine(line: string): string {
  if (!line.includes(SEQUENCE)) return visible(line);
  return line.split(SEQUENCE).map(visible).join("\x1b[");
}

/** The same of text of several lines. */
export function terminalText(text: string): string {
  return text.split("\n").map(terminalLine).join("\n");
}
