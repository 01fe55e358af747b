/**
 * Decodes the shape of one x86 instruction: length, prefixes, opcode, operands.
 * It knows every one- and two-byte opcode, the three-byte maps and VEX.
 *
 * @module
 */

/** Width of the code: 16, 32 or 64 bits. */
export type CodeWidth = 16 | 32 | 64;

/** Prefix bits of {@linkcode Instruction.prefixes}. */
export const PREFIX = {
  repz: 1,
  repnz: 2,
  lock: 4,
  data: 8,
  address: 16,
  rex: 32,
  vex: 64,
} as const;

/** Register number that stands for RIP as the base of an address. */
export const BASE_RIP = 16;

const NO_BYTES = new Uint8Array(0);

/**
 * A decoded instruction; {@linkcode decode} fills one in place.
 *
 * @example
 * ```ts
 * import { decode, Instruction } from "@vmtape/vmtape/engine";
 * const mov = new Instruction(); // mov rax, [rbx+16]
 * decode(Uint8Array.of(0x48, 0x8b, 0x43, 0x10), 4, 64, mov);
 * if (mov.length !== 4 || mov.opcode !== 0x8b || mov.dflag !== 3) throw new Error();
 * if (mov.reg !== 0 || mov.base !== 3 || mov.disp !== 16) throw new Error();
 * ```
 */
export class Instruction {
  /** Bytes, prefixes included; 0 before the first decode. */
  length = 0;
  /** {@linkcode PREFIX} bits. */
  prefixes = 0;
  /** Segment override: 0 ES, 1 CS, 2 SS, 3 DS, 4 FS, 5 GS, -1 none. */
  segment: number = -1;
  /** REX byte's W, R, X and B bits, or VEX's. */
  rex = 0;
  /** Opcode: 0x00-0xff one byte, 0x100-0x1ff after 0F, 0x200 after 0F 38, 0x300 after 0F 3A. */
  opcode = 0;
  /** Operand size: 1 = 16, 2 = 32, 3 = 64 bits. */
  dflag = 2;
  /** Address size: 1 = 16, 2 = 32, 3 = 64 bits. */
  aflag = 2;
  /** Whether there is a ModRM byte. */
  hasModrm = false;
  /** The ModRM byte. */
  modrm = 0;
  /** ModRM.mod. */
  mod = 0;
  /** ModRM.reg with REX.R. */
  reg = 0;
  /** ModRM.rm with REX.B, when it names a register. */
  rm = 0;
  /** Base register of the memory operand, {@linkcode BASE_RIP}, or -1. */
  base: number = -1;
  /** Index register, or -1. */
  index: number = -1;
  /** Shift of the index, 0 to 3. */
  scale = 0;
  /** Displacement, or the low half of a 64-bit offset (moffs). */
  disp = 0;
  /** High half of the displacement. */
  dispHi = 0;
  /** Immediate, low half, sign extended from its size. */
  imm = 0;
  /** Immediate, high half. */
  immHi = 0;
  /** Second immediate: the selector of a far pointer, ENTER's level. */
  imm2 = 0;
  /** VEX: the third register. */
  vexRegister = 0;
  /** VEX: the prefix that it stands for: 0 none, 1 = 66, 2 = F3, 3 = F2. */
  vexPrefix = 0;
  /** VEX: vectors of 256 bits. */
  vexLong = false;
  /** While it is decoded: its bytes, and how many of them are valid; {@linkcode length} were read. */
  source: Uint8Array = NO_BYTES;
  /** How many are valid. */
  available = 0;
}

/**
 * Why {@linkcode decode} gave up: `"short"` when the bytes end before the
 * instruction does, `"long"` when it needs more than 15 bytes (#GP).
 */
export type DecodeOutcome = "ok" | "short" | "long";

// One letter an opcode: . nothing follows, M ModRM, B/W/Z/V immediate of 1, 2, 2-or-4, 2-4-or-8 bytes,
// b/z ModRM and immediate, 3/4 group 3 (immediate for TEST only), O moffs, P far pointer, E ENTER, R relative
// branch of 2 or 4 bytes, p prefix.
const ONE = [
  "MMMMBZ..MMMMBZ.p",
  "MMMMBZ..MMMMBZ..",
  "MMMMBZp.MMMMBZp.",
  "MMMMBZp.MMMMBZp.",
  "................",
  "................",
  "..MMppppZzBb....",
  "BBBBBBBBBBBBBBBB",
  "bzbbMMMMMMMMMMMM",
  "..........P.....",
  "OOOO....BZ......",
  "BBBBBBBBVVVVVVVV",
  "bbW.MMbzE.W..B..",
  "MMMMBB..MMMMMMMM",
  "BBBBBBBBRRPB....",
  "p.pp..34......MM",
].join("");
const TWO = [
  "MMMM.........M.b",
  "MMMMMMMMMMMMMMMM",
  "MMMM....MMMMMMMM",
  "................",
  "MMMMMMMMMMMMMMMM",
  "MMMMMMMMMMMMMMMM",
  "MMMMMMMMMMMMMMMM",
  "bbbbMMM.MMMMMMMM",
  "RRRRRRRRRRRRRRRR",
  "MMMMMMMMMMMMMMMM",
  "...MbM.....MbMMM",
  "MMMMMMMMMMbMMMMM",
  "MMbMbbbM........",
  "MMMMMMMMMMMMMMMM",
  "MMMMMMMMMMMMMMMM",
  "MMMMMMMMMMMMMMMM",
].join("");

const SHAPES = Uint8Array.from([...ONE + TWO].map((letter) => letter.charCodeAt(0)));
const letter = (text: string) => text.charCodeAt(0);
const M = letter("M"), B = letter("B"), W = letter("W"), Z = letter("Z"), VAR = letter("V");
const MB = letter("b"), MZ = letter("z"), G3B = letter("3"), G3V = letter("4");
const MOFFS = letter("O"), FAR = letter("P"), ENTER = letter("E"), REL = letter("R");

// Prefix of a byte: its PREFIX bit, or 0x100 + segment, or 0.
const PREFIXES = new Uint16Array(256);
for (
  const [byte, value] of [
    [0xf3, PREFIX.repz],
    [0xf2, PREFIX.repnz],
    [0xf0, PREFIX.lock],
    [0x66, PREFIX.data],
    [0x67, PREFIX.address],
    [0x26, 0x100],
    [0x2e, 0x101],
    [0x36, 0x102],
    [0x3e, 0x103],
    [0x64, 0x104],
    [0x65, 0x105],
  ] as const
) PREFIXES[byte] = value;

const BASE16 = Int8Array.of(3, 3, 5, 5, 6, 7, 5, 3);
const INDEX16 = Int8Array.of(6, 7, 6, 7, -1, -1, -1, -1);

function byte(out: Instruction): number {
  const at = out.length++;
  return at < out.available ? out.source[at] as number : 0;
}

function signed(out: Instruction, size: number): number {
  if (size === 1) return byte(out) << 24 >> 24;
  const low = byte(out) | byte(out) << 8;
  if (size === 2) return low << 16 >> 16;
  return low | byte(out) << 16 | byte(out) << 24;
}

/**
 * Decodes one instruction. A REX prefix counts even when other prefixes follow
 * it, as in QEMU (APM vol. 3 ignores it there).
 *
 * @param bytes Code, from the instruction's first byte.
 * @param count How many of them are valid, at most 15 are used.
 * @param width Width of the code segment.
 * @param out Filled in place.
 * @returns Whether it is complete and not too long.
 * @example
 * ```ts
 * import { decode, Instruction } from "@vmtape/vmtape/engine";
 * const insn = new Instruction();
 * decode(Uint8Array.of(0x0f, 0x01, 0xd9), 3, 64, insn);
 * if (insn.opcode !== 0x101 || insn.modrm !== 0xd9 || insn.length !== 3) throw new Error();
 * ```
 */
export function decode(
  bytes: Uint8Array,
  count: number,
  width: CodeWidth,
  out: Instruction,
): DecodeOutcome {
  out.source = bytes;
  out.length = 0;
  out.available = count < 15 ? count : 15;
  let prefixes = 0;
  let rex = 0;
  out.segment = -1;
  let op = byte(out);
  for (; out.length <= 16; op = byte(out)) {
    const prefix = PREFIXES[op] as number;
    if (prefix === 0) {
      if (width !== 64 || (op & 0xf0) !== 0x40) break;
      prefixes |= PREFIX.rex;
      rex = op & 15;
    } else if (prefix >= 0x100) out.segment = prefix & 7;
    else {
      if ((prefix & 3) !== 0) prefixes &= ~3;
      prefixes |= prefix;
    }
  }
  let shape = M;
  out.imm = out.immHi = out.imm2 = 0;
  if (op === 0x0f) {
    op = 0x100 | byte(out);
    if (op === 0x138) op = 0x200 | byte(out);
    else if (op === 0x13a) {
      op = 0x300 | byte(out);
      shape = MB;
    } else shape = SHAPES[op] as number;
  } else if ((op === 0xc4 || op === 0xc5) && isVex(out, width)) {
    prefixes |= PREFIX.vex;
    const first = byte(out);
    rex = ~first >> 5 & 4;
    let map = 1, last = first;
    if (op === 0xc4) {
      rex |= ~first >> 5 & 3;
      map = first & 31;
      last = byte(out);
      rex |= last >> 4 & 8;
    }
    out.vexRegister = ~last >> 3 & (width === 64 ? 15 : 7);
    out.vexPrefix = last & 3;
    out.vexLong = (last & 4) !== 0;
    const low = byte(out);
    op = map << 8 & 0x300 | low;
    shape = map === 1 ? SHAPES[0x100 | low] as number : map === 3 ? MB : M;
  } else shape = SHAPES[op] as number;
  // EXTRQ and INSERTQ have two immediates.
  if (op === 0x178 && (prefixes & (PREFIX.data | PREFIX.repnz)) !== 0) shape = MB;
  out.opcode = op;
  out.prefixes = prefixes;
  out.rex = rex;
  const data = (prefixes & PREFIX.data) !== 0;
  const address = (prefixes & PREFIX.address) !== 0;
  if (width === 64) {
    out.dflag = (rex & 8) !== 0 ? 3 : data ? 1 : 2;
    out.aflag = address ? 2 : 3;
  } else {
    out.dflag = (width === 32) !== data ? 2 : 1;
    out.aflag = (width === 32) !== address ? 2 : 1;
  }
  const wide = out.dflag === 1 ? 2 : 4;
  out.base = out.index = -1;
  out.scale = out.disp = out.dispHi = 0;
  out.hasModrm = false;
  if (shape === M || shape === MB || shape === MZ || shape === G3B || shape === G3V) {
    modrm(out, width);
  }
  switch (shape) {
    case B:
    case MB:
      out.imm = signed(out, 1);
      if (op === 0x178) out.imm2 = byte(out);
      break;
    case W:
      out.imm = signed(out, 2);
      break;
    case Z:
    case MZ:
    case REL:
      out.imm = signed(out, wide);
      break;
    case VAR:
      out.imm = signed(out, wide);
      if (out.dflag === 3) out.immHi = signed(out, 4);
      break;
    case G3B:
      if ((out.reg & 7) < 2) out.imm = signed(out, 1);
      break;
    case G3V:
      if ((out.reg & 7) < 2) out.imm = signed(out, wide);
      break;
    case MOFFS:
      out.disp = out.aflag === 1 ? signed(out, 2) & 0xffff : signed(out, 4);
      out.dispHi = out.aflag === 3 ? signed(out, 4) : 0;
      break;
    case FAR:
      out.imm = signed(out, wide);
      out.imm2 = signed(out, 2) & 0xffff;
      break;
    case ENTER:
      out.imm = signed(out, 2) & 0xffff;
      out.imm2 = byte(out);
      break;
  }
  if (!(shape === VAR && out.dflag === 3)) out.immHi = out.imm >> 31;
  if (out.length > 15) return "long";
  return out.length > out.available ? "short" : "ok";
}

function isVex(out: Instruction, width: CodeWidth): boolean {
  if (width === 16) return false;
  return width === 64 || (out.length < out.available && (out.source[out.length] as number) >= 0xc0);
}

function modrm(out: Instruction, width: CodeWidth): void {
  const value = byte(out);
  out.hasModrm = true;
  out.modrm = value;
  out.mod = value >> 6;
  out.reg = value >> 3 & 7 | out.rex << 1 & 8;
  out.rm = value & 7 | out.rex << 3 & 8;
  // Moves of control and debug registers ignore ModRM.mod.
  if (out.mod === 3 || (out.opcode >= 0x120 && out.opcode <= 0x123)) return;
  if (out.aflag === 1) {
    const rm = value & 7;
    if (out.mod === 0 && rm === 6) {
      out.disp = signed(out, 2);
      return;
    }
    out.base = BASE16[rm] as number;
    out.index = INDEX16[rm] as number;
    if (out.mod !== 0) out.disp = signed(out, out.mod);
    return;
  }
  let base = value & 7;
  if (base === 4) {
    const sib = byte(out);
    const index = sib >> 3 & 7 | out.rex << 2 & 8;
    if (index !== 4) out.index = index;
    out.scale = sib >> 6;
    base = sib & 7;
    if (base === 5 && out.mod === 0) {
      out.disp = signed(out, 4);
      return;
    }
  } else if (base === 5 && out.mod === 0) {
    if (width === 64) out.base = BASE_RIP;
    out.disp = signed(out, 4);
    return;
  }
  out.base = base | out.rex << 3 & 8;
  if (out.mod === 1) out.disp = signed(out, 1);
  else if (out.mod === 2) out.disp = signed(out, 4);
}
