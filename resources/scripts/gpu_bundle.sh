#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Collects what a GPU machine needs to test this build: programs, every shared library down to the C library, golden
# files, run.sh. The folder runs from anywhere on x86-64 Linux; see resources/docs/cuda.md.
#   gpu_bundle.sh BUILD_DIR OUT_DIR
set -euo pipefail
[ $# = 2 ] || { echo "usage: gpu_bundle.sh BUILD_DIR OUT_DIR" >&2; exit 2; }
root=$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/../.." && pwd)
build=$(cd "$1" && pwd)
out=$2
limit_mib=60
die() { echo "gpu_bundle: $*" >&2; exit 1; }

programs=(sparsight_kernels_tests sparsight_core_tests sparsight-cli sparsight-bench)
for program in "${programs[@]}"; do
  [ -x "$build/bin/$program" ] || die "$build/bin/$program is missing; build it first (./dev build)"
done
have_cuda=""
if [ -f "$build/kernels/CMakeFiles/sparsight_kernels_cuda.dir/cuda/map_kernels.cu.o" ]; then
  have_cuda=yes
else
  echo "gpu_bundle: this build has no CUDA kernels (nvcc was not found): the bundle tests the CPU only" >&2
fi

rm -rf "$out"
mkdir -p "$out"/{bin,lib,libc,data}
out=$(cd "$out" && pwd)
for program in "${programs[@]}"; do
  install -m 755 "$build/bin/$program" "$out/bin/$program"
  strip --strip-unneeded "$out/bin/$program"
done

# Every library that the programs load, resolved. The C library's own parts apart from the rest: with the machine's
# loader they must be the machine's.
libraries=$(for program in "${programs[@]}"; do ldd "$build/bin/$program"; done | awk '/=> \// {print $3} /^\t\// {print $1}' | sort -u)
if grep -q libcuda <<<"$libraries"; then die "a program links libcuda: it would not start without a driver"; fi
for library in $libraries; do
  name=$(basename "$library")
  case $name in
    ld-linux*|libc.so*|libm.so*|libpthread.so*|libdl.so*|librt.so*|libresolv.so*|libutil.so*|libnsl.so*|libmvec.so*|libanl.so*|libnss_*)
      install -m 755 "$(readlink -f "$library")" "$out/libc/$name" ;;
    *) install -m 644 "$(readlink -f "$library")" "$out/lib/$name" ;;
  esac
done
# What the driver's library wants of the C library, though the programs do not.
c_library=$(dirname "$(ldd "$build/bin/sparsight-cli" | awk '$1 == "libc.so.6" {print $3}')")
for name in libdl.so.2 libpthread.so.0 librt.so.1 libm.so.6; do
  [ -e "$out/libc/$name" ] || { [ -e "$c_library/$name" ] && install -m 755 "$(readlink -f "$c_library/$name")" "$out/libc/$name"; } || true
done
[ -x "$out/libc/ld-linux-x86-64.so.2" ] || die "the loader was not found among the libraries"

# A synthetic trace of head dimension 64 is always there; the committed goldens go along for checks by hand.
"$build/bin/sparsight-cli" --quiet synth "$out/data/trace_synthetic.h5" --grid 3,8,8 --text 16 --layers 1 --heads 2 \
  --steps 1 --head-dim 64 || die "sparsight-cli synth failed"
if [ -d "$root/tests/golden" ]; then
  mkdir -p "$out/golden"
  find "$root/tests/golden" -type f -size -2000k -exec install -m 644 {} "$out/golden/" \;
fi
# Traces of the test data, smallest first, while there is room: they exercise the whole program on both backends.
data=$(sed -n 's/^SPARSIGHT_TEST_DATA:PATH=//p' "$build/CMakeCache.txt")
if [ -n "$data" ] && [ -d "$data/golden" ]; then
  find "$data/golden" -name 'trace_*.h5' -size -800k -exec install -m 644 {} "$out/data/" \;
  # What the golden cases of the device read.
  mkdir -p "$out/golden-data/golden"
  for case in B_hunyuan_video; do
    for name in svg1 svg2 svoo trace; do
      install -m 644 "$data/golden/${name}_$case.h5" "$out/golden-data/golden/"
    done
  done
fi

install -m 755 "$root/resources/gpu/run.sh" "$out/run.sh"
commit=$(git -C "$root" rev-parse HEAD 2>/dev/null || echo unknown)
[ -z "$(git -C "$root" status --porcelain 2>/dev/null | head -n 1)" ] || commit="$commit with local changes"
{
  echo "commit $commit"
  echo "built $(date -u +%Y-%m-%dT%H:%M:%SZ)"
  echo "architectures $([ -n "$have_cuda" ] && sed -n 's/^SPARSIGHT_CUDA_ARCHITECTURES:[A-Z]*=//p' "$build/CMakeCache.txt" || echo none)"
} >"$out/BUILD"

size_kib=$(du -sk "$out" | cut -f1)
[ "$size_kib" -le $((limit_mib * 1024)) ] || die "the bundle has $((size_kib / 1024)) MiB, above $limit_mib: $(du -sk "$out"/* | sort -n | tail -n 1)"
echo "gpu_bundle: $out, $((size_kib / 1024)) MiB; on the GPU machine: ./run.sh --require-gpu"
