/** A parsed command line: option values by name, and the rest in `_`. */
export type Args = { [name: string]: unknown } & {
  /** Arguments that belong to no option. */
  _: Array<string | number>;
};

/** What {@linkcode parseArgs} is to make of the arguments. */
export interface ParseOptions {
  /** Whether to keep what follows `--` apart, in the property `--`. */
  "--"?: boolean;
  /** Other names of options. */
  alias?: Readonly<Record<string, string | readonly string[]>>;
  /** Options that take no value; `true` makes every `--name` one of them. */
  boolean?: boolean | string | readonly string[];
  /** Values of options that are not given. */
  default?: Readonly<Record<string, unknown>>;
  /** Whether everything from the first non-option on is left alone. */
  stopEarly?: boolean;
  /** Options whose value stays text; `_` for the other arguments. */
  string?: string | readonly string[];
  /** Options that may be given several times; their value is an array. */
  collect?: string | readonly string[];
  /** Options that `--no-NAME` turns off. */
  negatable?: string | readonly string[];
  /** Called for an argument that no option above names; `false` drops it. */
  unknown?: (arg: string, key?: string, value?: unknown) => unknown;
}

const list = (names: string | readonly string[] | undefined): readonly string[] =>
  names === undefined ? [] : typeof names === "string" ? [names] : names;

const looksNumeric = (text: string): boolean =>
  /^0x[0-9a-f]+$/i.test(text) || /^[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:e[-+]?\d+)?$/.test(text);

/** The option names of one call, with their aliases. */
class Names {
  readonly #same = new Map<string, string[]>();
  readonly booleans = new Set<string>();
  readonly strings = new Set<string>();
  readonly collects = new Set<string>();
  readonly negatables = new Set<string>();
  readonly allBooleans: boolean;

  constructor(options: ParseOptions) {
    for (const [key, others] of Object.entries(options.alias ?? {})) {
      const group = [key, ...list(others)];
      for (const name of group) this.#same.set(name, group);
    }
    this.allBooleans = options.boolean === true;
    const { boolean } = options;
    this.#fill(this.booleans, typeof boolean === "boolean" ? undefined : boolean);
    this.#fill(this.strings, options.string);
    this.#fill(this.collects, options.collect);
    this.#fill(this.negatables, options.negatable);
  }

  #fill(set: Set<string>, names: string | readonly string[] | undefined): void {
    for (const name of list(names)) for (const n of this.group(name)) set.add(n);
  }

  /** A name and those it is an alias of or for. */
  group(name: string): readonly string[] {
    return this.#same.get(name) ?? [name];
  }

  has(name: string): boolean {
    return [this.booleans, this.strings, this.collects, this.negatables, this.#same]
      .some((s) => s.has(name));
  }
}

function setPath(target: Record<string, unknown>, path: string, value: unknown, collect: boolean) {
  const keys = path.split(".");
  // Such a key would reach into every object of the program.
  if (keys.includes("__proto__")) return;
  const last = keys.pop()!;
  for (const key of keys) {
    const inner = Object.hasOwn(target, key) ? target[key] : undefined;
    target = typeof inner === "object" && inner !== null
      ? inner as Record<string, unknown>
      : (target[key] = {});
  }
  if (!collect) target[last] = value;
  else if (Array.isArray(target[last])) target[last].push(value);
  else target[last] = [value];
}

function hasPath(target: Record<string, unknown>, path: string): boolean {
  let at: unknown = target;
  for (const key of path.split(".")) {
    if (typeof at !== "object" || at === null || !Object.hasOwn(at, key)) return false;
    at = (at as Record<string, unknown>)[key];
  }
  return true;
}

/** The state of one call of {@linkcode parseArgs}. */
class Parse {
  readonly names: Names;
  readonly out: Args = { _: [] };

  constructor(readonly options: ParseOptions) {
    this.names = new Names(options);
  }

  store(name: string, value: unknown, arg?: string, collect = true): void {
    const known = this.names.has(name);
    const { unknown } = this.options;
    if (
      arg !== undefined && unknown && !known && !(this.names.allBooleans && /^--[^=]+$/.test(arg))
    ) {
      if (unknown(arg, name, value) === false) return;
    }
    const typed = !this.names.strings.has(name) && typeof value === "string" && looksNumeric(value)
      ? Number(value)
      : value;
    for (const n of this.names.group(name)) {
      setPath(this.out, n, typed, collect && this.names.collects.has(name));
    }
  }

  positional(arg: string): void {
    if (this.options.unknown?.(arg) === false) return;
    this.out._.push(!this.names.strings.has("_") && looksNumeric(arg) ? Number(arg) : arg);
  }

  isBoolean(name: string): boolean {
    return this.names.booleans.has(name);
  }

  /** Takes `--name…` at `args[i]`; returns how many arguments that were. */
  long(args: readonly string[], i: number): number {
    const arg = args[i]!;
    const equals = arg.indexOf("=");
    if (equals !== -1) {
      const name = arg.slice(2, equals), value = arg.slice(equals + 1);
      this.store(name, this.isBoolean(name) ? value !== "false" : value, arg);
      return 1;
    }
    const name = arg.slice(2);
    if (name.startsWith("no-") && this.names.negatables.has(name.slice(3))) {
      this.store(name.slice(3), false, arg, false);
      return 1;
    }
    return this.value(args, i, name, !this.names.allBooleans);
  }

  /** Takes the value of an option from the argument behind it, if that is one. */
  value(args: readonly string[], i: number, name: string, mayTake: boolean): number {
    const arg = args[i]!, next = args[i + 1];
    const isValue = next === "-" || (next !== undefined && !next.startsWith("-"));
    if (isValue && mayTake && !this.isBoolean(name)) {
      this.store(name, next, arg);
      return 2;
    }
    if (next !== undefined && this.isBoolean(name) && /^(true|false)$/.test(next)) {
      this.store(name, next === "true", arg);
      return 2;
    }
    this.store(name, this.names.strings.has(name) ? "" : true, arg);
    return 1;
  }

  /** Takes `-abc…` at `args[i]`; returns how many arguments that were. */
  short(args: readonly string[], i: number): number {
    const arg = args[i]!;
    const letters = arg.slice(1, -1);
    for (let j = 0; j < letters.length; j++) {
      const letter = letters[j]!, rest = arg.slice(j + 2);
      if (rest === "-") {
        this.store(letter, rest, arg);
        continue;
      }
      if (/[A-Za-z]/.test(letter) && rest.startsWith("=")) {
        this.store(letter, rest.slice(1), arg);
        return 1;
      }
      if (/[A-Za-z]/.test(letter) && /^-?\d+(\.\d*)?(e-?\d+)?$/.test(rest)) {
        this.store(letter, rest, arg);
        return 1;
      }
      if (/\W/.test(rest[0] ?? "")) {
        this.store(letter, rest, arg);
        return 1;
      }
      this.store(letter, this.names.strings.has(letter) ? "" : true, arg);
    }
    const last = arg.at(-1)!;
    return last === "-" ? 1 : this.value(args, i, last, true);
  }
}

/**
 * Parses a command line in the manner of minimist.
 *
 * @param args The arguments.
 * @param options What to make of them.
 * @returns The option values by name, and the other arguments in `_`.
 */
export function parseArgs(args: readonly string[], options: ParseOptions = {}): Args {
  const parse = new Parse(options);
  const { out, names } = parse;
  const end = args.indexOf("--");
  const before = end === -1 ? args : args.slice(0, end);
  let after = end === -1 ? [] : args.slice(end + 1);
  for (let i = 0; i < before.length;) {
    const arg = before[i]!;
    if (/^--./.test(arg)) i += parse.long(before, i);
    else if (/^-[^-]/.test(arg)) i += parse.short(before, i);
    else if (options.stopEarly) {
      after = [...before.slice(i), ...after];
      break;
    } else {
      parse.positional(arg);
      i++;
    }
  }
  for (const [name, value] of Object.entries(options.default ?? {})) {
    if (!hasPath(out, name)) {
      for (const n of names.group(name)) setPath(out, n, value, false);
    }
  }
  for (const name of names.booleans) {
    if (!hasPath(out, name)) setPath(out, name, names.collects.has(name) ? [] : false, false);
  }
  for (const name of names.collects) {
    if (!hasPath(out, name)) setPath(out, name, [], false);
  }
  if (options["--"]) out["--"] = [...after];
  else out._.push(...after);
  return out;
}
