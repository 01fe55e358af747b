/**
 * Distributions as HdrHistogram's plotters read them: one file each.
 *
 * @module
 */
import type { Latency } from "../engine/latency.ts";
import type { Context } from "./context.ts";
import { wholeFile } from "./whole_file.ts";

/** A row: value, percentile, count, and how rare it is, which the last one does not have. */
const ROW = /^( *[\d.]+ +)([\d.]+)( +\d+) +[\d.]+$/gm;

/**
 * A distribution whose fourth column is 1/(1 - percentile) with all its digits, where HdrHistogram
 * prints two: a plotter takes its horizontal axis from it.
 *
 * @param text The distribution, as HdrHistogram prints it.
 */
export function exactRarity(text: string): string {
  return text.replace(ROW, (_, value: string, percentile: string, count: string) => {
    // Their difference from 1 is exact in the digits that there are.
    const rest = Number(BigInt(10 ** DIGITS) - BigInt(percentile.replace(".", ""))) / 10 ** DIGITS;
    return `${value}${percentile}${count} ${1 / rest}`;
  });
}

/** Digits behind the point of a percentile. */
const DIGITS = 12;

/**
 * Writes every distribution into a file of its own, `KIND.POLICY.hgrm`.
 *
 * @param context Where messages go.
 * @param latency The histograms.
 * @param target The folder, and whether files that exist are replaced.
 * @returns How many there are.
 * @throws {FileError} When one exists, or cannot be written.
 */
export function writeDistributions(
  context: Context,
  latency: Latency,
  { folder, force }: { readonly folder: string; readonly force: boolean },
): number {
  const rows = latency.rows();
  if (rows.length > 0) Deno.mkdirSync(folder, { recursive: true });
  // None gets its name before all are written: a full disk leaves all of them or none.
  using files = new DisposableStack();
  const written = rows.map(({ policy, kind }) => {
    const name = `${kind}.${policy}`.replace(/[^\w.#-]+/g, "-").replace("#", "");
    const file = files.use(wholeFile(context, { output: `${folder}/${name}.hgrm`, force }));
    const text = exactRarity(latency.distribution(policy, kind) ?? "");
    file.bytes(new TextEncoder().encode(text));
    return file;
  });
  for (const file of written) file.done();
  return rows.length;
}
