/**
 * A scenario as the lab's programs read it.
 *
 * @module
 */
import { baseL1, PAE_TABLES, SAVE_GPA, VMCB12_GPA } from "./base.ts";
import { type ChangeTarget, L1_REGISTERS, type Scenario, TARGETS } from "./scenario.ts";

const LETTERS = Object.fromEntries(
  Object.entries(TARGETS).map(([letter, target]) => [target, letter]),
) as Record<ChangeTarget, string>;

const hex = (value: bigint | number): string => value.toString(16);
const sized = (size: number): string => size === 8 ? "" : `.${size}`;

/** The word of a write that is made while L2 is stopped or the handler of an SMI runs. */
export function lateWord(
  { target, offset, size, value }: Pick<Scenario["late"][number], "target" | "size" | "value"> & {
    readonly offset: bigint | number;
  },
): string {
  return `x${LETTERS[target]}.${hex(offset)}${sized(size)}=${hex(value)}`;
}

/**
 * Renders a scenario as a case line of the lab, with raw offsets only.
 *
 * @param scenario The scenario.
 * @returns One line without a line break, which the lab accepts and which reads back as the same scenario.
 * @example
 * ```ts
 * import { parseScenario, toLabCase } from "@vmtape/vmtape/traces";
 * const line = toLabCase(parseScenario("a save.efer^=SVME control.event_inj=80000220 gif=0"));
 * if (line !== "a s.d0=500 c.a8.4=80000220 gif=0") throw new Error(line);
 * ```
 */
export function toLabCase(scenario: Scenario): string {
  const words = [scenario.name];
  for (const { target, gpa, size, value } of scenario.changes) {
    const base = { control: VMCB12_GPA, save: SAVE_GPA, memory: 0 }[target];
    words.push(`${LETTERS[target]}.${hex(gpa - base)}${sized(size)}=${hex(value)}`);
  }
  const { l1 } = scenario;
  const usual = baseL1();
  if (l1.pae) {
    words.push("l1pae");
    usual.efer = 0x1000n;
    usual.cr3 = BigInt(PAE_TABLES);
  }
  for (const name of L1_REGISTERS) {
    if (l1[name] !== usual[name]) words.push(`${name}=${hex(l1[name])}`);
  }
  if (!scenario.gif) words.push("gif=0");
  if (scenario.nmi) words.push("nmi=1");
  if (scenario.irq) words.push(`irq=${hex(scenario.irq)}`);
  if (scenario.entry !== "vmrun") words.push(`entry=${scenario.entry}`);
  if (scenario.pending) words.push("pending=1");
  if (scenario.midNmi) words.push("midnmi=1");
  if (scenario.midIrq) words.push(`midirq=${hex(scenario.midIrq)}`);
  for (const { fn, register, mask } of scenario.cpuid) {
    words.push(`nocpu.${hex(fn)}.${register[1]}=${hex(mask)}`);
  }
  if (scenario.physicalBits !== undefined) words.push(`pa=${hex(scenario.physicalBits)}`);
  for (const change of scenario.late) words.push(lateWord(change));
  if (scenario.keepvm) words.push("keepvm");
  if (scenario.keepmem) words.push("keepmem");
  return words.join(" ");
}
