// SPDX-License-Identifier: Apache-2.0
// Files of other programs come from strangers. The first byte chooses the ending and options, the rest is the file: it
// must be answered with an Error, or converted into a trace that opens.
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>

#include "sparsight/core/importer.h"
#include "sparsight/kernels/error.h"

using namespace sparsight;

namespace {

const std::filesystem::path& folder() {
  static const std::filesystem::path path = [] {
    const auto memory = std::filesystem::path("/dev/shm");
    const auto base = std::filesystem::is_directory(memory) ? memory : std::filesystem::temp_directory_path();
    const auto own = base / ("sparsight-fuzz-" + std::to_string(::getpid()));
    std::filesystem::create_directories(own);
    return own;
  }();
  return path;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  constexpr const char* kSuffixes[] = {".safetensors", ".npy", ".npz", ".pt", ".jsonl", ".sh", ".json", ".bin"};
  const std::filesystem::path file = folder() / (std::string("f") + kSuffixes[data[0] % std::size(kSuffixes)]);
  std::ofstream(file, std::ios::binary)
      .write(reinterpret_cast<const char*>(data) + 1, static_cast<std::streamsize>(size - 1));
  try {
    const Importer* importer = importerFor(file);
    if (importer != nullptr && importer->isProfile()) {
      static_cast<void>(importer->readProfile(file, {20, 4, 4, {}}));
    } else {
      const Survey survey = surveySource(file);
      ImportOptions options;
      options.raw16 = SourceType::BF16;
      options.memoryLimitBytes = 1 << 20;
      options.cross = (data[0] & 8U) != 0;
      if ((data[0] & 16U) != 0) options.kind = "cross";
      if ((data[0] & 32U) != 0) options.branches = {"uncond", "cond"};
      ImportDraft draft = draftImport(survey, options);
      if (!draft.plan && !draft.grids.empty()) {
        options.grid = draft.grids.front().grid;
        options.text = draft.grids.front().text;
        draft = draftImport(survey, options);
      }
      if (draft.plan && draft.plan->bytes < 1 << 22) {
        runImport(survey, *draft.plan, folder() / "out.h5", {});
        static_cast<void>(openTrace(folder() / "out.h5"));
      }
    }
  } catch (const Error&) {
  }
  std::filesystem::remove(file);
  return 0;
}
