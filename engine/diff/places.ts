/**
 * Where in the machine's bytes the fields of the compared views are.
 *
 * @module
 */
import { MAPPED_AT } from "../svm/machine.ts";
import { type AreaName, AREAS, CACHE_AT } from "./areas.ts";
import type { Place } from "./transitions.ts";

/** Where in the machine's bytes a differing field is, so that its last writer can be found. */
export function placeOf(
  name: AreaName,
  base: number | undefined,
  row: { readonly field: string; readonly offset: number; readonly size: number },
): Place {
  if (base !== undefined) return { at: base + row.offset, size: row.size };
  if (name === "vmcb12") return { at: MAPPED_AT + row.offset, size: row.size };
  const shown = VIEW_PLACES[`${name}.${row.field}`];
  return shown ?? { at: 0, size: 0 };
}

/** Computed fields, and what of the machine they come from. */
const VIEW_PLACES: Readonly<Record<string, Place>> = viewPlaces();

function viewPlaces(): Record<string, Place> {
  const places: Record<string, Place> = {};
  const vcpu = AREAS.find((area) => area.name === "vcpu")?.layout.fields ?? [];
  const at = (name: string) => {
    const field = vcpu.find((row) => row.name === name);
    return field === undefined ? undefined : { at: field.offset, size: field.size };
  };
  const same = ["vmcb12_gpa", "last_vmcb12_gpa", "run_pending", "mmu", "msrpm_recalc", "active"];
  const named: Record<string, string> = {
    "nested.walk": "walk_mmu",
    "nested.cpu_role": "root_cpu_role",
    "nested.root_role": "root_root_role",
    "nested.gcpu_role": "guest_cpu_role",
    "nested.groot_role": "guest_root_role",
    "nested.ncpu_role": "nested_cpu_role",
    "nested.req": "requests",
    "nested.exc_pend": "exception_pending",
    "nested.exc_inj": "exception_injected",
    "nested.exc_vec": "exception_vector",
    "nested.int_inj": "interrupt_injected",
    "nested.nmi_inj": "nmi_injected",
    "nested.nmi_l1l2": "nmi_l1_to_l2",
    "nested.soft": "soft_int_injected",
    "nested.guest_mode": "hflags",
  };
  for (const name of same) named[`nested.${name}`] = name;
  for (const area of AREAS) {
    if (area.name !== "L1") continue;
    for (const field of area.layout.fields) named[`L1.${field.name}`] ??= field.name;
  }
  for (const [key, name] of Object.entries(named)) {
    const place = at(name);
    if (place !== undefined) places[key] = place;
  }
  const vmcb01 = AREAS.find((area) => area.name === "vmcb01");
  const base = vmcb01?.at ?? 0;
  const control = (name: string) =>
    vmcb01?.layout.fields.find((field) => field.name === `control.${name}`)?.offset ?? 0;
  places["nested.gif"] = { at: base + control("int_ctl"), size: 4 };
  places["nested.msrpm01"] = { at: base + control("msrpm_base_pa"), size: 8 };
  const vmcb02 = AREAS.find((area) => area.name === "vmcb02")?.at ?? 0;
  places["nested.ctl_ncr3"] = { at: CACHE_AT + control("nested_cr3"), size: 8 };
  places["nested.msrpm02"] = { at: vmcb02 + control("msrpm_base_pa"), size: 8 };
  return places;
}
