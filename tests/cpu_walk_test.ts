import { assertEquals } from "@std/assert";
import fc from "fast-check";
import { GuestMemory } from "../engine/svm/memory.ts";
import {
  FETCH,
  type KvmWalkMode,
  PF,
  READ,
  SUPERVISOR,
  SUPERVISOR_AC,
  USER,
  Walk,
  walkKvm,
  walkProcessor,
  WRITE,
} from "../engine/cpu/mod.ts";

const SIZE = 0x40000;
const BITS = 40n;

interface Naive {
  readonly gpa?: bigint;
  readonly error?: number;
  /** Addresses of entries and the bits that are set in them. */
  readonly marks: readonly [bigint, bigint][];
}

const entrySize = (mode: KvmWalkMode) => mode.levels === 2 ? 4 : 8;

/** The same walk, straight from the manual's text, on bigints. */
function naive(
  memory: GuestMemory,
  mode: KvmWalkMode,
  address: bigint,
  access: number,
  who: number,
  kvm: boolean,
): Naive {
  const wide = mode.levels !== 2;
  let error = who === USER ? PF.user : 0;
  if (access === WRITE) error |= PF.write;
  if (access === FETCH && (mode.noExecute || mode.smep)) error |= PF.fetch;
  const fault = (bits: number): Naive => ({ error: error | bits, marks: [] });
  const indexBits = wide ? 9n : 10n;
  let table = BigInt(mode.root);
  if (mode.levels !== 4) table &= 0xffffffffn;
  table &= mode.levels === 3 ? ~31n : ~0xfffn;
  let w = true, u = true, nx = false;
  const marks: [bigint, bigint][] = [];
  for (let level = mode.levels;; level--) {
    const shift = 12n + indexBits * BigInt(level - 1);
    const index = address >> shift &
      ((1n << (level === 3 && mode.levels === 3 ? 2n : indexBits)) - 1n);
    const at = table + index * BigInt(entrySize(mode));
    if (at >= BigInt(SIZE)) return fault(0);
    const entry = wide ? memory.read64(Number(at)) : BigInt(memory.read(Number(at), 4));
    if ((entry & 1n) === 0n) return fault(0);
    const pdpte = level === 3 && mode.levels === 3;
    const leaf = level === 1 ||
      ((entry & 0x80n) !== 0n && !pdpte && (wide || mode.largePages) && level < 4);
    if (!(pdpte && kvm)) {
      let reserved = 0n;
      if (wide) reserved = (1n << 52n) - (1n << BITS);
      if (wide && !mode.noExecute) reserved |= 1n << 63n;
      if (wide && kvm && mode.levels === 3) reserved |= (1n << 63n) - (1n << 52n);
      if (pdpte) reserved |= 0xfff0_0000_0000_0000n;
      if (level === 4) reserved |= kvm ? 0x180n : 0x80n;
      if (leaf && level > 1) {
        reserved |= wide ? (1n << shift) - 0x2000n : kvm ? 0x3e0000n : 0x200000n;
      }
      if ((entry & reserved) !== 0n) return fault(kvm ? PF.reserved | PF.present : PF.reserved);
    }
    if (!pdpte) {
      w &&= (entry & 2n) !== 0n;
      u &&= (entry & 4n) !== 0n;
      nx ||= wide && entry >> 63n === 1n;
    }
    if (!(pdpte && kvm)) marks.push([at, leaf && access === WRITE ? 0x60n : 0x20n]);
    if (!leaf) {
      table = entry & 0xf_ffff_ffff_f000n;
      continue;
    }
    const user = who === USER;
    let ok = !user || u;
    if (access === WRITE) ok &&= w || (!user && !mode.writeProtect);
    if (access === FETCH) ok &&= !nx && !(mode.smep && !user && u);
    else if (mode.smap && who === SUPERVISOR) ok &&= !u;
    if (!ok) return fault(PF.present);
    const mask = (1n << shift) - 1n;
    let base = entry & 0xf_ffff_ffff_f000n & ~mask;
    if (!wide && level === 2) base |= (entry >> 13n & (kvm ? 0xfn : 0xffn)) << 32n;
    return { gpa: base | address & mask, marks };
  }
}

const entries = fc.record({
  flags: fc.constantFrom(0, 1, 3, 5, 7, 0x27, 0x67, 0x87, 0x83, 0x85, 0x107, 0x187),
  page: fc.oneof(fc.nat(0x3f), fc.nat(0x1ff), fc.constant(0x10000000)),
  high: fc.constantFrom(0n, 0n, 0n, 1n << 63n, 1n << 45n, 1n << 55n, 1n << 39n),
});

const cases = fc.record({
  levels: fc.constantFrom(2, 3, 4),
  bits: fc.tuple(fc.boolean(), fc.boolean(), fc.boolean(), fc.boolean(), fc.boolean()),
  path: fc.array(entries, { minLength: 4, maxLength: 4 }),
  address: fc.bigInt(0n, (1n << 47n) - 1n),
  access: fc.constantFrom(READ, WRITE, FETCH),
  who: fc.constantFrom(SUPERVISOR, USER, SUPERVISOR_AC),
});

for (const kvm of [false, true]) {
  Deno.test(`cpu walk: ${kvm ? "KVM's" : "the processor's"} agrees with a naive one`, () => {
    fc.assert(
      fc.property(cases, ({ levels, bits, path, address, access, who }) => {
        const [writeProtect, largePages, noExecute, smep, smap] = bits;
        const mode: KvmWalkMode = {
          levels,
          writeProtect,
          largePages,
          noExecute: noExecute && levels > 2,
          smep,
          smap,
          root: 0x1000,
        };
        if (levels < 4) address &= 0xffffffffn;
        // A path of entries along the address, then the naive walk on one copy and ours on another.
        const build = () => {
          const memory = new GuestMemory(SIZE);
          let table = 0x1000n;
          for (let level = levels; level > 0; level--) {
            const { flags, page, high } = path[level - 1] as typeof path[number];
            const width = levels === 2 ? 10n : 9n;
            const three = level === 3 && levels === 3;
            const index = address >> 12n + width * BigInt(level - 1) &
              (three ? 3n : (1n << width) - 1n);
            const at = table + index * BigInt(entrySize(mode));
            if (at + 8n > BigInt(SIZE)) break;
            const value = BigInt(page) << 12n | BigInt(flags) | high;
            if (levels === 2) memory.write(Number(at), 4, Number(value & 0xffffffffn));
            else memory.write64(Number(at), value);
            table = BigInt(page) << 12n;
          }
          return memory;
        };
        const expected = naive(build(), mode, address, access, who, kvm);
        const memory = build();
        const out = new Walk();
        const lo = Number(address & 0xffffffffn);
        const hi = Number(address >> 32n);
        const stage2 = (gpa: number, _access: number, table: boolean, walk: Walk) => {
          if (!table || gpa < SIZE) return gpa;
          walk.stage2Address = gpa;
          if (!kvm) {
            walk.outcome = 1;
            walk.error = -1;
          }
          return -1;
        };
        const ok = kvm
          ? walkKvm(memory, 40, mode, lo, hi, access, who, stage2, out)
          : walkProcessor(memory, 40, mode, mode.root, lo, hi, access, who, stage2, out);
        if (!ok && out.error === -1) return;
        assertEquals(ok ? BigInt(out.gpa) : out.error, expected.gpa ?? expected.error);
        for (const [at, mark] of expected.marks) {
          assertEquals(BigInt(memory.read8(Number(at))) & mark, mark);
        }
      }),
      { numRuns: 3000 },
    );
  });
}
