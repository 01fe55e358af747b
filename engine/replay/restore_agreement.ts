/**
 * Comparing a restore of nested state with the recording's.
 *
 * @module
 */
import type { EventOf } from "../event.ts";
import { RESTORE_ERRNO_KEYS } from "../restore_errnos.ts";
import { S } from "../svm/machine.ts";
import { VMCB_LAYOUT, VMCB_SIZE } from "../svm/vmcb_fields.ts";
import type { Agreement } from "./agreement.ts";
import type { Driver } from "./drive.ts";

/** Mask of a VMCB without CR3. */
const L1_WITHOUT_CR3 = new Uint8Array(VMCB_SIZE).fill(0xff).fill(0, S.cr3, S.cr3 + 8);

/**
 * Compares what was handed to another machine, and what each ioctl said.
 *
 * @param agreement Compares and counts.
 * @param event What was recorded.
 * @param index Its number in the trace.
 * @param restored What the replay came to.
 * @param npt Whether the hypervisor uses nested paging: with shadow paging L1's CR3 in vmcb01 is its own.
 */
export function compareRestore(
  agreement: Agreement,
  event: EventOf<"restore">,
  index: number,
  restored: NonNullable<Driver["restored"]>,
  npt: boolean,
): void {
  agreement.outcome("restore", () => {
    for (const name of RESTORE_ERRNO_KEYS) {
      agreement.number(index, `restore.${name}`, event[name], restored[name]);
    }
    const { flags, state } = restored.nested;
    agreement.number(index, "restore.flags", event.flags, flags);
    if (state === undefined) return;
    agreement.image(index, "restore.state ", VMCB_LAYOUT, event.state, {
      bytes: state,
      ...(!npt && { known: L1_WITHOUT_CR3 }),
    });
  });
}
