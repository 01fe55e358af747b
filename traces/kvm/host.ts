/**
 * What the machine is that KVM runs on, and what keeps it from being recorded.
 *
 * @module
 */
import { errnoText, KvmError } from "./error.ts";
import { ERRNO, type Libc, OPEN } from "./libc.ts";
import { IOCTL, KVM_CAPS } from "./structs.ts";

/** What of the C library is needed to find out about the machine. */
export type HostLibc = Pick<Libc, "readText" | "open" | "ioctl" | "errno">;

/** The version that KVM's API has had since Linux 2.6.22. */
const API_VERSION = 12;

/** KVM, opened, and what is known about its machine. */
export interface KvmHost {
  /** Release of the kernel, such as `6.12.117`. */
  readonly kernel: string;
  /** Name of the processor. */
  readonly processor: string;
  /** Whether KVM uses nested paging itself (`kvm_amd.npt`); undefined when it does not say. */
  readonly npt: boolean | undefined;
  /** Whether KVM emulates system management mode, with memory of its own. */
  readonly smm: boolean;
}

function parameter(libc: HostLibc, name: string): boolean | undefined {
  const text = libc.readText(`/sys/module/kvm_amd/parameters/${name}`)?.trim();
  return text === undefined ? undefined : text === "Y" || text === "1";
}

/** What the processor is, by /proc/cpuinfo; unknown where there is none. */
function processorOf(libc: HostLibc): { vendor: string; name: string; svm: boolean | undefined } {
  const text = libc.readText("/proc/cpuinfo") ?? "";
  const value = (key: string) => new RegExp(`^${key}\\s*: (.*)$`, "m").exec(text)?.[1]?.trim();
  const flags = value("flags");
  return {
    vendor: value("vendor_id") ?? "",
    name: value("model name") ?? "unknown",
    svm: flags === undefined ? undefined : flags.split(" ").includes("svm"),
  };
}

/** AMD's, and Hygon's, which has the same SVM. */
const SVM_VENDORS = ["AuthenticAMD", "HygonGenuine", ""];

/**
 * Opens KVM, or says why it cannot be recorded from.
 *
 * @param libc The C library.
 * @param device KVM's device.
 * @returns File descriptor of the device.
 * @throws {KvmError} With what to do about it.
 */
export function openKvm(libc: HostLibc, device: string): number {
  const { vendor, svm } = processorOf(libc);
  if (!SVM_VENDORS.includes(vendor)) {
    throw new KvmError(
      "processor",
      `This processor is ${vendor}'s, which has VMX; nested SVM is there on AMD's only. ` +
        "`vmtape record qemu` and the built-in emulator run the same scenarios anywhere",
    );
  }
  const fd = libc.open(device, OPEN.readWrite);
  if (fd >= 0) return fd;
  const { errno } = libc;
  if (errno === ERRNO.EACCES || errno === ERRNO.EPERM) {
    throw new KvmError(
      "permission",
      `You may not open ${device}; become a member of its group (sudo usermod -aG kvm $USER, ` +
        "then log in again)",
      errno,
    );
  }
  if (errno !== ERRNO.ENOENT && errno !== ERRNO.ENODEV) {
    throw new KvmError("no-kvm", `${device} cannot be opened: ${errnoText(errno)}`, errno);
  }
  throw new KvmError(
    "no-kvm",
    svm === false
      ? `There is no ${device}, and the processor offers no SVM: enable it in the firmware, or, ` +
        "in a virtual machine, nested virtualization in its hypervisor"
      : `There is no ${device}: load KVM (sudo modprobe kvm_amd nested=1)`,
    errno,
  );
}

/** Capabilities that recording cannot do without. */
const NEEDED: readonly (keyof typeof KVM_CAPS)[] = [
  "KVM_CAP_USER_MEMORY",
  "KVM_CAP_EXT_CPUID",
  "KVM_CAP_USER_NMI",
  "KVM_CAP_VCPU_EVENTS",
  "KVM_CAP_DEBUGREGS",
  "KVM_CAP_NESTED_STATE",
];

/** What is asked for before anything is recorded, and by tests of nothing but that. */
export interface HostQuestions {
  /** KVM_CHECK_EXTENSION. */
  capability(name: keyof typeof KVM_CAPS): number;
  /** Answer to KVM_GET_API_VERSION. */
  readonly version: number;
  /** The module's parameter `nested`; undefined when it is not there. */
  readonly nested: boolean | undefined;
  /** The processor shows SVM; undefined when it is not known. */
  readonly svm: boolean | undefined;
  /** Whether system management mode is needed. */
  readonly needsSmm: boolean;
  /** Whether all state must be read and restored. */
  readonly needsMigration?: boolean;
}

/**
 * Checks that KVM has what recording needs.
 *
 * @param host The answers.
 * @param device KVM's device, for messages.
 * @throws {KvmError} With what to do about it.
 */
export function checkHost(host: HostQuestions, device: string): void {
  if (host.version !== API_VERSION) {
    throw new KvmError(
      "not-kvm",
      host.version < 0
        ? `${device} is not KVM's device`
        : `${device} speaks version ${host.version} of KVM's API; ${API_VERSION} is known here`,
    );
  }
  if (host.nested === false) {
    throw new KvmError(
      "nested",
      "KVM runs without nested virtualization: stop all virtual machines, then " +
        "sudo modprobe -r kvm_amd && sudo modprobe kvm_amd nested=1",
    );
  }
  const without = NEEDED.find((name) => host.capability(name) <= 0);
  if (without !== undefined && host.nested === undefined && host.svm === false) {
    throw new KvmError(
      "nested",
      "KVM is there without SVM: the processor offers none; enable it in the firmware, or, in a " +
        "virtual machine, nested virtualization in its hypervisor",
    );
  }
  if (without !== undefined) {
    throw new KvmError(
      "capability",
      `This kernel's KVM lacks ${without}, which recording needs; run a newer kernel`,
    );
  }
  if (host.needsSmm && !hasSmm(host)) {
    throw new KvmError(
      "capability",
      "This kernel's KVM has no system management mode (CONFIG_KVM_SMM); leave out the " +
        "scenarios with entry=rsm",
    );
  }
  const missing = TO_MIGRATE.find((name) => host.capability(name) <= 0);
  if (host.needsMigration === true && missing !== undefined) {
    throw new KvmError(
      "capability",
      `This kernel's KVM lacks ${missing}; leave out the scenarios with entry=migrate`,
    );
  }
}

/** Capabilities that moving a vCPU's state to another virtual machine takes besides. */
const TO_MIGRATE = ["KVM_CAP_IMMEDIATE_EXIT", "KVM_CAP_SREGS2"] as const;

function hasSmm({ capability }: Pick<HostQuestions, "capability">): boolean {
  return capability("KVM_CAP_X86_SMM") > 0 && capability("KVM_CAP_MULTI_ADDRESS_SPACE") >= 2;
}

/**
 * Asks an opened KVM what is needed, and what is worth noting of its machine.
 *
 * @param libc The C library.
 * @param fd KVM's device.
 * @param device Its name.
 * @param needsSmm Whether system management mode is needed.
 * @param needsMigration Whether all state must be read and restored.
 * @returns What is noted.
 * @throws {KvmError} When it cannot be recorded from.
 */
export function askHost(
  libc: HostLibc,
  fd: number,
  device: string,
  needsSmm: boolean,
  needsMigration = false,
): KvmHost {
  const { name, svm } = processorOf(libc);
  const capability = (cap: keyof typeof KVM_CAPS) =>
    libc.ioctl(fd, IOCTL.KVM_CHECK_EXTENSION, KVM_CAPS[cap]);
  const version = libc.ioctl(fd, IOCTL.KVM_GET_API_VERSION);
  const nested = parameter(libc, "nested");
  checkHost({ capability, version, nested, svm, needsSmm, needsMigration }, device);
  return {
    kernel: libc.readText("/proc/sys/kernel/osrelease")?.trim() ?? "unknown",
    processor: name,
    npt: parameter(libc, "npt"),
    smm: hasSmm({ capability }),
  };
}
