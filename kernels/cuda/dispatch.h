// SPDX-License-Identifier: Apache-2.0
#pragma once

// From a head's type and the path to the instantiation of a kernel: start.template operator()<...>() is called with the
// types that fit. Shared by the launchers and by their emulation in tests.

#include "cuda/hopper_layout.h"
#include "cuda/score_tile.h"

namespace sparsight::cuda {

/// Which products a kernel uses: fp32 arithmetic; tensor cores where the type allows (compute capability 8.0); the
/// same, and kernels of their own for pooled maps and attention at compute capability 9.0.
enum class Path : std::uint8_t { Portable, Mma, Hopper };

/// True when the Hopper kernels take a head of this type whose rows have `cols` columns (the widest of q, k and v);
/// others take the tensor-core path's.
constexpr bool takesHopper(DType dtype, Path path, Index cols) {
  return path == Path::Hopper && dtype != DType::F32 && cols >= 1 && cols <= hopper::kLargestWidth;
}

/// start<T, Tile>() for a head of type `dtype`.
template <class Start>
auto forHead(DType dtype, Path path, const Start& start) {
  const bool mma = path != Path::Portable;
  if (dtype == DType::F16) {
    return mma ? start.template operator()<HalfBits, MmaTile<HalfBits>>()
               : start.template operator()<HalfBits, PortableTile<HalfBits>>();
  }
  if (dtype == DType::BF16) {
    return mma ? start.template operator()<Bf16Bits, MmaTile<Bf16Bits>>()
               : start.template operator()<Bf16Bits, PortableTile<Bf16Bits>>();
  }
  return start.template operator()<float, PortableTile<float>>();
}

/// start<T>() for a head of type `dtype`.
template <class Start>
auto forType(DType dtype, const Start& start) {
  if (dtype == DType::F16) return start.template operator()<HalfBits>();
  if (dtype == DType::BF16) return start.template operator()<Bf16Bits>();
  return start.template operator()<float>();
}

/// True when products of a head's rows with float32 rows run on tensor cores: the float32 rows are then split into
/// three bfloat16 parts each (see splitFloat), which only bfloat16 rows can be multiplied with.
inline bool splitsFloats(DType dtype, Path path) { return dtype == DType::BF16 && path != Path::Portable; }

/// start<Tile>() for products of a head's rows with float32 rows.
template <class Start>
auto forFloatRows(DType dtype, Path path, const Start& start) {
  if (splitsFloats(dtype, path)) return start.template operator()<MmaTile<Bf16Bits>>();
  if (dtype == DType::F16) return start.template operator()<PortableTile<HalfBits, float>>();
  if (dtype == DType::BF16) return start.template operator()<PortableTile<Bf16Bits, float>>();
  return start.template operator()<PortableTile<float>>();
}

/// start.operator()<kWidth>() for values of `width` columns, at most 256.
template <class Start>
auto forWidth(Index width, const Start& start) {
  if (width == 0) return start.template operator()<0>();
  if (width <= 64) return start.template operator()<64>();
  if (width <= 128) return start.template operator()<128>();
  return start.template operator()<256>();
}

}  // namespace sparsight::cuda
