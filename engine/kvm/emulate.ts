/**
 * KVM's instruction emulator, as far as exits need it: decoding to skip an
 * instruction, and the few instructions it carries out itself.
 *
 * @module
 */
import { C, S, V } from "../svm/machine.ts";
import { type CodeWidth, decode, Instruction, PREFIX } from "../cpu/decode.ts";
import { CR0, CR4, EXIT, INTERCEPT, KVM_EXIT, REQ, RFLAGS, VECTOR } from "./constants.ts";
import { setGuestCr0, setGuestCr3, setGuestCr4 } from "./control_registers.ts";
import { clearExceptions, injectGp, linearRip, NO_ERROR, queueException } from "./queue.ts";
import { l1Intercepts } from "./control.ts";
import { rflags, setRflagsLow } from "./regs.ts";
import { DEVICE, emulateAny, GOES_ON } from "./emulate_any.ts";
import { forL1 } from "./exit_owner.ts";
import { IMPOSSIBLE, leaveSmm, LEFT } from "./smm.ts";
import { addressRegister, FAULTED, IN_DEVICE, moveRegister, readSource } from "./string_operand.ts";
import { Tool, type Vcpu } from "./vcpu.ts";
import { nestedVmexit } from "./vmexit.ts";
import { trackWrite } from "../paging/shadow_pages.ts";
import { FETCH, WRITE } from "../paging/walk.ts";
import { linearToGpa } from "../paging/translate.ts";
import { walkError } from "../paging/vcpu_walk.ts";

/** The instruction at RIP. */
class Code {
  readonly insn = new Instruction();
  readonly bytes = new Uint8Array(15);
  /** How many of them could be read. */
  fetched = 0;
}

const CODE = new Tool(() => new Code());

function insn(v: Vcpu): Instruction {
  return CODE.of(v).insn;
}

/** Width of the code that the emulator takes the guest to run (init_emulate_ctxt). */
function codeWidth(v: Vcpu): CodeWidth {
  if ((v.u32(V.cr0) & CR0.PE) === 0) return 16;
  if ((rflags(v) & RFLAGS.VM) !== 0) return 16;
  const attrib = v.u16(v.vmcb + S.cs_attrib);
  if ((attrib & 0x200) !== 0 && v.longMode) return 64;
  return (attrib & 0x400) !== 0 ? 32 : 16;
}

function protectedCode(v: Vcpu): boolean {
  return (v.u32(V.cr0) & CR0.PE) !== 0 && (rflags(v) & RFLAGS.VM) === 0;
}

function user(v: Vcpu): boolean {
  return v.u8(v.vmcb + S.cpl) === 3;
}

/** Whether an address has its upper bits all alike. */
function canonical(v: Vcpu, hi: number): boolean {
  const top = (hi | 0) >> ((v.u32(V.cr4) & CR4.LA57) !== 0 ? 24 : 15);
  return top === 0 || top === -1;
}

/**
 * Reads and decodes the instruction at RIP, a second page only where it is needed.
 *
 * @param quiet Whether a failure queues nothing, rather than #PF or #GP.
 * @returns Whether it could be read.
 */
function fetch(v: Vcpu, quiet: boolean): boolean {
  const width = codeWidth(v);
  const base = width === 64 ? 0 : v.u32(v.vmcb + S.cs_base);
  let lo = base + v.u32(V.rip) >>> 0;
  let hi = width === 64 ? v.u32(V.rip + 4) : 0;
  const beyond = v.u32(V.rip + 4) !== 0 || v.u32(V.rip) > v.u32(v.vmcb + S.cs_limit);
  if (width !== 64 && beyond) {
    if (!quiet) injectGp(v);
    return false;
  }
  const code = CODE.of(v);
  const { bytes } = code;
  for (code.fetched = 0;;) {
    if (width === 64 && !canonical(v, hi)) {
      if (!quiet) injectGp(v);
      return false;
    }
    const gpa = linearToGpa(v, lo, hi, FETCH, user(v));
    if (gpa < 0) {
      const address = BigInt(lo) | BigInt(hi) << 32n;
      if (!quiet) queueException(v, VECTOR.PF, walkError(v), address);
      return false;
    }
    if (!v.memory.backed(gpa)) return false;
    const page = v.memory.page(gpa);
    const at = gpa % 4096;
    const end = Math.min(15, code.fetched + 4096 - at);
    for (let i = at; code.fetched < end; i++) bytes[code.fetched++] = page[i] as number;
    if (decode(bytes, code.fetched, width, code.insn) === "ok") return true;
    if (code.fetched === 15) return false;
    lo = (lo | 0xfff) + 1;
    if (lo === 0x1_0000_0000) {
      lo = 0;
      hi = width === 64 ? hi + 1 >>> 0 : 0;
    }
  }
}

/** Whether the guest's code at RIP was decoded. */
export function decodeAtRip(v: Vcpu): boolean {
  return fetch(v, true);
}

function advance(v: Vcpu): void {
  const width = codeWidth(v);
  const next = v.u64(V.rip) + BigInt(insn(v).length);
  v.set64(V.rip, width === 64 ? next : next & 0xffffffffn);
}

/** Leaves KVM_RUN because KVM could not emulate. */
export function emulationFailure(v: Vcpu, skipping: boolean): boolean {
  if (!skipping) {
    queueException(v, VECTOR.UD);
    if (v.guestMode || v.u8(v.vmcb + S.cpl) !== 0) return true;
  }
  v.result.exit = KVM_EXIT.INTERNAL_ERROR;
  return false;
}

/**
 * Moves RIP past the instruction that exited (kvm_skip_emulated_instruction):
 * by the address the processor gave, or by decoding it.
 *
 * @returns Whether the guest goes on.
 */
export function skipInstruction(v: Vcpu): boolean {
  const flags = rflags(v);
  if (!skipOnly(v)) return false;
  v.clear32(v.vmcb + C.int_state, 1);
  if ((flags & RFLAGS.TF) !== 0) queueException(v, VECTOR.DB, NO_ERROR, 1n << 14n);
  return true;
}

/** Moves RIP past the instruction, and nothing else (skip_emulated_instruction). */
export function skipOnly(v: Vcpu): boolean {
  if (v.u64(V.next_rip) !== 0n) {
    v.copy64(V.rip, V.next_rip);
    return true;
  }
  clearExceptions(v);
  if (!fetch(v, true)) return emulationFailure(v, true);
  advance(v);
  const flags = rflags(v);
  if ((flags & RFLAGS.RF) !== 0) {
    setRflagsLow(v, flags & ~RFLAGS.RF);
    v.requestEvent();
  }
  return true;
}

/**
 * Before KVM injects a software interrupt without NextRIP it moves RIP past
 * the instruction itself (svm_update_soft_interrupt_rip).
 *
 * @returns Whether that was possible; if not, the event is dropped.
 */
export function skipSoftInterrupt(v: Vcpu, vector: number): boolean {
  const before = v.u64(V.rip);
  if (v.u64(V.next_rip) !== 0n) {
    v.copy64(V.rip, V.next_rip);
  } else {
    clearExceptions(v);
    if (!fetch(v, true) || !isSoftInstruction(v, vector)) return false;
    advance(v);
    if ((rflags(v) & RFLAGS.RF) !== 0) {
      setRflagsLow(v, rflags(v) & ~RFLAGS.RF);
      v.requestEvent();
    }
  }
  v.clear32(v.vmcb + C.int_state, 1);
  v.set8(V.soft_int_injected, 1);
  v.copy64(V.soft_int_csbase, v.vmcb + S.cs_base);
  v.set64(V.soft_int_old_rip, before);
  v.copy64(V.soft_int_next_rip, V.rip);
  return true;
}

function isSoftInstruction(v: Vcpu, vector: number): boolean {
  switch (insn(v).opcode) {
    case 0xcc:
      return vector === 3;
    case 0xcd:
      return vector === (insn(v).imm & 0xff);
    case 0xce:
      return vector === 4;
    default:
      return false;
  }
}

/**
 * Emulates the instruction that exited.
 *
 * @returns Whether the guest goes on; if not, the result says why.
 */
export function emulateInstruction(v: Vcpu): boolean {
  clearExceptions(v);
  if (!fetch(v, false)) {
    if (v.u8(V.exception_pending) !== 0 || v.u8(V.vmexit_pending) !== 0) return true;
    return emulationFailure(v, false);
  }
  switch (insn(v).opcode) {
    case 0x120:
      return moveFromCr(v);
    case 0x122:
      return moveToCr(v);
    case 0x106:
      if (!privileged(v) || !intercepted(v, EXIT.WRITE_CR0)) return true;
      return finish(v, setGuestCr0(v, BigInt((v.u32(V.cr0) & ~CR0.TS) >>> 0)));
    case 0x100:
      return table(v, TABLE_EXITS[6]);
    case 0x101:
      return group7(v);
    case 0x1aa:
      return emulateRsm(v);
    default:
      return emulateOther(v);
  }
}

/** Exit codes of instructions that L1 may intercept, for the emulator's own check of L1's intercepts. */
const OPCODE_EXITS: ReadonlyMap<number, number> = new Map([
  [0x9c, EXIT.PUSHF],
  [0x9d, EXIT.POPF],
  [0xcd, EXIT.SWINT],
  [0xcf, EXIT.IRET],
  [0xf1, EXIT.ICEBP],
  [0xf4, EXIT.HLT],
  [0x108, EXIT.INVD],
  [0x109, EXIT.WBINVD],
  [0x130, EXIT.MSR],
  [0x131, EXIT.RDTSC],
  [0x132, EXIT.MSR],
  [0x133, EXIT.RDPMC],
  [0x1a2, EXIT.CPUID],
]);

/** The same for the instructions of 0F 01 with a register operand. */
const GROUP_EXITS: ReadonlyMap<number, number> = new Map([
  [0xc8, EXIT.MONITOR],
  [0xc9, EXIT.MWAIT],
  [0xd1, EXIT.XSETBV],
  [0xd8, EXIT.VMRUN],
  [0xd9, EXIT.VMMCALL],
  [0xda, EXIT.VMLOAD],
  [0xdb, EXIT.VMSAVE],
  [0xdc, EXIT.STGI],
  [0xdd, EXIT.CLGI],
  [0xde, EXIT.SKINIT],
  [0xdf, EXIT.INVLPGA],
  [0xf9, EXIT.RDTSCP],
]);

/** An instruction that KVM was not meant to emulate: L1's intercepts come first (svm_check_intercept). */
function emulateOther(v: Vcpu): boolean {
  const code = insn(v).opcode === 0x101
    ? GROUP_EXITS.get(insn(v).modrm)
    : OPCODE_EXITS.get(insn(v).opcode);
  if (insn(v).opcode === 0x101 && insn(v).modrm >= 0xd8 && insn(v).modrm <= 0xdf) {
    // The emulator takes SVM's instructions for protected mode's; all but VMMCALL are privileged.
    if (codeWidth(v) === 16 && !protectedCode(v)) {
      queueException(v, VECTOR.UD);
      return true;
    }
    if (insn(v).modrm !== 0xd9 && !privileged(v)) return true;
  }
  if (PORTS.has(insn(v).opcode)) return portIo(v);
  if (code === EXIT.MSR && v.guestMode) {
    v.set64(v.vmcb + C.exit_info_1, insn(v).opcode === 0x130 ? 1n : 0n);
  }
  if (code !== undefined && !intercepted(v, code)) return true;
  return carryOut(v);
}

/** IN and OUT, and their string forms. */
const PORTS: ReadonlySet<number> = new Set([
  0x6c,
  0x6d,
  0x6e,
  0x6f,
  0xe4,
  0xe5,
  0xe6,
  0xe7,
  0xec,
  0xed,
  0xee,
  0xef,
]);

/**
 * A port access that KVM emulates. OUT is over when userspace hears of it, IN
 * waits for the value. EXITINFO2 is the address of the instruction itself.
 */
function portIo(v: Vcpu): boolean {
  const opcode = insn(v).opcode;
  const string = opcode < 0x70;
  const out = (opcode & 2) !== 0;
  const port = string || opcode >= 0xe8 ? v.u32(V.rdx) & 0xffff : insn(v).imm & 0xff;
  const size = (opcode & 1) === 0 ? 1 : insn(v).dflag === 1 ? 2 : 4;
  const iopl = rflags(v) >> 12 & 3;
  if (v.u8(v.vmcb + S.cpl) > iopl && protectedCode(v)) {
    injectGp(v);
    return true;
  }
  if (v.guestMode) {
    const repeated = (insn(v).prefixes & (PREFIX.repz | PREFIX.repnz)) !== 0;
    const info = port << 16 | size << 4 | 1 << insn(v).aflag + 6 | (out ? 0 : 1) |
      (string ? 4 : 0) |
      (repeated ? 8 : 0);
    v.set64(v.vmcb + C.exit_info_1, BigInt(info >>> 0));
    v.copy64(v.vmcb + C.exit_info_2, V.rip);
    if (!intercepted(v, EXIT.IOIO)) return true;
  }
  if (string) return out ? outString(v, port, size) : unmodelled(v, "INS");
  v.result.exit = KVM_EXIT.IO;
  v.result.port = port;
  if (out) finish(v, true, false);
  else v.pendingIo = linearRip(v);
  return false;
}

/** OUTS: one piece, and with REP the instruction again until RCX is 0. */
function outString(v: Vcpu, port: number, size: number): boolean {
  const { prefixes, aflag } = insn(v);
  const repeated = (prefixes & (PREFIX.repz | PREFIX.repnz)) !== 0;
  if (repeated && addressRegister(v, V.rcx, aflag) === 0n) return finish(v, true);
  const operand = readSource(v, insn(v), size, codeWidth(v) === 64);
  if (operand === FAULTED) return true;
  if (operand === IN_DEVICE) return unmodelled(v, "OUTS from a device");
  v.result.exit = KVM_EXIT.IO;
  v.result.port = port;
  moveRegister(v, V.rsi, aflag, (rflags(v) & RFLAGS.DF) !== 0 ? -size : size);
  if (repeated) moveRegister(v, V.rcx, aflag, -1);
  if (!repeated || addressRegister(v, V.rcx, aflag) === 0n) finish(v, true, false);
  else setRflagsLow(v, rflags(v) | RFLAGS.RF);
  return false;
}

/** CPL 0 or #GP; when false the emulation is over and the guest goes on. */
function privileged(v: Vcpu): boolean {
  if (v.u8(v.vmcb + S.cpl) === 0) return true;
  injectGp(v);
  return false;
}

/** Whether L1 does not take this instruction over. */
function intercepted(v: Vcpu, code: number): boolean {
  if (!v.guestMode) return true;
  v.set32(v.vmcb + C.exit_code, code);
  v.set32(v.vmcb + C.exit_code_hi, 0);
  if (!forL1(v, code)) return true;
  nestedVmexit(v);
  return false;
}

/** The instruction is over, or was refused with #GP; a single step traps unless userspace comes first. */
function finish(v: Vcpu, ok: boolean, traps = true): boolean {
  if (!ok) {
    injectGp(v);
    return true;
  }
  advance(v);
  v.clear32(v.vmcb + C.int_state, 1);
  const flags = rflags(v);
  if (traps && (flags & RFLAGS.TF) !== 0) queueException(v, VECTOR.DB, NO_ERROR, 1n << 14n);
  setRflagsLow(v, flags & ~RFLAGS.RF);
  return true;
}

function gpr(index: number): number {
  return V.rax + index * 8;
}

function moveFromCr(v: Vcpu): boolean {
  if (!privileged(v)) return true;
  if (!intercepted(v, EXIT.READ_CR0 + insn(v).reg)) return true;
  const source = [V.cr0, -1, V.cr2, V.cr3, V.cr4, -1, -1, -1, V.cr8][insn(v).reg] ?? -1;
  if (source < 0) {
    queueException(v, VECTOR.UD);
    return true;
  }
  v.copy64(gpr(insn(v).rm), source);
  if (codeWidth(v) !== 64) v.set32(gpr(insn(v).rm) + 4, 0);
  return finish(v, true);
}

function moveToCr(v: Vcpu): boolean {
  if (!privileged(v)) return true;
  const value = v.u64(gpr(insn(v).rm));
  const wide = codeWidth(v) === 64 ? value : value & 0xffffffffn;
  let code = EXIT.WRITE_CR0 + insn(v).reg;
  if (insn(v).reg === 0 && v.guestMode) code = selective(v, Number(wide & 0xffffffffn));
  if (!intercepted(v, code)) return true;
  switch (insn(v).reg) {
    case 0:
      return finish(v, setGuestCr0(v, wide));
    case 2:
      v.set64(V.cr2, wide);
      return finish(v, true);
    case 3:
      return finish(v, setGuestCr3(v, wide));
    case 4:
      return finish(v, setGuestCr4(v, wide));
    case 8:
      if (wide >> 4n !== 0n) return finish(v, false);
      v.set64(V.cr8, wide);
      return finish(v, true);
    default:
      queueException(v, VECTOR.UD);
      return true;
  }
}

/** MOV to CR0 may also trigger the intercept of selective writes. */
function selective(v: Vcpu, value: number): number {
  if (l1Intercepts(v, INTERCEPT.CR0_WRITE) || !l1Intercepts(v, INTERCEPT.SELECTIVE_CR0)) {
    return EXIT.WRITE_CR0;
  }
  const keep = ~(CR0.TS | CR0.MP);
  return ((v.u32(V.cr0) ^ value) & keep) !== 0 ? EXIT.CR0_SEL_WRITE : EXIT.WRITE_CR0;
}

/** Exits of the instructions that store and load descriptor tables, by ModRM.reg of 0F 00 and 0F 01. */
const TABLE_EXITS = {
  6: [EXIT.LDTR_READ, EXIT.TR_READ, EXIT.LDTR_WRITE, EXIT.TR_WRITE],
  7: [EXIT.GDTR_READ, EXIT.IDTR_READ, EXIT.GDTR_WRITE, EXIT.IDTR_WRITE],
} as const;

/** SLDT, STR, SGDT, SIDT and their loads. */
function table(v: Vcpu, exits: readonly number[]): boolean {
  const operand = insn(v).reg & 7;
  const code = exits[operand];
  if (code === undefined) return carryOut(v);
  if (operand > 1 && !privileged(v)) return true;
  return intercepted(v, code) ? carryOut(v) : true;
}

/** Carries out an instruction that needs nothing of KVM's own; what the emulator lacks is a failure. */
function carryOut(v: Vcpu): boolean {
  const { bytes, fetched } = CODE.of(v);
  const outcome = emulateAny(v, bytes, fetched);
  if (outcome === GOES_ON) return true;
  if (outcome === DEVICE) return false;
  v.miss(`emulation of opcode ${insn(v).opcode.toString(16)}`);
  return emulationFailure(v, false);
}

function group7(v: Vcpu): boolean {
  if (GROUP_EXITS.has(insn(v).modrm)) return emulateOther(v);
  const operand = insn(v).reg & 7;
  if (operand < 4 && insn(v).mod !== 3) return table(v, TABLE_EXITS[7]);
  if (operand === 4) {
    if (!intercepted(v, EXIT.READ_CR0)) return true;
    if (insn(v).mod !== 3) return unmodelled(v, "smsw to memory");
    v.set32(gpr(insn(v).rm), v.u32(V.cr0));
    v.set32(gpr(insn(v).rm) + 4, 0);
    return finish(v, true);
  }
  if (operand === 6) {
    if (!privileged(v)) return true;
    if (insn(v).mod !== 3) return unmodelled(v, "lmsw from memory");
    const sel = l1Intercepts(v, INTERCEPT.CR0_WRITE) || !l1Intercepts(v, INTERCEPT.SELECTIVE_CR0);
    if (!intercepted(v, sel ? EXIT.WRITE_CR0 : EXIT.CR0_SEL_WRITE)) return true;
    const word = v.u32(gpr(insn(v).rm)) & 15;
    setGuestCr0(v, BigInt((v.u32(V.cr0) & ~14 | word) >>> 0));
    return finish(v, true);
  }
  if (operand === 7 && insn(v).mod !== 3) {
    if (!privileged(v)) return true;
    if (!intercepted(v, EXIT.INVLPG)) return true;
    return finish(v, true);
  }
  return unmodelled(v, "group 7");
}

function unmodelled(v: Vcpu, what: string): boolean {
  v.miss(`emulation of ${what}`);
  return emulationFailure(v, false);
}

/** VMCALL and VMMCALL, by ModRM of 0F 01. */
const VMCALL = 0xc1, VMMCALL = 0xd9;

/**
 * #UD, which KVM intercepts: it patches VMCALL to VMMCALL, in the guest's code, and lets the guest
 * repeat it; so too a VMMCALL that was no intercept, again and again (handle_ud, em_hypercall).
 *
 * @returns Whether the guest goes on.
 */
export function emulateUndefined(v: Vcpu): boolean {
  if (!fetch(v, false)) {
    const queued = v.u8(V.exception_pending) !== 0 || v.u8(V.vmexit_pending) !== 0;
    if (!queued) queueException(v, VECTOR.UD);
    return true;
  }
  const { opcode, modrm } = insn(v);
  const known = opcode === 0x101 && (modrm === VMCALL || modrm === VMMCALL && protectedCode(v));
  if (!known) queueException(v, VECTOR.UD);
  else if (modrm === VMCALL ? privileged(v) : intercepted(v, EXIT.VMMCALL)) patchHypercall(v);
  return true;
}

/** Writes VMMCALL at RIP, which KVM takes for a linear address (emulator_fix_hypercall). */
function patchHypercall(v: Vcpu): void {
  for (const [i, byte] of [0x0f, 0x01, VMMCALL].entries()) {
    const address = BigInt.asUintN(64, v.u64(V.rip) + BigInt(i));
    const lo = Number(address & 0xffffffffn), hi = Number(address >> 32n);
    const gpa = linearToGpa(v, lo, hi, WRITE, user(v));
    if (gpa < 0) {
      queueException(v, VECTOR.PF, walkError(v), address);
      return;
    }
    if (!v.memory.backed(gpa)) {
      v.miss("a hypercall in device memory");
      return;
    }
    v.memory.write8(gpa, byte);
    trackWrite(v, gpa, 1);
  }
}

/** RSM (em_rsm): the state save area decides where it leads; a failure is a triple fault. */
export function emulateRsm(v: Vcpu): boolean {
  if (!intercepted(v, EXIT.RSM)) return true;
  if (!v.smm) {
    queueException(v, VECTOR.UD);
    return true;
  }
  const left = leaveSmm(v);
  if (left !== LEFT) v.request(REQ.TRIPLE_FAULT);
  // Real mode with long mode active cannot be: the emulator gives the instruction up.
  return left === IMPOSSIBLE ? emulationFailure(v, false) : true;
}
