#!/usr/bin/env bash
# A gate for a kernel patch: what do the built-in scenarios do on the kernel before it, and with it?
#
#     examples/ci_gate.sh before.vmtape after.vmtape
#
# Each recording is made inside a virtual machine that runs the kernel, on a host with nested SVM or
# under emulation:
#
#     vmtape record kvm -o before.vmtape
#
# Ends with 1 when one kernel enters L2 where the other does not, and prints every finding either way.
set -euo pipefail
vmtape=${VMTAPE:-vmtape}
before=${1:?a recording of the kernel before the patch}
after=${2:?a recording of the kernel with it}

$vmtape info "$before" | grep -m1 '^ *session'
$vmtape info "$after" | grep -m1 '^ *session'
status=0
$vmtape diff "$before" "$after" --format markdown --fail-on outcome || status=$?
case $status in
  0) echo "No outcome differs." ;;
  1) echo "An outcome differs: see above." ;;
  *) echo "The recordings could not be compared." ;;
esac
exit "$status"
