/**
 * The keys of the lab's records, each list in the lab's order: what reads, prints, compares or
 * turns records into events takes its keys from here.
 *
 * @module
 */
import { RESTORE_ERRNO_KEYS } from "../../engine/restore_errnos.ts";
import { SAVE_AREA, VMCB_SIZE } from "../../engine/svm/vmcb_fields.ts";

/** Keys of `nested` in the lab's order. */
export const NESTED_KEYS = [
  "ret",
  "guest_mode",
  "active",
  "vmcb12_gpa",
  "last_vmcb12_gpa",
  "ctl_ncr3",
  "run_pending",
  "gif",
  "mmu",
  "walk",
  "msrpm01",
  "msrpm02",
  "msrpm_recalc",
] as const;

/** Keys of `cpu` in the lab's order. */
export const CPU_KEYS = [
  "cr0",
  "cr3",
  "cr4",
  "efer",
  "rip",
  "rax",
  "rsp",
  "rflags",
  // Of kernels up to 6.12: cpu_role, gcpu_role, ncpu_role; of 7.3: gva_role, ngpa_role, pdptrs_user.
  "cpu_role",
  "gva_role",
  "root_role",
  "gcpu_role",
  "ngpa_role",
  "groot_role",
  "ncpu_role",
  "pdptrs_user",
  "req",
  "exc_pend",
  "exc_inj",
  "exc_vec",
  "int_inj",
  "nmi_inj",
  "nmi_l1l2",
  "soft",
  "hflags",
] as const;

/** Word maps of an inner state in the lab's order: of which VMCB, and from where how many bytes. */
export const AREAS = {
  ctl01: { vmcb: "vmcb01", from: 0, size: SAVE_AREA },
  sav01: { vmcb: "vmcb01", from: SAVE_AREA, size: VMCB_SIZE - SAVE_AREA },
  ctl02: { vmcb: "vmcb02", from: 0, size: SAVE_AREA },
  sav02: { vmcb: "vmcb02", from: SAVE_AREA, size: VMCB_SIZE - SAVE_AREA },
} as const;

/** Their keys. */
export const AREA_KEYS = ["ctl01", "sav01", "ctl02", "sav02"] as const;

/** Keys of `pre`, `mid`, `smm` and `post` that hold hexadecimal numbers, in the lab's order. */
export const STATE_HEX_KEYS = [
  "rip",
  "rax",
  "rsp",
  "rflags",
  "cr0",
  "cr2",
  "cr3",
  "cr4",
  "efer",
  "dr6",
  "dr7",
] as const;

/** Keys of the same that hold plain numbers. */
export const STATE_FLAG_KEYS = ["gif", "guest_mode", "run_pending", "smm", "trip"] as const;

/** The points of a case at which userspace looked, in order. */
export const PHASES = ["pre", "mid", "smm", "restored", "post"] as const;

/**
 * Keys of the same that hold one value each, in the lab's order: {@linkcode STATE_HEX_KEYS},
 * {@linkcode STATE_FLAG_KEYS} and those with a form of their own.
 */
export const STATE_VALUE_KEYS = [
  ...STATE_HEX_KEYS,
  "cs",
  "ss",
  ...STATE_FLAG_KEYS,
  "vmcb_pa",
  "ev_exc",
  "ev_int",
  "ev_nmi",
  "rc",
  "errno",
  "exit",
  "suberr",
  "port",
] as const;

/** Keys of the same that hold words of memory, in the lab's order. */
export const STATE_WORD_KEYS = ["vmcb12", "hsave", "smram"] as const;

/** All keys of the same in the lab's order. */
export const STATE_KEYS = [...STATE_VALUE_KEYS, ...STATE_WORD_KEYS, "setup_errors"] as const;

/** Keys of an inner state in the lab's order. */
export const INNER_KEYS = ["at", "nested", "cpu", ...AREA_KEYS] as const;

export { RESTORE_ERRNO_KEYS };

/** Keys of a record in the lab's order. */
export const RECORD_KEYS = [
  "case",
  "spec",
  "kernel",
  "npt",
  "partial",
  "sees",
  "looked",
  "events",
  "pre",
  "mid",
  "smm",
  "setstate",
  "migrate",
  "restored",
  "post",
  "warnings",
] as const;

/** Keys of `migrate` that hold the errno of an ioctl: those that read state, then those that restore it. */
export const SAVE_ERRNO_KEYS = { errno: "get_errno", sregs_errno: "get_sregs_errno" } as const;

/** Keys of `migrate` in the lab's order. */
export const MIGRATE_KEYS = [
  SAVE_ERRNO_KEYS.errno,
  SAVE_ERRNO_KEYS.sregs_errno,
  "flags",
  ...RESTORE_ERRNO_KEYS,
  "state",
] as const;
