/**
 * Pins what the stand-ins in `links/` export and how it behaves. The behaviour
 * is tested through the published names, so these tests hold for the published
 * packages too.
 */
import {
  assert,
  assertEquals,
  AssertionError,
  assertMatch,
  assertRejects,
  assertStringIncludes,
  assertThrows,
} from "@std/assert";
import * as std from "@std/assert";
import * as cli from "@std/cli";
import { unicodeWidth } from "@std/cli/unicode-width";
import * as streams from "@std/streams";
import { TextLineStream } from "@std/streams/text-line-stream";
import { toBytes } from "@std/streams/to-bytes";
import { toText } from "@std/streams/to-text";
import config from "../deno.json" with { type: "json" };
import * as assertLink from "../links/assert/mod.ts";
import * as cliLink from "../links/cli/mod.ts";
import * as streamsLink from "../links/streams/mod.ts";

const ASSERT_NAMES = [
  "AssertionError",
  "assert",
  "assertAlmostEquals",
  "assertArrayIncludes",
  "assertEquals",
  "assertExists",
  "assertFalse",
  "assertGreater",
  "assertGreaterOrEqual",
  "assertInstanceOf",
  "assertIsError",
  "assertLess",
  "assertLessOrEqual",
  "assertMatch",
  "assertNotEquals",
  "assertNotInstanceOf",
  "assertNotMatch",
  "assertNotStrictEquals",
  "assertObjectMatch",
  "assertRejects",
  "assertStrictEquals",
  "assertStringIncludes",
  "assertThrows",
  "equal",
  "fail",
  "unimplemented",
  "unreachable",
];

Deno.test("the stand-ins export published names only, and all that are used", () => {
  assertEquals(Object.keys(assertLink).sort(), ASSERT_NAMES);
  assertEquals(Object.keys(cliLink).sort(), ["unicodeWidth"]);
  assertEquals(Object.keys(streamsLink).sort(), ["TextLineStream", "toBytes", "toText"]);
  for (
    const [module, names] of [
      [std, ASSERT_NAMES],
      [cli, Object.keys(cliLink)],
      [streams, Object.keys(streamsLink)],
    ] as const
  ) {
    const exported: Record<string, unknown> = { ...module };
    for (const name of names) assertEquals(typeof exported[name], "function", name);
  }
});

Deno.test("every dependency is in the table that says what it is for", async () => {
  const page = await Deno.readTextFile(new URL("../docs/dependencies.md", import.meta.url));
  for (const specifier of Object.values(config.imports)) {
    const name = specifier.replace(/@[\^\d.]*$/, "");
    assert(page.includes(`\`${name}\``), name);
  }
});

Deno.test("the stand-ins have names and versions that satisfy the canonical imports", async () => {
  for (const folder of config.links) {
    const text = await Deno.readTextFile(new URL(`../${folder}/deno.json`, import.meta.url));
    const { name, version } = JSON.parse(text);
    const specifier = Object.entries(config.imports).find(([key]) => key === name)?.[1];
    const [, wanted = ""] = /^jsr:.*@\^(.*)$/.exec(specifier ?? "") ?? [];
    const [major, ...rest] = version.split(".").map(Number);
    const [wantedMajor, ...wantedRest] = wanted.split(".").map(Number);
    assertEquals(major, wantedMajor, name);
    assert(rest[0] > wantedRest[0]! || rest[1] >= wantedRest[1]!, `${name}@${version} < ${wanted}`);
  }
});

class Point {
  constructor(readonly x: number, readonly y: number) {}
}
const nothing: object = Object.create(null);
const loop = () => {
  const o: { self?: unknown } = {};
  o.self = o;
  return o;
};

const EQUAL: readonly (readonly [string, unknown, unknown])[] = [
  ["zeros of both signs", 0, -0],
  ["NaN", NaN, NaN],
  ["bigints", [2n ** 63n], [2n ** 63n]],
  ["objects in any order", { a: 1, b: [2] }, { b: [2], a: 1 }],
  ["an object without prototype and a plain one", nothing, {}],
  ["instances", new Point(1, 2), new Point(1, 2)],
  ["bytes", new Uint8Array([1, 2]), new Uint8Array([1, 2])],
  ["other typed arrays", new Uint32Array([1]), new Uint32Array([1])],
  ["maps in any order", new Map([["a", 1], ["b", 2]]), new Map([["b", 2], ["a", 1]])],
  ["maps with object keys", new Map([[{ x: 1 }, 1]]), new Map([[{ x: 1 }, 1]])],
  ["sets of sets", new Set([1, new Set([2, 3])]), new Set([new Set([3, 2]), 1])],
  ["regular expressions", /a/g, /a/g],
  ["dates", new Date(5), new Date(5)],
  ["invalid dates", new Date(NaN), new Date(NaN)],
  ["URLs", new URL("https://example.test"), new URL("https://example.test/")],
  ["loops", loop(), loop()],
  ["symbols as keys", { [Symbol.for("k")]: 1 }, { [Symbol.for("k")]: 1 }],
  ["weak references to equals", new WeakRef({ a: 1 }), new WeakRef({ a: 1 })],
];
for (const [what, a, b] of EQUAL) {
  Deno.test(`equal() holds for ${what}`, () => {
    assert(std.equal(a, b) && std.equal(b, a));
    assertEquals(a, b);
    assertThrows(() => std.assertNotEquals(a, b), AssertionError, "not to be:");
  });
}

const UNEQUAL: readonly (readonly [string, unknown, unknown])[] = [
  ["a number and its text", 1, "1"],
  ["a number and a bigint", 1, 1n],
  ["null and undefined", null, undefined],
  ["an undefined property and none", { a: undefined }, {}],
  ["other undefined properties", { a: undefined }, { b: undefined }],
  ["an instance and a plain object", new Point(1, 2), { x: 1, y: 2 }],
  ["a longer array", [1, 2, 3], [1, 2]],
  ["other bytes", new Uint8Array([1, 2]), new Uint8Array([2, 1])],
  ["arrays of other types", new Uint8Array([1]), new Uint16Array([1])],
  ["other map values", new Map([["a", 1]]), new Map([["a", 2]])],
  ["other map keys", new Map([["a", 1]]), new Map([["b", 1]])],
  ["other sets", new Set([1, 2]), new Set([1, 3])],
  ["other flags", /a/g, /a/i],
  ["other dates", new Date(5), new Date(6)],
  ["other symbols", { [Symbol("k")]: 1 }, { [Symbol("k")]: 1 }],
];
for (const [what, a, b] of UNEQUAL) {
  Deno.test(`equal() tells apart ${what}`, () => {
    assert(!std.equal(a, b) && !std.equal(b, a));
    std.assertNotEquals(a, b);
    assertThrows(() => assertEquals(a, b), AssertionError, "Values are not equal.");
  });
}

Deno.test("equal() refuses to compare what cannot be looked into", () => {
  assertThrows(() => std.equal(new WeakMap(), new WeakMap()), TypeError, "cannot compare WeakMap");
  assertThrows(() => std.equal(new WeakSet(), new WeakSet()), TypeError, "cannot compare WeakSet");
});

Deno.test("assertEquals() shows the lines that differ, and what the caller said", () => {
  const error = assertThrows(
    () => assertEquals({ a: 1, b: 2, c: 3 }, { a: 1, b: 5, c: 3 }, "of two things"),
    AssertionError,
  );
  assertStringIncludes(error.message, "Values are not equal: of two things\n");
  // deno-lint-ignore no-control-regex
  const lines = error.message.replaceAll(/\x1b\[\d+m/g, "").split("\n").map((l) => l.trimEnd());
  std.assertArrayIncludes(lines, ["    [Diff] Actual / Expected", "-     b: 2,", "+     b: 5,"]);
  assert(lines.some((line) => /^ .*a: 1/.test(line)));
});

const FAILS: readonly (readonly [string, () => unknown, string])[] = [
  ["assert", () => std.assert(0, "no zero"), "no zero"],
  ["assertFalse", () => std.assertFalse(1, "no one"), "no one"],
  [
    "assertExists",
    () => std.assertExists(null),
    'Expected actual: "null" to not be null or undefined.',
  ],
  ["assertStrictEquals", () => std.assertStrictEquals(1, 2), "Values are not strictly equal."],
  [
    "assertStrictEquals, same structure",
    () => std.assertStrictEquals({}, {}),
    "Values have the same structure but are not reference-equal.",
  ],
  [
    "assertStrictEquals, zeros",
    () => std.assertStrictEquals(0, -0),
    "Values are not strictly equal.",
  ],
  [
    "assertNotStrictEquals",
    () => std.assertNotStrictEquals(1, 1),
    'Expected "actual" to not be strictly equal to: 1',
  ],
  ["assertGreater", () => std.assertGreater(1n, 1n), "Expect 1n > 1n"],
  ["assertGreaterOrEqual", () => std.assertGreaterOrEqual(0, 1), "Expect 0 >= 1"],
  ["assertLess", () => std.assertLess(1, 1), "Expect 1 < 1"],
  ["assertLessOrEqual", () => std.assertLessOrEqual(2, 1, "two"), "two"],
  [
    "assertAlmostEquals",
    () => std.assertAlmostEquals(1, 2, 0.5),
    'Expected actual: "1" to be close to "2": delta "1" is greater than "5e-1".',
  ],
  ["assertMatch", () => std.assertMatch("abc", /x/), 'Expected actual: "abc" to match: "/x/".'],
  [
    "assertNotMatch",
    () => std.assertNotMatch("abc", /b/),
    'Expected actual: "abc" to not match: "/b/".',
  ],
  [
    "assertStringIncludes",
    () => std.assertStringIncludes("abc", "x"),
    'Expected actual: "abc" to contain: "x".',
  ],
  ["assertArrayIncludes", () => std.assertArrayIncludes([1, 2], [2, 3]), "missing: ["],
  [
    "assertObjectMatch",
    () => std.assertObjectMatch({ a: { b: 1, c: 2 } }, { a: { b: 2 } }),
    "Values are not equal.",
  ],
  [
    "assertObjectMatch, missing",
    () => std.assertObjectMatch({}, { a: 1 }),
    "Values are not equal.",
  ],
  [
    "assertInstanceOf",
    () => std.assertInstanceOf({}, Date),
    'Expected object to be an instance of "Date" but was "Object".',
  ],
  [
    "assertNotInstanceOf",
    () => std.assertNotInstanceOf(new Date(), Date, "why"),
    "Expected object to not be an instance of",
  ],
  ["assertIsError", () => std.assertIsError("x"), 'Expected "error" to be an Error object.'],
  [
    "assertIsError, class",
    () => std.assertIsError(new RangeError("r"), SyntaxError),
    'Expected error to be instance of "SyntaxError", but was "RangeError".',
  ],
  [
    "assertIsError, message",
    () => std.assertIsError(new Error("abc"), Error, /x/),
    'Expected error message to include /x/, but got "abc".',
  ],
  ["assertThrows", () => std.assertThrows(() => {}), "Expected function to throw."],
  [
    "assertThrows, no error",
    () =>
      std.assertThrows(() => {
        // deno-lint-ignore no-throw-literal
        throw "text";
      }, Error),
    "A non-Error object was thrown.",
  ],
  [
    "assertThrows, message",
    () => std.assertThrows(() => JSON.parse("{"), SyntaxError, "nothing like it", "why"),
    'Expected error message to include "nothing like it"',
  ],
  ["fail", () => std.fail("so"), "Failed assertion: so"],
  ["unreachable", () => std.unreachable(), "Unreachable."],
  ["unimplemented", () => std.unimplemented("yet"), "Unimplemented: yet"],
];
for (const [what, fn, message] of FAILS) {
  Deno.test(`${what} fails with the published words`, () => {
    let thrown: unknown;
    try {
      fn();
    } catch (error) {
      thrown = error;
    }
    assert(thrown instanceof AssertionError, `threw ${thrown}`);
    assertEquals(thrown.name, "AssertionError");
    assert(thrown.message.includes(message), thrown.message);
  });
}

Deno.test("assertions that hold do nothing", async () => {
  std.assert("x");
  std.assertFalse("");
  std.assertExists(0);
  std.assertStrictEquals(NaN, NaN);
  std.assertNotStrictEquals({}, {});
  std.assertGreater(2n, 1n);
  std.assertGreaterOrEqual(1, 1);
  std.assertLess("a", "b");
  std.assertLessOrEqual(1, 1);
  std.assertAlmostEquals(0.1 + 0.2, 0.3);
  std.assertMatch("abc", /b/);
  std.assertNotMatch("abc", /x/);
  std.assertStringIncludes("abc", "b");
  std.assertArrayIncludes([{ a: 1 }, { b: 2 }], [{ b: 2 }]);
  std.assertObjectMatch({ a: [1, { b: 2, c: 3 }], d: 4 }, { a: [1, { b: 2 }] });
  std.assertObjectMatch({ m: new Uint8Array([1]) }, { m: new Uint8Array([1]) });
  std.assertInstanceOf(new Date(), Date);
  std.assertNotInstanceOf({}, Date);
  std.assertIsError(new RangeError("abc"), Error, "b");
  const thrown = new TypeError("t");
  assertEquals(
    assertThrows(
      () => {
        throw thrown;
      },
      TypeError,
      "t",
    ),
    thrown,
  );
  assertEquals(await assertRejects(() => Promise.reject(thrown), Error), thrown);
  assertEquals(await assertRejects(() => Promise.reject(7)), 7);
});

Deno.test("assertRejects() tells apart what went wrong", async () => {
  const of = async (fn: () => PromiseLike<unknown>, message: string) => {
    const error = await std.assertRejects(() => std.assertRejects(fn, Error), AssertionError);
    assertStringIncludes(error.message, message);
  };
  await of(() => Promise.resolve(1), "Expected function to reject.");
  await of(() => {
    throw new Error("early");
  }, "Function throws when expected to reject.");
  await of(() => Promise.reject(7), "A non-Error object was rejected.");
});

Deno.test("unicodeWidth() counts columns", () => {
  for (
    const [text, width] of [["", 0], ["abc", 3], ["日本", 4], ["e\u0301", 1], ["…", 1]] as const
  ) {
    assertEquals(unicodeWidth(text), width, text);
  }
});

async function linesOf(chunks: readonly string[], allowCR?: boolean): Promise<string[]> {
  const stream = ReadableStream.from(chunks)
    .pipeThrough(new TextLineStream(allowCR === undefined ? undefined : { allowCR }));
  return await Array.fromAsync(stream);
}

Deno.test("TextLineStream splits at line ends, wherever chunks end", async () => {
  assertEquals(await linesOf(["a\nb\r\n", "c", "d\n", "\n", "e"]), ["a", "b", "cd", "", "e"]);
  assertEquals(await linesOf(["a\r", "\nb\rc"]), ["a", "b\rc"]);
  assertEquals(await linesOf(["a\rb\r\nc\r"], true), ["a", "b", "c"]);
  assertEquals(await linesOf([]), []);
});

Deno.test("toBytes() and toText() read a stream to its end", async () => {
  const bytes = () => ReadableStream.from([new Uint8Array([0xe2, 0x82]), new Uint8Array([0xac])]);
  assertEquals(await toBytes(bytes()), new Uint8Array([0xe2, 0x82, 0xac]));
  assertEquals(await toText(bytes()), "€");
  assertEquals(await toText(ReadableStream.from(["a", "b"])), "ab");
  assertMatch(await streams.toText(ReadableStream.from<string>([])), /^$/);
});
