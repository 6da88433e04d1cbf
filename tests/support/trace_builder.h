// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "sparsight/kernels/types.h"

namespace sparsight::testing_support {

/// A folder of its own under the system's temporary directory, removed with all its content.
class TemporaryFolder {
 public:
  TemporaryFolder();
  ~TemporaryFolder();
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  [[nodiscard]] const std::filesystem::path& path() const noexcept { return m_path; }
  [[nodiscard]] std::filesystem::path operator/(const std::string& name) const { return m_path / name; }

 private:
  std::filesystem::path m_path;
};

/// Element types as foreign writers produce them.
enum class Stored : std::uint8_t {
  Float16,         ///< custom HDF5 float, as h5py writes '<f2'
  Bfloat16Uint16,  ///< uint16 + attribute dtype
  Bfloat16Float,   ///< custom HDF5 float of HDF5 2.0
  Float32,
  Float16BigEndian,
  Float32BigEndian,
  Float64,      ///< not legal for tensors
  Opaque2,      ///< what ml_dtypes arrays become
  Uint16Plain,  ///< uint16 without the attribute
};

/// A small valid trace. Values are a fixed smooth function of (tensor, head, token, channel), see builtValue.
struct TraceSpec {
  std::vector<int> steps{5};
  std::vector<std::string> branches{"cond"};
  std::vector<int> layers{0};
  std::string kind = "self";
  int heads = 2, kvHeads = 2, headDim = 8, valueDim = 8;
  int frames = 2, height = 3, width = 4, text = 4;
  bool textFirst = false;
  bool segments = true;
  Stored stored = Stored::Float32;
  std::vector<Index> chunk;  ///< empty: contiguous
  int deflate = 0;
  bool shuffle = false;
  std::vector<std::uint8_t> keyValid;
  std::vector<Index> qRows;  ///< global q_rows with q_mode "list"
  int scheduleLength = 20;
  [[nodiscard]] Index tokens() const { return Index{frames} * height * width + text; }
};
void buildTrace(const std::filesystem::path& path, const TraceSpec& spec = {});
/// Exactly representable in every stored type. tensor: 'q', 'k' or 'v'.
[[nodiscard]] float builtValue(char tensor, Index head, Index token, Index channel);
/// "/data/step_0005/cond/layer_000/self" of the first call.
[[nodiscard]] std::string firstCall(const TraceSpec& spec = {});

/// Changes a written file, to break one rule at a time or to imitate foreign writers. Parents of new objects are made.
class Hdf5Editor {
 public:
  explicit Hdf5Editor(const std::filesystem::path& path);
  /// A new, empty file.
  static Hdf5Editor create(const std::filesystem::path& path);
  ~Hdf5Editor();
  Hdf5Editor(Hdf5Editor&& other) noexcept;
  Hdf5Editor& operator=(Hdf5Editor&&) = delete;
  Hdf5Editor(const Hdf5Editor&) = delete;
  Hdf5Editor& operator=(const Hdf5Editor&) = delete;

  void remove(const std::string& object);
  void removeAttribute(const std::string& object, const std::string& name);
  void setInt(const std::string& object, const std::string& name, std::int64_t value, int bits = 64);
  void setInts(const std::string& object, const std::string& name, const std::vector<std::int64_t>& values);
  void setReal(const std::string& object, const std::string& name, double value, int bits = 64);
  void setString(const std::string& object, const std::string& name, const std::string& value);
  enum class Padding : std::uint8_t { NullTerminated, NullPadded, Space };
  /// Fixed-length string array of `size` bytes each; a value of exactly `size` bytes has no terminator.
  void setFixedStrings(const std::string& object, const std::string& name, const std::vector<std::string>& values,
                       std::size_t size, Padding padding);
  /// As h5py writes bool: an int8 enum FALSE / TRUE.
  void setBool(const std::string& object, const std::string& name, bool value);
  void setCompound(const std::string& object, const std::string& name);

  void group(const std::string& object);
  void dataset(const std::string& object, const std::vector<Index>& shape, const std::vector<float>& values);
  void datasetInt64(const std::string& object, const std::vector<Index>& shape,
                    const std::vector<std::int64_t>& values);
  void datasetInt32(const std::string& object, const std::vector<Index>& shape,
                    const std::vector<std::int32_t>& values);
  void datasetBytes(const std::string& object, const std::vector<Index>& shape,
                    const std::vector<std::uint8_t>& values);
  void datasetStrings(const std::string& object, const std::vector<std::string>& values);
  /// Chunked float16, nothing written.
  void unallocated(const std::string& object, const std::vector<Index>& shape, const std::vector<Index>& chunk);
  /// Chunked float32 with one slab of heads [head, head + 1) written with ones.
  void partlyAllocated(const std::string& object, const std::vector<Index>& shape, const std::vector<Index>& chunk,
                       Index head);
  /// Chunked float32 behind a filter this library does not have (optional, so that writing works).
  void withUnknownFilter(const std::string& object, const std::vector<Index>& shape, int filterId);
  /// float32 with the data in a raw file beside.
  void externalStorage(const std::string& object, const std::vector<Index>& shape, const std::string& rawFile);
  /// Virtual dataset [2, ...] whose halves come from `source`.
  void virtualDataset(const std::string& object, const std::vector<Index>& shape, const std::string& sourceFile,
                      const std::string& sourceObject);
  void overwrite(const std::string& object, Index flatIndex, float value);  ///< of a float32 dataset
  void externalLink(const std::string& object, const std::string& file, const std::string& target);
  void softLink(const std::string& object, const std::string& target);
  void copy(const std::string& from, const std::string& to);

 private:
  Hdf5Editor() = default;
  std::int64_t m_file = -1;
};

}  // namespace sparsight::testing_support
