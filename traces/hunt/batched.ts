/**
 * Finding a small list when many candidates cost as much as one.
 *
 * @module
 */

/** Says of each of several lists whether it still shows what is to be kept. */
export type ShowsMany<T> = (candidates: readonly (readonly T[])[]) => Promise<readonly boolean[]>;

/**
 * Drops items from a list as long as what is left still shows something, as
 * {@linkcode minimize} does, but asks about all pieces of one size at once: a kernel takes seconds to
 * boot, and milliseconds for a case.
 *
 * @param items The list; it must show it.
 * @param showsMany Whether lists still show it.
 * @returns A list of the same order from which no single item can be dropped.
 */
export async function minimizeBatched<T>(
  items: readonly T[],
  showsMany: ShowsMany<T>,
): Promise<readonly T[]> {
  let list: readonly T[] = items;
  for (let piece = Math.ceil(list.length / 2); piece >= 1 && list.length > 0;) {
    const cuts: number[] = [];
    for (let at = 0; at < list.length; at += piece) cuts.push(at);
    const shown = await showsMany(cuts.map((at) => without(list, [at], piece)));
    const loose = cuts.filter((_, i) => shown[i]);
    // Pieces that can go one by one need not all be able to go together.
    const together = loose.slice(1).map((_, i) => without(list, loose.slice(0, i + 2), piece));
    const most = together.length === 0 ? [] : await showsMany(together);
    const [first] = loose;
    if (first !== undefined) {
      list = together[most.lastIndexOf(true)] ?? without(list, [first], piece);
    } else if (piece === 1) break;
    // The last pieces are tried again until none of them can go.
    piece = Math.min(Math.max(Math.ceil(piece / 2), 1), Math.max(list.length, 1));
  }
  return list;
}

function without<T>(list: readonly T[], cuts: readonly number[], piece: number): readonly T[] {
  return list.filter((_, i) => !cuts.some((at) => i >= at && i < at + piece));
}
