/**
 * A thread that carries out groups of a trace.
 *
 * @module
 */
/// <reference lib="deno.worker" />
import { fileSource, TraceFile } from "../../codecs/mod.ts";
import type { Group } from "./groups.ts";
import { type Answer, type Assignment, shareOf } from "./jobs.ts";

let assignment: Assignment | undefined;
let trace: Promise<TraceFile> | undefined;

async function carryOut({ path, task }: Assignment, group: Group): Promise<Answer> {
  try {
    trace ??= TraceFile.open(fileSource(path));
    return { share: await shareOf(await trace, task, group, false) };
  } catch {
    // Whoever asked does it again, and meets the same error where it can be told.
    return {};
  }
}

self.onmessage = async ({ data }: MessageEvent<Assignment | Group>) => {
  if ("task" in data) assignment = data;
  else if (assignment !== undefined) self.postMessage(await carryOut(assignment, data));
};
