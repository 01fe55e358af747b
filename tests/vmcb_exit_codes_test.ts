import { assertEquals } from "@std/assert";
import {
  EXIT_CODE_VALUES,
  EXIT_CODES,
  exitCode,
  exitCodeName,
  exitCodeNamed,
  VMEXIT_INVALID,
} from "@vmtape/vmtape/engine";
import { EXIT_TEXTS, EXITS } from "./vmcb_kernel_numbers.ts";

const kernel = EXITS.trim().split(/\s+/).map((word) => {
  const [name, code] = word.split(":");
  return { name: name!, code: BigInt(`0x${code}`) };
});
const texts = new Map(
  EXIT_TEXTS.trim().split("\n").map((line) => {
    const [code, text] = line.split(":");
    return [BigInt(`0x${code}`), text!];
  }),
);

Deno.test("every exit code of the kernel has its name", () => {
  assertEquals(kernel.length, 110);
  for (const { name, code } of kernel) {
    assertEquals(exitCode(code)?.name, name);
    assertEquals(exitCodeNamed(name), code);
  }
});

Deno.test("exit codes have the texts of the tracepoints, and no others", () => {
  const ours = EXIT_CODES.filter((row) => row.trace !== undefined)
    .map((row) => [BigInt.asUintN(64, BigInt(row.code)), row.trace]);
  assertEquals(new Map(ours as [bigint, string][]), texts);
  for (const [code, text] of texts) assertEquals(exitCodeNamed(text), code);
});

Deno.test("no two exit codes share a code, a name or a text", () => {
  for (const key of ["code", "name", "apm", "trace"] as const) {
    const all = EXIT_CODES.map((row) => row[key]).filter((value) => value !== undefined);
    assertEquals(new Set(all).size, all.length, key);
  }
});

Deno.test("every exit code is found by the manual's name", () => {
  assertEquals(exitCodeNamed("VMEXIT_CR0_READ"), 0n);
  assertEquals(exitCodeNamed("VMEXIT_EXCP14"), 0x4en);
  assertEquals(exitCodeNamed("vmexit_busy"), VMEXIT_INVALID - 1n);
  assertEquals(exitCodeNamed("VMEXIT_NOTHING"), undefined);
});

Deno.test("a failed VMRUN needs all 64 bits", () => {
  assertEquals(exitCodeName(VMEXIT_INVALID), "VMEXIT_INVALID");
  assertEquals(exitCodeName(0xffff_ffffn), "0xffffffff");
  assertEquals(exitCodeName(0x1_0000_0081n), "0x100000081");
  assertEquals(EXIT_CODE_VALUES[0xffff_ffff], "SVM_EXIT_ERR");
  assertEquals(EXIT_CODE_VALUES[0x81], "SVM_EXIT_VMMCALL");
});
