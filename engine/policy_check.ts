/**
 * Whether a value is a policy: a module of the user's is looked at whole before it is used.
 *
 * @module
 */
import { VmtapeError } from "./error.ts";
import type { Check } from "./checks/check.ts";
import { closest } from "./closest.ts";
import { fieldNamed } from "./image/fields.ts";
import { ALIASES, POLICIES } from "./policies/mod.ts";
import { type Policy, WAYS } from "./policy.ts";
import { VMCB_LAYOUT } from "./svm/vmcb_fields.ts";

/** Problems that are told of one policy; the rest is counted. */
const MOST_TOLD = 8;
/** Steps of a list, and depth of handlers within handlers: more is a mistake, such as a list in itself. */
const MOST_STEPS = 1000;
const DEEPEST = 8;
/** Letters of a name, and of what is said of something. */
const LONGEST_NAME = 200, LONGEST_DOC = 10_000;

/**
 * A value that was given as a policy and is none.
 *
 * @example
 * ```ts
 * import { checkPolicy, PolicyError } from "@vmtape/vmtape/engine";
 * try {
 *   checkPolicy({ name: "mine" });
 * } catch (error) {
 *   if (!(error instanceof PolicyError) || error.problems.length === 0) throw error;
 * }
 * ```
 */
export class PolicyError extends VmtapeError {
  /** Name of the class, for those who cannot use instanceof. */
  override readonly name = "PolicyError";
  /** What is wrong, each with its place, such as `ways.vmrun[3].step`. */
  readonly problems: readonly string[];

  /**
   * A value that is no policy.
   *
   * @param problems What is wrong with it.
   */
  constructor(problems: readonly string[]) {
    const told = problems.slice(0, MOST_TOLD);
    const rest = problems.length - told.length;
    super(told.join("; ") + (rest > 0 ? `; and ${rest} more` : ""));
    this.problems = problems;
  }
}

type Loose = Readonly<Record<string, unknown>>;

function isObject(value: unknown): value is Loose {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function shown(value: unknown): string {
  if (value === undefined) return "missing";
  if (value === null) return "null";
  if (typeof value === "string") return JSON.stringify(value.slice(0, 40));
  if (Array.isArray(value)) return "a list";
  return typeof value === "object" ? "an object" : `a ${typeof value}`;
}

/** Groups that a check can be in. */
const GROUPS: ReadonlySet<unknown> = new Set<Check["group"]>(["save", "control", "cr3"]);

class Look {
  readonly problems: string[] = [];

  say(place: string, wanted: string, value: unknown): void {
    this.problems.push(`${place} must be ${wanted}, not ${shown(value)}`);
  }

  text(place: string, value: unknown): void {
    if (typeof value !== "string" || value === "") this.say(place, "a text", value);
    else if (value.length > LONGEST_NAME) {
      this.problems.push(`${place} must have at most ${LONGEST_NAME} letters, not ${value.length}`);
    }
  }

  doc(place: string, value: unknown): void {
    if (typeof value !== "string") this.say(place, "a text", value);
    else if (value.length > LONGEST_DOC) {
      this.problems.push(`${place} must have at most ${LONGEST_DOC} letters, not ${value.length}`);
    }
  }

  names(place: string, found: Loose, known: readonly string[]): void {
    for (const name of Object.keys(found)) {
      if (known.includes(name)) continue;
      const near = closest(name, known);
      this.problems.push(
        `${place} has no "${name}"${near === undefined ? "" : `, did you mean "${near}"?`} ` +
          `(there is ${known.join(", ")})`,
      );
    }
  }

  steps(place: string, value: unknown, depth = 0): void {
    if (!Array.isArray(value)) {
      this.say(place, "a list of steps, such as list([steps.cacheVmcb12])", value);
      return;
    }
    if (value.length > MOST_STEPS || depth > DEEPEST) {
      this.problems.push(`${place} is too long or handlers in it are nested too deep`);
      return;
    }
    value.forEach((entry, i) => this.entry(`${place}[${i}]`, entry, depth));
  }

  entry(place: string, entry: unknown, depth: number): void {
    if (!isObject(entry)) {
      this.say(place, "an entry { step, onFail?, ret? }", entry);
      return;
    }
    if (typeof entry["run"] === "function") {
      this.problems.push(
        `${place} is a step where an entry has to be: write { step: … } or list([…])`,
      );
      return;
    }
    this.names(place, entry, ["step", "onFail", "ret"]);
    const { step, onFail, ret } = entry;
    if (!isObject(step)) this.say(`${place}.step`, "a step { name, doc, run }", step);
    else {
      this.text(`${place}.step.name`, step["name"]);
      this.doc(`${place}.step.doc`, step["doc"]);
      if (typeof step["run"] !== "function") {
        this.say(`${place}.step.run`, "a function", step["run"]);
      }
    }
    if (onFail !== undefined) this.steps(`${place}.onFail`, onFail, depth + 1);
    if (ret !== undefined && !Number.isInteger(ret)) {
      this.say(`${place}.ret`, "a whole number", ret);
    }
  }

  ways(place: string, value: unknown): void {
    if (!isObject(value)) {
      this.say(place, `an object with ${WAYS.join(", ")}`, value);
      return;
    }
    this.names(place, value, WAYS);
    for (const way of WAYS) this.steps(`${place}.${way}`, value[way]);
  }

  field(place: string, name: unknown): void {
    try {
      if (typeof name !== "string") throw new TypeError();
      fieldNamed(VMCB_LAYOUT, name);
    } catch (error) {
      const why = error instanceof TypeError ? "must be a name such as save.efer" : String(error);
      this.problems.push(`${place}: ${why}`);
    }
  }

  check(place: string, value: unknown): void {
    if (!isObject(value)) {
      this.say(place, "a check", value);
      return;
    }
    const { id, texts, group, reads, fails } = value as Partial<Check>;
    this.text(`${place}.id`, id);
    if (!GROUPS.has(group)) {
      this.say(`${place}.group`, "save, control or cr3", group);
    }
    if (!Array.isArray(texts) || typeof texts[0] !== "string") {
      this.say(`${place}.texts`, "a list of texts", texts);
    }
    if (!Array.isArray(reads)) this.say(`${place}.reads`, "a list of fields", reads);
    else reads.forEach((name, i) => this.field(`${place}.reads[${i}]`, name));
    if (typeof fails !== "function") this.say(`${place}.fails`, "a function", fails);
  }

  kernel(place: string, value: unknown): void {
    if (!isObject(value)) {
      this.say(place, "a kernel, such as KERNEL_6_12", value);
      return;
    }
    this.text(`${place}.name`, value["name"]);
    const { checks, uses, reserves, traits } = value;
    // By what it does: a module may come with a copy of this library of its own.
    const { cr4Bits, eferBits } = isObject(reserves) ? reserves : {};
    if (typeof cr4Bits !== "function" || typeof eferBits !== "function") {
      this.say(`${place}.reserves`, "rules of CR4 and EFER, such as RULES_6_12", reserves);
    }
    if (!isObject(value["mmu"])) {
      this.say(`${place}.mmu`, "what its MMU is like, such as MMU_6_12", value["mmu"]);
    }
    if (!isObject(traits)) {
      this.say(`${place}.traits`, "a kernel's traits, such as KERNEL_6_12.traits", traits);
    }
    if (!isObject(checks)) this.say(`${place}.checks`, "a check set, such as CHECKS_6_12", checks);
    else {
      this.text(`${place}.checks.name`, checks["name"]);
      if (checks["maker"] !== "kvm" && checks["maker"] !== "apm") {
        this.say(`${place}.checks.maker`, "kvm or apm", checks["maker"]);
      }
      const rows = checks["checks"];
      if (!Array.isArray(rows)) this.say(`${place}.checks.checks`, "a list of checks", rows);
      else rows.forEach((row, i) => this.check(`${place}.checks.checks[${i}]`, row));
    }
    if (!Array.isArray(uses)) this.say(`${place}.uses`, "a list of fields", uses);
    else uses.forEach((name, i) => this.field(`${place}.uses[${i}]`, name));
  }
}

/**
 * Looks at a value whole and says that it is a policy, or everything that is wrong with it.
 *
 * @param value What a module gave.
 * @returns The policy.
 * @throws {PolicyError} When it is none, or goes by the name of a built-in policy that it is not.
 * @example
 * ```ts
 * import { checkPolicy, UNIFIED } from "@vmtape/vmtape/engine";
 * const mine = { ...UNIFIED, name: "mine" };
 * if (checkPolicy(mine) !== mine) throw new Error();
 * ```
 */
export function checkPolicy(value: unknown): Policy {
  if (!isObject(value)) throw new PolicyError([`a policy is an object, not ${shown(value)}`]);
  if (typeof value["then"] === "function") {
    throw new PolicyError(["a policy is an object, not a promise of one: await it"]);
  }
  const look = new Look();
  const { name, doc, kernel, ways, processor } = value;
  look.text("name", name);
  look.doc("doc", doc);
  if (Object.hasOwn(value, "checks")) {
    look.problems.push(
      "checks is no part of a policy: its kernel has them, see withChecks(policy, checks)",
    );
  }
  look.names("the policy", value, ["name", "doc", "kernel", "ways", "processor", "checks"]);
  look.kernel("kernel", kernel);
  look.ways("ways", ways);
  if (processor !== undefined && !isObject(processor)) {
    look.say("processor", "a processor, such as AMD", processor);
  }
  const taken = typeof name === "string" ? { ...ALIASES, ...POLICIES }[name] : undefined;
  if (taken !== undefined && taken !== (value as unknown)) {
    look.problems.push(`name: "${name}" is a built-in policy, choose another name`);
  }
  if (look.problems.length > 0) throw new PolicyError(look.problems);
  return value as unknown as Policy;
}
