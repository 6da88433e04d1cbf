// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "import/call_sides.h"
#include "sparsight/core/importer.h"
#include "sparsight/core/trace_writer.h"
#include "sparsight/kernels/error.h"

namespace sparsight {
namespace fs = std::filesystem;
namespace {

/// The source's files, of which few are open at a time: a folder may have more than a process may open.
class OpenFiles {
 public:
  OpenFiles(const Survey& survey, fs::path scratch) : m_survey(survey), m_scratch(std::move(scratch)) {
    m_indexInFile.resize(survey.tensors.size());
    for (std::size_t i = 0, first = 0; i < survey.tensors.size(); ++i) {
      if (i > 0 && survey.tensors[i].file != survey.tensors[i - 1].file) first = i;
      m_indexInFile[i] = i - first;
    }
  }

  TensorFile& fileOf(std::size_t tensor) {
    const FoundTensor& wanted = m_survey.tensors[tensor];
    const auto found =
        std::find_if(m_open.begin(), m_open.end(), [&](const Entry& e) { return e.file == wanted.file; });
    if (found != m_open.end()) {
      std::rotate(m_open.begin(), found, found + 1);
      return *m_open.front().opened;
    }
    const fs::path path = m_survey.folder ? m_survey.source / wanted.file : m_survey.source;
    const Importer* importer = importerFor(path);
    if (importer == nullptr)
      throw Error(ErrorCode::Io, fmt::format("{}: changed since it was looked at; try again", path.string()));
    if (m_open.size() >= kMostOpen) m_open.pop_back();
    m_open.insert(m_open.begin(), {wanted.file, importer->open(path, m_scratch)});
    const auto& tensors = m_open.front().opened->tensors();
    const std::size_t at = m_indexInFile[tensor];
    if (at >= tensors.size() || tensors[at].name != wanted.name || tensors[at].shape != wanted.shape ||
        tensors[at].dtype != wanted.dtype) {
      throw Error(ErrorCode::Io, fmt::format("{}: changed since it was looked at; try again", path.string()));
    }
    return *m_open.front().opened;
  }
  [[nodiscard]] std::size_t indexInFile(std::size_t tensor) const { return m_indexInFile[tensor]; }

 private:
  static constexpr std::size_t kMostOpen = 8;
  struct Entry {
    fs::path file;
    std::unique_ptr<TensorFile> opened;
  };
  const Survey& m_survey;
  fs::path m_scratch;
  std::vector<Entry> m_open;  // newest first
  std::vector<std::size_t> m_indexInFile;
};

/// One head's plane, as the writer wants it.
class Plane {
 public:
  void read(OpenFiles& files, const Survey& survey, const PlaneSource& source, const Control& control) {
    const FoundTensor& found = survey.tensors[source.tensor];
    m_type = source.type;
    m_rows = found.shape[source.rowAxis];
    m_columns = found.shape[source.columnAxis];
    m_bytes.resize(static_cast<std::size_t>(m_rows * m_columns) * sourceItemSize(m_type));
    files.fileOf(source.tensor)
        .readPlane(files.indexInFile(source.tensor), source.index, source.rowAxis, source.columnAxis, m_bytes, control);
    if (m_type != SourceType::F64) return;
    for (std::size_t i = 0; i < m_bytes.size() / 8; ++i) {  // in place: a float never overtakes its double
      double wide = 0;
      std::memcpy(&wide, m_bytes.data() + i * 8, 8);
      const auto narrow = static_cast<float>(wide);
      std::memcpy(m_bytes.data() + i * 4, &narrow, 4);
    }
  }
  [[nodiscard]] MatrixView view() const {
    const DType dtype = m_type == SourceType::F16 ? DType::F16 : m_type == SourceType::BF16 ? DType::BF16 : DType::F32;
    return {m_bytes.data(), m_rows, m_columns, m_columns * static_cast<Index>(itemSize(dtype)), dtype};
  }

 private:
  std::vector<std::byte> m_bytes;
  Index m_rows = 0, m_columns = 0;
  SourceType m_type = SourceType::F32;
};

}  // namespace

void runImport(const Survey& survey, const ImportPlan& plan, const fs::path& out, const Control& control) {
  OpenFiles files(survey, out.has_parent_path() ? out.parent_path() : fs::path("."));
  Index total = 0, done = 0;
  for (const PlannedCall& call : plan.calls) total += static_cast<Index>(call.q.size() + call.k.size() + call.v.size());
  const auto step = [&](Index planes) {
    done += planes;
    control.report(static_cast<double>(done) / static_cast<double>(total));
    control.checkpoint();
  };
  control.checkpoint();
  const import::PlaneReader read = [&](const PlaneSource& source, std::span<std::byte> bytes) {
    files.fileOf(source.tensor)
        .readPlane(files.indexInFile(source.tensor), source.index, source.rowAxis, source.columnAxis, bytes, control);
  };
  const auto rowsOf = [&](const PlannedCall& call) {
    const TokenLayout& layout = call.header.layout ? *call.header.layout : plan.header.layout;
    return import::readQueryRows(survey, call, layout.tokenCount, read);
  };
  for (const PlannedCall& call : plan.calls) static_cast<void>(rowsOf(call));  // refused before hours of writing
  TraceWriter writer(out, plan.header, plan.options);
  Plane q, k, v;
  for (const PlannedCall& call : plan.calls) {
    const std::vector<Index> rows = rowsOf(call);
    const import::CallMasks masks = import::readMasks(survey, call, rows, plan.memoryLimitBytes, read);
    CallHeader header = call.header;
    header.qRows = rows;
    header.keyValid = masks.keyValid;
    header.denseMask = masks.dense;
    writer.beginCall(header);
    for (std::size_t i = 0; i < call.q.size(); ++i) {
      q.read(files, survey, call.q[i], control);
      writer.writeQuery(i, q.view());
      step(1);
    }
    for (std::size_t i = 0; i < call.k.size(); ++i) {
      k.read(files, survey, call.k[i], control);
      if (!call.v.empty()) v.read(files, survey, call.v[i], control);
      writer.writeKeyValue(i, k.view(), call.v.empty() ? MatrixView() : v.view());
      step(call.v.empty() ? 1 : 2);
    }
    writer.endCall();
  }
  writer.finish();
}

}  // namespace sparsight
