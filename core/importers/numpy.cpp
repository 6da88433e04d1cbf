// SPDX-License-Identifier: Apache-2.0
// .npy (versions 1 to 3: numpy.lib.format) and .npz, a zip of them, stored or deflated.
#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <charconv>

#include "import/byte_source.h"
#include "import/zip_file.h"
#include "sparsight/kernels/error.h"

namespace sparsight {
namespace {

constexpr std::string_view kMagic = "\x93NUMPY";
constexpr std::size_t kMostHeader = std::size_t{1} << 20;

struct NpyHeader {
  std::string descr;
  bool fortran = false;
  std::vector<Index> shape;
  std::size_t dataAt = 0;
};

/// The header's Python literal {'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }, scanned, never evaluated.
class Literal {
 public:
  Literal(std::string_view text, const std::string& name) : m_text(text), m_name(name) {}

  NpyHeader parse() {
    NpyHeader header;
    bool descr = false, order = false, shape = false;
    expect('{');
    while (!take('}')) {
      const std::string key = string();
      expect(':');
      if (key == "descr" && peek() == '[') {
        throw Error(ErrorCode::Unsupported,
                    fmt::format("{}: is an array of records; save each field as an array of its own", m_name));
      }
      if (key == "descr") {
        header.descr = string();
        descr = true;
      } else if (key == "fortran_order") {
        const std::string_view word = name();
        if (word != "True" && word != "False") damaged();
        header.fortran = word == "True";
        order = true;
      } else if (key == "shape") {
        expect('(');
        while (!take(')')) {
          header.shape.push_back(number());
          if (!take(',') && peek() != ')') damaged();
        }
        shape = true;
      } else {
        damaged();
      }
      if (!take(',') && peek() != '}') damaged();
    }
    if (!descr || !order || !shape || header.shape.size() > 32) damaged();
    return header;
  }

 private:
  [[noreturn]] void damaged() const {
    throw Error(ErrorCode::Format, fmt::format("{}: its numpy header is malformed; copy the file again", m_name));
  }
  char peek() {
    while (m_at < m_text.size() && std::isspace(static_cast<unsigned char>(m_text[m_at])) != 0) ++m_at;
    return m_at < m_text.size() ? m_text[m_at] : '\0';
  }
  bool take(char c) {
    if (peek() != c) return false;
    ++m_at;
    return true;
  }
  void expect(char c) {
    if (!take(c)) damaged();
  }
  std::string string() {
    const char quote = peek();
    if (quote != '\'' && quote != '"') damaged();
    const std::size_t end = m_text.find(quote, ++m_at);
    if (end == std::string_view::npos) damaged();
    std::string text(m_text.substr(m_at, end - m_at));
    m_at = end + 1;
    return text;
  }
  std::string_view name() {
    peek();
    const std::size_t from = m_at;
    while (m_at < m_text.size() && std::isalpha(static_cast<unsigned char>(m_text[m_at])) != 0) ++m_at;
    return m_text.substr(from, m_at - from);
  }
  Index number() {
    peek();
    Index value = -1;
    const auto [end, error] = std::from_chars(m_text.data() + m_at, m_text.data() + m_text.size(), value);
    if (error != std::errc() || value < 0) damaged();
    m_at = static_cast<std::size_t>(end - m_text.data());
    take('L');  // Python 2
    return value;
  }
  std::string_view m_text;
  const std::string& m_name;
  std::size_t m_at = 0;
};

/// `read(offset, count)` gives bytes of the array's file.
template <class Read>
NpyHeader readNpyHeader(Read&& read, const std::string& name) {
  const std::string start = read(0, 12);
  if (start.size() < 10 || !start.starts_with(kMagic)) {
    throw Error(ErrorCode::Format, fmt::format("{}: does not begin as a numpy file; copy it again", name));
  }
  const int major = static_cast<unsigned char>(start[6]);
  if (major < 1 || major > 3) {
    throw Error(ErrorCode::Unsupported, fmt::format("{}: is of numpy format {}.{}; 1, 2 and 3 can be read", name, major,
                                                    static_cast<unsigned char>(start[7])));
  }
  const std::size_t at = major == 1 ? 10 : 12;
  std::size_t length = 0;
  for (std::size_t i = at; i > 8; --i)
    length = length << 8U | (i <= start.size() ? static_cast<unsigned char>(start[i - 1]) : 0U);
  if (length > kMostHeader) {
    throw Error(ErrorCode::Format, fmt::format("{}: states a header of {} bytes; the file is damaged", name, length));
  }
  const std::string text = read(at, length);
  NpyHeader header = Literal(text, name).parse();
  header.dataAt = at + length;
  return header;
}

/// Type, item size and strides of an array that lies at `offset` of `bytes`.
void addArray(import::StridedFile& file, const NpyHeader& header, const std::string& member, const std::string& what,
              const std::shared_ptr<const import::FileBytes>& bytes, std::uint64_t offset, std::uint64_t size) {
  FoundTensor found;
  found.name = member;
  found.shape = header.shape;
  found.dtype = import::plain(header.descr);
  import::StridedTensor data;
  const std::string_view descr = header.descr;
  const char order = descr.empty() ? '?' : descr.front();
  const std::string_view kind = descr.empty() ? descr : descr.substr(1);
  data.swapped = order == '>';
  data.item = 1;
  if (kind == "f2") found.type = SourceType::F16;
  if (kind == "f4") found.type = SourceType::F32;
  if (kind == "f8") found.type = SourceType::F64;
  // bfloat16 of ml_dtypes becomes two opaque bytes, and views of it unsigned integers.
  found.sixteenBits = kind == "V2" || kind == "u2" || kind == "i2";
  if (kind.size() == 2 && (kind[0] == 'b' || kind[0] == 'i' || kind[0] == 'u') &&
      (kind[1] == '1' || kind[1] == '2' || kind[1] == '4' || kind[1] == '8')) {
    found.wholeBytes = kind[1] - '0';
  }
  if (found.type) data.item = sourceItemSize(*found.type);
  if (found.sixteenBits) data.item = 2;
  if (found.wholeBytes > 0) data.item = static_cast<std::size_t>(found.wholeBytes);
  data.shape = header.shape;
  data.strides = import::contiguousStrides(header.shape);
  if (header.fortran) {
    std::vector<Index> reversed(header.shape.rbegin(), header.shape.rend());
    data.strides = import::contiguousStrides(reversed);
    std::reverse(data.strides.begin(), data.strides.end());
  }
  const Index count = import::checkedCount(header.shape, what);
  if (found.type || found.sixteenBits || found.wholeBytes > 0) {
    if (header.dataAt > size || static_cast<std::uint64_t>(count) > (size - header.dataAt) / data.item) {
      throw Error(ErrorCode::Format,
                  fmt::format("{}: shape {} needs {} elements, the file holds {} bytes of them; it is truncated, copy "
                              "it again",
                              what, import::shapeText(header.shape), count,
                              size - std::min<std::uint64_t>(size, header.dataAt)));
    }
    data.length = static_cast<std::uint64_t>(count) * data.item;
    data.bytes = bytes;
    data.offset = offset + header.dataAt;
    if (bytes) data.check(what);
  }
  file.add(std::move(found), std::move(data));
}

/// An .npz whose deflated members are unpacked when their first plane is read. Few stay so: each takes a descriptor and
/// its room on the disk.
class NpzFile final : public import::StridedFile {
 public:
  NpzFile(const std::filesystem::path& path, std::filesystem::path scratch)
      : m_zip(path), m_scratch(std::move(scratch)) {
    for (const import::ZipMember& member : m_zip.members()) {
      if (!member.name.ends_with(".npy")) continue;
      const std::string name = member.name.substr(0, member.name.size() - 4);
      const std::string what = fmt::format("{}: array {}", path.string(), import::printable(name));
      const NpyHeader header = readNpyHeader(
          [&](std::size_t at, std::size_t count) {
            const std::string start = m_zip.readPrefix(member, at + count);
            return at < start.size() ? start.substr(at) : std::string();
          },
          what);
      const bool stored = member.method == 0;
      addArray(*this, header, name, what, stored ? m_zip.bytes() : nullptr, stored ? member.offset : 0, member.size);
      m_packed.push_back(stored ? nullptr : &member);
    }
  }
  void readPlane(std::size_t tensor, std::span<const Index> index, std::size_t rowAxis, std::size_t columnAxis,
                 std::span<std::byte> out, const Control& control) override {
    import::StridedTensor& data = m_data.at(tensor);
    if (m_packed[tensor] != nullptr) {
      if (!data.bytes) {
        if (m_unpacked.size() >= kMostUnpacked) {
          m_data[m_unpacked.back()].bytes.reset();
          m_unpacked.pop_back();
        }
        data.bytes = m_zip.unpack(*m_packed[tensor], m_scratch, control);
        data.check(m_tensors[tensor].name);
        m_unpacked.insert(m_unpacked.begin(), tensor);
      } else {
        const auto used = std::find(m_unpacked.begin(), m_unpacked.end(), tensor);
        std::rotate(m_unpacked.begin(), used, used + 1);
      }
    }
    StridedFile::readPlane(tensor, index, rowAxis, columnAxis, out, control);
  }

 private:
  static constexpr std::size_t kMostUnpacked = 6;  // queries, keys, values, and what comes beside them
  import::ZipFile m_zip;
  std::filesystem::path m_scratch;
  std::vector<std::size_t> m_unpacked;             // newest first
  std::vector<const import::ZipMember*> m_packed;  ///< parallel to tensors(); nullptr: stored
};

class Numpy final : public Importer {
 public:
  [[nodiscard]] std::string_view id() const noexcept override { return "numpy"; }
  [[nodiscard]] std::string_view title() const noexcept override { return "numpy .npy and .npz"; }
  [[nodiscard]] std::string_view summary() const noexcept override {
    return "Arrays by name. bfloat16 arrives as 2-byte values without a type: say --raw16 bfloat16.";
  }
  [[nodiscard]] std::string_view suffixes() const noexcept override { return "*.npy *.npz"; }
  [[nodiscard]] int match(const SourceHead& head) const override {
    if (head.startsWith(kMagic)) return 2;
    if (import::looksLikeZip(head)) {
      if (head.suffix == ".npz") return 2;
      // The first member's name stands at byte 30.
      const std::size_t size = head.bytes.size() > 28 ? static_cast<unsigned char>(head.bytes[26]) : 0;
      if (std::string_view(head.bytes).substr(std::min<std::size_t>(30, head.bytes.size()), size).ends_with(".npy"))
        return 2;
    }
    return head.suffix == ".npy" || head.suffix == ".npz" ? 1 : 0;
  }
  [[nodiscard]] std::unique_ptr<TensorFile> open(const std::filesystem::path& path,
                                                 const std::filesystem::path& scratch) const override {
    if (!readHead(path).startsWith(kMagic) && import::looksLikeZip(readHead(path))) {
      return std::make_unique<NpzFile>(path, scratch);
    }
    auto bytes = std::make_shared<import::FileBytes>(path);
    const NpyHeader header = readNpyHeader(
        [&](std::size_t at, std::size_t count) {
          if (at >= bytes->size()) return std::string();
          return bytes->readText(at, static_cast<std::size_t>(std::min<std::uint64_t>(count, bytes->size() - at)));
        },
        path.string());
    auto file = std::make_unique<import::StridedFile>();
    addArray(*file, header, std::string(), path.string(), bytes, 0, bytes->size());
    return file;
  }
};

}  // namespace

const Importer& numpy_importer() {
  static const Numpy importer;
  return importer;
}

}  // namespace sparsight
