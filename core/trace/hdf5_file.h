// SPDX-License-Identifier: Apache-2.0
#pragma once

// HDF5 behind one door: this pair of files is the only one that knows hdf5.h.
//
// Every call but a direct read takes one process-wide lock, because an HDF5 library may be built without thread safety
// and its state is global; long reads should therefore go in slabs (a few MiB). HDF5's own error printer is off; every
// failure is an Error{Io|Format|Unsupported} of one line that names file, object (and attribute) and what to do.
// Tensors are read and written raw: the library's type conversion runs at some 33 MB/s and is never used for them.

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <variant>
#include <vector>

#include "sparsight/kernels/types.h"

namespace sparsight::h5 {

/// a * b; throws Error{Format} "what: size overflows" instead of wrapping. For every size that comes from a file.
[[nodiscard]] Index checkedMultiply(Index a, Index b, std::string_view what);
/// Product of a shape; negative extents and overflow throw as above. Empty shape (scalar): 1.
[[nodiscard]] Index elementCount(std::span<const Index> shape, std::string_view what);
/// "[2, 1080, 64]"
[[nodiscard]] std::string shapeText(std::span<const Index> shape);

/// Reference to an HDF5 object of any kind (hid_t is 64 bits since 1.10).
class Handle {
 public:
  Handle() = default;
  explicit Handle(std::int64_t id) noexcept : m_id(id) {}
  Handle(Handle&& other) noexcept;
  Handle& operator=(Handle&& other) noexcept;
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;
  ~Handle();
  [[nodiscard]] std::int64_t id() const noexcept { return m_id; }
  [[nodiscard]] bool ok() const noexcept { return m_id >= 0; }
  void reset() noexcept;

 private:
  std::int64_t m_id = -1;
};

enum class TypeClass : std::uint8_t { Integer, Float, String, Enum, Opaque, Compound, Other };
struct TypeInfo {
  TypeClass cls = TypeClass::Other;
  std::size_t size = 0;  ///< bytes of one element
  bool isSigned = false, bigEndian = false, variableString = false;
  std::optional<DType> floatType;  ///< F16, BF16 (true HDF5 floats of either byte order) or F32
  std::string name;                ///< for messages: "float16", "uint16", "opaque of 2 bytes"
};

enum class Layout : std::uint8_t { Compact, Contiguous, Chunked, Virtual };
struct FilterInfo {
  int id = 0;
  std::string name;
  bool available = true;
};
struct DatasetInfo {
  std::vector<Index> shape;
  TypeInfo type;
  Layout layout = Layout::Contiguous;
  std::vector<Index> chunk;  ///< chunked only
  std::vector<FilterInfo> filters;
  std::vector<std::string> sources;  ///< files a virtual dataset takes its data from ("." = this file)
  bool externalStorage = false;      ///< raw data in a foreign file: never read
  Index storageBytes = 0;            ///< allocated on disk; 0: never written
  Index fileOffset = -1;             ///< contiguous and allocated
};

enum class LinkKind : std::uint8_t { Missing, Hard, Soft, External, Other };
struct LinkInfo {
  std::string name;
  LinkKind kind = LinkKind::Missing;
  std::string targetFile, targetPath;  ///< external (and soft: path only)
};

/// Element types that can be written. Bf16Float is the true HDF5 float (15, 7, 8, 0, 7, bias 127); Bf16 as uint16 is
/// U16.
enum class Element : std::uint8_t { I8, U8, U16, I32, I64, F32, F64, F16, Bf16Float };
[[nodiscard]] std::size_t elementSize(Element element) noexcept;

template <class T>
[[nodiscard]] constexpr Element elementOf() noexcept {
  if constexpr (std::is_same_v<T, std::int8_t>)
    return Element::I8;
  else if constexpr (std::is_same_v<T, std::uint8_t>)
    return Element::U8;
  else if constexpr (std::is_same_v<T, std::uint16_t>)
    return Element::U16;
  else if constexpr (std::is_same_v<T, std::int32_t>)
    return Element::I32;
  else if constexpr (std::is_same_v<T, std::int64_t>)
    return Element::I64;
  else if constexpr (std::is_same_v<T, float>)
    return Element::F32;
  else {
    static_assert(std::is_same_v<T, double>, "no HDF5 element type for T");
    return Element::F64;
  }
}

struct StorageOptions {
  std::vector<Index> chunk;  ///< empty: contiguous
  int deflate = 0;           ///< 0 = none, 1..9; needs chunks
  bool shuffle = false;      ///< byte shuffle before deflate
};

namespace detail {
struct FileState;
using AttributeValue = std::variant<std::vector<std::int64_t>, std::vector<double>, std::vector<std::string>>;
}  // namespace detail

/// Anything that bears attributes. Getters accept int8..int64, uint8..uint64, bool enums, float16..float64, scalars and
/// arrays of any rank, and fixed (NUL- or space-padded, also without terminator) or variable-length strings.
class Object {
 public:
  [[nodiscard]] const std::string& path() const noexcept { return m_path; }
  /// File name as given to open; for messages.
  [[nodiscard]] std::string fileName() const;
  [[nodiscard]] bool hasAttribute(const std::string& name) const;
  [[nodiscard]] std::vector<std::string> attributeNames() const;

  // Required: missing or of another class throws Error{Format}. `mend` ends the message of a missing attribute.
  [[nodiscard]] std::int64_t readInt(const std::string& name, std::string_view mend = {}) const;
  [[nodiscard]] double readReal(const std::string& name, std::string_view mend = {}) const;
  [[nodiscard]] std::string readString(const std::string& name, std::string_view mend = {}) const;
  [[nodiscard]] std::vector<std::int64_t> readInts(const std::string& name, std::string_view mend = {}) const;
  [[nodiscard]] std::vector<double> readReals(const std::string& name, std::string_view mend = {}) const;
  [[nodiscard]] std::vector<std::string> readStrings(const std::string& name, std::string_view mend = {}) const;
  // Optional: nullopt when absent; present but of another class still throws.
  [[nodiscard]] std::optional<std::int64_t> tryInt(const std::string& name) const;
  [[nodiscard]] std::optional<double> tryReal(const std::string& name) const;
  [[nodiscard]] std::optional<std::string> tryString(const std::string& name) const;

  void writeInt(const std::string& name, std::int64_t value);  // int64
  void writeInt32(const std::string& name, std::int32_t value);
  void writeByte(const std::string& name, std::uint8_t value);  // uint8
  void writeReal(const std::string& name, double value);
  void writeString(const std::string& name, std::string_view utf8);  // variable length
  void writeStrings(const std::string& name, std::span<const std::string> utf8);
  template <class T>
  void writeArray(const std::string& name, std::span<const T> values) {
    const Index count = static_cast<Index>(values.size());
    writeRawAttribute(name, elementOf<T>(), {&count, 1}, values.data());
  }
  template <class T>
  void writeArray(const std::string& name, const std::vector<T>& values) {
    writeArray(name, std::span<const T>(values));
  }

  /// "trace.h5: /data/...: message", the form of every message about this object.
  [[noreturn]] void failFormat(const std::string& message) const;
  [[nodiscard]] std::string where() const;

 protected:
  Object() = default;
  Object(std::shared_ptr<detail::FileState> file, Handle handle, std::string path);
  void writeRawAttribute(const std::string& name, Element element, std::span<const Index> shape, const void* data);
  [[nodiscard]] std::optional<detail::AttributeValue> attribute(const std::string& name) const;

  std::shared_ptr<detail::FileState> m_file;
  std::shared_ptr<Handle> m_handle;
  std::string m_path;

 private:
  [[nodiscard]] detail::AttributeValue required(const std::string& name, std::string_view mend) const;
};

class Dataset : public Object {
 public:
  [[nodiscard]] const DatasetInfo& info() const noexcept { return m_info; }

  /// Raw elements of a hyperslab [start, start + count) in the file's own type (byte order included); `out` must have
  /// exactly the slab's size. Refuses unavailable filters, external storage and virtual sources outside the file's
  /// folder. Where readsDirectly(), several threads may read parts of one dataset at once without waiting for each
  /// other or for the library.
  void readRaw(std::span<const Index> start, std::span<const Index> count, std::span<std::byte> out) const;
  void writeRaw(std::span<const Index> start, std::span<const Index> count, std::span<const std::byte> in);
  /// Whole dataset of integers or floats, converted by HDF5: for small tables, not for tensors. Refuses more than
  /// maxElements (Error{Format}) before allocating.
  template <class T>
  [[nodiscard]] std::vector<T> read(Index maxElements = Index{1} << 28) const {
    std::vector<T> values(static_cast<std::size_t>(checkedCount(maxElements, std::is_floating_point_v<T>, sizeof(T))));
    readConverted(elementOf<T>(), values.data(), values.size());
    return values;
  }
  [[nodiscard]] std::vector<std::string> readStringElements(Index maxElements = 65536) const;
  /// Whether slabs of few ranges of bytes in the file are read from it past the library: storage without filters,
  /// contiguous or in chunks as wide as the dataset, of a file opened for reading.
  [[nodiscard]] bool readsDirectly() const noexcept;
  /// Whether the chunk that holds this element was ever written. True for other layouts that have storage.
  [[nodiscard]] bool chunkAllocated(std::span<const Index> element) const;
  /// Throws Error{Unsupported} naming the first filter this HDF5 library cannot apply, and the way out.
  void requireReadable() const;

 private:
  friend class Group;
  using Object::Object;
  [[nodiscard]] Index checkedCount(Index maxElements, bool wantFloat, std::size_t elementBytes) const;
  void readConverted(Element memory, void* out, std::size_t count) const;
  struct ChunkRow;
  [[nodiscard]] bool readRange(std::span<const Index> start, std::span<const Index> count,
                               std::span<std::byte> out) const;
  [[nodiscard]] bool readChunks(std::span<const Index> start, std::span<const Index> count,
                                std::span<std::byte> out) const;
  void readBytes(Index at, std::span<std::byte> out, std::span<const Index> start, std::span<const Index> count) const;
  [[nodiscard]] std::shared_ptr<const ChunkRow> chunkRow(std::size_t axis, std::span<const Index> start) const;
  DatasetInfo m_info;
  mutable std::shared_ptr<const ChunkRow> m_chunkRow;  // the last one looked up; guarded by the library's lock
};

class Group : public Object {
 public:
  [[nodiscard]] LinkInfo link(const std::string& name) const;  ///< one path component; Missing when there is none
  [[nodiscard]] std::vector<LinkInfo> links() const;           ///< sorted by name
  [[nodiscard]] bool has(const std::string& name) const { return link(name).kind != LinkKind::Missing; }
  /// External links are never followed here: the caller resolves them (they may point anywhere).
  [[nodiscard]] Group openGroup(const std::string& name) const;
  [[nodiscard]] std::optional<Group> tryGroup(const std::string& name) const;  ///< nullopt: missing or no group
  /// Names may be absolute paths inside the file. chunkCacheBytes: raw-chunk cache of this dataset, 0 = the default 1
  /// MiB.
  [[nodiscard]] Dataset openDataset(const std::string& name, Index chunkCacheBytes = 0) const;
  [[nodiscard]] std::optional<Dataset> tryDataset(const std::string& name) const;  ///< nullopt: missing or no dataset

  Group createGroup(const std::string& name);  ///< intermediate groups are made
  Dataset createDataset(const std::string& name, Element element, std::span<const Index> shape,
                        const StorageOptions& storage = {});
  template <class T>
  Dataset writeDataset(const std::string& name, std::span<const T> values, std::span<const Index> shape,
                       const StorageOptions& storage = {}) {
    Dataset dataset = createDataset(name, elementOf<T>(), shape, storage);
    if (!values.empty()) {
      const std::vector<Index> start(shape.size(), 0);
      dataset.writeRaw(start, shape, std::as_bytes(values));
    }
    return dataset;
  }
  template <class T>
  Dataset writeDataset(const std::string& name, const std::vector<T>& values) {
    const Index count = static_cast<Index>(values.size());
    return writeDataset<T>(name, std::span<const T>(values), {&count, 1});
  }
  void createExternalLink(const std::string& name, const std::string& file, const std::string& path);

 protected:
  using Object::Object;

 private:
  friend class File;
  [[nodiscard]] int objectType(const std::string& name) const;
  [[nodiscard]] Handle openDatasetId(const std::string& name, Index chunkCacheBytes) const;
  [[nodiscard]] Dataset describeDataset(const std::string& name, Handle id) const;
  [[nodiscard]] std::string childPath(const std::string& name) const;
};

/// An HDF5 file and its root group. Closes when the last object of it is gone.
class File : public Group {
 public:
  /// Read only, without file locking. Distinguishes missing, folder, no permission, empty, not HDF5, truncated and
  /// too-new files in its message. `what` says what was expected ("a trace").
  [[nodiscard]] static File openRead(const std::filesystem::path& path, std::string_view what = "an HDF5 file");
  /// New file (truncates), library format earliest..v110 so that every reader since 1.10 can open it.
  [[nodiscard]] static File create(const std::filesystem::path& path);
  void flush();
  /// Flushes and closes, reporting what could not be written. All objects of the file must be gone.
  void close();
  [[nodiscard]] Index sizeBytes() const;

 private:
  using Group::Group;
};

/// Whether the file begins with the HDF5 signature (at 0, 512, 1024, ...).
[[nodiscard]] bool looksLikeHdf5(const std::filesystem::path& path);

}  // namespace sparsight::h5
