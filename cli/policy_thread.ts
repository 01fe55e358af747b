/**
 * What a thread takes from the policies that it carries out, before it loads them.
 *
 * @module
 */
/// <reference lib="deno.worker" />
import process from "node:process";
import { terminalText } from "./paint.ts";
import { protectBuiltins } from "./protected_builtins.ts";

const { stderr } = Deno;

function refuse(): never {
  throw new Error("A policy cannot end the program");
}

// Standard output is the command's: what a policy has to say goes elsewhere, and to no terminal as
// it is.
function tell(...words: readonly unknown[]): void {
  const text = words.map((word) => typeof word === "string" ? word : Deno.inspect(word)).join(" ");
  stderr.writeSync(new TextEncoder().encode(`${terminalText(text)}\n`));
}

/** Methods of the console that say something. */
const LOUD: ReadonlySet<string> = new Set(
  "log info debug warn error dir dirxml table trace count timeEnd timeLog group groupCollapsed"
    .split(" "),
);

/**
 * Keeps policies that this thread loads later from ending the program, from writing to standard
 * output or a terminal by the console, from starting threads, and from changing what all share.
 */
export function keepQuiet(): void {
  Deno.exit = Deno.kill = refuse;
  Object.assign(process, { exit: refuse, reallyExit: refuse, kill: refuse });
  self.close = refuse;
  const told = globalThis.console as unknown as Record<string, unknown>;
  for (const name of Object.keys(told)) {
    if (typeof told[name] === "function") told[name] = LOUD.has(name) ? tell : () => undefined;
  }
  told["assert"] = (holds: unknown, ...words: readonly unknown[]) => {
    if (!holds) tell("Assertion failed:", ...words);
  };
  // One of its own would be neither watched nor told to keep quiet.
  Object.defineProperty(globalThis, "Worker", {
    value: class {
      constructor() {
        throw new Error("A policy cannot start threads");
      }
    },
  });
  protectBuiltins();
}
