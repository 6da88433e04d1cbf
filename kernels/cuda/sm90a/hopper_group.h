// SPDX-License-Identifier: Apache-2.0
#pragma once

// One warpgroup of a Hopper kernel on the device: the instructions of compute capability 9.0 under plain names. The
// kernel bodies are written against these; tests run them against a stand-in with the same names.

#include <cuda.h>

#include "cuda/hopper_math.h"

namespace sparsight::cuda::hopper {

// d += a b of a warpgroup, asynchronously: 64 rows, 128 or 64 columns, 16 deep. multiplyTiles: both from shared memory,
// depth contiguous. multiplyRegisters: a from registers, b's columns contiguous. add 0: d = a b.
// clang-format off
SPARSIGHT_DEVICE void multiplyTiles(float (&d)[64], std::uint64_t a, std::uint64_t b, int add, Bf16Bits) {
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, %66, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {"
      "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
      "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
      "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
      "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
      "}, %64, %65, p, 1, 1, 0, 0;\n}\n"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7]), "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]), "+f"(d[14]), "+f"(d[15]), "+f"(d[16]), "+f"(d[17]), "+f"(d[18]), "+f"(d[19]), "+f"(d[20]), "+f"(d[21]), "+f"(d[22]), "+f"(d[23]), "+f"(d[24]), "+f"(d[25]), "+f"(d[26]), "+f"(d[27]), "+f"(d[28]), "+f"(d[29]), "+f"(d[30]), "+f"(d[31]), "+f"(d[32]), "+f"(d[33]), "+f"(d[34]), "+f"(d[35]), "+f"(d[36]), "+f"(d[37]), "+f"(d[38]), "+f"(d[39]), "+f"(d[40]), "+f"(d[41]), "+f"(d[42]), "+f"(d[43]), "+f"(d[44]), "+f"(d[45]), "+f"(d[46]), "+f"(d[47]), "+f"(d[48]), "+f"(d[49]), "+f"(d[50]), "+f"(d[51]), "+f"(d[52]), "+f"(d[53]), "+f"(d[54]), "+f"(d[55]), "+f"(d[56]), "+f"(d[57]), "+f"(d[58]), "+f"(d[59]), "+f"(d[60]), "+f"(d[61]), "+f"(d[62]), "+f"(d[63])
      : "l"(a), "l"(b), "r"(add));
}
SPARSIGHT_DEVICE void multiplyTiles(float (&d)[64], std::uint64_t a, std::uint64_t b, int add, HalfBits) {
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, %66, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n128k16.f32.f16.f16 {"
      "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
      "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
      "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
      "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
      "}, %64, %65, p, 1, 1, 0, 0;\n}\n"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7]), "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]), "+f"(d[14]), "+f"(d[15]), "+f"(d[16]), "+f"(d[17]), "+f"(d[18]), "+f"(d[19]), "+f"(d[20]), "+f"(d[21]), "+f"(d[22]), "+f"(d[23]), "+f"(d[24]), "+f"(d[25]), "+f"(d[26]), "+f"(d[27]), "+f"(d[28]), "+f"(d[29]), "+f"(d[30]), "+f"(d[31]), "+f"(d[32]), "+f"(d[33]), "+f"(d[34]), "+f"(d[35]), "+f"(d[36]), "+f"(d[37]), "+f"(d[38]), "+f"(d[39]), "+f"(d[40]), "+f"(d[41]), "+f"(d[42]), "+f"(d[43]), "+f"(d[44]), "+f"(d[45]), "+f"(d[46]), "+f"(d[47]), "+f"(d[48]), "+f"(d[49]), "+f"(d[50]), "+f"(d[51]), "+f"(d[52]), "+f"(d[53]), "+f"(d[54]), "+f"(d[55]), "+f"(d[56]), "+f"(d[57]), "+f"(d[58]), "+f"(d[59]), "+f"(d[60]), "+f"(d[61]), "+f"(d[62]), "+f"(d[63])
      : "l"(a), "l"(b), "r"(add));
}
SPARSIGHT_DEVICE void multiplyRegisters(float (&d)[64], const std::uint32_t (&a)[4], std::uint64_t b, int add, Bf16Bits) {
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, %69, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {"
      "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
      "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
      "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
      "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
      "}, {%64, %65, %66, %67}, %68, p, 1, 1, 1;\n}\n"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7]), "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]), "+f"(d[14]), "+f"(d[15]), "+f"(d[16]), "+f"(d[17]), "+f"(d[18]), "+f"(d[19]), "+f"(d[20]), "+f"(d[21]), "+f"(d[22]), "+f"(d[23]), "+f"(d[24]), "+f"(d[25]), "+f"(d[26]), "+f"(d[27]), "+f"(d[28]), "+f"(d[29]), "+f"(d[30]), "+f"(d[31]), "+f"(d[32]), "+f"(d[33]), "+f"(d[34]), "+f"(d[35]), "+f"(d[36]), "+f"(d[37]), "+f"(d[38]), "+f"(d[39]), "+f"(d[40]), "+f"(d[41]), "+f"(d[42]), "+f"(d[43]), "+f"(d[44]), "+f"(d[45]), "+f"(d[46]), "+f"(d[47]), "+f"(d[48]), "+f"(d[49]), "+f"(d[50]), "+f"(d[51]), "+f"(d[52]), "+f"(d[53]), "+f"(d[54]), "+f"(d[55]), "+f"(d[56]), "+f"(d[57]), "+f"(d[58]), "+f"(d[59]), "+f"(d[60]), "+f"(d[61]), "+f"(d[62]), "+f"(d[63])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(add));
}
SPARSIGHT_DEVICE void multiplyRegisters(float (&d)[64], const std::uint32_t (&a)[4], std::uint64_t b, int add, HalfBits) {
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, %69, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n128k16.f32.f16.f16 {"
      "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
      "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
      "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
      "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
      "}, {%64, %65, %66, %67}, %68, p, 1, 1, 1;\n}\n"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7]), "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]), "+f"(d[14]), "+f"(d[15]), "+f"(d[16]), "+f"(d[17]), "+f"(d[18]), "+f"(d[19]), "+f"(d[20]), "+f"(d[21]), "+f"(d[22]), "+f"(d[23]), "+f"(d[24]), "+f"(d[25]), "+f"(d[26]), "+f"(d[27]), "+f"(d[28]), "+f"(d[29]), "+f"(d[30]), "+f"(d[31]), "+f"(d[32]), "+f"(d[33]), "+f"(d[34]), "+f"(d[35]), "+f"(d[36]), "+f"(d[37]), "+f"(d[38]), "+f"(d[39]), "+f"(d[40]), "+f"(d[41]), "+f"(d[42]), "+f"(d[43]), "+f"(d[44]), "+f"(d[45]), "+f"(d[46]), "+f"(d[47]), "+f"(d[48]), "+f"(d[49]), "+f"(d[50]), "+f"(d[51]), "+f"(d[52]), "+f"(d[53]), "+f"(d[54]), "+f"(d[55]), "+f"(d[56]), "+f"(d[57]), "+f"(d[58]), "+f"(d[59]), "+f"(d[60]), "+f"(d[61]), "+f"(d[62]), "+f"(d[63])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(add));
}
SPARSIGHT_DEVICE void multiplyRegisters(float (&d)[32], const std::uint32_t (&a)[4], std::uint64_t b, int add, Bf16Bits) {
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, %37, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {"
      "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
      "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
      "}, {%32, %33, %34, %35}, %36, p, 1, 1, 1;\n}\n"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7]), "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]), "+f"(d[14]), "+f"(d[15]), "+f"(d[16]), "+f"(d[17]), "+f"(d[18]), "+f"(d[19]), "+f"(d[20]), "+f"(d[21]), "+f"(d[22]), "+f"(d[23]), "+f"(d[24]), "+f"(d[25]), "+f"(d[26]), "+f"(d[27]), "+f"(d[28]), "+f"(d[29]), "+f"(d[30]), "+f"(d[31])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(add));
}
SPARSIGHT_DEVICE void multiplyRegisters(float (&d)[32], const std::uint32_t (&a)[4], std::uint64_t b, int add, HalfBits) {
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.b32 p, %37, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n64k16.f32.f16.f16 {"
      "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
      "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
      "}, {%32, %33, %34, %35}, %36, p, 1, 1, 1;\n}\n"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7]), "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]), "+f"(d[14]), "+f"(d[15]), "+f"(d[16]), "+f"(d[17]), "+f"(d[18]), "+f"(d[19]), "+f"(d[20]), "+f"(d[21]), "+f"(d[22]), "+f"(d[23]), "+f"(d[24]), "+f"(d[25]), "+f"(d[26]), "+f"(d[27]), "+f"(d[28]), "+f"(d[29]), "+f"(d[30]), "+f"(d[31])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(add));
}
// clang-format on

/// Nothing waits longer, in nanoseconds: a stuck pipeline becomes a device error instead of a kernel that never ends.
inline constexpr std::uint64_t kLongestWait = 20'000'000'000ULL;

SPARSIGHT_DEVICE std::uint64_t deviceNanoseconds() {
  std::uint64_t now;
  asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(now));
  return now;
}

SPARSIGHT_DEVICE bool phaseDone(std::uint32_t barrier, std::uint32_t parity) {
  std::uint32_t done;
  asm volatile(
      "{\n.reg .pred p;\n"
      "mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\n"
      "selp.u32 %0, 1, 0, p;\n}\n"
      : "=r"(done)
      : "r"(barrier), "r"(parity)
      : "memory");
  return done != 0;
}

/// kRole: 0 feeds, 1 computes.
template <class StateOf, int kRole>
class DeviceGroup {
 public:
  using State = StateOf;
  __device__ __forceinline__ explicit DeviceGroup(std::uint32_t base, unsigned char* memory)
      : m_base(base), m_memory(memory) {}

  __device__ __forceinline__ int x() const { return static_cast<int>(blockIdx.x); }
  __device__ __forceinline__ int y() const { return static_cast<int>(blockIdx.y); }
  /// What every thread of the group does between two steps of the whole group.
  template <class Body>
  __device__ __forceinline__ void each(Body&& body) {
    body(static_cast<int>(threadIdx.x % kGroupThreads), m_state);
  }
  template <class T>
  __device__ __forceinline__ T* shared(std::uint32_t offset) {
    return reinterpret_cast<T*>(m_memory + offset);
  }
  /// 16 bytes for the tensor cores to read; fenceStores() makes them visible there.
  __device__ __forceinline__ void storeTile(std::uint32_t offset, const Words4& value) {
    *reinterpret_cast<Words4*>(m_memory + offset) = value;
  }
  __device__ __forceinline__ void fenceStores() {
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
    syncGroup();
  }
  __device__ __forceinline__ void syncGroup() {
    // The number is a constant in each role: with one in a register all sixteen barriers count as used.
    if constexpr (kRole == 0) {
      asm volatile("bar.sync 1, %0;" ::"n"(kGroupThreads) : "memory");
    } else if (threadIdx.x < 2 * kGroupThreads) {
      asm volatile("bar.sync 2, %0;" ::"n"(kGroupThreads) : "memory");
    } else {
      asm volatile("bar.sync 3, %0;" ::"n"(kGroupThreads) : "memory");
    }
  }

  // Barriers with phases, by their offset. wait(): until the phase of this parity is over.
  __device__ __forceinline__ void wait(std::uint32_t barrier, int parity) {
    const std::uint32_t at = m_base + barrier;
    if (phaseDone(at, static_cast<std::uint32_t>(parity))) return;
    const std::uint64_t start = deviceNanoseconds();
    while (!phaseDone(at, static_cast<std::uint32_t>(parity))) {
      if (deviceNanoseconds() - start > kLongestWait) __trap();
    }
  }
  /// Every thread arrives.
  __device__ __forceinline__ void arrive(std::uint32_t barrier) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(m_base + barrier) : "memory");
  }
  /// Every thread arrives, and the phase also waits for `bytes` of copies.
  __device__ __forceinline__ void arriveExpecting(std::uint32_t barrier, std::uint32_t bytes) {
    if (threadIdx.x % kGroupThreads == 0) {
      asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(m_base + barrier), "r"(bytes)
                   : "memory");
    } else {
      arrive(barrier);
    }
  }
  /// One lane of every warp arrives, after all of its warp.
  __device__ __forceinline__ void arriveWarps(std::uint32_t barrier) {
    __syncwarp();
    if (threadIdx.x % 32 == 0) arrive(barrier);
  }

  /// Starts a copy of a box from (row, column) of the mapped matrix; what lies outside of it is zeros. Completes on the
  /// barrier.
  __device__ __forceinline__ void load(const CUtensorMap& map, std::uint32_t to, std::uint32_t barrier, int column,
                                       int row) {
    if (threadIdx.x % kGroupThreads != 0) return;
    asm volatile(
        "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3}], [%4];" ::"r"(
            m_base + to),
        "l"(reinterpret_cast<std::uint64_t>(&map)), "r"(column), "r"(row), "r"(m_base + barrier)
        : "memory");
  }

  /// Each thread's word becomes the predicate of the 32 lanes of its warp.
  template <class Get, class Predicate>
  __device__ __forceinline__ void ballot(Get&& get, Predicate&& predicate) {
    get(m_state) = __ballot_sync(0xFFFFFFFFU, predicate(static_cast<int>(threadIdx.x % kGroupThreads), m_state));
  }
  /// The smallest value of the group, for all. `votes`: four words of shared memory.
  template <class Get>
  __device__ __forceinline__ int minOfGroup(std::uint32_t votes, Get&& get) {
    const int own = __reduce_min_sync(0xFFFFFFFFU, get(m_state));
    int* const shared = this->shared<int>(votes);
    syncGroup();
    if (threadIdx.x % 32 == 0) shared[threadIdx.x % kGroupThreads / 32] = own;
    syncGroup();
    return min(min(shared[0], shared[1]), min(shared[2], shared[3]));
  }
  /// Over the four threads that share a row of the accumulators, handed to all four.
  template <class Get>
  __device__ __forceinline__ void maxOfRow(Get&& get) {
    float& value = get(m_state);
    value = ::fmaxf(value, __shfl_xor_sync(0xFFFFFFFFU, value, 1));
    value = ::fmaxf(value, __shfl_xor_sync(0xFFFFFFFFU, value, 2));
  }
  template <class Get>
  __device__ __forceinline__ void sumOfRow(Get&& get) {
    auto& value = get(m_state);
    value += __shfl_xor_sync(0xFFFFFFFFU, value, 1);
    value += __shfl_xor_sync(0xFFFFFFFFU, value, 2);
  }

  // Products: fenceProducts(), any number of them, commitProducts(), waitProducts(). Until then nobody may touch the
  // registers and shared memory that they use.
  template <class Acc>
  __device__ __forceinline__ void fenceProducts(Acc&& acc) {
    SPARSIGHT_UNROLL
    for (auto& value : acc(m_state)) asm volatile("" : "+f"(value)::"memory");
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
  }
  /// The same where operands held in registers are multiplied: they too must be written before the fence, and nothing
  /// else keeps the compiler from computing them behind it.
  template <class Acc, class Held, class... More>
  __device__ __forceinline__ void fenceProducts(Acc&& acc, Held&& held, More&&... more) {
    SPARSIGHT_UNROLL
    for (auto& words : held(m_state)) {
      SPARSIGHT_UNROLL
      for (auto& word : words) asm volatile("" : "+r"(word)::"memory");
    }
    fenceProducts(acc, more...);
  }
  template <class T, class Acc>
  __device__ __forceinline__ void multiply(Acc&& acc, std::uint64_t a, std::uint64_t b, bool add) {
    multiplyTiles(acc(m_state), a, b, add ? 1 : 0, T{});
  }
  template <class T, class Acc, class Left>
  __device__ __forceinline__ void multiplyHeld(Acc&& acc, Left&& left, std::uint64_t b) {
    multiplyRegisters(acc(m_state), left(m_state), b, 1, T{});
  }
  __device__ __forceinline__ void commitProducts() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
  /// Waits until at most `kLeft` committed groups are under way; `acc`: the sums that are then complete.
  template <int kLeft, class Acc>
  __device__ __forceinline__ void waitProducts(Acc&& acc) {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kLeft) : "memory");
    SPARSIGHT_UNROLL
    for (auto& value : acc(m_state)) asm volatile("" : "+f"(value)::"memory");
  }
  __device__ __forceinline__ std::uint32_t base() const { return m_base; }

 private:
  std::uint32_t m_base;
  unsigned char* m_memory;
  State m_state;
};

}  // namespace sparsight::cuda::hopper
