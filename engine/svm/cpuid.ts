/**
 * L1's processor, as its CPUID tells it: the leaves that KVM's nested code reads.
 *
 * @module
 */

/** A register of a CPUID leaf. */
export type CpuidRegister = "eax" | "ebx" | "ecx" | "edx";

/** The registers of a leaf, in order. */
export const CPUID_REGISTERS = ["eax", "ebx", "ecx", "edx"] as const satisfies CpuidRegister[];

/** The leaves that matter, by function (hexadecimal); with `.` and an index where that is not 0. */
export const CPUID_LEAVES = [
  "1",
  "7",
  "7.1",
  "80000001",
  "80000008",
  "8000000a",
  "80000021",
] as const;

/** Name of one of them. */
export type CpuidLeaf = typeof CPUID_LEAVES[number];

/** What a feature is: a bit of CPUID. */
export interface CpuidBit {
  /** Function and index of CPUID. */
  readonly leaf: CpuidLeaf;
  /** Its register. */
  readonly register: CpuidRegister;
  /** Bit number in it. */
  readonly bit: number;
  /** What it offers, in one line. */
  readonly doc: string;
}

/**
 * The features as a table: CPUID leaf, register, bit, and what it offers. Literals alone, so that the
 * names are types which a declaration can spell.
 */
export const FEATURE_ROWS = {
  vme: ["1", "edx", 1, "Virtual-8086 mode enhancements: CR4.VME, CR4.PVI"],
  de: ["1", "edx", 2, "Debugging extensions: CR4.DE"],
  pse: ["1", "edx", 3, "4 MiB pages: CR4.PSE"],
  tsc: ["1", "edx", 4, "Time stamp counter: CR4.TSD"],
  pae: ["1", "edx", 6, "Physical address extension: CR4.PAE"],
  mce: ["1", "edx", 7, "Machine check exception: CR4.MCE"],
  pge: ["1", "edx", 13, "Global pages: CR4.PGE"],
  fxsr: ["1", "edx", 24, "FXSAVE and FXRSTOR: CR4.OSFXSR"],
  sse: ["1", "edx", 25, "SSE: CR4.OSXMMEXCPT"],
  vmx: ["1", "ecx", 5, "Intel's virtualization: CR4.VMXE"],
  pcid: ["1", "ecx", 17, "Process context identifiers: CR4.PCIDE"],
  xsave: ["1", "ecx", 26, "XSAVE: CR4.OSXSAVE, and the intercept of XSETBV"],
  fsgsbase: ["7", "ebx", 0, "RDFSBASE and its like: CR4.FSGSBASE"],
  smep: ["7", "ebx", 7, "No supervisor execution of user pages: CR4.SMEP"],
  invpcid: ["7", "ebx", 10, "INVPCID and its intercept"],
  smap: ["7", "ebx", 20, "No supervisor access to user pages: CR4.SMAP"],
  umip: ["7", "ecx", 2, "No SGDT and its like in user mode: CR4.UMIP"],
  pku: ["7", "ecx", 3, "Protection keys of user pages: CR4.PKE"],
  shstk: ["7", "ecx", 7, "Shadow stacks: CR4.CET"],
  la57: ["7", "ecx", 16, "57 bits of linear addresses: CR4.LA57"],
  ibt: ["7", "edx", 20, "Indirect branch tracking: CR4.CET"],
  lam: ["7.1", "eax", 26, "Linear address masking: CR4.LAM_SUP"],
  svm: ["80000001", "ecx", 2, "SVM: EFER.SVME"],
  skinit: ["80000001", "ecx", 12, "SKINIT, STGI without SVM"],
  nx: ["80000001", "edx", 20, "Pages without execution: EFER.NXE"],
  fxsr_opt: ["80000001", "edx", 25, "Fast FXSAVE: EFER.FFXSR"],
  gbpages: ["80000001", "edx", 26, "Pages of 1 GiB"],
  rdtscp: ["80000001", "edx", 27, "RDTSCP and its intercept"],
  lm: ["80000001", "edx", 29, "Long mode: EFER.LME"],
  rdpru: ["80000008", "ebx", 4, "RDPRU and its intercept"],
  lmsle_mbz: ["80000008", "ebx", 20, "EFER.LMSLE is not there"],
  npt: ["8000000a", "edx", 0, "Nested paging"],
  lbrv: ["8000000a", "edx", 1, "LBR virtualization"],
  nrip_save: ["8000000a", "edx", 3, "The next RIP is saved on #VMEXIT"],
  tsc_scale: ["8000000a", "edx", 4, "The rate of the guest's TSC (TSC_RATIO)"],
  vmcb_clean: ["8000000a", "edx", 5, "VMCB clean bits"],
  flushbyasid: ["8000000a", "edx", 6, "TLB flushes of one ASID"],
  decodeassists: ["8000000a", "edx", 7, "Decode assists"],
  pausefilter: ["8000000a", "edx", 10, "Pause filter"],
  pfthreshold: ["8000000a", "edx", 12, "Pause filter threshold"],
  v_vmsave_vmload: ["8000000a", "edx", 15, "VMSAVE and VMLOAD without an exit"],
  vgif: ["8000000a", "edx", 16, "Virtual GIF"],
  gmet: ["8000000a", "edx", 17, "Guest mode execution trap"],
  vnmi: ["8000000a", "edx", 25, "Virtual NMI"],
  svme_addr_chk: ["8000000a", "edx", 28, "#GP where VMRUN's address is not a legal one"],
  autoibrs: ["80000021", "eax", 8, "Automatic IBRS: EFER.AUTOIBRS"],
} as const satisfies Record<
  string,
  readonly [leaf: CpuidLeaf, register: CpuidRegister, bit: number, doc: string]
>;

/** Name of a feature. */
export type Feature = keyof typeof FEATURE_ROWS;

/** Names of the features. */
export const FEATURE_NAMES: readonly Feature[] = Object.keys(FEATURE_ROWS) as Feature[];

/**
 * The features that nested transitions depend on, by the names that Linux shows in /proc/cpuinfo
 * where it shows them (APM vol. 3, appendix E).
 */
export const FEATURES: Readonly<Record<Feature, CpuidBit>> = Object.fromEntries(
  Object.entries(FEATURE_ROWS).map(([name, [leaf, register, bit, doc]]) => [
    name,
    { leaf, register, bit, doc },
  ]),
) as Record<Feature, CpuidBit>;

/** Words of a {@linkcode Cpuid}: four registers a leaf. */
const WORDS: number = CPUID_LEAVES.length * 4;

/** Where the number of physical address bits is: leaf 0x80000008, EAX, bits 7:0. */
const WIDTH_AT: number = CPUID_LEAVES.indexOf("80000008") * 4;

function wordOf(leaf: CpuidLeaf, register: CpuidRegister): number {
  return CPUID_LEAVES.indexOf(leaf) * 4 + CPUID_REGISTERS.indexOf(register);
}

/** Where each feature is: word and mask. */
const PLACES = Object.fromEntries(
  Object.entries(FEATURES).map(([name, { leaf, register, bit }]) => [
    name,
    { word: wordOf(leaf, register), mask: (1 << bit) >>> 0 },
  ]),
) as Readonly<Record<Feature, { readonly word: number; readonly mask: number }>>;

/** Features that are there to say that something is not. */
const TAKES_AWAY: readonly Feature[] = ["lmsle_mbz"];

/** A leaf in a session's metadata: each register's value, `null` where it is unknown, `[value, known bits]` where a part is. */
export type CpuidValue = number | null | readonly [value: number, known: number];

/**
 * What CPUID tells, in the leaves that matter; any bit of it may be unknown. An object does not
 * change: what changes something gives back another.
 *
 * @example
 * ```ts
 * import { LAB_CPUID } from "@vmtape/vmtape/engine";
 * const four = LAB_CPUID.without("7", "ecx", 1 << 16);
 * if (!LAB_CPUID.has("la57") || four.has("la57") || four.equals(LAB_CPUID)) throw new Error();
 * ```
 */
export class Cpuid {
  readonly #words: Uint32Array<ArrayBuffer>;
  readonly #known: Uint32Array<ArrayBuffer>;
  #key: string | undefined;

  private constructor(words: Uint32Array<ArrayBuffer>, known: Uint32Array<ArrayBuffer>) {
    for (let i = 0; i < WORDS; i++) words[i] = (words[i] as number) & (known[i] as number);
    this.#words = words;
    this.#known = known;
  }

  /** Nothing is known. */
  static readonly UNKNOWN: Cpuid = new Cpuid(new Uint32Array(WORDS), new Uint32Array(WORDS));

  /**
   * What is known of an L1 that runs VMRUN and of which nothing else is told: it has SVM, and what
   * every processor with SVM has (long mode, no-execute pages).
   */
  static readonly OF_HYPERVISOR: Cpuid = Cpuid.UNKNOWN.set("svm", true).set("lm", true).set(
    "nx",
    true,
  );

  /**
   * What a table of leaves says.
   *
   * @param leaves Registers EAX, EBX, ECX, EDX by leaf; a leaf that is left out holds zeros, as
   * CPUID gives them for a leaf that a processor does not have.
   * @returns That.
   * @example
   * ```ts
   * import { Cpuid } from "@vmtape/vmtape/engine";
   * const cpuid = Cpuid.of({ "8000000a": [1, 8, 0, 1], "80000021": [null, 0, 0, 0] });
   * if (!cpuid.has("npt") || cpuid.has("vgif") || cpuid.knows("autoibrs")) throw new Error();
   * ```
   */
  static of(leaves: Readonly<Partial<Record<CpuidLeaf, readonly CpuidValue[]>>>): Cpuid {
    const words = new Uint32Array(WORDS), known = new Uint32Array(WORDS).fill(0xffffffff);
    CPUID_LEAVES.forEach((leaf, i) => {
      leaves[leaf]?.forEach((value, r) => {
        if (r >= 4) return;
        const at = i * 4 + r;
        if (value === null) known[at] = 0;
        else if (typeof value === "number") words[at] = value;
        else [words[at], known[at]] = value;
      });
    });
    return new Cpuid(words, known);
  }

  /**
   * A register's value, unknown bits as 0.
   *
   * @param leaf The leaf.
   * @param register Which.
   */
  register(leaf: CpuidLeaf, register: CpuidRegister): number {
    return this.#words[wordOf(leaf, register)] as number;
  }

  /** Whether it has a feature; no where that is unknown. */
  has(feature: Feature): boolean {
    const { word, mask } = PLACES[feature];
    return ((this.#words[word] as number) & mask) !== 0;
  }

  /** Whether it is known if it has a feature. */
  knows(feature: Feature): boolean {
    const { word, mask } = PLACES[feature];
    return ((this.#known[word] as number) & mask) !== 0;
  }

  /** Physical address bits; undefined where unknown. */
  get physicalBits(): number | undefined {
    return ((this.#known[WIDTH_AT] as number) & 0xff) === 0xff
      ? (this.#words[WIDTH_AT] as number) & 0xff
      : undefined;
  }

  /** Whether every feature in the table, and the address width, are known. */
  get whole(): boolean {
    return this.physicalBits !== undefined && FEATURE_NAMES.every((name) => this.knows(name));
  }

  /**
   * That without some bits of a register.
   *
   * @param leaf The leaf.
   * @param register Its register.
   * @param mask The bits that are taken away, and so known to be 0.
   * @returns What is left.
   */
  without(leaf: CpuidLeaf, register: CpuidRegister, mask: number): Cpuid {
    return this.#with(wordOf(leaf, register), 0, mask);
  }

  /**
   * That with a feature, or without it.
   *
   * @param feature The feature.
   * @param there Whether it is there.
   * @returns The result.
   * @example
   * ```ts
   * import { LAB_CPUID } from "@vmtape/vmtape/engine";
   * if (LAB_CPUID.has("nrip_save") || !LAB_CPUID.set("nrip_save", true).has("nrip_save")) throw new Error();
   * ```
   */
  set(feature: Feature, there: boolean): Cpuid {
    const { word, mask } = PLACES[feature];
    return this.#with(word, there ? mask : 0, mask);
  }

  /**
   * That with another width of physical addresses.
   *
   * @param bits How many bits.
   * @returns The result.
   */
  withPhysicalBits(bits: number): Cpuid {
    return this.#with(WIDTH_AT, bits, 0xff);
  }

  /**
   * That with everything decided that is unknown.
   *
   * @param there Whether unknown features are there; those that only take something away are not.
   * @param bits Physical address bits, where those are unknown.
   * @returns The result, of which all is known.
   */
  decided(there: boolean, bits: number): Cpuid {
    const words = this.#words.slice();
    if (there) { for (let i = 0; i < WORDS; i++) words[i] = words[i]! | ~this.#known[i]!; }
    for (const name of TAKES_AWAY) {
      const { word, mask } = PLACES[name];
      if (!this.knows(name)) words[word] = there ? words[word]! & ~mask : words[word]! | mask;
    }
    if (this.physicalBits === undefined) words[WIDTH_AT] = words[WIDTH_AT]! & ~0xff | bits;
    return new Cpuid(words, new Uint32Array(WORDS).fill(0xffffffff));
  }

  /**
   * That with everything taken from another one that is unknown.
   *
   * @param other Where it comes from.
   * @returns The result.
   * @example
   * ```ts
   * import { Cpuid, LAB_CPUID } from "@vmtape/vmtape/engine";
   * if (!Cpuid.UNKNOWN.set("npt", false).over(LAB_CPUID).equals(LAB_CPUID.set("npt", false))) throw new Error();
   * ```
   */
  over(other: Cpuid): Cpuid {
    const words = this.#words.slice(), known = this.#known.slice();
    for (let i = 0; i < WORDS; i++) {
      words[i] = words[i]! | other.#words[i]! & ~known[i]!;
      known[i] = known[i]! | other.#known[i]!;
    }
    return new Cpuid(words, known);
  }

  /** The same as metadata of a session, for {@linkcode cpuidOfMeta}. */
  toMeta(): Record<string, CpuidValue[]> {
    const leaves: Record<string, CpuidValue[]> = {};
    CPUID_LEAVES.forEach((leaf, i) => {
      const values: CpuidValue[] = [];
      for (let r = 0; r < 4; r++) {
        const word = this.#words[i * 4 + r] as number, known = this.#known[i * 4 + r] as number;
        values.push(known === 0xffffffff ? word : known === 0 ? null : [word, known]);
      }
      if (values.some((value) => value !== 0)) leaves[leaf] = values;
    });
    return leaves;
  }

  /** Text that is the same for the same, and differs otherwise. */
  get key(): string {
    return this.#key ??= [...this.#words, ...this.#known].map((n) => n.toString(16)).join();
  }

  /** Whether another one says the same. */
  equals(other: Cpuid): boolean {
    if (this === other) return true;
    for (let i = 0; i < WORDS; i++) {
      if (this.#words[i] !== other.#words[i] || this.#known[i] !== other.#known[i]) return false;
    }
    return true;
  }

  #with(at: number, bits: number, mask: number): Cpuid {
    const words = this.#words.slice(), known = this.#known.slice();
    words[at] = words[at]! & ~mask | bits;
    known[at] = known[at]! | mask;
    return new Cpuid(words, known);
  }
}

/**
 * What KVM offers L1 on the machine that most recordings were made on, with nested paging: QEMU
 * 7.2's `-cpu max` under Linux 6.12 and 7.3. Linux 6.1 offers no `flushbyasid`, which changes nothing.
 */
export const LAB_CPUID: Cpuid = Cpuid.of({
  "1": [0x60fb1, 0x800, 0x76f83203, 0xf8bfbfd],
  "7": [0, 0x19803ab, 0x1020c, 0x20000000],
  "80000001": [0x60fb1, 0, 0x75, 0xedd3fbfd],
  "80000008": [0x283928, 0x4000000, 0, 0],
  "8000000a": [1, 8, 0, 0x10010061],
});

function isValue(value: unknown): value is CpuidValue {
  if (Array.isArray(value)) return value.length === 2 && value.every((n) => typeof n === "number");
  return value === null || typeof value === "number";
}

/**
 * Reads L1's CPUID out of a session's metadata.
 *
 * @param value `capabilities.cpuid`: for each leaf its four registers, `null` for an unknown one,
 * `[value, known bits]` for one that is known in part; leaves that are left out are zero; `null`
 * for a CPUID of which nothing is known.
 * @returns It; undefined where the metadata does not hold one.
 * @example
 * ```ts
 * import { cpuidOfMeta, LAB_CPUID } from "@vmtape/vmtape/engine";
 * if (!cpuidOfMeta(LAB_CPUID.toMeta())?.equals(LAB_CPUID)) throw new Error();
 * if (cpuidOfMeta(null)?.knows("svm") !== false || cpuidOfMeta(7) !== undefined) throw new Error();
 * ```
 */
export function cpuidOfMeta(value: unknown): Cpuid | undefined {
  if (value === null) return Cpuid.UNKNOWN;
  if (typeof value !== "object") return undefined;
  const leaves: Partial<Record<CpuidLeaf, CpuidValue[]>> = {};
  for (const leaf of CPUID_LEAVES) {
    const registers = (value as Record<string, unknown>)[leaf];
    if (Array.isArray(registers)) leaves[leaf] = registers.map((r) => isValue(r) ? r : null);
  }
  return Cpuid.of(leaves);
}

/**
 * The leaf that a number names.
 *
 * @param fn CPUID function.
 * @param index Its index (ECX), 0 when left out.
 * @returns Its name, or undefined for a leaf that nothing here depends on.
 * @example
 * ```ts
 * import { cpuidLeaf } from "@vmtape/vmtape/engine";
 * if (cpuidLeaf(0x8000000a) !== "8000000a" || cpuidLeaf(0xd) !== undefined) throw new Error();
 * ```
 */
export function cpuidLeaf(fn: number, index = 0): CpuidLeaf | undefined {
  const name = fn.toString(16) + (index === 0 ? "" : `.${index}`);
  return CPUID_LEAVES.find((leaf) => leaf === name);
}
