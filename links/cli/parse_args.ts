/** A parsed command line: option values by name, and the rest in `_`. */
export type Args = { [name: string]: unknown } & {
  /** Arguments that belong to no option. */
  _: Array<string | number>;
};

type Names = string | readonly string[];

/** What {@linkcode parseArgs} is to make of the arguments. */
export interface ParseOptions {
  /** Whether to keep what follows `--` apart, in the property `--`. */
  "--"?: boolean;
  /** Other names of options. */
  alias?: Readonly<Record<string, Names>>;
  /** Options that take no value; `true` makes every `--name` one of them. */
  boolean?: boolean | Names;
  /** Values of options that are not given. */
  default?: Readonly<Record<string, unknown>>;
  /** Whether everything behind the first non-option is left alone. */
  stopEarly?: boolean;
  /** Options whose value stays text; `_` for the other arguments. */
  string?: Names;
  /** Options that may be given several times; their value is an array. */
  collect?: Names;
  /** Options that `--no-NAME` turns off. */
  negatable?: Names;
  /** Called for an argument that no option above names; `false` drops it. */
  unknown?: (arg: string, key?: string, value?: unknown) => unknown;
}

function list(names: Names | undefined): readonly string[] {
  return (typeof names === "string" ? [names] : names ?? []).filter(Boolean);
}

function looksNumeric(text: string): boolean {
  return /^0x[0-9a-f]+$/i.test(text) || /^[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:e[-+]?\d+)?$/.test(text);
}

type Tree = Record<string, unknown>;

function setPath(target: Tree, path: string, value: unknown, collect: boolean): void {
  const keys = path.split(".");
  const last = keys.pop()!;
  for (const key of keys) target = (target[key] ??= {}) as Tree;
  const old = target[last];
  if (collect && Array.isArray(old)) old.push(value);
  else target[last] = !collect ? value : old ? [old, value] : [value];
}

function hasPath(target: Tree, path: string): boolean {
  const keys = path.split(".");
  const last = keys.pop()!;
  for (const key of keys) {
    if (!target[key]) return false;
    target = target[key] as Tree;
  }
  return Object.hasOwn(target, last);
}

/** The options of one call by what they take, aliases counted in. */
class Table {
  readonly #others = new Map<string, readonly string[]>();
  readonly allBooleans: boolean;
  readonly booleans: ReadonlySet<string>;
  readonly strings: ReadonlySet<string>;
  readonly collects: ReadonlySet<string>;
  readonly negatables: ReadonlySet<string>;

  constructor({ alias = {}, boolean, string, collect, negatable }: ParseOptions) {
    for (const [key, names] of Object.entries(alias)) {
      const group = [key, ...list(names)];
      for (const name of group) this.#others.set(name, group.filter((other) => other !== name));
    }
    this.allBooleans = boolean === true;
    this.booleans = this.#withAliases(typeof boolean === "boolean" ? undefined : boolean);
    this.strings = this.#withAliases(string);
    this.collects = this.#withAliases(collect);
    this.negatables = this.#withAliases(negatable);
  }

  #withAliases(names: Names | undefined): ReadonlySet<string> {
    return new Set(list(names).flatMap((name) => [name, ...this.aliases(name)]));
  }

  /** The other names of an option. */
  aliases(name: string): readonly string[] {
    return this.#others.get(name) ?? [];
  }

  /** Whether the option was described, other than as one that may be repeated or turned off. */
  has(name: string): boolean {
    return this.booleans.has(name) || this.strings.has(name) || this.#others.has(name);
  }
}

/** One call of {@linkcode parseArgs}. */
class Parser {
  readonly #options: ParseOptions;
  readonly #table: Table;
  readonly out: Args = { _: [] };

  constructor(options: ParseOptions) {
    this.#options = options;
    this.#table = new Table(options);
  }

  /** Parses arguments of which none is `--`. */
  parse(args: readonly string[]): void {
    for (let i = 0; i < args.length; i++) {
      const arg = args[i]!;
      if (/^--./s.test(arg)) i += this.#long(arg, args[i + 1]);
      else if (/^-./s.test(arg)) i += this.#short(arg, args[i + 1]);
      else {
        this.#positional(arg);
        if (!this.#options.stopEarly) continue;
        this.out._.push(...args.slice(i + 1));
        return;
      }
    }
  }

  /** Gives options that were not mentioned their values. */
  complete(): void {
    const { booleans, strings, collects } = this.#table;
    for (const [name, value] of Object.entries(this.#options.default ?? {})) {
      if (hasPath(this.out, name)) continue;
      for (const n of [name, ...this.#table.aliases(name)]) setPath(this.out, n, value, false);
    }
    for (const name of booleans) {
      if (!hasPath(this.out, name)) {
        setPath(this.out, name, collects.has(name) ? [] : false, false);
      }
    }
    for (const name of strings) {
      if (collects.has(name) && !hasPath(this.out, name)) setPath(this.out, name, [], false);
    }
  }

  #positional(arg: string): void {
    if (this.#options.unknown?.(arg) === false) return;
    this.out._.push(this.#table.strings.has("_") || !looksNumeric(arg) ? arg : Number(arg));
  }

  #store(name: string, value: string | boolean, arg: string, mayCollect = true): void {
    const { strings, collects, allBooleans } = this.#table;
    const known = this.#table.has(name) || (allBooleans && /^--[^=]+$/.test(arg));
    if (!known && this.#options.unknown?.(arg, name, value) === false) return;
    const numeric = typeof value === "string" && !strings.has(name) && looksNumeric(value);
    const stored = numeric ? Number(value) : value;
    const collect = mayCollect && collects.has(name);
    for (const n of [name, ...this.#table.aliases(name)]) setPath(this.out, n, stored, collect);
  }

  /** Stores an option with the argument behind it if that is its value; returns 1 if so. */
  #withNext(name: string, arg: string, next: string | undefined, isValue: boolean): number {
    const { booleans, strings } = this.#table;
    if (next && isValue && !booleans.has(name)) {
      this.#store(name, next, arg);
      return 1;
    }
    if (next === "true" || next === "false") {
      this.#store(name, next === "true", arg);
      return 1;
    }
    this.#store(name, strings.has(name) ? "" : true, arg);
    return 0;
  }

  #long(arg: string, next: string | undefined): number {
    const { booleans, negatables, allBooleans } = this.#table;
    const [, name = arg.slice(2), value] = /^--(.+?)=(.+)$/s.exec(arg) ?? [];
    if (value !== undefined) {
      this.#store(name, booleans.has(name) ? value !== "false" : value, arg);
      return 0;
    }
    if (name.startsWith("no-") && negatables.has(name.slice(3))) {
      this.#store(name.slice(3), false, arg, false);
      return 0;
    }
    return this.#withNext(name, arg, next, !allBooleans && !next?.startsWith("-"));
  }

  #short(arg: string, next: string | undefined): number {
    for (let at = 1; at < arg.length - 1; at++) {
      const letter = arg[at]!;
      const rest = arg.slice(at + 1);
      const isLetter = /[A-Za-z]/.test(letter);
      if (rest === "-") {
        this.#store(letter, rest, arg);
      } else if (isLetter && rest.includes("=")) {
        this.#store(letter, rest.slice(rest.indexOf("=") + 1), arg);
        return 0;
      } else if (
        (isLetter && /\d+(\.\d*)?(e-?\d+)?$/.test(rest)) ||
        (rest.length > 1 && /\W/.test(rest[0]!))
      ) {
        this.#store(letter, rest, arg);
        return 0;
      } else {
        this.#store(letter, this.#table.strings.has(letter) ? "" : true, arg);
      }
    }
    const last = arg.at(-1)!;
    return last === "-" ? 0 : this.#withNext(last, arg, next, !/^--?[^-]/.test(next ?? ""));
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
  const parser = new Parser(options);
  const end = args.indexOf("--");
  parser.parse(end === -1 ? args : args.slice(0, end));
  parser.complete();
  const rest = end === -1 ? [] : args.slice(end + 1);
  if (options["--"]) parser.out["--"] = rest;
  else parser.out._.push(...rest);
  return parser.out;
}
