/**
 * Reading scenarios: a name and changes to a valid base, one a line, in the
 * lab's case syntax and, beyond it, by field name.
 *
 * @module
 */
import { SAVE_AREA, VMCB_SIZE } from "../../engine/svm/vmcb_fields.ts";
import {
  baseL1,
  basePages,
  HSAVE_GPA,
  MEMORY_SIZE,
  PAE_TABLES,
  SAVE_GPA,
  SMRAM_GPA,
  VMCB12_GPA,
} from "./base.ts";
import type { Change, CpuidRemoval, Entry, LateChange, Scenario } from "./scenario.ts";
import { type Fail, ScenarioError, type ScenarioSource } from "./scenario_error.ts";
import { fleetingBytes } from "./scenario_memory.ts";
import type { Token } from "./scenario_token.ts";
import { readToken } from "./scenario_word.ts";

/** Longest line the lab reads, in characters. */
const MAX_LINE = 65534;
/** Most late writes the lab holds. */
const MAX_LATE = 64;
/** Most registers of CPUID that it takes bits from. */
const MAX_CPUID = 32;

/**
 * Reads a file of scenarios: one a line, `#` begins a comment line, blank lines are skipped.
 *
 * @param text The file's text.
 * @param source Its name, for messages.
 * @returns The scenarios in order.
 * @throws {ScenarioError} At the first thing that is not understood.
 * @example
 * ```ts
 * import { parseScenarios } from "@vmtape/vmtape/traces";
 * const [ok, bad] = parseScenarios("# two cases\nok\nasid0 control.asid=0 gif=0\n");
 * if (ok?.changes.length !== 0 || bad?.changes[0]?.gpa !== 0x10058 || bad.gif) throw new Error();
 * ```
 */
export function parseScenarios(text: string, source: ScenarioSource = {}): Scenario[] {
  const scenarios: Scenario[] = [];
  for (const [index, raw] of text.split("\n").entries()) {
    const trimmed = raw.trimStart();
    if (trimmed === "" || trimmed.startsWith("#")) continue;
    scenarios.push(parseScenario(raw, { ...source, line: (source.line ?? 1) + index }));
  }
  return scenarios;
}

/**
 * Reads one scenario.
 *
 * @param text One line: a name, then changes, separated by blanks.
 * @param source Where the line is, for messages.
 * @returns The scenario.
 * @throws {ScenarioError} When a change is not understood.
 * @example
 * ```ts
 * import { parseScenario } from "@vmtape/vmtape/traces";
 * const scenario = parseScenario("no_svme efer^=SVME");
 * if (scenario.changes[0]?.value !== 0x500n) throw new Error();
 * ```
 */
export function parseScenario(text: string, source: ScenarioSource = {}): Scenario {
  const words = [...text.matchAll(/[^ \t\r\n]+/g)];
  const first = words.shift();
  const where = { file: source.file, line: source.line ?? 1 };
  if (!first) {
    throw new ScenarioError("The line is empty", { ...where, column: 1, expected: "a name" });
  }
  if (text.length > MAX_LINE) {
    throw new ScenarioError("The line is too long for the lab", {
      ...where,
      column: MAX_LINE,
      expected: `at most ${MAX_LINE} characters`,
    });
  }
  const builder = new Builder();
  if (first[0].includes("=")) {
    throw new ScenarioError(`A scenario begins with its name, not with the change "${first[0]}"`, {
      ...where,
      column: first.index + 1,
      expected: "a name without =",
    });
  }
  for (const word of words) {
    const fail = (message: string, expected: string, at = 0): never => {
      throw new ScenarioError(message, { ...where, column: word.index + at + 1, expected });
    };
    builder.add(readToken(word[0], fail), fail);
  }
  const name = first[0];
  return builder.build(name, text.slice(first.index + name.length).trim(), where.line);
}

class Builder {
  readonly #l1 = baseL1();
  readonly #changes: Change[] = [];
  readonly #late: RawLate[] = [];
  readonly #cpuid: CpuidRemoval[] = [];
  #physicalBits = 0;
  #pending = false;
  #midNmi = false;
  #midIrq = 0;
  #entry: Entry | undefined;
  #gif = true;
  #nmi = false;
  #irq = 0;
  #keepvm = false;
  #keepmem = false;
  /** vmcb12 as the changes so far leave it, for the operators that need its value. */
  readonly #vmcb12 = new Uint8Array(basePages().get(VMCB12_GPA)!);

  add(token: Token, fail: Fail): void {
    switch (token.kind) {
      case "write":
        this.#write(token.target, token.offset, token.size, token.value, fail);
        break;
      case "field": {
        const gpa = (token.target === "control" ? VMCB12_GPA : SAVE_GPA) + token.offset;
        if (this.#keepmem) {
          fail(
            "With keepmem the field's value before is not known",
            "a plain value: AREA.FIELD=VALUE",
          );
        }
        const before = littleEndian(this.#vmcb12, gpa - VMCB12_GPA, token.size);
        this.#write(token.target, token.offset, token.size, token.apply(before), fail);
        break;
      }
      case "late":
        this.#addLate(token, fail);
        break;
      case "l1":
        this.#l1[token.register] = token.apply(this.#l1[token.register]);
        break;
      case "pae":
        this.#l1.pae = true;
        this.#l1.efer = 0x1000n;
        this.#l1.cr3 = BigInt(PAE_TABLES);
        break;
      case "entry":
        if (this.#entry && this.#entry !== token.entry) {
          fail("The way in is said twice", "one entry= token");
        }
        this.#entry = token.entry;
        break;
      case "gif":
        this.#gif = token.on;
        break;
      case "nmi":
        this.#nmi = token.on;
        break;
      case "irq":
        this.#irq = token.vector;
        break;
      case "pending":
        this.#pending = token.on;
        break;
      case "midnmi":
        this.#midNmi = token.on;
        break;
      case "midirq":
        this.#midIrq = token.vector;
        break;
      case "cpuid":
        if (this.#cpuid.length === MAX_CPUID) {
          fail(`Bits of more than ${MAX_CPUID} CPUID registers`, `at most ${MAX_CPUID} of them`);
        }
        this.#cpuid.push(token.removal);
        break;
      case "pa":
        this.#physicalBits = token.bits;
        break;
      case "keepvm":
        this.#keepvm = true;
        break;
      case "keepmem":
        this.#keepmem = true;
        break;
      case "none":
    }
  }

  #write(
    target: Change["target"],
    offset: bigint | number,
    size: number,
    value: bigint,
    fail: Fail,
  ) {
    const base = target === "control" ? VMCB12_GPA : target === "save" ? SAVE_GPA : 0;
    const gpa = inMemory(base, offset, size, fail);
    if (gpa === undefined) return;
    const change = { target, gpa, size, value: BigInt.asUintN(8 * size, value) };
    this.#changes.push(change);
    const bytes = fleetingBytes(change);
    for (let i = 0; i < size; i++) {
      const at = gpa + i - VMCB12_GPA;
      if (at >= 0 && at < VMCB_SIZE) this.#vmcb12[at] = bytes[i]!;
    }
  }

  #addLate(token: Extract<Token, { kind: "late" }>, fail: Fail) {
    if (this.#late.length === MAX_LATE) {
      fail(`More than ${MAX_LATE} late changes`, `at most ${MAX_LATE}, which is all the lab holds`);
    }
    const { target, offset, size, value } = token;
    inMemory(HSAVE_GPA + SAVE_AREA, offset, size, fail);
    this.#late.push({
      target,
      offset: BigInt(offset),
      size,
      value: BigInt.asUintN(8 * size, value),
    });
  }

  build(name: string, spec: string, line: number): Scenario {
    const entry = this.#entry ?? "vmrun";
    const late = this.#late.flatMap((change) => placed(change, entry) ?? []);
    // A machine that goes on keeps its processor.
    const kept = this.#keepvm;
    return {
      name,
      spec,
      line,
      changes: this.#changes,
      l1: this.#l1,
      gif: this.#gif,
      nmi: this.#nmi,
      irq: this.#irq,
      entry,
      pending: this.#pending,
      midNmi: this.#midNmi,
      midIrq: this.#midIrq,
      cpuid: kept ? [] : this.#cpuid,
      physicalBits: kept || this.#physicalBits === 0 ? undefined : this.#physicalBits,
      late,
      keepvm: this.#keepvm,
      keepmem: this.#keepmem,
    };
  }
}

/** A late write as it stands in the line. */
interface RawLate {
  readonly target: LateChange["target"];
  readonly offset: bigint;
  readonly size: number;
  readonly value: bigint;
}

/** Where each way in writes: the base of each target in memory, or how much of a buffer it fills. */
const LATE_PLACES: Readonly<
  Record<
    Entry,
    Readonly<Partial<Record<LateChange["target"], { gpa: number } | { limit: number }>>>
  >
> = {
  vmrun: {},
  setstate: { hsave: { limit: VMCB_SIZE - SAVE_AREA } },
  rsm: {
    control: { gpa: VMCB12_GPA },
    save: { gpa: SAVE_GPA },
    memory: { gpa: 0 },
    hsave: { gpa: HSAVE_GPA + SAVE_AREA },
    smram: { gpa: SMRAM_GPA },
    nested: { gpa: 0 },
  },
  // What a way in has no place for, the lab writes to memory.
  mid: {
    control: { gpa: VMCB12_GPA },
    save: { gpa: SAVE_GPA },
    memory: { gpa: 0 },
    hsave: { gpa: HSAVE_GPA + SAVE_AREA },
    smram: { gpa: 0 },
    nested: { gpa: 0 },
  },
  migrate: {
    control: { gpa: VMCB12_GPA },
    save: { gpa: SAVE_GPA },
    memory: { gpa: 0 },
    hsave: { limit: VMCB_SIZE - SAVE_AREA },
    nested: { limit: VMCB_SIZE },
  },
};

/** A late write in its place, or `undefined` when it has no effect. */
function placed({ target, offset, size, value }: RawLate, entry: Entry): LateChange | undefined {
  const place = LATE_PLACES[entry][target];
  if (place === undefined) return undefined;
  const end = offset + BigInt(size);
  if ("limit" in place) {
    if (end > BigInt(place.limit)) return undefined;
    return { target, offset: Number(offset), gpa: undefined, size, value };
  }
  if (BigInt(place.gpa) + end > BigInt(MEMORY_SIZE)) return undefined;
  return { target, offset: Number(offset), gpa: place.gpa + Number(offset), size, value };
}

/** The address of a write, or `undefined` beyond the end of memory. */
function inMemory(
  base: number,
  offset: bigint | number,
  size: number,
  fail: Fail,
): number | undefined {
  const gpa = BigInt(base) + BigInt(offset);
  if (gpa + BigInt(size) >= 1n << 64n) {
    fail("The write wraps around the end of the address space", "an address below 1000000");
  }
  return gpa + BigInt(size) <= BigInt(MEMORY_SIZE) ? Number(gpa) : undefined;
}

function littleEndian(bytes: Uint8Array, offset: number, size: number): bigint {
  let value = 0n;
  for (let i = size - 1; i >= 0; i--) value = value << 8n | BigInt(bytes[offset + i]!);
  return value;
}
