/**
 * Which pieces of a kernel a deviation is due to: those with which what it is held against does the
 * same.
 *
 * @module
 */
import { minimize } from "../../engine/diff/minimize.ts";
import type { Policy } from "../../engine/policy.ts";
import { type Deviation, Foreseer, type Unit } from "./foresight.ts";
import type { Known } from "./known.ts";
import { Pieces } from "./pieces.ts";

/** How many sets of pieces keep what predicts with them. */
const MOST_FORESEERS = 40;

/**
 * Puts pieces of a kernel into what it is held against, and looks whether a deviation is gone.
 *
 * @example
 * ```ts
 * import { Blame, Foreseer } from "@vmtape/vmtape/traces";
 * import { ARCHITECTURAL, LINUX_6_12 } from "@vmtape/vmtape/engine";
 * const unit = ["pat c.90=1 c.b0=60000 s.268=2"];
 * const { deviations } = new Foreseer(LINUX_6_12, ARCHITECTURAL, true).foresee(unit);
 * const blame = new Blame(LINUX_6_12, ARCHITECTURAL, true);
 * const pieces = await blame.piecesOf(unit, deviations, deviations[0]!);
 * if (pieces?.join() !== "check g-pat") throw new Error(pieces?.join());
 * ```
 */
export class Blame {
  /** The pieces there are. */
  readonly pieces: Pieces;
  readonly #has: ReadonlySet<string>;
  readonly #kernel: Policy;
  readonly #npt: boolean;
  readonly #foreseers = new Map<Policy, Foreseer>();

  /**
   * Takes a kernel apart.
   *
   * @param kernel The policy of the kernel that is asked.
   * @param against What it is held against.
   * @param npt Whether the hypervisor uses nested paging itself.
   */
  constructor(kernel: Policy, against: Policy, npt: boolean) {
    this.#kernel = kernel;
    this.#npt = npt;
    this.pieces = new Pieces(kernel, against);
    this.#has = new Set(this.pieces.names);
  }

  /**
   * Whether a deviation is gone where what the kernel is held against has some of its pieces, and no
   * other came of it.
   *
   * @param unit The unit.
   * @param all All deviations of the unit.
   * @param one The one that is to go.
   * @param names Names of the pieces.
   */
  isGone(
    unit: Unit,
    all: readonly Deviation[],
    one: Deviation,
    names: readonly string[],
  ): boolean {
    const before = new Set(all.filter((d) => d.case === one.case).map(({ key }) => key));
    const own = unit.slice(0, one.case + 1);
    const { deviations } = this.#foreseer(this.pieces.put(names)).foresee(own);
    return deviations.every((d) => d.case !== one.case || d.key !== one.key && before.has(d.key));
  }

  /**
   * Known deviations that a deviation is.
   *
   * @param unit The unit.
   * @param all All deviations of the unit.
   * @param one Which.
   * @param known What is known of the kernel.
   * @param first What explained the deviation before this one in the unit: it is tried first, since
   * what goes wrong in one case goes on in those behind it.
   * @returns The one that explains it alone, or the fewest that explain it together; undefined when
   * they do not.
   */
  async knownOf(
    unit: Unit,
    all: readonly Deviation[],
    one: Deviation,
    known: readonly Known[],
    first: readonly Known[] = [],
  ): Promise<readonly Known[] | undefined> {
    const rows = known.filter(({ pieces = [] }) => pieces.some((name) => this.#has.has(name)));
    const gone = (some: readonly Known[]) =>
      this.isGone(unit, all, one, some.flatMap(({ pieces = [] }) => pieces));
    if (first.length > 0 && gone(first)) return first;
    const alone = rows.find((row) => gone([row]));
    if (alone !== undefined) return [alone];
    return gone(rows) ? await minimize(rows, gone) : undefined;
  }

  /**
   * The fewest pieces with which a deviation is gone.
   *
   * @param unit The unit.
   * @param all All deviations of the unit.
   * @param one Which.
   * @returns Their names; undefined when it stays with all of them.
   */
  async piecesOf(
    unit: Unit,
    all: readonly Deviation[],
    one: Deviation,
  ): Promise<readonly string[] | undefined> {
    const { names } = this.pieces;
    const gone = (some: readonly string[]) => this.isGone(unit, all, one, some);
    return gone(names) ? await minimize(names, gone) : undefined;
  }

  #foreseer(against: Policy): Foreseer {
    let foreseer = this.#foreseers.get(against);
    if (foreseer === undefined) {
      foreseer = new Foreseer(this.#kernel, against, this.#npt);
      // Most sets of pieces are tried once: the oldest make room.
      for (const oldest of this.#foreseers.keys()) {
        if (this.#foreseers.size < MOST_FORESEERS) break;
        this.#foreseers.delete(oldest);
      }
    }
    this.#foreseers.delete(against);
    this.#foreseers.set(against, foreseer);
    return foreseer;
  }
}
