// SPDX-License-Identifier: Apache-2.0
// The inner loops, written once over a vector type. Each simd_*.cpp defines `Vec` (an abstract register of kWidth
// floats) and kPanelVecs, kKeyUnroll, kLaneUnroll, includes this file inside its own anonymous namespace and is
// compiled with its instruction set switched on. Nothing from the standard library may be instantiated here: the linker
// would be free to use such a copy in the rest of the program, which must run on any CPU.

constexpr Index kWidth = Vec::kWidth;
constexpr Index kLanes = kWidth * kPanelVecs;
constexpr Index kValueVecs = 2;
constexpr Index kValueColumns = kWidth * kValueVecs;
constexpr float kMinusInf = -__builtin_inff();

/// 2^x to within 2 ulp for results in the normal range (2^127 at most), 0 far below it; NaN stays NaN.
template <class V>
inline V exp2Vec(V x) {
  if constexpr (requires { V::exp2(x); }) {
    return V::exp2(x);
  } else {
    x = V::min(V::set(127.0F), V::max(V::set(-127.0F), x));
    // Adding 1.5 * 2^23 rounds to an integer and leaves it in the low bits, where it becomes the exponent by a shift:
    // x = -127 gives the exponent field 0, that is a factor of 0.
    const V shifted = x + V::set(0x1.8p23F);
    const V f = x - (shifted - V::set(0x1.8p23F));
    // Minimax polynomial of degree 6 on [-1/2, 1/2] (Cephes, exp2f).
    V p = V::set(1.535336188319500E-4F);
    p = V::fma(p, f, V::set(1.339887440266574E-3F));
    p = V::fma(p, f, V::set(9.618437357674640E-3F));
    p = V::fma(p, f, V::set(5.550332471162809E-2F));
    p = V::fma(p, f, V::set(2.402264791363012E-1F));
    p = V::fma(p, f, V::set(6.931472028550421E-1F));
    p = V::fma(p, f, V::set(1.0F));
    return p * V::exponent(shifted);
  }
}

/// Writes the scores of kKeys keys and keeps each lane's largest while they are in registers.
template <Index kKeys>
inline void storeScores(const Vec (&sum)[std::size_t{kKeys}][kPanelVecs], float* scores, float* largest) {
  SPARSIGHT_UNROLL
  for (Index j = 0; j < kPanelVecs; ++j) {
    Vec top = Vec::load(largest + j * kWidth);
    SPARSIGHT_UNROLL
    for (Index n = 0; n < kKeys; ++n) {
      sum[n][j].store(scores + n * kLanes + j * kWidth);
      top = Vec::max(top, sum[n][j]);
    }
    top.store(largest + j * kWidth);
  }
}

/// Scores of kKeys keys. Each (key, lane) sums over head_dim in order with one accumulator, so equal keys get equal
/// bits wherever they stand: ties are real ties. Out of line on purpose: inlined into the loop over the keys, the
/// addresses of twelve keys no longer fit into the registers, which costs a tenth.
template <Index kKeys>
__attribute__((noinline)) void dotKeys(const float* panel, const float* keys, Index stride, Index dim, float* scores,
                                       float* largest) {
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
  storeScores<kKeys>(sum, scores, largest);
}

void scoresKernel(const float* panel, const float* keys, Index stride, Index count, Index dim, float* scores,
                  float* largest) noexcept {
  Index n = 0;
  for (; n + kKeyUnroll <= count; n += kKeyUnroll) {
    dotKeys<kKeyUnroll>(panel, keys + n * stride, stride, dim, scores + n * kLanes, largest);
  }
  for (; n + 2 <= count; n += 2) dotKeys<2>(panel, keys + n * stride, stride, dim, scores + n * kLanes, largest);
  for (; n < count; ++n) dotKeys<1>(panel, keys + n * stride, stride, dim, scores + n * kLanes, largest);
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

template <bool kStore, bool kMax, class Score>
inline void expTile(Score* scores, Index count, float scale, const float* reference, float* sums, float* largest) {
  const Vec factor = Vec::set(scale);
  Vec minus[kPanelVecs];
  Vec sum[kPanelVecs];
  Vec top[kPanelVecs];
  SPARSIGHT_UNROLL
  for (Index j = 0; j < kPanelVecs; ++j) {
    minus[j] = Vec::set(0.0F) - Vec::load(reference + j * kWidth);
    sum[j] = Vec::set(0.0F);
    top[j] = kMax ? Vec::load(largest + j * kWidth) : Vec::set(kMinusInf);
  }
  for (Index n = 0; n < count; ++n) {
    SPARSIGHT_UNROLL
    for (Index j = 0; j < kPanelVecs; ++j) {
      Score* const at = scores + n * kLanes + j * kWidth;
      const Vec score = Vec::load(at);
      if constexpr (kMax) top[j] = Vec::max(top[j], score);
      const Vec w = exp2Vec(Vec::fma(factor, score, minus[j]));
      if constexpr (kStore) w.store(at);
      sum[j] = sum[j] + w;
    }
  }
  // One tile is summed in registers and then added: the rounding error grows with the tiles, not with the keys.
  SPARSIGHT_UNROLL
  for (Index j = 0; j < kPanelVecs; ++j) {
    (Vec::load(sums + j * kWidth) + sum[j]).store(sums + j * kWidth);
    if constexpr (kMax) top[j].store(largest + j * kWidth);
  }
}

void tileExpSumKernel(const float* scores, Index count, float scale, const float* reference, float* sums) noexcept {
  expTile<false, false>(scores, count, scale, reference, sums, nullptr);
}
void tileExpSumMaxKernel(const float* scores, Index count, float scale, const float* reference, float* sums,
                         float* largest) noexcept {
  expTile<false, true>(scores, count, scale, reference, sums, largest);
}
void tileExpKernel(float* scores, Index count, float scale, const float* reference, float* sums) noexcept {
  expTile<true, false>(scores, count, scale, reference, sums, nullptr);
}

/// tile[n, .] * factor at the lanes that take part, 0 elsewhere (whatever stands there, NaN too).
inline void scaledLanes(const float* row, const Vec (&factor)[kPanelVecs], Vec (&out)[kPanelVecs]) {
  const Vec zero = Vec::set(0.0F);
  SPARSIGHT_UNROLL
  for (Index j = 0; j < kPanelVecs; ++j) {
    out[j] = Vec::pick(Vec::less(zero, factor[j]), factor[j] * Vec::load(row + j * kWidth), zero);
  }
}

void addLanesKernel(const float* tile, Index count, const float* factor, double* sums) noexcept {
  Vec f[kPanelVecs];
  SPARSIGHT_UNROLL
  for (Index j = 0; j < kPanelVecs; ++j) f[j] = Vec::load(factor + j * kWidth);
  for (Index n = 0; n < count; ++n) {
    Vec part[kPanelVecs];
    scaledLanes(tile + n * kLanes, f, part);
    SPARSIGHT_UNROLL
    for (Index j = 1; j < kPanelVecs; ++j) part[0] = part[0] + part[j];
    sums[n] += static_cast<double>(Vec::sum(part[0]));
  }
}

void maxLanesKernel(const float* tile, Index count, const float* factor, float* tops) noexcept {
  Vec f[kPanelVecs];
  SPARSIGHT_UNROLL
  for (Index j = 0; j < kPanelVecs; ++j) f[j] = Vec::load(factor + j * kWidth);
  for (Index n = 0; n < count; ++n) {
    Vec part[kPanelVecs];
    scaledLanes(tile + n * kLanes, f, part);
    SPARSIGHT_UNROLL
    for (Index j = 1; j < kPanelVecs; ++j) part[0] = Vec::max(part[0], part[j]);
    const float best = Vec::largest(part[0]);
    tops[n] = best > tops[n] ? best : tops[n];
  }
}

void nearestKernel(const float* scores, Index count, const float* pointSquares, const float* centreSquares,
                   std::int32_t first, float* best, std::int32_t* label) noexcept {
  SPARSIGHT_UNROLL
  for (Index j = 0; j < kPanelVecs; ++j) {
    const Vec point = Vec::load(pointSquares + j * kWidth);
    Vec least = Vec::load(best + j * kWidth);
    auto number = Vec::loadInt(label + j * kWidth);
    for (Index n = 0; n < count; ++n) {
      const Vec squares = point + Vec::set(centreSquares[n]);
      const Vec distance =
          Vec::max(Vec::fma(Vec::set(-2.0F), Vec::load(scores + n * kLanes + j * kWidth), squares), Vec::set(0.0F));
      const auto nearer = Vec::less(distance, least);
      least = Vec::pick(nearer, distance, least);
      number = Vec::pickInt(nearer, first + static_cast<std::int32_t>(n), number);
    }
    least.store(best + j * kWidth);
    Vec::storeInt(label + j * kWidth, number);
  }
}

void mostSimilarKernel(const float* scores, Index count, std::int32_t first, float* best,
                       std::int32_t* label) noexcept {
  SPARSIGHT_UNROLL
  for (Index j = 0; j < kPanelVecs; ++j) {
    Vec most = Vec::load(best + j * kWidth);
    auto number = Vec::loadInt(label + j * kWidth);
    for (Index n = 0; n < count; ++n) {
      const Vec similarity = Vec::load(scores + n * kLanes + j * kWidth);
      const auto nearer = Vec::less(most, similarity);
      most = Vec::pick(nearer, similarity, most);
      number = Vec::pickInt(nearer, first + static_cast<std::int32_t>(n), number);
    }
    most.store(best + j * kWidth);
    Vec::storeInt(label + j * kWidth, number);
  }
}

template <class Widen>
inline void widenRow(const std::uint16_t* from, Index count, float* to, const Widen& widen) {
  Index n = 0;
  for (; n + kWidth <= count; n += kWidth) widen(from + n).storeu(to + n);
  if (n == count) return;
  std::uint16_t rest[kWidth] = {};
  alignas(kAlignment) float wide[kWidth];
  for (Index i = n; i < count; ++i) rest[i - n] = from[i];
  widen(rest).store(wide);
  for (Index i = n; i < count; ++i) to[i] = wide[i - n];
}
void widenHalfKernel(const std::uint16_t* from, Index count, float* to) noexcept {
  widenRow(from, count, to, [](const std::uint16_t* p) { return Vec::half(p); });
}
void widenBf16Kernel(const std::uint16_t* from, Index count, float* to) noexcept {
  widenRow(from, count, to, [](const std::uint16_t* p) { return Vec::bfloat(p); });
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

typedef double Doubles __attribute__((vector_size(kWidth * sizeof(float))));
typedef double DoublesUnaligned __attribute__((vector_size(kWidth * sizeof(float)), aligned(8), may_alias));

void dotsDoubleKernel(const float* const* rows, const double* columns, Index count, Index dim, double* out) noexcept {
  constexpr Index kVecs = 2;
  constexpr Index kDoubles = kWidth / 2;
  for (Index j = 0; j < count; j += kVecs * kDoubles) {
    Doubles sum[kDotRows][kVecs] = {};
    for (Index d = 0; d < dim; ++d) {
      const double* const column = columns + d * count + j;
      Doubles key[kVecs];
      SPARSIGHT_UNROLL
      for (Index v = 0; v < kVecs; ++v) {
        key[v] = *reinterpret_cast<const DoublesUnaligned*>(column + v * kDoubles);
      }
      SPARSIGHT_UNROLL
      for (Index r = 0; r < kDotRows; ++r) {
        const auto factor = static_cast<double>(rows[r][d]);
        SPARSIGHT_UNROLL
        for (Index v = 0; v < kVecs; ++v) sum[r][v] += factor * key[v];
      }
    }
    SPARSIGHT_UNROLL
    for (Index r = 0; r < kDotRows; ++r) {
      SPARSIGHT_UNROLL
      for (Index v = 0; v < kVecs; ++v) {
        *reinterpret_cast<DoublesUnaligned*>(out + r * count + j + v * kDoubles) = sum[r][v];
      }
    }
  }
}

double peakKernel(Index rounds, float* sink) noexcept {
  // As many chains as hide the latency on any CPU that has these registers.
  constexpr Index kChains = kWidth == 16 ? 24 : 12;
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
  return {.name = name,
          .lanes = kLanes,
          .valueColumns = kValueColumns,
          .scores = scoresKernel,
          .scoresBf16 = nullptr,
          .foldBf16 = nullptr,
          .foldRest = nullptr,
          .tileMax = tileMaxKernel,
          .tileExpSum = tileExpSumKernel,
          .tileExpSumMax = tileExpSumMaxKernel,
          .tileExpEach = tileExpEachKernel,
          .tileExp = tileExpKernel,
          .addLanes = addLanesKernel,
          .maxLanes = maxLanesKernel,
          .accumulate = accumulateKernel,
          .nearest = nearestKernel,
          .mostSimilar = mostSimilarKernel,
          .dotsDouble = dotsDoubleKernel,
          .toRows = toRowsKernel,
          .widenHalf = widenHalfKernel,
          .widenBf16 = widenBf16Kernel,
          .rowMax = rowMaxKernel,
          .rowExp = rowExpKernel,
          .peak = peakKernel,
          .peakBf16 = nullptr};
}
