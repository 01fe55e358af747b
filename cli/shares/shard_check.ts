/**
 * Whether what is in a file is a part of a run, whole and unchanged.
 *
 * @module
 */
import { createHash } from "node:crypto";

/** Looks at a value at a place, such as `shares[0].from`, and says what is wrong. */
type Look = (value: unknown, place: string) => void;

/** A value that is not what it has to be. */
export class ShardProblem extends Error {
  override readonly name = "ShardProblem";

  /**
   * @param place Where it is.
   * @param wanted What it has to be.
   */
  constructor(place: string, wanted: string) {
    super(`${place || "it"} has to be ${wanted}`);
  }
}

function demand(holds: boolean, place: string, wanted: string): void {
  if (!holds) throw new ShardProblem(place, wanted);
}

const count: Look = (value, place) =>
  demand(Number.isSafeInteger(value) && value as number >= 0, place, "a whole number");
const number: Look = (value, place) =>
  demand(Number.isFinite(value) && value as number >= 0, place, "a number that is not negative");
const text: Look = (value, place) => demand(typeof value === "string", place, "text");
const flag: Look = (value, place) => demand(typeof value === "boolean", place, "true or false");
const anything: Look = () => {};
const optional = (look: Look): Look => (value, place) => {
  if (value !== undefined) look(value, place);
};
const matching = (pattern: RegExp): Look => (value, place) =>
  demand(typeof value === "string" && pattern.test(value), place, `text like ${pattern.source}`);
const list = (look: Look): Look => (value, place) => {
  demand(Array.isArray(value), place, "a list");
  (value as unknown[]).forEach((item, i) => look(item, `${place}[${i}]`));
};
const pair = (a: Look, b: Look): Look => (value, place) => {
  demand(Array.isArray(value) && value.length === 2, place, "a pair");
  const [x, y] = value as unknown[];
  a(x, `${place}[0]`);
  b(y, `${place}[1]`);
};
const object = (looks: Readonly<Record<string, Look>>): Look => (value, place) => {
  demand(typeof value === "object" && value !== null && !Array.isArray(value), place, "an object");
  const given = value as Readonly<Record<string, unknown>>;
  for (const name of Object.keys(given)) {
    demand(Object.hasOwn(looks, name), place === "" ? name : `${place}.${name}`, "left out");
  }
  for (const [name, look] of Object.entries(looks)) {
    look(
      Object.hasOwn(given, name) ? given[name] : undefined,
      place === "" ? name : `${place}.${name}`,
    );
  }
};

const valuesOf = (look: Look): Look => (value, place) => {
  demand(typeof value === "object" && value !== null && !Array.isArray(value), place, "an object");
  for (const [name, item] of Object.entries(value as object)) look(item, `${place}.${name}`);
};

const owner: Look = (value, place) => {
  list(text)(value, place);
  demand((value as unknown[]).length === 3, place, "policies, a field and a finding");
};
const digest = matching(/^[0-9a-f]{8}$/);
const mismatch = object({
  event: count,
  scenario: optional(text),
  field: text,
  recorded: text,
  replayed: text,
});
const outcome = object({ compared: count, agreed: count });
const replayResult = object({
  policy: text,
  events: count,
  runs: count,
  agreed: count,
  skipped: count,
  outcomes: list(pair(text, outcome)),
  digest,
  digested: count,
  unmodelled: list(pair(text, count)),
});
const diffResult = object({
  policies: list(text),
  events: count,
  runs: count,
  different: list(count),
  unsettled: list(count),
  skipped: count,
  unmodelled: valuesOf(count),
});

/** What each command's parts hold besides what all have. */
const PARTS: Readonly<Record<string, Readonly<Record<string, Look>>>> = {
  replay: {
    task: object({
      command: text,
      policy: optional(text),
      processor: optional(text),
      all: flag,
      each: flag,
    }),
    shares: list(object({
      from: count,
      to: count,
      results: list(replayResult),
      found: object({
        count,
        fields: list(object({ field: text, count, examples: list(mismatch) })),
      }),
      all: list(mismatch),
    })),
  },
  diff: {
    task: object({
      command: text,
      policies: list(text),
      processor: optional(text),
      each: flag,
      runs: flag,
      print: object({
        limit: optional(count),
        format: optional(text),
        failOn: optional(text),
        trace: text,
        policies: list(text),
      }),
    }),
    shares: list(object({
      from: count,
      to: count,
      result: diffResult,
      differences: object({
        shapes: list(text),
        texts: list(text),
        rows: list(list(count)),
        gathered: optional(object({ differing: list(list(text)), owners: list(list(owner)) })),
      }),
    })),
  },
  stats: {
    task: object({ command: text, policies: list(text), passes: count }),
    ranges: list(pair(count, count)),
    timerCost: number,
    latency: list(object({
      policy: text,
      kind: text,
      histogram: matching(/^[A-Za-z0-9+/=]+$/),
      min: number,
      max: number,
    })),
  },
};

const HEAD: Readonly<Record<string, Look>> = {
  format: count,
  shard: object({ index: count, of: count }),
  trace: object({
    id: matching(/^[0-9a-f]{32}$/),
    events: count,
    digest: matching(/^[0-9a-f]{32}$/),
  }),
  model: matching(/^[0-9a-f]{32}$/),
  checksum: anything,
};

/** The checksum of a part: over all of it but the checksum. */
export function checksumOf(part: Readonly<Record<string, unknown>>): string {
  const { checksum: _, ...rest } = part;
  return createHash("sha256").update(JSON.stringify(rest)).digest("hex");
}

/** A stretch of events, as a part says. */
type Stretch = readonly [from: number, to: number];

/** The stretches of events that a part is about. */
export function stretchesOf(part: object): readonly Stretch[] {
  const { ranges, shares } = part as {
    readonly ranges?: readonly Stretch[];
    readonly shares?: readonly { readonly from: number; readonly to: number }[];
  };
  return ranges ?? shares?.map(({ from, to }) => [from, to] as const) ?? [];
}

/**
 * Looks at all of a part.
 *
 * @param value What is in the file.
 * @throws {ShardProblem} What is wrong first.
 */
export function checkShard(value: unknown): void {
  const part = value as Readonly<Record<string, unknown>>;
  object({ ...Object.fromEntries(Object.keys(Object(value)).map((key) => [key, anything])) })(
    value,
    "",
  );
  const command = (part["task"] as { command?: unknown } | undefined)?.command;
  const own = typeof command === "string" && Object.hasOwn(PARTS, command)
    ? PARTS[command]
    : undefined;
  if (own === undefined) throw new ShardProblem("task.command", Object.keys(PARTS).join(", "));
  object({ ...HEAD, ...own })(value, "");
  demand(part["checksum"] === checksumOf(part), "checksum", "that of the rest: it was changed");
  const { index, of } = part["shard"] as { index: number; of: number };
  demand(index < of, "shard.index", "below shard.of");
  const { events } = part["trace"] as { events: number };
  for (const [from, to] of stretchesOf(part)) {
    demand(from <= to && to <= events, "from", "a place in the trace, before to");
  }
  for (const share of (part["shares"] ?? []) as readonly Share[]) checkSums(share);
}

/** What shares of both kinds have, as far as sums go. */
interface Share {
  readonly from: number;
  readonly to: number;
  readonly results?: readonly {
    readonly events: number;
    readonly runs: number;
    readonly agreed: number;
  }[];
  readonly result?: {
    readonly events: number;
    readonly policies: readonly unknown[];
    readonly different: readonly unknown[];
    readonly unsettled: readonly unknown[];
  };
  readonly differences?: {
    readonly shapes: readonly string[];
    readonly texts: readonly unknown[];
    readonly rows: readonly (readonly number[])[];
    readonly gathered?: {
      readonly differing: readonly unknown[];
      readonly owners: readonly unknown[];
    };
  };
}

function checkSums({ from, to, results, result, differences }: Share): void {
  const events = (results ?? (result ? [result] : [])).reduce((sum, one) => sum + one.events, 0);
  demand(events === to - from, "events", "as many as the part has");
  for (const { runs, agreed } of results ?? []) {
    demand(agreed <= runs, "agreed", "no more than runs");
  }
  if (result !== undefined) {
    const { policies, different, unsettled } = result;
    const others = policies.length - 1;
    demand(
      others > 0 && different.length === others && unsettled.length === others,
      "different",
      "a number for each policy but the first",
    );
  }
  if (differences === undefined) return;
  const { shapes, texts, rows, gathered } = differences;
  demand(
    gathered === undefined ||
      gathered.differing.length === rows.length && gathered.owners.length === rows.length + 1,
    "differences.gathered",
    "something for each row",
  );
  for (const row of rows) {
    const [times = 0, , , shape = -1, ...refs] = row;
    const known = refs.every((ref, i) => i % 4 < 2 ? ref <= to - from : ref <= texts.length);
    demand(
      times > 0 && shape < shapes.length && refs.length >= 4 && refs.length % 4 === 0 && known,
      "differences.rows",
      "rows of what is there",
    );
  }
}
