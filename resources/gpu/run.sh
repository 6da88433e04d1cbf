#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Runs the bundle on this machine: kernel tests (GPU cases included where a device is found), memory and race checks
# where compute-sanitizer is installed, the command line on the bundled traces, benchmarks. Writes results.json.
#   ./run.sh [--require-gpu] [--quick] [--out DIR]
#     --require-gpu  a missing device, or a driver that is too old, is a failure instead of skipped cases
#     --quick        no benchmarks, no sanitizer
#     --out DIR      where results go; default ./results beside this script
# Needs a POSIX shell and an x86-64 Linux kernel; nothing else has to be installed.
set -u
here=$(cd "$(dirname "$0")" && pwd)
require=0; quick=0; out=$here/results
while [ $# -gt 0 ]; do
  case $1 in
    --require-gpu) require=1 ;;
    --quick) quick=1 ;;
    --out) [ $# -ge 2 ] || { echo "run.sh: --out needs a folder" >&2; exit 2; }; out=$2; shift ;;
    *) echo "usage: run.sh [--require-gpu] [--quick] [--out DIR]" >&2; exit 2 ;;
  esac
  shift
done
mkdir -p "$out" || exit 2
out=$(cd "$out" && pwd)

# --- how to start the programs ---
# The machine's own loader when its C library is new enough: tools such as compute-sanitizer then work as usual.
# Otherwise the bundled loader and C library; the driver's libraries are added by link, so that nothing else of the
# machine is mixed in.
loader=$here/libc/ld-linux-x86-64.so.2
driver=$out/driver
rm -rf "$driver"
start() {  # PROGRAM ARGS...
  program=$1; shift
  if [ "$mode" = machine ]; then
    LD_LIBRARY_PATH=$here/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH} "$here/bin/$program" "$@"
  else
    "$loader" --library-path "$here/lib:$here/libc:$driver" "$here/bin/$program" "$@"
  fi
}
mode=machine
if ! start sparsight_kernels_tests --gtest_list_tests >/dev/null 2>&1; then
  mode=bundled
  mkdir -p "$driver"
  found=$(ldconfig -p 2>/dev/null | sed -n 's/.*libcuda\.so\.1 (libc6,x86-64.* => //p' | sed 1q)
  for folder in ${found:+"$(dirname "$found")"} /usr/lib/x86_64-linux-gnu /usr/lib64 /usr/lib /lib64 /usr/lib/wsl/lib \
      /usr/local/nvidia/lib64 /usr/local/nvidia/lib /run/opengl-driver/lib; do
    [ -e "$folder/libcuda.so.1" ] || continue
    for file in "$folder"/libcuda.so* "$folder"/libnvidia-*.so*; do
      [ -e "$file" ] && ln -sf "$file" "$driver/"
    done
    break
  done
  if ! start sparsight_kernels_tests --gtest_list_tests >/dev/null 2>"$out/start.log"; then
    echo "run.sh: the programs do not start here: $(sed 1q "$out/start.log")" >&2
    exit 1
  fi
fi

# --- steps ---
steps=""
failed=0
step() {  # NAME STATUS DETAIL
  printf '%-12s %-8s %s\n' "$1" "$2" "$3"
  detail=$(printf '%s' "$3" | sed 's/\\/\\\\/g; s/"/\\"/g')
  steps="$steps${steps:+,}
    {\"name\": \"$1\", \"status\": \"$2\", \"detail\": \"$detail\"}"
  [ "$2" = failed ] && failed=1
  return 0
}

device=none; driver_version=none
if command -v nvidia-smi >/dev/null 2>&1; then
  line=$(nvidia-smi --query-gpu=name,driver_version --format=csv,noheader 2>/dev/null | sed 1q)
  [ -n "$line" ] && { device=${line%%,*}; driver_version=${line#*, }; }
fi
[ $require = 1 ] && { SPARSIGHT_REQUIRE_GPU=1; export SPARSIGHT_REQUIRE_GPU; }

# The operation table against the oracle, on the device. Its skip or failure says what the machine lacks.
start sparsight_kernels_tests --gtest_filter='BackendOpsGpu*' --gtest_output="json:$out/gpu-tests.json" >"$out/gpu-tests.log" 2>&1
code=$?
missing=$(sed -n 's/.*NOT run on a GPU: //p; s/.*SPARSIGHT_REQUIRE_GPU is set, but //p' "$out/gpu-tests.log" | sed 1q)
gpu=1; [ -n "$missing" ] && gpu=0
if [ $require = 1 ] && [ -n "$missing" ]; then echo "run.sh: --require-gpu, but $missing" >&2; fi
if [ $code != 0 ]; then step gpu failed "${missing:-exit code $code, see gpu-tests.log}"
elif [ $gpu = 0 ]; then step gpu skipped "$missing"
else step gpu passed "$device, driver $driver_version (gpu-tests.log)"; fi

# The same table on the paths that the best one of a newer device leaves out. One that the device lacks is refused by
# name.
for path in portable mma; do
  if [ $gpu = 0 ]; then step gpu-$path skipped "no device"; continue; fi
  SPARSIGHT_CUDA_PATH=$path; export SPARSIGHT_CUDA_PATH
  start sparsight_kernels_tests --gtest_filter='BackendOpsGpu*' >"$out/gpu-$path.log" 2>&1
  code=$?
  unset SPARSIGHT_CUDA_PATH
  if [ $code = 0 ]; then step gpu-$path passed "gpu-$path.log"
  elif grep -q "SPARSIGHT_CUDA_PATH=$path needs" "$out/gpu-$path.log"; then step gpu-$path skipped "the device has no such instructions"
  else step gpu-$path failed "exit code $code, see gpu-$path.log"; fi
done

# Methods against results of their public implementation, on the device.
if [ $gpu = 0 ]; then step golden skipped "no device"
elif [ ! -d "$here/golden-data/golden" ]; then step golden skipped "the reference data was not there when the bundle was made"
else
  SPARSIGHT_TEST_DATA=$here/golden-data; export SPARSIGHT_TEST_DATA
  start sparsight_core_tests --gtest_filter='*Golden*_on_cuda' >"$out/golden.log" 2>&1
  code=$?
  unset SPARSIGHT_TEST_DATA
  if [ $code = 0 ]; then step golden passed "golden.log"; else step golden failed "exit code $code, see golden.log"; fi
fi

start sparsight_kernels_tests --gtest_filter='-BackendOpsGpu*' --gtest_output="json:$out/tests.json" >"$out/tests.log" 2>&1
code=$?
count() { sed -n "s/^\[  $1 *\] \([0-9]*\) test.*/\1/p" "$out/tests.log" | sed 1q; }
passed=$(count PASSED); skipped=$(count SKIPPED)
summary="${passed:-0} passed, ${skipped:-0} skipped (tests.log)"
if [ $code = 0 ]; then step tests passed "$summary"; else step tests failed "exit code $code, $summary"; fi

# The same numbers from both backends through the whole program: plan and evaluate SVG on every trace.
numbers() { sed -n 's/^ *"\(kept_fraction\|kept_mass\|output_rel_error\|margin\)": *\([-0-9.e+]*\),*$/\2/p' "$1"; }
run_svg() { start sparsight-cli --backend "$1" --quiet run "$trace" --method svg --rows 256 --json >"$out/svg-$name-$1.json" 2>>"$out/svg-$name.log"; }
for trace in "$here"/data/trace_*.h5; do
  [ -s "$trace" ] || continue
  name=$(basename "$trace" .h5)
  : >"$out/svg-$name.log"
  status=passed; note="cpu"
  run_svg cpu || status=failed
  if [ $gpu = 1 ]; then
    note="cpu and cuda agree"
    run_svg cuda || status=failed
    numbers "$out/svg-$name-cpu.json" >"$out/numbers-cpu"
    numbers "$out/svg-$name-cuda.json" >"$out/numbers-cuda"
    if command -v awk >/dev/null 2>&1; then
      awk -v other="$out/numbers-cuda" '
        { if ((getline value < other) <= 0) exit 1; d = $1 - value; if (d > 1e-4 || d < -1e-4) exit 1 }
        END { if (NR == 0) exit 1 }' "$out/numbers-cpu" || { status=failed; note="cpu and cuda differ: svg-$name-{cpu,cuda}.json"; }
    fi
    rm -f "$out/numbers-cpu" "$out/numbers-cuda"
  fi
  [ -s "$out/svg-$name.log" ] && [ $status = failed ] && note="$note; $(sed -n '$p' "$out/svg-$name.log")"
  step "svg:$name" $status "$note"
done

sanitizer=$(command -v compute-sanitizer 2>/dev/null || true)
[ -n "$sanitizer" ] || { [ -x /usr/local/cuda/bin/compute-sanitizer ] && sanitizer=/usr/local/cuda/bin/compute-sanitizer; }
if [ $quick = 1 ] || [ $gpu = 0 ] || [ -z "$sanitizer" ]; then
  step sanitizer skipped "$([ $gpu = 0 ] && echo "no device" || { [ $quick = 1 ] && echo "--quick" || echo "compute-sanitizer is not installed"; })"
else
  for tool in memcheck racecheck synccheck initcheck; do
    if [ "$mode" = machine ]; then
      LD_LIBRARY_PATH=$here/lib "$sanitizer" --tool $tool --error-exitcode 9 "$here/bin/sparsight_kernels_tests" --gtest_filter='BackendOpsGpu*' >"$out/$tool.log" 2>&1
    else
      "$sanitizer" --tool $tool --error-exitcode 9 "$loader" --library-path "$here/lib:$here/libc:$driver" "$here/bin/sparsight_kernels_tests" --gtest_filter='BackendOpsGpu*' >"$out/$tool.log" 2>&1
    fi
    code=$?
    if [ $code = 0 ]; then step $tool passed "$tool.log"; else step $tool failed "exit code $code, see $tool.log"; fi
  done
fi

if [ $quick = 1 ] || [ ! -x "$here/bin/sparsight-bench" ]; then
  step benchmarks skipped "$([ $quick = 1 ] && echo "--quick" || echo "not in this bundle")"
else
  start sparsight-bench --benchmark_filter='^peak/|/4096/|^cuda/' --benchmark_min_time=0.2 --benchmark_out="$out/bench.json" --benchmark_out_format=json >"$out/bench.log" 2>&1
  code=$?
  if [ $code = 0 ]; then step benchmarks passed "bench.json"; else step benchmarks failed "exit code $code, see bench.log"; fi
fi

cat >"$out/results.json" <<JSON
{
  "format": "sparsight-gpu-results",
  "date": "$(date -u +%Y-%m-%dT%H:%M:%SZ)",
  "commit": "$(sed -n 's/^commit //p' "$here/BUILD")",
  "built": "$(sed -n 's/^built //p' "$here/BUILD")",
  "architectures": "$(sed -n 's/^architectures //p' "$here/BUILD")",
  "kernel": "$(uname -sr 2>/dev/null)",
  "loader": "$mode",
  "device": "$device",
  "driver": "$driver_version",
  "gpu_used": $([ $gpu = 1 ] && echo true || echo false),
  "gpu_required": $([ $require = 1 ] && echo true || echo false),
  "passed": $([ $failed = 0 ] && echo true || echo false),
  "steps": [$steps
  ]
}
JSON
echo "results: $out/results.json"
exit $failed
