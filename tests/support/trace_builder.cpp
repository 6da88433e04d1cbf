// SPDX-License-Identifier: Apache-2.0
#include "tests/support/trace_builder.h"

#include <hdf5.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <numeric>
#include <stdexcept>
#include <utility>

// Written against plain HDF5 on purpose: the reader under test must not be fed by its own library.

namespace sparsight::testing_support {
namespace {

constexpr hid_t kDefault = 0;  // H5P_DEFAULT and H5S_ALL without their C casts

void require(bool ok, const std::string& what) {
  if (!ok) throw std::runtime_error("trace builder: " + what);
}

// Failures are exceptions here; HDF5 need not print them as well.
void quiet() { H5Eset_auto2(kDefault, nullptr, nullptr); }

/// Closes any HDF5 id.
class Id {
 public:
  explicit Id(hid_t id, const char* what = "HDF5 call") : m_id(id) { require(id >= 0, what); }
  ~Id() { H5Idec_ref(m_id); }
  Id(const Id&) = delete;
  Id& operator=(const Id&) = delete;
  operator hid_t() const { return m_id; }  // NOLINT: reads like the C API

 private:
  hid_t m_id;
};

hid_t halfType() {
  const hid_t type = H5Tcopy(H5T_IEEE_F32LE);
  H5Tset_fields(type, 15, 10, 5, 0, 10);
  H5Tset_precision(type, 16);
  H5Tset_ebias(type, 15);
  H5Tset_size(type, 2);
  return type;
}
hid_t bfloatType() {
  const hid_t type = H5Tcopy(H5T_IEEE_F32LE);
  H5Tset_fields(type, 15, 7, 8, 0, 7);
  H5Tset_precision(type, 16);
  H5Tset_ebias(type, 127);
  H5Tset_size(type, 2);
  return type;
}
hid_t typeOf(Stored stored) {
  switch (stored) {
    case Stored::Float16:
      return halfType();
    case Stored::Bfloat16Uint16:
    case Stored::Uint16Plain:
      return H5Tcopy(H5T_STD_U16LE);
    case Stored::Bfloat16Float:
      return bfloatType();
    case Stored::Float32:
      return H5Tcopy(H5T_IEEE_F32LE);
    case Stored::Float16BigEndian: {
      const hid_t type = halfType();
      H5Tset_order(type, H5T_ORDER_BE);
      return type;
    }
    case Stored::Float32BigEndian:
      return H5Tcopy(H5T_IEEE_F32BE);
    case Stored::Float64:
      return H5Tcopy(H5T_IEEE_F64LE);
    case Stored::Opaque2:
      return H5Tcreate(H5T_OPAQUE, 2);
  }
  return -1;
}
std::string statedDtype(Stored stored) {
  switch (stored) {
    case Stored::Float16:
    case Stored::Float16BigEndian:
      return "float16";
    case Stored::Bfloat16Uint16:
    case Stored::Bfloat16Float:
      return "bfloat16";
    case Stored::Float32:
    case Stored::Float32BigEndian:
      return "float32";
    case Stored::Float64:
      return "float64";
    case Stored::Opaque2:
    case Stored::Uint16Plain:
      break;
  }
  return "";
}

std::vector<hsize_t> extents(const std::vector<Index>& shape) { return {shape.begin(), shape.end()}; }

hid_t spaceOf(const std::vector<Index>& shape) {
  const auto dims = extents(shape);
  return shape.empty() ? H5Screate(H5S_SCALAR) : H5Screate_simple(static_cast<int>(dims.size()), dims.data(), nullptr);
}

hid_t parentsMade() {
  const hid_t list = H5Pcreate(H5P_LINK_CREATE);
  H5Pset_create_intermediate_group(list, 1);
  return list;
}

void writeAttribute(hid_t file, const std::string& object, const std::string& name, hid_t type, hid_t memory,
                    hid_t space, const void* data) {
  const Id target(H5Oopen(file, object.c_str(), kDefault), object.c_str());
  if (H5Aexists(target, name.c_str()) > 0) H5Adelete(target, name.c_str());
  const Id attribute(H5Acreate2(target, name.c_str(), type, space, kDefault, kDefault), name.c_str());
  if (H5Sget_simple_extent_npoints(space) > 0) require(H5Awrite(attribute, memory, data) >= 0, name);
}

void writeDataset(hid_t file, const std::string& object, hid_t type, hid_t memory, const std::vector<Index>& shape,
                  const void* data, hid_t properties = kDefault) {
  if (H5Lexists(file, object.c_str(), kDefault) > 0) H5Ldelete(file, object.c_str(), kDefault);
  const Id space(spaceOf(shape));
  const Id links(parentsMade());
  const Id dataset(H5Dcreate2(file, object.c_str(), type, space, links, properties, kDefault), object.c_str());
  if (data != nullptr) require(H5Dwrite(dataset, memory, kDefault, kDefault, kDefault, data) >= 0, object);
}

// bfloat16 by truncation; built values are exact in it.
std::uint16_t bfloatBits(float value) { return static_cast<std::uint16_t>(std::bit_cast<std::uint32_t>(value) >> 16U); }

void writeTensor(hid_t file, const std::string& object, char tensor, Index heads, Index tokens, Index channels,
                 const TraceSpec& spec, const std::vector<Index>& rows) {
  const Index count = rows.empty() ? tokens : static_cast<Index>(rows.size());
  std::vector<float> values;
  for (Index h = 0; h < heads; ++h) {
    for (Index r = 0; r < count; ++r) {
      for (Index c = 0; c < channels; ++c)
        values.push_back(builtValue(tensor, h, rows.empty() ? r : rows[static_cast<std::size_t>(r)], c));
    }
  }
  const std::vector<Index> shape{heads, count, channels};
  const Id properties(H5Pcreate(H5P_DATASET_CREATE));
  if (!spec.chunk.empty()) {
    auto chunk = extents(spec.chunk);
    for (std::size_t i = 0; i < chunk.size(); ++i) chunk[i] = std::min(chunk[i], static_cast<hsize_t>(shape[i]));
    H5Pset_chunk(properties, 3, chunk.data());
    if (spec.shuffle) H5Pset_shuffle(properties);
    if (spec.deflate > 0) H5Pset_deflate(properties, static_cast<unsigned>(spec.deflate));
  }
  const Id type(typeOf(spec.stored));
  const bool bits =
      spec.stored == Stored::Bfloat16Uint16 || spec.stored == Stored::Uint16Plain || spec.stored == Stored::Opaque2;
  if (bits) {
    std::vector<std::uint16_t> raw(values.size());
    std::transform(values.begin(), values.end(), raw.begin(), bfloatBits);
    writeDataset(file, object, type, type, shape, raw.data(), properties);
  } else {
    writeDataset(file, object, type, H5T_NATIVE_FLOAT, shape, values.data(),
                 properties);  // HDF5 converts: slow and independent
  }
}

}  // namespace

TemporaryFolder::TemporaryFolder() {
  static std::atomic<unsigned> counter{0};
  m_path = std::filesystem::temp_directory_path() /
           ("sparsight-test-" + std::to_string(::getpid()) + "-" + std::to_string(counter++));
  std::filesystem::create_directories(m_path);
}
TemporaryFolder::~TemporaryFolder() {
  std::error_code ignored;
  std::filesystem::remove_all(m_path, ignored);
}

float builtValue(char tensor, Index head, Index token, Index channel) {
  // Multiples of 1/32 below 4: at most 7 significant bits, exact in bfloat16.
  const Index seed = (tensor == 'q'   ? 1
                      : tensor == 'k' ? 5
                                      : 11) +
                     head * 7 + token * 3 + channel * 13 + token * channel;
  return static_cast<float>(seed % 127 - 63) / 32.0F;
}

std::string firstCall(const TraceSpec& spec) {
  char name[64];
  std::snprintf(name, sizeof name, "/data/step_%04d", spec.steps.front());
  std::string path = std::string(name) + "/" + spec.branches.front();
  std::snprintf(name, sizeof name, "/layer_%03d/", spec.layers.front());
  return path + name + spec.kind;
}

void buildTrace(const std::filesystem::path& path, const TraceSpec& spec) {
  Hdf5Editor edit = Hdf5Editor::create(path);
  edit.setString("/", "format", "sparsight-trace");
  edit.setInts("/", "format_version", {1, 1});
  edit.setString("/", "writer", "builder");
  edit.setString("/", "uuid", "test");
  edit.setInt("/", "complete", 1, 8);
  edit.group("/model");
  edit.setString("/model", "family", "wan2.1");
  edit.setString("/model", "class_name", "Test");
  edit.setInt("/model", "num_layers", 30, 32);
  edit.setInt("/model", "num_heads", std::max(spec.heads, 2), 32);
  edit.setInt("/model", "num_kv_heads", spec.kvHeads, 32);
  edit.setInt("/model", "head_dim", spec.headDim, 32);
  edit.setString("/model", "attention", "self");
  edit.group("/run");
  edit.setInt("/run", "num_inference_steps", spec.scheduleLength, 32);
  std::vector<float> timesteps;
  for (int i = 0; i < spec.scheduleLength; ++i)
    timesteps.push_back(1000.0F - 1000.0F * static_cast<float>(i) / static_cast<float>(spec.scheduleLength));
  edit.dataset("/run/timesteps", {spec.scheduleLength}, timesteps);
  const Index video = Index{spec.frames} * spec.height * spec.width;
  const Index videoStart = spec.textFirst ? spec.text : 0;
  const Index textStart = spec.textFirst ? 0 : video;
  edit.group("/tokens");
  edit.setInt("/tokens", "n_tokens", spec.tokens());
  edit.setInts("/tokens", "grid", {spec.frames, spec.height, spec.width});
  edit.setInt("/tokens", "video_start", videoStart);
  edit.setInt("/tokens", "video_len", video);
  edit.setInt("/tokens", "text_start", textStart);
  edit.setInt("/tokens", "text_len", spec.text);
  edit.setString("/tokens", "order", "thw");
  if (spec.segments) {
    std::vector<std::uint8_t> kind{0};
    std::vector<std::int64_t> start{videoStart}, length{video};
    std::vector<std::int32_t> grid{spec.frames, spec.height, spec.width};
    if (spec.text > 0) {
      kind.push_back(1);
      start.push_back(textStart);
      length.push_back(spec.text);
      grid.insert(grid.end(), {0, 0, 0});
    }
    const auto n = static_cast<Index>(kind.size());
    edit.datasetBytes("/tokens/segments/kind", {n}, kind);
    edit.datasetInt64("/tokens/segments/start", {n}, start);
    edit.datasetInt64("/tokens/segments/length", {n}, length);
    edit.datasetInt32("/tokens/segments/grid", {n, 3}, grid);
  }
  std::vector<std::int64_t> heads(static_cast<std::size_t>(spec.heads));
  std::iota(heads.begin(), heads.end(), 0);
  edit.group("/capture");
  edit.setString("/capture", "stage", "post_rope");
  edit.setString("/capture", "k_mode", "all");
  edit.setString("/capture", "q_mode", spec.qRows.empty() ? "all" : "list");
  edit.setInts("/capture", "steps", {spec.steps.begin(), spec.steps.end()});
  edit.setInts("/capture", "layers", {spec.layers.begin(), spec.layers.end()});
  edit.setInts("/capture", "heads", heads);
  edit.setFixedStrings("/capture", "branches", spec.branches, 8, Hdf5Editor::Padding::NullPadded);
  edit.setFixedStrings("/capture", "kinds", {spec.kind}, 8, Hdf5Editor::Padding::NullPadded);
  if (!spec.qRows.empty()) edit.datasetInt64("/capture/q_rows", {static_cast<Index>(spec.qRows.size())}, spec.qRows);
  edit.group("/data");
  for (const int step : spec.steps) {
    for (const std::string& branch : spec.branches) {
      for (const int layer : spec.layers) {
        TraceSpec one = spec;
        one.steps = {step};
        one.branches = {branch};
        one.layers = {layer};
        const std::string call = firstCall(one);
        edit.group(call);
        edit.setInt(call, "step", step, 32);
        edit.setReal(call, "timestep", static_cast<double>(timesteps[static_cast<std::size_t>(step)]));
        edit.setReal(call, "sigma", 0.5);
        edit.setString(call, "branch", branch);
        edit.setInt(call, "layer", layer, 32);
        edit.setString(call, "module", "blocks." + std::to_string(layer) + ".attn1");
        edit.setString(call, "component", "transformer");
        edit.setString(call, "kind", spec.kind);
        edit.setInt(call, "call", 0, 32);
        edit.setReal(call, "scale", 1.0 / std::sqrt(static_cast<double>(spec.headDim)));
        edit.setInts(call, "heads", heads);
        edit.setString(call, "mask", spec.keyValid.empty() ? "none" : "key_valid");
        edit.setInt(call, "n_q", spec.qRows.empty() ? spec.tokens() : static_cast<Index>(spec.qRows.size()));
        edit.setInt(call, "n_k", spec.tokens());
        if (!spec.keyValid.empty()) edit.datasetBytes(call + "/key_valid", {spec.tokens()}, spec.keyValid);
        const auto file = H5Fopen(path.c_str(), H5F_ACC_RDWR, kDefault);  // shares the editor's open file
        {
          const Id opened(file, "reopen");
          writeTensor(opened, call + "/q", 'q', spec.heads, spec.tokens(), spec.headDim, spec, spec.qRows);
          writeTensor(opened, call + "/k", 'k', spec.kvHeads, spec.tokens(), spec.headDim, spec, {});
          if (spec.valueDim > 0)
            writeTensor(opened, call + "/v", 'v', spec.kvHeads, spec.tokens(), spec.valueDim, spec, {});
        }
        for (const char* tensor : {"/q", "/k", "/v"}) {
          if (std::string(tensor) == "/v" && spec.valueDim == 0) continue;
          edit.setString(call + tensor, "dims", "head,token,channel");
          const std::string dtype = statedDtype(spec.stored);
          if (!dtype.empty()) edit.setString(call + tensor, "dtype", dtype);
        }
      }
    }
  }
}

Hdf5Editor::Hdf5Editor(const std::filesystem::path& path) : m_file(H5Fopen(path.c_str(), H5F_ACC_RDWR, kDefault)) {
  quiet();
  require(m_file >= 0, "cannot open " + path.string());
}
Hdf5Editor Hdf5Editor::create(const std::filesystem::path& path) {
  quiet();
  Hdf5Editor editor;
  const Id access(H5Pcreate(H5P_FILE_ACCESS));
  H5Pset_libver_bounds(access, H5F_LIBVER_EARLIEST, H5F_LIBVER_V110);
  editor.m_file = H5Fcreate(path.c_str(), H5F_ACC_TRUNC, kDefault, access);
  require(editor.m_file >= 0, "cannot create " + path.string());
  return editor;
}
Hdf5Editor::~Hdf5Editor() {
  if (m_file >= 0) H5Fclose(m_file);
}
Hdf5Editor::Hdf5Editor(Hdf5Editor&& other) noexcept : m_file(std::exchange(other.m_file, -1)) {}

void Hdf5Editor::remove(const std::string& object) {
  require(H5Ldelete(m_file, object.c_str(), kDefault) >= 0, "remove " + object);
}
void Hdf5Editor::removeAttribute(const std::string& object, const std::string& name) {
  require(H5Adelete_by_name(m_file, object.c_str(), name.c_str(), kDefault) >= 0, "remove attribute " + name);
}
void Hdf5Editor::setInt(const std::string& object, const std::string& name, std::int64_t value, int bits) {
  const Id space(spaceOf({}));
  const hid_t type = bits == 8 ? H5T_STD_U8LE : bits == 16 ? H5T_STD_I16BE : bits == 32 ? H5T_STD_I32LE : H5T_STD_I64LE;
  writeAttribute(m_file, object, name, type, H5T_NATIVE_INT64, space, &value);
}
void Hdf5Editor::setInts(const std::string& object, const std::string& name, const std::vector<std::int64_t>& values) {
  const Id space(spaceOf({static_cast<Index>(values.size())}));
  writeAttribute(m_file, object, name, H5T_STD_I32LE, H5T_NATIVE_INT64, space, values.data());
}
void Hdf5Editor::setReal(const std::string& object, const std::string& name, double value, int bits) {
  const Id space(spaceOf({}));
  writeAttribute(m_file, object, name, bits == 32 ? H5T_IEEE_F32LE : H5T_IEEE_F64LE, H5T_NATIVE_DOUBLE, space, &value);
}
void Hdf5Editor::setString(const std::string& object, const std::string& name, const std::string& value) {
  const Id type(H5Tcopy(H5T_C_S1));
  H5Tset_size(type, static_cast<std::size_t>(-1));
  H5Tset_cset(type, H5T_CSET_UTF8);
  const Id space(spaceOf({}));
  const char* pointer = value.c_str();
  writeAttribute(m_file, object, name, type, type, space, &pointer);
}
void Hdf5Editor::setFixedStrings(const std::string& object, const std::string& name,
                                 const std::vector<std::string>& values, std::size_t size, Padding padding) {
  const Id type(H5Tcopy(H5T_C_S1));
  H5Tset_size(type, size);
  H5Tset_strpad(type, padding == Padding::NullTerminated ? H5T_STR_NULLTERM
                      : padding == Padding::NullPadded   ? H5T_STR_NULLPAD
                                                         : H5T_STR_SPACEPAD);
  std::vector<char> bytes(size * values.size(), padding == Padding::Space ? ' ' : '\0');
  for (std::size_t i = 0; i < values.size(); ++i)
    std::memcpy(bytes.data() + i * size, values[i].data(), std::min(size, values[i].size()));
  const Id space(spaceOf({static_cast<Index>(values.size())}));
  writeAttribute(m_file, object, name, type, type, space, bytes.data());
}
void Hdf5Editor::setBool(const std::string& object, const std::string& name, bool value) {
  const Id type(H5Tenum_create(H5T_STD_I8LE));
  const std::int8_t no = 0, yes = 1;
  H5Tenum_insert(type, "FALSE", &no);
  H5Tenum_insert(type, "TRUE", &yes);
  const Id space(spaceOf({}));
  const std::int8_t stored = value ? yes : no;
  writeAttribute(m_file, object, name, type, type, space, &stored);
}
void Hdf5Editor::setCompound(const std::string& object, const std::string& name) {
  const Id type(H5Tcreate(H5T_COMPOUND, 4));
  H5Tinsert(type, "x", 0, H5T_STD_I32LE);
  const Id space(spaceOf({}));
  const std::int32_t value = 1;
  writeAttribute(m_file, object, name, type, type, space, &value);
}

void Hdf5Editor::group(const std::string& object) {
  if (H5Lexists(m_file, object.c_str(), kDefault) > 0) return;
  const Id links(parentsMade());
  const Id created(H5Gcreate2(m_file, object.c_str(), links, kDefault, kDefault), object.c_str());
}
void Hdf5Editor::dataset(const std::string& object, const std::vector<Index>& shape, const std::vector<float>& values) {
  writeDataset(m_file, object, H5T_IEEE_F32LE, H5T_NATIVE_FLOAT, shape, values.data());
}
void Hdf5Editor::datasetInt64(const std::string& object, const std::vector<Index>& shape,
                              const std::vector<std::int64_t>& values) {
  writeDataset(m_file, object, H5T_STD_I64LE, H5T_NATIVE_INT64, shape, values.data());
}
void Hdf5Editor::datasetInt32(const std::string& object, const std::vector<Index>& shape,
                              const std::vector<std::int32_t>& values) {
  writeDataset(m_file, object, H5T_STD_I32LE, H5T_NATIVE_INT32, shape, values.data());
}
void Hdf5Editor::datasetBytes(const std::string& object, const std::vector<Index>& shape,
                              const std::vector<std::uint8_t>& values) {
  writeDataset(m_file, object, H5T_STD_U8LE, H5T_NATIVE_UINT8, shape, values.data());
}
void Hdf5Editor::datasetStrings(const std::string& object, const std::vector<std::string>& values) {
  const Id type(H5Tcopy(H5T_C_S1));
  H5Tset_size(type, static_cast<std::size_t>(-1));
  std::vector<const char*> pointers;
  for (const auto& v : values) pointers.push_back(v.c_str());
  writeDataset(m_file, object, type, type, {static_cast<Index>(values.size())},
               values.empty() ? nullptr : static_cast<const void*>(pointers.data()));
}
void Hdf5Editor::unallocated(const std::string& object, const std::vector<Index>& shape,
                             const std::vector<Index>& chunk) {
  const Id properties(H5Pcreate(H5P_DATASET_CREATE));
  const auto dims = extents(chunk);
  H5Pset_chunk(properties, static_cast<int>(dims.size()), dims.data());
  const Id type(halfType());
  writeDataset(m_file, object, type, type, shape, nullptr, properties);
}
void Hdf5Editor::partlyAllocated(const std::string& object, const std::vector<Index>& shape,
                                 const std::vector<Index>& chunk, Index head) {
  const Id properties(H5Pcreate(H5P_DATASET_CREATE));
  const auto dims = extents(chunk);
  H5Pset_chunk(properties, static_cast<int>(dims.size()), dims.data());
  writeDataset(m_file, object, H5T_IEEE_F32LE, H5T_NATIVE_FLOAT, shape, nullptr, properties);
  const Id dataset(H5Dopen2(m_file, object.c_str(), kDefault));
  const Id space(H5Dget_space(dataset));
  std::vector<hsize_t> start(shape.size(), 0), count = extents(shape);
  start[0] = static_cast<hsize_t>(head);
  count[0] = 1;
  H5Sselect_hyperslab(space, H5S_SELECT_SET, start.data(), nullptr, count.data(), nullptr);
  const Id memory(H5Screate_simple(static_cast<int>(count.size()), count.data(), nullptr));
  std::size_t total = 1;
  for (const hsize_t c : count) total *= c;
  const std::vector<float> ones(total, 1.0F);
  require(H5Dwrite(dataset, H5T_NATIVE_FLOAT, memory, space, kDefault, ones.data()) >= 0, object);
}
void Hdf5Editor::withUnknownFilter(const std::string& object, const std::vector<Index>& shape, int filterId) {
  const Id properties(H5Pcreate(H5P_DATASET_CREATE));
  const auto dims = extents(shape);
  H5Pset_chunk(properties, static_cast<int>(dims.size()), dims.data());
  // Deferring the check lets the file name a filter that this library does not have.
  require(H5Pset_filter(properties, filterId, H5Z_FLAG_OPTIONAL, 0, nullptr) >= 0, "unknown filter");
  std::size_t total = 1;
  for (const hsize_t d : dims) total *= d;
  const std::vector<float> ones(total, 1.0F);
  writeDataset(m_file, object, H5T_IEEE_F32LE, H5T_NATIVE_FLOAT, shape, ones.data(), properties);
}
void Hdf5Editor::externalStorage(const std::string& object, const std::vector<Index>& shape,
                                 const std::string& rawFile) {
  const Id properties(H5Pcreate(H5P_DATASET_CREATE));
  std::size_t total = 4;
  for (const Index d : shape) total *= static_cast<std::size_t>(d);
  H5Pset_external(properties, rawFile.c_str(), 0, total);
  writeDataset(m_file, object, H5T_IEEE_F32LE, H5T_NATIVE_FLOAT, shape, nullptr, properties);
}
void Hdf5Editor::virtualDataset(const std::string& object, const std::vector<Index>& shape,
                                const std::string& sourceFile, const std::string& sourceObject) {
  const Id properties(H5Pcreate(H5P_DATASET_CREATE));
  const Id space(spaceOf(shape));
  require(H5Pset_virtual(properties, space, sourceFile.c_str(), sourceObject.c_str(), space) >= 0, "virtual");
  writeDataset(m_file, object, H5T_IEEE_F32LE, H5T_NATIVE_FLOAT, shape, nullptr, properties);
}
void Hdf5Editor::overwrite(const std::string& object, Index flatIndex, float value) {
  const Id dataset(H5Dopen2(m_file, object.c_str(), kDefault), object.c_str());
  const Id space(H5Dget_space(dataset));
  std::vector<float> values(static_cast<std::size_t>(H5Sget_simple_extent_npoints(space)));
  require(H5Dread(dataset, H5T_NATIVE_FLOAT, kDefault, kDefault, kDefault, values.data()) >= 0, object);
  values.at(static_cast<std::size_t>(flatIndex)) = value;
  require(H5Dwrite(dataset, H5T_NATIVE_FLOAT, kDefault, kDefault, kDefault, values.data()) >= 0, object);
}
void Hdf5Editor::externalLink(const std::string& object, const std::string& file, const std::string& target) {
  if (H5Lexists(m_file, object.c_str(), kDefault) > 0) H5Ldelete(m_file, object.c_str(), kDefault);
  require(H5Lcreate_external(file.c_str(), target.c_str(), m_file, object.c_str(), kDefault, kDefault) >= 0, object);
}
void Hdf5Editor::softLink(const std::string& object, const std::string& target) {
  if (H5Lexists(m_file, object.c_str(), kDefault) > 0) H5Ldelete(m_file, object.c_str(), kDefault);
  require(H5Lcreate_soft(target.c_str(), m_file, object.c_str(), kDefault, kDefault) >= 0, object);
}
void Hdf5Editor::copy(const std::string& from, const std::string& to) {
  const Id links(parentsMade());
  require(H5Ocopy(m_file, from.c_str(), m_file, to.c_str(), kDefault, links) >= 0, "copy " + from);
}

}  // namespace sparsight::testing_support
