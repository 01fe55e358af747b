/**
 * The program: picks the subcommand, runs it, and turns what it throws into a message and a status.
 *
 * @module
 */
import config from "../deno.json" with { type: "json" };
import { type Command, EXIT } from "./command.ts";
import { COMMANDS } from "./commands.ts";
import { Context } from "./context.ts";
import { type Failure, failureOf, UsageError } from "./errors.ts";
import { commandHelp, programHelp } from "./help.ts";
import { policyModules } from "./policy_modules.ts";
import { giveUp } from "./permissions.ts";
import { ClosedOutputError, Output, type Sink } from "./output.ts";
import { parse } from "./parse.ts";
import { didYouMean } from "./suggest.ts";

/** What the program talks to. */
export interface World {
  /** Standard output. */
  readonly out: Sink;
  /** Standard error. */
  readonly err: Sink;
  /** Whether standard output may be coloured. */
  readonly color: boolean;
  /** Whether to show where an internal error comes from. */
  readonly debug: boolean;
  /** Whether this is a thread that may do no more than the command line names. */
  readonly confined?: boolean;
  /** Whether the process does nothing but this, and may give up what it does not need. */
  readonly alone?: boolean;
}

function index(): (readonly [string, string])[] {
  return COMMANDS.map((c) => [c.name, c.summary] as const);
}

async function load(name: string): Promise<Command> {
  const entry = COMMANDS.find((c) => c.name === name);
  if (entry) return await entry.load();
  throw new UsageError(
    `Unknown command ${JSON.stringify(name)}${didYouMean(name, COMMANDS.map((c) => c.name))}`,
  );
}

/** The command that words begin with: its name has two of them if there is such a command. */
function commandIn(words: readonly string[]): string {
  const [first = "", second] = words;
  const both = `${first} ${second}`;
  return COMMANDS.some((c) => c.name === both) ? both : first;
}

async function dispatch(args: readonly string[], out: Output, world: World): Promise<number> {
  const at = args.findIndex((arg) => !arg.startsWith("-"));
  if (at === -1) {
    const asked = args.find((arg) => arg !== "--json" && arg !== "--quiet" && arg !== "-q");
    if (asked === "--version" || asked === "-V") {
      out.line(`vmtape ${config.version}`);
      return EXIT.ok;
    }
    if (asked === "--help" || asked === "-h") {
      out.text(programHelp(index()));
      return EXIT.ok;
    }
    throw new UsageError(asked ? `Unknown option ${asked}` : "A command is missing");
  }
  if (args[at] === "help") {
    const topic = args.slice(at + 1);
    out.text(topic.length === 0 ? programHelp(index()) : commandHelp(await load(commandIn(topic))));
    return EXIT.ok;
  }
  const name = commandIn(args.slice(at));
  const rest = [...args.slice(0, at), ...args.slice(at + name.split(" ").length)];
  const command = await load(name);
  const line = parse(command, rest);
  if (line.common.help) {
    out.text(commandHelp(command));
    return EXIT.ok;
  }
  if (line.common.version) {
    out.line(`vmtape ${config.version}`);
    return EXIT.ok;
  }
  if (world.alone) giveUp(command);
  if (!world.confined) {
    const modules = policyModules(command, line);
    if (modules.length > 0) {
      const { color, debug } = world;
      const { runConfined } = await import("./confined.ts");
      return await runConfined(args, { command, parsed: line, modules }, { color, debug });
    }
  }
  using context = new Context({ out, err: world.err }, { ...line.common, color: world.color });
  return await command.run(context, line);
}

function report(args: readonly string[], failure: Failure, out: Output, world: World): void {
  const command = commandIn(args.slice(args.findIndex((arg) => !arg.startsWith("-"))));
  const known = COMMANDS.some((c) => c.name === command);
  const help = failure.code === "usage" && !failure.message.includes("--help")
    ? ` (see "vmtape ${known ? `${command} ` : ""}--help")`
    : "";
  if (args.includes("--json")) {
    const { code, message, details } = failure;
    out.json({ error: { ...details, code, message } });
  }
  const who = known ? `vmtape ${command}` : "vmtape";
  world.err.writeSync(new TextEncoder().encode(`${who}: ${failure.message}${help}\n`));
}

/** Whether the reader of the output went away, which is its right. */
function isClosedOutput(error: unknown): boolean {
  return error instanceof ClosedOutputError || error instanceof Deno.errors.BrokenPipe ||
    (error instanceof Error && error.cause !== undefined && isClosedOutput(error.cause));
}

/** Where a policy of the user's own is part of the model, what goes wrong in that is no fault of this program. */
function blamed(failure: Failure): Failure {
  if (failure.status !== EXIT.internal) return failure;
  const what = failure.message.replace(/^.*?command line: /, "");
  return {
    ...failure,
    status: EXIT.usage,
    code: "policy",
    message: `The model does not work with this policy: ${what}`,
  };
}

/**
 * Runs the program.
 *
 * @param args Its arguments.
 * @param world What it talks to.
 * @returns The exit status.
 */
export async function run(args: readonly string[], world: World): Promise<number> {
  const out = new Output(world.out);
  try {
    const status = await dispatch(args, out, world);
    out.flush();
    return status;
  } catch (error) {
    if (isClosedOutput(error)) return EXIT.ok;
    const failure = world.confined ? blamed(failureOf(error)) : failureOf(error);
    try {
      report(args, failure, out, world);
      if (world.debug && error instanceof Error) {
        world.err.writeSync(new TextEncoder().encode(`${error.stack}\n`));
      }
      out.flush();
    } catch {
      // A stream that is closed or full cannot be told so.
    }
    return failure.status;
  }
}
