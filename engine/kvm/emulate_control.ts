/**
 * Instructions that move control registers, as KVM emulates them.
 *
 * @module
 */
import { V } from "../svm/machine.ts";
import { bytesAtRip, codeWidth, insn } from "./code_at_rip.ts";
import { CR0, CR4, EXIT, INTERCEPT, VECTOR } from "./constants.ts";
import { l1Intercepts } from "./control.ts";
import { setGuestCr0, setGuestCr3, setGuestCr4 } from "./control_registers.ts";
import { memoryOperand } from "./emulate_any.ts";
import { finish, gpr, intercepted, privileged } from "./emulation.ts";
import { queueException } from "./queue.ts";
import { updateDr7 } from "./regs.ts";
import type { Vcpu } from "./vcpu.ts";

/** MOV from a control register. */
export function moveFromCr(v: Vcpu): boolean {
  if (!privileged(v)) return true;
  const source = [V.cr0, -1, V.cr2, V.cr3, V.cr4, -1, -1, -1, V.cr8][insn(v).reg] ?? -1;
  if (source < 0) {
    queueException(v, VECTOR.UD);
    return true;
  }
  if (!intercepted(v, EXIT.READ_CR0 + insn(v).reg)) return true;
  v.copy64(gpr(insn(v).rm), source);
  if (codeWidth(v) !== 64) v.set32(gpr(insn(v).rm) + 4, 0);
  return finish(v, true);
}

/** MOV to a control register. */
export function moveToCr(v: Vcpu): boolean {
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

/** DR6.BD, and the bits of DR6 that tell what trapped. */
const BD = 0x2000, TRAPS = 0xf;
/** DR7.GD. */
const GD = 0x2000;
/** Bits of DR6 and DR7 that can be written, and those that are always set. */
const DR6_WRITABLE = 0x1e80f, DR6_SET = 0xffff0ff0, DR7_WRITABLE = 0xffff2bff, DR7_SET = 0x400;

/** MOV to and from a debug register. */
export function moveDr(v: Vcpu, write: boolean): boolean {
  if (!privileged(v)) return true;
  const { reg, rm } = insn(v), wide = codeWidth(v) === 64;
  const value = wide ? v.u64(gpr(rm)) : v.u64(gpr(rm)) & 0xffffffffn;
  if (write && (reg === 6 || reg === 7) && value >> 32n !== 0n) return finish(v, false);
  const aliased = (reg === 4 || reg === 5) && (v.u32(V.cr4) & CR4.DE) === 0;
  if (reg > 3 && reg !== 6 && reg !== 7 && !aliased) {
    queueException(v, VECTOR.UD);
    return true;
  }
  if ((v.u32(V.dr7) & GD) !== 0) {
    v.set32(V.dr6, v.u32(V.dr6) & ~TRAPS | BD | DR6_SET);
    queueException(v, VECTOR.DB);
    return true;
  }
  if (!intercepted(v, (write ? EXIT.WRITE_DR0 : EXIT.READ_DR0) + reg)) return true;
  const at = reg < 4 ? V.dr0 + 8 * reg : (reg & 1) === 0 ? V.dr6 : V.dr7;
  if (!write) {
    v.copy64(gpr(rm), at);
    return finish(v, true);
  }
  const low = Number(value & 0xffffffffn);
  if (reg < 4) v.set64(at, value);
  else if (value >> 32n !== 0n) return finish(v, false);
  else if (at === V.dr6) v.set32(at, low & DR6_WRITABLE | DR6_SET);
  else {
    v.set32(at, low & DR7_WRITABLE | DR7_SET);
    updateDr7(v);
  }
  return finish(v, true);
}

/** MOV to CR0 may also trigger the intercept of selective writes. */
function selective(v: Vcpu, value: number): number {
  if (l1Intercepts(v, INTERCEPT.CR0_WRITE) || !l1Intercepts(v, INTERCEPT.SELECTIVE_CR0)) {
    return EXIT.WRITE_CR0;
  }
  const keep = ~(CR0.TS | CR0.MP);
  return ((v.u32(V.cr0) ^ value) & keep) !== 0 ? EXIT.CR0_SEL_WRITE : EXIT.WRITE_CR0;
}

/** CLTS. */
export function clearTs(v: Vcpu): boolean {
  if (!privileged(v) || !intercepted(v, EXIT.WRITE_CR0)) return true;
  return finish(v, setGuestCr0(v, BigInt((v.u32(V.cr0) & ~CR0.TS) >>> 0)));
}

/** SMSW to a register. */
export function storeMsw(v: Vcpu): boolean {
  if (!intercepted(v, EXIT.READ_CR0)) return true;
  const to = gpr(insn(v).rm);
  if (insn(v).dflag === 1) v.set16(to, v.u16(V.cr0));
  else {
    v.set32(to, v.u32(V.cr0));
    v.set32(to + 4, 0);
  }
  return finish(v, true);
}

/** LMSW. */
export function loadMsw(v: Vcpu): boolean {
  if (!privileged(v)) return true;
  const sel = l1Intercepts(v, INTERCEPT.CR0_WRITE) || !l1Intercepts(v, INTERCEPT.SELECTIVE_CR0);
  if (!intercepted(v, sel ? EXIT.WRITE_CR0 : EXIT.CR0_SEL_WRITE)) return true;
  const { bytes, fetched } = bytesAtRip(v);
  const source = insn(v).mod === 3 ? v.u32(gpr(insn(v).rm)) : memoryOperand(v, bytes, fetched, 2);
  if (source < 0) return true;
  setGuestCr0(v, BigInt((v.u32(V.cr0) & ~14 | source & 15) >>> 0));
  return finish(v, true);
}
