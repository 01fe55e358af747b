/**
 * How QEMU boots an image of the user's, told by what the image is.
 *
 * @module
 */
import { QemuError, type QemuOptions, QemuProcess } from "./process.ts";
import { type QemuRecordOptions, type QemuRecordResult, recordQemu } from "./recorder.ts";
import type { EventSink } from "../sink.ts";

/** How one kind of image is known and booted. */
interface ImageKind {
  /** What it is. */
  readonly name: string;
  /** Byte offset of its mark; negative counts from the end. */
  readonly offset: number;
  /** The mark: any one of these texts, one character a byte. */
  readonly marks: readonly string[];
  /** QEMU's options for it. */
  args(path: string): string[];
}

/** Kinds in the order in which they are tried. */
const KINDS: readonly ImageKind[] = [
  { name: "ELF kernel", offset: 0, marks: ["\x7fELF"], args: (path) => ["-kernel", path] },
  { name: "Linux kernel", offset: 0x202, marks: ["HdrS"], args: (path) => ["-kernel", path] },
  {
    name: "firmware",
    offset: -16,
    marks: ["\xea", "\xe9", "\xeb", "\x90\xe9", "\x90\x90"],
    args: (path) => ["-bios", path],
  },
  { name: "ISO 9660 image", offset: 0x8001, marks: ["CD001"], args: (path) => ["-cdrom", path] },
  {
    name: "qcow2 disk",
    offset: 0,
    marks: ["QFI\xfb"],
    args: (path) => ["-drive", drive(path, "qcow2")],
  },
  {
    name: "disk",
    offset: 510,
    marks: ["\x55\xaa"],
    args: (path) => ["-drive", drive(path, "raw")],
  },
];

/** The guest's writes go to a temporary file, not to the user's image. A comma in an option's value is doubled. */
function drive(path: string, format: string): string {
  return `file=${path.replaceAll(",", ",,")},format=${format},if=ide,snapshot=on`;
}

/**
 * QEMU's options that boot an image: a kernel (ELF, multiboot, Linux), firmware, an ISO, or a disk.
 *
 * @param path The image.
 * @returns The options.
 * @throws {QemuError} When it cannot be read, or is none of these.
 * @example
 * ```ts
 * import { guestArguments } from "@vmtape/vmtape/traces";
 * const path = await Deno.makeTempFile({ suffix: ".elf" });
 * await Deno.writeTextFile(path, "\x7fELF");
 * const args = await guestArguments(path);
 * await Deno.remove(path);
 * if (args[0] !== "-kernel" || args[1] !== path) throw new Error(args.join(" "));
 * ```
 */
export async function guestArguments(path: string): Promise<string[]> {
  let kind: ImageKind | undefined;
  try {
    const file = await Deno.open(path);
    try {
      kind = await kindOf(file);
    } finally {
      file.close();
    }
  } catch (cause) {
    if (cause instanceof Deno.errors.NotCapable) throw cause;
    const why = cause instanceof Error ? cause.message : String(cause);
    throw new QemuError(`The guest image ${path} cannot be read: ${why}`, "", { cause });
  }
  if (kind === undefined) {
    throw new QemuError(
      `${path} is no image that QEMU boots; expected one of: ${
        KINDS.map((k) => k.name).join(", ")
      }; start QEMU yourself with -gdb tcp::1234 and attach`,
    );
  }
  return kind.args(path);
}

async function kindOf(file: Deno.FsFile): Promise<ImageKind | undefined> {
  const { size, isFile } = await file.stat();
  for (const candidate of isFile ? KINDS : []) {
    const at = candidate.offset < 0 ? size + candidate.offset : candidate.offset;
    const firmware = candidate.offset >= 0 || (size >= 0x10000 && size % 0x10000 === 0);
    if (at < 0 || !firmware) continue;
    await file.seek(at, Deno.SeekMode.Start);
    const bytes = new Uint8Array(8);
    const read = await file.read(bytes) ?? 0;
    const text = String.fromCharCode(...bytes.subarray(0, read));
    if (candidate.marks.some((mark) => text.startsWith(mark))) return candidate;
  }
  return undefined;
}

/**
 * Boots an image in a QEMU of our own, follows its nested transitions, and ends QEMU.
 *
 * @param path The image.
 * @param sink Takes the events; closed at the end, also when QEMU cannot be started.
 * @param options How to follow it, and how to start QEMU.
 * @returns What was recorded.
 * @throws {QemuError} When the image is none, or QEMU cannot be started.
 * @example
 * ```ts
 * import { buildGuest, DEMO_CODE, recordQemuGuest } from "@vmtape/vmtape/traces";
 * const path = await Deno.makeTempFile({ suffix: ".rom" });
 * await Deno.writeFile(path, buildGuest(DEMO_CODE).bytes);
 * const sink = { write() {}, close() {} };
 * try {
 *   const { ended, vmruns } = await recordQemuGuest(path, sink, { limit: 10 });
 *   if (ended !== "done" || vmruns !== 10) throw new Error(ended);
 * } catch (error) {
 *   const { cause } = error as Error;
 *   if (!(cause instanceof Deno.errors.NotFound)) throw error; // QEMU is not installed
 * } finally {
 *   await Deno.remove(path);
 * }
 * ```
 */
export async function recordQemuGuest(
  path: string,
  sink: EventSink,
  options: QemuRecordOptions & { readonly qemu?: QemuOptions } = {},
): Promise<QemuRecordResult> {
  let qemu: QemuProcess;
  try {
    const args = [...await guestArguments(path), ...options.qemu?.args ?? []];
    qemu = await QemuProcess.start({ ...options.qemu, args });
  } catch (error) {
    await sink.close();
    throw error;
  }
  try {
    return await recordQemu(qemu.gdb, sink, { origin: path, ...options });
  } finally {
    await qemu[Symbol.asyncDispose]();
  }
}
