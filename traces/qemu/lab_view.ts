/**
 * Registers and vmcb12 in the form of the lab's records.
 *
 * @module
 */
import type { LabState } from "../../codecs/lab/record.ts";
import { wordsOf } from "../../codecs/lab/views.ts";
import { STATE_HEX_KEYS } from "../../codecs/lab/record.ts";
import type { RegisterName, VcpuView } from "./vcpu_view.ts";

const FLAGS: readonly RegisterName[] = ["gif", "guest_mode", "smm"];

/**
 * What a debugger saw, as `pre` or `post` of a record; what it could not see is left out.
 *
 * @param view The registers; undefined when they are gone.
 * @param vmcb12 The page; undefined when it was not read.
 * @returns The state.
 * @example
 * ```ts
 * import { labState, VcpuView } from "@vmtape/vmtape/traces";
 * const state = labState(new VcpuView().set("cr3", 0x1000n), undefined);
 * if (JSON.stringify(state) !== '{"cr3":"1000"}') throw new Error();
 * ```
 */
export function labState(view: VcpuView | undefined, vmcb12: Uint8Array | undefined): LabState {
  const state: Record<string, unknown> = {};
  if (view) {
    for (const key of STATE_HEX_KEYS) put(state, key, view.get(key)?.toString(16));
    const attributes = view.get("cs_attrib");
    const cs = view.get("cs_selector");
    if (attributes !== undefined && cs !== undefined) {
      state.cs = `${cs.toString(16)}/${attributes >> 9n & 1n}/${attributes >> 10n & 1n}`;
    }
    put(state, "ss", view.get("ss_selector")?.toString(16));
    for (const key of FLAGS) {
      const value = view.get(key);
      if (value !== undefined) state[key] = Number(value);
    }
  }
  if (vmcb12) state.vmcb12 = wordsOf(vmcb12);
  return state;
}

function put(state: Record<string, unknown>, key: string, value: string | undefined): void {
  if (value !== undefined) state[key] = value;
}
