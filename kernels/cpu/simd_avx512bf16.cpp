// SPDX-License-Identifier: Apache-2.0
// AVX-512 with bfloat16 dot products (vdpbf16ps): the AVX-512 loops, and scores of bfloat16 tensors at twice their
// rate.
#if defined(__x86_64__)
#include <immintrin.h>

#include "cpu/simd.h"
#include "cpu/unroll.h"

namespace sparsight::cpu {
namespace {

constexpr Index kWidth = 16;
constexpr Index kVecs = 2;
constexpr Index kLanes = kWidth * kVecs;
constexpr Index kKeyUnroll = 12;  // 24 accumulators, 2 panel registers, 1 broadcast

/// Out of line as its float32 twin is, for the same reason.
template <Index kKeys>
__attribute__((noinline)) void dotKeys(const std::uint16_t* panel, const std::uint16_t* keys, Index stride, Index dim,
                                       float* scores, float* largest) {
  __m512 sum[std::size_t{kKeys}][kVecs];
  SPARSIGHT_UNROLL
  for (Index n = 0; n < kKeys; ++n) {
    SPARSIGHT_UNROLL
    for (Index j = 0; j < kVecs; ++j) sum[n][j] = _mm512_setzero_ps();
  }
  for (Index i = 0; i < dim; i += 2) {
    __m512bh query[kVecs];
    SPARSIGHT_UNROLL
    for (Index j = 0; j < kVecs; ++j) {
      query[j] = reinterpret_cast<__m512bh>(_mm512_load_si512(panel + i * kLanes + j * 2 * kWidth));
    }
    SPARSIGHT_UNROLL
    for (Index n = 0; n < kKeys; ++n) {
      std::int32_t pair = 0;
      __builtin_memcpy(&pair, keys + n * stride + i, sizeof pair);
      const auto key = reinterpret_cast<__m512bh>(_mm512_set1_epi32(pair));
      SPARSIGHT_UNROLL
      for (Index j = 0; j < kVecs; ++j) sum[n][j] = _mm512_dpbf16_ps(sum[n][j], query[j], key);
    }
  }
  SPARSIGHT_UNROLL
  for (Index j = 0; j < kVecs; ++j) {
    __m512 top = _mm512_load_ps(largest + j * kWidth);
    SPARSIGHT_UNROLL
    for (Index n = 0; n < kKeys; ++n) {
      _mm512_store_ps(scores + n * kLanes + j * kWidth, sum[n][j]);
      top = _mm512_max_ps(top, sum[n][j]);
    }
    _mm512_store_ps(largest + j * kWidth, top);
  }
}

void scoresKernel(const std::uint16_t* panel, const std::uint16_t* keys, Index stride, Index count, Index dim,
                  float* scores, float* largest) noexcept {
  Index n = 0;
  for (; n + kKeyUnroll <= count; n += kKeyUnroll) {
    dotKeys<kKeyUnroll>(panel, keys + n * stride, stride, dim, scores + n * kLanes, largest);
  }
  for (; n + 4 <= count; n += 4) dotKeys<4>(panel, keys + n * stride, stride, dim, scores + n * kLanes, largest);
  for (; n < count; ++n) dotKeys<1>(panel, keys + n * stride, stride, dim, scores + n * kLanes, largest);
}

/// What follows is measured on Zen 5: fused multiply-adds, products and dot products share two of its four vector
/// pipes, additions, maxima, roundings and shifts have the other two, integer sums and maxima take whichever is free.
/// In a product of 128 dimensions 64 dot products belong to 16 exponentials, so these are arranged to need few slots of
/// the first two pipes (four of them, the lookup counted) and to stand between dot products, where the rest costs
/// nothing.

constexpr double kLn2 = 0.69314718055994530942;
constexpr Index kTableSize = 32;
/// 1.5 * 2^18: adding it rounds to multiples of 1 / kTableSize and leaves the number of them in the low bits.
constexpr float kRound = 0x1.8p18F;
constexpr int kExponentShift = 18;  // 5 bits for the table, then the exponent
/// 2^f = square * ((f + shift)^2 + rest) for |f| <= 1/64 with a relative error of 5.4e-8 (linear and square
/// coefficients of the polynomial of equal ripples, its square completed: one multiply-add instead of two).
constexpr double kLinear = 0.6931573805599452;
constexpr double kSquare = kLn2 * kLn2 / 2;
constexpr double kShift = kLinear / (2 * kSquare);
constexpr double kRest = 1 / kSquare - kShift * kShift;

/// square * 2^(j / kTableSize), less what the shifted index adds to the exponent besides the integer part.
struct ExpTable {
  alignas(kAlignment) std::int32_t bits[kTableSize];
};
constexpr ExpTable kExpTable = [] {
  ExpTable table{};
  for (int j = 0; j < kTableSize; ++j) {
    // 2^(j/32) by its series; the standard library's is not constexpr.
    const double x = kLn2 * j / kTableSize;
    double term = kSquare;
    double power = kSquare;
    for (int k = 1; k < 24; ++k) {
      term *= x / k;
      power += term;
    }
    table.bits[j] = __builtin_bit_cast(std::int32_t, static_cast<float>(power)) - j * (1 << kExponentShift);
  }
  return table;
}();

/// Numbers of addExp. In memory, as the registers are full: the compiler would keep each of them in one and spill sums.
struct ExpNumbers {
  float least, most, round, shift, rest;
};
constexpr ExpNumbers kExpNumbers{-150.0F, 127.0F, kRound, static_cast<float>(kShift), static_cast<float>(kRest)};

/// sum + exp2(scale * score - reference). 0 far below, -inf too; NaN stays NaN, as min and max keep their second
/// operand.
inline __m512 addExp(__m512 sum, __m512 score, __m512 scale, __m512 reference) {
  const ExpNumbers* numbers = &kExpNumbers;
  asm("" : "+r"(numbers));  // read anew, nothing else
  __m512 x = _mm512_fmsub_ps(score, scale, reference);
  x = _mm512_max_ps(_mm512_set1_ps(numbers->least), x);
  x = _mm512_min_ps(_mm512_set1_ps(numbers->most), x);
  const __m512 rounded = _mm512_add_ps(x, _mm512_set1_ps(numbers->round));
  const __m512 f = _mm512_sub_ps(x, _mm512_sub_ps(rounded, _mm512_set1_ps(numbers->round)));
  const __m512 shifted = _mm512_add_ps(f, _mm512_set1_ps(numbers->shift));
  const __m512i index = _mm512_castps_si512(rounded);
  const __m512i power = _mm512_permutex2var_epi32(_mm512_load_si512(kExpTable.bits), index,
                                                  _mm512_load_si512(kExpTable.bits + kTableSize / 2));
  // Exponents that would be negative make a negative integer.
  const __m512i bits =
      _mm512_max_epi32(_mm512_add_epi32(power, _mm512_slli_epi32(index, kExponentShift)), _mm512_setzero_si512());
  const __m512 polynomial = _mm512_fmadd_ps(shifted, shifted, _mm512_set1_ps(numbers->rest));
  return _mm512_fmadd_ps(_mm512_castsi512_ps(bits), polynomial, sum);
}

/// Vector j of waiting key n.
inline __m512 addPending(__m512 sum, const PendingScores& pending, Index n, Index j) {
  return addExp(sum, _mm512_load_ps(pending.scores + n * kLanes + j * kWidth), _mm512_set1_ps(pending.scale),
                _mm512_load_ps(pending.reference + j * kWidth));
}

inline void loadPartial(__m512 (&sum)[kVecs], const PendingScores& pending) {
  SPARSIGHT_UNROLL
  for (Index j = 0; j < kVecs; ++j) sum[j] = _mm512_load_ps(pending.partial + j * kWidth);
}

/// A column is summed in registers and then added: the rounding error grows with the columns, not with the keys.
inline void storePartial(const __m512 (&sum)[kVecs], PendingScores& pending) {
  SPARSIGHT_UNROLL
  for (Index j = 0; j < kVecs; ++j) {
    if (pending.sums != nullptr) {
      float* const to = pending.sums + j * kWidth;
      _mm512_store_ps(to, _mm512_add_ps(_mm512_load_ps(to), sum[j]));
      _mm512_store_ps(pending.partial + j * kWidth, _mm512_setzero_ps());
    } else {
      _mm512_store_ps(pending.partial + j * kWidth, sum[j]);
    }
  }
}

template <Index kKeys>
inline void dotStep(__m512 (&sum)[std::size_t{kKeys}][kVecs], const std::uint16_t* panel, const std::uint16_t* keys,
                    Index stride) {
  __m512bh query[kVecs];
  SPARSIGHT_UNROLL
  for (Index j = 0; j < kVecs; ++j) {
    query[j] = reinterpret_cast<__m512bh>(_mm512_load_si512(panel + j * 2 * kWidth));
  }
  SPARSIGHT_UNROLL
  for (Index n = 0; n < kKeys; ++n) {
    std::int32_t pair = 0;
    __builtin_memcpy(&pair, keys + n * stride, sizeof pair);
    const auto key = reinterpret_cast<__m512bh>(_mm512_set1_epi32(pair));
    SPARSIGHT_UNROLL
    for (Index j = 0; j < kVecs; ++j) sum[n][j] = _mm512_dpbf16_ps(sum[n][j], query[j], key);
  }
}

/// Scores of the column's next kKeys keys, and between them the exponentials of the keys that wait: one key in kSteps
/// steps, so that those of eight keys end with 128 (or 64) dimensions. Eight keys and not twelve: the registers that
/// are free then hold exponentials, and every loop here runs as often as in the block before, as its branches expect.
template <Index kKeys, Index kSteps>
__attribute__((noinline)) bool foldKeys(FoldColumn& column, PendingScores& pending) {
  __m512 sum[std::size_t{kKeys}][kVecs];
  SPARSIGHT_UNROLL
  for (Index n = 0; n < kKeys; ++n) {
    SPARSIGHT_UNROLL
    for (Index j = 0; j < kVecs; ++j) sum[n][j] = _mm512_setzero_ps();
  }
  const Index stride = column.stride;
  const Index dim = column.dim;
  const std::uint16_t* panel = column.panel;
  const std::uint16_t* keys = column.keys + column.done * stride;
  // A line at a time: many at once keep this block's own misses waiting.
  const std::byte* ahead = column.ahead + column.aheadBytes * column.done / column.count;
  const Index waiting = pending.count;
  __m512 partial[kVecs];
  loadPartial(partial, pending);
  Index i = 0;
  Index n = 0;
  for (; n < waiting && i + 2 * kSteps <= dim; ++n, i += 2 * kSteps) {
    _mm_prefetch(reinterpret_cast<const char*>(ahead), _MM_HINT_T1);
    ahead += kAlignment;
    SPARSIGHT_UNROLL
    for (Index step = 0; step < kSteps; ++step) {
      if (step % (kSteps / kVecs) == 0) {
        const Index j = step / (kSteps / kVecs);
        partial[j] = addPending(partial[j], pending, n, j);
      }
      dotStep<kKeys>(sum, panel + step * 2 * kLanes, keys + step * 2, stride);
    }
    panel += kSteps * 2 * kLanes;
    keys += kSteps * 2;
  }
  for (; i < dim; i += 2) {
    dotStep<kKeys>(sum, panel, keys, stride);
    panel += 2 * kLanes;
    keys += 2;
  }
  for (; n < waiting; ++n) {
    SPARSIGHT_UNROLL
    for (Index j = 0; j < kVecs; ++j) partial[j] = addPending(partial[j], pending, n, j);
  }
  if (waiting > 0) storePartial(partial, pending);

  column.done += kKeys;
  pending.count = kKeys;
  pending.scale = column.scale;
  pending.reference = column.reference;
  pending.sums = column.done == column.count ? column.sums : nullptr;
  __mmask16 above = 0;
  SPARSIGHT_UNROLL
  for (Index j = 0; j < kVecs; ++j) {
    __m512 top = sum[0][j];
    SPARSIGHT_UNROLL
    for (Index k = 0; k < kKeys; ++k) {
      _mm512_store_ps(pending.scores + k * kLanes + j * kWidth, sum[k][j]);
      top = _mm512_max_ps(top, sum[k][j]);
    }
    float* const to = column.top + j * kWidth;
    _mm512_store_ps(to, _mm512_max_ps(_mm512_load_ps(to), top));
    _mm512_store_ps(column.largest + j * kWidth, top);
    above =
        static_cast<__mmask16>(above | _mm512_cmp_ps_mask(top, _mm512_load_ps(column.limit + j * kWidth), _CMP_GT_OQ));
  }
  return above == 0;
}

template <Index kSteps>
bool foldSome(FoldColumn& column, PendingScores& pending, Index count) {
  static_assert(kFoldFewestKeys == 6 && kFoldMostKeys == 11);
  switch (count) {
    case 6:
      return foldKeys<6, kSteps>(column, pending);
    case 7:
      return foldKeys<7, kSteps>(column, pending);
    case 8:
      return foldKeys<8, kSteps>(column, pending);
    case 9:
      return foldKeys<9, kSteps>(column, pending);
    case 10:
      return foldKeys<10, kSteps>(column, pending);
    default:
      return foldKeys<11, kSteps>(column, pending);
  }
}

bool foldKernel(FoldColumn& column, PendingScores& pending) noexcept {
  constexpr Index kUsualKeys = 8;
  constexpr Index kUsualDim = 128;
  if (pending.count == 0) {
    SPARSIGHT_UNROLL
    for (Index j = 0; j < kVecs; ++j) _mm512_store_ps(pending.partial + j * kWidth, _mm512_setzero_ps());
  }
  // Parts of equal size, 6 to 11 keys, wherever a call starts again: so sums do not depend on who asked for a new
  // reference.
  const Index parts = (column.count + kUsualKeys / 2) / kUsualKeys;
  while (column.done < column.count) {
    const Index count = ++column.part * column.count / parts - column.done;
    const bool fits =
        column.dim >= kUsualDim ? foldSome<8>(column, pending, count) : foldSome<4>(column, pending, count);
    if (!fits) return false;
  }
  return true;
}

void foldRestKernel(PendingScores& pending) noexcept {
  if (pending.count == 0) return;
  __m512 partial[kVecs];
  loadPartial(partial, pending);
  for (Index n = 0; n < pending.count; ++n) {
    SPARSIGHT_UNROLL
    for (Index j = 0; j < kVecs; ++j) partial[j] = addPending(partial[j], pending, n, j);
  }
  storePartial(partial, pending);
  pending.count = 0;
}

double peakKernel(Index rounds, float* sink) noexcept {
  constexpr Index kChains = 24;
  __m512 sum[kChains];
  SPARSIGHT_UNROLL
  for (Index i = 0; i < kChains; ++i) sum[i] = _mm512_set1_ps(sink[i]);
  const auto a = reinterpret_cast<__m512bh>(_mm512_set1_epi32(0x3f003f00));  // pairs of 0.5
  const auto b = reinterpret_cast<__m512bh>(_mm512_set1_epi32(0x3e803e80));  // pairs of 0.25
  for (Index r = 0; r < rounds; ++r) {
    SPARSIGHT_UNROLL
    for (Index i = 0; i < kChains; ++i) sum[i] = _mm512_dpbf16_ps(sum[i], a, b);
  }
  SPARSIGHT_UNROLL
  for (Index i = 1; i < kChains; ++i) sum[0] = _mm512_add_ps(sum[0], sum[i]);
  sink[2] += _mm512_reduce_add_ps(sum[0]);
  return 4.0 * static_cast<double>(kChains * kWidth) * static_cast<double>(rounds);
}

}  // namespace

const SimdKernels& avx512Bf16Kernels() noexcept {
  static const SimdKernels kKernels = [] {
    SimdKernels kernels = avx512Kernels();
    kernels.name = "avx512bf16";
    kernels.scoresBf16 = scoresKernel;
    kernels.foldBf16 = foldKernel;
    kernels.foldRest = foldRestKernel;
    kernels.peakBf16 = peakKernel;
    return kernels;
  }();
  return kKernels;
}

}  // namespace sparsight::cpu
#endif
