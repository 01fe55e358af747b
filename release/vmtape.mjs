#!/usr/bin/env node
// Starts the program with the Deno that this package depends on, and with no more permissions than
// its commands need. VMTAPE_ALLOW=ffi adds the C library, which `record kvm` calls.
import { spawn } from "node:child_process";
import { createRequire } from "node:module";
import { constants } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const require = createRequire(import.meta.url);
const manifest = require.resolve("deno/package.json");
const { bin } = require(manifest);
const deno = join(dirname(manifest), typeof bin === "string" ? bin : bin.deno);
const program = join(dirname(fileURLToPath(import.meta.url)), "vmtape.js");
const { permissions } = require("./package.json").vmtape;
const more = process.env.VMTAPE_ALLOW === "ffi" ? ["--allow-ffi"] : [];
const args = ["run", "-q", "--no-config", ...permissions, ...more, program];
const child = spawn(process.execPath, [deno, ...args, ...process.argv.slice(2)], {
  stdio: "inherit",
});
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) process.on(signal, () => child.kill(signal));
child.on("exit", (code, signal) => process.exit(code ?? 128 + (constants.signals[signal] ?? 0)));
