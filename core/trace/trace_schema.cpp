// SPDX-License-Identifier: Apache-2.0
#include "trace/trace_schema.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <numeric>
#include <set>

namespace sparsight::trace {
namespace fs = std::filesystem;

void Sink::warn(const std::string& kind, const std::string& where, const std::string& message) {
  const std::string text = where.empty() ? message : fmt::format("{}: {}", where, message);
  if (m_collected != nullptr) {
    m_collected->push_back({Finding::Level::Warning, where, text});
    return;
  }
  const auto [it, isNew] = m_warnings.try_emplace(kind, Warning{text, 0});
  if (isNew) {
    m_order.push_back(kind);
  } else {
    ++it->second.further;
  }
}

std::vector<std::string> Sink::takeWarnings() {
  std::vector<std::string> lines;
  for (const std::string& kind : m_order) {
    const Warning& w = m_warnings.at(kind);
    lines.push_back(w.further == 0 ? w.text : fmt::format("{} (and {} more places)", w.text, w.further));
  }
  m_order.clear();
  m_warnings.clear();
  return lines;
}

Index effectiveMemoryLimit(Index requested) {
  if (requested > 0) return requested;
  const long pages = sysconf(_SC_PHYS_PAGES);
  const long pageBytes = sysconf(_SC_PAGESIZE);
  if (pages <= 0 || pageBytes <= 0) return Index{8} << 30;
  return static_cast<Index>(pages) * static_cast<Index>(pageBytes) / 4 * 3;
}

std::string describeCall(const CallId& id) {
  const std::string leaf = id.call == 0 ? id.kind : fmt::format("{}.{}", id.kind, id.call);
  return fmt::format("step {}, {}, layer {}, {}", id.step, id.branch, id.layer, leaf);
}

std::string bytesText(double bytes) {
  constexpr std::array<const char*, 7> kUnits{"bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  std::size_t unit = 0;
  while (bytes >= 1024.0 && unit + 1 < kUnits.size()) {
    bytes /= 1024.0;
    ++unit;
  }
  return unit == 0 ? fmt::format("{:.0f} bytes", bytes) : fmt::format("{:.1f} {}", bytes, kUnits[unit]);
}

bool isSelfLike(const CallInfo& call) noexcept { return call.id.kind == "self" || call.id.kind == "joint"; }

Index kvIndexOf(const CallInfo& call, const ModelInfo& model, std::size_t headPosition) {
  const auto stored = static_cast<Index>(call.heads.size());
  const auto position = static_cast<Index>(headPosition);
  if (call.kvHeads == stored) return position;
  // All K/V heads of the model are stored, but only some query heads: the model's grouping goes by head id.
  if (call.kvHeads == model.numKvHeads && model.numHeads > 0 && model.numHeads % call.kvHeads == 0) {
    return call.heads[headPosition] / (model.numHeads / call.kvHeads);
  }
  return position / (stored / call.kvHeads);
}

DType tensorType(const h5::Dataset& dataset) {
  const h5::TypeInfo& type = dataset.info().type;
  const auto stated = dataset.tryString("dtype");
  if (type.floatType) {
    if (stated && *stated != dtypeName(*type.floatType)) {
      dataset.failFormat(fmt::format("attribute 'dtype' says \"{}\", the data is {}; correct the attribute", *stated,
                                     dtypeName(*type.floatType)));
    }
    return *type.floatType;
  }
  if (type.cls == h5::TypeClass::Integer && type.size == 2) {
    if (stated && *stated == "bfloat16") return DType::BF16;
    dataset.failFormat(
        fmt::format("is {} without attribute dtype = \"bfloat16\"; add the attribute if these are bfloat16 bits, "
                    "else store float16, bfloat16 or float32",
                    type.name));
  }
  if (type.cls == h5::TypeClass::Opaque) {
    dataset.failFormat(
        fmt::format("is {} (numpy arrays of ml_dtypes land so); store bfloat16 as uint16 with "
                    "array.view('<u2') and attribute dtype = \"bfloat16\"",
                    type.name));
  }
  throw Error(ErrorCode::Unsupported,
              fmt::format("{}: is {}; store float16, bfloat16 or float32", dataset.where(), type.name));
}

std::vector<Index> readQRows(const h5::Dataset& dataset, Index tokenCount) {
  if (dataset.info().shape.size() != 1) {
    dataset.failFormat(fmt::format("has shape {}, expected one axis; write the token index of each stored query row",
                                   h5::shapeText(dataset.info().shape)));
  }
  if (dataset.info().shape[0] > tokenCount) {
    dataset.failFormat(
        fmt::format("lists {} rows, there are {} tokens; write each token once", dataset.info().shape[0], tokenCount));
  }
  auto rows = dataset.read<std::int64_t>();
  for (std::size_t i = 0; i < rows.size(); ++i) {
    if (rows[i] < 0 || rows[i] >= tokenCount)
      dataset.failFormat(fmt::format("entry {} is {}, outside 0 .. {}; correct it", i, rows[i], tokenCount - 1));
    if (i > 0 && rows[i] <= rows[i - 1])
      dataset.failFormat(
          fmt::format("entry {} ({}) is not larger than the one before it; sort the rows, each once", i, rows[i]));
  }
  return rows;
}

namespace {

int toInt(const h5::Object& object, const std::string& name, std::int64_t value) {
  if (value < 0 || value > std::numeric_limits<int>::max()) {
    object.failFormat(fmt::format("attribute '{}' is {}, outside 0 .. 2147483647; correct it", name, value));
  }
  return static_cast<int>(value);
}

int optionalInt(const h5::Object& object, const std::string& name, int fallback) {
  const auto value = object.tryInt(name);
  return value ? toInt(object, name, *value) : fallback;
}

Index tokens(const h5::Object& object, const std::string& name, std::int64_t value) {
  if (value < 0)
    object.failFormat(
        fmt::format("attribute '{}' is {}; a number of tokens cannot be negative, correct it", name, value));
  return value;
}

class Parser {
 public:
  Parser(const fs::path& path, Index memoryLimitBytes, Sink& sink)
      : m_memoryLimit(effectiveMemoryLimit(memoryLimitBytes)),
        m_sink(sink),
        m_root(h5::File::openRead(path, "a trace (.h5)")) {
    m_out.info.path = path;
  }

  ParsedTrace parse() {
    readRoot();
    m_sink.guard("/model", [&] { readModel(); });
    m_sink.guard("/run", [&] { readRun(); });
    m_tokensKnown = m_sink.guard("/tokens", [&] { readTokens(); });
    m_sink.guard("/capture", [&] { readCapture(); });
    readData();
    m_sink.guard("/frames", [&] { readFrames(); });
    m_sink.guard("/ext/synth/truth", [&] { readTruth(); });
    sortCalls();
    m_out.info.warnings = m_sink.takeWarnings();
    m_out.files.insert(m_out.files.begin(), std::move(m_root));
    return std::move(m_out);
  }

 private:
  void readRoot() {
    TraceInfo& info = m_out.info;
    // Without these the rest cannot be judged, so they throw also while checking.
    const std::string format =
        m_root.readString("format", "this HDF5 file is not a trace; expected format = \"sparsight-trace\"");
    if (format != "sparsight-trace") {
      m_root.failFormat(
          fmt::format("attribute 'format' is \"{}\", expected \"sparsight-trace\"; give a trace file", format));
    }
    const auto version = m_root.readInts("format_version", "write [1, 1] (major, minor)");
    if (version.empty() || version.size() > 2) {
      m_root.failFormat(fmt::format("attribute 'format_version' has {} elements, expected [major, minor]; correct it",
                                    version.size()));
    }
    info.versionMajor = static_cast<int>(std::clamp<std::int64_t>(version[0], -1, 1 << 20));
    info.versionMinor = version.size() > 1 ? static_cast<int>(std::clamp<std::int64_t>(version[1], -1, 1 << 20)) : 0;
    if (version[0] != kFormatMajor) {
      throw Error(ErrorCode::Unsupported,
                  fmt::format("{}: attribute 'format_version' is {}.{}, this program reads {}.x; use a newer program "
                              "or write the trace as version {}.{}",
                              m_root.where(), version[0], info.versionMinor, kFormatMajor, kFormatMajor, kFormatMinor));
    }
    for (const std::string& feature : requiredFeatures()) {
      throw Error(ErrorCode::Unsupported,
                  fmt::format("{}: 'required_features' asks for \"{}\", which this version does not know; use a newer "
                              "program or write the trace without it",
                              m_root.where(), feature));
    }
    if (info.versionMinor > kFormatMinor) {
      m_sink.warn("minor", "/",
                  fmt::format("format version {}.{} is newer than {}.{}; additions of later versions are ignored",
                              info.versionMajor, info.versionMinor, kFormatMajor, kFormatMinor));
    }
    m_sink.guard("/", [&] {
      info.writer = m_root.tryString("writer").value_or("");
      info.uuid = m_root.tryString("uuid").value_or("");
      info.createdUtc = m_root.tryString("created_utc").value_or("");
      info.software = m_root.tryString("software").value_or("");
      const auto complete = m_root.tryInt("complete");
      info.complete = complete && *complete == 1;
      if (!info.complete) {
        m_sink.warn("complete", "/",
                    fmt::format("attribute 'complete' is {}: the capture did not end cleanly, what is there is shown; "
                                "capture again for the rest",
                                complete ? std::to_string(*complete) : "missing"));
      }
    });
  }

  // A string array attribute or dataset; an empty one may be of any type (h5py writes zero-length byte strings).
  std::vector<std::string> requiredFeatures() const {
    if (m_root.hasAttribute("required_features")) return m_root.readStrings("required_features");
    if (const auto dataset = m_root.tryDataset("required_features")) return dataset->readStringElements();
    return {};
  }

  void readModel() {
    const auto group = m_root.tryGroup("model");
    if (!group) {
      m_sink.warn("model", "/model",
                  "missing; number of layers and heads are unknown, method rules fall back to the token order");
      return;
    }
    ModelInfo& m = m_out.info.model;
    const auto text = [&](const char* name) { return group->tryString(name).value_or(""); };
    m.family = text("family");
    m.className = text("class_name");
    m.repoId = text("repo_id");
    m.revision = text("revision");
    m.attention = text("attention");
    m.qkNorm = text("qk_norm");
    m.rope = text("rope");
    m.numLayers = optionalInt(*group, "num_layers", 0);
    m.numHeads = optionalInt(*group, "num_heads", 0);
    m.numKvHeads = optionalInt(*group, "num_kv_heads", m.numHeads);
    m.headDim = optionalInt(*group, "head_dim", 0);
  }

  void readRun() {
    const auto group = m_root.tryGroup("run");
    if (!group) return;
    RunInfo& r = m_out.info.run;
    const auto text = [&](const char* name) { return group->tryString(name).value_or(""); };
    r.pipelineClass = text("pipeline_class");
    r.prompt = text("prompt");
    r.negativePrompt = text("negative_prompt");
    r.guidanceMode = text("guidance_mode");
    r.scheduler = text("scheduler");
    r.computeDtype = text("compute_dtype");
    r.attentionBackend = text("attention_backend");
    r.seed = group->tryInt("seed").value_or(0);
    r.height = optionalInt(*group, "height", 0);
    r.width = optionalInt(*group, "width", 0);
    r.numFrames = optionalInt(*group, "num_frames", 0);
    r.numInferenceSteps = optionalInt(*group, "num_inference_steps", 0);
    r.fps = group->tryReal("fps").value_or(0);
    r.guidanceScale = group->tryReal("guidance_scale").value_or(0);
    constexpr Index kMaxSteps = 1 << 20;
    if (group->has("timesteps")) {
      r.timesteps = group->openDataset("timesteps").read<double>(kMaxSteps);
      const bool down = std::is_sorted(r.timesteps.rbegin(), r.timesteps.rend());
      const bool up = std::is_sorted(r.timesteps.begin(), r.timesteps.end());
      if (!down && !up) m_sink.warn("timesteps", "/run/timesteps", "not monotone; check the scheduler that wrote them");
    }
    if (group->has("sigmas")) r.sigmas = group->openDataset("sigmas").read<double>(kMaxSteps);
  }

  void readTokens() {
    const auto group = m_root.tryGroup("tokens");
    if (!group) m_root.failFormat("group 'tokens' is missing; write n_tokens and the token grid");
    TokenLayout& layout = m_out.info.layout;
    layout.tokenCount = tokens(*group, "n_tokens", group->readInt("n_tokens", "write the number of tokens of a call"));
    if (layout.tokenCount == 0)
      group->failFormat("attribute 'n_tokens' is 0; a trace without tokens shows nothing, capture again");
    const auto order = group->tryString("order").value_or("thw");
    if (order != "thw") {
      throw Error(
          ErrorCode::Unsupported,
          fmt::format("{}: attribute 'order' is \"{}\", this version reads \"thw\" (frame-major) only; store the "
                      "tokens frame-major",
                      group->where(), order));
    }
    if (const auto segments = group->tryGroup("segments")) {
      readSegments(*segments, layout);
    } else {
      layoutFromScalars(*group, layout);
    }
    checkScalars(*group, layout);
    if (group->has("perm")) readPermutation(*group);
  }

  static Segment videoSegment(const h5::Group& group, Index start, Index length) {
    const auto grid = group.readInts("grid", "write [T, H, W] of the video tokens");
    if (grid.size() != 3)
      group.failFormat(fmt::format("attribute 'grid' has {} elements, expected [T, H, W]; correct it", grid.size()));
    Segment s{SegmentKind::Video,           start, length, toInt(group, "grid", grid[0]), toInt(group, "grid", grid[1]),
              toInt(group, "grid", grid[2])};
    checkGrid(group, s, "attribute 'grid'");
    return s;
  }

  static void checkGrid(const h5::Object& object, const Segment& s, const std::string& what) {
    const Index product = h5::elementCount(std::array<Index, 3>{s.frames, s.height, s.width}, object.where());
    if (product != s.length) {
      object.failFormat(
          fmt::format("{} {}x{}x{} has {} cells, the segment has {} tokens; correct the grid or the length", what,
                      s.frames, s.height, s.width, product, s.length));
    }
  }

  static void checkCover(const h5::Object& object, const TokenLayout& layout) {
    Index at = 0;
    for (const Segment& s : layout.segments) {
      if (s.start < at)
        object.failFormat(fmt::format(
            "segment at token {} overlaps the one before it, which ends at {}; correct start or length", s.start, at));
      if (s.start > at)
        object.failFormat(fmt::format(
            "tokens {} .. {} belong to no segment; add a segment of kind 255 (other) for them", at, s.start - 1));
      if (s.length > layout.tokenCount - s.start) {
        object.failFormat(fmt::format("segment at token {} of {} tokens ends beyond n_tokens = {}; correct the length",
                                      s.start, s.length, layout.tokenCount));
      }
      at = s.start + s.length;
    }
    if (at != layout.tokenCount) {
      object.failFormat(
          fmt::format("the segments sum to {} tokens, n_tokens is {}; add the missing segment or correct n_tokens", at,
                      layout.tokenCount));
    }
  }

  static void readSegments(const h5::Group& group, TokenLayout& layout) {
    constexpr Index kMaxSegments = 65536;
    const auto kind = group.openDataset("kind").read<std::int64_t>(kMaxSegments);
    const auto start = group.openDataset("start").read<std::int64_t>(kMaxSegments);
    const auto length = group.openDataset("length").read<std::int64_t>(kMaxSegments);
    if (start.size() != kind.size() || length.size() != kind.size()) {
      group.failFormat(fmt::format("kind, start and length have {}, {} and {} elements; write one of each per segment",
                                   kind.size(), start.size(), length.size()));
    }
    std::vector<std::int64_t> grid(kind.size() * 3, 0);
    if (group.has("grid")) {
      const h5::Dataset dataset = group.openDataset("grid");
      const auto expected = std::vector<Index>{static_cast<Index>(kind.size()), 3};
      if (dataset.info().shape != expected) {
        dataset.failFormat(fmt::format("has shape {}, expected {}; write T, H, W per segment (0 0 0 without a grid)",
                                       h5::shapeText(dataset.info().shape), h5::shapeText(expected)));
      }
      grid = dataset.read<std::int64_t>(kMaxSegments * 3);
    }
    for (std::size_t i = 0; i < kind.size(); ++i) {
      Segment s;
      s.kind = kind[i] >= 0 && kind[i] <= 5 ? static_cast<SegmentKind>(kind[i])
                                            : SegmentKind::Other;  // unknown kinds: other
      s.start = start[i];
      s.length = length[i];
      if (s.start < 0 || s.length < 0)
        group.failFormat(fmt::format("segment {} has start {} and length {}; neither can be negative, correct it", i,
                                     s.start, s.length));
      s.frames = toInt(group, "grid", grid[i * 3]);
      s.height = toInt(group, "grid", grid[i * 3 + 1]);
      s.width = toInt(group, "grid", grid[i * 3 + 2]);
      if (s.frames != 0 || s.height != 0 || s.width != 0) {
        checkGrid(group, s, fmt::format("grid of segment {}", i));
      } else if (s.kind == SegmentKind::Video && s.length > 0) {
        group.failFormat(fmt::format("video segment {} has no grid; write its T, H, W", i));
      }
      if (s.kind == SegmentKind::Text)
        s.frames = s.height = s.width = 0;  // some writers put [1, 1, n]: no place in a picture
      layout.segments.push_back(s);
    }
    std::stable_sort(layout.segments.begin(), layout.segments.end(),
                     [](const Segment& a, const Segment& b) { return a.start < b.start; });
    checkCover(group, layout);
  }

  static void layoutFromScalars(const h5::Group& group, TokenLayout& layout) {
    const Index videoStart = tokens(group, "video_start", group.readInt("video_start", "write the first video token"));
    const Index videoLen = tokens(group, "video_len", group.readInt("video_len", "write the number of video tokens"));
    const Index textStart = tokens(group, "text_start", group.tryInt("text_start").value_or(0));
    const Index textLen = tokens(group, "text_len", group.tryInt("text_len").value_or(0));
    layout.segments.push_back(videoSegment(group, videoStart, videoLen));
    if (textLen > 0) layout.segments.push_back({SegmentKind::Text, textStart, textLen, 0, 0, 0});
    std::sort(layout.segments.begin(), layout.segments.end(),
              [](const Segment& a, const Segment& b) { return a.start < b.start; });
    checkCover(group, layout);
  }

  // The four scalars repeat the segments when there is exactly one video segment; two different answers are an error.
  static void checkScalars(const h5::Group& group, const TokenLayout& layout) {
    const auto isVideo = [](const Segment& s) { return s.kind == SegmentKind::Video; };
    if (std::count_if(layout.segments.begin(), layout.segments.end(), isVideo) != 1) return;
    const Segment& video = *std::find_if(layout.segments.begin(), layout.segments.end(), isVideo);
    const auto compare = [&](const char* name, Index expected) {
      if (const auto value = group.tryInt(name); value && *value != expected) {
        group.failFormat(
            fmt::format("attribute '{}' is {}, the segments say {}; make them agree", name, *value, expected));
      }
    };
    compare("video_start", video.start);
    compare("video_len", video.length);
    if (group.hasAttribute("grid")) {
      const Segment fromGrid = videoSegment(group, video.start, video.length);
      if (fromGrid.frames != video.frames || fromGrid.height != video.height || fromGrid.width != video.width) {
        group.failFormat(fmt::format("attribute 'grid' is {}x{}x{}, the video segment says {}x{}x{}; make them agree",
                                     fromGrid.frames, fromGrid.height, fromGrid.width, video.frames, video.height,
                                     video.width));
      }
    }
  }

  void readPermutation(const h5::Group& group) {
    const h5::Dataset dataset = group.openDataset("perm");
    const Index n = m_out.info.layout.tokenCount;
    if (dataset.info().shape != std::vector<Index>{n}) {
      dataset.failFormat(fmt::format("has shape {}, expected [{}] (one entry per token); write the permutation again",
                                     h5::shapeText(dataset.info().shape), n));
    }
    requireWithinFile(dataset, m_root);
    auto perm = dataset.read<std::int32_t>();
    std::vector<bool> seen(perm.size(), false);
    for (std::size_t i = 0; i < perm.size(); ++i) {
      const std::int32_t p = perm[i];
      if (p < 0 || p >= n)
        dataset.failFormat(fmt::format("entry {} is {}, outside 0 .. {}; write the permutation again", i, p, n - 1));
      if (seen[static_cast<std::size_t>(p)])
        dataset.failFormat(fmt::format("{} stands twice, so this is no permutation; write it again", p));
      seen[static_cast<std::size_t>(p)] = true;
    }
    bool identity = true;
    for (std::size_t i = 0; i < perm.size() && identity; ++i) identity = perm[i] == static_cast<std::int32_t>(i);
    if (!identity) m_out.permutation = std::move(perm);
  }

  void readCapture() {
    const auto group = m_root.tryGroup("capture");
    if (!group) return;
    const auto stage = group->tryString("stage").value_or("post_rope");
    if (stage != "post_rope") {
      throw Error(
          ErrorCode::Unsupported,
          fmt::format("{}: attribute 'stage' is \"{}\", this version reads \"post_rope\" only; capture after the "
                      "rotary embedding",
                      group->where(), stage));
    }
    const auto kMode = group->tryString("k_mode").value_or("all");
    if (kMode != "all") {
      throw Error(
          ErrorCode::Unsupported,
          fmt::format("{}: attribute 'k_mode' is \"{}\", this version needs all keys (\"all\"); capture K and V "
                      "whole",
                      group->where(), kMode));
    }
    const auto qMode = group->tryString("q_mode").value_or("all");
    const auto list = [&](const char* name) {
      std::vector<int> values;
      if (group->hasAttribute(name)) {
        for (const std::int64_t v : group->readInts(name)) values.push_back(toInt(*group, name, v));
      }
      return values;
    };
    m_captureLayers = list("layers");
    m_captureHeads = list("heads");
    if (group->hasAttribute("branches")) m_captureBranches = group->readStrings("branches");
    if (group->hasAttribute("kinds")) m_captureKinds = group->readStrings("kinds");
    if (!group->has("q_rows")) return;
    const h5::Dataset dataset = group->openDataset("q_rows");
    if (qMode == "all") {
      m_sink.warn("q_rows", "/capture/q_rows", "ignored, because q_mode is \"all\"; remove it or state the mode");
      return;
    }
    if (!m_tokensKnown) return;
    requireWithinFile(dataset, m_root);
    m_out.globalQRows = trace::readQRows(dataset, m_out.info.layout.tokenCount);
  }

  // A contiguous dataset that ends beyond the file would make the reader allocate what is not there.
  static void requireWithinFile(const h5::Dataset& dataset, const h5::File& file) {
    const h5::DatasetInfo& info = dataset.info();
    const Index bytes = h5::checkedMultiply(h5::elementCount(info.shape, dataset.where()),
                                            static_cast<Index>(info.type.size), dataset.where());
    const Index size = file.sizeBytes();
    const bool plain = info.layout == h5::Layout::Contiguous && info.storageBytes > 0;
    if (plain && (bytes > size || info.fileOffset > size - bytes)) {
      dataset.failFormat(
          fmt::format("claims {} at offset {}, the file has {}; it is truncated, copy or capture it again",
                      bytesText(static_cast<double>(bytes)), info.fileOffset, bytesText(static_cast<double>(size))));
    }
    if (info.layout == h5::Layout::Contiguous && info.externalStorage) dataset.requireReadable();
  }

  void readData() {
    const auto data = m_root.tryGroup("data");
    if (!data) {
      m_sink.guard("/data", [&] {
        m_root.failFormat("group 'data' is missing; the trace holds no attention call, capture again");
      });
      return;
    }
    for (const h5::LinkInfo& step : data->links()) {
      m_sink.guard(data->path() + "/" + step.name, [&] {
        if (step.kind == h5::LinkKind::External) {
          readPart(*data, step);
        } else if (const auto group = data->tryGroup(step.name)) {
          walk(*group, 1, 0);
        } else if (step.kind == h5::LinkKind::Soft) {
          missingPart(*data, step.name, fmt::format("its link points to '{}', which is not there", step.targetPath));
        }
      });
    }
    if (m_out.info.calls.empty())
      m_sink.warn("empty", "/data", "holds no attention call; capture again or check the selection");
  }

  // External links stand at step-group level and name a file beside the master; anything else is refused.
  void readPart(const h5::Group& data, const h5::LinkInfo& link) {
    const std::string& name = link.targetFile;
    if (name.empty() || name.find('/') != std::string::npos || name.find('\\') != std::string::npos || name == "." ||
        name == "..") {
      throw Error(ErrorCode::Unsupported,
                  fmt::format("{}: external link '{}' points to '{}'; parts must lie beside the trace and be linked by "
                              "bare file name",
                              data.where(), link.name, name));
    }
    const fs::path part = m_out.info.path.parent_path() / name;
    std::error_code ignored;
    if (!fs::exists(part, ignored)) {
      missingPart(
          data, link.name,
          fmt::format("part file '{}' is missing; put it beside '{}'", name, m_out.info.path.filename().string()));
      return;
    }
    std::size_t index = 0;
    try {
      index = partFile(part, name);
      const auto group = m_out.files[index].tryGroup(link.targetPath);
      if (!group) {
        missingPart(data, link.name,
                    fmt::format("part file '{}' has no group '{}'; capture this step again", name, link.targetPath));
        return;
      }
      // files[0] becomes the master in the end.
      walk(*group, 1, index + 1);
    } catch (const Error& error) {
      // A part that is no HDF5 file at all is like a missing one; a malformed trace inside is an error like any other.
      if (m_parts.contains(name)) throw;
      missingPart(data, link.name, error.what());
    }
  }

  std::size_t partFile(const fs::path& part, const std::string& name) {
    if (const auto it = m_parts.find(name); it != m_parts.end()) return it->second;
    m_out.files.push_back(h5::File::openRead(part, "a part of a trace"));
    m_out.info.parts.push_back(part);
    return m_parts[name] = m_out.files.size() - 1;
  }

  // What cannot be read is listed with its reason, from the master's own catalogue of the capture.
  void missingPart(const h5::Group& data, const std::string& stepName, const std::string& reason) {
    m_sink.warn("part " + reason, data.path() + "/" + stepName, reason);
    const auto digits = stepName.find_last_not_of("0123456789");
    const std::string number = digits == std::string::npos ? stepName : stepName.substr(digits + 1);
    if (number.empty() || number.size() > 9) return;
    const auto kinds = m_captureKinds.empty() ? std::vector<std::string>{"self"} : m_captureKinds;
    for (const std::string& branch : m_captureBranches) {
      for (const int layer : m_captureLayers) {
        for (const std::string& kind : kinds) {
          CallInfo call;
          call.id = {std::stoi(number), branch, layer, kind, 0};
          call.path = data.path() + "/" + stepName;
          call.heads = m_captureHeads;
          call.kvHeads = static_cast<int>(m_captureHeads.size());
          call.layout = m_out.info.layout;
          call.nQ = call.nK = m_out.info.layout.tokenCount;
          call.headDim = m_out.info.model.headDim;
          call.available = false;
          call.unavailableReason = reason;
          call.unavailableHeads = call.heads;
          m_out.info.calls.push_back(std::move(call));
          m_out.sources.push_back({});
        }
      }
    }
  }

  // /data/<step>/<branch>/<layer>/<kind>: names are free, attributes are authoritative. Datasets between are ignored.
  void walk(const h5::Group& group, int depth, std::size_t file) {
    if (depth == 4) {
      m_sink.guard(group.path(), [&] { readCall(group, file); });
      return;
    }
    for (const h5::LinkInfo& child : group.links()) {
      if (child.kind == h5::LinkKind::External) {
        throw Error(ErrorCode::Unsupported,
                    fmt::format("{}: external link '{}' below step level is not followed; link whole steps",
                                group.where(), child.name));
      }
      if (const auto sub = group.tryGroup(child.name)) walk(*sub, depth + 1, file);
    }
  }

  const h5::File& fileAt(std::size_t index) const { return index == 0 ? m_root : m_out.files[index - 1]; }

  void readCall(const h5::Group& group, std::size_t file) {
    CallInfo call;
    call.path = group.path();
    call.id.step = toInt(group, "step", group.readInt("step", "write the 0-based index of the denoising step"));
    call.id.branch = group.readString("branch", "write the guidance branch (\"cond\", \"uncond\", ...)");
    call.id.layer = toInt(group, "layer", group.readInt("layer", "write the 0-based layer"));
    call.id.kind = group.readString("kind", "write \"self\", \"joint\" or \"cross\"");
    call.id.call = optionalInt(group, "call", 0);
    call.component = group.tryString("component").value_or("transformer");
    call.module = group.tryString("module").value_or("");
    call.scale = group.readReal("scale", "write the factor applied to q k^T (usually head_dim^-0.5)");
    if (!std::isfinite(call.scale) || call.scale <= 0) {
      group.failFormat(fmt::format(
          "attribute 'scale' is {}; it must be finite and positive, write the factor applied to q k^T", call.scale));
    }
    const auto& timesteps = m_out.info.run.timesteps;
    if (!timesteps.empty() && call.id.step >= static_cast<int>(timesteps.size())) {
      group.failFormat(fmt::format("attribute 'step' is {}, /run/timesteps has {} steps; steps are 0-based, correct it",
                                   call.id.step, timesteps.size()));
    }
    const double scheduled = timesteps.empty() ? 0.0 : timesteps[static_cast<std::size_t>(call.id.step)];
    call.timestep = group.tryReal("timestep").value_or(scheduled);
    call.sigma = group.tryReal("sigma").value_or(0);
    readHeads(group, call);
    readLayout(group, call);
    readAbsmax(group, call);
    const Tensors tensors = readTensors(group, call, fileAt(file));
    readMasks(group, call, fileAt(file));
    readQRows(group, call);
    readExtras(group, call);
    checkModel(group, call);
    checkAvailability(group, tensors, call);
    if (const auto [it, isNew] = m_seen.try_emplace(call.id, call.path); !isNew) {
      group.failFormat(fmt::format("is the same call as {} ({}); give it another 'call' number or remove it",
                                   it->second, describeCall(call.id)));
    }
    m_out.sources.push_back({file, group.path()});
    m_out.info.calls.push_back(std::move(call));
  }

  void readHeads(const h5::Group& group, CallInfo& call) const {
    std::set<int> seen;
    for (const std::int64_t value : group.readInts("heads", "write the ids of the stored heads")) {
      const int head = toInt(group, "heads", value);
      if (!seen.insert(head).second)
        group.failFormat(fmt::format("attribute 'heads' lists head {} twice; write each once", head));
      const int numHeads = m_out.info.model.numHeads;
      if (numHeads > 0 && head >= numHeads) {
        group.failFormat(fmt::format("attribute 'heads' lists head {}, the model has {} heads (0-based); correct it",
                                     head, numHeads));
      }
      call.heads.push_back(head);
    }
    if (call.heads.empty()) group.failFormat("attribute 'heads' is empty; write the ids of the stored heads");
  }

  void readLayout(const h5::Group& group, CallInfo& call) const {
    call.layout = m_out.info.layout;
    const auto n = group.tryInt("n_tokens");
    const auto textStart = group.tryInt("text_start");
    const auto textLen = group.tryInt("text_len");
    if (!n && !textStart && !textLen) return;
    const Segment* text = m_out.info.layout.text();
    const Index start = tokens(group, "text_start", textStart.value_or(text != nullptr ? text->start : 0));
    const Index length = tokens(group, "text_len", textLen.value_or(text != nullptr ? text->length : 0));
    // The prompt of this branch is longer or shorter: the text segment changes, what follows moves with it.
    std::vector<Segment> segments;
    bool placed = false;
    for (const Segment& s : m_out.info.layout.segments) {
      const bool isText = text != nullptr && s.kind == SegmentKind::Text && s.start == text->start;
      if (isText || (text == nullptr && !placed && s.start >= start && length > 0)) {
        segments.push_back({SegmentKind::Text, 0, length, 0, 0, 0});
        placed = true;
      }
      if (!isText) segments.push_back(s);
    }
    if (!placed && length > 0) segments.push_back({SegmentKind::Text, 0, length, 0, 0, 0});
    Index at = 0;
    Index textAt = -1;
    for (Segment& s : segments) {
      s.start = at;
      if (s.kind == SegmentKind::Text && textAt < 0) textAt = at;
      if (s.length > std::numeric_limits<Index>::max() - at)
        group.failFormat("attribute 'text_len' overflows; correct it");
      at += s.length;
    }
    segments.erase(std::remove_if(segments.begin(), segments.end(), [](const Segment& s) { return s.length == 0; }),
                   segments.end());
    const Index total = n ? tokens(group, "n_tokens", *n) : m_out.info.layout.tokenCount;
    if (at != total) {
      group.failFormat(
          fmt::format("n_tokens = {}, but video and other segments with text_len = {} sum to {}; write n_tokens, "
                      "text_start and text_len together",
                      total, length, at));
    }
    if (length > 0 && textAt != start) {
      group.failFormat(
          fmt::format("attribute 'text_start' is {}, the text of this call begins at {}; correct it", start, textAt));
    }
    call.layout.tokenCount = total;
    call.layout.segments = std::move(segments);
  }

  static void readAbsmax(const h5::Group& group, CallInfo& call) {
    if (!group.hasAttribute("absmax")) return;
    for (const double v : group.readReals("absmax")) call.absmax.push_back(static_cast<float>(v));
    if (call.absmax.size() > 3)
      group.failFormat(
          fmt::format("attribute 'absmax' has {} elements, expected q, k and v; correct it", call.absmax.size()));
  }

  struct Tensors {
    h5::Dataset q, k;
    std::optional<h5::Dataset> v;
  };

  // Shape, type, filters and extent of q, k, v. Nothing is read or allocated.
  static std::vector<Index> tensorShape(const h5::Dataset& dataset, const h5::File& file) {
    const h5::DatasetInfo& info = dataset.info();
    if (info.shape.size() != 3) {
      dataset.failFormat(fmt::format(
          "expected [heads, tokens, channels], found {} with {} axes; store one array per call with the head first",
          h5::shapeText(info.shape), info.shape.size()));
    }
    const auto dims = dataset.tryString("dims").value_or("head,token,channel");
    if (dims != "head,token,channel") {
      throw Error(
          ErrorCode::Unsupported,
          fmt::format("{}: attribute 'dims' is \"{}\", this version reads \"head,token,channel\"; transpose the array",
                      dataset.where(), dims));
    }
    dataset.requireReadable();
    static_cast<void>(h5::checkedMultiply(h5::elementCount(info.shape, dataset.where()),
                                          static_cast<Index>(info.type.size), dataset.where()));
    requireWithinFile(dataset, file);
    for (std::size_t axis = 0; axis < 3; ++axis) {
      constexpr std::array<const char*, 3> kAxes{"heads", "tokens", "channels"};
      if (info.shape[axis] == 0)
        dataset.failFormat(fmt::format("has shape {}: zero {}; capture again", h5::shapeText(info.shape), kAxes[axis]));
    }
    return info.shape;
  }

  static h5::Dataset requiredTensor(const h5::Group& group, const char* name) {
    auto dataset = group.tryDataset(name);
    if (!dataset)
      group.failFormat(fmt::format("dataset '{}' is missing; every call needs q and k, capture it again", name));
    return std::move(*dataset);
  }

  Tensors readTensors(const h5::Group& group, CallInfo& call, const h5::File& file) const {
    Tensors tensors{requiredTensor(group, "q"), requiredTensor(group, "k"), group.tryDataset("v")};
    const h5::Dataset& q = tensors.q;
    const h5::Dataset& k = tensors.k;
    const auto& v = tensors.v;
    const auto qShape = tensorShape(q, file);
    const auto kShape = tensorShape(k, file);
    const auto heads = static_cast<Index>(call.heads.size());
    if (qShape[0] != heads) {
      q.failFormat(
          fmt::format("has {} heads on axis 0, attribute 'heads' lists {}; make them agree", qShape[0], heads));
    }
    if (heads % kShape[0] != 0) {
      k.failFormat(
          fmt::format("has {} heads on axis 0, which neither equals nor divides the {} heads of q; store one K head "
                      "per query head or "
                      "per group",
                      kShape[0], heads));
    }
    if (kShape[2] != qShape[2])
      k.failFormat(fmt::format("has {} channels, q has {}; both must have the head dimension", kShape[2], qShape[2]));
    call.kvHeads = static_cast<int>(kShape[0]);
    call.nQ = qShape[1];
    call.nK = kShape[1];
    call.headDim = qShape[2];
    call.dtype = tensorType(q);
    requireSameType(k, call.dtype);
    if (v) {
      const auto vShape = tensorShape(*v, file);
      if (vShape[0] != kShape[0])
        v->failFormat(fmt::format("has {} heads, k has {}; store as many V as K heads", vShape[0], kShape[0]));
      if (vShape[1] != kShape[1])
        v->failFormat(fmt::format("has {} tokens, k has {}; every key needs its value", vShape[1], kShape[1]));
      requireSameType(*v, call.dtype);
      call.hasV = true;
      call.valueDim = vShape[2];
    }
    checkTokens(group, q, k, call);
    const Index item = static_cast<Index>(itemSize(call.dtype));
    const auto headBytes = [&](Index n, Index d) {
      return h5::checkedMultiply(h5::checkedMultiply(n, d, group.where()), item, group.where());
    };
    const double bytes = static_cast<double>(headBytes(call.nQ, call.headDim)) +
                         static_cast<double>(headBytes(call.nK, call.headDim)) +
                         static_cast<double>(call.hasV ? headBytes(call.nK, call.valueDim) : 0);
    if (bytes > static_cast<double>(m_memoryLimit)) {
      throw Error(
          ErrorCode::OutOfMemory,
          fmt::format(
              "{}: one head of q {}, k and v needs {}, the memory limit is {}; raise --memory-limit or capture fewer "
              "tokens",
              group.where(), h5::shapeText(qShape), bytesText(bytes), bytesText(static_cast<double>(m_memoryLimit))));
    }
    return tensors;
  }

  static void requireSameType(const h5::Dataset& dataset, DType dtype) {
    const DType own = tensorType(dataset);
    if (own != dtype) {
      throw Error(ErrorCode::Unsupported, fmt::format("{}: is {}, q is {}; store q, k and v of a call in one type",
                                                      dataset.where(), dtypeName(own), dtypeName(dtype)));
    }
  }

  void checkTokens(const h5::Group& group, const h5::Dataset& q, const h5::Dataset& k, const CallInfo& call) const {
    const auto compare = [&](const char* name, Index actual, const h5::Dataset& dataset) {
      if (const auto stated = group.tryInt(name); stated && *stated != actual) {
        dataset.failFormat(
            fmt::format("has {} tokens, attribute '{}' of its call says {}; make them agree", actual, name, *stated));
      }
    };
    compare("n_q", call.nQ, q);
    compare("n_k", call.nK, k);
    if (!m_tokensKnown) return;
    const Index n = call.layout.tokenCount;
    if (isSelfLike(call) && call.nK != n) {
      k.failFormat(
          fmt::format("has {} tokens, the {} call ({}) has n_tokens = {}; keys cannot be a subset, and a call of "
                      "another length needs the attribute "
                      "'n_tokens'",
                      call.nK, call.id.kind, describeCall(call.id), n));
    }
  }

  void readMasks(const h5::Group& group, CallInfo& call, const h5::File& file) const {
    const std::string mask = group.readString("mask", "write \"none\", \"key_valid\" or \"dense\"");
    const auto keyValid = group.tryDataset("key_valid");
    const auto dense = group.tryDataset("mask");
    const auto requireBytes = [&](const h5::Dataset& dataset, const std::vector<Index>& expected) {
      const h5::DatasetInfo& info = dataset.info();
      if (info.shape != expected)
        dataset.failFormat(fmt::format("has shape {}, expected {}; write one byte per entry", h5::shapeText(info.shape),
                                       h5::shapeText(expected)));
      const bool bytes =
          (info.type.cls == h5::TypeClass::Integer || info.type.cls == h5::TypeClass::Enum) && info.type.size == 1;
      if (!bytes) dataset.failFormat(fmt::format("is {}, expected uint8 (0 = masked); convert it", info.type.name));
      dataset.requireReadable();
      requireWithinFile(dataset, file);
    };
    if (mask != "none" && mask != "key_valid" && mask != "dense") {
      group.failFormat(fmt::format("attribute 'mask' is \"{}\"; write \"none\", \"key_valid\" or \"dense\"", mask));
    }
    if (mask == "none" && keyValid)
      group.failFormat(
          "attribute 'mask' is \"none\", but dataset 'key_valid' is there; write mask = \"key_valid\" or remove the "
          "dataset");
    if (mask == "none" && dense)
      group.failFormat(
          "attribute 'mask' is \"none\", but dataset 'mask' is there; write mask = \"dense\" or remove the dataset");
    if (mask == "key_valid" && !keyValid)
      group.failFormat(
          "attribute 'mask' is \"key_valid\", but dataset 'key_valid' is missing; add it or write mask = \"none\"");
    if (mask == "dense" && !dense)
      group.failFormat("attribute 'mask' is \"dense\", but dataset 'mask' is missing; add it or write mask = \"none\"");
    if (keyValid) {
      requireBytes(*keyValid, {call.nK});
      call.hasKeyValid = true;
    }
    if (mask == "dense") {
      requireBytes(*dense, {call.nQ, call.nK});
      const Index bytes = h5::checkedMultiply(call.nQ, call.nK, dense->where());
      if (bytes > m_memoryLimit) {
        throw Error(
            ErrorCode::OutOfMemory,
            fmt::format("{}: the mask needs {}, the memory limit is {}; raise --memory-limit or store key_valid",
                        dense->where(), bytesText(static_cast<double>(bytes)),
                        bytesText(static_cast<double>(m_memoryLimit))));
      }
      call.hasDenseMask = true;
    }
  }

  void readQRows(const h5::Group& group, CallInfo& call) const {
    if (!m_tokensKnown) return;
    const Index n = call.layout.tokenCount;
    if (const auto own = group.tryDataset("q_rows")) {
      const auto& shape = own->info().shape;
      if (shape != std::vector<Index>{call.nQ}) {
        own->failFormat(fmt::format("has shape {}, q has {} rows; write the token of each stored row",
                                    h5::shapeText(shape), call.nQ));
      }
      call.qSubset = true;
      return;
    }
    if (!m_out.globalQRows.empty() && static_cast<Index>(m_out.globalQRows.size()) == call.nQ &&
        m_out.globalQRows.back() < n) {
      call.qSubset = true;
      return;
    }
    if (call.nQ == n || !isSelfLike(call)) return;
    if (m_out.globalQRows.empty()) {
      group.failFormat(fmt::format(
          "q has {} rows, the call has {} tokens and no q_rows; write q_mode and q_rows, or all rows", call.nQ, n));
    }
    group.failFormat(fmt::format("q has {} rows, /capture/q_rows lists {}; add a dataset 'q_rows' to this call",
                                 call.nQ, m_out.globalQRows.size()));
  }

  static void readExtras(const h5::Group& group, CallInfo& call) {
    const auto heads = static_cast<Index>(call.heads.size());
    if (const auto lse = group.tryDataset("lse")) {
      const std::vector<Index> expected{heads, call.nQ};
      if (lse->info().shape != expected)
        lse->failFormat(fmt::format("has shape {}, expected {} (heads, query rows); write it again or remove it",
                                    h5::shapeText(lse->info().shape), h5::shapeText(expected)));
      if (lse->info().type.floatType != DType::F32)
        lse->failFormat(fmt::format("is {}, expected float32; convert it", lse->info().type.name));
      lse->requireReadable();
      call.hasLse = true;
    }
    if (const auto out = group.tryDataset("out")) {
      const Index channels = call.hasV ? call.valueDim : (out->info().shape.size() == 3 ? out->info().shape[2] : 0);
      const std::vector<Index> expected{heads, call.nQ, channels};
      if (out->info().shape != expected)
        out->failFormat(
            fmt::format("has shape {}, expected {} (heads, query rows, value channels); write it again or remove it",
                        h5::shapeText(out->info().shape), h5::shapeText(expected)));
      static_cast<void>(tensorType(*out));
      out->requireReadable();
      call.hasOut = true;
    }
  }

  void checkModel(const h5::Group& group, const CallInfo& call) const {
    const double usual = 1.0 / std::sqrt(static_cast<double>(call.headDim));
    if (std::abs(call.scale - usual) > 0.01 * usual) {
      m_sink.warn("scale", group.path(),
                  fmt::format("attribute 'scale' is {:.6g}, head_dim {} usually has {:.6g}; right if the model says so",
                              call.scale, call.headDim, usual));
    }
    const ModelInfo& model = m_out.info.model;
    if (model.headDim > 0 && model.headDim != call.headDim && isSelfLike(call)) {
      m_sink.warn("head_dim", group.path(),
                  fmt::format("q has {} channels, /model says head_dim {}", call.headDim, model.headDim));
    }
    if (model.numLayers > 0 && call.id.layer >= model.numLayers) {
      m_sink.warn(
          "layer", group.path(),
          fmt::format("attribute 'layer' is {}, the model has {} layers (0-based)", call.id.layer, model.numLayers));
    }
    const auto& timesteps = m_out.info.run.timesteps;
    if (!timesteps.empty()) {
      const double scheduled = timesteps[static_cast<std::size_t>(call.id.step)];
      if (std::abs(scheduled - call.timestep) > 1e-3 * std::max(1.0, std::abs(scheduled))) {
        m_sink.warn("timestep", group.path(),
                    fmt::format("attribute 'timestep' is {:.6g}, /run/timesteps[{}] is {:.6g}", call.timestep,
                                call.id.step, scheduled));
      }
    }
  }

  // Which heads have data: unwritten chunks read as zeros, and attention over zeros looks plausible.
  void checkAvailability(const h5::Group& group, const Tensors& tensors, CallInfo& call) const {
    std::set<std::size_t> missing;
    std::string reason;
    const auto markKv = [&](Index kv) {
      for (std::size_t i = 0; i < call.heads.size(); ++i) {
        if (kvIndexOf(call, m_out.info.model, i) == kv) missing.insert(i);
      }
    };
    const std::array<const h5::Dataset*, 3> all{&tensors.q, &tensors.k, tensors.v ? &*tensors.v : nullptr};
    for (std::size_t t = 0; t < all.size() && all[t] != nullptr; ++t) {
      const h5::Dataset& dataset = *all[t];
      const h5::DatasetInfo& info = dataset.info();
      const auto markAll = [&](const std::string& why) {
        for (std::size_t i = 0; i < call.heads.size(); ++i) missing.insert(i);
        if (reason.empty()) reason = fmt::format("{}: {}", dataset.path(), why);
      };
      if (info.layout == h5::Layout::Virtual) {
        for (const std::string& source : info.sources) {
          std::error_code ignored;
          if (source != "." && !fs::exists(m_out.info.path.parent_path() / source, ignored))
            markAll(fmt::format("its part '{}' is missing; put it beside the trace", source));
        }
        continue;
      }
      if (info.layout == h5::Layout::Compact) continue;
      if (info.storageBytes == 0) {
        markAll("was never written; capture it again");
        continue;
      }
      if (info.layout != h5::Layout::Chunked) continue;
      std::array<Index, 3> count{};
      Index chunks = 1;
      Index chunkBytes = static_cast<Index>(info.type.size);
      for (std::size_t axis = 0; axis < 3; ++axis) {
        if (info.chunk[axis] <= 0) dataset.failFormat("has a chunk of zero size; write the file again");
        count[axis] = (info.shape[axis] - 1) / info.chunk[axis] + 1;
        chunks = h5::checkedMultiply(chunks, count[axis], dataset.where());
        chunkBytes = h5::checkedMultiply(chunkBytes, info.chunk[axis], dataset.where());
      }
      if (chunkBytes > m_memoryLimit) {
        throw Error(ErrorCode::OutOfMemory,
                    fmt::format("{}: one chunk of {} needs {}, the memory limit is {}; rewrite it with smaller chunks "
                                "(h5repack -l CHUNK=1x4096x{})",
                                dataset.where(), h5::shapeText(info.chunk), bytesText(static_cast<double>(chunkBytes)),
                                bytesText(static_cast<double>(m_memoryLimit)), info.shape[2]));
      }
      // Uncompressed and as large as all chunks together: nothing is missing, and no chunk needs to be looked up.
      if (info.filters.empty() &&
          static_cast<double>(info.storageBytes) >= static_cast<double>(chunks) * static_cast<double>(chunkBytes))
        continue;
      // All chunks of a head; of a huge dataset the first and the last, the rest is seen when the head is read.
      constexpr Index kMaxLookups = 100000;
      const bool every = chunks <= kMaxLookups;
      for (Index head = 0; head < info.shape[0]; head += info.chunk[0]) {
        bool present = true;
        for (Index c = 0; c < count[1] * count[2] && present;
             c = every ? c + 1 : (c + 1 < count[1] * count[2] ? count[1] * count[2] - 1 : c + 1)) {
          present = dataset.chunkAllocated(
              std::array<Index, 3>{head, c / count[2] * info.chunk[1], c % count[2] * info.chunk[2]});
        }
        if (present) continue;
        if (reason.empty())
          reason = fmt::format("{}: chunks of some heads were never written; capture them again", dataset.path());
        for (Index h = head; h < std::min(head + info.chunk[0], info.shape[0]); ++h) {
          if (t == 0)
            missing.insert(static_cast<std::size_t>(h));
          else
            markKv(h);
        }
      }
    }
    if (missing.empty()) return;
    for (const std::size_t i : missing) call.unavailableHeads.push_back(call.heads[i]);
    std::sort(call.unavailableHeads.begin(), call.unavailableHeads.end());
    call.unavailableReason = reason;
    call.available = missing.size() < call.heads.size();
    m_sink.warn("unwritten", group.path(),
                fmt::format("{} of {} heads are not available: {}", missing.size(), call.heads.size(), reason));
  }

  void readFrames() {
    const auto group = m_root.tryGroup("frames");
    if (!group) return;
    const auto rgb = group->tryDataset("rgb");
    if (!rgb) return;
    const h5::DatasetInfo& info = rgb->info();
    if (info.shape.size() != 4 || info.shape[3] != 3)
      rgb->failFormat(
          fmt::format("has shape {}, expected [frames, height, width, 3]; write RGB bytes", h5::shapeText(info.shape)));
    if (info.type.cls != h5::TypeClass::Integer || info.type.size != 1)
      rgb->failFormat(fmt::format("is {}, expected uint8; write RGB bytes", info.type.name));
    const Index bytes = h5::elementCount(info.shape, rgb->where());
    requireWithinFile(*rgb, m_root);
    rgb->requireReadable();
    constexpr Index kMaxFrameBytes = Index{1} << 31;
    if (bytes > std::min(kMaxFrameBytes, m_memoryLimit)) {
      m_sink.warn(
          "frames", rgb->path(),
          fmt::format("preview frames of {} are not shown; store smaller ones", bytesText(static_cast<double>(bytes))));
      return;
    }
    if (bytes == 0) return;
    FramesInfo frames;
    frames.count = static_cast<int>(info.shape[0]);
    frames.height = static_cast<int>(info.shape[1]);
    frames.width = static_cast<int>(info.shape[2]);
    frames.fps = rgb->tryReal("fps").value_or(group->tryReal("fps").value_or(0));
    m_out.info.frames = frames;
  }

  void readTruth() {
    const auto ext = m_root.tryGroup("ext");
    const auto synth = ext ? ext->tryGroup("synth") : std::nullopt;
    const auto truth = synth ? synth->tryDataset("truth") : std::nullopt;
    if (!truth) return;
    if (truth->info().shape.size() != 3 || truth->info().type.cls != h5::TypeClass::Integer ||
        !truth->hasAttribute("classes") || h5::elementCount(truth->info().shape, truth->where()) > (Index{1} << 26)) {
      m_sink.warn("truth", truth->path(), "is not int8 [steps, layers, heads] with attribute 'classes'; ignored");
      return;
    }
    m_out.info.hasSyntheticTruth = true;
  }

  void sortCalls() {
    auto& calls = m_out.info.calls;
    std::vector<std::size_t> order(calls.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return calls[a].id < calls[b].id; });
    std::vector<CallInfo> sorted;
    std::vector<CallSource> sources;
    std::map<int, std::string> componentOf;
    for (const std::size_t i : order) {
      const auto [it, isNew] = componentOf.try_emplace(calls[i].id.step, calls[i].component);
      if (!isNew && calls[i].available && it->second != calls[i].component) {
        m_sink.warn("component", calls[i].path,
                    fmt::format("component \"{}\" at a step where \"{}\" ran; only one runs at a step",
                                calls[i].component, it->second));
      }
      sorted.push_back(std::move(calls[i]));
      sources.push_back(std::move(m_out.sources[i]));
    }
    calls = std::move(sorted);
    m_out.sources = std::move(sources);
  }

  Index m_memoryLimit;
  Sink& m_sink;
  h5::File m_root;
  ParsedTrace m_out;
  bool m_tokensKnown = false;
  std::vector<int> m_captureLayers, m_captureHeads;
  std::vector<std::string> m_captureBranches, m_captureKinds;
  std::map<std::string, std::size_t> m_parts;
  std::map<CallId, std::string> m_seen;
};

}  // namespace

ParsedTrace parseTrace(const fs::path& path, Index memoryLimitBytes, Sink& sink) {
  return Parser(path, memoryLimitBytes, sink).parse();
}

}  // namespace sparsight::trace
