/**
 * Where the fields that the processor uses are, in 32-bit words.
 *
 * @module
 */
import { C, S, V } from "../svm/machine.ts";
import { SAVE_AREA } from "../svm/vmcb_fields.ts";

const word = (offset: number) => offset >> 2;
/** Word offsets of the control area's fields. */
export const CONTROL = {
  crs: word(C.intercept_cr),
  drs: word(C.intercept_dr),
  exceptions: word(C.intercept_exceptions),
  word3: word(C.intercept_word3),
  word4: word(C.intercept_word4),
  asid: word(C.asid),
  intCtl: word(C.int_ctl),
  intVector: word(C.int_vector),
  intState: word(C.int_state),
  exitCode: word(C.exit_code),
  info1: word(C.exit_info_1),
  info2: word(C.exit_info_2),
  exitIntInfo: word(C.exit_int_info),
  eventInj: word(C.event_inj),
  nextRip: word(C.next_rip),
};
/** Word offsets of the save area's fields; `cpl` is a byte offset. */
export const SAVE = {
  segments: word(SAVE_AREA),
  cpl: S.cpl,
  efer: word(S.efer),
  cr4: word(S.cr4),
  cr3: word(S.cr3),
  cr0: word(S.cr0),
  dr7: word(S.dr7),
  dr6: word(S.dr6),
  rflags: word(S.rflags),
  rip: word(S.rip),
  rsp: word(S.rsp),
  rax: word(S.rax),
  cr2: word(S.cr2),
};
/** Word offset of the general registers in the vCPU area. */
export const GPR = word(V.rax);
