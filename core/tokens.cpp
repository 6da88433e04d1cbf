// SPDX-License-Identifier: Apache-2.0
#include "sparsight/core/tokens.h"

#include <fmt/format.h>

#include <algorithm>

namespace sparsight {

std::string_view segmentKindName(SegmentKind kind) noexcept {
  switch (kind) {
    case SegmentKind::Video:
      return "video";
    case SegmentKind::Text:
      return "text";
    case SegmentKind::Image:
      return "image";
    case SegmentKind::Audio:
      return "audio";
    case SegmentKind::History:
      return "history";
    case SegmentKind::Register:
      return "register";
    case SegmentKind::Other:
      break;
  }
  return "other";
}

namespace {
bool hasGrid(const Segment& s) noexcept { return s.frames > 0 && s.height > 0 && s.width > 0; }
}  // namespace

const Segment* TokenLayout::video() const noexcept {
  const Segment* best = nullptr;
  for (const Segment& s : segments) {
    if (s.kind == SegmentKind::Video && hasGrid(s) && (best == nullptr || s.length > best->length)) best = &s;
  }
  return best;
}

const Segment* TokenLayout::text() const noexcept {
  const auto it = std::find_if(segments.begin(), segments.end(),
                               [](const Segment& s) { return s.kind == SegmentKind::Text && s.length > 0; });
  return it == segments.end() ? nullptr : &*it;
}

const Segment* TokenLayout::segmentOf(Index token) const noexcept {
  // The last segment that starts at or before the token.
  const auto after =
      std::upper_bound(segments.begin(), segments.end(), token, [](Index t, const Segment& s) { return t < s.start; });
  for (auto it = after; it != segments.begin();) {
    --it;
    if (it->length == 0) continue;  // an empty segment may share its start with the next one
    return token - it->start < it->length ? &*it : nullptr;
  }
  return nullptr;
}

std::optional<GridCell> TokenLayout::cellOf(Index token) const noexcept {
  const Segment* s = segmentOf(token);
  if (s == nullptr || !hasGrid(*s)) return std::nullopt;
  const Index local = token - s->start;
  const Index frameTokens = Index{s->height} * s->width;
  const Index inFrame = local % frameTokens;
  return GridCell{static_cast<int>(local / frameTokens), static_cast<int>(inFrame / s->width),
                  static_cast<int>(inFrame % s->width)};
}

std::string TokenLayout::describe(Index token) const {
  const Segment* s = segmentOf(token);
  if (s == nullptr) return fmt::format("token {}", token);
  const auto cell = cellOf(token);
  if (!cell) return fmt::format("{} {}", segmentKindName(s->kind), token - s->start);
  const std::string place = fmt::format("f{} r{} c{}", cell->frame, cell->y, cell->x);
  return s->kind == SegmentKind::Video ? place : fmt::format("{} {}", segmentKindName(s->kind), place);
}

}  // namespace sparsight
