// SPDX-License-Identifier: Apache-2.0
#include "import/byte_source.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <system_error>

#include "sparsight/kernels/error.h"

namespace sparsight::import {
namespace {

// Read ahead no more than this to gather what lies apart.
constexpr Index kWindowBytes = Index{4} << 20;
// Of a window, at least this part must be wanted; below it, runs are read one by one.
constexpr Index kSparsest = 16;

void swapBytes(std::span<std::byte> data, std::size_t item) {
  for (std::size_t at = 0; at + item <= data.size(); at += item) {
    std::reverse(data.begin() + static_cast<std::ptrdiff_t>(at), data.begin() + static_cast<std::ptrdiff_t>(at + item));
  }
}

}  // namespace

FileBytes::FileBytes(const std::filesystem::path& path) : m_name(path.string()) {
  m_descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  struct stat status {};
  if (m_descriptor < 0 || ::fstat(m_descriptor, &status) != 0) {
    const int error = errno;
    if (m_descriptor >= 0) ::close(m_descriptor);
    throw Error(ErrorCode::Io, fmt::format("cannot read '{}': {}", m_name,
                                           error == ENOENT   ? "no such file; check the path"
                                           : error == EACCES ? "no permission; ask its owner for read access"
                                                             : std::generic_category().message(error)));
  }
  if (!S_ISREG(status.st_mode)) {
    ::close(m_descriptor);
    throw Error(ErrorCode::Io, fmt::format("cannot read '{}': it is no regular file", m_name));
  }
  m_size = static_cast<std::uint64_t>(status.st_size);
}

FileBytes::FileBytes(int descriptor, std::string name, std::uint64_t size) noexcept
    : m_descriptor(descriptor), m_name(std::move(name)), m_size(size) {}

FileBytes::~FileBytes() {
  if (m_descriptor >= 0) ::close(m_descriptor);
}

void FileBytes::fail(const std::string& message) const {
  throw Error(ErrorCode::Format, fmt::format("{}: {}", m_name, message));
}

void FileBytes::read(std::uint64_t offset, std::span<std::byte> out) const {
  if (offset > m_size || out.size() > m_size - offset) {
    fail(fmt::format("ends at byte {}, but {} bytes from {} on are needed; the file is truncated, copy it again",
                     m_size, out.size(), offset));
  }
  while (!out.empty()) {
    const ssize_t n = ::pread(m_descriptor, out.data(), out.size(), static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) {
      throw Error(ErrorCode::Io, fmt::format("cannot read '{}' at byte {}: {}", m_name, offset,
                                             std::generic_category().message(errno)));
    }
    if (n == 0) fail("became shorter while it was read; copy it again");
    out = out.subspan(static_cast<std::size_t>(n));
    offset += static_cast<std::uint64_t>(n);
  }
}

std::string FileBytes::readText(std::uint64_t offset, std::size_t count) const {
  if (offset > m_size || count > m_size - offset) {
    fail(fmt::format("ends at byte {}, but {} bytes from {} on are needed; the file is truncated, copy it again",
                     m_size, count, offset));
  }
  std::string text(count, '\0');
  read(offset, std::as_writable_bytes(std::span(text)));
  return text;
}

std::string shapeText(std::span<const Index> shape) { return fmt::format("[{}]", fmt::join(shape, ", ")); }

std::string plain(std::string_view text) {
  std::string out(text.substr(0, 400));
  for (char& c : out) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte == 0x7f) c = '.';
  }
  return out;
}

std::string printable(std::string_view text) {
  std::string out = "'";
  for (const char c : text.substr(0, 60)) out += c >= 0x20 && c < 0x7f ? c : '.';
  return out + (text.size() > 60 ? "...'" : "'");
}

Index checkedCount(std::span<const Index> shape, const std::string& what) {
  Index count = 1;
  for (const Index extent : shape) {
    if (extent < 0 || (extent > 0 && count > (Index{1} << 60) / extent)) {
      throw Error(ErrorCode::Format,
                  fmt::format("{}: shape {} is impossible; the file is damaged", what, shapeText(shape)));
    }
    count *= extent;
  }
  return count;
}

std::vector<Index> contiguousStrides(std::span<const Index> shape) {
  std::vector<Index> strides(shape.size(), 1);
  for (std::size_t i = shape.size(); i > 1; --i) strides[i - 2] = strides[i - 1] * std::max<Index>(1, shape[i - 1]);
  return strides;
}

void StridedTensor::check(const std::string& what) const {
  const auto outside = [&] {
    throw Error(ErrorCode::Format,
                fmt::format("{}: shape {} with strides {} from element {} on does not fit its {} bytes; the file is "
                            "damaged",
                            what, shapeText(shape), shapeText(strides), first, length));
  };
  if (shape.size() != strides.size() || item == 0 || first < 0) outside();
  if (offset > bytes->size() || length > bytes->size() - offset) {
    throw Error(ErrorCode::Format,
                fmt::format("{}: its {} bytes from byte {} on are not all in the file, which ends at {}; copy it again",
                            what, length, offset, bytes->size()));
  }
  if (checkedCount(shape, what) == 0) return;
  const auto available = static_cast<Index>(length / item);
  Index last = first;
  for (std::size_t i = 0; i < shape.size(); ++i) {
    if (shape[i] == 1) continue;  // whatever torch leaves there is never used
    if (strides[i] < 0 || (strides[i] > 0 && shape[i] - 1 > (available - 1 - last) / strides[i])) outside();
    last += (shape[i] - 1) * strides[i];
  }
  if (last >= available) outside();
}

void StridedTensor::readPlane(std::span<const Index> index, std::size_t rowAxis, std::size_t columnAxis,
                              std::span<std::byte> out, const Control& control) const {
  Index start = first;
  for (std::size_t i = 0; i < shape.size(); ++i) {
    if (i != rowAxis && i != columnAxis) start += index[i] * strides[i];
  }
  const auto strideOf = [&](std::size_t axis) { return axis < strides.size() ? strides[axis] : 0; };
  const auto extentOf = [&](std::size_t axis) { return axis < shape.size() ? shape[axis] : Index{1}; };
  // Outer: the axis whose neighbours lie farther apart.
  const bool byRow = rowAxis >= shape.size() || strides[rowAxis] >= strides[columnAxis];
  const std::size_t outerAxis = byRow ? rowAxis : columnAxis, innerAxis = byRow ? columnAxis : rowAxis;
  const Index outerCount = extentOf(outerAxis), innerCount = extentOf(innerAxis);
  if (outerCount == 0 || innerCount == 0) return;
  const Index outerStride = outerCount == 1 ? 0 : strideOf(outerAxis);
  const Index innerStride = innerCount == 1 ? 0 : strideOf(innerAxis);
  const auto columns = shape[columnAxis];
  const auto size = static_cast<Index>(item);
  const Index span = (innerCount - 1) * innerStride + 1;  // of one outer entry

  std::vector<std::byte> window;
  const auto fetch = [&](Index element, Index count) {
    window.resize(static_cast<std::size_t>(count * size));
    bytes->read(offset + static_cast<std::uint64_t>((start + element) * size), window);
    if (swapped) swapBytes(window, item);
  };
  const auto place = [&](Index outer, Index inner, const std::byte* from, Index count, Index stride) {
    const Index row = byRow ? outer : inner, column = byRow ? inner : outer;
    std::byte* to = out.data() + (row * columns + column) * size;
    const Index step = byRow ? size : columns * size;
    if (step == size && stride == 1) {
      std::memcpy(to, from, static_cast<std::size_t>(count * size));
      return;
    }
    for (Index i = 0; i < count; ++i) std::memcpy(to + i * step, from + i * stride * size, item);
  };

  // Several outer entries per read while they lie close enough together.
  Index group = 1;
  if (outerStride > 0 && span * kSparsest >= outerStride) {
    group = std::clamp<Index>((kWindowBytes / size - span) / outerStride + 1, 1, outerCount);
  } else if (outerStride == 0) {
    group = outerCount;
  }
  for (Index outer = 0; outer < outerCount; outer += group) {
    control.checkpoint();
    const Index entries = std::min(group, outerCount - outer);
    const Index width = (entries - 1) * outerStride + span;
    if (width * size <= 2 * kWindowBytes) {
      fetch(outer * outerStride, width);
      for (Index e = 0; e < entries; ++e) {
        place(outer + e, 0, window.data() + e * outerStride * size, innerCount, innerStride);
      }
      continue;
    }
    // One entry alone is wider than a window.
    const Index piece = std::max<Index>(1, innerStride == 0 ? innerCount : kWindowBytes / size / innerStride);
    for (Index e = 0; e < entries; ++e) {
      for (Index inner = 0; inner < innerCount; inner += piece) {
        control.checkpoint();
        const Index n = std::min(piece, innerCount - inner);
        fetch((outer + e) * outerStride + inner * innerStride, (n - 1) * innerStride + 1);
        place(outer + e, inner, window.data(), n, innerStride);
      }
    }
  }
}

void StridedFile::readPlane(std::size_t tensor, std::span<const Index> index, std::size_t rowAxis,
                            std::size_t columnAxis, std::span<std::byte> out, const Control& control) {
  m_data.at(tensor).readPlane(index, rowAxis, columnAxis, out, control);
}

void StridedFile::add(FoundTensor found, StridedTensor data) {
  m_tensors.push_back(std::move(found));
  m_data.push_back(std::move(data));
}

}  // namespace sparsight::import
