/**
 * The thread that watches a policy's steps, and says which one does not end.
 *
 * @module
 */
/// <reference lib="deno.worker" />
import { type Watched, WORD } from "./watchdog.ts";

function say(text: string): void {
  Deno.stderr.writeSync(new TextEncoder().encode(`vmtape: ${text}\n`));
}

let timer: ReturnType<typeof setInterval> | undefined;

self.onmessage = ({ data }: MessageEvent<Watched>) => {
  const { words, steps, seconds } = data;
  clearInterval(timer);
  let seen = -1, since = performance.now(), said = false;
  timer = setInterval(() => {
    const step = Atomics.load(words, WORD.step), begun = Atomics.load(words, WORD.begun);
    if (step === 0 || begun !== seen) {
      seen = begun;
      since = performance.now();
      said = false;
      return;
    }
    if (said || performance.now() - since < seconds * 1000) return;
    said = true;
    say(
      `Step "${steps[step - 1]}" has not ended for ${seconds} s, at event ` +
        `${Atomics.load(words, WORD.event)}: it seems to loop for ever. Ctrl-C ends the run`,
    );
  }, 250);
};
