/**
 * A thread that carries out groups of a trace.
 *
 * @module
 */
/// <reference lib="deno.worker" />
import { fileSource, TraceFile } from "../../codecs/mod.ts";
import type { Group } from "./groups.ts";
import { type Answer, type Assignment, shareOf } from "./jobs.ts";
import { Queue, type QueueParts } from "./queue.ts";

let assignment: Assignment | undefined;

async function carryOut({ path, task }: Assignment, { parts }: { parts: QueueParts }) {
  const queue = new Queue(parts);
  let trace: Promise<TraceFile> | undefined;
  const share = async (group: Group) => {
    try {
      trace ??= TraceFile.open(fileSource(path));
      return { share: await shareOf(await trace, task, group, false) };
    } catch {
      // Who uses the answers does it again, and meets the same error where it can be told.
      return {};
    }
  };
  for (let index; (index = queue.take()) !== undefined;) {
    queue.wait(index);
    const answer = await share(parts.groups[index]!);
    self.postMessage({ index, ...answer } satisfies Answer);
  }
}

self.onmessage = async ({ data }: MessageEvent<Assignment | { parts: QueueParts }>) => {
  if ("task" in data) assignment = data;
  else if (assignment !== undefined) await carryOut(assignment, data);
};
