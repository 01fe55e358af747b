/**
 * Differences of many runs in little room: what repeats is stored once, and the
 * numbers of runs and events apart from it.
 *
 * @module
 */
import type {
  FieldDifference,
  GatheredRuns,
  OwnerSetting,
  RunDifference,
  RunGatherer,
  RunRef,
} from "../../engine/diff/mod.ts";
import { rowOf } from "../../engine/diff/areas.ts";
import type { FieldValue } from "../../engine/image/fields.ts";

/** Differences as JSON and messages between threads carry them. */
export interface PackedDifferences {
  /** Each kind of difference, as JSON, with every run it names left out. */
  readonly shapes: string[];
  /** Names and specs of scenarios. */
  readonly texts: string[];
  /**
   * For each stretch of runs that differ alike: how many, events and runs from one to the next,
   * the shape, then for the first run and each origin event, run, name, spec (0: none).
   */
  readonly rows: number[][];
  /** Of gathered runs, which are a row each that stands for all of them. */
  readonly gathered?: {
    /** For each row, the bits of each field that differ in any of the runs. */
    readonly differing: readonly (readonly string[])[];
    /** What became of owners before each row, and behind the last. */
    readonly owners: readonly (readonly OwnerSetting[])[];
  };
}

/** Runs that differ alike, one after the other. */
export interface AlikeRuns {
  /** The difference of the first. */
  readonly difference: RunDifference;
  /** How many there are. */
  readonly times: number;
  /** Events from one to the next. */
  readonly events: number;
  /** Runs from one to the next. */
  readonly runs: number;
}

/** Packs differences one after the other. */
export class DifferencePacker {
  readonly #packed = { shapes: [] as string[], texts: [] as string[], rows: [] as number[][] };
  readonly #events: number;
  readonly #runs: number;
  #gathered: PackedDifferences["gathered"];
  readonly #shapes = new Map<string, number>();
  readonly #texts = new Map<string, number>();
  #last: RunDifference | undefined;

  /**
   * Begins with nothing packed.
   *
   * @param events Events before those that are to be counted.
   * @param runs Runs before those that are to be counted.
   */
  constructor(events = 0, runs = 0) {
    this.#events = events;
    this.#runs = runs;
  }

  /** What was packed. */
  get packed(): PackedDifferences {
    const gathered = this.#gathered;
    return gathered === undefined ? this.#packed : { ...this.#packed, gathered };
  }

  /** Appends a difference. */
  add(difference: RunDifference): void {
    const last = this.#last;
    this.#last = difference;
    if (last !== undefined && alike(last, difference) && this.#again(last, difference)) return;
    this.#put(difference, 1);
  }

  /** Packs what was gathered, and nothing else. */
  gathered({ runs, owners }: RunGatherer): void {
    for (const { difference, times } of runs) this.#put(difference, times);
    this.#gathered = {
      differing: runs.map(({ differing }) => differing.map(hex)),
      owners: [...runs.map((each) => each.owners), owners],
    };
  }

  #put(difference: RunDifference, times: number): void {
    const origins: RunRef[] = [];
    const place = (origin: RunRef | undefined) => {
      if (origin === undefined) return undefined;
      const at = origins.findIndex((known) => known.run === origin.run);
      return at < 0 ? origins.push(origin) - 1 : at;
    };
    const shape = JSON.stringify({
      ...difference,
      event: 0,
      run: 0,
      ...(difference.scenario === undefined ? {} : { scenario: "" }),
      ...(difference.spec === undefined ? {} : { spec: "" }),
      fields: difference.fields.map((field) => packField(field, place(field.origin))),
      reportsOrigin: place(difference.reportsOrigin),
    });
    const row = [times, 0, 0, intern(this.#shapes, this.#packed.shapes, shape)];
    for (const { event, run, scenario, spec } of [difference, ...origins]) {
      row.push(event - this.#events, run - this.#runs, this.#text(scenario), this.#text(spec));
    }
    this.#packed.rows.push(row);
  }

  /** Counts one more of the last row, if it is as far from the one before as that is from its own. */
  #again(last: RunDifference, difference: RunDifference): boolean {
    const row = this.#packed.rows.at(-1)!;
    const events = difference.event - last.event, runs = difference.run - last.run;
    if (row[0] === 1) [row[1], row[2]] = [events, runs];
    else if (row[1] !== events || row[2] !== runs) return false;
    row[0]!++;
    return true;
  }

  #text(text: string | undefined): number {
    return text === undefined ? 0 : 1 + intern(this.#texts, this.#packed.texts, text);
  }
}

/** Whether two differences are the same but for their place: memoized runs hand out the same objects. */
function alike(a: RunDifference, b: RunDifference): boolean {
  return a.fields === b.fields && a.parting === b.parting && a.reports === b.reports &&
    a.ends === b.ends && a.reportsOrigin === b.reportsOrigin && a.scenario === b.scenario &&
    a.spec === b.spec;
}

function intern(known: Map<string, number>, list: string[], text: string): number {
  let index = known.get(text);
  if (index === undefined) {
    index = list.push(text) - 1;
    known.set(text, index);
  }
  return index;
}

/** A value and what is known of it, in hexadecimal. */
type PackedValue = readonly [string, string];

type PackedField =
  & Omit<FieldDifference, "origin" | "field" | "a" | "b" | "differing">
  & {
    /** Name, offset and size. */
    readonly field: readonly [string, number, number];
    readonly a: PackedValue;
    readonly b: PackedValue;
    readonly differing: string;
    readonly origin?: number | undefined;
  };

const hex = (value: bigint) => `0x${value.toString(16)}`;
const packValue = ({ value, known }: FieldValue): PackedValue => [hex(value), hex(known)];
const unpackValue = ([value, known]: PackedValue): FieldValue => (
  { value: BigInt(value), known: BigInt(known) }
);

function packField(field: FieldDifference, origin: number | undefined): PackedField {
  const { field: { name, offset, size }, a, b, differing } = field;
  return {
    ...field,
    field: [name, offset, size],
    a: packValue(a),
    b: packValue(b),
    differing: hex(differing),
    origin,
  };
}

function unpackField(packed: PackedField, origin: RunRef | undefined): FieldDifference {
  const { area, field: [name, offset, size], a, b, differing } = packed;
  return {
    ...packed,
    field: rowOf(area, { name, offset, size }),
    a: unpackValue(a),
    b: unpackValue(b),
    differing: BigInt(differing),
    origin,
  };
}

type Shape = Omit<RunDifference, "fields" | "reportsOrigin"> & {
  readonly fields: readonly PackedField[];
  readonly reportsOrigin?: number;
};

/**
 * The differences again.
 *
 * @param packed They, packed.
 * @param events Events before those that they count.
 * @param runs Runs before those that they count.
 */
export function* unpackDifferences(
  { shapes, texts, rows }: PackedDifferences,
  events: number,
  runs: number,
): Generator<AlikeRuns> {
  const parsed = shapes.map((shape) => JSON.parse(shape) as Shape);
  for (const row of rows) {
    const [times = 1, eventStep = 0, runStep = 0, number = 0] = row;
    const shape = parsed[number] as Shape;
    const ref = (i: number): RunRef => {
      const [event = 0, run = 0, name = 0, spec = 0] = row.slice(4 + 4 * i, 8 + 4 * i);
      return {
        event: event + events,
        run: run + runs,
        scenario: name === 0 ? undefined : texts[name - 1],
        spec: spec === 0 ? undefined : texts[spec - 1],
      };
    };
    const known: RunRef[] = [];
    const origin = (at: number | undefined) =>
      at === undefined ? undefined : known[at] ??= ref(at + 1);
    const difference = {
      ...shape,
      ...ref(0),
      fields: shape.fields.map((field) => unpackField(field, origin(field.origin))),
      reportsOrigin: origin(shape.reportsOrigin),
    };
    yield { difference, times, events: eventStep, runs: runStep };
  }
}

/**
 * What was gathered, again.
 *
 * @param packed It, packed.
 * @param events Events before those that it counts.
 * @param runs Runs before those that it counts.
 */
export function* unpackGathered(
  packed: PackedDifferences,
  events: number,
  runs: number,
): Generator<GatheredRuns> {
  const { differing = [], owners = [] } = packed.gathered ?? {};
  let row = 0;
  for (const { difference, times } of unpackDifferences(packed, events, runs)) {
    yield {
      difference,
      times,
      differing: differing[row]?.map(BigInt) ?? [],
      owners: owners[row] ?? [],
    };
    row++;
  }
}
