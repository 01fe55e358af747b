/**
 * The event table as a trace carries it: kinds, fields and their types. A
 * reader decodes by the table in the file, so that kinds and fields added
 * later do not keep it from reading the rest.
 *
 * @module
 */
import { EVENTS, type FieldType } from "../../engine/event.ts";
import { TraceError } from "../errors.ts";
import { laneColumn, timeLane, wordColumn } from "./columns.ts";
import { MAX_KIND } from "./format.ts";

/** Largest number of fields of a kind: their operations have 2 bits each in 32. */
export const MAX_FIELDS = 16;

/** How the values of a field are coded; all images alike. */
export const CODING = { u32: 0, i32: 1, u64: 2, text: 3, map: 4, image: 5 } as const;

const CODINGS: Readonly<Record<FieldType, number>> = {
  u32: CODING.u32,
  i32: CODING.i32,
  u64: CODING.u64,
  text: CODING.text,
  map: CODING.map,
  vmcb: CODING.image,
  page: CODING.image,
  regs: CODING.image,
  inner: CODING.image,
  smram: CODING.image,
};

/** A field, ready to be coded. */
export interface FieldPlan {
  /** Property name. */
  readonly name: string;
  /** Type as the table spells it. */
  readonly type: string;
  /** One of {@linkcode CODING}. */
  readonly coding: number;
  /** Of an image: index of the field that holds its address, or -1. */
  readonly at: number;
  /** Of an image: index of the field that tells moments apart, or -1. */
  readonly by: number;
  /** Of an image: images of one family and address are changes against each other. */
  readonly family: string;
  /** The first column of the lane that its differences go to; not for images. */
  readonly column: number;
}

/** A kind of event, ready to be coded. */
export interface KindPlan {
  /** Number in the binary format. */
  readonly id: number;
  /** Name. */
  readonly kind: string;
  /** Fields in order. */
  readonly fields: readonly FieldPlan[];
  /** Bytes that the field operations take in an event's head. */
  readonly opBytes: number;
  /** The lower bit of the operation of every field that is no image, as in an event's head. */
  readonly plain: number;
  /** The first column of the lane that its times go to. */
  readonly timeColumn: number;
}

/** Schema as stored: `[id, kind, [[name, type, at, by], …]]` per kind; no `at` or `by` is "". */
export type Schema = readonly (readonly [
  number,
  string,
  readonly (readonly [string, string, string, string])[],
])[];

interface SchemaField {
  readonly name: string;
  readonly type: FieldType;
  readonly at?: string;
  readonly by?: string;
}

/** The schema of this code's own event table, as stored in every trace it writes. */
export const SCHEMA: Schema = EVENTS.map((row) =>
  [
    row.id,
    row.kind,
    row.fields.map((field: SchemaField) =>
      [field.name, field.type, field.at ?? "", field.by ?? ""] as const
    ),
  ] as const
);

/**
 * Reads a schema as found in a trace.
 *
 * @param schema Whatever the metadata hold.
 * @param offset Where the metadata are, for the message.
 * @returns Plans by number of kind.
 * @throws {TraceError} `damaged` when it is not a schema, `feature` when it has a type this code
 * does not know.
 */
export function plansOf(schema: unknown, offset: number): (KindPlan | undefined)[] {
  const plans: (KindPlan | undefined)[] = new Array(MAX_KIND + 1).fill(undefined);
  const bad = (what: string) =>
    new TraceError("damaged", `The event table in the header ${what} (offset ${offset})`, {
      offset,
    });
  if (!Array.isArray(schema)) throw bad("is missing");
  for (const row of schema as unknown[]) {
    if (!Array.isArray(row)) throw bad("has a row that is no list");
    const [id, kind, fields] = row as unknown[];
    if (typeof id !== "number" || !Number.isInteger(id) || id < 1 || id > MAX_KIND || plans[id]) {
      throw bad(`has a bad or repeated number ${String(id)}`);
    }
    if (typeof kind !== "string" || !Array.isArray(fields) || fields.length > MAX_FIELDS) {
      throw bad(`has a bad row ${id}`);
    }
    if (plans.some((plan) => plan?.kind === kind)) throw bad(`has the kind ${kind} twice`);
    plans[id] = planOf(id, kind, fields, bad, offset);
  }
  return plans;
}

/** A kind's row as a trace stores it. */
function rowOf({ id, kind, fields }: KindPlan): Schema[number] {
  const name = (index: number) => index < 0 ? "" : fields[index]!.name;
  return [
    id,
    kind,
    fields.map((field) => [field.name, field.type, name(field.at), name(field.by)]),
  ];
}

/**
 * An event table for what is made of a trace: the trace's own, so that its blocks can be copied and
 * kinds that this code does not know stay as they are, and behind it the kinds that only this code
 * knows, under numbers that are free.
 *
 * @param plans The trace's event table.
 * @returns The table, as stored.
 */
export function schemaLike(plans: readonly (KindPlan | undefined)[]): Schema {
  const rows = plans.flatMap((plan) => plan === undefined ? [] : [rowOf(plan)]);
  const kinds = new Set(rows.map(([, kind]) => kind));
  const ids = new Set(rows.map(([id]) => id));
  for (const [own, kind, fields] of SCHEMA) {
    if (kinds.has(kind)) continue;
    let id = own;
    for (let free = MAX_KIND; ids.has(id) && free > 0; free--) id = free;
    if (ids.has(id)) break;
    ids.add(id);
    rows.push([id, kind, fields]);
  }
  return rows;
}

/** How the events of one event table fit into another. */
export type Fit =
  /** As they are stored. */
  | "stored"
  /** Coded anew. */
  | "anew";

/**
 * Whether events of one event table can be kept under another.
 *
 * @param from Plans that they are decoded by.
 * @param to Plans that they are to be encoded by.
 * @returns How they can be kept; or the name of a kind whose events would lose something.
 */
export function fitOf(
  from: readonly (KindPlan | undefined)[],
  to: readonly (KindPlan | undefined)[],
): Fit | { readonly lacks: string } {
  let fit: Fit = "stored";
  for (const plan of from) {
    if (plan === undefined) continue;
    const other = to.find((one) => one?.kind === plan.kind);
    const lacks = other === undefined ||
      plan.fields.some(({ name, type }) =>
        !other.fields.some((field) => field.name === name && field.type === type)
      );
    if (lacks) return { lacks: plan.kind };
    if (JSON.stringify(rowOf(plan)) !== JSON.stringify(rowOf(other))) fit = "anew";
  }
  return fit;
}

function planOf(
  id: number,
  kind: string,
  rows: readonly unknown[],
  bad: (what: string) => TraceError,
  offset: number,
): KindPlan {
  const fields: FieldPlan[] = [];
  const names: string[] = ["kind", "vcpu", "time"];
  for (const row of rows) {
    if (!Array.isArray(row) || row.length < 4) throw bad(`has a bad field of ${kind}`);
    const [name, type, at, by] = row as unknown[];
    if (
      typeof name !== "string" || typeof type !== "string" || typeof at !== "string" ||
      typeof by !== "string" || names.includes(name) || name === "__proto__"
    ) {
      throw bad(`has a bad field of ${kind}`);
    }
    names.push(name);
    const coding = Object.hasOwn(CODINGS, type) ? CODINGS[type as FieldType] : undefined;
    if (coding === undefined) {
      throw new TraceError(
        "feature",
        `Field ${name} of ${kind} is of type ${type}, which this version does not know; read it with a newer vmtape`,
        { offset, field: name },
      );
    }
    const reference = (target: string, wanted: number) => {
      if (target === "") return -1;
      const index = fields.findIndex((field) => field.name === target);
      if (coding !== CODING.image || fields[index]?.coding !== wanted) {
        throw bad(`has a field ${name} of ${kind} that refers to ${target}`);
      }
      return index;
    };
    fields.push({
      name,
      type,
      coding,
      at: reference(at, CODING.u64),
      by: reference(by, CODING.text),
      family: coding === CODING.image ? `${type} ${name}` : "",
      column: wordColumn(id, fields.length),
    });
  }
  return {
    id,
    kind,
    fields,
    opBytes: Math.ceil(fields.length / 4),
    plain: fields.reduce(
      (bits, { coding }, i) => coding === CODING.image ? bits : bits | 1 << 2 * i,
      0,
    ),
    timeColumn: laneColumn(timeLane(id)),
  };
}

/** Plans of this code's own event table, by number of kind. */
export const OWN_PLANS: readonly (KindPlan | undefined)[] = plansOf(SCHEMA, 0);

/** Plans by name of kind. */
export function plansByKind(
  plans: readonly (KindPlan | undefined)[],
): ReadonlyMap<string, KindPlan> {
  return new Map(
    plans.filter((plan) => plan !== undefined).map((plan) => [plan.kind, plan]),
  );
}

/** Plans of this code's own event table, by name. */
export const PLAN_BY_KIND: ReadonlyMap<string, KindPlan> = plansByKind(OWN_PLANS);
