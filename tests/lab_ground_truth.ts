/**
 * Where recordings of real kernels are, on the machines that have them.
 *
 * @module
 */
const folder = new URL("../../shared/ground-truth/", import.meta.url);

function exists(url: URL): boolean {
  try {
    return Deno.statSync(url).isDirectory;
  } catch {
    return false;
  }
}

/** The folder; `undefined` where it is not. */
export const GROUND_TRUTH: URL | undefined = exists(folder) ? folder : undefined;

/** The recordings in it. */
export const RECORDINGS = ["early-exit", "unified", "linux-6.1", "linux-6.12", "linux-7.3"].flatMap(
  (kernel) => [0, 1].map((npt) => `A-${kernel}-npt${npt}`),
);

/** The bytes of a recording, compressed. */
export function groundTruth(recording: string): ReadableStream<Uint8Array> {
  const file = Deno.openSync(new URL(`${recording}.ndjson.gz`, folder));
  return file.readable;
}
