/**
 * Small files that stand for much: what a command keeps of them has to have an end.
 *
 * @module
 */
import { readTrace, TraceWriter } from "../../codecs/mod.ts";
import { EVENTS, type Image, type TraceEvent } from "../../engine/event.ts";
import { eventWeight } from "../../engine/event_weight.ts";
import { UNIFIED } from "../../engine/mod.ts";
import { builtinScenarios } from "../../traces/scenarios/builtin.ts";
import { recordScenarios } from "../../traces/scenarios/record.ts";

/** How one bomb is made. */
export interface Bomb {
  /** Its name, and its file's. */
  readonly name: string;
  /** What comes once, before the rest. */
  readonly first: readonly TraceEvent[];
  /** What comes again and again: the events of one turn. */
  readonly turn: (i: number) => readonly TraceEvent[];
  /** Whether every turn is another: then all are written, else one block of them is repeated. */
  readonly varied?: boolean;
}

const LONG = "x".repeat(60_000);

function image(size: number, fill: number): Image {
  return { bytes: new Uint8Array(size).fill(fill) };
}

async function recorded(name: string): Promise<TraceEvent[]> {
  const events: TraceEvent[] = [];
  for await (const event of recordScenarios(builtinScenarios(name), UNIFIED, { npt: true })) {
    events.push(structuredClone(event));
  }
  return events;
}

/** An event of a kind with something in each of its fields. */
function filled(row: (typeof EVENTS)[number], i: number): TraceEvent {
  const event: Record<string, unknown> = { kind: row.kind, vcpu: 0 };
  for (const { name, type } of row.fields) {
    if (type === "u32" || type === "i32") event[name] = i & 3;
    else if (type === "u64") event[name] = BigInt(i & 0xff) << 12n;
    else if (type === "text") event[name] = name === "phase" ? "mid" : "vmrun";
    else if (type === "map") event[name] = {};
    else event[name] = image(type === "page" ? 4096 : 1024, i & 0xff);
  }
  return event as unknown as TraceEvent;
}

/** All bombs. */
export async function bombs(): Promise<Bomb[]> {
  const enter = await recorded("enter");
  const failed = await recorded("gif-left-set");
  const vmrun = enter.findIndex(({ kind }) => kind === "vmrun");
  const session = enter.filter(({ kind }) => kind === "session").slice(0, 1);
  const sees: TraceEvent[] = session.map((event) =>
    event.kind === "session"
      ? { ...event, meta: { ...event.meta, sees: ["switch", "inner"] } }
      : event
  );
  const partial: TraceEvent = {
    kind: "session",
    vcpu: 0,
    meta: { partial: true, source: "ftrace" },
  };
  const starts: readonly (readonly [string, readonly TraceEvent[]])[] = [
    ["alone", []],
    ["session", sees],
    ["log", [partial]],
    ["run", [...sees, ...enter.slice(1, vmrun + 1)]],
  ];
  const all: Bomb[] = [];
  for (const [where, first] of starts) {
    for (const row of EVENTS) {
      const event = filled(row, 1);
      all.push({ name: `${row.kind}-${where}`, first, turn: () => [event] });
    }
  }
  const body = enter.slice(1);
  const texts: readonly (readonly [string, (text: string) => TraceEvent[]])[] = [
    ["case", (name) => [{ kind: "case", vcpu: 0, name, spec: name }]],
    [
      "runs",
      (name) => [
        { kind: "case", vcpu: 0, name, spec: name },
        ...body.filter(({ kind }) => kind !== "case"),
      ],
    ],
    ["check", (text) => [{ kind: "check", vcpu: 0, check: text, text }]],
    ["warn", (text) => [{ kind: "warn", vcpu: 0, text }]],
    ["tracepoint", (text) => [{ kind: "tracepoint", vcpu: 0, name: text, text }]],
    ["unmodelled", (what) => [...body, { kind: "unmodelled", vcpu: 0, what }]],
    ["phase", (phase) => [{ kind: "regs", vcpu: 0, phase, rc: 0 }]],
    ["at", (at) => [{ kind: "inner", vcpu: 0, at, inner: image(64, 1) }]],
    [
      "failed",
      (text) => failed.slice(1).map((e) => e.kind === "check" ? { ...e, check: text, text } : e),
    ],
    ["session", (policy) => [{ kind: "session", vcpu: 0, meta: { policy, kernel: policy } }]],
  ];
  for (const [what, turn] of texts) {
    all.push(
      { name: `text-${what}`, first: session, turn: (i) => turn(`${i}${LONG}`), varied: true },
      { name: `texts-${what}`, first: session, turn: (i) => turn(`${i}`), varied: true },
    );
  }
  const numbers: readonly (readonly [string, (i: number) => TraceEvent[]])[] = [
    ["vcpu", (i) => [{ ...session[0]!, vcpu: i } as TraceEvent]],
    ["log-vcpu", (i) => [{ ...partial, vcpu: i }, { kind: "vmrun", vcpu: i, rip: 1n }]],
    ["vmrun", (i) => [{ kind: "vmrun", vcpu: 0, rip: BigInt(i), vmcb12_gpa: BigInt(i) << 12n }]],
    ["log-vmrun", (i) => [
      { kind: "vmrun", vcpu: 0, rip: BigInt(i), vmcb12_gpa: BigInt(i) << 12n },
      { kind: "exit", vcpu: 0, vmcb12_gpa: BigInt(i) << 12n },
    ]],
    [
      "log-page",
      (i) => [{ kind: "memory", vcpu: 0, gpa: BigInt(i) << 12n, data: image(4096, i & 0xff) }],
    ],
    [
      "page",
      (i) => [{ kind: "memory", vcpu: 0, gpa: BigInt(i) << 12n, data: image(4096, i & 0xff) }],
    ],
    ["exit-code", (i) => [{ kind: "l2exit", vcpu: 0, exit_code: BigInt(i) }]],
    [
      "inner",
      (
        i,
      ) => [{
        kind: "inner",
        vcpu: 0,
        at: "vmrun",
        inner: image(512, i & 0xff),
        vmcb01: image(4096, i & 0xff),
      }],
    ],
  ];
  for (const [what, turn] of numbers) {
    all.push({
      name: `number-${what}`,
      first: what.startsWith("log") ? [partial] : what === "inner" ? [...sees, ...body] : session,
      turn,
      varied: true,
    });
  }
  return all;
}

/** Whoever keeps events of so many bytes in all is found out. */
const ENOUGH = 1 << 30;

/**
 * Writes a bomb.
 *
 * @param bomb Which.
 * @param path Its file.
 * @param blocks Blocks of events that it is to have.
 * @param enough Bytes of kept events for which there need be no more blocks.
 * @returns Size of the file in bytes.
 */
export async function writeBomb(
  bomb: Bomb,
  path: string,
  blocks: number,
  enough: number = ENOUGH,
): Promise<number> {
  const chunks: Uint8Array[] = [];
  let size = 0, turns = 0, written = 0;
  const sink = {
    write: (chunk: Uint8Array) => {
      chunks.push(chunk);
      size += chunk.length;
      written++;
    },
  };
  const options = { flushInterval: 0, id: new Uint8Array(16) };
  const writer = new TraceWriter(sink, options);
  for (const event of bomb.first) writer.write(event);
  writer.flush();
  const start = written;
  const most = bomb.varied ? blocks : 1;
  while (written < start + most && size < 15 << 20) {
    for (const event of bomb.turn(turns++)) writer.write(event);
  }
  writer.close();
  const all = chunks.splice(0);
  if (bomb.varied) {
    await Deno.writeFile(path, new Uint8Array(await new Blob(all as BlobPart[]).arrayBuffer()));
    return size;
  }
  const out: Uint8Array[] = [];
  const repeated = new TraceWriter({ write: (chunk) => out.push(chunk) }, options);
  const trace = await readTrace(all);
  let number = 0;
  for await (const block of trace.raw()) {
    if (block.head.type !== 1) continue;
    const weight = bomb.turn(0).reduce((sum, event) => sum + eventWeight(event), 0);
    const most = Math.ceil(enough / (weight * block.head.events));
    const copies = number++ === (bomb.first.length > 0 ? 1 : 0) ? Math.min(blocks, most) : 1;
    for (let i = 0; i < copies; i++) repeated.copy(block, trace.header);
  }
  repeated.close();
  const bytes = new Uint8Array(await new Blob(out as BlobPart[]).arrayBuffer());
  await Deno.writeFile(path, bytes);
  return bytes.length;
}
