// SPDX-License-Identifier: Apache-2.0
#include "trace/hdf5_file.h"

#include <fmt/format.h>
#include <hdf5.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <limits>
#include <mutex>
#include <numeric>
#include <utility>

#include "sparsight/kernels/error.h"

namespace sparsight::h5 {
namespace fs = std::filesystem;

static_assert(sizeof(hid_t) == sizeof(std::int64_t));

namespace {

// H5T_VARIABLE and H5S_ALL without the C casts of their macros.
constexpr std::size_t kVariableLength = std::numeric_limits<std::size_t>::max();
constexpr hid_t kWholeSpace = 0;

constexpr std::size_t kChunkCacheSlots = 10007;  // a prime, well above the chunks that fit
constexpr Index kMaxAttributeElements = 1 << 20;
constexpr std::size_t kMaxStringBytes = std::size_t{16} << 20;

class Lock {
 public:
  Lock() : m_guard(mutex()) {
    // After a full disk the library crashes in its exit handler, trying to flush once more. Files are closed
    // explicitly, so the handler is not needed; it must be declined before anything else is called.
    static const bool noExitHandler = H5dont_atexit() >= 0;
    static_cast<void>(noExitHandler);
    // The printer's state belongs to the calling thread in a thread-safe library: switch it off once in each.
    static thread_local const bool off = H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr) >= 0;
    static_cast<void>(off);
  }

 private:
  static std::recursive_mutex& mutex() {
    static std::recursive_mutex instance;
    return instance;
  }
  std::lock_guard<std::recursive_mutex> m_guard;
};

// The innermost entry of HDF5's error stack says the most ("truncated file: eof = ...").
std::string lastError() {
  std::string text;
  const int systemError = errno;
  H5Ewalk2(
      H5E_DEFAULT, H5E_WALK_DOWNWARD,
      [](unsigned, const H5E_error2_t* error, void* out) -> herr_t {
        if (error->desc != nullptr && *error->desc != '\0') *static_cast<std::string*>(out) = error->desc;
        return 0;
      },
      &text);
  H5Eclear2(H5E_DEFAULT);
  // Failed writes come with a paragraph of addresses; what matters is the system's word.
  if (text.find("errno = ") != std::string::npos) {
    const auto at = text.find("error message = '");
    const auto end = at == std::string::npos ? at : text.find('\'', at + 17);
    return end == std::string::npos ? std::strerror(systemError) : text.substr(at + 17, end - at - 17);
  }
  return text.empty() ? "unknown HDF5 error" : text;
}

// Links inside a file may point through an external link; that must not open files behind our back.
herr_t refuseExternal(const char*, const char*, const char*, const char*, unsigned*, hid_t, void*) { return -1; }

Handle linkAccess() {
  Handle list(H5Pcreate(H5P_LINK_ACCESS));
  H5Pset_elink_cb(list.id(), refuseExternal, nullptr);
  H5Pset_nlinks(list.id(), 8);
  return list;
}

Handle float16Type() {
  Handle type(H5Tcopy(H5T_IEEE_F32LE));
  H5Tset_fields(type.id(), 15, 10, 5, 0, 10);
  H5Tset_precision(type.id(), 16);
  H5Tset_ebias(type.id(), 15);
  H5Tset_size(type.id(), 2);
  return type;
}

Handle bfloat16Type() {
  Handle type(H5Tcopy(H5T_IEEE_F32LE));
  H5Tset_fields(type.id(), 15, 7, 8, 0, 7);
  H5Tset_precision(type.id(), 16);
  H5Tset_ebias(type.id(), 127);
  H5Tset_size(type.id(), 2);
  return type;
}

Handle fileType(Element element) {
  switch (element) {
    case Element::I8:
      return Handle(H5Tcopy(H5T_STD_I8LE));
    case Element::U8:
      return Handle(H5Tcopy(H5T_STD_U8LE));
    case Element::U16:
      return Handle(H5Tcopy(H5T_STD_U16LE));
    case Element::I32:
      return Handle(H5Tcopy(H5T_STD_I32LE));
    case Element::I64:
      return Handle(H5Tcopy(H5T_STD_I64LE));
    case Element::F32:
      return Handle(H5Tcopy(H5T_IEEE_F32LE));
    case Element::F64:
      return Handle(H5Tcopy(H5T_IEEE_F64LE));
    case Element::F16:
      return float16Type();
    case Element::Bf16Float:
      return bfloat16Type();
  }
  return Handle();
}

Handle stringType() {
  Handle type(H5Tcopy(H5T_C_S1));
  H5Tset_size(type.id(), kVariableLength);
  H5Tset_cset(type.id(), H5T_CSET_UTF8);
  return type;
}

struct FloatFields {
  std::size_t signPosition = 0, exponentPosition = 0, exponentSize = 0, mantissaPosition = 0, mantissaSize = 0,
              bias = 0;
  friend bool operator==(const FloatFields&, const FloatFields&) = default;
};

TypeInfo describeType(hid_t type) {
  TypeInfo info;
  info.size = H5Tget_size(type);
  switch (H5Tget_class(type)) {
    case H5T_INTEGER:
      info.cls = TypeClass::Integer;
      info.isSigned = H5Tget_sign(type) == H5T_SGN_2;
      info.bigEndian = H5Tget_order(type) == H5T_ORDER_BE;
      info.name = fmt::format("{}int{}", info.isSigned ? "" : "u", info.size * 8);
      break;
    case H5T_FLOAT: {
      info.cls = TypeClass::Float;
      info.isSigned = true;
      info.bigEndian = H5Tget_order(type) == H5T_ORDER_BE;
      FloatFields f;
      H5Tget_fields(type, &f.signPosition, &f.exponentPosition, &f.exponentSize, &f.mantissaPosition, &f.mantissaSize);
      f.bias = H5Tget_ebias(type);
      const bool implied = H5Tget_norm(type) == H5T_NORM_IMPLIED;
      if (implied && info.size == 2 && f == FloatFields{15, 10, 5, 0, 10, 15}) info.floatType = DType::F16;
      if (implied && info.size == 2 && f == FloatFields{15, 7, 8, 0, 7, 127}) info.floatType = DType::BF16;
      if (implied && info.size == 4 && f == FloatFields{31, 23, 8, 0, 23, 127}) info.floatType = DType::F32;
      if (info.floatType) {
        info.name = dtypeName(*info.floatType);
      } else if (info.size == 8) {
        info.name = "float64";
      } else {
        info.name = fmt::format("a float of {} bits with {} exponent and {} mantissa bits, bias {}", info.size * 8,
                                f.exponentSize, f.mantissaSize, f.bias);
      }
      break;
    }
    case H5T_STRING:
      info.cls = TypeClass::String;
      info.variableString = H5Tis_variable_str(type) > 0;
      info.name = "string";
      break;
    case H5T_ENUM:
      info.cls = TypeClass::Enum;
      info.name = "enum";
      break;
    case H5T_OPAQUE:
      info.cls = TypeClass::Opaque;
      info.name = fmt::format("opaque of {} bytes", info.size);
      break;
    case H5T_COMPOUND:
      info.cls = TypeClass::Compound;
      info.name = "compound";
      break;
    default:
      info.name = "a type that is not supported";
      break;
  }
  return info;
}

std::vector<hsize_t> toHsize(std::span<const Index> values) {
  std::vector<hsize_t> out;
  out.reserve(values.size());
  for (const Index v : values) out.push_back(static_cast<hsize_t>(v));
  return out;
}

// Extents of a dataspace; a null dataspace is an empty array.
std::vector<Index> shapeOf(hid_t space, std::string_view what) {
  if (H5Sget_simple_extent_type(space) == H5S_NULL) return {0};
  const int rank = H5Sget_simple_extent_ndims(space);
  if (rank < 0) throw Error(ErrorCode::Format, fmt::format("{}: no readable dataspace; write the file again", what));
  std::vector<hsize_t> dims(static_cast<std::size_t>(rank));
  if (rank > 0) H5Sget_simple_extent_dims(space, dims.data(), nullptr);
  std::vector<Index> shape;
  for (const hsize_t d : dims) {
    if (d > static_cast<hsize_t>(std::numeric_limits<Index>::max())) {
      throw Error(ErrorCode::Format, fmt::format("{}: an extent of {} overflows; write the file again", what, d));
    }
    shape.push_back(static_cast<Index>(d));
  }
  return shape;
}

// Strings of `count` elements through a reader that fills a buffer of the given memory type.
template <class Reader>
std::vector<std::string> readStringsWith(hid_t type, hid_t space, Index count, std::string_view what, Reader&& read) {
  std::vector<std::string> strings;
  if (count == 0) return strings;
  const TypeInfo info = describeType(type);
  const auto n = static_cast<std::size_t>(count);
  if (info.variableString) {
    std::vector<char*> pointers(n, nullptr);
    if (!read(type, pointers.data()))
      throw Error(ErrorCode::Io, fmt::format("{}: {}; copy the file again", what, lastError()));
    std::size_t total = 0;
    for (const char* p : pointers) total += p == nullptr ? 0 : std::strlen(p);
    if (total <= kMaxStringBytes) {
      strings.reserve(n);
      for (const char* p : pointers) strings.emplace_back(p == nullptr ? "" : p);
    }
    H5Dvlen_reclaim(type, space, H5P_DEFAULT, pointers.data());
    if (total > kMaxStringBytes) {
      throw Error(ErrorCode::Format,
                  fmt::format("{}: {} bytes of text, more than {} allowed; shorten it", what, total, kMaxStringBytes));
    }
    return strings;
  }
  if (info.size > kMaxStringBytes || info.size * n > kMaxStringBytes) {
    throw Error(ErrorCode::Format,
                fmt::format("{}: {} bytes of text, more than {} allowed; shorten it", what,
                            checkedMultiply(static_cast<Index>(info.size), count, what), kMaxStringBytes));
  }
  std::vector<char> bytes(info.size * n);
  if (!read(type, bytes.data()))
    throw Error(ErrorCode::Io, fmt::format("{}: {}; copy the file again", what, lastError()));
  const bool spacePadded = H5Tget_strpad(type) == H5T_STR_SPACEPAD;
  for (std::size_t i = 0; i < n; ++i) {
    // A NUL-padded string that fills its field has no terminator: its own length ends it.
    std::string_view text(bytes.data() + i * info.size, info.size);
    text = text.substr(0, text.find('\0'));
    if (spacePadded) {
      while (!text.empty() && text.back() == ' ') text.remove_suffix(1);
    }
    strings.emplace_back(text);
  }
  return strings;
}

hid_t memoryType(Element element) {
  switch (element) {
    case Element::I8:
      return H5T_NATIVE_INT8;
    case Element::U8:
      return H5T_NATIVE_UINT8;
    case Element::U16:
      return H5T_NATIVE_UINT16;
    case Element::I32:
      return H5T_NATIVE_INT32;
    case Element::I64:
      return H5T_NATIVE_INT64;
    case Element::F32:
      return H5T_NATIVE_FLOAT;
    case Element::F64:
      return H5T_NATIVE_DOUBLE;
    case Element::F16:
    case Element::Bf16Float:
      break;
  }
  return -1;
}

Handle makeSpace(std::span<const Index> shape) {
  if (shape.empty()) return Handle(H5Screate(H5S_SCALAR));
  const auto dims = toHsize(shape);
  return Handle(H5Screate_simple(static_cast<int>(dims.size()), dims.data(), nullptr));
}

bool startsWithSignature(std::ifstream& in, std::streamoff at) {
  constexpr std::array<char, 8> kSignature{'\x89', 'H', 'D', 'F', '\r', '\n', '\x1a', '\n'};
  std::array<char, 8> bytes{};
  in.clear();
  in.seekg(at);
  in.read(bytes.data(), bytes.size());
  return in.gcount() == static_cast<std::streamsize>(bytes.size()) && bytes == kSignature;
}

}  // namespace

namespace detail {
struct FileState {
  fs::path path;
  std::string shown;  // as the user gave it
  bool writable = false;
  int descriptor = -1;          // the library's own, of a file opened for reading; it closes it with `id`
  bool plainAddresses = false;  // no user block: versions differ in whether a chunk's address counts it
  Handle id;
};
}  // namespace detail

Index checkedMultiply(Index a, Index b, std::string_view what) {
  Index product = 0;
  if (a < 0 || b < 0 || __builtin_mul_overflow(a, b, &product)) {
    throw Error(
        ErrorCode::Format,
        fmt::format("{}: a size of {} x {} overflows; the file is damaged or not meant for this program", what, a, b));
  }
  return product;
}

Index elementCount(std::span<const Index> shape, std::string_view what) {
  Index count = 1;
  for (const Index extent : shape) count = checkedMultiply(count, extent, what);
  return count;
}

std::string shapeText(std::span<const Index> shape) { return fmt::format("[{}]", fmt::join(shape, ", ")); }

std::size_t elementSize(Element element) noexcept {
  switch (element) {
    case Element::I8:
    case Element::U8:
      return 1;
    case Element::U16:
    case Element::F16:
    case Element::Bf16Float:
      return 2;
    case Element::I32:
    case Element::F32:
      return 4;
    case Element::I64:
    case Element::F64:
      break;
  }
  return 8;
}

Handle::Handle(Handle&& other) noexcept : m_id(std::exchange(other.m_id, -1)) {}
Handle& Handle::operator=(Handle&& other) noexcept {
  if (this != &other) {
    reset();
    m_id = std::exchange(other.m_id, -1);
  }
  return *this;
}
Handle::~Handle() { reset(); }
void Handle::reset() noexcept {
  if (m_id < 0) return;
  const Lock lock;
  H5Idec_ref(m_id);
  m_id = -1;
}

// ---------------------------------------------------------------------------------------------------------------------
// Object

Object::Object(std::shared_ptr<detail::FileState> file, Handle handle, std::string path)
    : m_file(std::move(file)), m_handle(std::make_shared<Handle>(std::move(handle))), m_path(std::move(path)) {}

std::string Object::fileName() const { return m_file->shown; }
std::string Object::where() const { return fmt::format("{}: {}", m_file->shown, m_path); }
void Object::failFormat(const std::string& message) const {
  throw Error(ErrorCode::Format, fmt::format("{}: {}", where(), message));
}

bool Object::hasAttribute(const std::string& name) const {
  const Lock lock;
  return H5Aexists(m_handle->id(), name.c_str()) > 0;
}

std::vector<std::string> Object::attributeNames() const {
  const Lock lock;
  std::vector<std::string> names;
  H5Aiterate2(
      m_handle->id(), H5_INDEX_NAME, H5_ITER_INC, nullptr,
      [](hid_t, const char* name, const H5A_info_t*, void* out) -> herr_t {
        static_cast<std::vector<std::string>*>(out)->emplace_back(name);
        return 0;
      },
      &names);
  return names;
}

std::optional<detail::AttributeValue> Object::attribute(const std::string& name) const {
  const Lock lock;
  if (H5Aexists(m_handle->id(), name.c_str()) <= 0) return std::nullopt;
  const std::string what = fmt::format("{}: attribute '{}'", where(), name);
  const Handle attr(H5Aopen(m_handle->id(), name.c_str(), H5P_DEFAULT));
  if (!attr.ok())
    throw Error(ErrorCode::Format, fmt::format("{} cannot be opened ({}); write the file again", what, lastError()));
  const Handle type(H5Aget_type(attr.id()));
  const Handle space(H5Aget_space(attr.id()));
  const Index count = elementCount(shapeOf(space.id(), what), what);
  if (count > kMaxAttributeElements) {
    throw Error(ErrorCode::Format, fmt::format("{} has {} elements, more than {} allowed; store it as a dataset", what,
                                               count, kMaxAttributeElements));
  }
  const auto n = static_cast<std::size_t>(count);
  const auto readInto = [&](hid_t memory, void* out) {
    if (n > 0 && H5Aread(attr.id(), memory, out) < 0) {
      throw Error(ErrorCode::Format, fmt::format("{} cannot be read ({}); write the file again", what, lastError()));
    }
  };
  const TypeInfo info = describeType(type.id());
  switch (info.cls) {
    case TypeClass::Integer:
    case TypeClass::Enum: {  // h5py writes bool as an int8 enum FALSE / TRUE
      std::vector<std::int64_t> values(n);
      readInto(H5T_NATIVE_INT64, values.data());
      return values;
    }
    case TypeClass::Float: {
      std::vector<double> values(n);
      readInto(H5T_NATIVE_DOUBLE, values.data());
      return values;
    }
    case TypeClass::String:
      return readStringsWith(type.id(), space.id(), count, what,
                             [&](hid_t memory, void* out) { return H5Aread(attr.id(), memory, out) >= 0; });
    default:
      throw Error(ErrorCode::Format, fmt::format("{} is {}; write it as a number or a string", what, info.name));
  }
}

detail::AttributeValue Object::required(const std::string& name, std::string_view mend) const {
  auto value = attribute(name);
  if (!value) {
    failFormat(fmt::format("attribute '{}' is missing; {}", name,
                           mend.empty() ? "write the file again with a writer that follows the trace format" : mend));
  }
  return std::move(*value);
}

namespace {

[[noreturn]] void wrongClass(const Object& object, const std::string& name, std::string_view expected,
                             const detail::AttributeValue& found) {
  constexpr std::array<const char*, 3> kFound{"integers", "floats", "text"};
  object.failFormat(fmt::format("attribute '{}' holds {}, expected {}; write it with that type", name,
                                kFound[found.index()], expected));
}

std::vector<std::int64_t> asInts(const Object& object, const std::string& name, detail::AttributeValue value) {
  if (auto* ints = std::get_if<std::vector<std::int64_t>>(&value)) return std::move(*ints);
  wrongClass(object, name, "integers", value);
}
std::vector<double> asReals(const Object& object, const std::string& name, detail::AttributeValue value) {
  if (auto* reals = std::get_if<std::vector<double>>(&value)) return std::move(*reals);
  if (auto* ints = std::get_if<std::vector<std::int64_t>>(&value)) {
    std::vector<double> reals(ints->size());
    std::transform(ints->begin(), ints->end(), reals.begin(), [](std::int64_t v) { return static_cast<double>(v); });
    return reals;
  }
  wrongClass(object, name, "numbers", value);
}
std::vector<std::string> asStrings(const Object& object, const std::string& name, detail::AttributeValue value) {
  if (auto* strings = std::get_if<std::vector<std::string>>(&value)) return std::move(*strings);
  wrongClass(object, name, "text", value);
}
template <class T>
T single(const Object& object, const std::string& name, std::vector<T> values) {
  if (values.size() != 1) {
    object.failFormat(fmt::format("attribute '{}' has {} elements, expected one; write a scalar", name, values.size()));
  }
  return std::move(values.front());
}

}  // namespace

std::int64_t Object::readInt(const std::string& name, std::string_view mend) const {
  return single(*this, name, asInts(*this, name, required(name, mend)));
}
double Object::readReal(const std::string& name, std::string_view mend) const {
  return single(*this, name, asReals(*this, name, required(name, mend)));
}
std::string Object::readString(const std::string& name, std::string_view mend) const {
  return single(*this, name, asStrings(*this, name, required(name, mend)));
}
std::vector<std::int64_t> Object::readInts(const std::string& name, std::string_view mend) const {
  return asInts(*this, name, required(name, mend));
}
std::vector<double> Object::readReals(const std::string& name, std::string_view mend) const {
  return asReals(*this, name, required(name, mend));
}
std::vector<std::string> Object::readStrings(const std::string& name, std::string_view mend) const {
  return asStrings(*this, name, required(name, mend));
}
std::optional<std::int64_t> Object::tryInt(const std::string& name) const {
  auto value = attribute(name);
  if (!value) return std::nullopt;
  return single(*this, name, asInts(*this, name, std::move(*value)));
}
std::optional<double> Object::tryReal(const std::string& name) const {
  auto value = attribute(name);
  if (!value) return std::nullopt;
  return single(*this, name, asReals(*this, name, std::move(*value)));
}
std::optional<std::string> Object::tryString(const std::string& name) const {
  auto value = attribute(name);
  if (!value) return std::nullopt;
  return single(*this, name, asStrings(*this, name, std::move(*value)));
}

void Object::writeRawAttribute(const std::string& name, Element element, std::span<const Index> shape,
                               const void* data) {
  const Lock lock;
  const Handle type = fileType(element);
  const Handle space = makeSpace(shape);
  if (H5Aexists(m_handle->id(), name.c_str()) > 0) H5Adelete(m_handle->id(), name.c_str());
  const Handle attr(H5Acreate2(m_handle->id(), name.c_str(), type.id(), space.id(), H5P_DEFAULT, H5P_DEFAULT));
  const bool empty = elementCount(shape, name) == 0;
  if (!attr.ok() || (!empty && H5Awrite(attr.id(), memoryType(element), data) < 0)) {
    throw Error(ErrorCode::Io, fmt::format("{}: cannot write attribute '{}' ({})", where(), name, lastError()));
  }
}

void Object::writeInt(const std::string& name, std::int64_t value) {
  writeRawAttribute(name, Element::I64, {}, &value);
}
void Object::writeInt32(const std::string& name, std::int32_t value) {
  writeRawAttribute(name, Element::I32, {}, &value);
}
void Object::writeByte(const std::string& name, std::uint8_t value) {
  writeRawAttribute(name, Element::U8, {}, &value);
}
void Object::writeReal(const std::string& name, double value) { writeRawAttribute(name, Element::F64, {}, &value); }

namespace {
void writeStringAttribute(hid_t object, const std::string& name, hid_t space, const char* const* strings, bool empty,
                          const std::string& where) {
  const Handle type = stringType();
  if (H5Aexists(object, name.c_str()) > 0) H5Adelete(object, name.c_str());
  const Handle attr(H5Acreate2(object, name.c_str(), type.id(), space, H5P_DEFAULT, H5P_DEFAULT));
  if (!attr.ok() || (!empty && H5Awrite(attr.id(), type.id(), strings) < 0)) {
    throw Error(ErrorCode::Io, fmt::format("{}: cannot write attribute '{}' ({})", where, name, lastError()));
  }
}
}  // namespace

void Object::writeString(const std::string& name, std::string_view utf8) {
  const Lock lock;
  const std::string text(utf8);
  const char* pointer = text.c_str();
  const Handle space = makeSpace({});
  writeStringAttribute(m_handle->id(), name, space.id(), &pointer, false, where());
}

void Object::writeStrings(const std::string& name, std::span<const std::string> utf8) {
  const Lock lock;
  std::vector<const char*> pointers;
  for (const std::string& s : utf8) pointers.push_back(s.c_str());
  const Index count = static_cast<Index>(utf8.size());
  const Handle space = makeSpace({&count, 1});
  writeStringAttribute(m_handle->id(), name, space.id(), pointers.data(), utf8.empty(), where());
}

// ---------------------------------------------------------------------------------------------------------------------
// Dataset

void Dataset::requireReadable() const {
  for (const FilterInfo& filter : m_info.filters) {
    if (filter.available) continue;
    throw Error(
        ErrorCode::Unsupported,
        fmt::format("{}: compressed with filter {} ({}), which this HDF5 library does not have; install its plugin and "
                    "set HDF5_PLUGIN_PATH (python: hdf5plugin), or rewrite the file with 'h5repack -f SHUF -f GZIP=1'",
                    where(), filter.id, filter.name.empty() ? "unnamed" : filter.name));
  }
  if (m_info.externalStorage) {
    throw Error(ErrorCode::Unsupported,
                fmt::format("{}: its data lies in a foreign raw file, which is never read; rewrite the "
                            "file with h5repack",
                            where()));
  }
  for (const std::string& source : m_info.sources) {
    if (source == ".") continue;
    if (source.find('/') != std::string::npos || source == "..") {
      throw Error(ErrorCode::Unsupported,
                  fmt::format("{}: virtual dataset takes data from '{}', outside the file's folder; put the "
                              "parts beside the file and use relative names",
                              where(), source));
    }
  }
}

bool Dataset::readsDirectly() const noexcept {
  if (m_file->descriptor < 0 || m_info.externalStorage || !m_info.filters.empty()) return false;
  if (m_info.layout == Layout::Contiguous) return m_info.fileOffset >= 0;
  // Where a row of chunks is very long (or damaged to look so), the library finds its way by itself.
  constexpr Index kMostChunks = 4096;
  const std::size_t axes = m_info.shape.size();
  if (m_info.layout != Layout::Chunked || !m_file->plainAddresses || axes == 0) return false;
  const std::size_t axis = axes >= 2 ? axes - 2 : 0;
  return (axes == 1 || m_info.chunk[axes - 1] == m_info.shape[axes - 1]) && m_info.chunk[axis] > 0 &&
         m_info.shape[axis] / m_info.chunk[axis] < kMostChunks;
}

void Dataset::readBytes(Index at, std::span<std::byte> out, std::span<const Index> start,
                        std::span<const Index> count) const {
  while (!out.empty()) {
    const ssize_t got = ::pread(m_file->descriptor, out.data(), out.size(), static_cast<off_t>(at));
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) {
      throw Error(
          ErrorCode::Io,
          fmt::format("{}: cannot read {} at {} ({}); the file may be truncated or damaged, copy it again", where(),
                      shapeText(count), shapeText(start), got < 0 ? std::strerror(errno) : "the file ends before it"));
    }
    out = out.subspan(static_cast<std::size_t>(got));
    at += static_cast<Index>(got);
  }
}

// The selection as one range of the file's bytes, read there at the speed of the page cache; false when it is none.
// The library would hold its one lock meanwhile and copy small ranges through a buffer of its own.
bool Dataset::readRange(std::span<const Index> start, std::span<const Index> count, std::span<std::byte> out) const {
  const std::vector<Index>& shape = m_info.shape;
  if (!readsDirectly() || start.size() != shape.size() || count.size() != shape.size()) return false;
  if (m_info.layout == Layout::Chunked) return readChunks(start, count, out);
  Index first = 0;
  bool whole = true;  // every axis after this one is taken whole
  for (std::size_t i = shape.size(); i-- > 0;) {
    if (start[i] < 0 || count[i] > shape[i] - start[i]) return false;
    if (!whole && count[i] != 1) return false;
    whole = whole && count[i] == shape[i];
  }
  for (std::size_t i = 0; i < shape.size(); ++i) first = first * shape[i] + start[i];
  readBytes(m_info.fileOffset + first * static_cast<Index>(m_info.type.size), out, start, count);
  return true;
}

/// Where the chunks along one axis lie in the file, the other axes at one place.
struct Dataset::ChunkRow {
  std::vector<Index> origin;     // of the first; 0 along the axis
  std::vector<Index> addresses;  // -1: never written, or not of the expected size
};

std::shared_ptr<const Dataset::ChunkRow> Dataset::chunkRow(std::size_t axis, std::span<const Index> start) const {
  std::vector<Index> origin(start.begin(), start.end());
  for (std::size_t i = 0; i < origin.size(); ++i) origin[i] = origin[i] / m_info.chunk[i] * m_info.chunk[i];
  origin[axis] = 0;
  const Lock lock;
  if (m_chunkRow && m_chunkRow->origin == origin) return m_chunkRow;
  const Index chunkBytes =
      checkedMultiply(elementCount(m_info.chunk, where()), static_cast<Index>(m_info.type.size), where());
  auto row = std::make_shared<ChunkRow>();
  row->origin = origin;
  std::vector<hsize_t> at = toHsize(origin);
  for (Index first = 0; first < m_info.shape[axis]; first += m_info.chunk[axis]) {
    at[axis] = static_cast<hsize_t>(first);
    haddr_t address = HADDR_UNDEF;
    hsize_t bytes = 0;
    unsigned skipped = 0;
    const bool found = H5Dget_chunk_info_by_coord(m_handle->id(), at.data(), &skipped, &address, &bytes) >= 0 &&
                       address < haddr_t{1} << 62 && static_cast<Index>(bytes) == chunkBytes;
    row->addresses.push_back(found ? static_cast<Index>(address) : Index{-1});
  }
  H5Eclear2(H5E_DEFAULT);
  m_chunkRow = row;
  return row;
}

// The same of a selection within a row of chunks: one range of bytes in each that it touches. Their places are asked
// for once, so that parts of a head are read without waiting for the library.
bool Dataset::readChunks(std::span<const Index> start, std::span<const Index> count, std::span<std::byte> out) const {
  const std::vector<Index>&shape = m_info.shape, &chunk = m_info.chunk;
  const std::size_t axis = shape.size() >= 2 ? shape.size() - 2 : 0;
  for (std::size_t i = 0; i < shape.size(); ++i) {
    if (start[i] < 0 || count[i] > shape[i] - start[i]) return false;
    if (i < axis ? count[i] != 1 : i > axis && count[i] != shape[i]) return false;
  }
  const auto row = chunkRow(axis, start);
  const Index end = start[axis] + count[axis];
  for (Index i = start[axis] / chunk[axis]; i * chunk[axis] < end; ++i) {
    if (row->addresses[static_cast<std::size_t>(i)] < 0) return false;  // the library has the fill value
  }
  Index stride = static_cast<Index>(m_info.type.size);  // bytes from one position along the axis to the next
  for (std::size_t i = axis + 1; i < shape.size(); ++i) stride *= chunk[i];
  for (Index position = start[axis]; position < end;) {
    const Index i = position / chunk[axis], last = std::min(end, (i + 1) * chunk[axis]);
    Index offset = 0;
    for (std::size_t a = 0; a <= axis; ++a) offset = offset * chunk[a] + (a == axis ? position : start[a]) % chunk[a];
    const auto bytes = static_cast<std::size_t>((last - position) * stride);
    readBytes(row->addresses[static_cast<std::size_t>(i)] + offset * stride, out.first(bytes), start, count);
    out = out.subspan(bytes);
    position = last;
  }
  return true;
}

void Dataset::readRaw(std::span<const Index> start, std::span<const Index> count, std::span<std::byte> out) const {
  requireReadable();
  const Index elements = elementCount(count, where());
  SPARSIGHT_ASSERT(static_cast<std::size_t>(elements) * m_info.type.size == out.size());
  if (elements == 0 || readRange(start, count, out)) return;
  const Lock lock;
  // Memory type = the file's own type: the library copies bytes and converts nothing.
  const Handle type(H5Dget_type(m_handle->id()));
  const Handle space(H5Dget_space(m_handle->id()));
  const auto hStart = toHsize(start);
  const auto hCount = toHsize(count);
  if (!start.empty() &&
      H5Sselect_hyperslab(space.id(), H5S_SELECT_SET, hStart.data(), nullptr, hCount.data(), nullptr) < 0) {
    throw Error(ErrorCode::Internal, fmt::format("{}: no such hyperslab {} + {} in {}", where(), shapeText(start),
                                                 shapeText(count), shapeText(m_info.shape)));
  }
  const Handle memory(start.empty() ? H5Screate(H5S_SCALAR)
                                    : H5Screate_simple(static_cast<int>(hCount.size()), hCount.data(), nullptr));
  if (H5Dread(m_handle->id(), type.id(), memory.id(), space.id(), H5P_DEFAULT, out.data()) < 0) {
    throw Error(ErrorCode::Io,
                fmt::format("{}: cannot read {} at {} ({}); the file may be truncated or damaged, copy it again",
                            where(), shapeText(count), shapeText(start), lastError()));
  }
}

void Dataset::writeRaw(std::span<const Index> start, std::span<const Index> count, std::span<const std::byte> in) {
  const Lock lock;
  const Index elements = elementCount(count, where());
  SPARSIGHT_ASSERT(static_cast<std::size_t>(elements) * m_info.type.size == in.size());
  if (elements == 0) return;
  static_assert(std::endian::native == std::endian::little, "raw writes need a swap on big-endian machines");
  const Handle type(H5Dget_type(m_handle->id()));
  const Handle space(H5Dget_space(m_handle->id()));
  const auto hStart = toHsize(start);
  const auto hCount = toHsize(count);
  if (!start.empty() &&
      H5Sselect_hyperslab(space.id(), H5S_SELECT_SET, hStart.data(), nullptr, hCount.data(), nullptr) < 0) {
    throw Error(ErrorCode::Internal, fmt::format("{}: no such hyperslab", where()));
  }
  const Handle memory(start.empty() ? H5Screate(H5S_SCALAR)
                                    : H5Screate_simple(static_cast<int>(hCount.size()), hCount.data(), nullptr));
  if (H5Dwrite(m_handle->id(), type.id(), memory.id(), space.id(), H5P_DEFAULT, in.data()) < 0) {
    throw Error(ErrorCode::Io,
                fmt::format("{}: cannot write ({}); check the free space of the disk", where(), lastError()));
  }
}

Index Dataset::checkedCount(Index maxElements, bool wantFloat, std::size_t elementBytes) const {
  const TypeClass cls = m_info.type.cls;
  const bool number = cls == TypeClass::Integer || cls == TypeClass::Enum || cls == TypeClass::Float;
  if (!number || (!wantFloat && cls == TypeClass::Float)) {
    failFormat(fmt::format("holds {}, expected {}; write it with that type", m_info.type.name,
                           wantFloat ? "numbers" : "integers"));
  }
  const Index count = elementCount(m_info.shape, where());
  if (count > maxElements) {
    failFormat(fmt::format("has {} elements, more than the {} expected here at most; write the file again", count,
                           maxElements));
  }
  static_cast<void>(checkedMultiply(count, static_cast<Index>(elementBytes), where()));
  return count;
}

void Dataset::readConverted(Element memory, void* out, std::size_t count) const {
  if (count == 0) return;
  requireReadable();
  const Lock lock;
  if (H5Dread(m_handle->id(), memoryType(memory), kWholeSpace, kWholeSpace, H5P_DEFAULT, out) < 0) {
    throw Error(ErrorCode::Io, fmt::format("{}: cannot read ({}); the file may be truncated or damaged, copy it again",
                                           where(), lastError()));
  }
}

std::vector<std::string> Dataset::readStringElements(Index maxElements) const {
  if (m_info.type.cls != TypeClass::String) {
    if (elementCount(m_info.shape, where()) == 0) return {};  // an empty list has no meaningful type
    failFormat(fmt::format("holds {}, expected text; write it as strings", m_info.type.name));
  }
  requireReadable();
  const Lock lock;
  const Index count = elementCount(m_info.shape, where());
  if (count > maxElements)
    failFormat(fmt::format("has {} strings, more than {} allowed; shorten it", count, maxElements));
  const Handle type(H5Dget_type(m_handle->id()));
  const Handle space(H5Dget_space(m_handle->id()));
  return readStringsWith(type.id(), space.id(), count, where(), [&](hid_t memory, void* out) {
    return H5Dread(m_handle->id(), memory, kWholeSpace, kWholeSpace, H5P_DEFAULT, out) >= 0;
  });
}

bool Dataset::chunkAllocated(std::span<const Index> element) const {
  if (m_info.layout != Layout::Chunked) return m_info.storageBytes > 0 || m_info.layout != Layout::Contiguous;
  const Lock lock;
  std::vector<hsize_t> origin;
  for (std::size_t i = 0; i < element.size(); ++i) {
    origin.push_back(static_cast<hsize_t>(element[i] / m_info.chunk[i] * m_info.chunk[i]));
  }
  // 1.10 answers "no such chunk" by failing.
  hsize_t bytes = 0;
  const bool found = H5Dget_chunk_storage_size(m_handle->id(), origin.data(), &bytes) >= 0 && bytes > 0;
  H5Eclear2(H5E_DEFAULT);
  return found;
}

// ---------------------------------------------------------------------------------------------------------------------
// Group

std::string Group::childPath(const std::string& name) const {
  if (name.starts_with('/')) return name;
  return m_path == "/" ? "/" + name : m_path + "/" + name;
}

LinkInfo Group::link(const std::string& name) const {
  const Lock lock;
  LinkInfo info;
  info.name = name;
  H5L_info_t raw{};
  if (name.empty()) return info;
  if (H5Lexists(m_handle->id(), name.c_str(), H5P_DEFAULT) <= 0 ||
      H5Lget_info(m_handle->id(), name.c_str(), &raw, H5P_DEFAULT) < 0) {
    H5Eclear2(H5E_DEFAULT);
    return info;
  }
  switch (raw.type) {
    case H5L_TYPE_HARD:
      info.kind = LinkKind::Hard;
      break;
    case H5L_TYPE_SOFT:
    case H5L_TYPE_EXTERNAL: {
      info.kind = raw.type == H5L_TYPE_SOFT ? LinkKind::Soft : LinkKind::External;
      if (raw.u.val_size > 65536)
        failFormat(fmt::format("link '{}' has a target of {} bytes; write the file again", name, raw.u.val_size));
      std::vector<char> value(raw.u.val_size + 1, '\0');
      if (H5Lget_val(m_handle->id(), name.c_str(), value.data(), raw.u.val_size, H5P_DEFAULT) < 0) {
        failFormat(fmt::format("link '{}' cannot be read ({}); write the file again", name, lastError()));
      }
      if (info.kind == LinkKind::Soft) {
        info.targetPath = value.data();
      } else {
        unsigned flags = 0;
        const char* file = nullptr;
        const char* object = nullptr;
        if (H5Lunpack_elink_val(value.data(), raw.u.val_size, &flags, &file, &object) < 0) {
          failFormat(fmt::format("external link '{}' is damaged; write the file again", name));
        }
        info.targetFile = file;
        info.targetPath = object;
      }
      break;
    }
    default:
      info.kind = LinkKind::Other;
      break;
  }
  return info;
}

std::vector<LinkInfo> Group::links() const {
  std::vector<std::string> names;
  {
    const Lock lock;
    hsize_t position = 0;
    const herr_t status = H5Literate(
        m_handle->id(), H5_INDEX_NAME, H5_ITER_INC, &position,
        [](hid_t, const char* name, const H5L_info_t*, void* out) -> herr_t {
          static_cast<std::vector<std::string>*>(out)->emplace_back(name);
          return 0;
        },
        &names);
    if (status < 0)
      failFormat(fmt::format("cannot list its members ({}); the file is damaged, copy it again", lastError()));
  }
  std::sort(names.begin(), names.end());
  std::vector<LinkInfo> result;
  result.reserve(names.size());
  for (const std::string& name : names) result.push_back(link(name));
  return result;
}

int Group::objectType(const std::string& name) const {
  const Lock lock;
  const LinkInfo info = link(name);
  if (info.kind == LinkKind::Missing || info.kind == LinkKind::External || info.kind == LinkKind::Other) return -1;
  const Handle access = linkAccess();
  const Handle object(H5Oopen(m_handle->id(), name.c_str(), access.id()));
  if (!object.ok()) {
    H5Eclear2(H5E_DEFAULT);
    return -1;
  }
  return static_cast<int>(H5Iget_type(object.id()));
}

std::optional<Group> Group::tryGroup(const std::string& name) const {
  if (objectType(name) != static_cast<int>(H5I_GROUP)) return std::nullopt;
  return openGroup(name);
}
std::optional<Dataset> Group::tryDataset(const std::string& name) const {
  const LinkKind kind = link(name).kind;
  if (kind != LinkKind::Hard && kind != LinkKind::Soft) return std::nullopt;
  Handle id = openDatasetId(name, 0);
  if (!id.ok()) {
    // A group of that name, or a soft link to nothing: no dataset.
    const Lock lock;
    H5Eclear2(H5E_DEFAULT);
    return std::nullopt;
  }
  return describeDataset(name, std::move(id));
}

Group Group::openGroup(const std::string& name) const {
  const Lock lock;
  const Handle access = linkAccess();
  Handle id(H5Gopen2(m_handle->id(), name.c_str(), access.id()));
  if (!id.ok()) {
    const std::string why = lastError();
    throw Error(ErrorCode::Format,
                fmt::format("{}: {}: no such group ({}); write the file again", m_file->shown, childPath(name), why));
  }
  return Group(m_file, std::move(id), childPath(name));
}

Handle Group::openDatasetId(const std::string& name, Index chunkCacheBytes) const {
  const Lock lock;
  // H5Pset_elink_* work on link access lists; a dataset access list is one.
  const Handle access(H5Pcreate(H5P_DATASET_ACCESS));
  H5Pset_elink_cb(access.id(), refuseExternal, nullptr);
  H5Pset_nlinks(access.id(), 8);
  H5Pset_virtual_prefix(access.id(), "${ORIGIN}");
  if (chunkCacheBytes > 0) {
    H5Pset_chunk_cache(access.id(), kChunkCacheSlots, static_cast<std::size_t>(chunkCacheBytes), 1.0);
  }
  return Handle(H5Dopen2(m_handle->id(), name.c_str(), access.id()));
}

Dataset Group::openDataset(const std::string& name, Index chunkCacheBytes) const {
  const Lock lock;
  Handle id = openDatasetId(name, chunkCacheBytes);
  if (!id.ok()) {
    const std::string why = lastError();
    throw Error(ErrorCode::Format,
                fmt::format("{}: {}: no such dataset ({}); write the file again", m_file->shown, childPath(name), why));
  }
  return describeDataset(name, std::move(id));
}

Dataset Group::describeDataset(const std::string& name, Handle id) const {
  const Lock lock;
  const std::string path = childPath(name);
  Dataset dataset(m_file, std::move(id), path);
  DatasetInfo& info = dataset.m_info;
  const hid_t raw = dataset.m_handle->id();
  const Handle type(H5Dget_type(raw));
  const Handle space(H5Dget_space(raw));
  const Handle plist(H5Dget_create_plist(raw));
  info.type = describeType(type.id());
  info.shape = shapeOf(space.id(), dataset.where());
  info.storageBytes = static_cast<Index>(H5Dget_storage_size(raw));
  switch (H5Pget_layout(plist.id())) {
    case H5D_COMPACT:
      info.layout = Layout::Compact;
      break;
    case H5D_CHUNKED: {
      info.layout = Layout::Chunked;
      std::vector<hsize_t> chunk(info.shape.size());
      H5Pget_chunk(plist.id(), static_cast<int>(chunk.size()), chunk.data());
      for (const hsize_t c : chunk) info.chunk.push_back(static_cast<Index>(c));
      break;
    }
    case H5D_VIRTUAL: {
      info.layout = Layout::Virtual;
      std::size_t mappings = 0;
      H5Pget_virtual_count(plist.id(), &mappings);
      for (std::size_t i = 0; i < std::min<std::size_t>(mappings, 4096); ++i) {
        const ssize_t length = H5Pget_virtual_filename(plist.id(), i, nullptr, 0);
        if (length < 0) continue;
        std::string file(static_cast<std::size_t>(length) + 1, '\0');
        H5Pget_virtual_filename(plist.id(), i, file.data(), file.size());
        file.resize(static_cast<std::size_t>(length));
        info.sources.push_back(std::move(file));
      }
      break;
    }
    default: {
      info.layout = Layout::Contiguous;
      info.externalStorage = H5Pget_external_count(plist.id()) > 0;
      const haddr_t offset = H5Dget_offset(raw);
      if (offset != HADDR_UNDEF) info.fileOffset = static_cast<Index>(offset);
      break;
    }
  }
  const int filters = H5Pget_nfilters(plist.id());
  for (int i = 0; i < filters; ++i) {
    FilterInfo filter;
    unsigned flags = 0;
    std::size_t values = 0;
    std::array<char, 128> label{};
    unsigned config = 0;
    const H5Z_filter_t id2 = H5Pget_filter2(plist.id(), static_cast<unsigned>(i), &flags, &values, nullptr,
                                            label.size() - 1, label.data(), &config);
    filter.id = static_cast<int>(id2);
    filter.name = label.data();
    filter.available = H5Zfilter_avail(id2) > 0;
    info.filters.push_back(std::move(filter));
  }
  H5Eclear2(H5E_DEFAULT);
  return dataset;
}

Group Group::createGroup(const std::string& name) {
  const Lock lock;
  const Handle list(H5Pcreate(H5P_LINK_CREATE));
  H5Pset_create_intermediate_group(list.id(), 1);
  Handle id(H5Gcreate2(m_handle->id(), name.c_str(), list.id(), H5P_DEFAULT, H5P_DEFAULT));
  if (!id.ok())
    throw Error(ErrorCode::Io, fmt::format("{}: cannot create group '{}' ({})", where(), name, lastError()));
  return Group(m_file, std::move(id), childPath(name));
}

Dataset Group::createDataset(const std::string& name, Element element, std::span<const Index> shape,
                             const StorageOptions& storage) {
  const Lock lock;
  const Handle type = fileType(element);
  const Handle space = makeSpace(shape);
  const Handle list(H5Pcreate(H5P_DATASET_CREATE));
  // No timestamps: the same content gives the same bytes.
  H5Pset_obj_track_times(list.id(), false);
  if (!storage.chunk.empty()) {
    const auto chunk = toHsize(storage.chunk);
    H5Pset_chunk(list.id(), static_cast<int>(chunk.size()), chunk.data());
    if (storage.shuffle) H5Pset_shuffle(list.id());
    if (storage.deflate > 0) H5Pset_deflate(list.id(), static_cast<unsigned>(storage.deflate));
    H5Pset_fill_time(list.id(), H5D_FILL_TIME_NEVER);
  }
  const Handle links(H5Pcreate(H5P_LINK_CREATE));
  H5Pset_create_intermediate_group(links.id(), 1);
  const Handle id(H5Dcreate2(m_handle->id(), name.c_str(), type.id(), space.id(), links.id(), list.id(), H5P_DEFAULT));
  if (!id.ok())
    throw Error(ErrorCode::Io, fmt::format("{}: cannot create dataset '{}' ({})", where(), name, lastError()));
  return openDataset(name);
}

void Group::createExternalLink(const std::string& name, const std::string& file, const std::string& path) {
  const Lock lock;
  if (H5Lcreate_external(file.c_str(), path.c_str(), m_handle->id(), name.c_str(), H5P_DEFAULT, H5P_DEFAULT) < 0) {
    throw Error(ErrorCode::Io, fmt::format("{}: cannot create external link '{}' ({})", where(), name, lastError()));
  }
}

// ---------------------------------------------------------------------------------------------------------------------
// File

bool looksLikeHdf5(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) return false;
  std::error_code error;
  const auto size = fs::file_size(path, error);
  if (error) return false;
  // The superblock may follow a user block of 512, 1024, ... bytes.
  if (startsWithSignature(in, 0)) return true;
  for (std::uintmax_t at = 512; at + 8 <= size; at *= 2) {
    if (startsWithSignature(in, static_cast<std::streamoff>(at))) return true;
  }
  return false;
}

File File::openRead(const fs::path& path, std::string_view what) {
  const std::string shown = path.string();
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0) {
    if (errno == ENOENT || errno == ENOTDIR)
      throw Error(ErrorCode::Io, fmt::format("cannot open '{}': no such file; check the path", shown));
    if (errno == EACCES)
      throw Error(ErrorCode::Io, fmt::format("cannot open '{}': no permission; ask its owner for read access", shown));
    throw Error(ErrorCode::Io, fmt::format("cannot open '{}': {}", shown, std::strerror(errno)));
  }
  if (S_ISDIR(status.st_mode))
    throw Error(ErrorCode::Io, fmt::format("cannot open '{}': it is a folder; give {} inside it", shown, what));
  if (!S_ISREG(status.st_mode))
    throw Error(ErrorCode::Io,
                fmt::format("cannot open '{}': it is a device or pipe; give {} (a regular file)", shown, what));
  {
    std::ifstream probe(path, std::ios::binary);
    if (!probe)
      throw Error(ErrorCode::Io, fmt::format("cannot open '{}': no permission; ask its owner for read access", shown));
  }
  if (status.st_size == 0)
    throw Error(ErrorCode::Format, fmt::format("'{}' is empty (0 bytes); write or copy it again", shown));
  if (!looksLikeHdf5(path)) {
    throw Error(ErrorCode::Format,
                fmt::format("'{}' is not an HDF5 file ({} bytes without the HDF5 signature); expected {}", shown,
                            static_cast<std::int64_t>(status.st_size), what));
  }
  const Lock lock;
  const Handle access(H5Pcreate(H5P_FILE_ACCESS));
  // Locks fail on some network drives, and reading needs none.
  H5Pset_file_locking(access.id(), false, true);
  H5Pset_fapl_sec2(access.id());  // whatever the environment says: its handle is a descriptor
  auto state = std::make_shared<detail::FileState>();
  state->path = path;
  state->shown = shown;
  state->id = Handle(H5Fopen(path.c_str(), H5F_ACC_RDONLY, access.id()));
  if (!state->id.ok()) {
    const std::string why = lastError();
    if (why.find("truncated") != std::string::npos) {
      throw Error(ErrorCode::Format,
                  fmt::format("'{}' is truncated: {} bytes are there, its header promises more; copy or write it again",
                              shown, static_cast<std::int64_t>(status.st_size)));
    }
    if (why.find("version") != std::string::npos) {
      throw Error(ErrorCode::Unsupported,
                  fmt::format("'{}' uses a newer HDF5 file format ({}); rewrite it with 'h5repack -l v110' or "
                              "h5py's libver=('earliest','v110')",
                              shown, why));
    }
    throw Error(
        ErrorCode::Format,
        fmt::format("cannot open '{}': {}; the file is damaged or truncated, copy or write it again", shown, why));
  }
  void* descriptor = nullptr;
  if (H5Fget_vfd_handle(state->id.id(), access.id(), &descriptor) >= 0 && descriptor != nullptr) {
    state->descriptor = *static_cast<const int*>(descriptor);
  }
  const Handle creation(H5Fget_create_plist(state->id.id()));
  hsize_t userBlock = 1;
  state->plainAddresses = H5Pget_userblock(creation.id(), &userBlock) >= 0 && userBlock == 0;
  Handle root(H5Gopen2(state->id.id(), "/", H5P_DEFAULT));
  if (!root.ok())
    throw Error(ErrorCode::Format,
                fmt::format("'{}' has no readable root group ({}); copy it again", shown, lastError()));
  return File(std::move(state), std::move(root), "/");
}

File File::create(const fs::path& path) {
  const Lock lock;
  const Handle access(H5Pcreate(H5P_FILE_ACCESS));
  H5Pset_libver_bounds(access.id(), H5F_LIBVER_EARLIEST, H5F_LIBVER_V110);
  H5Pset_file_locking(access.id(), false, true);
  auto state = std::make_shared<detail::FileState>();
  state->path = path;
  state->shown = path.string();
  state->writable = true;
  state->id = Handle(H5Fcreate(path.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, access.id()));
  if (!state->id.ok())
    throw Error(ErrorCode::Io,
                fmt::format("cannot create '{}': {}; choose another folder", path.string(), lastError()));
  Handle root(H5Gopen2(state->id.id(), "/", H5P_DEFAULT));
  return File(std::move(state), std::move(root), "/");
}

void File::flush() {
  const Lock lock;
  if (H5Fflush(m_file->id.id(), H5F_SCOPE_LOCAL) < 0) {
    throw Error(ErrorCode::Io,
                fmt::format("cannot write '{}': {}; check the free space of the disk", m_file->shown, lastError()));
  }
}

void File::close() {
  const Lock lock;
  flush();
  m_handle.reset();
  m_file->id.reset();
}

Index File::sizeBytes() const {
  struct stat status {};
  return ::stat(m_file->path.c_str(), &status) == 0 ? static_cast<Index>(status.st_size) : 0;
}

}  // namespace sparsight::h5
