/**
 * Loading L1's registers and pages from a trace's images.
 *
 * @module
 */
import type { Image } from "../event.ts";
import { fitImage, overlayImage } from "../image/fields.ts";
import { clearNestedState, setHsave, setRegs, setSregs } from "../kvm/ioctls.ts";
import type { Vcpu } from "../kvm/vcpu.ts";
import { offsets } from "../layout.ts";
import { V } from "../svm/machine.ts";
import { PAGE_SIZE } from "../svm/memory.ts";
import { REGS_FIELDS, REGS_LAYOUT } from "../svm/regs_layout.ts";
import { ReplayError } from "./replay_error.ts";

const R = offsets(REGS_FIELDS);

/** Registers as they are laid out now; those that a run cannot begin without have to be there. */
export function wholeRegs(image: Image, event: number): Image {
  if (image.bytes.length < R.hsave_pa) {
    throw new ReplayError(
      `The registers have ${image.bytes.length} bytes, too few to begin from; record them whole`,
      event,
    );
  }
  return fitImage(REGS_LAYOUT, image);
}

/** Writes what is known of a page into guest memory. */
export function writePage(v: Vcpu, gpa: number, image: Image): void {
  if (!v.memory.backed(gpa, PAGE_SIZE)) return;
  const { bytes, known } = image;
  if (known === undefined && bytes.length === PAGE_SIZE && gpa % PAGE_SIZE === 0) {
    v.memory.replace(gpa, bytes);
    return;
  }
  overlayImage(v.memory.writable(gpa), image);
}

/** Reads fields of a `regs` image. */
class Reader {
  readonly #bytes: Uint8Array;
  readonly #known: Uint8Array | undefined;
  readonly #view: DataView;

  constructor(image: Image) {
    this.#bytes = image.bytes;
    this.#known = image.known;
    this.#view = new DataView(image.bytes.buffer, image.bytes.byteOffset);
  }

  u64(at: number): bigint {
    return this.#view.getBigUint64(at, true);
  }

  copy64(v: Vcpu, to: number, at: number): void {
    v.set32(to, this.#view.getUint32(at, true));
    v.set32(to + 4, this.#view.getUint32(at + 4, true));
  }

  u8(at: number): number {
    return this.#bytes[at] as number;
  }

  knows(at: number): boolean {
    return this.#known === undefined || this.#known[at] === 0xff;
  }

  segment(at: number): { selector: number; attrib: number; limit: number; base: bigint } {
    return {
      selector: this.#view.getUint16(at, true),
      attrib: this.#view.getUint16(at + 2, true),
      limit: this.#view.getUint32(at + 4, true),
      base: this.#view.getBigUint64(at + 8, true),
    };
  }
}

const SEGMENT_AT = [
  ["es", R.es_selector],
  ["cs", R.cs_selector],
  ["ss", R.ss_selector],
  ["ds", R.ds_selector],
  ["fs", R.fs_selector],
  ["gs", R.gs_selector],
] as const;

/** Loads L1's registers as userspace does: control registers and segments, the others, VM_HSAVE_PA, GIF. */
export function loadRegs(v: Vcpu, image: Image): void {
  const r = new Reader(image);
  const segments: Record<string, ReturnType<Reader["segment"]>> = {};
  for (const [name, at] of SEGMENT_AT) {
    if (r.knows(at + 4)) segments[name] = r.segment(at);
  }
  const sregs = { cr0: r.u64(R.cr0), cr3: r.u64(R.cr3), cr4: r.u64(R.cr4), efer: r.u64(R.efer) };
  // What KVM refused to load left no trace in the vCPU, and so none in the recording.
  setSregs(v, r.knows(R.cr0) ? { ...sregs, segments } : undefined);
  setRegs(v, { rip: r.u64(R.rip), rax: r.u64(R.rax), rsp: r.u64(R.rsp), rflags: r.u64(R.rflags) });
  for (let i = 0; i < 16; i++) {
    if (r.knows(i * 8)) r.copy64(v, V.rax + i * 8, i * 8);
  }
  setHsave(v, r.knows(R.hsave_pa) ? r.u64(R.hsave_pa) : 0x20000n);
  clearNestedState(v, !r.knows(R.gif) || r.u8(R.gif) !== 0);
}

/** Loads what is handed in of L2's registers before nested state is restored. */
export function loadL2Regs(v: Vcpu, image: Image): void {
  const r = new Reader(image);
  setSregs(v, {
    cr0: r.u64(R.cr0),
    cr3: r.u64(R.cr3),
    cr4: r.u64(R.cr4),
    efer: r.u64(R.efer),
    segments: {},
  });
  setRegs(v, {
    rip: r.u64(R.rip),
    rsp: r.u64(R.rsp),
    rax: r.u64(R.rax),
    rflags: r.u64(R.rflags),
  });
}
