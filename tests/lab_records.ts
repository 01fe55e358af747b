/**
 * Random records of the lab.
 *
 * @module
 */
import fc from "fast-check";
import {
  AREA_KEYS,
  CPU_KEYS,
  type LabEvent,
  type LabRecord,
  type LabState,
  NESTED_KEYS,
  RESTORE_ERRNO_KEYS,
  STATE_FLAG_KEYS,
  STATE_HEX_KEYS,
} from "../codecs/lab/record.ts";

const hexOf = (bits: number) =>
  fc.bigInt({ min: 0n, max: (1n << BigInt(bits)) - 1n }).map((value) => value.toString(16));
const flag = fc.constantFrom("0", "1");

const words = (size: number) =>
  fc.dictionary(
    fc.nat(size / 8 - 1).map((i) => (8 * i).toString(16).padStart(3, "0")),
    fc.bigInt({ min: 1n, max: (1n << 64n) - 1n }).map((value) =>
      value.toString(16).padStart(16, "0")
    ),
    { maxKeys: 6 },
  );

const SPECIAL: Readonly<Record<string, fc.Arbitrary<string>>> = {
  ret: fc.integer({ min: -0x80000000, max: 0x7fffffff }).map(String),
  active: fc.constantFrom("01", "02"),
  mmu: fc.constantFrom("root", "guest"),
  walk: fc.constantFrom("root", "nested"),
  msrpm01: fc.constantFrom("host", "merged", "other"),
  msrpm02: fc.constantFrom("host", "merged", "other", "none"),
  exc_vec: fc.nat(255).map(String),
  root_role: hexOf(32),
  groot_role: hexOf(32),
  hflags: hexOf(32),
};
const WIDE = new Set(["cr0", "cr3", "cr4", "efer", "rip", "rax", "rsp", "rflags", "req"])
  .union(new Set(["vmcb12_gpa", "last_vmcb12_gpa", "ctl_ncr3"]))
  .union(new Set(["cpu_role", "gcpu_role", "ncpu_role"]));

const texts = (keys: readonly string[]) =>
  fc.record(
    Object.fromEntries(
      keys.map((key) => [key, SPECIAL[key] ?? (WIDE.has(key) ? hexOf(64) : flag)]),
    ),
    { requiredKeys: [] },
  );

const inner = fc.record({
  at: fc.constantFrom("vmrun", "vmexit", "rsm", "setstate"),
  nested: texts(NESTED_KEYS),
  cpu: texts(CPU_KEYS).filter((cpu) => Object.keys(cpu).length > 0),
  ...Object.fromEntries(
    AREA_KEYS.map((key) => [key, words(key.startsWith("ctl") ? 0x400 : 0xc00)]),
  ),
}, { requiredKeys: ["at", "nested"] });

const event = fc.oneof(
  fc.record({ check_failed: fc.string() }),
  fc.record({ warn: fc.string() }),
  fc.record({
    tracepoint: fc.constantFrom("kvm_nested_vmexit", "kvm_inj_virq"),
    text: fc.string(),
  }),
  inner,
) as fc.Arbitrary<LabEvent>;

const byte = fc.nat(255);
const state = fc.record({
  ...Object.fromEntries(STATE_HEX_KEYS.map((key) => [key, hexOf(64)])),
  ...Object.fromEntries(STATE_FLAG_KEYS.map((key) => [key, fc.nat(1)])),
  cs: fc.tuple(hexOf(16), flag, flag).map((parts) => parts.join("/")),
  ss: hexOf(16),
  vmcb_pa: hexOf(64),
  ev_exc: fc.tuple(byte, byte, hexOf(8), hexOf(32)).map((parts) => parts.join("/")),
  ev_int: fc.tuple(byte, byte).map((parts) => parts.join("/")),
  ev_nmi: fc.tuple(byte, byte, byte).map((parts) => parts.join("/")),
  rc: fc.integer({ min: -0x80000000, max: 0x7fffffff }),
  errno: fc.nat(200),
  exit: fc.nat(50),
  port: hexOf(16),
  vmcb12: words(0x1000),
  hsave: words(0x1000),
  smram: words(0x200),
  setup_errors: fc.dictionary(fc.constantFrom("SREGS_ERR", "IRQ_ERR"), fc.constantFrom("22", "14")),
}, { requiredKeys: [] }) as fc.Arbitrary<LabState>;

/** Records of every shape that the lab could print. */
export const anyRecord: fc.Arbitrary<LabRecord> = fc.record({
  case: fc.stringMatching(/^[a-z0-9_.]{1,12}$/),
  spec: fc.constantFrom(
    ...["", "gif=0", "entry=rsm xs.d0=500 xr.d0=0", "entry=setstate xh.d0=500"],
    ...["entry=mid midnmi=1", "entry=migrate xn.58.4=0 pending=1", "cpu.la57=0 pa=24"],
  )
    .chain((spec) => fc.constantFrom(spec, `${spec} keepvm`.trim())),
  kernel: fc.constantFrom("early-exit", "unified"),
  npt: fc.constantFrom(0, 1),
  events: fc.array(event, { maxLength: 5 }),
  pre: state,
  mid: state,
  smm: state,
  setstate: fc.record({ sregs_errno: fc.nat(100), errno: fc.nat(100) }),
  migrate: fc.record({
    ...Object.fromEntries(
      ["get_errno", "get_sregs_errno", ...RESTORE_ERRNO_KEYS].map((key) => [key, fc.nat(100)]),
    ),
    flags: fc.constantFrom("101", "1", "103"),
    state: words(0x1000),
  }),
  restored: state,
  post: state,
  warnings: fc.array(fc.string(), { maxLength: 2 }),
}, { requiredKeys: ["case", "spec", "kernel", "npt", "events"] }).map(
  ({ setstate, migrate, ...record }) =>
    // The lab prints each for its way in, and for no other, once L2 has stopped.
    ({
      ...record,
      ...(setstate && record.spec.startsWith("entry=setstate") ? { setstate } : {}),
      ...(migrate && record.mid && record.spec.startsWith("entry=migrate") ? { migrate } : {}),
    }) as LabRecord,
);
