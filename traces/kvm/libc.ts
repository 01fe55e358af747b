/**
 * The C library, as far as a KVM client needs it, by FFI.
 *
 * Memory that the library maps is reached by its copying functions, not by
 * Deno's pointers: those want the whole of `--allow-ffi`, a library by its path
 * does with `--allow-ffi=PATH`.
 *
 * @module
 */
import { errnoText, KvmError } from "./error.ts";

/** Where distributions keep the C library for x86-64: Debian and Ubuntu, Fedora and SUSE, Arch. */
export const LIBC_PATHS: readonly string[] = [
  "/lib/x86_64-linux-gnu/libc.so.6",
  "/lib64/libc.so.6",
  "/usr/lib/libc.so.6",
];

const SYMBOLS = {
  open: { parameters: ["buffer", "i32", "i32"], result: "i32" },
  close: { parameters: ["i32"], result: "i32" },
  read: { parameters: ["i32", "buffer", "usize"], result: "isize" },
  write: { parameters: ["i32", "buffer", "usize"], result: "isize" },
  mkdir: { parameters: ["buffer", "i32"], result: "i32" },
  rmdir: { parameters: ["buffer"], result: "i32" },
  ioctl: { parameters: ["i32", "usize", "usize"], result: "i32" },
  ioctlBuffer: { name: "ioctl", parameters: ["i32", "usize", "buffer"], result: "i32" },
  mmap: { parameters: ["usize", "usize", "i32", "i32", "i32", "i64"], result: "usize" },
  munmap: { parameters: ["usize", "usize"], result: "i32" },
  copyOut: { name: "memcpy", parameters: ["buffer", "usize", "usize"], result: "void" },
  copyIn: { name: "memcpy", parameters: ["usize", "buffer", "usize"], result: "void" },
  errnoAt: { name: "__errno_location", parameters: [], result: "usize" },
  signal: { parameters: ["i32", "pointer"], result: "pointer" },
  // A function that does nothing to the program, whatever it is given.
  abs: { type: "pointer" },
  getThread: { name: "syscall", parameters: ["i64"], result: "i64" },
  makeTimer: { name: "syscall", parameters: ["i64", "i64", "buffer", "buffer"], result: "i64" },
  setTimer: {
    name: "syscall",
    parameters: ["i64", "i64", "i64", "buffer", "usize"],
    result: "i64",
  },
  dropTimer: { name: "syscall", parameters: ["i64", "i64"], result: "i64" },
} as const satisfies Deno.ForeignLibraryInterface;

const SYS = { gettid: 186n, timer_create: 222n, timer_settime: 223n, timer_delete: 226n } as const;
const O_CLOEXEC = 0o2000000;
const PROT_READ_WRITE = 3;
const MAP = { shared: 1, anonymous: 0x20 } as const;
const MAP_FAILED = 0xffff_ffff_ffff_ffffn;
const CLOCK_MONOTONIC = 1n;
const SIGEV_THREAD_ID = 4;
const SIGALRM = 14;

/** open(2) flags. */
export const OPEN = { read: 0, write: 1, readWrite: 2, nonBlocking: 0o4000 } as const;

/** errno values that callers tell apart. */
export const ERRNO = {
  EPERM: 1,
  ENOENT: 2,
  EINTR: 4,
  EAGAIN: 11,
  EACCES: 13,
  EEXIST: 17,
  ENODEV: 19,
  ENOTTY: 25,
} as const;

/** A stretch of memory that the C library mapped. */
export interface Mapping {
  /** Its address in this process. */
  readonly address: bigint;
  /** Bytes. */
  readonly size: number;
}

/** Lets KVM_RUN, and any other call of this thread that waits, return after a time. */
export interface Alarm extends Disposable {
  /**
   * Sets the time.
   *
   * @param ms Milliseconds from now, and again so many after that; 0 for never.
   */
  set(ms: number): void;
}

/** The C library. Every call is made by the thread that runs JavaScript, and blocks it. */
export class Libc implements Disposable {
  /** Where it is. */
  readonly path: string;
  readonly #library: Deno.DynamicLibrary<typeof SYMBOLS>;
  readonly #errno = new Uint8Array(4);
  readonly #errnoAt: bigint;

  private constructor(path: string, library: Deno.DynamicLibrary<typeof SYMBOLS>) {
    this.path = path;
    this.#library = library;
    this.#errnoAt = library.symbols.errnoAt();
  }

  /**
   * Loads it.
   *
   * @param paths Where it may be.
   * @returns The library.
   * @throws {KvmError} `platform` or `ffi`.
   */
  static load(paths: readonly string[] = LIBC_PATHS): Libc {
    const { os, arch } = Deno.build;
    if (os !== "linux" || arch !== "x86_64") {
      throw new KvmError(
        "platform",
        `KVM with SVM is there on Linux on x86-64, not on ${os} ${arch}`,
      );
    }
    let refused = false;
    let why = "";
    for (const path of paths) {
      try {
        return new Libc(path, Deno.dlopen(path, SYMBOLS));
      } catch (error) {
        if (error instanceof Deno.errors.NotCapable) refused = true;
        else why ||= (error as Error).message;
      }
    }
    throw new KvmError(
      "ffi",
      refused
        ? `Deno may not load the C library; run it with -P=record, or with --allow-ffi=${paths[0]}`
        : `The C library is at none of ${paths.join(", ")} (${why})`,
    );
  }

  /** errno of the call before. */
  get errno(): number {
    this.#library.symbols.copyOut(this.#errno, this.#errnoAt, 4n);
    return this.#errno[0]! | this.#errno[1]! << 8;
  }

  /** Opens a file; negative when that fails. */
  open(path: string, flags: number): number {
    return this.#library.symbols.open(cString(path), flags | O_CLOEXEC, 0);
  }

  /** Closes a file. */
  close(fd: number): void {
    this.#library.symbols.close(fd);
  }

  /** Reads; the number of bytes, negative when that fails. */
  read(fd: number, into: Uint8Array<ArrayBuffer>): number {
    return Number(this.#library.symbols.read(fd, into, BigInt(into.length)));
  }

  /** What a small file holds; undefined when it cannot be read. */
  readText(path: string): string | undefined {
    const fd = this.open(path, OPEN.read);
    if (fd < 0) return undefined;
    const bytes = new Uint8Array(1 << 16);
    const length = this.read(fd, bytes);
    this.close(fd);
    return length < 0 ? undefined : new TextDecoder().decode(bytes.subarray(0, length));
  }

  /** Writes a small file that exists; whether that went well. */
  writeText(path: string, text: string): boolean {
    const fd = this.open(path, OPEN.write);
    if (fd < 0) return false;
    const bytes = new TextEncoder().encode(text);
    const written = Number(this.#library.symbols.write(fd, bytes, BigInt(bytes.length)));
    this.close(fd);
    return written === bytes.length;
  }

  /** Makes a folder; whether that went well. */
  mkdir(path: string): boolean {
    return this.#library.symbols.mkdir(cString(path), 0o700) === 0;
  }

  /** Removes an empty folder; whether that went well. */
  rmdir(path: string): boolean {
    return this.#library.symbols.rmdir(cString(path)) === 0;
  }

  /** ioctl(2) with a number, or with a structure. */
  ioctl(fd: number, request: number, argument: number | Uint8Array<ArrayBuffer> = 0): number {
    return typeof argument === "number"
      ? this.#library.symbols.ioctl(fd, BigInt(request), BigInt(argument))
      : this.#library.symbols.ioctlBuffer(fd, BigInt(request), argument);
  }

  /**
   * Maps memory, shared with the kernel: fresh zeroes, or a file's.
   *
   * @param size Bytes.
   * @param fd The file; none for fresh memory.
   * @returns The mapping.
   * @throws {KvmError} `call`.
   */
  map(size: number, fd = -1): Mapping {
    const flags = fd < 0 ? MAP.shared | MAP.anonymous : MAP.shared;
    const address = this.#library.symbols.mmap(0n, BigInt(size), PROT_READ_WRITE, flags, fd, 0n);
    if (address === MAP_FAILED) {
      const { errno } = this;
      throw new KvmError("call", `Mapping ${size} bytes failed: ${errnoText(errno)}`, errno);
    }
    return { address, size };
  }

  /** Unmaps memory. */
  unmap({ address, size }: Mapping): void {
    this.#library.symbols.munmap(address, BigInt(size));
  }

  /**
   * Copies bytes out of a mapping.
   *
   * @throws {RangeError} When they are not all within it.
   */
  load(from: Mapping, offset: number, into: Uint8Array<ArrayBuffer>): void {
    within(from, offset, into.length);
    this.#library.symbols.copyOut(into, from.address + BigInt(offset), BigInt(into.length));
  }

  /**
   * Copies bytes into a mapping.
   *
   * @throws {RangeError} When they are not all within it.
   */
  store(to: Mapping, offset: number, bytes: Uint8Array): void {
    within(to, offset, bytes.length);
    const { address } = to;
    this.#library.symbols.copyIn(
      address + BigInt(offset),
      bytes as Uint8Array<ArrayBuffer>,
      BigInt(bytes.length),
    );
  }

  /** The kernel's number of this thread. */
  get thread(): number {
    return Number(this.#library.symbols.getThread(SYS.gettid));
  }

  /**
   * A timer whose signal goes to this thread and does nothing, but lets a call
   * that waits return with EINTR. It repeats, since a signal that comes just
   * before such a call is lost.
   *
   * @throws {KvmError} `call`.
   */
  alarm(): Alarm {
    const { signal, abs, makeTimer, setTimer, dropTimer } = this.#library.symbols;
    const before = signal(SIGALRM, abs);
    const event = new Uint8Array(64);
    const view = new DataView(event.buffer);
    view.setInt32(8, SIGALRM, true);
    view.setInt32(12, SIGEV_THREAD_ID, true);
    view.setInt32(16, this.thread, true);
    const id = new Int32Array(1);
    if (makeTimer(SYS.timer_create, CLOCK_MONOTONIC, event, id) !== 0n) {
      const { errno } = this;
      throw new KvmError("call", `Making a timer failed: ${errnoText(errno)}`, errno);
    }
    const timer = BigInt(id[0]!);
    const times = new BigInt64Array(4);
    return {
      set(ms) {
        const seconds = BigInt(Math.floor(ms / 1000));
        const nanoseconds = BigInt(Math.floor(ms % 1000 * 1e6));
        times.set([seconds, nanoseconds, seconds, nanoseconds]);
        setTimer(SYS.timer_settime, timer, 0n, times, 0n);
      },
      [Symbol.dispose]() {
        dropTimer(SYS.timer_delete, timer);
        signal(SIGALRM, before);
      },
    };
  }

  /** Lets go of the library. */
  [Symbol.dispose](): void {
    this.#library.close();
  }
}

function cString(text: string): Uint8Array<ArrayBuffer> {
  return new TextEncoder().encode(text + "\0");
}

function within({ size }: Mapping, offset: number, length: number): void {
  if (offset < 0 || offset + length > size) {
    throw new RangeError(`Bytes ${offset} to ${offset + length} are not within ${size}`);
  }
}
