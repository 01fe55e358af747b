/** Which task runs which test: none is forgotten, none runs twice. */
import { assert, assertEquals } from "@std/assert";
import config from "../deno.json" with { type: "json" };

const ROOT = new URL("../", import.meta.url);
const FILES = (await Array.fromAsync(Deno.readDir(new URL("tests/", ROOT))))
  .map(({ name }) => `tests/${name}`).filter((name) => name.endsWith("_test.ts"));

const COMMANDS = Object.entries(config.tasks).flatMap(([name, task]) =>
  typeof task === "object" && task.command.includes("deno test ") ? [[name, task.command]] : []
);

/** The files that some words with stars stand for. */
function matching(words: readonly string[]): Set<string> {
  const patterns = words.map((word) =>
    new RegExp(`^${word.replaceAll(".", "\\.").replaceAll("*", "[^/]*")}$`)
  );
  return new Set(FILES.filter((file) => patterns.some((pattern) => pattern.test(file))));
}

/** What a task runs: the files it names, or all but those that it ignores. */
function filesOf(command: string): Set<string> {
  const words = command.split(" ");
  if (words.at(-1) === "tests") {
    const [, ignored = ""] = /--ignore='([^']*)'/.exec(command) ?? [];
    return new Set(FILES).difference(matching(ignored.split(",")));
  }
  return matching(words.filter((word) => word.startsWith("tests/")));
}

Deno.test("every test is run by one task, and one task alone; those of the command line by test:cli again", () => {
  const runBy = new Map<string, string[]>();
  for (const [name = "", command = ""] of COMMANDS) {
    if (name === "test:docs" || name === "test:cli") continue;
    for (const file of filesOf(command)) {
      runBy.set(file, [...runBy.get(file) ?? [], name]);
    }
  }
  assertEquals(FILES.filter((file) => runBy.get(file)?.length !== 1), []);
});

Deno.test("no name of a test that a task runs has become wrong", () => {
  for (const [, command = ""] of COMMANDS) {
    for (const [word] of command.matchAll(/tests\/[^\s,']+/g)) assert(matching([word]).size, word);
  }
});

Deno.test("what runs commands within the test is run with processes as well", async () => {
  const again = filesOf(config.tasks["test:cli"].command);
  for (const file of FILES) {
    const text = await Deno.readTextFile(new URL(file, ROOT));
    if (/\bvmtapeHere\b.*from/.test(text)) assert(again.has(file), file);
  }
});

Deno.test("continuous integration runs every task of tests", async () => {
  const script = await Deno.readTextFile(new URL(".ci/run", ROOT));
  const [, listed = ""] = /^for task in (.*); do$/m.exec(script) ?? [];
  assertEquals(listed.split(" ").toSorted(), COMMANDS.map(([name = ""]) => name).toSorted());
  for (const [name] of COMMANDS) {
    if (name === "test") continue;
    assert(config.tasks["test:all"].command.includes(`deno task ${name}`), name);
  }
});
