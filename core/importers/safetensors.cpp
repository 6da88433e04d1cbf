// SPDX-License-Identifier: Apache-2.0
// safetensors: u64 length, JSON {name: {dtype, shape, data_offsets}, "__metadata__": {str: str}}, then the data, little
// endian and in C order (github.com/huggingface/safetensors, format in its README).
#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>

#include "import/byte_source.h"
#include "import/shallow_json.h"
#include "sparsight/kernels/error.h"

namespace sparsight {
namespace {

using Json = nlohmann::json;

// The reference takes 100 MB; a header of 100,000 tensors has some 15, and parsed it takes twenty times that.
constexpr std::uint64_t kMostHeader = std::uint64_t{16} << 20;

std::uint64_t headerLength(std::string_view bytes) {
  std::uint64_t length = 0;
  for (std::size_t i = 8; i > 0; --i) length = length << 8U | static_cast<unsigned char>(bytes[i - 1]);
  return length;
}

struct Type {
  const char* name;
  std::size_t bits;
  std::optional<SourceType> type;
  bool whole = false;
};
constexpr Type kTypes[] = {{"F64", 64, SourceType::F64}, {"F32", 32, SourceType::F32},
                           {"F16", 16, SourceType::F16}, {"BF16", 16, SourceType::BF16},
                           {"I64", 64, {}, true},        {"U64", 64, {}, true},
                           {"I32", 32, {}, true},        {"U32", 32, {}, true},
                           {"I16", 16, {}, true},        {"U16", 16, {}, true},
                           {"I8", 8, {}, true},          {"U8", 8, {}, true},
                           {"BOOL", 8, {}, true},        {"F8_E4M3", 8, {}},
                           {"F8_E5M2", 8, {}},           {"F8_E8M0", 8, {}}};

class Safetensors final : public Importer {
 public:
  [[nodiscard]] std::string_view id() const noexcept override { return "safetensors"; }
  [[nodiscard]] std::string_view title() const noexcept override { return "safetensors"; }
  [[nodiscard]] std::string_view summary() const noexcept override {
    return "Tensors by name; __metadata__ may state grid, text_len, family, ... as the trace format names them.";
  }
  [[nodiscard]] std::string_view suffixes() const noexcept override { return "*.safetensors"; }
  [[nodiscard]] int match(const SourceHead& head) const override {
    if (head.bytes.size() > 9 && head.bytes[8] == '{') {
      const std::uint64_t length = headerLength(head.bytes);
      if (length >= 2 && length <= kMostHeader && length <= head.size - 8) return 2;
    }
    return head.suffix == ".safetensors" ? 1 : 0;
  }
  [[nodiscard]] std::unique_ptr<TensorFile> open(const std::filesystem::path& path,
                                                 const std::filesystem::path&) const override {
    auto bytes = std::make_shared<import::FileBytes>(path);
    if (bytes->size() < 10) bytes->fail("is too short for a safetensors file; copy it again");
    const std::uint64_t length = headerLength(bytes->readText(0, 8));
    if (length < 2 || length > kMostHeader || length > bytes->size() - 8) {
      bytes->fail(fmt::format("states a header of {} bytes in a file of {}; it is truncated or no safetensors file",
                              length, bytes->size()));
    }
    const Json header = import::parseJson(bytes->readText(8, static_cast<std::size_t>(length)), path.string());
    if (!header.is_object()) bytes->fail("its header is no JSON object; the file is damaged");
    auto file = std::make_unique<import::StridedFile>();
    const std::uint64_t dataAt = 8 + length, dataSize = bytes->size() - dataAt;
    struct Range {
      std::uint64_t begin, end;
      std::string name;
    };
    std::vector<Range> ranges;
    for (const auto& [name, entry] : header.items()) {
      if (name == "__metadata__") {
        if (!entry.is_object()) continue;
        for (const auto& [key, value] : entry.items()) {
          if (value.is_string() && value.get_ref<const std::string&>().size() <= 4096)
            file->addFact(key, value.get_ref<const std::string&>());
        }
        continue;
      }
      const std::string what = fmt::format("{}: tensor {}", path.string(), import::printable(name));
      const auto damaged = [&](const char* why) {
        throw Error(ErrorCode::Format, fmt::format("{}: {}; the file is damaged", what, why));
      };
      if (!entry.is_object() || !entry.contains("dtype") || !entry["dtype"].is_string() || !entry.contains("shape") ||
          !entry["shape"].is_array() || !entry.contains("data_offsets") || !entry["data_offsets"].is_array() ||
          entry["data_offsets"].size() != 2) {
        damaged("has no dtype, shape and data_offsets");
      }
      const auto whole = [](const Json& value) { return value.is_number_unsigned(); };
      if (!std::all_of(entry["shape"].begin(), entry["shape"].end(), whole) || entry["shape"].size() > 16 ||
          !std::all_of(entry["data_offsets"].begin(), entry["data_offsets"].end(), whole)) {
        damaged("shape and data_offsets are not whole numbers");
      }
      FoundTensor found;
      found.name = name;
      found.dtype = import::plain(entry["dtype"].get_ref<const std::string&>());
      for (const Json& extent : entry["shape"]) {
        if (extent.get<std::uint64_t>() > (std::uint64_t{1} << 60)) damaged("its shape is impossible");
        found.shape.push_back(extent.get<Index>());
      }
      const auto begin = entry["data_offsets"][0].get<std::uint64_t>(),
                 end = entry["data_offsets"][1].get<std::uint64_t>();
      if (begin > end || end > dataSize) damaged("its data_offsets lie outside the file");
      const auto type =
          std::find_if(std::begin(kTypes), std::end(kTypes), [&](const Type& t) { return found.dtype == t.name; });
      const Index count = import::checkedCount(found.shape, what);
      import::StridedTensor data;
      if (type != std::end(kTypes)) {
        found.type = type->type;
        found.sixteenBits = type->bits == 16 && !type->type;
        found.wholeBytes = type->whole ? static_cast<int>(type->bits / 8) : 0;
        data.item = type->bits / 8;
        if (static_cast<std::uint64_t>(count) != (end - begin) / data.item || (end - begin) % data.item != 0) {
          damaged("its shape does not fit its data_offsets");
        }
      } else {
        data.item = 1;  // unknown types are listed, never read
      }
      data.bytes = bytes;
      data.offset = dataAt + begin;
      data.length = end - begin;
      data.shape = found.shape;
      data.strides = import::contiguousStrides(found.shape);
      if (type != std::end(kTypes)) data.check(what);
      if (end > begin) ranges.push_back({begin, end, name});
      file->add(std::move(found), std::move(data));
    }
    std::sort(ranges.begin(), ranges.end(), [](const Range& a, const Range& b) { return a.begin < b.begin; });
    for (std::size_t i = 1; i < ranges.size(); ++i) {
      if (ranges[i].begin < ranges[i - 1].end) {
        bytes->fail(fmt::format("tensors {} and {} share bytes; the file is damaged",
                                import::printable(ranges[i - 1].name), import::printable(ranges[i].name)));
      }
    }
    return file;
  }
};

}  // namespace

const Importer& safetensors_importer() {
  static const Safetensors importer;
  return importer;
}

}  // namespace sparsight
