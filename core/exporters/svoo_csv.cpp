// SPDX-License-Identifier: Apache-2.0
// SVOO's budget file: Step,Layer,Head,Sparsity, whose last column is a kept fraction.
#include <fmt/format.h>

#include "sparsight/core/exporter.h"
#include "svoo_lines.h"

namespace sparsight {
namespace {

class SvooCsvExporter final : public Exporter {
 public:
  [[nodiscard]] std::string_view id() const noexcept override { return "svoo-csv"; }
  [[nodiscard]] std::string_view title() const noexcept override { return "SVOO CSV"; }
  [[nodiscard]] std::string_view summary() const noexcept override {
    return "Step,Layer,Head,Sparsity, whose values are kept fractions; the file SVOO's launch scripts load.";
  }
  [[nodiscard]] std::string_view suffix() const noexcept override { return "csv"; }
  [[nodiscard]] int order() const noexcept override { return 0; }
  [[nodiscard]] std::span<const ParamSpec> params() const noexcept override { return m_params; }
  [[nodiscard]] std::vector<ExportModel> models() const override { return svoo::exportModels(); }
  [[nodiscard]] ExportOutput prepare(const ExportInput& input) const override {
    ExportOutput output;
    const Profile profile = svoo::floorsOf(*this, input, output);
    const svoo::Clip clip = svoo::clipOf(input.params);
    output.files.push_back({input.out, formatSvooCsv(profile), false});
    output.load = svoo::launchLines(profile, input.model, input.out, clip);
    if (profile.lineEnding != "\r\n") {
      output.notes.emplace_back("line ends as in the file it came from, not SVOO's CRLF");
    }
    for (std::string& line : svoo::aboutSteps(svoo::modelByKey(input.model))) output.notes.push_back(std::move(line));
    output.notes.emplace_back(
        "SVOO prints \"Loaded N ... entries\" when it uses the file; without that line it runs without it.");
    return output;
  }

 private:
  std::vector<ParamSpec> m_params = svoo::clipParams();
};

}  // namespace

const Exporter& svoo_csv_exporter() {
  static const SvooCsvExporter exporter;
  return exporter;
}

}  // namespace sparsight
