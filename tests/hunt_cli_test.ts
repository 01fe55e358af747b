import { assert, assertEquals } from "@std/assert";
import config from "../deno.json" with { type: "json" };
import { labPresent } from "./lab_fresh.ts";
import { withFolder } from "./cli_process.ts";

const ROOT = new URL("..", import.meta.url).pathname;
const FAKE = [
  Deno.execPath(),
  ...["run", "-q", "-A", "--frozen", "--config", `${ROOT}deno.json`],
  `${ROOT}tests/hunt_fake_lab.ts`,
].join(" ");

/** `deno task hunt`, with the permissions of the task. */
function hunt(args: readonly string[], env: Record<string, string> = {}): Deno.ChildProcess {
  const [, ...words] = config.tasks.hunt.command.split(" ");
  return new Deno.Command(Deno.execPath(), {
    args: [...words, ...args],
    cwd: ROOT,
    env: { NO_COLOR: "1", ...env },
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
}

async function ended(child: Deno.ChildProcess) {
  const { code, stdout, stderr } = await child.output();
  const decoder = new TextDecoder();
  return { code, stdout: decoder.decode(stdout), stderr: decoder.decode(stderr) };
}

const usual = (folder: string) => [
  ...["-k", "linux-7.3", "--lab", FAKE, "-o", folder, "--seed", "4", "--count", "300"],
];

Deno.test("a hunt that Ctrl-C ends goes on with the same command, and comes to the same", async () => {
  await withFolder(async (folder) => {
    const whole = await ended(hunt([...usual(`${folder}/whole`), "--json"]));
    assertEquals(whole.code, 1, whole.stderr);
    const pause = `${folder}/pause`;
    const child = hunt(usual(`${folder}/parts`), { HUNT_PAUSE: pause });
    const end = ended(child);
    while (!await Deno.stat(pause).then(() => true, () => false)) {
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    child.kill("SIGINT");
    const stopped = await end;
    assertEquals(stopped.code, 130, stopped.stderr);
    assert(stopped.stdout.includes("in 1 batch\n"), stopped.stdout);
    const again = await ended(hunt([...usual(`${folder}/parts`), "--json"]));
    assertEquals(again.code, 1, again.stderr);
    assertEquals(again.stdout, whole.stdout);
    const { findings } = JSON.parse(whole.stdout);
    const gif = findings.find(({ key }: { key: string }) => key === "gap|vmrun|post.gif");
    assertEquals(gif?.small, ["case1 c.58.4=0"]);
    const cases = await Deno.readTextFile(`${folder}/whole/findings.cases`);
    assert(cases.includes("\ncase1 c.58.4=0\n"), cases);
  });
});

Deno.test("a folder of another hunt is refused, and so is asking nobody", async () => {
  await withFolder(async (folder) => {
    const few = ["-k", "linux-7.3", "--lab", FAKE, "-o", folder, "--count", "5"];
    assert((await ended(hunt(few))).code < 2);
    const other = await ended(hunt([...few, "--seed", "9"]));
    assertEquals(other.code, 2);
    assert(other.stderr.includes("holds another hunt"), other.stderr);
    assertEquals((await ended(hunt(["-k", "linux-7.3", "-o", folder]))).code, 2);
    const nobody = await ended(
      hunt(["-k", "linux-7.3", "--lab", "/none/lab", "-o", `${folder}/n`]),
    );
    assertEquals(nobody.code, 2);
    assert(nobody.stderr.includes("/none/lab"), nobody.stderr);
  });
});

Deno.test("records that are there already are judged, also under a policy of one's own, which starts nothing", async () => {
  await withFolder(async (folder) => {
    const file = `${folder}/cases.txt`;
    await Deno.writeTextFile(file, "ok\nzero c.58.4=0\n");
    const [program = "", ...words] = FAKE.split(" ");
    const args = [...words, file, "--kernel", "linux-7.3", "--npt", "1"];
    const { stdout } = await new Deno.Command(program, { args }).output();
    await Deno.writeFile(`${folder}/answers.ndjson`, stdout);
    const records = ["--records", `${folder}/answers.ndjson`, "--json"];
    const judged = await ended(hunt(["-k", "linux-7.3", ...records]));
    assertEquals(judged.code, 1, judged.stderr);
    const { findings, funnel } = JSON.parse(judged.stdout);
    assertEquals(findings.map(({ key }: { key: string }) => key), ["gap|vmrun|post.gif"]);
    assertEquals([funnel.asked, funnel.foreseen], [2, 1]);
    const own = ["-k", "./examples/fixed_unified.ts"];
    assertEquals((await ended(hunt([...own, ...records]))).code, 1);
    const started = await ended(hunt([...own, "--lab", FAKE, "-o", `${folder}/own`]));
    assertEquals(started.code, 2);
    assert(started.stderr.includes("--records"), started.stderr);
  });
});

Deno.test({
  name: "a hunt asks a real kernel of the lab, which does what its model says",
  ignore: !await labPresent(),
  async fn() {
    await withFolder(async (folder) => {
      const lab = new URL("../../shared/lab/lab", import.meta.url).pathname;
      const args = ["-k", "linux-7.3", "--lab", lab, "-o", folder, "--count", "40", "--json"];
      const { code, stdout, stderr } = await ended(hunt(args));
      assert(code < 2, stderr);
      const { funnel } = JSON.parse(stdout);
      assert(funnel.answered >= 0.9 * funnel.asked, stdout);
      assert(funnel.foreseen >= 0.9 * funnel.steady, stdout);
    });
  },
});
