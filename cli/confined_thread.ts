/**
 * The thread in which a command with a policy of the user's own runs.
 *
 * @module
 */
/// <reference lib="deno.worker" />
import { run } from "./app.ts";
import { noteAstray, reasonOf } from "./policy_modules.ts";
import type { Assigned, FromThread } from "./confined.ts";
import { keepQuiet } from "./policy_thread.ts";
import { startThreadsBy } from "./shares/threads.ts";
import { watchedThread } from "./watchdog.ts";

// What follows is taken before a policy can put something else in its place.
const send = self.postMessage.bind(self) as (
  message: FromThread,
  transfer?: Transferable[],
) => void;
const token = crypto.randomUUID();
const { stdout: out, stderr: err } = Deno;

keepQuiet();

function wrong(event: Event, what: unknown): void {
  event.preventDefault();
  send({ wrong: reasonOf(what) });
  noteAstray(what);
}
self.addEventListener("error", (event) => wrong(event, event.error));
self.addEventListener("unhandledrejection", (event) => wrong(event, event.reason));

self.onmessage = async ({ data }: MessageEvent<Assigned>) => {
  send({ token });
  startThreadsBy((spawn) => send({ spawn }, [spawn]));
  watchedThread((watched) => send({ watched }));
  const status = await run(data.args, { ...data, out, err, confined: true });
  send({ from: token, status });
};
