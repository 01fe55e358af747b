/**
 * Where traces come from: scenarios, random cases, the lab's recordings; and
 * how far two sources agree.
 *
 * @module
 */
export * from "./base.ts";
export * from "./scenario.ts";
export * from "./builtin.ts";
export * from "./random.ts";
export * from "./mutations.ts";
export * from "./generate.ts";
export * from "./lab_import.ts";
export * from "./compare.ts";
export * from "./record.ts";
export {
  type CaseText,
  minimizeCases,
  type Minimized,
  type MinimizeOptions,
  NotReproducedError,
} from "./minimize.ts";
export * from "./qemu/mod.ts";
export * from "./kvm/mod.ts";
