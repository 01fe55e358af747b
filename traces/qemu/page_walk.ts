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
  await walk.table(mode.cr3 & (walk.top === 3 && !walk.long ? 0xffff_ffe0n : FRAME), walk.top, 0n);
  return walk.found;
}

class Walk {
  readonly found: Mapping[] = [];
  readonly long: boolean;
  /** Levels of tables: 5, 4, 3 (PAE) or 2. */
  readonly top: number;
  readonly #entry: 4 | 8;
  readonly #nxe: boolean;
  readonly #pse: boolean;
  readonly #wanted: ReadonlySet<bigint>;
  readonly #read: ReadPhysical;
  #tables = 0;

  constructor(mode: PagingMode, wanted: ReadonlySet<bigint>, read: ReadPhysical) {
    this.long = (mode.efer >> 10n & 1n) !== 0n;
    const pae = (mode.cr4 >> 5n & 1n) !== 0n;
    this.#entry = this.long || pae ? 8 : 4;
    this.top = this.long ? ((mode.cr4 >> 12n & 1n) !== 0n ? 5 : 4) : pae ? 3 : 2;
    this.#nxe = (mode.efer >> 11n & 1n) !== 0n;
    this.#pse = this.#entry === 8 || (mode.cr4 >> 4n & 1n) !== 0n;
    this.#wanted = wanted;
    this.#read = read;
  }

  async table(at: bigint, level: number, linear: bigint): Promise<void> {
    if (this.#tables++ >= MAX_TABLES) return;
    const paeRoot = this.#entry === 8 && !this.long && level === 3;
    const bytes = await this.#read(at, paeRoot ? 32 : 4096);
    if (bytes === undefined) return;
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const count = bytes.length / this.#entry;
    const shift = 12n + BigInt(level - 1) * (this.#entry === 8 ? 9n : 10n);
    for (let i = 0; i < count; i++) {
      const entry = this.#entry === 8
        ? view.getBigUint64(8 * i, true)
        : BigInt(view.getUint32(4 * i, true));
      if ((entry & PRESENT) === 0n || (this.#nxe && (entry & NX) !== 0n)) continue;
      const here = canonical(linear | BigInt(i) << shift, this.long ? this.top : 0);
      const leaf = level === 1 ||
        ((entry & LARGE) !== 0n && this.#pse && level <= (this.long ? 3 : 2));
      if (leaf) this.#leaf(entry & FRAME & -(1n << shift), here, 1n << shift);
      else await this.table(entry & FRAME, level - 1, here);
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
