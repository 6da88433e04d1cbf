// SPDX-License-Identifier: Apache-2.0
// The inner loops, written once over a vector type. Each simd_*.cpp defines `Vec` (an abstract register of kWidth
// floats) and kPanelVecs, kKeyUnroll, kLaneUnroll, includes this file inside its own anonymous namespace and is
// compiled with its instruction set switched on. Nothing from the standard library may be instantiated here: the linker
// would be free to use such a copy in the rest of the program, which must run on any CPU.

#if defined(__clang__)
#define SPARSIGHT_UNROLL _Pragma("clang loop unroll(full)")
#else
#define SPARSIGHT_UNROLL _Pragma("GCC unroll 32")
#endif

constexpr Index kWidth = Vec::kWidth;
constexpr Index kLanes = kWidth * kPanelVecs;
constexpr Index kValueVecs = 2;
constexpr Index kValueColumns = kWidth * kValueVecs;
constexpr float kMinusInf = -__builtin_inff();

/// 2^x to within 2 ulp for results in the normal range; below 2^-127 exactly 0, above 2^127 saturated; NaN stays NaN.
inline Vec exp2Vec(Vec x) {
  x = Vec::min(Vec::set(127.0F), Vec::max(Vec::set(-127.0F), x));
  // Adding 1.5 * 2^23 rounds to an integer and leaves it in the low bits, where it becomes the exponent by a shift:
  // x = -127 gives the exponent field 0, that is a factor of 0.
  const Vec shifted = x + Vec::set(0x1.8p23F);
  const Vec f = x - (shifted - Vec::set(0x1.8p23F));
  // Minimax polynomial of degree 6 on [-1/2, 1/2] (Cephes, exp2f).
  Vec p = Vec::set(1.535336188319500E-4F);
  p = Vec::fma(p, f, Vec::set(1.339887440266574E-3F));
  p = Vec::fma(p, f, Vec::set(9.618437357674640E-3F));
  p = Vec::fma(p, f, Vec::set(5.550332471162809E-2F));
  p = Vec::fma(p, f, Vec::set(2.402264791363012E-1F));
  p = Vec::fma(p, f, Vec::set(6.931472028550421E-1F));
  p = Vec::fma(p, f, Vec::set(1.0F));
  return p * Vec::exponent(shifted);
}

/// Scores of kKeys keys. Each (key, lane) sums over head_dim in order with one accumulator, so equal keys get equal
/// bits wherever they stand: ties are real ties.
template <Index kKeys>
inline void dotKeys(const float* panel, const float* keys, Index stride, Index dim, float* scores) {
  Vec sum[std::size_t{kKeys}][kPanelVecs];
  SPARSIGHT_UNROLL
  for (Index n = 0; n < kKeys; ++n) {
    SPARSIGHT_UNROLL
    for (Index j = 0; j < kPanelVecs; ++j) sum[n][j] = Vec::set(0.0F);
  }
  for (Index i = 0; i < dim; ++i) {
    Vec q[kPanelVecs];
    SPARSIGHT_UNROLL
    for (Index j = 0; j < kPanelVecs; ++j) q[j] = Vec::load(panel + i * kLanes + j * kWidth);
    SPARSIGHT_UNROLL
    for (Index n = 0; n < kKeys; ++n) {
      const Vec key = Vec::set(keys[n * stride + i]);
      SPARSIGHT_UNROLL
      for (Index j = 0; j < kPanelVecs; ++j) sum[n][j] = Vec::fma(key, q[j], sum[n][j]);
    }
  }
  SPARSIGHT_UNROLL
  for (Index n = 0; n < kKeys; ++n) {
    SPARSIGHT_UNROLL
    for (Index j = 0; j < kPanelVecs; ++j) sum[n][j].store(scores + n * kLanes + j * kWidth);
  }
}

void scoresKernel(const float* panel, const float* keys, Index stride, Index count, Index dim, float* scores) noexcept {
  Index n = 0;
  for (; n + kKeyUnroll <= count; n += kKeyUnroll) {
    dotKeys<kKeyUnroll>(panel, keys + n * stride, stride, dim, scores + n * kLanes);
  }
  for (; n + 2 <= count; n += 2) dotKeys<2>(panel, keys + n * stride, stride, dim, scores + n * kLanes);
  for (; n < count; ++n) dotKeys<1>(panel, keys + n * stride, stride, dim, scores + n * kLanes);
}

void tileMaxKernel(const float* scores, Index count, float* largest) noexcept {
  Vec top[kPanelVecs];
  SPARSIGHT_UNROLL
  for (Index j = 0; j < kPanelVecs; ++j) top[j] = Vec::load(largest + j * kWidth);
  for (Index n = 0; n < count; ++n) {
    SPARSIGHT_UNROLL
    for (Index j = 0; j < kPanelVecs; ++j) top[j] = Vec::max(top[j], Vec::load(scores + n * kLanes + j * kWidth));
  }
  SPARSIGHT_UNROLL
  for (Index j = 0; j < kPanelVecs; ++j) top[j].store(largest + j * kWidth);
}

template <bool kStore, class Score>
inline void expTile(Score* scores, Index count, float scale, const float* reference, float* sums) {
  const Vec factor = Vec::set(scale);
  Vec minus[kPanelVecs];
  Vec sum[kPanelVecs];
  SPARSIGHT_UNROLL
  for (Index j = 0; j < kPanelVecs; ++j) {
    minus[j] = Vec::set(0.0F) - Vec::load(reference + j * kWidth);
    sum[j] = Vec::set(0.0F);
  }
  for (Index n = 0; n < count; ++n) {
    SPARSIGHT_UNROLL
    for (Index j = 0; j < kPanelVecs; ++j) {
      Score* const at = scores + n * kLanes + j * kWidth;
      const Vec w = exp2Vec(Vec::fma(factor, Vec::load(at), minus[j]));
      if constexpr (kStore) w.store(at);
      sum[j] = sum[j] + w;
    }
  }
  // One tile is summed in registers and then added: the rounding error grows with the tiles, not with the keys.
  SPARSIGHT_UNROLL
  for (Index j = 0; j < kPanelVecs; ++j) (Vec::load(sums + j * kWidth) + sum[j]).store(sums + j * kWidth);
}

void tileExpSumKernel(const float* scores, Index count, float scale, const float* reference, float* sums) noexcept {
  expTile<false>(scores, count, scale, reference, sums);
}
void tileExpKernel(float* scores, Index count, float scale, const float* reference, float* sums) noexcept {
  expTile<true>(scores, count, scale, reference, sums);
}

void tileExpEachKernel(const float* scores, Index count, float scale, const float* reference, float* sums) noexcept {
  const Vec factor = Vec::set(scale);
  for (Index j = 0; j < kLanes; j += kWidth) {
    const Vec minus = Vec::set(0.0F) - Vec::load(reference + j);
    for (Index n = j; n < count * kLanes; n += kLanes) {
      const Vec w = exp2Vec(Vec::fma(factor, Vec::load(scores + n), minus));
      (Vec::load(sums + n) + w).store(sums + n);
    }
  }
}

void accumulateKernel(const float* weights, Index count, const float* values, Index valueStride, Index columns,
                      float* out, Index outStride) noexcept {
  static_assert(kLanes % kLaneUnroll == 0);
  // A strip of value columns stays in L1 while all lanes pass over it.
  for (Index column = 0; column < columns; column += kValueColumns) {
    for (Index lane = 0; lane < kLanes; lane += kLaneUnroll) {
      Vec sum[kLaneUnroll][kValueVecs];
      SPARSIGHT_UNROLL
      for (Index i = 0; i < kLaneUnroll; ++i) {
        SPARSIGHT_UNROLL
        for (Index j = 0; j < kValueVecs; ++j) sum[i][j] = Vec::set(0.0F);
      }
      for (Index n = 0; n < count; ++n) {
        const float* const value = values + n * valueStride + column;
        const float* const weight = weights + n * kLanes + lane;
        Vec v[kValueVecs];
        SPARSIGHT_UNROLL
        for (Index j = 0; j < kValueVecs; ++j) v[j] = Vec::load(value + j * kWidth);
        SPARSIGHT_UNROLL
        for (Index i = 0; i < kLaneUnroll; ++i) {
          const Vec w = Vec::set(weight[i]);
          SPARSIGHT_UNROLL
          for (Index j = 0; j < kValueVecs; ++j) sum[i][j] = Vec::fma(w, v[j], sum[i][j]);
        }
      }
      SPARSIGHT_UNROLL
      for (Index i = 0; i < kLaneUnroll; ++i) {
        SPARSIGHT_UNROLL
        for (Index j = 0; j < kValueVecs; ++j) {
          float* const at = out + (lane + i) * outStride + column + j * kWidth;
          (Vec::load(at) + sum[i][j]).store(at);
        }
      }
    }
  }
}

void toRowsKernel(const float* scores, Index count, float* rows, Index rowStride) noexcept {
  for (Index lane = 0; lane < kLanes; ++lane) {
    float* const row = rows + lane * rowStride;
    for (Index n = 0; n < count; ++n) row[n] = scores[n * kLanes + lane];
  }
}

float rowMaxKernel(const float* row, Index count) noexcept {
  float top = kMinusInf;
  Index n = 0;
  if (count >= kWidth) {
    Vec best = Vec::loadu(row);
    for (n = kWidth; n + kWidth <= count; n += kWidth) best = Vec::max(best, Vec::loadu(row + n));
    alignas(kAlignment) float lane[kWidth];
    best.store(lane);
    for (const float value : lane) top = value > top ? value : top;
  }
  for (; n < count; ++n) top = row[n] > top ? row[n] : top;
  return top;
}

void rowExpKernel(const float* row, Index count, float scale, float top, float* weights, double* sum,
                  double* sumLog) noexcept {
  constexpr Index kFlush = 64 * kWidth;  // float sums are short, the total is double
  for (Index first = 0; first < count; first += kFlush) {
    const Index last = first + kFlush < count ? first + kFlush : count;
    Vec partial = Vec::set(0.0F);
    Vec partialLog = Vec::set(0.0F);
    for (Index n = first; n < last; n += kWidth) {
      alignas(kAlignment) float lane[kWidth];
      const Index left = last - n;
      if (left < kWidth) {
        for (Index i = 0; i < kWidth; ++i) lane[i] = i < left ? row[n + i] : kMinusInf;
      }
      const Vec s = left < kWidth ? Vec::load(lane) : Vec::loadu(row + n);
      const Vec t = Vec::set(scale) * (s - Vec::set(top));
      const Vec w = exp2Vec(t);
      partial = partial + w;
      // Where w is 0, t may be -inf: limit it so that the product is 0.
      partialLog = Vec::fma(w, Vec::max(t, Vec::set(-128.0F)), partialLog);
      if (left < kWidth) {
        w.store(lane);
        for (Index i = 0; i < left; ++i) weights[n + i] = lane[i];
      } else {
        w.storeu(weights + n);
      }
    }
    alignas(kAlignment) float lane[kWidth];
    partial.store(lane);
    for (const float value : lane) *sum += static_cast<double>(value);
    partialLog.store(lane);
    for (const float value : lane) *sumLog += static_cast<double>(value);
  }
}

double peakKernel(Index rounds, float* sink) noexcept {
  constexpr Index kChains = 12;
  Vec sum[kChains];
  SPARSIGHT_UNROLL
  for (Index i = 0; i < kChains; ++i) sum[i] = Vec::set(sink[i]);
  const Vec a = Vec::set(sink[0]);
  const Vec b = Vec::set(sink[1]);
  for (Index r = 0; r < rounds; ++r) {
    SPARSIGHT_UNROLL
    for (Index i = 0; i < kChains; ++i) sum[i] = Vec::fma(sum[i], a, b);
  }
  alignas(kAlignment) float lane[kWidth];
  SPARSIGHT_UNROLL
  for (Index i = 1; i < kChains; ++i) sum[0] = sum[0] + sum[i];
  sum[0].store(lane);
  for (const float value : lane) sink[2] += value;
  return 2.0 * static_cast<double>(kChains * kWidth) * static_cast<double>(rounds);
}

constexpr SimdKernels makeKernels(std::string_view name) {
  return {
      name,          kLanes,           kValueColumns, scoresKernel, tileMaxKernel, tileExpSumKernel, tileExpEachKernel,
      tileExpKernel, accumulateKernel, toRowsKernel,  rowMaxKernel, rowExpKernel,  peakKernel};
}

#undef SPARSIGHT_UNROLL
