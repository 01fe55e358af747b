/**
 * The pieces in which two policies differ, each of which can be put into the other one alone.
 *
 * @module
 */
import type { Check, CheckSet } from "../../engine/checks/sets.ts";
import type { Kernel } from "../../engine/kernels/kernel.ts";
import { type Policy, type Step, type StepEntry, type Way, WAYS } from "../../engine/policy.ts";

/** Which pieces are taken from the kernel. A piece is asked about by its name: where it is, and what is there. */
type Taken = (name: string) => boolean;

/**
 * The pieces of two policies, and policies between the two.
 *
 * @example
 * ```ts
 * import { Pieces } from "@vmtape/vmtape/traces";
 * import { EARLY_EXIT, LINUX_6_12 } from "@vmtape/vmtape/engine";
 * const pieces = new Pieces(EARLY_EXIT, LINUX_6_12);
 * if (!pieces.names.includes("vmrun: check save fails: clear GIF")) throw new Error();
 * ```
 */
export class Pieces {
  /** Names of the pieces, in a fixed order. */
  readonly names: readonly string[];
  readonly #kernel: Policy;
  readonly #against: Policy;
  readonly #made = new Map<string, Policy>();

  /**
   * Takes two policies apart.
   *
   * @param kernel The one whose pieces they are.
   * @param against The one that they are put into.
   */
  constructor(kernel: Policy, against: Policy) {
    this.#kernel = kernel;
    this.#against = against;
    const names = new Set<string>();
    // With none taken, all are asked about.
    mixed(kernel, against, (name) => {
      names.add(name);
      return false;
    });
    this.names = [...names];
  }

  /**
   * What the kernel is held against, with some of the kernel's pieces.
   *
   * @param names Their names.
   */
  put(names: Iterable<string>): Policy {
    const taken = new Set(names);
    const key = [...taken].sort().join("\n");
    let policy = this.#made.get(key);
    if (policy === undefined) {
      policy = mixed(this.#kernel, this.#against, (name) => taken.has(name));
      this.#made.set(key, policy);
    }
    return policy;
  }
}

/**
 * Steps that take each other's place, and what they do: one of them without the other leaves a VMRUN
 * that never gets on, or works on what nobody has cached.
 */
const JOBS: Readonly<Record<string, readonly string[]>> = {
  "mapping vmcb12 and moving past VMRUN": [
    ...["map vmcb12", "require vmcb12 address", "map vmcb12 or stop"],
    ...["map vmcb12 for #VMEXIT", "map vmcb12 for #VMEXIT or shut down"],
    ...["skip VMRUN", "advance RIP"],
  ],
  "caching vmcb12": [
    ...["cache vmcb12", "cache whole vmcb12", "prepare save", "prepare save from cache"],
  ],
};

const CACHING = "caching vmcb12";

const jobOf: ReadonlyMap<string, string> = new Map(
  Object.entries(JOBS).flatMap(([job, steps]) => steps.map((step) => [step, job])),
);

function stepPiece(place: string, { name }: Step, moves: boolean): string {
  return jobOf.get(name) ?? `${place}: ${moves ? "order" : name}`;
}

/** The names that handlers have: one that several steps share has one name. */
type Handlers = Map<
  readonly StepEntry[] | undefined,
  Map<readonly StepEntry[] | undefined, string>
>;

function mixed(kernel: Policy, against: Policy, taken: Taken): Policy {
  const ways = Object.fromEntries(
    WAYS.map((way) => {
      const walk: Walk = { taken, handlers: new Map() };
      return [way, entries(way, kernel.ways[way], against.ways[way], walk)];
    }),
  ) as Record<Way, readonly StepEntry[]>;
  return { ...against, kernel: kernelOf(kernel.kernel, against.kernel, taken), ways };
}

function kernelOf(kernel: Kernel, against: Kernel, taken: Taken): Kernel {
  const guest = values("guest", kernel.traits.guest, against.traits.guest, taken);
  const { guest: _, ...own } = kernel.traits;
  const { guest: __, ...other } = against.traits;
  const uses = kernel.uses.join() !== against.uses.join() && taken(CACHING);
  const reserves = kernel.reserves !== against.reserves && taken("reserved bits");
  return {
    ...against,
    checks: checks(kernel.checks, against.checks, taken),
    uses: uses ? kernel.uses : against.uses,
    reserves: reserves ? kernel.reserves : against.reserves,
    mmu: values("mmu", kernel.mmu, against.mmu, taken),
    traits: { ...values("trait", own, other, taken), guest },
  };
}

/** An object of plain values: each that differs is a piece. */
function values<T extends object>(prefix: string, kernel: T, against: T, taken: Taken) {
  const result = { ...against };
  for (const key of Object.keys(against) as (keyof T & string)[]) {
    if (text(kernel[key]) === text(against[key])) continue;
    if (taken(`${prefix} ${key}`)) result[key] = kernel[key];
  }
  return result;
}

function text(value: unknown): string {
  return JSON.stringify(value, (_, part) => typeof part === "bigint" ? `${part}n` : part);
}

/** Checks by id. Where one is put in, it comes behind the one that it comes behind in the kernel. */
function checks(kernel: CheckSet, against: CheckSet, taken: Taken): CheckSet {
  const own = new Map(kernel.checks.map((row) => [row.id, row]));
  const result: Check[] = [];
  for (const row of against.checks) {
    const theirs = own.get(row.id);
    if (theirs === undefined) {
      if (!taken(`check ${row.id}`)) result.push(row);
    } else if (theirs.fails === row.fails) result.push(row);
    else result.push(taken(`check ${row.id}`) ? theirs : row);
  }
  kernel.checks.forEach((row, i) => {
    if (against.checks.some(({ id }) => id === row.id)) return;
    if (!taken(`check ${row.id}`)) return;
    const before = kernel.checks.slice(0, i).findLast(({ id }) => result.some((r) => r.id === id));
    const at = before === undefined ? 0 : result.findIndex(({ id }) => id === before.id) + 1;
    result.splice(at, 0, row);
  });
  const order = kernel.checks.map(({ id }) => id).filter((id) => result.some((r) => r.id === id));
  const now = result.map(({ id }) => id).filter((id) => own.has(id));
  if (order.join() !== now.join() && taken("order of the checks")) {
    result.sort((a, b) => order.indexOf(a.id) - order.indexOf(b.id));
  }
  const name = result.length === against.checks.length &&
      result.every((row, i) => row === against.checks[i])
    ? against.name
    : `${against.name} and ${kernel.name}`;
  return name === against.name ? against : { ...against, name, checks: result };
}

/** What is passed on while two ways are walked. */
interface Walk {
  readonly taken: Taken;
  readonly handlers: Handlers;
}

/** Steps in a row: those that only one side has are pieces, and the handlers of those that both have. */
function entries(
  place: string,
  kernel: readonly StepEntry[],
  against: readonly StepEntry[],
  walk: Walk,
): readonly StepEntry[] {
  const { taken } = walk;
  const result: StepEntry[] = [];
  for (const { a, k } of aligned(against, kernel)) {
    if (k === undefined) {
      const moves = kernel.some(({ step }) => step === a!.step);
      if (!taken(stepPiece(place, a!.step, moves))) result.push(a!);
    } else if (a === undefined) {
      const moves = against.some(({ step }) => step === k.step);
      if (taken(stepPiece(place, k.step, moves))) result.push(k);
    } else result.push(entry(place, k, a, walk));
  }
  return result;
}

function entry(place: string, k: StepEntry, a: StepEntry, walk: Walk): StepEntry {
  const { step } = a;
  const onFail = k.onFail === undefined && a.onFail === undefined
    ? undefined
    : entries(handlerName(place, k, a, walk), k.onFail ?? [], a.onFail ?? [], walk);
  const ret = k.ret !== a.ret && walk.taken(`${place}: result of a failure`) ? k.ret : a.ret;
  return {
    step,
    ...(onFail === undefined ? {} : { onFail }),
    ...(ret === undefined ? {} : { ret }),
  };
}

function handlerName(place: string, k: StepEntry, a: StepEntry, { handlers }: Walk): string {
  let names = handlers.get(k.onFail);
  if (names === undefined) handlers.set(k.onFail, names = new Map());
  let name = names.get(a.onFail);
  if (name === undefined) names.set(a.onFail, name = `${place}: ${a.step.name} fails`);
  return name;
}

/** Two lists side by side, by the longest row of steps that both have. */
function aligned(
  against: readonly StepEntry[],
  kernel: readonly StepEntry[],
): { readonly a?: StepEntry; readonly k?: StepEntry }[] {
  const same = (a: Step, k: Step) => a === k;
  const lengths = against.map(() => kernel.map(() => 0));
  const at = (i: number, j: number) => lengths[i]?.[j] ?? 0;
  for (let i = against.length - 1; i >= 0; i--) {
    for (let j = kernel.length - 1; j >= 0; j--) {
      lengths[i]![j] = same(against[i]!.step, kernel[j]!.step)
        ? 1 + at(i + 1, j + 1)
        : Math.max(at(i + 1, j), at(i, j + 1));
    }
  }
  const rows: { readonly a?: StepEntry; readonly k?: StepEntry }[] = [];
  let i = 0, j = 0;
  while (i < against.length || j < kernel.length) {
    const a = against[i], k = kernel[j];
    if (a !== undefined && k !== undefined && same(a.step, k.step)) {
      rows.push({ a, k });
      i++;
      j++;
    } else if (a !== undefined && (k === undefined || at(i + 1, j) >= at(i, j + 1))) {
      rows.push({ a });
      i++;
    } else {
      rows.push({ k: k! });
      j++;
    }
  }
  return rows;
}
