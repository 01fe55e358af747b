import { assert, assertEquals, assertMatch, assertStringIncludes, assertThrows } from "@std/assert";
import { run } from "../cli/app.ts";
import { failureOf } from "../cli/errors.ts";
import { ClosedOutputError, Output, toJson } from "../cli/output.ts";
import { painter, terminalLine } from "../cli/paint.ts";
import { Progress } from "../cli/progress.ts";
import { didYouMean } from "../cli/suggest.ts";

/** A sink that keeps what it gets, `most` bytes at a time, and fails when told to. */
class Keeper {
  text = "";
  readonly #most: number;
  readonly #failures: Error[];

  constructor(most = Infinity, failures: Error[] = []) {
    this.#most = most;
    this.#failures = failures;
  }

  writeSync(bytes: Uint8Array): number {
    const failure = this.#failures.shift();
    if (failure) throw failure;
    const taken = bytes.subarray(0, this.#most);
    this.text += new TextDecoder().decode(taken);
    return taken.length;
  }
}

Deno.test("output survives short writes and a full pipe", () => {
  const sink = new Keeper(3, [new Deno.errors.WouldBlock("later")]);
  const out = new Output(sink);
  out.line("one line");
  out.json({ a: 1 });
  assertEquals(sink.text, "");
  out.flush();
  assertEquals(sink.text, 'one line\n{"a":1}\n');
});

Deno.test("output does not hold more than it has to", () => {
  const sink = new Keeper();
  const out = new Output(sink);
  for (let i = 0; i < 1000; i++) out.line("x".repeat(99));
  assert(sink.text.length > 30_000);
  out.bytes(new TextEncoder().encode("end"));
  assertEquals(sink.text.length, 100_003);
  assert(sink.text.endsWith("x\nend"));
});

Deno.test("a closed pipe has an error of its own, others stay what they are", () => {
  const full = new Error("full");
  const out = new Output(new Keeper(1, [new Deno.errors.BrokenPipe("gone"), full]));
  out.text("x");
  assertThrows(() => out.flush(), ClosedOutputError);
  out.text("x");
  assertThrows(() => out.flush(), Error, "full");
});

Deno.test("JSON keeps 64 bits and bytes as text", () => {
  assertEquals(
    toJson({
      u64: 0xffff_ffff_8100_0000n,
      bytes: new Uint8Array([0, 255]),
      map: new Map([["a", 1n]]),
      set: new Set([1]),
    }),
    '{"u64":"0xffffffff81000000","bytes":"00ff","map":{"a":"0x1"},"set":[1]}',
  );
});

Deno.test("an internal error is one line, status 70, and shows its place only when asked", async () => {
  for (const debug of [false, true]) {
    const err = new Keeper();
    const out = new Keeper(Infinity, [new TypeError("x is not\na function")]);
    const status = await run(["--help"], { out, err, color: false, debug });
    assertEquals(status, 70);
    const [first = "", ...rest] = err.text.trimEnd().split("\n");
    assertMatch(first, /^vmtape: Internal error, please report it .*x is not a function/);
    assertEquals(rest.some((line) => line.includes("at ")), debug);
  }
});

Deno.test("errors of the libraries keep their place and get their status", () => {
  const error = Object.assign(new Error("Line 3: bad"), { name: "LabRecordError", line: 3 });
  assertEquals(failureOf(error), {
    status: 3,
    code: "damaged",
    message: "Line 3: bad",
    details: { line: 3 },
  });
  const own = Object.assign(new Error("Old"), {
    name: "TraceError",
    code: "version",
    exitStatus: 4,
    offset: -1,
  });
  assertEquals(failureOf(own).status, 4);
  assertEquals(failureOf(own).code, "version");
  assertEquals(failureOf(own).details, {});
  assertEquals(failureOf(Object.assign(new Error("x"), { name: "toString" })).status, 70);
  assertEquals(failureOf("text").status, 70);
  assertEquals(
    failureOf(new Deno.errors.NotFound("x (os error 2)")).message,
    "No such file or directory",
  );
});

Deno.test("suggestions name the nearest word, or all when they are few", () => {
  assertEquals(didYouMean("unifed", ["unified", "linux-6.12"]), ', did you mean "unified"?');
  assertEquals(didYouMean("dmup", ["dump", "diff"]), ', did you mean "dump"?');
  assertEquals(didYouMean("x", ["unified", "linux-6.12"]), ", expected one of unified, linux-6.12");
  assertEquals(didYouMean("x", Array.from({ length: 99 }, (_, i) => `long name ${i}`)), "");
  assertEquals(didYouMean("x", []), "");
});

Deno.test("progress shows rate and time left, then goes away", () => {
  const sink = new Keeper();
  {
    using progress = new Progress(sink, "events", 2000);
    progress.update(500);
    progress.update(501);
  }
  const [before, shown, after, ...more] = sink.text.split("\r\x1b[K");
  assertEquals([before, after, more], ["", "", []]);
  assertMatch(shown ?? "", /^500 of 2,000 events, [\d,]+\/s, \d+ s left$/);
  using none = new Progress(undefined, "events");
  none.update(1);
  assertStringIncludes(sink.text, "500");
});

Deno.test("a terminal gets the program's colours, and no control character from anywhere else", () => {
  const recorded = "\x1b[31mred\x9b2J\u202etxt\r\n\x07\u2067";
  const sink = new Keeper();
  const out = new Output(sink);
  out.line(`${painter(true)("bold", recorded)} and ${recorded}`);
  out.text(`a\n${recorded}\n`);
  out.json({ recorded });
  out.flush();
  assert(sink.text.startsWith("\x1b[1m\\u001b[31mred\\u009b2J\\u202etxt\\u000d\\u000a"), sink.text);
  // deno-lint-ignore no-control-regex
  const controls = sink.text.match(/[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]/g);
  assertEquals(controls, ["\x1b", "\x1b"]);
  assertEquals(JSON.parse(sink.text.split("\n").at(-2)!), { recorded });
  assertEquals(terminalLine(terminalLine(recorded)), terminalLine(recorded));
});

Deno.test("errors and notes escape what a file may hold", () => {
  const { message } = failureOf(new TypeError("a\u202eb\x9bc\x1bd"));
  assertStringIncludes(message, "a\\u202eb\\x9bc\\x1bd");
});
