// SPDX-License-Identifier: Apache-2.0
#pragma once

// One source for a kernel body on the device and on the host. A body is written against a "block": uniform code, with
// each() around what every thread does between two barriers. On the device each() runs the lambda once, with the
// thread's own state in registers; on the host it loops over all threads of the block. So the very code that a GPU runs
// is compared with the oracle by unit tests on machines without one.

#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include "sparsight/kernels/types.h"

#ifdef __CUDACC__
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#define SPARSIGHT_DEVICE __device__ __forceinline__
#define SPARSIGHT_UNROLL _Pragma("unroll")
#define SPARSIGHT_UNROLL_BY_8 _Pragma("unroll 8")
#else
#include "convert.h"
#define SPARSIGHT_DEVICE inline
#define SPARSIGHT_UNROLL
#define SPARSIGHT_UNROLL_BY_8
#endif

namespace sparsight::cuda {

/// Threads of every block; bodies map thread t to row t / 4, lane t % 4 of a 64-row tile.
inline constexpr int kThreads = 256;
inline constexpr int kLanes = 4;

/// Four neighbouring elements as float32.
struct Float4 {
  float v[4];
};

/// Element types as they lie in device memory.
struct HalfBits {
  std::uint16_t bits;
};
struct Bf16Bits {
  std::uint16_t bits;
};

SPARSIGHT_DEVICE float toFloat(float value) { return value; }
SPARSIGHT_DEVICE float toFloat(Bf16Bits value) {
  const std::uint32_t bits = static_cast<std::uint32_t>(value.bits) << 16U;
  float out;
  memcpy(&out, &bits, sizeof out);
  return out;
}
SPARSIGHT_DEVICE float toFloat(HalfBits value) {
#ifdef __CUDACC__
  return __half2float(__ushort_as_half(value.bits));
#else
  return detail::halfToFloat(value.bits);
#endif
}

/// Loads 4 elements from an address aligned to 4 elements.
template <class T>
SPARSIGHT_DEVICE Float4 loadFour(const T* p) {
  struct alignas(4 * sizeof(T)) Four {
    T v[4];
  };
#ifdef __CUDACC__
  const Four four = *reinterpret_cast<const Four*>(p);
#else
  Four four;
  std::memcpy(&four, p, sizeof four);
#endif
  return {{toFloat(four.v[0]), toFloat(four.v[1]), toFloat(four.v[2]), toFloat(four.v[3])}};
}

SPARSIGHT_DEVICE Float4 loadShared(const float* p) {
#ifdef __CUDACC__
  const float4 four = *reinterpret_cast<const float4*>(p);
  return {{four.x, four.y, four.z, four.w}};
#else
  Float4 out;
  std::memcpy(&out, p, sizeof out);
  return out;
#endif
}
SPARSIGHT_DEVICE void storeShared(float* p, Float4 value) {
#ifdef __CUDACC__
  *reinterpret_cast<float4*>(p) = make_float4(value.v[0], value.v[1], value.v[2], value.v[3]);
#else
  std::memcpy(p, &value, sizeof value);
#endif
}

// The unqualified C functions resolve to the device versions under nvcc and to the C library on the host.
SPARSIGHT_DEVICE float exp2Of(float x) { return ::exp2f(x); }
// a b + c in one rounding on the device, said outright: kernels that must see the same bits may not depend on what the
// compiler contracts. The host rounds twice, but the same way everywhere.
SPARSIGHT_DEVICE float fmaOf(float a, float b, float c) {
#ifdef __CUDACC__
  return __fmaf_rn(a, b, c);
#else
  return a * b + c;
#endif
}
SPARSIGHT_DEVICE float maxOf(float a, float b) { return ::fmaxf(a, b); }
SPARSIGHT_DEVICE float negativeInfinity() { return -HUGE_VALF; }
/// Counters and fixed-point sums: integers, so that the order of additions does not matter.
using Counter = unsigned long long;
SPARSIGHT_DEVICE void addAtomic(std::uint32_t* to, std::uint32_t value) {
#ifdef __CUDACC__
  atomicAdd(to, value);
#else
  *to += value;
#endif
}
SPARSIGHT_DEVICE void addAtomic(Counter* to, Counter value) {
#ifdef __CUDACC__
  atomicAdd(to, value);
#else
  *to += value;
#endif
}
SPARSIGHT_DEVICE std::uint32_t bitsOf(float x) {
  std::uint32_t bits;
  memcpy(&bits, &x, sizeof bits);
  return bits;
}
SPARSIGHT_DEVICE float floatOf(std::uint32_t bits) {
  float x;
  memcpy(&x, &bits, sizeof x);
  return x;
}

/// The three bfloat16 numbers whose sum a float32 is, largest first: 8 significant bits each, the rest goes on to the
/// next. Exact unless the last part falls below the smallest bfloat16.
SPARSIGHT_DEVICE void splitFloat(float value, std::uint16_t (&parts)[3]) {
  for (std::uint16_t& part : parts) {
    const std::uint32_t bits = bitsOf(value);
    part = static_cast<std::uint16_t>(bits >> 16U);
    value -= floatOf(bits & 0xFFFF0000U);
  }
}

SPARSIGHT_DEVICE int minOf(int a, int b) { return a < b ? a : b; }
SPARSIGHT_DEVICE int maxOf(int a, int b) { return a > b ? a : b; }

/// Registers of one thread for a step of 16 x 32 x 16 of its warp: four products m16n8k16 of 16-bit elements (two in
/// each word, the lower one first), summed in fp32. Lane l = 4 g + i of the warp holds
///   a[0], a[1]: row g and g + 8, depth 2 i and 2 i + 1; a[2], a[3]: the same at depth + 8
///   b[n][0]: column 8 n + g, depth 2 i and 2 i + 1; b[n][1]: the same at depth + 8
///   acc[n][0..1]: row g, columns 8 n + 2 i and 8 n + 2 i + 1; acc[n][2..3]: the same of row g + 8
/// (PTX ISA, "Matrix Fragments for mma.m16n8k16 with floating point type").
struct MmaFragments {
  std::uint32_t a[4];
  std::uint32_t b[4][2];
  float acc[4][4];
};

#ifdef __CUDACC__
SPARSIGHT_DEVICE void multiplyFragments(float (&acc)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2],
                                        Bf16Bits) {
#if __CUDA_ARCH__ >= 800
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, "
      "%3};"
      : "+f"(acc[0]), "+f"(acc[1]), "+f"(acc[2]), "+f"(acc[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
  __trap();  // never launched there
#endif
}
SPARSIGHT_DEVICE void multiplyFragments(float (&acc)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2],
                                        HalfBits) {
#if __CUDA_ARCH__ >= 800
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, "
      "%3};"
      : "+f"(acc[0]), "+f"(acc[1]), "+f"(acc[2]), "+f"(acc[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
  __trap();  // never launched there
#endif
}

/// The block of the running kernel: state lives in registers, each() is a plain call.
template <class State>
class DeviceBlock {
 public:
  __device__ __forceinline__ int x() const { return static_cast<int>(blockIdx.x); }
  __device__ __forceinline__ int y() const { return static_cast<int>(blockIdx.y); }
  template <class Body>
  __device__ __forceinline__ void each(Body&& body) {
    body(static_cast<int>(threadIdx.x), m_state);
  }
  __device__ __forceinline__ void sync() { __syncthreads(); }
  /// Reads what every thread of the block holds alike into a variable of the body.
  template <class Body>
  __device__ __forceinline__ void uniform(Body&& body) {
    body(m_state);
  }

  /// Merges the four lanes of each row in a fixed order; only lane 0 holds the result afterwards.
  template <class Get, class Merge>
  __device__ __forceinline__ void mergeLanes(Get&& get, Merge&& merge) {
    auto& value = get(m_state);
    value = merge(value, value.shuffleDown(1));
    value = merge(value, value.shuffleDown(2));
  }
  /// The largest value of the four lanes of each row, handed to all four. Returns through `get`.
  template <class Get>
  __device__ __forceinline__ void maxOfLanes(Get&& get) {
    float& value = get(m_state);
    value = ::fmaxf(value, __shfl_xor_sync(0xFFFFFFFFU, value, 1));
    value = ::fmaxf(value, __shfl_xor_sync(0xFFFFFFFFU, value, 2));
  }
  /// acc += a b of every warp of the block; no barrier. T: HalfBits or Bf16Bits.
  template <class T, class Get>
  __device__ __forceinline__ void multiply(Get&& get) {
    MmaFragments& own = get(m_state);
    SPARSIGHT_UNROLL
    for (int n = 0; n < 4; ++n) multiplyFragments(own.acc[n], own.a, own.b[n], T{});
  }
  /// True for all when the predicate holds for any thread. A barrier.
  template <class Predicate>
  __device__ __forceinline__ bool any(Predicate&& predicate) {
    return __syncthreads_or(predicate(static_cast<int>(threadIdx.x), m_state) ? 1 : 0) != 0;
  }

 private:
  State m_state;
};
#else
/// A block run by one host thread, for tests.
template <class State>
class HostBlock {
 public:
  HostBlock(int blockX, int blockY) : m_x(blockX), m_y(blockY), m_states(kThreads) {}
  [[nodiscard]] int x() const { return m_x; }
  [[nodiscard]] int y() const { return m_y; }
  template <class Body>
  void each(Body&& body) {
    for (int t = 0; t < kThreads; ++t) body(t, m_states[static_cast<std::size_t>(t)]);
  }
  void sync() {}
  template <class Body>
  void uniform(Body&& body) {
    body(m_states.front());
  }
  template <class Get, class Merge>
  void mergeLanes(Get&& get, Merge&& merge) {
    for (std::size_t t = 0; t < m_states.size(); t += kLanes) {
      const auto low = merge(get(m_states[t]), get(m_states[t + 1]));
      const auto high = merge(get(m_states[t + 2]), get(m_states[t + 3]));
      get(m_states[t]) = merge(low, high);
    }
  }
  template <class Get>
  void maxOfLanes(Get&& get) {
    for (std::size_t t = 0; t < m_states.size(); t += kLanes) {
      float largest = get(m_states[t]);
      for (std::size_t i = 1; i < kLanes; ++i) largest = ::fmaxf(largest, get(m_states[t + i]));
      for (std::size_t i = 0; i < kLanes; ++i) get(m_states[t + i]) = largest;
    }
  }
  // The matrices of each warp are put together from what its lanes hold, as the instruction reads them.
  template <class T, class Get>
  void multiply(Get&& get) {
    for (std::size_t first = 0; first < m_states.size(); first += 32) {
      float a[16][16];
      float b[16][32];
      for (std::size_t lane = 0; lane < 32; ++lane) {
        const MmaFragments& own = get(m_states[first + lane]);
        const std::size_t group = lane / 4;
        const std::size_t depth = lane % 4 * 2;
        for (std::size_t half = 0; half < 2; ++half) {
          for (std::size_t i = 0; i < 4; ++i) {
            a[group + i % 2 * 8][depth + i / 2 * 8 + half] = elementOf<T>(own.a[i], half);
          }
          for (std::size_t n = 0; n < 4; ++n) {
            for (std::size_t i = 0; i < 2; ++i) {
              b[depth + i * 8 + half][n * 8 + group] = elementOf<T>(own.b[n][i], half);
            }
          }
        }
      }
      float sum[16][32];
      for (std::size_t row = 0; row < 16; ++row) {
        for (std::size_t col = 0; col < 32; ++col) sum[row][col] = 0.0F;
        for (std::size_t e = 0; e < 16; ++e) {
          for (std::size_t col = 0; col < 32; ++col) sum[row][col] += a[row][e] * b[e][col];
        }
      }
      for (std::size_t lane = 0; lane < 32; ++lane) {
        MmaFragments& own = get(m_states[first + lane]);
        for (std::size_t n = 0; n < 4; ++n) {
          for (std::size_t i = 0; i < 4; ++i) {
            own.acc[n][i] += sum[lane / 4 + i / 2 * 8][n * 8 + lane % 4 * 2 + i % 2];
          }
        }
      }
    }
  }
  template <class Predicate>
  bool any(Predicate&& predicate) {
    bool found = false;
    for (int t = 0; t < kThreads; ++t) found = predicate(t, m_states[static_cast<std::size_t>(t)]) || found;
    return found;
  }

 private:
  template <class T>
  static float elementOf(std::uint32_t word, std::size_t half) {
    return toFloat(T{static_cast<std::uint16_t>(word >> (16U * static_cast<unsigned>(half)))});
  }

  int m_x, m_y;
  std::vector<State> m_states;
};
#endif

/// Several scores of one row, summed relative to their own largest: sum = sum over them of 2^((s - max) * c).
/// Independent of any other part of the row, so parts may be computed in any place and merged in a fixed order.
struct Partial {
  float max;
  float sum;
  std::int32_t count;  ///< valid pairs; 0: max and sum mean nothing

  static SPARSIGHT_DEVICE Partial none() { return {negativeInfinity(), 0.0F, 0}; }
#ifdef __CUDACC__
  __device__ __forceinline__ Partial shuffleDown(unsigned lanes) const {
    return {__shfl_down_sync(0xFFFFFFFFU, max, lanes), __shfl_down_sync(0xFFFFFFFFU, sum, lanes),
            __shfl_down_sync(0xFFFFFFFFU, count, lanes)};
  }
#endif
};

SPARSIGHT_DEVICE Partial mergePartials(const Partial& a, const Partial& b, float exponentScale) {
  if (b.count == 0) return a;
  if (a.count == 0) return b;
  const float max = maxOf(a.max, b.max);
  return {max, a.sum * exp2Of((a.max - max) * exponentScale) + b.sum * exp2Of((b.max - max) * exponentScale),
          a.count + b.count};
}

}  // namespace sparsight::cuda
