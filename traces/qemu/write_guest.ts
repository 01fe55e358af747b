/**
 * Writes the project's demonstration hypervisor to a file, to be booted by hand
 * with QEMU's `-bios`. Or prints the listing of a guest.
 *
 * @module
 */
import { buildGuest, guestListing } from "./guest.ts";
import { DEMO_CODE } from "./demo_guest.ts";
import { MACHINE_CODE } from "./machine_code.ts";

if (import.meta.main) {
  const [what, path] = Deno.args;
  if (what === "demo" && path !== undefined) {
    await Deno.writeFile(path, buildGuest(DEMO_CODE).bytes);
  } else if (what === "list") {
    const text = guestListing(path === "demo" ? DEMO_CODE : MACHINE_CODE);
    await Deno.stdout.write(new TextEncoder().encode(text));
  } else {
    await Deno.stderr.write(
      new TextEncoder().encode("Usage: write_guest.ts demo FILE | list [demo]\n"),
    );
    Deno.exitCode = 2;
  }
}
