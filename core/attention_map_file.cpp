// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <array>
#include <cstring>

#include "sparsight/core/attention_map.h"
#include "sparsight/core/files.h"
#include "trace/hdf5_file.h"

namespace sparsight {

void writeMapNpy(const std::filesystem::path& out, std::span<const float> cells, Index cellRows, Index cellCols) {
  if (static_cast<Index>(cells.size()) != cellRows * cellCols) {
    throw Error(ErrorCode::Internal, "map file: cells and shape do not agree");
  }
  // NEP 1: magic, version, header length, then a Python literal padded so that the data start at a multiple of 64.
  std::string header =
      fmt::format("{{'descr': '<f4', 'fortran_order': False, 'shape': ({}, {}), }}", cellRows, cellCols);
  constexpr std::size_t kPreamble = 10;
  header.append(63 - (kPreamble + header.size()) % 64, ' ');
  header.push_back('\n');
  std::string content("\x93NUMPY\x01\x00", 8);
  content.push_back(static_cast<char>(header.size() & 0xFFU));
  content.push_back(static_cast<char>(header.size() >> 8U));
  content += header;
  const std::size_t start = content.size();
  content.resize(start + cells.size_bytes());
  std::memcpy(content.data() + start, cells.data(), cells.size_bytes());
  writeFileAtomically(out, content);
}

void writeMapHdf5(const std::filesystem::path& out, std::span<const float> cells, const MapFileInfo& info) {
  const std::array<Index, 2> shape{info.rect.cellRows, info.rect.cellCols};
  if (static_cast<Index>(cells.size()) != shape[0] * shape[1]) {
    throw Error(ErrorCode::Internal, "map file: cells and shape do not agree");
  }
  writeFileAtomically(out, [&](const std::filesystem::path& temporary) {
    h5::File file = h5::File::create(temporary);
    file.writeString("format", "sparsight-map");
    file.writeArray("format_version", std::vector<std::int64_t>{1, 0});
    file.writeString("trace_uuid", info.traceUuid);
    file.writeString("trace_path", info.tracePath);
    file.writeString("program", info.program);
    file.writeInt("step", info.head.call.step);
    file.writeString("branch", info.head.call.branch);
    file.writeInt("layer", info.head.call.layer);
    file.writeString("kind", info.head.call.kind);
    file.writeInt("call", info.head.call.call);
    file.writeInt("head", info.head.head);
    file.writeArray("rows", std::vector<std::int64_t>{info.rect.row0, info.rect.row1});
    file.writeArray("cols", std::vector<std::int64_t>{info.rect.col0, info.rect.col1});
    file.writeString("reduce", info.reduce == Reduce::Mean ? "mean" : "max");
    file.writeString("order", info.order);
    file.writeString("row_lse", info.cachedLse ? "disk cache" : "computed");
    file.writeString("quantity", "attention probability (NaN: no valid pair in the cell)");
    file.writeDataset<float>("map", cells, shape);
    file.close();
  });
}

}  // namespace sparsight
