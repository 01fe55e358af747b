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
 * Makes a painter.
 *
 * @param color Whether colours are wanted.
 * @returns The painter. It gives text of no width back as it is.
 */
export function painter(color: boolean): Paint {
  if (!color) return (_colour, text) => text;
  return (colour, text) => text === "" ? "" : `\x1b[${CODES[colour]}m${text}\x1b[0m`;
}
