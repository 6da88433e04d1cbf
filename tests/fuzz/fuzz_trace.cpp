// SPDX-License-Identifier: Apache-2.0
// Traces come from strangers. The fuzzer does not mutate HDF5's own encoding (that would test the HDF5 library, which
// this project does not ship) but what a trace says in it: its bytes choose damage - attributes of other values, types
// and lengths, datasets of other shapes, types, chunks and contents, links - to a small valid trace. The reader must
// answer with a trace or an Error, and every head with data or an Error; and what opens must keep its promises.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <limits>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "sparsight/core/trace.h"
#include "sparsight/kernels/error.h"
#include "tests/support/trace_builder.h"

using namespace sparsight;
using namespace sparsight::testing_support;

namespace {

class Bytes {
 public:
  Bytes(const std::uint8_t* data, std::size_t size) : m_data(data), m_size(size) {}
  [[nodiscard]] bool empty() const { return m_at >= m_size; }
  std::uint8_t byte() { return empty() ? 0 : m_data[m_at++]; }
  std::uint8_t below(std::uint8_t n) { return static_cast<std::uint8_t>(byte() % n); }
  std::int64_t integer() {
    switch (below(6)) {
      case 0:
        return static_cast<std::int8_t>(byte());
      case 1:
        return 0;
      case 2:
        return std::numeric_limits<std::int64_t>::max() - byte();
      case 3:
        return std::numeric_limits<std::int64_t>::min() + byte();
      case 4:
        return std::int64_t{1} << (byte() % 63U);
      default:
        return static_cast<std::int64_t>(byte()) * 256 + byte();
    }
  }
  double real() {
    switch (below(5)) {
      case 0:
        return std::numeric_limits<double>::quiet_NaN();
      case 1:
        return std::numeric_limits<double>::infinity();
      case 2:
        return -1.0 * byte();
      case 3:
        return 1e-300 * byte();
      default:
        return byte() / 16.0;
    }
  }
  std::string text() {
    const char* const words[] = {"",         "none",    "dense", "key_valid", "self",           "cross",
                                 "bfloat16", "float16", "list",  "hwt",       "sparsight-trace"};
    if (below(4) != 0) return words[below(11)];
    std::string s;
    for (auto n = below(20); n > 0; --n) s += static_cast<char>(byte() | 1U);
    return s;
  }
  std::vector<std::int64_t> integers() {
    std::vector<std::int64_t> values;
    for (auto n = below(6); n > 0; --n) values.push_back(integer());
    return values;
  }

 private:
  const std::uint8_t* m_data;
  std::size_t m_size;
  std::size_t m_at = 0;
};

const std::string kCall = "/data/step_0005/cond/layer_000/self";

void damage(Hdf5Editor& edit, Bytes& bytes) {
  const char* const objects[] = {"/", "/model", "/run", "/tokens", "/capture", "", "/q", "/k", "/v"};
  const char* const attributes[] = {"format",       "format_version",
                                    "complete",     "required_features",
                                    "num_layers",   "num_heads",
                                    "num_kv_heads", "head_dim",
                                    "n_tokens",     "grid",
                                    "video_start",  "video_len",
                                    "text_start",   "text_len",
                                    "order",        "stage",
                                    "k_mode",       "q_mode",
                                    "steps",        "layers",
                                    "heads",        "branches",
                                    "kinds",        "step",
                                    "timestep",     "branch",
                                    "layer",        "kind",
                                    "call",         "scale",
                                    "mask",         "n_q",
                                    "n_k",          "absmax",
                                    "dims",         "dtype",
                                    "component",    "fps"};
  const char* const datasets[] = {"/tokens/segments/kind",
                                  "/tokens/segments/start",
                                  "/tokens/segments/length",
                                  "/tokens/segments/grid",
                                  "/tokens/perm",
                                  "/capture/q_rows",
                                  "/run/timesteps",
                                  "/frames/rgb",
                                  "/ext/synth/truth",
                                  "q",
                                  "k",
                                  "v",
                                  "lse",
                                  "out",
                                  "mask",
                                  "key_valid",
                                  "q_rows"};
  const auto object = [&] {
    const std::string name = objects[bytes.below(9)];
    return name.empty() || name.size() == 2 ? kCall + name : name;
  };
  const auto dataset = [&] {
    const std::string name = datasets[bytes.below(17)];
    return name.front() == '/' ? name : kCall + "/" + name;
  };
  const auto shape = [&] {
    std::vector<Index> s;
    for (auto n = bytes.below(5); n > 0; --n) {
      const Index sizes[] = {0, 1, 2, 3, 4, 8, 24, 28};
      s.push_back(sizes[bytes.below(8)]);
    }
    return s;
  };
  const auto count = [](const std::vector<Index>& s) {
    std::size_t n = 1;
    for (const Index d : s) n *= static_cast<std::size_t>(d);
    return n;
  };
  switch (bytes.below(14)) {
    case 0:
      edit.setInt(object(), attributes[bytes.below(38)], bytes.integer(), bytes.below(2) != 0 ? 64 : 32);
      break;
    case 1:
      edit.setInts(object(), attributes[bytes.below(38)], bytes.integers());
      break;
    case 2:
      edit.setReal(object(), attributes[bytes.below(38)], bytes.real());
      break;
    case 3:
      edit.setString(object(), attributes[bytes.below(38)], bytes.text());
      break;
    case 4:
      edit.setFixedStrings(object(), attributes[bytes.below(38)], {bytes.text(), bytes.text()}, 1U + bytes.below(12),
                           Hdf5Editor::Padding::NullPadded);
      break;
    case 5:
      edit.setCompound(object(), attributes[bytes.below(38)]);
      break;
    case 6:
      edit.removeAttribute(object(), attributes[bytes.below(38)]);
      break;
    case 7:
      edit.remove(dataset());
      break;
    case 8: {
      const auto s = shape();
      std::vector<std::int64_t> values(count(s));
      for (auto& v : values) v = bytes.empty() ? 1 : bytes.integer();
      edit.datasetInt64(dataset(), s, values);
      break;
    }
    case 9: {
      const auto s = shape();
      std::vector<float> values(count(s), 0.5F);
      if (!values.empty()) values[bytes.byte() % values.size()] = static_cast<float>(bytes.real());
      edit.dataset(dataset(), s, values);
      break;
    }
    case 10: {
      const auto s = shape();
      edit.datasetBytes(dataset(), s, std::vector<std::uint8_t>(count(s), bytes.byte()));
      break;
    }
    case 11: {
      std::vector<Index> s{1 + bytes.below(4), bytes.integer() & ((Index{1} << 40) - 1), 1 + bytes.below(16)};
      if (s[1] == 0) s[1] = 28;
      edit.unallocated(dataset(), s, {1, std::min<Index>(s[1], 64), s[2]});
      break;
    }
    case 12:
      edit.externalLink("/data/step_000" + std::to_string(bytes.below(8)), bytes.text(), "/data/step_0005");
      break;
    default:
      edit.copy(kCall, kCall + "." + std::to_string(bytes.below(3)));
      break;
  }
}

void require(bool condition) {
  if (!condition) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const TemporaryFolder folder;
  static const auto valid = [] {
    TraceSpec spec;
    spec.keyValid.assign(28, 1);
    buildTrace(folder / "valid.h5", spec);
    return folder / "valid.h5";
  }();
  const auto path = folder / "fuzz.h5";
  std::filesystem::copy_file(valid, path, std::filesystem::copy_options::overwrite_existing);
  Bytes bytes(data, size);
  {
    Hdf5Editor edit(path);
    for (int n = 0; n < 8 && !bytes.empty(); ++n) {
      try {
        damage(edit, bytes);
      } catch (const std::runtime_error&) {  // the file no longer has that object
      }
    }
  }
  TraceOptions options;
  options.memoryLimitBytes = Index{64} << 20;
  try {
    const auto trace = openTrace(path, options);
    for (const CallInfo& call : trace->info().calls) {
      require(!call.heads.empty() || !call.available);
      for (const int head : call.heads) {
        try {
          const auto outline = trace->outline({call.id, head});
          const HeadData loaded = trace->load({call.id, head});
          require(!outline ||
                  (outline->queries == matrixHash(loaded.input.q) && outline->keys == matrixHash(loaded.input.k)));
          require(loaded.input.q.rows == call.nQ && loaded.input.k.rows == call.nK &&
                  loaded.input.q.cols == loaded.input.k.cols);
          require(loaded.qRows.empty() || static_cast<Index>(loaded.qRows.size()) == call.nQ);
          for (const Index row : loaded.validRows())
            require(loaded.queryToken(row) >= 0 &&
                    (call.id.kind != "self" || loaded.queryToken(row) < loaded.layout.tokenCount));
          (void)trace->storedLse({call.id, head});
          (void)trace->storedOut({call.id, head});
        } catch (const Error&) {
        }
      }
    }
    (void)trace->frames();
    (void)trace->truth();
  } catch (const Error& error) {
    require(std::string_view(error.what()).find('\n') == std::string_view::npos);
  }
  try {
    (void)checkTrace(path, false, nullptr, {});
  } catch (const Error&) {
  }
  return 0;
}
