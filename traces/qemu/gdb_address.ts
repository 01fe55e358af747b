/**
 * Addresses of GDB stubs.
 *
 * @module
 */
import { GdbError } from "./gdb_packets.ts";

/** Where a GDB stub listens. */
export type GdbAddress =
  | { readonly transport: "tcp"; readonly hostname: string; readonly port: number }
  | { readonly transport: "unix"; readonly path: string };

/**
 * Takes an address apart: `HOST:PORT`, `:PORT`, `PORT`, or `unix:PATH`.
 *
 * @param text The address, as QEMU's `-gdb` takes it (a leading `tcp:` or `tcp::` is allowed).
 * @returns The address.
 * @throws {GdbError} `refused`, when it is none of these.
 * @example
 * ```ts
 * import { parseGdbAddress } from "@vmtape/vmtape/traces";
 * const address = parseGdbAddress("localhost:1234");
 * if (address.transport !== "tcp" || address.port !== 1234) throw new Error();
 * ```
 */
export function parseGdbAddress(text: string): GdbAddress {
  if (text.startsWith("unix:") && text.length > 5) {
    return { transport: "unix", path: text.slice(5).replace(/,.*$/, "") };
  }
  const match = /^(?:tcp:)?(?:(\[[^\]]+\]|[^:]*):)?(\d{1,5})$/.exec(text);
  const port = Number(match?.[2]);
  if (match === null || port < 1 || port > 65535) {
    throw new GdbError(
      "refused",
      `${JSON.stringify(text)} is not an address; expected HOST:PORT or unix:PATH`,
    );
  }
  const host = (match[1] ?? "").replace(/^\[|\]$/g, "");
  return { transport: "tcp", hostname: host === "" ? "localhost" : host, port };
}

/**
 * An address as text.
 *
 * @param address The address.
 * @returns `HOST:PORT` or `unix:PATH`.
 * @example
 * ```ts
 * import { gdbAddressText, parseGdbAddress } from "@vmtape/vmtape/traces";
 * if (gdbAddressText(parseGdbAddress(":1234")) !== "localhost:1234") throw new Error();
 * ```
 */
export function gdbAddressText(address: GdbAddress): string {
  return address.transport === "unix"
    ? `unix:${address.path}`
    : `${address.hostname}:${address.port}`;
}
