import { assertEquals } from "@std/assert";
import { exit, intercept, machine, run, S, V, VMCB02_AT } from "./cpu_machine.ts";

const HLT = 0x78, VMMCALL = 0x81, CPUID = 0x72;

/** How L2's code ends: its exit code, or how the run ended. */
function outcome(code: string, before?: (m: ReturnType<typeof machine>) => void): string | number {
  const m = machine([...Uint8Array.fromHex(code.replaceAll(" ", "")), 0xf4]);
  before?.(m);
  const status = run(m);
  return status === "exit" ? exit(m).code : status;
}

Deno.test("code goes on after RDTSC as long as it does not look at what that read", () => {
  assertEquals(outcome("0f31 31c0 31d2"), HLT, "rdtsc; xor eax, eax; xor edx, edx");
  assertEquals(outcome("0f31 31c0"), HLT, "EDX is told nobody");
  assertEquals(outcome("0f01f9 b801000000 89c1 31d2 0f01d9"), VMMCALL, "rdtscp");
  assertEquals(outcome("0f31 89c3 31c0 31db"), HLT, "what was copied is overwritten, too");
  assertEquals(outcome("0fc7f0 0f92c1 31c0"), "unmodelled", "setc cl is not known to be harmless");
});

Deno.test("it ends where it does", () => {
  assertEquals(outcome("0f31"), "unmodelled", "HLT saves RAX");
  assertEquals(outcome("0f31 01c8 31c0"), "unmodelled", "add eax, ecx");
  assertEquals(outcome("0f31 8b0c10 31c0"), "unmodelled", "mov ecx, [rax+rdx]");
  assertEquals(outcome("0f31 31c0 52"), "unmodelled", "push rdx");
  assertEquals(outcome("0f31 31c0 0fa2", (m) => intercept(m, CPUID)), "unmodelled");
});

Deno.test("RDRAND sets CF alone, and what is unknown outlives a #VMEXIT", () => {
  const m = machine([...Uint8Array.fromHex("0fc7f131c0f4")]); // rdrand ecx; xor eax, eax; hlt
  m.set64(VMCB02_AT + S.rflags, 0x8d4n | 2n);
  assertEquals([run(m), exit(m).code], ["exit", HLT]);
  assertEquals(m.u16(V.unknown_registers), 2);
});
