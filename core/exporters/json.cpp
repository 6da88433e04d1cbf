// SPDX-License-Identifier: Apache-2.0
// Our own profile format, which keeps everything.
#include <fmt/format.h>

#include "sparsight/core/exporter.h"

namespace sparsight {
namespace {

class JsonExporter final : public Exporter {
 public:
  [[nodiscard]] std::string_view id() const noexcept override { return "json"; }
  [[nodiscard]] std::string_view title() const noexcept override { return "Sparsight JSON"; }
  [[nodiscard]] std::string_view summary() const noexcept override {
    return "Values, holes, locks, notes, where they come from (schema in resources/profile.schema.json).";
  }
  [[nodiscard]] std::string_view suffix() const noexcept override { return "json"; }
  [[nodiscard]] int order() const noexcept override { return 1; }
  [[nodiscard]] bool wantsWholeGrid() const noexcept override { return false; }
  [[nodiscard]] ExportOutput prepare(const ExportInput& input) const override {
    ExportOutput output;
    output.files.push_back({input.out, formatProfileJson(completeForExport(*this, input, output)), false});
    output.load.push_back(fmt::format("sparsight {}", shellWord(absolutePath(input.out))));
    return output;
  }
};

}  // namespace

const Exporter& json_exporter() {
  static const JsonExporter exporter;
  return exporter;
}

}  // namespace sparsight
