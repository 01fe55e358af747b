import {
  assert,
  assertEquals,
  assertMatch,
  assertNotEquals,
  assertStringIncludes,
} from "@std/assert";
import { BUILTINS } from "../traces/scenarios/builtin.ts";
import { parseScenarios } from "../traces/scenarios/scenario_reader.ts";
import { vmtapeHere as vmtape } from "./cli_process.ts";

Deno.test("scenarios lists all built-in ones, and prints their cases as a file", async () => {
  const list = await vmtape(["scenarios"]);
  assertEquals(list.code, 0);
  for (const { name } of BUILTINS) assertMatch(list.stdout, new RegExp(`^  ${name}( |$)`, "m"));
  const { stdout } = await vmtape(["scenarios", "--cases"]);
  const cases = parseScenarios(stdout);
  assertEquals(cases.length, BUILTINS.reduce((n, builtin) => n + builtin.specs.length, 0));
  const one = await vmtape(["scenarios", "msrpm-in-vmcb01", "--json"]);
  assertEquals(JSON.parse(one.stdout).cases.length, 3);
});

Deno.test("an unknown scenario is refused with the nearest name", async () => {
  const { code, stderr } = await vmtape(["scenarios", "gif-left-sett"]);
  assertEquals(code, 2);
  assertStringIncludes(stderr, 'Unknown scenario "gif-left-sett", did you mean "gif-left-set"?');
});

Deno.test("generate prints cases that depend on the seed alone", async () => {
  const { stdout } = await vmtape(["generate", "--seed", "7", "-n", "40"]);
  assertEquals(parseScenarios(stdout).length, 40);
  const again = await vmtape(["generate", "--seed=7", "--count=40"]);
  assertEquals(again.stdout, stdout);
  const fewer = await vmtape(["generate", "--seed", "7", "-n", "3"]);
  assert(stdout.startsWith(fewer.stdout));
  assertNotEquals((await vmtape(["generate", "--seed", "8", "-n", "40"])).stdout, stdout);
});

Deno.test("generate keeps to the ways in that are asked for", async () => {
  const { stdout } = await vmtape(["generate", "-n", "50", "--entries", "rsm,setstate"]);
  const entries = new Set(parseScenarios(stdout).map((scenario) => scenario.entry));
  assertEquals([...entries].sort(), ["rsm", "setstate"]);
  for (const args of [["--seed", "0x100000000"], ["--entries", "vmrn"], ["cases.txt"]]) {
    const { code, stderr } = await vmtape(["generate", ...args]);
    assertEquals(code, 2);
    assertMatch(stderr, /^vmtape generate: [^\n]+\n$/);
  }
});
