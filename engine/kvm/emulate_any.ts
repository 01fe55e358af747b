/**
 * Instructions that KVM emulates because of where they reach: a device, or a
 * table that it shadows. The processor model carries them out, on memory as
 * KVM's emulator sees it.
 *
 * @module
 */
import { C, S, V } from "../svm/machine.ts";
import { VMCB_SIZE } from "../svm/vmcb_fields.ts";
import { FAULT, FLAG, HALTED, NEXT, SEG } from "../cpu/constants.ts";
import { execute } from "../cpu/execute.ts";
import { decode, type Instruction, PREFIX } from "../cpu/decode.ts";
import type { Paging } from "../paging/paging.ts";
import { getOperand } from "../cpu/operands.ts";
import { Processor } from "../cpu/processor.ts";
import { attach, loadState, storeSegments } from "../cpu/vmcb_state.ts";
import { FETCH, READ, USER, WALK_FAULT, WRITE } from "../paging/walk.ts";
import { KVM_EXIT, RFLAGS, VECTOR } from "./constants.ts";
import { injectEmulated, NO_ERROR, NO_PAYLOAD, queueException } from "./queue.ts";
import { rflags, setRflagsLow } from "./regs.ts";
import { trackWrite } from "../paging/shadow_pages.ts";
import { Tool, type Vcpu } from "./vcpu.ts";
import { linearToGpa } from "../paging/translate.ts";
import { walkError } from "../paging/vcpu_walk.ts";

/** The instruction was carried out, or its exception queued: the guest goes on. */
export const GOES_ON = 1;
/** KVM_RUN ends with an access to a device. */
export const DEVICE = 0;
/** The model does not know what KVM's emulator does with the instruction. */
export const UNKNOWN = -1;
/** KVM's emulator does not know it. */
export const LACKING = -2;

/** Accesses to devices during one instruction. */
const NONE = 0, READ_DEVICE = 1, WROTE_DEVICE = 2;

/** The processor model on KVM's view of memory: nothing is intercepted, writes are tracked. */
class Emulator extends Processor {
  readonly v: Vcpu;
  readonly view: Paging;
  device = NONE;
  /** Address of the device that was read. */
  deviceGpa = -1;
  /** Whether userspace has given the device's value: zero. */
  answered = false;
  /** Whether that value waits for the first read, which then looks nothing up. */
  waits = false;

  constructor(v: Vcpu) {
    super();
    this.v = v;
    this.view = viewOf(this);
  }

  /** L1's intercepts were looked at before. */
  override intercepted(): boolean {
    return false;
  }

  /** Writes, and drops what shadow pages know of the place. */
  override write(
    lo: number,
    hi: number,
    size: number,
    valueLo: number,
    valueHi: number,
    who: number,
  ): boolean {
    if (!this.translate(lo, hi, WRITE, who, this.walk)) return false;
    const gpa = this.walk.gpa;
    if (!this.m.memory.backed(gpa)) {
      if (this.device === NONE) this.device = WROTE_DEVICE;
      return true;
    }
    const done = super.write(lo, hi, size, valueLo, valueHi, who);
    // SGDT and SIDT write like KVM itself does: shadow pages do not learn of it.
    if (done && !storesTable(this)) trackWrite(this.v, gpa, size);
    return done;
  }

  /** Reads; a device has no value to give yet. */
  override read(lo: number, hi: number, size: number, who: number): boolean {
    const done = super.read(lo, hi, size, who);
    if (done && !this.answered && !this.m.memory.backed(this.walk.gpa)) {
      this.device = READ_DEVICE;
      this.deviceGpa = this.walk.gpa;
    }
    return done;
  }
}

const EMULATOR = new Tool((v) => new Emulator(v));

/** A physical address that no memory is behind; the number of its page has 31 bits, as all that memory looks up. */
const NOWHERE = 2 ** 42;

/** How the emulator reaches memory. */
function viewOf(cpu: Emulator): Paging {
  return {
    translate(_m, _r, lo, hi, access, who, out) {
      if (cpu.waits && access === READ) {
        cpu.waits = false;
        out.gpa = NOWHERE + (lo & 0xfff);
        return true;
      }
      const known = cpu.v.faultGpa;
      const may = access !== FETCH && !movesMemory(cpu.insn);
      if (known >= 0 && may && known % 4096 === (lo & 0xfff)) {
        out.gpa = known;
        return true;
      }
      const gpa = linearToGpa(cpu.v, lo >>> 0, hi >>> 0, access, who === USER);
      if (gpa >= 0) {
        out.gpa = gpa;
        return true;
      }
      out.outcome = WALK_FAULT;
      out.error = walkError(cpu.v);
      return false;
    },
  };
}

/** Whether both operands are in memory, so that the address of a fault may be either's: MOVS, CMPS, PUSH and POP. */
function movesMemory({ opcode, mod, reg }: Instruction): boolean {
  if (opcode === 0x8f || opcode === 0xff && (reg & 7) === 6) return mod !== 3;
  return opcode >= 0xa4 && opcode <= 0xa7;
}

/** Whether it is SGDT or SIDT. */
function storesTable({ insn }: Processor): boolean {
  return insn.opcode === 0x101 && (insn.reg & 7) < 2;
}

/** SSE and MMX instructions that it has: moves of whole registers, by opcode. */
const MOVES: ReadonlySet<number> = new Set([
  ...[0x110, 0x111, 0x128, 0x129, 0x12b, 0x16f, 0x17f, 0x1e7],
]);

/** Whether it is one of the SSE and MMX tables that it lacks. */
function vectorLacking({ opcode, prefixes }: Instruction): boolean {
  const scalar = (prefixes & (PREFIX.repz | PREFIX.repnz)) !== 0;
  if (MOVES.has(opcode)) {
    return scalar && (opcode & 0xf0) < 0x60 || opcode === 0x1e7 && (prefixes & PREFIX.data) === 0;
  }
  return opcode >= 0x110 && opcode <= 0x117 || opcode >= 0x12a && opcode <= 0x12f ||
    opcode >= 0x150 && opcode <= 0x17f || opcode >= 0x1d0 && opcode <= 0x1fe ||
    opcode >= 0x1c4 && opcode <= 0x1c6 || opcode === 0x1c2;
}

/** FNINIT, and FNSTCW and FNSTSW into memory, which are all of the x87 that it has. */
function savesX87({ opcode, mod, modrm, reg }: Instruction): boolean {
  return opcode === 0xdb && modrm === 0xe3 ||
    (opcode === 0xd9 || opcode === 0xdd) && mod !== 3 && (reg & 7) === 7;
}

/** Instructions of the processor model that KVM's emulator lacks, or lacks in protected mode. */
function lacking(cpu: Processor): boolean {
  const { opcode, prefixes, mod, reg, dflag } = cpu.insn;
  if (vectorLacking(cpu.insn)) return true;
  if ((prefixes & PREFIX.vex) !== 0) return true;
  if (opcode >= 0xd8 && opcode <= 0xdf) return !savesX87(cpu.insn);
  switch (opcode) {
    case 0x63:
      return cpu.width !== 64;
    case 0xc8: // Only frames that are not nested.
      return (cpu.insn.imm2 & 31) !== 0;
    case 0x100:
      return (reg & 7) > 3;
    case 0x102:
    case 0x103:
    case 0x1b8:
    case 0x2f6:
      return true;
    case 0x101: // MONITOR, MWAIT, RDTSCP and SVM's have an entry each, which only L1's intercepts use.
      return mod === 3 && (reg & 7) !== 2 && (reg & 7) !== 4 && (reg & 7) !== 6;
    case 0x1c7: // CMPXCHG8B and RDPID.
      return mod === 3 ? (reg & 7) !== 7 || (prefixes & PREFIX.repz) === 0 : dflag === 3;
    case 0x1ae: // FXSAVE, FXRSTOR, CLFLUSH and CLFLUSHOPT.
      return mod === 3 || (reg & 7) > 1 && (reg & 7) !== 7;
    case 0x2f0:
    case 0x2f1:
      return (prefixes & PREFIX.repnz) !== 0;
    case 0x27:
    case 0x37:
    case 0x3f:
    case 0x62:
    case 0x9b:
    case 0xf1:
      return true;
    case 0xcc:
    case 0xcd:
    case 0xcf:
      return cpu.protectedMode && !cpu.vm86;
    case 0xce:
      return cpu.protectedMode && !cpu.vm86 && (cpu.rflags & FLAG.of) !== 0;
    default:
      return false;
  }
}

/**
 * Carries out the instruction at RIP whose bytes are given.
 *
 * @param v The vCPU; its active VMCB holds the guest's state.
 * @param code The bytes.
 * @param count How many there are.
 * @returns {@linkcode GOES_ON}, {@linkcode DEVICE}, {@linkcode UNKNOWN} or {@linkcode LACKING}.
 */
export function emulateAny(v: Vcpu, code: Uint8Array, count: number): number {
  const vmcb = v.vmcb;
  v.copy64(vmcb + S.rax, V.rax);
  v.copy64(vmcb + S.rsp, V.rsp);
  v.copy64(vmcb + S.rip, V.rip);
  begin(v, vmcb);
  return carryOut(v, code, count);
}

/**
 * The memory operand of the instruction at RIP.
 *
 * @param v The vCPU; its active VMCB holds the guest's state.
 * @param code The bytes of the instruction.
 * @param count How many there are.
 * @param size Bytes of the operand, at most 4.
 * @returns It, or -1 where reading it faulted: the exception is queued.
 */
export function memoryOperand(v: Vcpu, code: Uint8Array, count: number, size: number): number {
  const vmcb = v.vmcb, cpu = EMULATOR.of(v);
  v.copy64(vmcb + S.rax, V.rax);
  v.copy64(vmcb + S.rsp, V.rsp);
  v.copy64(vmcb + S.rip, V.rip);
  begin(v, vmcb);
  cpu.code.set(code.subarray(0, Math.min(count, cpu.code.length)));
  decode(cpu.code, count, cpu.width, cpu.insn);
  if (getOperand(cpu, size)) return cpu.lo;
  queueFault(v, cpu);
  return -1;
}

/**
 * Writes as the emulator does.
 *
 * @param size Bytes, at most 4.
 * @param value What it writes.
 * @param linear The linear address.
 * @returns Whether that went well; if not, the exception is queued.
 */
export function store(v: Vcpu, size: number, value: number, linear: bigint): boolean {
  const { vmcb } = v, cpu = EMULATOR.of(v);
  v.copy64(vmcb + S.rax, V.rax);
  v.copy64(vmcb + S.rsp, V.rsp);
  v.copy64(vmcb + S.rip, V.rip);
  begin(v, vmcb);
  cpu.device = NONE;
  const lo = Number(linear & 0xffffffffn), hi = Number(linear >> 32n);
  if (!cpu.write(lo, hi, size, value, 0, cpu.who)) {
    queueFault(v, cpu);
    return false;
  }
  if (cpu.device !== NONE) v.miss("what the emulator writes into a device");
  return true;
}

/** Queues the exception that stopped an instruction. */
function queueFault(v: Vcpu, cpu: Processor): void {
  const page = cpu.vector === VECTOR.PF;
  const payload = page ? BigInt(cpu.cr2Lo >>> 0) | BigInt(cpu.cr2Hi >>> 0) << 32n : NO_PAYLOAD;
  if (page) injectEmulated(v, cpu.errorCode, payload);
  else queueException(v, cpu.vector, hasError(cpu.vector) ? cpu.errorCode : NO_ERROR);
}

/** Takes the mode, the registers and the flags from the VMCB. */
function begin(v: Vcpu, vmcb: number): void {
  v.recorder?.giveUp();
  const cpu = EMULATOR.of(v);
  attach(cpu, v, vmcb, cpu.view);
  loadState(cpu);
  cpu.rflags = rflags(v) | RFLAGS.FIXED;
}

function carryOut(v: Vcpu, code: Uint8Array, count: number): number {
  const cpu = EMULATOR.of(v);
  cpu.device = NONE;
  cpu.code.set(code.subarray(0, Math.min(count, cpu.code.length)));
  if (decode(cpu.code, count, cpu.width, cpu.insn) !== "ok") return UNKNOWN;
  if (lacking(cpu)) return LACKING;
  // CLFLUSH reads what it flushes.
  const flushes = cpu.insn.opcode === 0x1ae && (cpu.insn.reg & 7) === 7;
  const status = flushes && !getOperand(cpu, 1) ? FAULT : execute(cpu);
  // KVM stores these registers as the processor reaches its tables, and never into a device. The
  // emulator takes that for done and goes on where it was.
  if (cpu.device === WROTE_DEVICE && storesTable(cpu)) return GOES_ON;
  if (cpu.device === READ_DEVICE) {
    wait(v, code.slice(0, count));
    return device(v);
  }
  if (status === FAULT) {
    // TR is never in the LDT, which is found before the selector is looked at.
    const { opcode, reg } = cpu.insn;
    if (opcode === 0x100 && (reg & 7) === 3 && (cpu.errorCode & 4) !== 0) cpu.errorCode = 0;
    shadowInterrupts(v);
    queueFault(v, cpu);
    return GOES_ON;
  }
  // A jump to itself is one more entry each time.
  const jumps = cpu.insn.opcode === 0xeb || cpu.insn.opcode === 0xe9;
  if (status !== NEXT && !(status === HALTED && jumps)) return UNKNOWN;
  shadowInterrupts(v);
  writeBack(v);
  return cpu.device === WROTE_DEVICE ? device(v) : GOES_ON;
}

/** What loads SS, or was to, and STI keep interrupts away for one instruction, unless they are already (toggle_interruptibility). */
function shadowInterrupts(v: Vcpu): void {
  const { opcode, reg } = EMULATOR.of(v).insn;
  const shadow = opcode === 0x8e && (reg & 7) === 2 || opcode === 0x17 || opcode === 0xfb;
  const before = (v.u32(v.vmcb + C.int_state) & 1) !== 0;
  if (shadow && !before) v.or32(v.vmcb + C.int_state, 1);
  else if (before) {
    v.clear32(v.vmcb + C.int_state, 1);
    v.requestEvent();
  }
}

/**
 * Goes on with an instruction that waited for a device (complete_emulated_mmio).
 * It is the old instruction with its old operands, whatever userspace has done
 * to the registers since: only what it changes is written.
 *
 * @returns What {@linkcode emulateAny} returns.
 */
export function completeDevice(v: Vcpu, code: Uint8Array): number {
  v.recorder?.giveUp();
  const cpu = EMULATOR.of(v);
  const vmcb = v.vmcb;
  const now = v.bytes.slice(V.rax, V.rax + 128);
  const entered = v.bytes.slice(vmcb, vmcb + VMCB_SIZE);
  const then = v.pendingRegisters;
  const registers = then.slice(0, REGISTERS);
  v.pendingDevice = undefined;
  v.bytes.set(registers, V.rax);
  // Its mode and flags are the old ones, too.
  v.bytes.set(then.subarray(REGISTERS, REGISTERS + VMCB_SIZE), vmcb);
  begin(v, vmcb);
  v.bytes.set(entered, vmcb);
  v.faultGpa = new DataView(then.buffer).getFloat64(REGISTERS + VMCB_SIZE);
  then.fill(0);
  cpu.answered = cpu.waits = true;
  const outcome = carryOut(v, code, code.length);
  cpu.answered = cpu.waits = false;
  v.faultGpa = -1;
  for (let at = 0; at < 128; at++) {
    if (v.u8(V.rax + at) === registers[at]) v.set8(V.rax + at, now[at] as number);
  }
  return outcome;
}

/** Keeps what the instruction goes on with when the device has answered. */
function wait(v: Vcpu, code: Uint8Array): void {
  const { vmcb, pendingRegisters: then } = v;
  v.pendingDevice = code;
  then.set(v.bytes.subarray(V.rax, V.rax + REGISTERS));
  then.set(v.bytes.subarray(vmcb, vmcb + VMCB_SIZE), REGISTERS);
  // KVM remembers where a device was found, but for what it reached through L1's nested page table.
  const found = v.faultGpa < 0 && v.u8(V.walk_mmu) === 0 ? EMULATOR.of(v).deviceGpa : v.faultGpa;
  new DataView(then.buffer).setFloat64(REGISTERS + VMCB_SIZE, found);
}

/** Bytes of the general registers and RIP in the vCPU area. */
const REGISTERS = 136;

function hasError(vector: number): boolean {
  return vector === VECTOR.DF || vector >= VECTOR.TS && vector <= VECTOR.PF;
}

function device(v: Vcpu): number {
  v.result.exit = KVM_EXIT.MMIO;
  return DEVICE;
}

/** The tables' registers, and where the VMCB has their limits and bases. */
const TABLES = [[SEG.gdtr, S.gdtr_limit], [SEG.idtr, S.idtr_limit]] as const;

/** Instructions that load a segment register. */
const LOADS_SEGMENT: ReadonlySet<number> = new Set([
  ...[0x07, 0x17, 0x1f, 0x8e, 0x9a, 0xc4, 0xc5, 0xca, 0xcb, 0xea, 0xff],
  ...[0x1a1, 0x1a9, 0x1b2, 0x1b4, 0x1b5],
]);

function writeBack(v: Vcpu): void {
  const cpu = EMULATOR.of(v);
  v.words.set(cpu.gpr, V.rax >> 2);
  v.set32(V.rip, cpu.ripLo);
  v.set32(V.rip + 4, cpu.ripHi);
  // The others leave the tables alone, which may be another machine state's by now.
  if (cpu.insn.opcode === 0x101) {
    for (const [i, at] of TABLES) {
      v.set32(v.vmcb + at, cpu.limit[i] as number);
      v.set32(v.vmcb + at + 4, cpu.segBase[i * 2] as number);
      v.set32(v.vmcb + at + 8, cpu.segBase[i * 2 + 1] as number);
    }
  }
  if (LOADS_SEGMENT.has(cpu.insn.opcode)) {
    storeSegments(cpu);
    v.set8(v.vmcb + S.cpl, cpu.cpl);
  }
  const flags = cpu.rflags & ~RFLAGS.RF;
  const trap = (rflags(v) & RFLAGS.TF) !== 0;
  if (((flags ^ rflags(v)) & RFLAGS.IF) !== 0) v.requestEvent();
  setRflagsLow(v, flags);
  if (trap) queueException(v, VECTOR.DB, NO_ERROR, 1n << 14n);
}
