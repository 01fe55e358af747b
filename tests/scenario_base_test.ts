import { assert, assertEquals, assertThrows } from "@std/assert";
import { readLabRecords } from "../codecs/lab/record.ts";
import { wordsOf } from "../codecs/lab/views.ts";
import {
  basePages,
  FRESH_BELOW,
  MEMORY_SIZE,
  VMCB12_GPA,
  writeBase,
} from "../traces/scenarios/base.ts";
import { BUILTINS, builtinScenarios } from "../traces/scenarios/builtin.ts";
import { toLabCase } from "../traces/scenarios/lab_case.ts";
import { ScenarioError } from "../traces/scenarios/scenario_error.ts";
import { setUpMemory } from "../traces/scenarios/scenario_memory.ts";
import { parseScenario, parseScenarios } from "../traces/scenarios/scenario_reader.ts";
import { GROUND_TRUTH, groundTruth, RECORDINGS } from "./lab_ground_truth.ts";

Deno.test("the base has the lab's bytes where they matter", () => {
  const pages = basePages();
  const text = (gpa: number, length: number) =>
    pages.get(gpa - gpa % 4096)!.subarray(gpa % 4096, gpa % 4096 + length).toHex();
  assertEquals(text(0x8000, 7), "0f01d8e680ebf9");
  assertEquals(text(0x9000, 6), "0f01d9f4ebfc");
  assertEquals(text(0x1000, 8), "0720000000000000");
  assertEquals(text(0x42008, 8), "8700200000000000");
  assertEquals(text(0x50008, 8), "0120050000000000");
  assertEquals(text(0x52000, 8), "8300004000000000");
  assertEquals([...pages.keys()].every((gpa) => gpa < FRESH_BELOW), true);
});

Deno.test("the base replaces what was below the fresh limit, and nothing above", () => {
  const memory = new Uint8Array(MEMORY_SIZE).fill(0xaa);
  writeBase({ write: (gpa, bytes) => memory.set(bytes, gpa) });
  const fresh = new Uint8Array(MEMORY_SIZE);
  writeBase({ write: (gpa, bytes) => fresh.set(bytes, gpa) }, true);
  assertEquals(memory.subarray(0, FRESH_BELOW), fresh.subarray(0, FRESH_BELOW));
  assert(memory.subarray(FRESH_BELOW).every((byte) => byte === 0xaa));
  assert(fresh.subarray(FRESH_BELOW).every((byte) => byte === 0));
});

Deno.test("entry=rsm has an L2 that stops at a port and an SMI handler, also with keepmem", () => {
  for (const spec of ["entry=rsm", "entry=rsm keepmem"]) {
    const memory = new Uint8Array(MEMORY_SIZE);
    setUpMemory(parseScenario(`a ${spec}`), { write: (gpa, bytes) => memory.set(bytes, gpa) });
    assertEquals(memory.subarray(0x9000, 0x9008).toHex(), "e6810f01d9f4ebfd");
    assertEquals(memory.subarray(0x38000, 0x38004).toHex(), "e6820faa");
    assertEquals(memory[0x8000], spec.endsWith("keepmem") ? 0 : 0x0f);
  }
});

Deno.test("every built-in has a name of its own and scenarios the lab takes", () => {
  const names = BUILTINS.map((builtin) => builtin.name);
  assertEquals(new Set(names).size, names.length);
  for (const { name, specs, shows, observed } of BUILTINS) {
    const scenarios = builtinScenarios(name);
    assertEquals(scenarios.length, specs.length);
    assertEquals(scenarios[0]?.name, name);
    for (const [i, scenario] of scenarios.entries()) {
      assertEquals(scenario.keepvm, i > 0, `${name}: only the first begins a virtual machine`);
      assertEquals(parseScenario(toLabCase(scenario)).changes, scenario.changes);
    }
    assert(shows.length > 0 && shows.length <= 110 && !shows.includes("\n"), shows);
    assert(observed.length > 0);
  }
});

Deno.test("an unknown built-in is refused with the nearest one", () => {
  const error = assertThrows(() => builtinScenarios("gif-left-sett"), ScenarioError);
  assert(error.message.includes("did you mean gif-left-set?"), error.message);
});

Deno.test({
  name: "the lab's cases set memory and L1 up as the lab did",
  ignore: !GROUND_TRUTH,
  async fn() {
    for (const recording of RECORDINGS) {
      let compared = 0;
      const memory = new Uint8Array(MEMORY_SIZE);
      const write = (gpa: number, bytes: Uint8Array) => memory.set(bytes, gpa);
      for await (const record of readLabRecords(groundTruth(recording))) {
        const scenario = parseScenario(`${record.case} ${record.spec}`);
        setUpMemory(scenario, { write });
        const { pre } = record;
        assert(pre?.vmcb12);
        const page = memory.subarray(VMCB12_GPA, VMCB12_GPA + 4096);
        assertEquals(wordsOf(page), pre.vmcb12, record.case);
        const { l1, gif } = scenario;
        assertEquals(
          [pre.rax, pre.rip, pre.rflags, pre.cr0, pre.cr3, pre.cr4, pre.efer, pre.gif],
          [l1.rax, l1.rip, l1.rflags, l1.cr0, l1.cr3, l1.cr4, l1.efer].map((value) =>
            value.toString(16)
          ).concat(gif ? "1" : "0").map((text, i) => i === 7 ? Number(text) : text),
          record.case,
        );
        compared++;
      }
      assertEquals(compared, 1131);
    }
  },
});

Deno.test({
  name: "the lab's suite is read, and rendered with the same meaning",
  ignore: !GROUND_TRUTH,
  async fn() {
    const text = await Deno.readTextFile(new URL("suiteA.txt", GROUND_TRUTH));
    const scenarios = parseScenarios(text, { file: "suiteA.txt" });
    assertEquals(scenarios.length, 1131);
    for (const { spec: _spec, line: _line, ...scenario } of scenarios) {
      const { spec: _s, line: _l, ...back } = parseScenario(
        toLabCase({ ...scenario, spec: "", line: 1 }),
      );
      assertEquals(back, scenario);
    }
  },
});
