/**
 * Finding a small list that still shows something (delta debugging).
 *
 * @module
 */

/**
 * Drops items from a list as long as what is left still shows something: first
 * halves, then smaller and smaller pieces, until no single item can go.
 *
 * @param items The list; it must show it.
 * @param shows Whether a list still shows it.
 * @returns A list of the same order from which no single item can be dropped.
 * @example
 * ```ts
 * import { minimize } from "@vmtape/vmtape/engine";
 * const left = await minimize([1, 2, 3, 4, 5, 6], (list) => list.includes(2) && list.includes(5));
 * if (left.join() !== "2,5") throw new Error(left.join());
 * ```
 */
export async function minimize<T>(
  items: readonly T[],
  shows: (items: readonly T[]) => boolean | Promise<boolean>,
): Promise<T[]> {
  let list = [...items];
  if (list.length > 0 && await shows([])) return [];
  for (let piece = Math.ceil(list.length / 2); piece >= 1;) {
    let dropped = false;
    for (let at = 0; at < list.length;) {
      const less = [...list.slice(0, at), ...list.slice(at + piece)];
      if (less.length > 0 && await shows(less)) {
        list = less;
        dropped = true;
      } else at += piece;
    }
    // The last pieces are tried again until none of them can go.
    if (piece > 1) piece = Math.ceil(piece / 2);
    else if (!dropped) break;
  }
  return list;
}
