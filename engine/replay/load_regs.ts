/**
 * Loading L1's registers and pages from a trace's images.
 *
 * @module
 */
import type { Image } from "../event.ts";
import { fitImage, overlayImage } from "../image/fields.ts";
import { clearNestedState, look, looked, setHsave, setRegs, setSregs } from "../kvm/ioctls.ts";
import { runVcpu } from "../kvm/run.ts";
import type { Vcpu } from "../kvm/vcpu.ts";
import { offsets } from "../layout.ts";
import { MAPPED_AT, V } from "../svm/machine.ts";
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

/** Reads fields of a `regs` image that lies in the work area. */
class Reader {
  readonly #v: Vcpu;
  readonly #known: Uint8Array | undefined;

  constructor(v: Vcpu, known: Uint8Array | undefined) {
    this.#v = v;
    this.#known = known;
  }

  u64(at: number): bigint {
    return this.#v.u64(MAPPED_AT + at);
  }

  u8(at: number): number {
    return this.#v.u8(MAPPED_AT + at);
  }

  knows(at: number): boolean {
    return this.#known === undefined || this.#known[at] === 0xff;
  }

  segment(at: number): { selector: number; attrib: number; limit: number; base: bigint } {
    const v = this.#v, from = MAPPED_AT + at;
    return {
      selector: v.u16(from),
      attrib: v.u16(from + 2),
      limit: v.u32(from + 4),
      base: v.u64(from + 8),
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
  ["ldtr", R.ldtr_selector],
  ["tr", R.tr_selector],
] as const;

/**
 * Loads L1's registers as userspace does: control registers and segments, the others, VM_HSAVE_PA, GIF.
 *
 * @param v The vCPU.
 * @param image Its registers; the work area holds them meanwhile.
 */
export function loadRegs(v: Vcpu, image: Image): void {
  v.bytes.set(image.bytes, MAPPED_AT);
  load(v, image.known);
}

/**
 * Loads them all from the work area, looks at the vCPU as userspace does before it runs it, and runs it.
 *
 * @param v The vCPU; who listens to it hears of the run alone.
 */
export function loadAndRun(v: Vcpu): void {
  const { observer } = v;
  v.observer = undefined;
  load(v, undefined);
  look(v);
  looked(v);
  v.observer = observer;
  observer?.looker?.look(v);
  runVcpu(v);
}

function load(v: Vcpu, known: Uint8Array | undefined): void {
  const r = new Reader(v, known);
  const segments: Record<string, ReturnType<Reader["segment"]>> = {};
  for (const [name, at] of SEGMENT_AT) {
    if (r.knows(at + 4)) segments[name] = r.segment(at);
  }
  const sregs = { cr0: r.u64(R.cr0), cr3: r.u64(R.cr3), cr4: r.u64(R.cr4), efer: r.u64(R.efer) };
  // What KVM refused to load left no trace in the vCPU, and so none in the recording.
  setSregs(v, r.knows(R.cr0) ? { ...sregs, segments } : undefined);
  setRegs(v, { rip: r.u64(R.rip), rax: r.u64(R.rax), rsp: r.u64(R.rsp), rflags: r.u64(R.rflags) });
  for (let i = 0; i < 16; i++) {
    if (r.knows(i * 8)) v.copy64(V.rax + i * 8, MAPPED_AT + i * 8);
  }
  setHsave(v, r.knows(R.hsave_pa) ? r.u64(R.hsave_pa) : 0x20000n);
  clearNestedState(v, !r.knows(R.gif) || r.u8(R.gif) !== 0);
}

/** Loads what is handed in of L2's registers before nested state is restored. */
export function loadL2Regs(v: Vcpu, image: Image): void {
  v.bytes.set(image.bytes, MAPPED_AT);
  const r = new Reader(v, image.known);
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
