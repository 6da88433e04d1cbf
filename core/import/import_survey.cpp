// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <charconv>
#include <cmath>
#include <fstream>
#include <set>

#include "import/byte_source.h"
#include "sparsight/core/importer.h"
#include "sparsight/kernels/error.h"
#include "trace/hdf5_file.h"

namespace sparsight {
namespace fs = std::filesystem;
namespace {

constexpr int kDeepestFolder = 4;
constexpr std::size_t kMostFiles = 100'000, kMostTensors = 1'000'000;
// A folder's other files (logs, videos) are normal; only a few are named.
constexpr std::size_t kMostNamed = 20;

std::optional<double> realOf(std::string_view text) {
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (text.empty() || error != std::errc() || end != text.data() + text.size() || !std::isfinite(value))
    return std::nullopt;
  return value;
}

std::optional<int> wholeOf(std::string_view text) {
  const std::optional<double> value = realOf(text);
  if (!value || *value < 0 || *value > 1e6 || *value != std::floor(*value)) return std::nullopt;
  return static_cast<int>(*value);
}

/// Names, then what the file says about itself (SVG's and SVOO's dictionaries).
void placeTensors(const TensorFile& file, const fs::path& relative, std::vector<FoundTensor>& out) {
  const auto fact = [&](const char* name) -> std::string_view {
    const auto found = file.facts().find(name);
    return found == file.facts().end() ? std::string_view() : std::string_view(found->second);
  };
  fs::path stem = relative;
  stem.replace_extension();
  for (FoundTensor found : file.tensors()) {
    found.file = relative;
    found.place = placeFromName(found.name.empty() ? stem.generic_string() : stem.generic_string() + "/" + found.name);
    TensorPlace& place = found.place;
    if (const auto layer = wholeOf(fact("layer_idx")); layer && !place.layer) place.layer = layer;
    if (const auto timestep = realOf(fact("timestep"))) {
      // SVOO names folders by the scheduler's timestep, cut to a whole number.
      if (place.step && std::abs(*place.step - *timestep) < 1) place.step.reset();
      place.timestep = timestep;
    }
    out.push_back(std::move(found));
  }
}

std::vector<fs::path> filesUnder(const fs::path& folder, const Control& control) {
  std::vector<fs::path> files;
  std::error_code error;
  const auto refuse = [&] {
    throw Error(ErrorCode::Io, fmt::format("cannot list '{}': {}", folder.string(), error.message()));
  };
  // Everything that there is would be listed, other file systems and the system's own included.
  if (const fs::path whole = fs::weakly_canonical(folder, error); !error && whole == whole.root_path()) {
    throw Error(ErrorCode::InvalidArgument,
                fmt::format("'{}' is the root of the file system; choose the folder of one capture", folder.string()));
  }
  error.clear();
  fs::recursive_directory_iterator at(folder, fs::directory_options::skip_permission_denied, error), end;
  if (error) refuse();
  for (std::size_t seen = 0; at != end; at.increment(error)) {
    if (error) refuse();
    if (++seen % 64 == 0) control.checkpoint();
    if (at.depth() >= kDeepestFolder) at.disable_recursion_pending();
    std::error_code ignored;
    if (!at->is_regular_file(ignored) || at->path().filename().string().starts_with('.')) continue;
    files.push_back(at->path());
    if (files.size() > kMostFiles) {
      throw Error(
          ErrorCode::InvalidArgument,
          fmt::format("{}: holds more than {} files; choose the folder of one capture", folder.string(), kMostFiles));
    }
  }
  if (error) refuse();
  std::sort(files.begin(), files.end());
  return files;
}

}  // namespace

std::size_t sourceItemSize(SourceType type) noexcept {
  return type == SourceType::F64 ? 8U : type == SourceType::F32 ? 4U : 2U;
}

const char* sourceTypeName(SourceType type) noexcept {
  switch (type) {
    case SourceType::F16:
      return "float16";
    case SourceType::BF16:
      return "bfloat16";
    case SourceType::F32:
      return "float32";
    case SourceType::F64:
      break;
  }
  return "float64";
}

std::string FoundTensor::label() const {
  if (name.empty()) return import::plain(file.generic_string());
  return import::plain(file.empty() ? name : fmt::format("{}: {}", file.generic_string(), name));
}

std::unique_ptr<TensorFile> Importer::open(const fs::path& path, const fs::path&) const {
  throw Error(ErrorCode::Internal, fmt::format("{}: {} files hold no tensors", path.string(), id()));
}
ProfileImport Importer::readProfile(const fs::path& path, const ProfileImportOptions&) const {
  throw Error(ErrorCode::Internal, fmt::format("{}: {} files hold no profile", path.string(), id()));
}

SourceHead readHead(const fs::path& path) {
  SourceHead head;
  head.path = path;
  head.suffix = path.extension().string();
  std::transform(head.suffix.begin(), head.suffix.end(), head.suffix.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  const import::FileBytes bytes(path);
  head.size = bytes.size();
  head.bytes = bytes.readText(0, static_cast<std::size_t>(std::min<std::uint64_t>(4096, head.size)));
  return head;
}

const Importer* importerFor(const fs::path& path) {
  std::error_code ignored;
  if (!fs::is_regular_file(path, ignored)) return nullptr;
  const SourceHead head = readHead(path);
  const Importer* best = nullptr;
  int most = 0;
  for (const Importer* importer : allImporters()) {
    if (const int match = importer->match(head); match > most) {
      best = importer;
      most = match;
    }
  }
  return best;
}

bool isImportable(const fs::path& path, const Control& control) {
  std::error_code ignored;
  if (!fs::is_directory(path, ignored)) return importerFor(path) != nullptr;
  const std::vector<fs::path> files = filesUnder(path, control);
  return std::any_of(files.begin(), files.end(), [&](const fs::path& file) {
    control.checkpoint();
    try {
      const Importer* importer = importerFor(file);
      return importer != nullptr && !importer->isProfile();
    } catch (const Error&) {
      return false;  // unreadable; another one may do
    }
  });
}

Survey surveySource(const fs::path& path, const Control& control, std::span<const fs::path> only) {
  Survey survey;
  survey.source = path;
  std::set<std::string> formats, contradicted;
  const auto take = [&](const Importer& importer, const fs::path& file, const fs::path& relative) {
    const std::unique_ptr<TensorFile> opened = importer.open(file, {});
    placeTensors(*opened, relative, survey.tensors);
    if (survey.tensors.size() > kMostTensors) {
      throw Error(ErrorCode::InvalidArgument, fmt::format("{}: holds more than {} tensors; choose one capture's folder",
                                                          path.string(), kMostTensors));
    }
    formats.insert(std::string(importer.id()));
    for (const auto& [name, value] : opened->facts()) {
      if (name == "timestep" || name == "layer_idx") continue;
      const auto [at, added] = survey.facts.emplace(name, import::plain(value));
      constexpr std::array<std::string_view, 8> kOfTheRun{
          "grid", "text_len", "text_start", "family", "num_layers", "num_heads", "scale", "num_inference_steps"};
      const bool counts = std::find(kOfTheRun.begin(), kOfTheRun.end(), name) != kOfTheRun.end();
      if (added || !counts || at->second == import::plain(value) || !contradicted.insert(name).second) continue;
      survey.warnings.push_back(fmt::format("{} says {} = {}, files before it {}, which is taken; import runs apart",
                                            import::plain(relative.generic_string()), name, import::plain(value),
                                            at->second));
    }
  };
  std::error_code ignored;
  survey.folder = fs::is_directory(path, ignored);
  if (!survey.folder) {
    const Importer* importer = importerFor(path);
    if (importer == nullptr || importer->isProfile()) {
      static_cast<void>(readHead(path));  // says where there is no such file
      if (h5::looksLikeHdf5(path)) {
        const h5::File file = h5::File::openRead(path, "an HDF5 file with tensors");
        throw Error(ErrorCode::InvalidArgument, fmt::format("{}: is a Sparsight file already ({}); open it as it is",
                                                            path.string(), file.tryString("format").value_or("HDF5")));
      }
      std::string known;
      for (const Importer* each : allImporters()) {
        if (!each->isProfile()) known += fmt::format("{}{}", known.empty() ? "" : ", ", each->title());
      }
      throw Error(ErrorCode::Format,
                  fmt::format("{}: is none of the tensor files that can be imported: {}", path.string(), known));
    }
    take(*importer, path, path.filename());
  } else {
    std::size_t others = 0;
    const std::vector<fs::path> files =
        only.empty() ? filesUnder(path, control) : std::vector<fs::path>(only.begin(), only.end());
    std::string first;
    for (std::size_t i = 0; i < files.size(); ++i) {
      control.checkpoint();
      control.report(static_cast<double>(i) / static_cast<double>(files.size()));
      try {
        const Importer* importer = importerFor(files[i]);
        if (importer == nullptr || importer->isProfile()) {
          ++others;
          continue;
        }
        take(*importer, files[i], files[i].lexically_relative(path));
      } catch (const Error& error) {
        if (error.code() != ErrorCode::Io && error.code() != ErrorCode::Format &&
            error.code() != ErrorCode::Unsupported)
          throw;
        if (first.empty()) first = error.what();
        if (survey.warnings.size() < kMostNamed) survey.warnings.push_back(fmt::format("skipped: {}", error.what()));
      }
    }
    if (survey.tensors.empty()) {
      throw Error(ErrorCode::Format, first.empty() ? fmt::format("{}: none of its {} files holds tensors that can be "
                                                                 "imported",
                                                                 path.string(), files.size())
                                                   : first);
    }
    if (others > 0) survey.warnings.push_back(fmt::format("{} other files are left alone", others));
  }
  survey.formats.assign(formats.begin(), formats.end());
  for (const FoundTensor& found : survey.tensors) {
    if (found.place.role == TensorRole::None || !found.type) continue;
    double size = static_cast<double>(sourceItemSize(*found.type));
    for (const Index extent : found.shape) size *= static_cast<double>(extent);
    survey.bytes += size;
  }
  return survey;
}

}  // namespace sparsight
