/**
 * The worked example of the trace format: two events, made by the codec, so
 * that the page cannot say what the codec does not do.
 *
 * @module
 */
import { sealBlock } from "../codecs/container/block.ts";
import { writeIndex, writeTrailer } from "../codecs/container/block_index.ts";
import { EventEncoder } from "../codecs/container/encoder.ts";
import { BLOCK, NO_TIME } from "../codecs/container/format.ts";
import { readHeader, writeHeader } from "../codecs/container/header.ts";
import { SCHEMA } from "../codecs/container/schema.ts";
import type { TraceEvent } from "../engine/mod.ts";

/** The parts of the example, one after the other. */
export interface Example {
  /** The events in it. */
  readonly events: readonly TraceEvent[];
  /** The file header. */
  readonly header: Uint8Array;
  /** The block of events. */
  readonly block: Uint8Array;
  /** The same block's content before compression. */
  readonly content: Uint8Array;
  /** The block of the index. */
  readonly index: Uint8Array;
  /** The trailer. */
  readonly trailer: Uint8Array;
}

/** The events: an L1 enters L2, and VMMCALL brings it back. */
export function exampleEvents(): TraceEvent[] {
  const before = new Uint8Array(4096);
  const view = new DataView(before.buffer);
  view.setUint32(0x010, 1, true);
  view.setUint32(0x578, 0x9000, true);
  const after = before.slice();
  new DataView(after.buffer).setUint32(0x070, 0x81, true);
  return [
    {
      kind: "vmrun",
      vcpu: 0,
      time: 1000,
      rip: 0x8003n,
      vmcb12_gpa: 0x10000n,
      vmcb12: { bytes: before },
    },
    { kind: "exit", vcpu: 0, time: 1300, vmcb12_gpa: 0x10000n, vmcb12: { bytes: after } },
  ];
}

/** Makes the example. Its event table has but the two kinds, for the sake of brevity. */
export function makeExample(): Example {
  const events = exampleEvents();
  const id = Uint8Array.from({ length: 16 }, (_, i) => i);
  const header = writeHeader(
    id,
    {},
    SCHEMA.filter(([, kind]) => events.some((event) => event.kind === kind)),
  );
  const { tag } = readHeader(header);
  const encoder = new EventEncoder();
  for (const event of events) encoder.add(event);
  const { bytes: content, cuts } = encoder.take();
  const about = {
    type: BLOCK.events,
    sequence: 0,
    events: 2,
    firstEvent: 0,
    firstTime: 1000,
    lastTime: 1300,
  };
  const block = sealBlock({ ...about, tag }, content, cuts);
  const entry = { ...about, offset: header.length, storedSize: block.length - 64 };
  const index = sealBlock({
    type: BLOCK.index,
    tag,
    sequence: 1,
    events: 0,
    firstEvent: 2,
    firstTime: NO_TIME,
    lastTime: NO_TIME,
  }, writeIndex([entry]));
  const indexOffset = header.length + block.length;
  const trailer = writeTrailer({ tag, indexOffset, blocks: 1, events: 2 });
  return { events, header, block, content, index, trailer };
}
