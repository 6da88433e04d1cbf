// SPDX-License-Identifier: Apache-2.0
// torch.save's zip files (torch 1.6 and newer): <name>/data.pkl, storages as <name>/data/<key>. The pickle is read as
// data by parsePickle; a file from a stranger can do nothing here.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "import/byte_source.h"
#include "import/pickle.h"
#include "import/zip_file.h"
#include "sparsight/kernels/error.h"

namespace sparsight {
namespace {

constexpr std::uint64_t kMostPickle = std::uint64_t{32} << 20;
constexpr int kDeepest = 32;
constexpr std::size_t kLongestName = 512;
constexpr Index kMostVisited = 1 << 20;
constexpr std::size_t kMostNameBytes = std::size_t{32} << 20;

struct Type {
  const char* name;
  std::size_t item;
  std::optional<SourceType> type;
  bool raw16 = false;
  bool whole = false;
};
constexpr Type kTypes[] = {
    {"float16", 2, SourceType::F16}, {"bfloat16", 2, SourceType::BF16}, {"float32", 4, SourceType::F32},
    {"float64", 8, SourceType::F64}, {"int16", 2, {}, true, true},      {"uint16", 2, {}, true, true},
    {"bool", 1, {}, false, true},    {"uint8", 1, {}, false, true},     {"int8", 1, {}, false, true},
    {"int32", 4, {}, false, true},   {"int64", 8, {}, false, true}};

class Reader {
 public:
  Reader(const std::filesystem::path& path, import::StridedFile& file)
      : m_name(path.string()), m_zip(path), m_file(file) {
    const import::ZipMember* pickle = nullptr;
    for (const import::ZipMember& member : m_zip.members()) {
      if (member.name == "data.pkl" || member.name.ends_with("/data.pkl")) pickle = &member;
    }
    if (pickle == nullptr) {
      throw Error(ErrorCode::Format, fmt::format("{}: is a zip file without data.pkl, so torch.save did not write it; "
                                                 "name an .npz file *.npz",
                                                 m_name));
    }
    if (pickle->size > kMostPickle) {
      throw Error(ErrorCode::Format, fmt::format("{}: its data.pkl has {} bytes, far more than tensors need; save "
                                                 "tensors only",
                                                 m_name, pickle->size));
    }
    m_prefix = pickle->name.substr(0, pickle->name.size() - std::string_view("data.pkl").size());
    if (const import::ZipMember* order = m_zip.find(m_prefix + "byteorder")) {
      m_swapped = m_zip.readPrefix(*order, 16).starts_with("big");
    }
    m_pickle = import::parsePickle(m_zip.readPrefix(*pickle, static_cast<std::size_t>(pickle->size)), m_name);
    visit(m_pickle.root, std::string(), 0);
  }

 private:
  using Kind = import::PickleValue::Kind;

  void visit(std::uint32_t ref, const std::string& path, int depth) {
    if (depth > kDeepest || ++m_visited > kMostVisited) {
      throw Error(ErrorCode::Format,
                  fmt::format("{}: is nested deeper than tensors ever are; save a flat dict", m_name));
    }
    const import::PickleValue& value = m_pickle.values[ref];
    const auto under = [&](const std::string& key) { return path.empty() ? key : path + "/" + key; };
    switch (value.kind) {
      case Kind::Tensor:
        add(m_pickle.tensors[value.tensor], path);
        return;
      case Kind::Dict:
        for (std::size_t i = 0; i + 1 < value.items.size(); i += 2) {
          const import::PickleValue& key = m_pickle.values[value.items[i]];
          const std::string name = key.kind == Kind::Integer ? fmt::format("{}", key.integer)
                                   : key.kind == Kind::Text  ? key.text.substr(0, kLongestName)
                                                             : std::string("?");
          visit(value.items[i + 1], under(name), depth + 1);
        }
        return;
      case Kind::Tuple:
      case Kind::List:
        for (std::size_t i = 0; i < value.items.size(); ++i)
          visit(value.items[i], under(fmt::format("{}", i)), depth + 1);
        return;
      case Kind::Integer:
        if (depth == 1) m_file.addFact(path, fmt::format("{}", value.integer));
        return;
      case Kind::Real:
        if (depth == 1) m_file.addFact(path, fmt::format("{}", value.real));
        return;
      case Kind::Text:
        if (depth == 1 && value.text.size() <= kLongestName) m_file.addFact(path, value.text);
        return;
      default:
        return;
    }
  }

  /// A tensor of one number (SVG keeps its timestep in one) is a fact.
  bool addScalar(const import::PickledTensor& tensor, const std::string& name) {
    if (!std::all_of(tensor.shape.begin(), tensor.shape.end(), [](Index n) { return n == 1; }) || tensor.offset < 0 ||
        placeFromName(name).role != TensorRole::None) {
      return false;
    }
    const bool wide = tensor.storage.dtype == "int64" || tensor.storage.dtype == "float64";
    if (!wide && tensor.storage.dtype != "int32" && tensor.storage.dtype != "float32") return false;
    const import::ZipMember* member = m_zip.find(m_prefix + "data/" + tensor.storage.key);
    const std::uint64_t item = wide ? 8 : 4;
    if (member == nullptr || member->method != 0 || m_swapped ||
        member->size / item <= static_cast<std::uint64_t>(tensor.offset)) {
      return false;
    }
    std::array<std::byte, 8> raw{};
    m_zip.bytes()->read(member->offset + static_cast<std::uint64_t>(tensor.offset) * item, std::span(raw).first(item));
    const auto as = [&](auto value) {
      std::memcpy(&value, raw.data(), sizeof value);
      m_file.addFact(name, fmt::format("{}", value));
    };
    if (tensor.storage.dtype == "int64") as(std::int64_t{});
    if (tensor.storage.dtype == "int32") as(std::int32_t{});
    if (tensor.storage.dtype == "float64") as(double{});
    if (tensor.storage.dtype == "float32") as(float{});
    return true;
  }

  void add(const import::PickledTensor& tensor, const std::string& name) {
    if (addScalar(tensor, name)) return;
    m_nameBytes += name.size();
    if (m_nameBytes > kMostNameBytes) {
      throw Error(ErrorCode::Format,
                  fmt::format("{}: names its tensors in more text than tensors need; save a flat dict", m_name));
    }
    FoundTensor found;
    found.name = name;
    found.shape = tensor.shape;
    found.dtype = tensor.storage.dtype;
    import::StridedTensor data;
    data.item = 1;
    const auto type = std::find_if(std::begin(kTypes), std::end(kTypes),
                                   [&](const Type& t) { return tensor.storage.dtype == t.name; });
    if (type != std::end(kTypes)) {
      found.type = type->type;
      found.sixteenBits = type->raw16;
      found.wholeBytes = type->whole ? static_cast<int>(type->item) : 0;
      const std::string what = fmt::format("{}: tensor {}", m_name, import::printable(name));
      const import::ZipMember* member = m_zip.find(m_prefix + "data/" + tensor.storage.key);
      if (member == nullptr) {
        throw Error(ErrorCode::Format, fmt::format("{}: its storage {} is not in the file; copy it again", what,
                                                   import::printable(tensor.storage.key)));
      }
      if (member->method != 0) {
        throw Error(ErrorCode::Unsupported,
                    fmt::format("{}: its data is compressed, which torch.save never does; save it again", what));
      }
      data.bytes = m_zip.bytes();
      data.offset = member->offset;
      data.length = member->size;
      data.first = tensor.offset;
      data.shape = tensor.shape;
      data.strides = tensor.strides;
      data.item = type->item;
      data.swapped = m_swapped;
      data.check(what);
    }
    m_file.add(std::move(found), std::move(data));
  }

  std::string m_name;
  import::ZipFile m_zip;
  import::StridedFile& m_file;
  std::string m_prefix;
  import::Pickle m_pickle;
  bool m_swapped = false;
  Index m_visited = 0;
  std::size_t m_nameBytes = 0;
};

bool isSuffix(const std::string& suffix) {
  return suffix == ".pt" || suffix == ".pth" || suffix == ".bin" || suffix == ".ckpt";
}

class Torch final : public Importer {
 public:
  [[nodiscard]] std::string_view id() const noexcept override { return "torch"; }
  [[nodiscard]] std::string_view title() const noexcept override { return "torch .pt"; }
  [[nodiscard]] std::string_view summary() const noexcept override {
    return "Dictionaries of tensors as torch.save writes them, also SVG's sparse_qkv_layer*_ts*.pt and SVOO's "
           "step*/layer*.pt folders. Read as data: no code of the file is run.";
  }
  [[nodiscard]] std::string_view suffixes() const noexcept override { return "*.pt *.pth"; }
  [[nodiscard]] int match(const SourceHead& head) const override {
    if (import::looksLikeZip(head)) {
      const std::string_view name =
          std::string_view(head.bytes).substr(std::min<std::size_t>(30, head.bytes.size()), 4000);
      if (isSuffix(head.suffix) || name.substr(0, 1024).find("data.pkl") != std::string_view::npos) return 2;
    }
    return isSuffix(head.suffix) ? 1 : 0;
  }
  [[nodiscard]] std::unique_ptr<TensorFile> open(const std::filesystem::path& path,
                                                 const std::filesystem::path&) const override {
    const SourceHead head = readHead(path);
    if (!import::looksLikeZip(head)) {
      const bool pickle = !head.bytes.empty() && static_cast<unsigned char>(head.bytes.front()) == 0x80;
      throw Error(ErrorCode::Unsupported,
                  fmt::format("{}: {}. Where torch is: python -c \"import torch; torch.save(torch.load('{}', "
                              "map_location='cpu'), 'new.pt')\" (only for a file you trust: loading a pickle can run "
                              "code)",
                              path.string(),
                              pickle ? "is in torch's format from before 1.6 (a bare pickle), which is not read"
                                     : "is no file of torch.save (no zip file); check the name",
                              path.filename().string()));
    }
    auto file = std::make_unique<import::StridedFile>();
    const Reader reader(path, *file);
    return file;
  }
};

}  // namespace

const Importer& torch_importer() {
  static const Torch importer;
  return importer;
}

}  // namespace sparsight
