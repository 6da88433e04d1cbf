#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Compiles the CUDA kernels for every shipped architecture with all warnings as errors, and checks the registers, spills
# and shared memory that ptxas reports against resources/gpu/kernel_limits.txt. Needs nvcc, no GPU and no driver.
# The kernels with wgmma (kernels/cuda/sm90a) go with architecture 90; ptxas may not have put their products in a row.
#   resources/scripts/cuda_resources.sh [--print] [ARCH ...]      ARCH: 80, 90, ...; default: all that are shipped
set -euo pipefail
root=$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/../.." && pwd)
limits=$root/resources/gpu/kernel_limits.txt
print=0
[ "${1:-}" = --print ] && { print=1; shift; }
architectures=("$@")
[ ${#architectures[@]} -gt 0 ] || architectures=(75 80 86 89 90 100 120)
nvcc=${NVCC:-$(command -v nvcc || echo /usr/local/cuda/bin/nvcc)}
[ -x "$nvcc" ] || { echo "cuda_resources: nvcc not found; set NVCC" >&2; exit 2; }

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
compile() {  # ARCH SOURCE
  local arch=$1 source=$2
  "$nvcc" -std=c++20 -O3 -DNDEBUG -lineinfo --expt-relaxed-constexpr -Werror=all-warnings -Xcompiler=-Wall,-Wextra \
    -I"$root/kernels" -I"$root/kernels/include" -Xptxas -v -gencode "arch=compute_$arch,code=sm_$arch" \
    -c "$source" -o "$work/kernels.o" >"$work/log" 2>&1 ||
    { cat "$work/log" >&2; echo "cuda_resources: $(basename "$source") does not compile for sm_$arch" >&2; exit 1; }
  if grep -E '\(C75[01][0-9]\)' "$work/log" >"$work/products"; then
    c++filt <"$work/products" >&2
    echo "cuda_resources: $(basename "$source"): asynchronous products are waited for at once" >&2; exit 1
  fi
  c++filt <"$work/log" >>"$work/report"
}
for arch in "${architectures[@]}"; do
  for source in "$root"/kernels/cuda/*.cu; do compile "$arch" "$source"; done
  if [ "$arch" = 90 ]; then
    for source in "$root"/kernels/cuda/sm90a/*.cu; do compile 90a "$source"; done
  fi
done

awk -v print_all=$print -v limits="$limits" '
  BEGIN {
    while ((getline line < limits) > 0) {
      if (line ~ /^#/ || line ~ /^[ \t]*$/) continue
      split(line, field, " ")
      registers[field[1]] = field[2]; spills[field[1]] = field[3]; shared[field[1]] = field[4]
    }
  }
  /Compiling entry function/ {
    arch = $0; sub(/.* for ./, "", arch); gsub(/[^a-z0-9_]/, "", arch)
    name = $0; sub(/.*entry function ./, "", name); sub(/. for .*/, "", name)
    gsub(/\(anonymous namespace\)::/, "", name); sub(/\(.*/, "", name)
    gsub(/sparsight::cuda::|void | /, "", name)
  }
  /spill stores/ { match($0, /[0-9]+ bytes spill stores/); spill = substr($0, RSTART, RLENGTH) + 0 }
  /Used [0-9]+ registers/ {
    match($0, /Used [0-9]+/); used = substr($0, RSTART + 5, RLENGTH - 5) + 0
    smem = 0; if (match($0, /[0-9]+ bytes smem/)) smem = substr($0, RSTART, RLENGTH) + 0
    if (print_all) printf "%-8s %-34s %4d registers %4d spilled bytes %6d shared bytes\n", arch, name, used, spill, smem
    if (!(name in registers)) { printf "%s %s: not in kernel_limits.txt\n", arch, name; bad = 1 }
    else if (used > registers[name] || spill > spills[name] || smem > shared[name]) {
      printf "%s %s: %d registers, %d spilled bytes, %d shared bytes; limits %d, %d, %d\n", arch, name, used, spill, smem,
             registers[name], spills[name], shared[name]; bad = 1
    }
    ++kernels
  }
  END {
    if (kernels == 0) { print "no kernel was reported"; exit 1 }
    if (!bad) printf "%d kernels within their limits\n", kernels
    exit bad
  }' "$work/report"
