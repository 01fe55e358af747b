/**
 * Checkpoints: the machine's state within a trace, in one block or several.
 *
 * @module
 */
import { damaged, TraceError } from "../errors.ts";
import { sameDigest } from "./chain.ts";
import { CHECKPOINT, CHECKPOINT_SIZE, MAX_DIGEST, MAX_RAW, MAX_STATE } from "./format.ts";

/** State of the machine between two events. */
export interface Checkpoint {
  /** Number of events before it. */
  readonly event: number;
  /** The state, as the engine encoded it. */
  readonly state: Uint8Array;
  /** Digest of the state. */
  readonly digest: Uint8Array;
  /** Whether it was set behind exactly what comes before it in this trace. */
  readonly bound: boolean;
}

/** One block's part of a checkpoint. */
export interface CheckpointPart {
  /** Number of this part, from 0. */
  readonly part: number;
  /** Number of parts. */
  readonly parts: number;
  /** Size of the whole state in bytes. */
  readonly stateSize: number;
  /** Digest of the whole state. */
  readonly digest: Uint8Array;
  /** Digest of the events blocks that it was set behind; empty when it does not say. */
  readonly before: Uint8Array;
  /** This part of the state. */
  readonly bytes: Uint8Array;
}

/**
 * Splits a state into contents of checkpoint blocks.
 *
 * @param state The state.
 * @param digest Its digest.
 * @param before Digest of the events blocks before it.
 * @returns The contents, in order.
 * @throws {TraceError} `limit` when either is too large.
 */
export function checkpointBlocks(
  state: Uint8Array,
  digest: Uint8Array,
  before: Uint8Array,
): Uint8Array[] {
  if (state.length > MAX_STATE || digest.length > MAX_DIGEST) {
    throw new TraceError(
      "limit",
      `A checkpoint takes ${MAX_STATE} bytes of state and ${MAX_DIGEST} of digest at most`,
    );
  }
  const digests = digest.length + before.length;
  const room = MAX_RAW - CHECKPOINT_SIZE - digests;
  const parts = Math.max(1, Math.ceil(state.length / room));
  return Array.from({ length: parts }, (_, part) => {
    const bytes = state.subarray(part * room, (part + 1) * room);
    const content = new Uint8Array(CHECKPOINT_SIZE + digests + bytes.length);
    const view = new DataView(content.buffer);
    view.setUint32(CHECKPOINT.part, part, true);
    view.setUint32(CHECKPOINT.parts, parts, true);
    view.setUint32(CHECKPOINT.state_size, state.length, true);
    view.setUint16(CHECKPOINT.digest_size, digest.length, true);
    view.setUint16(CHECKPOINT.before_size, before.length, true);
    content.set(digest, CHECKPOINT_SIZE);
    content.set(before, CHECKPOINT_SIZE + digest.length);
    content.set(bytes, CHECKPOINT_SIZE + digests);
    return content;
  });
}

/**
 * Decodes the content of a checkpoint block.
 *
 * @param content The content.
 * @param offset Where the block is, for messages.
 * @returns The part it holds.
 * @throws {TraceError} `damaged`.
 */
export function readCheckpointPart(content: Uint8Array, offset: number): CheckpointPart {
  if (content.length < CHECKPOINT_SIZE) throw damaged(offset, "A checkpoint is too short");
  const view = new DataView(content.buffer, content.byteOffset, content.byteLength);
  const part = view.getUint32(CHECKPOINT.part, true);
  const parts = view.getUint32(CHECKPOINT.parts, true);
  const stateSize = view.getUint32(CHECKPOINT.state_size, true);
  const digestSize = view.getUint16(CHECKPOINT.digest_size, true);
  const beforeSize = view.getUint16(CHECKPOINT.before_size, true);
  const beforeAt = CHECKPOINT_SIZE + digestSize;
  const start = beforeAt + beforeSize;
  if (
    part >= parts || stateSize > MAX_STATE || digestSize > MAX_DIGEST || beforeSize > MAX_DIGEST ||
    start > content.length
  ) throw damaged(offset, "A checkpoint has a bad head");
  return {
    part,
    parts,
    stateSize,
    digest: content.slice(CHECKPOINT_SIZE, beforeAt),
    before: content.slice(beforeAt, start),
    bytes: content.slice(start),
  };
}

/**
 * Puts the parts of a checkpoint together.
 *
 * @param event Number of events before it.
 * @param parts All its parts, in order.
 * @param offset Where its first block is, for messages.
 * @param before Digest of the events blocks that come before it in this trace.
 * @returns The checkpoint.
 * @throws {TraceError} `damaged` when a part is missing or does not belong.
 */
export function joinCheckpoint(
  event: number,
  parts: readonly CheckpointPart[],
  offset: number,
  before: Uint8Array,
): Checkpoint {
  const first = parts[0];
  const size = parts.reduce((sum, part) => sum + part.bytes.length, 0);
  if (
    !first || first.parts !== parts.length || first.stateSize !== size ||
    parts.some((part, i) => part.part !== i || part.parts !== parts.length)
  ) {
    throw damaged(offset, "A checkpoint is not whole");
  }
  const state = new Uint8Array(size);
  let at = 0;
  for (const part of parts) {
    state.set(part.bytes, at);
    at += part.bytes.length;
  }
  return { event, state, digest: first.digest, bound: sameDigest(first.before, before) };
}
