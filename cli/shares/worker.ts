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

/** A trace that is being opened. */
function opened(path: string): Promise<TraceFile> {
  const trace = Promise.try(() => TraceFile.open(fileSource(path)));
  // What is wrong with it is met again where it is used.
  trace.catch(() => {});
  return trace;
}

async function carryOut(
  { task }: Assignment,
  trace: Promise<TraceFile>,
  { parts }: { parts: QueueParts },
  giver: Giver,
) {
  const queue = new Queue(parts);
  const learned = new Learned();
  const share = async (group: Group) => {
    try {
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
  let assigned: { readonly assignment: Assignment; readonly trace: Promise<TraceFile> } | undefined;
  giver.onmessage = async ({ data }: MessageEvent<Given>) => {
    if ("port" in data) {
      // Started by a thread that watches over policies, for another one that carries them out.
      keepQuiet();
      watchedThread((watched) => self.postMessage({ watched }));
      workFor(data.port);
    } else if ("task" in data) assigned = { assignment: data, trace: opened(data.path) };
    else if (assigned !== undefined) {
      await carryOut(assigned.assignment, assigned.trace, data, giver);
    }
  };
}

type Given = Assignment | { readonly parts: QueueParts } | { readonly port: MessagePort };

workFor(self);
