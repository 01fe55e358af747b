/**
 * A thread that carries out groups of a trace.
 *
 * @module
 */
/// <reference lib="deno.worker" />
import { fileSource, TraceFile } from "../../codecs/mod.ts";
import type { Group } from "./groups.ts";
import { type Answer, type Assignment, Learned, shareOf } from "./jobs.ts";
import { keepQuiet } from "../policy_thread.ts";
import { isAlive, watchedThread } from "../watchdog.ts";
import { Queue, type QueueParts } from "./queue.ts";

/** Whom the thread works for. */
interface Giver {
  postMessage(message: unknown): void;
  onmessage: ((event: MessageEvent) => void) | null;
}

async function carryOut(
  { path, task }: Assignment,
  { parts }: { parts: QueueParts },
  giver: Giver,
) {
  const queue = new Queue(parts);
  const learned = new Learned();
  let trace: Promise<TraceFile> | undefined;
  const share = async (group: Group) => {
    try {
      trace ??= TraceFile.open(fileSource(path));
      return { share: await shareOf(await trace, task, group, false, learned) };
    } catch {
      // Who uses the answers does it again, and meets the same error where it can be told.
      return {};
    }
  };
  for (let index; (index = queue.take()) !== undefined;) {
    queue.wait(index, isAlive);
    const answer = await share(parts.groups[index]!);
    giver.postMessage({ index, ...answer } satisfies Answer);
  }
}

/** Takes work from whoever gives it. */
function workFor(giver: Giver): void {
  let assignment: Assignment | undefined;
  giver.onmessage = async ({ data }: MessageEvent<Given>) => {
    if ("port" in data) {
      // Started by a thread that watches over policies, for another one that carries them out.
      keepQuiet();
      watchedThread((watched) => self.postMessage({ watched }));
      workFor(data.port);
    } else if ("task" in data) assignment = data;
    else if (assignment !== undefined) await carryOut(assignment, data, giver);
  };
}

type Given = Assignment | { readonly parts: QueueParts } | { readonly port: MessagePort };

workFor(self);
