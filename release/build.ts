/**
 * Builds what is released: `dist/vmtape.js`, the program and the library in one file, and
 * `dist/vmtape.tgz`, the package for npm, whose command brings Deno along.
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

/**
 * Permissions of the task `vmtape`, and what its threads need; the working directory is the user's.
 * The file holds all its packages, and no policy may have one fetched: its name could say anything.
 */
export const FLAGS: readonly string[] = [
  "--no-prompt",
  "--no-npm",
  "--no-remote",
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

/** Texts that are in the package beside the pages of `docs`. */
const TEXTS = ["README.md", "LICENSE", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"] as const;

/** What the package for npm offers to an import: subpath and module. */
const LIBRARY: readonly (readonly [subpath: string, module: string])[] = Object.entries(
  config.exports,
).filter(([subpath]) => subpath !== "./cli");

/** The library as JavaScript that shares what its parts have in common, for Node too. */
async function library(): Promise<void> {
  const lib = new URL("lib/", NPM);
  await Deno.remove(lib, { recursive: true }).catch(() => {});
  const modules = LIBRARY.map(([, module]) => module);
  const split = ["--platform", "deno", "--code-splitting", "--outdir", lib.pathname];
  await deno(["bundle", "-q", ...split, ...modules]);
}

/** Declarations of the library's modules, as `deno pack` makes them. */
async function declarations(): Promise<void> {
  const types = new URL("types/", NPM);
  await Deno.remove(types, { recursive: true }).catch(() => {});
  const archive = new URL("packed.tgz", DIST).pathname;
  await deno(["pack", "-q", "--allow-dirty", "-o", archive]);
  await Deno.mkdir(types, { recursive: true });
  const only = ["--strip-components=1", "--wildcards", "*.d.ts"];
  const exclude = ["--exclude=package/cli", "--exclude=package/links"];
  await tar(["-xzf", archive, "-C", types.pathname, ...exclude, ...only]);
  await Deno.remove(archive);
}

async function tar(args: readonly string[]): Promise<void> {
  const { code, stderr } = await new Deno.Command("tar", { args: [...args] }).output();
  if (code !== 0) throw new Error(`tar failed: ${new TextDecoder().decode(stderr)}`);
}

/** Builds `dist/npm`, and packs it: npm only links a folder, and leaves out what that depends on. */
async function npm(file: URL): Promise<void> {
  await Deno.mkdir(NPM, { recursive: true });
  await Deno.copyFile(file, new URL("vmtape.js", NPM));
  await Deno.copyFile(new URL("release/vmtape.mjs", ROOT), new URL("vmtape.mjs", NPM));
  await Deno.mkdir(new URL("docs/", NPM), { recursive: true });
  const pages = (await Array.fromAsync(Deno.readDir(new URL("docs/", ROOT))))
    .map(({ name }) => `docs/${name}`)
    .filter((name) => !name.endsWith(".ts"));
  for (const name of [...TEXTS, ...pages]) {
    await Deno.copyFile(new URL(name, ROOT), new URL(name, NPM));
  }
  await library();
  await declarations();
  const of = (folder: string, module: string, end: string) =>
    module.replace(/^\.\//, `./${folder}/`).replace(/\.ts$/, end);
  const exports = LIBRARY.map(([subpath, module]) => [subpath, {
    types: of("types", module, ".d.ts"),
    default: of("lib", module, ".js"),
  }]);
  const manifest = {
    name: config.name,
    version: config.version,
    description: "A flight recorder and referee for nested SVM (AMD) under KVM",
    license: config.license,
    type: "module",
    bin: { vmtape: "vmtape.mjs" },
    exports: {
      ...Object.fromEntries(exports),
      "./vmtape.js": "./vmtape.js",
      "./package.json": "./package.json",
    },
    files: ["vmtape.js", "vmtape.mjs", "lib", "types", "docs", ...TEXTS],
    dependencies: { deno: "2.9.6" },
    vmtape: { permissions: FLAGS },
  };
  await Deno.writeTextFile(new URL("package.json", NPM), JSON.stringify(manifest, null, 2) + "\n");
  const archive = new URL("vmtape.tgz", DIST).pathname;
  await tar(["-czf", archive, "-C", DIST.pathname, "--transform=s,^npm,package,", "npm"]);
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
