// SPDX-License-Identifier: Apache-2.0
// HDF5 files that are no traces: every dataset is a tensor by its path.
#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "import/byte_source.h"
#include "sparsight/kernels/error.h"
#include "trace/hdf5_file.h"

namespace sparsight {
namespace {

constexpr std::size_t kMostDatasets = 200'000;
constexpr std::size_t kMostGroups = 100'000;
constexpr int kDeepest = 16;
constexpr Index kSlabBytes = Index{4} << 20;
constexpr Index kChunkCache = Index{32} << 20;

class Hdf5Tensors final : public TensorFile {
 public:
  explicit Hdf5Tensors(const std::filesystem::path& path)
      : m_root(h5::File::openRead(path, "an HDF5 file with tensors")) {
    if (const auto format = m_root.tryString("format"); format && format->starts_with("sparsight-")) {
      throw Error(ErrorCode::InvalidArgument,
                  fmt::format("{}: is a Sparsight file already ({}); open it as it is", path.string(), *format));
    }
    facts(m_root);
    walk(m_root, std::string(), 0);
  }

  void readPlane(std::size_t tensor, std::span<const Index> index, std::size_t rowAxis, std::size_t columnAxis,
                 std::span<std::byte> out, const Control& control) override {
    const FoundTensor& found = m_tensors.at(tensor);
    if (m_openTensor != tensor || !m_open) m_open.emplace(m_root.openDataset("/" + found.name, kChunkCache));
    m_openTensor = tensor;
    const h5::Dataset& dataset = *m_open;
    const std::size_t item = dataset.info().type.size;
    const bool swapped = dataset.info().type.bigEndian;
    std::vector<Index> start(index.begin(), index.end()), count(index.size(), 1);
    const bool oneRow = rowAxis == found.shape.size();
    start[columnAxis] = 0;
    const Index rows = oneRow ? 1 : found.shape[rowAxis], columns = found.shape[columnAxis];
    count[columnAxis] = columns;
    Index step = std::max<Index>(1, kSlabBytes / std::max<Index>(1, columns * static_cast<Index>(item)));
    if (const auto& chunk = dataset.info().chunk; !chunk.empty() && !oneRow)
      step = (step + chunk[rowAxis] - 1) / chunk[rowAxis] * chunk[rowAxis];
    std::vector<std::byte> slab;
    for (Index row = 0; row < rows; row += step) {
      control.checkpoint();
      const Index n = std::min(step, rows - row);
      if (!oneRow) {
        start[rowAxis] = row;
        count[rowAxis] = n;
      }
      slab.resize(static_cast<std::size_t>(n * columns) * item);
      dataset.readRaw(start, count, slab);
      if (swapped) {
        for (std::size_t at = 0; at < slab.size(); at += item) {
          std::reverse(slab.begin() + static_cast<std::ptrdiff_t>(at),
                       slab.begin() + static_cast<std::ptrdiff_t>(at + item));
        }
      }
      std::byte* to = out.data() + static_cast<std::size_t>(row * columns) * item;
      if (oneRow || rowAxis < columnAxis) {
        std::memcpy(to, slab.data(), slab.size());
        continue;
      }
      for (Index r = 0; r < n; ++r) {
        for (Index c = 0; c < columns; ++c) {
          std::memcpy(to + static_cast<std::size_t>(r * columns + c) * item,
                      slab.data() + static_cast<std::size_t>(c * n + r) * item, item);
        }
      }
    }
  }

 private:
  void facts(const h5::Object& object) {
    for (const std::string& name : object.attributeNames()) {
      std::string value;
      try {
        if (name == "dims" || name == "dtype") continue;
        std::string list;
        for (const double each : object.readReals(name)) list += fmt::format("{}{}", list.empty() ? "" : ",", each);
        value = list;
      } catch (const Error&) {
        try {
          value = object.readString(name);
        } catch (const Error&) {
          continue;  // neither numbers nor one text: says nothing to us
        }
      }
      if (value.size() <= 256) m_facts.emplace(name, value);
    }
  }

  void walk(const h5::Group& group, const std::string& path, int depth) {
    // Hard links may lead in circles: each group once per path, up to a depth and a number of them.
    if (depth > kDeepest) return;
    if (++m_groups > kMostGroups) m_root.failFormat("holds more groups than any capture; choose a part");
    for (const h5::LinkInfo& link : group.links()) {
      if (link.kind != h5::LinkKind::Hard) continue;  // links may point anywhere, also in circles
      const std::string name = path.empty() ? link.name : path + "/" + link.name;
      if (const auto child = group.tryGroup(link.name)) {
        walk(*child, name, depth + 1);
      } else if (const auto dataset = group.tryDataset(link.name)) {
        if (m_tensors.size() >= kMostDatasets) m_root.failFormat("holds more datasets than any capture; choose a part");
        add(*dataset, name);
      }
    }
  }

  void add(const h5::Dataset& dataset, const std::string& name) {
    const h5::DatasetInfo& info = dataset.info();
    FoundTensor found;
    found.name = name;
    found.shape = info.shape;
    found.dtype = info.type.name;
    if (info.type.floatType) {
      found.type = *info.type.floatType == DType::F16    ? SourceType::F16
                   : *info.type.floatType == DType::BF16 ? SourceType::BF16
                                                         : SourceType::F32;
    } else if (info.type.cls == h5::TypeClass::Float && info.type.size == 8) {
      found.type = SourceType::F64;
    } else if (info.type.size == 2 &&
               (info.type.cls == h5::TypeClass::Integer || info.type.cls == h5::TypeClass::Opaque)) {
      found.sixteenBits = true;
      const auto said = dataset.hasAttribute("dtype") ? dataset.tryString("dtype") : std::nullopt;
      if (said == "bfloat16") found.type = SourceType::BF16;
      if (said == "float16") found.type = SourceType::F16;
    }
    if ((info.type.cls == h5::TypeClass::Integer || info.type.cls == h5::TypeClass::Enum) && info.type.size <= 8 &&
        !found.type) {
      found.wholeBytes = static_cast<int>(info.type.size);
    }
    if (const auto dims = dataset.hasAttribute("dims") ? dataset.tryString("dims") : std::nullopt) {
      if (*dims == "head,token,channel") found.axes = "HND";
      if (*dims == "token,head,channel") found.axes = "NHD";
    }
    m_tensors.push_back(std::move(found));
  }

  h5::File m_root;
  std::optional<h5::Dataset> m_open;
  std::size_t m_openTensor = 0, m_groups = 0;
};

class Hdf5 final : public Importer {
 public:
  [[nodiscard]] std::string_view id() const noexcept override { return "hdf5"; }
  [[nodiscard]] std::string_view title() const noexcept override { return "HDF5 of other programs"; }
  [[nodiscard]] std::string_view summary() const noexcept override {
    return "Datasets by path, or by patterns: --map q=step_{step}/layer_{layer}/query and --axes BHND.";
  }
  [[nodiscard]] std::string_view suffixes() const noexcept override { return "*.h5 *.hdf5 *.hdf"; }
  [[nodiscard]] int match(const SourceHead& head) const override {
    if (head.startsWith("\x89HDF\r\n\x1a\n") || (head.size > 512 && h5::looksLikeHdf5(head.path))) {
      try {
        const auto format = h5::File::openRead(head.path).tryString("format");
        return format && format->starts_with("sparsight-") ? 0 : 2;
      } catch (const Error&) {
        return 0;  // whoever opens it as a trace says what is wrong
      }
    }
    return 0;
  }
  [[nodiscard]] std::unique_ptr<TensorFile> open(const std::filesystem::path& path,
                                                 const std::filesystem::path&) const override {
    return std::make_unique<Hdf5Tensors>(path);
  }
};

}  // namespace

const Importer& hdf5_importer() {
  static const Hdf5 importer;
  return importer;
}

}  // namespace sparsight
