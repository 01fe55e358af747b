/**
 * What KVM does about #UD, which it intercepts: the few instructions that it carries out although
 * the processor does not know them.
 *
 * @module
 */
import { PREFIX } from "../cpu/decode.ts";
import { trackWrite } from "../paging/shadow_pages.ts";
import { linearToGpa } from "../paging/translate.ts";
import { walkError } from "../paging/vcpu_walk.ts";
import { WRITE } from "../paging/walk.ts";
import { C, S, V, VMCB01_AT } from "../svm/machine.ts";
import { canonical, fetch, insn, protectedCode, user } from "./code_at_rip.ts";
import { EXIT, RFLAGS, VECTOR } from "./constants.ts";
import { intercepted, privileged } from "./emulation.ts";
import { injectGp, queueException } from "./queue.ts";
import { rflags, setRflagsLow } from "./regs.ts";
import { setSegment } from "./segments.ts";
import type { Vcpu } from "./vcpu.ts";

/** VMCALL and VMMCALL, by ModRM of 0F 01. */
const VMCALL = 0xc1, VMMCALL = 0xd9;
/** Opcode after 0F. */
const SYSEXIT = 0x135;

/**
 * #UD, which KVM intercepts: it patches VMCALL to VMMCALL, in the guest's code, and lets the guest
 * repeat it; so too a VMMCALL that was no intercept, again and again (handle_ud, em_hypercall).
 *
 * @returns Whether the guest goes on.
 */
export function emulateUndefined(v: Vcpu): boolean {
  // Where the code cannot be read, it is undefined all the same.
  if (!fetch(v, true)) {
    queueException(v, VECTOR.UD);
    return true;
  }
  const { opcode, modrm } = insn(v);
  if (opcode === SYSEXIT) {
    emulateSysexit(v);
    return true;
  }
  const known = opcode === 0x101 && (modrm === VMCALL || modrm === VMMCALL && protectedCode(v));
  if (!known) queueException(v, VECTOR.UD);
  else if (modrm === VMCALL ? privileged(v) : intercepted(v, EXIT.VMMCALL)) patchHypercall(v);
  return true;
}

/**
 * SYSEXIT where the processor has none, which is in long mode (em_sysexit): it leads to CPL 3, with
 * REX.W into 64-bit code.
 */
function emulateSysexit(v: Vcpu): void {
  if ((insn(v).prefixes & PREFIX.lock) !== 0) {
    queueException(v, VECTOR.UD);
    return;
  }
  if (!privileged(v)) return;
  const wide = insn(v).dflag === 3;
  const selector = v.u32(VMCB01_AT + S.sysenter_cs);
  const [sp, ip] = [v.u64(V.rcx), v.u64(V.rdx)];
  const legal = (address: bigint) => canonical(v, Number(address >> 32n));
  const none = wide ? selector === 0 || !legal(sp) || !legal(ip) : (selector & 0xfffc) === 0;
  if (!protectedCode(v) || none) {
    injectGp(v);
    return;
  }
  const cs = (selector + (wide ? 32 : 16) | 3) & 0xffff;
  const ss = ((wide ? cs + 8 : selector + 24) | 3) & 0xffff;
  setSegment(v, "cs", cs, wide ? 0xafb : 0xcfb, 0xffffffff, 0n);
  setSegment(v, "ss", ss, 0xcf3, 0xffffffff, 0n);
  v.set64(V.rsp, wide ? sp : sp & 0xffffffffn);
  v.set64(V.rip, wide ? ip : ip & 0xffffffffn);
  v.clear32(v.vmcb + C.int_state, 1);
  setRflagsLow(v, rflags(v) & ~RFLAGS.RF);
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
