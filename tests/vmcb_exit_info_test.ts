import { assert, assertEquals } from "@std/assert";
import { describeExit, EXIT_INFO, exitCode, VMEXIT_INVALID } from "@vmtape/vmtape/engine";

Deno.test("a #VMEXIT is described with what its information means", () => {
  const cases: [bigint, bigint, bigint, string][] = [
    [0x7bn, 0x80_0210n, 0x9002n, "SVM_EXIT_IOIO info1 0x800210 [port=0x80 A64 SZ8] info2 0x9002"],
    [0x7cn, 0n, 0n, "SVM_EXIT_MSR info1 0x0 [RDMSR]"],
    [0x7cn, 1n, 0n, "SVM_EXIT_MSR info1 0x1 [WRMSR]"],
    [0x4en, 6n, 0x1234n, "SVM_EXIT_EXCP_PF info1 0x6 [US W] info2 0x1234"],
    [0x10n, 1n << 63n | 3n, 0n, "SVM_EXIT_WRITE_CR0 info1 0x8000000000000003 [MOV_CR GPR=0x3]"],
    [0x81n, 0n, 0n, "SVM_EXIT_VMMCALL"],
    [0x81n, 0n, 5n, "SVM_EXIT_VMMCALL info2 0x5"],
    [VMEXIT_INVALID, 0n, 0n, "VMEXIT_INVALID"],
  ];
  for (const [code, info1, info2, text] of cases) {
    assertEquals(describeExit(code, info1, info2), text);
  }
});

Deno.test("exit information is listed in order, for exit codes that exist", () => {
  let before = -1;
  for (const { first, last, word, bits = [] } of EXIT_INFO) {
    assert(first * 4 + word > before);
    before = last * 4 + word;
    for (let code = first; code <= last; code++) assert(exitCode(BigInt(code)));
    let end = 0;
    for (const { bit, width = 1 } of bits) {
      assert(bit >= end);
      end = bit + width;
    }
    assert(end <= 64);
  }
});
