/**
 * Runs a VMCB from VMRUN to #VMEXIT.
 *
 * @module
 */
import { C, hostCpuid, type Machine, V } from "../svm/machine.ts";
import { raiseDebug, stops } from "./breakpoints.ts";
import { recordUse, registersOf } from "./carried.ts";
import { decode } from "./decode.ts";
import { deliver } from "./deliver.ts";
import { execute } from "./execute.ts";
import type { Paging } from "../paging/paging.ts";
import { next } from "./branch.ts";
import {
  EXIT,
  EXIT_CODE,
  FAULT,
  FLAG,
  HALTED,
  NEXT,
  REFUSED,
  UNMODELLED,
  VECTOR,
} from "./constants.ts";
import type { Processor } from "./processor.ts";
import type { MsrIntercepted } from "./registers.ts";
import { AMD } from "../processors/amd.ts";
import type { ProcessorModel } from "../processors/model.ts";
import { CONTROL } from "./vmcb_words.ts";
import { injectable } from "../svm/injectable.ts";
import { savesNextRip } from "./vmcb_state.ts";
import { exitIsKnown, goesOn } from "./unknown.ts";
import { load, refuse, writeBack } from "./vmcb_state.ts";
import { passZeros, rewritesItself } from "./zeros.ts";

/**
 * How a run ended: `"exit"` with a #VMEXIT, `"stuck"` without one (a halt, a
 * jump to itself, the instruction budget), `"unmodelled"` at an instruction
 * that the model does not know, see {@linkcode unmodelledBytes}.
 */
export type RunStatus = "exit" | "stuck" | "unmodelled";

/** What a run needs to know beyond the machine. */
export interface RunOptions {
  /** Whether the MSR bitmap intercepts an access; everything when left out. */
  readonly msrIntercepted?: MsrIntercepted;
  /** The processor; the manual's when left out. */
  readonly model?: ProcessorModel;
  /** XCR0 as the hypervisor loaded it, low half; 1 when left out. */
  readonly xcr0?: number;
  /** Instructions after which an interrupt of the hypervisor's own ends the run; none comes when left out. */
  readonly interruptAfter?: number | undefined;
  /** Whether the hypervisor's timer interrupts a guest that is stuck; it never ends when left out. */
  readonly ticks?: boolean;
}

/** Instructions after which a run counts as stuck. */
export const INSTRUCTION_BUDGET = 200_000;

const ALL_MSRS: MsrIntercepted = () => true;
const DEFAULTS: RunOptions = {};
/** DR6.BS. */
const SINGLE_STEP = 0x4000;

/**
 * Bytes of the instruction that made the processor's last {@linkcode runVmcb} give
 * back `"unmodelled"`; where that was the delivery of an event, of the instruction
 * before it.
 *
 * @param cpu The processor.
 * @returns A copy of the bytes, prefixes included.
 * @example
 * ```ts
 * import { C, Machine, type Paging, Processor, runVmcb, S, unmodelledBytes, VMCB02_AT } from "@vmtape/vmtape/engine";
 * const m = new Machine({ physicalBits: 40, npt: true, memory: 1 << 24 });
 * m.set32(VMCB02_AT + C.intercept_word4, 1); // VMRUN
 * m.set32(VMCB02_AT + C.asid, 1);
 * m.set64(VMCB02_AT + S.efer, 0x1000n);
 * m.set64(VMCB02_AT + S.rip, 0x1000n);
 * m.memory.write64(0x1000, 0xf0_d9n); // f2xm1
 * const paging: Paging = { // Paging is off: addresses are where they are.
 *   translate: (_m, _r, lo, _hi, _access, _who, out) => (out.gpa = lo, true),
 * };
 * const cpu = new Processor();
 * const status = runVmcb(cpu, m, VMCB02_AT, paging);
 * if (status !== "unmodelled" || unmodelledBytes(cpu).toHex() !== "d9f0") throw new Error(status);
 * ```
 */
export function unmodelledBytes(cpu: Processor): Uint8Array {
  return cpu.unknown !== 0 ? cpu.unknownSince : cpu.code.slice(0, cpu.insn.length);
}

/**
 * Executes a VMCB as the processor does: loads it, injects its event, runs
 * instructions until a #VMEXIT, and writes the guest's state and the reason of
 * the exit back into it. General registers other than RAX and RSP are in the
 * vCPU area; FS, GS, TR, LDTR and the SYSCALL registers in vmcb01's save area.
 *
 * @param cpu The processor.
 * @param m The machine.
 * @param vmcb Byte offset of the VMCB in {@linkcode Machine.bytes}.
 * @param paging The way from linear addresses to memory.
 * @param options What it needs to know beyond the machine.
 * @returns How it ended. The VMCB holds what #VMEXIT writes only after `"exit"`.
 * @example
 * ```ts
 * import { C, Machine, type Paging, Processor, runVmcb, S, VMCB02_AT } from "@vmtape/vmtape/engine";
 * const m = new Machine({ physicalBits: 40, npt: true, memory: 1 << 24 });
 * const at = VMCB02_AT;
 * m.set32(at + C.intercept_word3, 1 << 24); // HLT
 * m.set32(at + C.intercept_word4, 1); // VMRUN
 * m.set32(at + C.asid, 1);
 * m.set64(at + S.efer, 0x1000n);
 * m.set64(at + S.rip, 0x1000n);
 * m.memory.write8(0x1000, 0xf4);
 * const paging: Paging = { // Paging is off: addresses are where they are.
 *   translate: (_m, _r, lo, _hi, _access, _who, out) => (out.gpa = lo, true),
 * };
 * const status = runVmcb(new Processor(), m, at, paging);
 * if (status !== "exit" || m.u32(at + C.exit_code) !== 0x78) throw new Error(status);
 * ```
 */
export function runVmcb(
  cpu: Processor,
  m: Machine,
  vmcb: number,
  paging: Paging,
  options: RunOptions = DEFAULTS,
): RunStatus {
  cpu.model = options.model ?? AMD;
  cpu.msrIntercepted = options.msrIntercepted ?? ALL_MSRS;
  cpu.xcr0 = options.xcr0 ?? 1;
  const { interruptAfter } = options;
  let budget = interruptAfter ?? INSTRUCTION_BUDGET;
  let status = load(cpu, m, vmcb, paging);
  const before = cpu.unknown;
  // What made them unknown is told from before this run.
  if (before !== 0) m.recorder?.giveUp();
  if (status === NEXT) status = inject(cpu);
  if (savesNextRip(cpu)) m.set64(vmcb + C.next_rip, 0n);
  for (;;) {
    if (status === NEXT) {
      if (cpu.virq && interruptible(cpu)) status = takeVirq(cpu);
      else {
        status = budget-- > 0 ? step(cpu) : HALTED;
        if (status !== NEXT) continue;
        budget -= passZeros(cpu, budget);
        if (interruptAfter !== undefined && rewritesItself(cpu)) budget = Math.min(budget, 1);
      }
    } else if (status === FAULT) {
      status = deliver(cpu, cpu.vector, cpu.isInt, cpu.errorCode, false);
      if (status === NEXT) cpu.oldException = -1;
    } else break;
  }
  const interrupted = interruptAfter !== undefined || options.ticks === true;
  if (status === HALTED && interrupted && cpu.check(EXIT_CODE.intr)) status = EXIT;
  if (status === EXIT) {
    if (cpu.unknown !== 0 && !exitIsKnown(cpu)) status = UNMODELLED;
    else writeBack(cpu);
  }
  if (cpu.unknown !== before) m.set16(V.unknown_registers, cpu.unknown);
  return status === EXIT || status === REFUSED
    ? "exit"
    : status === UNMODELLED
    ? "unmodelled"
    : "stuck";
}

// EVENTINJ: an interrupt is delivered on the spot, the others as exceptions.
function inject(cpu: Processor): number {
  const event = cpu.eventInjected();
  if (event < 0x80000000) return NEXT;
  const vector = event & 0xff;
  cpu.vector = vector;
  cpu.errorCode = cpu.eventInjected(1);
  cpu.isInt = false;
  cpu.isException = false;
  switch (event >>> 8 & 7) {
    case 0:
      return deliver(cpu, vector, false, 0, true);
    case 2:
      cpu.vector = VECTOR.nmi;
      return FAULT;
    case 3:
      return injectException(cpu, vector) ? FAULT : refuse(cpu);
    case 4:
      returnTo(cpu);
      return FAULT;
  }
  return refuse(cpu);
}

/** Injects an exception; false when there is none of that vector. */
function injectException(cpu: Processor, vector: number): boolean {
  const { model } = cpu;
  if (model.injectsAnyVector) {
    if (vector === VECTOR.nmi || vector >= 31) return false;
  } else if (!injectable(vector, cpu.width === 64, hostCpuid(cpu.m.caps).has("shstk"))) {
    return false;
  }
  cpu.injected = true;
  const trap = vector === VECTOR.bp || vector === VECTOR.of;
  if (trap && !model.injectsWithoutDpl) {
    cpu.checksDpl = true;
    if (savesNextRip(cpu)) {
      returnTo(cpu);
      cpu.isException = true;
    }
  }
  const nests = vector === VECTOR.de || vector === VECTOR.df ||
    vector >= VECTOR.ts && vector <= VECTOR.pf;
  if (nests && !model.forgetsInjected) cpu.oldException = vector;
  return true;
}

/** A soft event returns to the next RIP of the VMCB, where the processor has one, else to RIP. */
function returnTo(cpu: Processor): void {
  cpu.isInt = true;
  const next = savesNextRip(cpu);
  const at = cpu.at + CONTROL.nextRip;
  cpu.nextLo = next ? cpu.m.word(at) : cpu.ripLo;
  cpu.nextHi = next ? cpu.m.word(at + 1) : cpu.ripHi;
}

/** Saves the next RIP of an instruction that exits (APM vol. 2, 15.7.1). */
function saveNextRip(cpu: Processor): void {
  if (!savesNextRip(cpu)) return;
  const code = cpu.m.word(cpu.at + CONTROL.exitCode);
  const vector = code - EXIT_CODE.exception;
  const trap = vector >= VECTOR.bp && vector <= VECTOR.br;
  if (!trap && (vector >= 0 && vector < 32 || code >= EXIT_CODE.npf)) return;
  cpu.m.setWord(cpu.at + CONTROL.nextRip, next.lo);
  cpu.m.setWord(cpu.at + CONTROL.nextRip + 1, next.hi);
}

/** Whether what exited was an instruction's intercept, not an exception, an interrupt or a page. */
function intercepts(cpu: Processor): boolean {
  const code = cpu.m.word(cpu.at + CONTROL.exitCode);
  return code < EXIT_CODE.exception ||
    code >= 0x60 && code < EXIT_CODE.npf && code !== EXIT_CODE.swint && code !== EXIT_CODE.shutdown;
}

function interruptible(cpu: Processor): boolean {
  return cpu.vgif && !cpu.inhibit && (cpu.rflags & FLAG.if) !== 0;
}

function takeVirq(cpu: Processor): number {
  if (cpu.check(0x64)) return EXIT;
  const status = deliver(cpu, cpu.virqVector, false, 0, true);
  if (status === NEXT) {
    cpu.virq = false;
    cpu.intCtl &= ~0x100;
  }
  return status;
}

function step(cpu: Processor): number {
  if (cpu.armed !== 0 && stops(cpu)) return raiseDebug(cpu);
  let count = cpu.fetch(0);
  if (count < 0) return cpu.failure;
  let outcome = decode(cpu.code, count, cpu.width, cpu.insn);
  let crossed = false;
  if (outcome === "short" && count < 15) {
    count = cpu.fetch(count);
    if (count < 0) return cpu.failure;
    outcome = decode(cpu.code, count, cpu.width, cpu.insn);
    crossed = true;
  }
  if (outcome !== "ok") return cpu.raise(VECTOR.gp);
  if (cpu.m.recorder !== undefined) recordUse(cpu, registersOf(cpu.insn));
  const flags = cpu.rflags;
  const inhibited = cpu.inhibit;
  const page = cpu.ripLo >>> 12;
  cpu.endOfBlock = false;
  cpu.shadow = false;
  if (cpu.unknown !== 0 && !goesOn(cpu)) return UNMODELLED;
  const status = execute(cpu);
  if (status === EXIT) {
    saveNextRip(cpu);
    if (cpu.width !== 64 && intercepts(cpu)) cpu.ripHi = 0;
  }
  if (status === HALTED && cpu.virq && interruptible(cpu)) return NEXT;
  if (status !== NEXT) return status;
  cpu.inhibit = !inhibited && cpu.shadow;
  const single = (flags & FLAG.tf) !== 0;
  if ((flags & FLAG.rf) !== 0) {
    const ends = cpu.endOfBlock || single || inhibited || crossed || cpu.ripLo >>> 12 !== page;
    if (ends || !cpu.model.resumeFlagLingers) cpu.rflags &= ~FLAG.rf;
  }
  if (cpu.hits !== 0) return raiseDebug(cpu);
  return single && !cpu.shadow ? raiseDebug(cpu, SINGLE_STEP) : NEXT;
}
