#!/usr/bin/env bash
# Prepares two hypervisors of Debian's to record with `vmtape record qemu --attach`, and boots them:
#   kvm  Debian's kernel with KVM, which runs Debian's own QEMU: SeaBIOS and the same kernel as L2
#   xen  Debian's Xen with a PVH dom0, Debian's kernel
# Needs Debian 12 with qemu-system-x86, seabios, busybox-static and cpio installed. The kernels and
# Xen are downloaded with apt-get; nothing is installed.
#   nested_guests.sh prepare FOLDER [kvm|xen]
#   nested_guests.sh run kvm|xen FOLDER [QEMU OPTION...]
# The console goes to standard output; GDB's stub listens on port PORT of this machine, 1234 when
# that is not set. With -S the guest waits for a debugger.
set -euo pipefail

PORT=${PORT:-1234}

# Downloads a package and unpacks it into a folder of its own.
package() {
  local name=$1 into=$2
  (cd "$into" && apt-get download -q "$name" > /dev/null && dpkg-deb -x "$name"_*.deb "$name" && rm "$name"_*.deb)
}

# The package that a metapackage like linux-image-amd64 stands for today.
behind() {
  apt-cache depends "$1" | sed -n 's/^ *Depends: \(linux-image-[0-9]\S*\)$/\1/p' | head -n 1
}

# Packs a folder as an initramfs.
pack() {
  (cd "$1" && find . | cpio -o -H newc --quiet) | gzip -1 > "$2"
}

# A root folder with busybox and /init.
root() {
  mkdir -p "$1/bin" "$1/dev" "$1/proc" "$1/sys" "$1/tmp"
  cp "$(command -v busybox)" "$1/bin/busybox"
  {
    echo '#!/bin/busybox sh'
    echo '/bin/busybox --install -s /bin'
    echo 'mount -t proc proc /proc; mount -t sysfs sysfs /sys; mount -t devtmpfs dev /dev'
    cat
  } > "$1/init"
  chmod 755 "$1/init"
}

# Copies a program and what its dynamic linker loads, at their places.
program() {
  local from
  for from in "$(command -v "$1")" $(ldd "$(command -v "$1")" | grep -o '/\S*'); do
    mkdir -p "$2$(dirname "$from")"
    cp -L "$from" "$2$from"
  done
}

# Debian's KVM with Debian's QEMU inside.
prepare_kvm() {
  local to=$1 image
  image=$(behind linux-image-cloud-amd64)
  package "$image" "$work"
  root "$work/l2" << 'INIT'
echo "L2 is up: $(uname -r), after $(cut -d' ' -f1 /proc/uptime) s"
poweroff -f
INIT
  root "$work/l1" << 'INIT'
for module in irqbypass kvm kvm-amd; do insmod /$module.ko; done
echo "L1 is up: $(uname -r)"
qemu-system-x86_64 -accel kvm -cpu host -m 96 -nodefaults -display none -no-reboot \
  -serial stdio -bios /usr/share/seabios/bios-256k.bin \
  -kernel /vmlinuz -initrd /l2.initrd -append "console=ttyS0 panic=-1 quiet" < /dev/null
echo "L2 ended with $?"
poweroff -f
INIT
  find "$work/$image/lib" \( -name irqbypass.ko -o -name kvm.ko -o -name kvm-amd.ko \) \
    -exec cp {} "$work/l1/" \;
  cp "$work/$image"/boot/vmlinuz-* "$to/kvm.vmlinuz"
  cp "$to/kvm.vmlinuz" "$work/l1/vmlinuz"
  pack "$work/l2" "$work/l1/l2.initrd"
  program qemu-system-x86_64 "$work/l1"
  mkdir -p "$work/l1/usr/share/seabios" "$work/l1/usr/share/qemu"
  cp -L /usr/share/seabios/bios-256k.bin "$work/l1/usr/share/seabios/"
  cp -L /usr/share/qemu/{linuxboot_dma,kvmvapic}.bin "$work/l1/usr/share/qemu/"
  pack "$work/l1" "$to/kvm.initrd"
}

# Debian's Xen with a PVH dom0; the kernel for the cloud cannot be one.
prepare_xen() {
  local to=$1 image
  image=$(behind linux-image-amd64)
  package "$image" "$work"
  package xen-hypervisor-4.17-amd64 "$work"
  root "$work/dom0" << 'INIT'
echo "dom0 is up: $(uname -r)"
poweroff -f
INIT
  pack "$work/dom0" "$to/xen.initrd"
  cp "$work/$image"/boot/vmlinuz-* "$to/xen.vmlinuz"
  gzip -dc "$work"/xen-hypervisor-4.17-amd64/boot/xen-4.17-amd64.gz > "$to/xen"
}

prepare() {
  local to=$1
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  mkdir -p "$to"
  for guest in "${@:2}"; do "prepare_$guest" "$to"; done
}

run() {
  local which=$1 from=$2
  shift 2
  local options=(-accel tcg -display none -no-reboot -serial stdio -gdb "tcp:127.0.0.1:$PORT")
  case $which in
    kvm) options+=(-cpu max -m 1024 -kernel "$from/kvm.vmlinuz" -initrd "$from/kvm.initrd"
      -append "console=ttyS0 panic=-1 quiet nokaslr") ;;
    # Xen wants an IOMMU for a PVH dom0; RDTSCP and AVX end in #UD in a dom0 on QEMU 7.2.
    xen) options+=(-cpu "max,-rdtscp,-avx" -machine q35 -device "amd-iommu,intremap=on" -m 1024
      -kernel "$from/xen" -append "console=com1 com1=115200,8n1 dom0=pvh dom0_mem=512M iommu=on"
      -initrd "$from/xen.vmlinuz console=hvc0 panic=-1,$from/xen.initrd") ;;
    *) echo "nested_guests.sh: run kvm or xen, not $which" >&2; exit 2 ;;
  esac
  exec qemu-system-x86_64 "${options[@]}" "$@" < /dev/null
}

case "${1:-} ${3:-}" in
  "prepare ") prepare "${2:?a folder}" kvm xen ;;
  "prepare kvm" | "prepare xen") prepare "$2" "$3" ;;
  "run "*) run "${2:?kvm or xen}" "${3:?a folder}" "${@:4}" ;;
  *)
    echo "usage: nested_guests.sh prepare FOLDER [kvm|xen] | run kvm|xen FOLDER [QEMU OPTION...]" >&2
    exit 2
    ;;
esac
