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

/** One executable mapping of a page that was looked for. */
export interface Mapping {
  /** Linear address of the page. */
  readonly linear: bigint;
  /** Its physical address. */
  readonly physical: bigint;
}

const PAGE = 0x1000n;
const PRESENT = 1n, LARGE = 1n << 7n, NX = 1n << 63n;
/** Bits 51 to 12 of an entry. */
const FRAME = 0x000f_ffff_ffff_f000n;

/** Tables read at most: far more than any guest has that maps its memory in large pages. */
const MAX_TABLES = 20_000;

/**
 * Finds the executable mappings of physical pages.
 *
 * @param mode The vCPU's control registers.
 * @param wanted Physical addresses of pages, multiples of 4,096.
 * @param read Reads physical memory.
 * @returns The mappings, those of the lowest linear addresses first.
 * @example
 * ```ts
 * import { findMappings } from "@vmtape/vmtape/traces";
 * const off = { cr0: 0x11n, cr3: 0n, cr4: 0n, efer: 0n };
 * const [same] = await findMappings(off, new Set([0x8000n]), () => Promise.resolve(undefined));
 * if (same?.linear !== 0x8000n) throw new Error();
 * ```
 */
export async function findMappings(
  mode: PagingMode,
  wanted: ReadonlySet<bigint>,
  read: ReadPhysical,
): Promise<Mapping[]> {
  if ((mode.cr0 >> 31n & 1n) === 0n) {
    return [...wanted].map((physical) => ({ linear: physical, physical }));
  }
  const walk = new Walk(mode, wanted, read);
  await walk.table(walk.format.root(mode.cr3), walk.format.top, 0n);
  return walk.found;
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
  readonly found: Mapping[] = [];
  readonly format: TableFormat;
  readonly #nxe: boolean;
  readonly #wanted: ReadonlySet<bigint>;
  readonly #read: ReadPhysical;
  #tables = 0;

  constructor(mode: PagingMode, wanted: ReadonlySet<bigint>, read: ReadPhysical) {
    this.format = new TableFormat(mode);
    this.#nxe = (mode.efer >> 11n & 1n) !== 0n;
    this.#wanted = wanted;
    this.#read = read;
  }

  async table(at: bigint, level: number, linear: bigint): Promise<void> {
    if (this.#tables++ >= MAX_TABLES) return;
    const { entry: size, long, top } = this.format;
    const paeRoot = size === 8 && !long && level === 3;
    const bytes = await this.#read(at, paeRoot ? 32 : 4096);
    if (bytes === undefined) return;
    const shift = this.format.shift(level);
    for (let i = 0; i < bytes.length / size; i++) {
      const entry = wordAt(bytes, size * i, size);
      if ((entry & PRESENT) === 0n || (this.#nxe && (entry & NX) !== 0n)) continue;
      const here = canonical(linear | BigInt(i) << shift, long ? top : 0);
      if (this.format.isLeaf(entry, level)) {
        this.#leaf(entry & FRAME & -(1n << shift), here, 1n << shift);
      } else {
        await this.table(entry & FRAME, level - 1, here);
      }
    }
  }

  #leaf(physical: bigint, linear: bigint, size: bigint): void {
    if (size === PAGE) {
      if (this.#wanted.has(physical)) this.found.push({ linear, physical });
      return;
    }
    for (const page of this.#wanted) {
      if (page >= physical && page < physical + size) {
        this.found.push({ linear: linear + page - physical, physical: page });
      }
    }
  }
}

/** Repeats the highest translated bit upwards: bit 47 with four levels, 56 with five. */
function canonical(linear: bigint, levels: number): bigint {
  if (levels === 0) return BigInt.asUintN(32, linear);
  return BigInt.asUintN(64, BigInt.asIntN(levels === 5 ? 57 : 48, linear));
}
