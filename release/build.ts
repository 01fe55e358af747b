/**
 * Builds what is released: `dist/vmtape.js`, the program and the library in one file, and
 * `dist/npm`, the package for npm, whose command brings Deno along.
 *
 *     deno task release [install]
 *
 * With `install`, the command `vmtape` is installed from the file, with the permissions of the task.
 *
 * @module
 */
import config from "../deno.json" with { type: "json" };

const ROOT = new URL("../", import.meta.url);
const DIST = new URL("dist/", ROOT);
const NPM = new URL("npm/", DIST);

/** Permissions of the task `vmtape`, and what its threads need; the working directory is the user's. */
export const FLAGS: readonly string[] = [
  "--no-prompt",
  "--unstable-worker-options",
  ...config.tasks.vmtape.command.split(" ").filter((word) => /^--(allow|deny)-/.test(word)),
];

async function deno(args: readonly string[]): Promise<void> {
  const { code, stderr } = await new Deno.Command(Deno.execPath(), {
    args: [...args],
    cwd: ROOT,
    stdout: "inherit",
    stderr: "piped",
  }).output();
  if (code !== 0) throw new Error(`deno ${args[0]} failed: ${new TextDecoder().decode(stderr)}`);
}

/** Builds `dist/vmtape.js`. */
async function bundle(): Promise<URL> {
  const file = new URL("vmtape.js", DIST);
  await deno(["bundle", "-q", "--platform", "deno", "-o", file.pathname, "cli/bundle.ts"]);
  return file;
}

/** Builds `dist/npm`. */
async function npm(file: URL): Promise<void> {
  await Deno.mkdir(NPM, { recursive: true });
  await Deno.copyFile(file, new URL("vmtape.js", NPM));
  for (
    const name of ["README.md", "LICENSE", "CHANGELOG.md", "SECURITY.md", "release/vmtape.mjs"]
  ) {
    await Deno.copyFile(new URL(name, ROOT), new URL(name.replace(/^.*\//, ""), NPM));
  }
  const manifest = {
    name: config.name,
    version: config.version,
    description: "A flight recorder and referee for nested SVM (AMD) under KVM",
    license: config.license,
    type: "module",
    bin: { vmtape: "vmtape.mjs" },
    exports: { ".": { deno: "./vmtape.js" }, "./package.json": "./package.json" },
    files: ["vmtape.js", "vmtape.mjs", "CHANGELOG.md", "SECURITY.md"],
    dependencies: { deno: "2.9.6" },
    vmtape: { permissions: FLAGS },
  };
  await Deno.writeTextFile(new URL("package.json", NPM), JSON.stringify(manifest, null, 2) + "\n");
}

if (import.meta.main) {
  const file = await bundle();
  await npm(file);
  if (Deno.args[0] === "install") {
    // The command goes on working when the clone is gone.
    const root = Deno.env.get("DENO_INSTALL_ROOT") ?? `${Deno.env.get("HOME")}/.deno`;
    const own = `${root}/vmtape/vmtape.js`;
    await Deno.mkdir(`${root}/vmtape`, { recursive: true });
    await Deno.copyFile(file, own);
    await deno(["install", "-q", "-g", "-f", "-n", "vmtape", "--no-config", ...FLAGS, own]);
    await Deno.stdout.write(new TextEncoder().encode(`Installed ${root}/bin/vmtape\n`));
  }
}
