/**
 * Which linear addresses a guest's page tables give to physical pages: the
 * tables are read through a debugger, from the top, each once.
 *
 * @module
 */

/** Reads physical memory; undefined where there is none. */
export type ReadPhysical = (address: bigint, length: number) => Promise<Uint8Array | undefined>;

/** Control registers that say how addresses are translated. */
export interface PagingMode {
  /** CR0: paging is on with bit 31. */
  readonly cr0: bigint;
  /** CR3: the root. */
  readonly cr3: bigint;
  /** CR4: PSE (bit 4), PAE (5), LA57 (12). */
  readonly cr4: bigint;
  /** EFER: LMA (bit 10), NXE (11). */
  readonly efer: bigint;
}

/** A run of executable linear addresses. */
export interface ExecutableRun {
  /** Linear address of its first byte. */
  readonly linear: bigint;
  /** Physical address of the same. */
  readonly physical: bigint;
  /** Bytes. */
  readonly size: bigint;
}

/** Which mappings to find. */
export interface WalkOptions {
  /** Also what is under an entry of a top table that lets user mode in; left out otherwise. */
  readonly user?: boolean;
  /** Tables that were walked already, by level and address; they are left out, and added to. */
  readonly visited?: Set<string>;
}

const PRESENT = 1n, USER = 1n << 2n, LARGE = 1n << 7n, NX = 1n << 63n;
/** Bits 51 to 12 of an entry. */
const FRAME = 0x000f_ffff_ffff_f000n;

/** Tables read at most: far more than any guest has that maps its memory in large pages. */
const MAX_TABLES = 20_000;

/**
 * Finds what is executable, from the top of the address space to the bottom: kernels live there.
 * The caller may stop between two runs and go on later; each table is read as it is then.
 *
 * @param mode The vCPU's control registers.
 * @param read Reads physical memory.
 * @param options Which.
 * @yields Each run; with paging off there is one, of 4 GiB.
 * @example
 * ```ts
 * import { executableRuns } from "@vmtape/vmtape/traces";
 * const off = { cr0: 0x11n, cr3: 0n, cr4: 0n, efer: 0n };
 * for await (const run of executableRuns(off, () => Promise.resolve(undefined))) {
 *   if (run.linear !== run.physical) throw new Error();
 * }
 * ```
 */
export async function* executableRuns(
  mode: PagingMode,
  read: ReadPhysical,
  options: WalkOptions = {},
): AsyncGenerator<ExecutableRun> {
  if ((mode.cr0 >> 31n & 1n) === 0n) {
    yield { linear: 0n, physical: 0n, size: 1n << 32n };
    return;
  }
  const walk = new Walk(mode, read, options);
  yield* walk.table(walk.format.root(mode.cr3), walk.format.top, 0n, true);
}

/** How a guest's tables are laid out. */
class TableFormat {
  /** Whether addresses have 64 bits. */
  readonly long: boolean;
  /** Levels of tables: 5, 4, 3 (PAE) or 2. */
  readonly top: number;
  /** Bytes of an entry. */
  readonly entry: 4 | 8;
  readonly #pse: boolean;

  constructor(mode: PagingMode) {
    this.long = (mode.efer >> 10n & 1n) !== 0n;
    const pae = (mode.cr4 >> 5n & 1n) !== 0n;
    this.entry = this.long || pae ? 8 : 4;
    this.top = this.long ? ((mode.cr4 >> 12n & 1n) !== 0n ? 5 : 4) : pae ? 3 : 2;
    this.#pse = this.entry === 8 || (mode.cr4 >> 4n & 1n) !== 0n;
  }

  /** Address of the first table. */
  root(cr3: bigint): bigint {
    return cr3 & (this.top === 3 ? 0xffff_ffe0n : FRAME);
  }

  /** Lowest bit of an address that chooses an entry of a table at a level. */
  shift(level: number): bigint {
    return 12n + BigInt(level - 1) * (this.entry === 8 ? 9n : 10n);
  }

  /** Whether an entry leads to memory, not to another table. */
  isLeaf(entry: bigint, level: number): boolean {
    return level === 1 ||
      ((entry & LARGE) !== 0n && this.#pse && level <= (this.long ? 3 : 2));
  }
}

/**
 * Translates one linear address, whatever may be done there.
 *
 * @param mode The vCPU's control registers.
 * @param linear The address.
 * @param read Reads physical memory.
 * @returns The physical address, or undefined where nothing is mapped.
 * @example
 * ```ts
 * import { translateLinear } from "@vmtape/vmtape/traces";
 * const off = { cr0: 0x11n, cr3: 0n, cr4: 0n, efer: 0n };
 * if (await translateLinear(off, 0x8123n, () => Promise.resolve(undefined)) !== 0x8123n) throw new Error();
 * ```
 */
export async function translateLinear(
  mode: PagingMode,
  linear: bigint,
  read: ReadPhysical,
): Promise<bigint | undefined> {
  if ((mode.cr0 >> 31n & 1n) === 0n) return linear;
  const format = new TableFormat(mode);
  let table = format.root(mode.cr3);
  for (let level = format.top;; level--) {
    const shift = format.shift(level);
    const index = linear >> shift & (format.entry === 8 ? 0x1ffn : 0x3ffn);
    const bytes = await read(table + index * BigInt(format.entry), format.entry);
    if (bytes === undefined) return undefined;
    const entry = wordAt(bytes, 0, format.entry);
    if ((entry & PRESENT) === 0n) return undefined;
    if (format.isLeaf(entry, level)) {
      const inside = (1n << shift) - 1n;
      return entry & FRAME & ~inside | linear & inside;
    }
    table = entry & FRAME;
  }
}

function wordAt(bytes: Uint8Array, offset: number, size: 4 | 8): bigint {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return size === 8 ? view.getBigUint64(offset, true) : BigInt(view.getUint32(offset, true));
}

class Walk {
  readonly format: TableFormat;
  readonly #nxe: boolean;
  readonly #read: ReadPhysical;
  readonly #user: boolean;
  readonly #visited: Set<string>;
  #tables = 0;

  constructor(mode: PagingMode, read: ReadPhysical, options: WalkOptions) {
    this.format = new TableFormat(mode);
    this.#nxe = (mode.efer >> 11n & 1n) !== 0n;
    this.#read = read;
    this.#user = options.user ?? false;
    this.#visited = options.visited ?? new Set();
  }

  /** What a table maps; `open` when every entry above it lets user mode in. */
  async *table(
    at: bigint,
    level: number,
    linear: bigint,
    open: boolean,
  ): AsyncGenerator<ExecutableRun> {
    const key = `${level} ${at} ${linear}`;
    if (this.#visited.has(key) || this.#tables++ >= MAX_TABLES) return;
    this.#visited.add(key);
    const { entry: size, long, top } = this.format;
    const paeRoot = size === 8 && !long && level === 3;
    const bytes = await this.#read(at, paeRoot ? 32 : 4096);
    if (bytes === undefined) return;
    const shift = this.format.shift(level);
    for (let i = bytes.length / size - 1; i >= 0; i--) {
      const entry = wordAt(bytes, size * i, size);
      if ((entry & PRESENT) === 0n || (this.#nxe && (entry & NX) !== 0n)) continue;
      const user = open && (paeRoot || (entry & USER) !== 0n);
      const here = canonical(linear | BigInt(i) << shift, long ? top : 0);
      // What is open down to here may be closed further down, though no kernel does that.
      if (user && !paeRoot && !this.#user) continue;
      if (!this.format.isLeaf(entry, level)) {
        yield* this.table(entry & FRAME, level - 1, here, user);
      } else {
        yield { linear: here, physical: entry & FRAME & -(1n << shift), size: 1n << shift };
      }
    }
  }
}

/** Repeats the highest translated bit upwards: bit 47 with four levels, 56 with five. */
function canonical(linear: bigint, levels: number): bigint {
  if (levels === 0) return BigInt.asUintN(32, linear);
  return BigInt.asUintN(64, BigInt.asIntN(levels === 5 ? 57 : 48, linear));
}
