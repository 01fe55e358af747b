/**
 * Aligning two sequences: the longest run of elements that both have in common, in order.
 *
 * @module
 */

/** Elements of two sequences that stand for each other, by their indices. */
export interface Alignment {
  /** Pairs of indices, rising on both sides. */
  readonly pairs: readonly (readonly [number, number])[];
  /** Whether the pairs are the longest common subsequence; else a long one, found with less work. */
  readonly longest: boolean;
}

/** Insertions and deletions that are looked at in full; memory grows with the square of them. */
const MOST_EDITS = 4_000;

/** Walks back through the furthest points of every number of edits. */
function walkBack(
  trace: readonly Int32Array[],
  n: number,
  m: number,
  offset: number,
): [number, number][] {
  const pairs: [number, number][] = [];
  let x = n, y = m;
  for (let d = trace.length - 1; d >= 0; d--) {
    const v = trace[d]!;
    const k = x - y;
    const at = (diagonal: number) => v[diagonal + d + 1] ?? -1;
    const down = k === -d || k !== d && at(k - 1) < at(k + 1);
    const before = down ? k + 1 : k - 1;
    const px = d === 0 ? 0 : at(before);
    const py = px - before;
    while (x > Math.max(px, 0) && y > Math.max(py, 0)) {
      x--;
      y--;
      pairs.push([x + offset, y + offset]);
    }
    if (d > 0) {
      x = px;
      y = py;
    }
  }
  return pairs.reverse();
}

/** Myers' greedy search by number of edits; undefined when there are more than are looked at. */
function shortestEdits(
  a: readonly number[],
  b: readonly number[],
  offset: number,
): [number, number][] | undefined {
  const n = a.length, m = b.length;
  const most = Math.min(n + m, MOST_EDITS);
  const v = new Int32Array(2 * most + 3).fill(-1);
  const middle = most + 1;
  v[middle + 1] = 0;
  const trace: Int32Array[] = [];
  for (let d = 0; d <= most; d++) {
    trace.push(v.slice(middle - d - 1, middle + d + 2));
    for (let k = -d; k <= d; k += 2) {
      const down = k === -d || k !== d && v[middle + k - 1]! < v[middle + k + 1]!;
      let x = down ? v[middle + k + 1]! : v[middle + k - 1]! + 1;
      let y = x - k;
      while (x < n && y < m && a[x] === b[y]) {
        x++;
        y++;
      }
      v[middle + k] = x;
      if (x >= n && y >= m) return walkBack(trace, n, m, offset);
    }
  }
  return undefined;
}

/** Pairs each element with the next one alike on the other side, as long as none is far away. */
function greedy(a: readonly number[], b: readonly number[], offset: number): [number, number][] {
  const places = new Map<number, number[]>();
  b.forEach((value, i) => {
    const list = places.get(value);
    if (list === undefined) places.set(value, [i]);
    else list.push(i);
  });
  const pairs: [number, number][] = [];
  const used = new Map<number, number>();
  let next = 0;
  a.forEach((value, x) => {
    const list = places.get(value) ?? [];
    let at = used.get(value) ?? 0;
    while (at < list.length && list[at]! < next) at++;
    used.set(value, at);
    const y = list[at];
    if (y === undefined || y - next > MOST_EDITS) return;
    pairs.push([x + offset, y + offset]);
    next = y + 1;
  });
  return pairs;
}

/**
 * Aligns two sequences.
 *
 * @param a The first sequence; elements that are the same number stand for each other.
 * @param b The other.
 * @returns Pairs of indices.
 * @example
 * ```ts
 * import { align } from "@vmtape/vmtape/engine";
 * const { pairs } = align([1, 2, 3, 4], [1, 3, 4, 5]);
 * if (pairs.join(" ") !== "0,0 2,1 3,2") throw new Error(pairs.join(" "));
 * ```
 */
export function align(a: readonly number[], b: readonly number[]): Alignment {
  let start = 0;
  while (start < a.length && start < b.length && a[start] === b[start]) start++;
  let endA = a.length, endB = b.length;
  while (endA > start && endB > start && a[endA - 1] === b[endB - 1]) {
    endA--;
    endB--;
  }
  const x = a.slice(start, endA), y = b.slice(start, endB);
  const exact = x.length === 0 || y.length === 0 ? [] : shortestEdits(x, y, start);
  const pairs: [number, number][] = [];
  for (let i = 0; i < start; i++) pairs.push([i, i]);
  pairs.push(...exact ?? greedy(x, y, start));
  for (let i = 0; i < a.length - endA; i++) pairs.push([endA + i, endB + i]);
  return { pairs, longest: exact !== undefined };
}
