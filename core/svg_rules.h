// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

#include "sparsight/core/method.h"

namespace sparsight {

/// What SVG's rules need to know of a head, in the layout they are written in: reference keeps text where the model has
/// it, sparsevideo turns every sequence into video, then text. Positions are in that layout.
struct SvgGeometry {
  ModelRule rule = ModelRule::Wan;
  bool sparsevideo = false;
  Index tokens = 0;                     ///< S = V + C
  Index frames = 0, frameSize = 0;      ///< T latent frames of F tokens
  Index videoTokens = 0;                ///< V = T * F
  Index textTokens = 0;                 ///< C, padding included
  Index modelVideoStart = 0;            ///< first video token in the model's order
  Index videoStart = 0;                 ///< first video position in the rules' layout
  std::vector<Interval> real;           ///< positions that are not padding text, merged
  std::vector<Interval> realText;       ///< prompt positions
  std::vector<Interval> padding;        ///< padding text positions
  std::vector<std::uint8_t> isPadding;  ///< [S] by position; empty: none

  [[nodiscard]] bool isVideo(Index position) const noexcept {
    return position >= videoStart && position < videoStart + videoTokens;
  }
};
/// Throws Error{Unsupported} with the reason for a head that the rule cannot describe.
[[nodiscard]] SvgGeometry svgGeometry(const HeadData& head, const ParamSet& params);

/// Position -> model token of the layout; temporal: video in token-major order (all frames of a place together), the
/// layout transformation of svg/models/*/placement.py. Empty: identity.
[[nodiscard]] std::vector<Index> svgOrder(const SvgGeometry& geometry, bool temporal);

/// Profiling masks (get_attention_mask), one row at a time: a band of 128-blocks 2 (wan) or 1.5 frames wide, whatever
/// the kept fraction asked for. `position` and the result are positions of svgOrder(temporal).
[[nodiscard]] std::vector<Interval> svgProfileRow(const SvgGeometry& geometry, bool temporal, Index position);

/// Half width R of the runtime band in tokens for a kept fraction (sparsity_to_width and the rounding of the mask_mod):
/// wan 128 ceil(x / 128), hunyuan and cogvideox 128 floor(x / 128); sparsevideo ceils except for hunyuan. May be <= 0.
[[nodiscard]] Index svgBandWidth(const SvgGeometry& geometry, double keptFraction);
/// The width before rounding, in frames (`diag_width`).
[[nodiscard]] double svgBandFrames(const SvgGeometry& geometry, double keptFraction);

/// Runtime mask of one row position, the same for both head classes.
[[nodiscard]] std::vector<Interval> svgRuntimeRow(const SvgGeometry& geometry, Index bandWidth, Index position);

}  // namespace sparsight
