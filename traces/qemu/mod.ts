/**
 * Recording from QEMU: a client of its GDB stub, a recorder that follows the
 * nested transitions of any guest, and a guest of our own that runs scenarios on QEMU's SVM.
 *
 * @module
 */
export * from "./gdb_packets.ts";
export * from "./gdb_registers.ts";
export * from "./gdb_address.ts";
export type { GdbOptions, GdbStop, GdbTransport } from "./gdb_connection.ts";
export * from "./gdb_client.ts";
export * from "./process.ts";
export * from "./vcpu_view.ts";
export * from "./vmrun.ts";
export * from "./page_walk.ts";
export * from "./l2_handler.ts";
export { inMemory, type MemoryRegion, parseMemoryMap } from "./memory_map.ts";
export type { VmrunSite } from "./follower.ts";
export * from "./time_share.ts";
export * from "./recorder.ts";
export * from "./launch.ts";
export * from "./machine_code.ts";
export * from "./guest.ts";
export * from "./demo_guest.ts";
export * from "./scenario_recorder.ts";
export * from "./findings.ts";
