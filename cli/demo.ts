/**
 * The main job from end to end, in a temporary folder that is gone afterwards:
 * `deno task demo`.
 *
 * @module
 */
import { run } from "./app.ts";
import { EXIT } from "./command.ts";

/** What is shown, and the command line that does it. */
export const STEPS: readonly (readonly [say: string, line: string])[] = [
  [
    "Record the built-in scenarios as a kernel before the fixes handles them",
    "record -o demo.vmtape --policy early-exit",
  ],
  ["What is in the recording", "info demo.vmtape"],
  ["Re-execute it: the model does what was recorded, bit for bit", "replay demo.vmtape"],
  [
    "What the patch of the mailing list would have changed, and the step that does it",
    "diff demo.vmtape --policies early-exit,unified --limit 4",
  ],
  [
    "What each transition costs under the two, over a longer recording",
    "record enter gif-left-set late-failure-msrpm --repeat 300 -o long.vmtape --policy early-exit",
  ],
  ["", "stats long.vmtape --policies early-exit,unified"],
];

/** The folder is gone afterwards: what to do with a recording that stays. */
const ON =
  `# Go on with a recording of your own, then any line above with "deno task vmtape" for "vmtape":
$ deno task vmtape record -o demo.vmtape --policy early-exit
# Without Deno, "deno" is "npx -y deno@2.9.6"; "deno task release install" installs vmtape.`;

const world = {
  out: Deno.stdout,
  err: Deno.stderr,
  color: Deno.stdout.isTerminal() && !Deno.noColor,
  debug: false,
};

/** Shows one step after the other; stops at the first that fails. */
async function demo(): Promise<number> {
  for (const [say, line] of STEPS) {
    Deno.stdout.writeSync(new TextEncoder().encode(`\n${say && `# ${say}\n`}$ vmtape ${line}\n`));
    const status = await run(line.split(" "), world);
    if (status !== EXIT.ok && status !== EXIT.differs) return status;
  }
  Deno.stdout.writeSync(new TextEncoder().encode(`\n${ON}\n`));
  return EXIT.ok;
}

if (import.meta.main) {
  const folder = await Deno.makeTempDir({ prefix: "vmtape-demo-" });
  const before = Deno.cwd();
  let status: number;
  try {
    Deno.chdir(folder);
    status = await demo();
  } finally {
    Deno.chdir(before);
    await Deno.remove(folder, { recursive: true });
  }
  Deno.exit(status);
}
