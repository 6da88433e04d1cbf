// SPDX-License-Identifier: Apache-2.0
#include "import/call_sides.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "sparsight/kernels/error.h"

namespace sparsight::import {
namespace {

// What is added to a score that is not to count: -inf, the type's lowest value, or the -10000 of older programs.
constexpr float kMasked = -9999.0F;

std::vector<Index> wholeNumbers(const FoundTensor& found, std::span<const std::byte> bytes) {
  const auto item = static_cast<std::size_t>(found.wholeBytes);
  const bool isUnsigned = found.dtype.find_first_of("uU") != std::string::npos;
  std::vector<Index> values(bytes.size() / item);
  for (std::size_t i = 0; i < values.size(); ++i) {
    std::uint64_t bits = 0;
    std::memcpy(&bits, bytes.data() + i * item, item);  // little endian, as this machine is
    if (!isUnsigned && item < 8 && (bits >> (item * 8 - 1) & 1U) != 0) bits |= ~std::uint64_t{0} << (item * 8);
    values[i] = static_cast<Index>(bits);
  }
  return values;
}

/// One row of a mask as 0 and 1.
class MaskRow {
 public:
  MaskRow(const Survey& survey, const PlaneSource& source, Index keys, const PlaneReader& read)
      : m_found(survey.tensors[source.tensor]), m_source(source), m_read(read) {
    m_item = m_found.wholeBytes > 0 ? static_cast<std::size_t>(m_found.wholeBytes) : sourceItemSize(source.type);
    m_rowAxis = source.rowAxis;
    m_source.rowAxis = m_found.shape.size();
    m_bytes.resize(static_cast<std::size_t>(keys) * m_item);
    m_values.resize(static_cast<std::size_t>(keys));
  }
  /// row: of the axis that the source calls its rows; ignored where there is none.
  const std::vector<std::uint8_t>& at(Index row) {
    if (m_rowAxis < m_source.index.size()) m_source.index[m_rowAxis] = row;
    m_read(m_source, m_bytes);
    for (std::size_t i = 0; i < m_values.size(); ++i) {
      const std::byte* element = m_bytes.data() + i * m_item;
      m_values[i] =
          m_found.wholeBytes > 0
              ? (std::any_of(element, element + m_item, [](std::byte b) { return b != std::byte{0}; }) ? 1 : 0)
              : added(element);
    }
    return m_values;
  }

 private:
  [[nodiscard]] std::uint8_t added(const std::byte* element) const {
    float value = 0;
    if (m_source.type == SourceType::F64) {
      double wide = 0;
      std::memcpy(&wide, element, 8);
      value = static_cast<float>(wide);
    } else {
      const DType dtype = m_source.type == SourceType::F16    ? DType::F16
                          : m_source.type == SourceType::BF16 ? DType::BF16
                                                              : DType::F32;
      rowToFloat({element, 1, 1, static_cast<Index>(m_item), dtype}, 0, {&value, 1});
    }
    if (value <= kMasked) return 0;
    if (value == 0) return 1;
    throw Error(ErrorCode::Unsupported,
                fmt::format("{}: adds {:g} to a score; a trace holds masks, no biases. Save a mask of truth values as "
                            "bool (true: this key counts), or leave it out with --map mask=none",
                            m_found.label(), value));
  }

  const FoundTensor& m_found;
  PlaneSource m_source;
  const PlaneReader& m_read;
  std::size_t m_item = 1, m_rowAxis = 0;
  std::vector<std::byte> m_bytes;
  std::vector<std::uint8_t> m_values;
};

bool none(const std::vector<std::uint8_t>& row) {
  return std::all_of(row.begin(), row.end(), [](std::uint8_t v) { return v == 0; });
}

[[noreturn]] void nothingCounts(const FoundTensor& found) {
  throw Error(ErrorCode::Format,
              fmt::format("{}: masks every key; truth values say which keys count, not which are left out. Turn it "
                          "around, or leave it out with --map mask=none",
                          found.label()));
}

std::vector<std::uint8_t> unlessAll(std::vector<std::uint8_t> valid) {
  if (std::all_of(valid.begin(), valid.end(), [](std::uint8_t v) { return v != 0; })) valid.clear();
  return valid;
}

}  // namespace

std::vector<Index> readQueryRows(const Survey& survey, const PlannedCall& call, Index tokens, const PlaneReader& read) {
  if (!call.rows) return {};
  const FoundTensor& found = survey.tensors[call.rows->tensor];
  std::vector<std::byte> bytes(static_cast<std::size_t>(call.header.nQ) * static_cast<std::size_t>(found.wholeBytes));
  read(*call.rows, bytes);
  std::vector<Index> rows = wholeNumbers(found, bytes);
  for (std::size_t i = 0; i < rows.size(); ++i) {
    if (rows[i] < 0 || rows[i] >= tokens || (i > 0 && rows[i] <= rows[i - 1])) {
      throw Error(
          ErrorCode::Format,
          fmt::format("{}: entry {} is {}; the tokens of query rows are rising numbers from 0 to {}. Sort them, "
                      "with the queries",
                      found.label(), i, rows[i], tokens - 1));
    }
  }
  return rows;
}

CallMasks readMasks(const Survey& survey, const PlannedCall& call, std::span<const Index> rows, Index limit,
                    const PlaneReader& read) {
  CallMasks masks;
  const Index nQ = call.header.nQ, nK = call.header.nK;
  if (call.keyValid) {
    std::vector<std::uint8_t> valid = MaskRow(survey, *call.keyValid, nK, read).at(0);
    if (none(valid)) nothingCounts(survey.tensors[call.keyValid->tensor]);
    masks.keyValid = unlessAll(std::move(valid));
    return masks;
  }
  if (!call.mask) return masks;
  MaskRow row(survey, *call.mask, nK, read);
  // A padding token is wholly masked as a query and left out as a key: the keys alone say all.
  const bool cross = call.header.id.kind == "cross";
  std::vector<std::uint8_t> shared;
  std::vector<Index> empty;
  bool same = true;
  for (Index r = 0; r < nQ && same; ++r) {
    const std::vector<std::uint8_t>& own = row.at(r);
    if (none(own))
      empty.push_back(rows.empty() ? r : rows[static_cast<std::size_t>(r)]);
    else if (shared.empty())
      shared = own;
    else
      same = own == shared;
  }
  if (shared.empty()) nothingCounts(survey.tensors[call.mask->tensor]);
  same = same && (cross ? empty.empty() : std::all_of(empty.begin(), empty.end(), [&](Index token) {
           return token < nK && shared[static_cast<std::size_t>(token)] == 0;
         }));
  if (same) {
    masks.keyValid = unlessAll(std::move(shared));
    return masks;
  }
  if (nQ > limit / nK) {
    throw Error(
        ErrorCode::OutOfMemory,
        fmt::format("{}: differs between queries and takes {:.1f} GiB, more than the limit of {:.1f} GiB; raise "
                    "--memory-limit, or leave it out with --map mask=none",
                    survey.tensors[call.mask->tensor].label(),
                    static_cast<double>(nQ) * static_cast<double>(nK) / 0x1p30, static_cast<double>(limit) / 0x1p30));
  }
  masks.dense.resize(static_cast<std::size_t>(nQ * nK));
  for (Index r = 0; r < nQ; ++r) {
    const std::vector<std::uint8_t>& own = row.at(r);
    std::copy(own.begin(), own.end(), masks.dense.begin() + static_cast<std::ptrdiff_t>(r * nK));
  }
  return masks;
}

}  // namespace sparsight::import
