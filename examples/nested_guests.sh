#!/usr/bin/env bash
# Prepares two hypervisors of Debian's to record with `vmtape record qemu --attach`:
#   kvm  Debian's kernel with KVM, which runs Debian's own QEMU: SeaBIOS and the same kernel as L2
#   xen  Debian's Xen with a PVH dom0, Debian's kernel
# Needs Debian 12 with qemu-system-x86, seabios, busybox-static and cpio installed; the kernels
# and Xen are downloaded with apt-get, and nothing is installed.
#   examples/nested_guests.sh prepare FOLDER
#   examples/nested_guests.sh run kvm|xen FOLDER [QEMU OPTION...]
# The second waits for a debugger on port 1234 of this machine only when told so (-S); its
# console is on standard output.
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

prepare() {
  local to=$1 cloud generic
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  mkdir -p "$to"
  cloud=$(behind linux-image-cloud-amd64)
  generic=$(behind linux-image-amd64)
  package "$cloud" "$work"
  package "$generic" "$work"
  package xen-hypervisor-4.17-amd64 "$work"

  # L2 of the first: it says that it is up, and ends.
  root "$work/l2" <<'INIT'
echo "L2 is up: $(uname -r) on $(grep -m1 -o 'KVM\|TCG\|AMD' /proc/cpuinfo), $(grep -c ^processor /proc/cpuinfo) CPU, after $(cut -d' ' -f1 /proc/uptime) s"
poweroff -f
INIT
  pack "$work/l2" "$work/l2.initrd"

  # Its L1.
  root "$work/l1" <<'INIT'
for module in irqbypass kvm kvm-amd; do insmod /$module.ko; done
echo "L1 is up: $(uname -r)"
qemu-system-x86_64 -accel kvm -cpu host -m 96 -nodefaults -display none -no-reboot \
  -serial stdio -bios /usr/share/seabios/bios-256k.bin \
  -kernel /vmlinuz -initrd /l2.initrd -append "console=ttyS0 panic=-1 quiet" < /dev/null
echo "L2 ended with $?"
poweroff -f
INIT
  find "$work/$cloud/lib" \( -name irqbypass.ko -o -name kvm.ko -o -name kvm-amd.ko \) \
    -exec cp {} "$work/l1/" \;
  cp "$work/$cloud"/boot/vmlinuz-* "$to/kvm.vmlinuz"
  cp "$to/kvm.vmlinuz" "$work/l1/vmlinuz"
  cp "$work/l2.initrd" "$work/l1/"
  program qemu-system-x86_64 "$work/l1"
  mkdir -p "$work/l1/usr/share/seabios" "$work/l1/usr/share/qemu"
  cp -L /usr/share/seabios/bios-256k.bin "$work/l1/usr/share/seabios/"
  cp -L /usr/share/qemu/{linuxboot_dma,kvmvapic}.bin "$work/l1/usr/share/qemu/"
  pack "$work/l1" "$to/kvm.initrd"

  # Xen's dom0.
  root "$work/dom0" <<'INIT'
echo "dom0 is up: $(uname -r) on Xen"
sleep 1
poweroff -f
INIT
  pack "$work/dom0" "$to/xen.initrd"
  cp "$work/$generic"/boot/vmlinuz-* "$to/xen.vmlinuz"
  gzip -dc "$work"/xen-hypervisor-4.17-amd64/boot/xen-4.17-amd64.gz > "$to/xen"
}

run() {
  local which=$1 from=$2
  shift 2
  local options=(-accel tcg -display none -no-reboot -serial stdio -gdb "tcp:127.0.0.1:$PORT")
  case $which in
    kvm) options+=(-cpu max -m 1024 -kernel "$from/kvm.vmlinuz" -initrd "$from/kvm.initrd"
      -append "console=ttyS0 panic=-1 quiet nokaslr") ;;
    # Xen wants an IOMMU for a PVH dom0; RDTSCP and AVX end in #UD in a dom0 on QEMU 7.2.
    xen) options+=(-cpu max,-rdtscp,-avx -machine q35 -device amd-iommu,intremap=on -m 1024
      -kernel "$from/xen" -append "console=com1 com1=115200,8n1 dom0=pvh dom0_mem=512M iommu=on"
      -initrd "$from/xen.vmlinuz console=hvc0 panic=-1,$from/xen.initrd") ;;
    *) echo "nested_guests.sh: run kvm or xen, not $which" >&2; exit 2 ;;
  esac
  exec qemu-system-x86_64 "${options[@]}" "$@" < /dev/null
}

case ${1:-} in
  prepare) prepare "${2:?usage: nested_guests.sh prepare FOLDER}" ;;
  run) run "${2:?usage: nested_guests.sh run kvm|xen FOLDER}" "${3:?a folder}" "${@:4}" ;;
  *) echo "usage: nested_guests.sh prepare FOLDER | run kvm|xen FOLDER [QEMU OPTION...]" >&2; exit 2 ;;
esac
