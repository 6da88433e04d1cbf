// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "app/cli/command.h"
#include "app/cli/png_writer.h"
#include "sparsight/core/attention_map.h"
#include "sparsight/core/files.h"
#include "sparsight/core/palette.h"

namespace sparsight::cli {
namespace {

constexpr Index kDefaultCells = 512;

Index parseNumber(std::string_view text, const std::string& option, const std::string& whole) {
  Index value = 0;
  bool ok = !text.empty() && text.size() <= 15;
  for (const char c : text) {
    ok = ok && c >= '0' && c <= '9';
    value = value * 10 + (c - '0');
  }
  if (!ok)
    throw Error(ErrorCode::InvalidArgument,
                fmt::format("{}: '{}' is not of the form it takes; see --help", option, whole));
  return value;
}

/// "a:b", "a:", ":b": half open, 0-based.
Interval parseRange(const std::string& text, const std::string& option, Index size) {
  if (text.empty()) return {0, size};
  const std::size_t colon = text.find(':');
  if (colon == std::string::npos) {
    throw Error(ErrorCode::InvalidArgument, fmt::format("{} takes a:b (first:last+1), not '{}'", option, text));
  }
  const std::string_view first = std::string_view(text).substr(0, colon),
                         last = std::string_view(text).substr(colon + 1);
  const Interval range{first.empty() ? 0 : parseNumber(first, option, text),
                       last.empty() ? size : parseNumber(last, option, text)};
  if (range.first >= range.last || range.last > size) {
    throw Error(ErrorCode::InvalidArgument, fmt::format("{} {} is empty or outside 0:{}", option, text, size));
  }
  return range;
}

std::pair<Index, Index> parseCells(const std::string& text, Index rows, Index cols) {
  if (text.empty()) return {std::min(kDefaultCells, rows), std::min(kDefaultCells, cols)};
  const std::size_t cross = text.find_first_of("xX");
  if (cross == std::string::npos) {
    throw Error(ErrorCode::InvalidArgument, fmt::format("--cells takes HxW, for example 256x256, not '{}'", text));
  }
  return {parseNumber(std::string_view(text).substr(0, cross), "--cells", text),
          parseNumber(std::string_view(text).substr(cross + 1), "--cells", text)};
}

std::string headText(const HeadId& id) {
  return fmt::format("step {} {} layer {} {} head {}", id.call.step, id.call.branch, id.call.layer, id.call.kind,
                     id.head);
}

class MapCommand : public Command {
 public:
  void define(CLI::App& app) override {
    app.add_option("trace", m_trace, "Trace file")->required();
    m_selectors.define(app, false);
    app.add_option("--rows", m_rows, "Query rows a:b of the region, in the order shown; default all");
    app.add_option("--cols", m_cols, "Keys a:b of the region, in the order shown; default all");
    app.add_option("--cells", m_cells, "Cells HxW of the picture; default one per token, at most 512x512");
    app.add_option("--reduce", m_reduce, "How a cell pools its pairs")->check(CLI::IsMember({"max", "mean"}));
    app.add_option("--order", m_order, "Token order: model, or the computed order in a plan file");
    app.add_option("--out", m_out, "F.npy (float32), F.png (picture, log scale 1e-7 to 1) or F.h5")->required();
    app.add_option("--palette", m_palette, "Colours of a PNG")
        ->check(CLI::IsMember({"viridis", "magma", "inferno", "cividis", "grey"}));
    app.add_option("--range", m_range, "Lowest and highest value of a PNG's colours")->expected(2);
    app.add_flag("--linear", m_linear, "Linear colour scale of a PNG; default logarithmic");
    app.add_flag("--json", m_json, "Print what was written as JSON");
  }

  int run(Context& context) override {
    const std::filesystem::path out = m_out;
    const std::string suffix = out.extension().string();
    if (suffix != ".npy" && suffix != ".png" && suffix != ".h5") {
      throw Error(ErrorCode::InvalidArgument, fmt::format("--out {}: name it .npy, .png or .h5", m_out));
    }
    const ValueRange range = valueRange();
    const std::unique_ptr<Trace> trace = openTrace(m_trace, context.traceOptions());
    std::vector<std::filesystem::path> inputs = filesOf(trace->info());
    if (m_order != "model") inputs.emplace_back(m_order);
    context.checkOutputs({{"--out", out}}, std::move(inputs));
    const std::vector<HeadId> heads = selectHeads(trace->info(), m_selectors.selection());
    if (heads.size() != 1) {
      throw Error(
          ErrorCode::InvalidArgument,
          fmt::format("map draws one head, but {} are selected; give --step, --layer and --head", heads.size()));
    }
    const Control control = context.control("map");
    HeadData head = trace->loadScores(heads.front(), control.stop);
    if (context.includePadding()) head.input.keyValid = head.input.queryValid = {};

    std::vector<Index> qOrder, kOrder;
    if (m_order != "model") readOrder(heads.front(), head, qOrder, kOrder);
    const Interval rows = parseRange(m_rows, "--rows", head.input.q.rows);
    const Interval cols = parseRange(m_cols, "--cols", head.input.k.rows);
    const auto [cellRows, cellCols] = parseCells(m_cells, rows.last - rows.first, cols.last - cols.first);
    const TileRect rect{rows.first, rows.last, cols.first, cols.last, cellRows, cellCols};
    const Reduce reduce = m_reduce == "mean" ? Reduce::Mean : Reduce::Max;
    const std::shared_ptr<MapCache> cache = context.mapCache();
    bool cachedLse = false;
    const std::vector<float> cells =
        mapRegion(head, rect, reduce, qOrder, kOrder, context.backend(), control, cache.get(), &cachedLse);
    if (cellRows > rows.last - rows.first || cellCols > cols.last - cols.first) {
      context.warn(fmt::format("{}x{} cells are more than the region's {}x{} tokens; cells without a token are NaN",
                               cellRows, cellCols, rows.last - rows.first, cols.last - cols.first));
    }
    control.report(1.0);
    for (const std::string& fallback : context.backend().takeFallbacks()) context.warn(fallback);

    const std::string order = m_order == "model" ? "model" : std::filesystem::path(m_order).filename().string();
    if (suffix == ".npy") {
      writeMapNpy(out, cells, cellRows, cellCols);
    } else if (suffix == ".h5") {
      MapFileInfo info;
      info.head = heads.front();
      info.rect = rect;
      info.reduce = reduce;
      info.order = order;
      info.traceUuid = trace->info().uuid;
      info.tracePath = m_trace;
      info.program = context.program;
      info.cachedLse = cachedLse;
      writeMapHdf5(out, cells, info);
    } else {
      writePng(context, out, cells, rect, range, heads.front(), order);
    }
    if (m_json) {
      nlohmann::ordered_json json;
      json["out"] = m_out;
      json["step"] = heads.front().call.step;
      json["branch"] = heads.front().call.branch;
      json["layer"] = heads.front().call.layer;
      json["kind"] = heads.front().call.kind;
      json["head"] = heads.front().head;
      json["rows"] = {rect.row0, rect.row1};
      json["cols"] = {rect.col0, rect.col1};
      json["cells"] = {cellRows, cellCols};
      json["reduce"] = m_reduce;
      json["order"] = order;
      json["backend"] = context.backend().info().id;
      json["row_lse"] = cachedLse ? "disk cache" : "computed";
      printJson(json.dump(2));
    }
    return kOk;
  }

 private:
  [[nodiscard]] ValueRange valueRange() const {
    ValueRange range;
    range.scale = m_linear ? ValueScale::Linear : ValueScale::Log;
    if (m_linear) range.minimum = 0.0;
    if (m_range.size() == 2) {
      range.minimum = m_range[0];
      range.maximum = m_range[1];
    }
    if (!(range.minimum < range.maximum) || (!m_linear && range.minimum <= 0.0)) {
      throw Error(ErrorCode::InvalidArgument,
                  "--range takes LOW HIGH with LOW below HIGH, and LOW above 0 unless --linear");
    }
    return range;
  }

  void readOrder(const HeadId& id, const HeadData& head, std::vector<Index>& qOrder, std::vector<Index>& kOrder) const {
    std::vector<PlanFileEntry> plans = readPlanFile(m_order);
    const auto found =
        std::find_if(plans.begin(), plans.end(), [&](const PlanFileEntry& entry) { return entry.id == id; });
    if (found == plans.end()) {
      throw Error(
          ErrorCode::InvalidArgument,
          fmt::format("{}: no plan of {}; run the method on that head with --plan first", m_order, headText(id)));
    }
    if (found->plan.queryCount != head.input.q.rows || found->plan.keyCount != head.input.k.rows) {
      throw Error(ErrorCode::InvalidArgument,
                  fmt::format("{}: the plan of {} is for {} x {} tokens, the head has {} x {}", m_order, headText(id),
                              found->plan.queryCount, found->plan.keyCount, head.input.q.rows, head.input.k.rows));
    }
    qOrder = std::move(found->plan.qOrder);
    kOrder = std::move(found->plan.kOrder);
  }

  void writePng(const Context& context, const std::filesystem::path& out, const std::vector<float>& cells,
                const TileRect& rect, const ValueRange& range, const HeadId& id, const std::string& order) const {
    constexpr Rgb kNoData{0xC9, 0xCD, 0xD4};
    const auto table = extendedTable(paletteByName(m_palette).value_or(Palette::Viridis), kNoData);
    std::vector<Rgb> pixels(cells.size());
    for (std::size_t i = 0; i < cells.size(); ++i) {
      pixels[i] = table[static_cast<std::size_t>(paletteEntry(static_cast<double>(cells[i]), range))];
    }
    const std::string what = fmt::format(
        "attention probability of {}, rows {}:{}, keys {}:{}, {}-pooled, order {}, {} scale {:g} to {:g}, {}",
        headText(id), rect.row0, rect.row1, rect.col0, rect.col1, m_reduce, order, m_linear ? "linear" : "log10",
        range.minimum, range.maximum, m_palette);
    writeFileAtomically(out,
                        encodePng(pixels, rect.cellRows, rect.cellCols,
                                  {{"Title", "Attention map"}, {"Description", what}, {"Software", context.program}}));
  }

  SelectorOptions m_selectors;
  std::string m_trace, m_rows, m_cols, m_cells, m_reduce = "max", m_order = "model", m_out, m_palette = "viridis";
  std::vector<double> m_range;
  bool m_linear = false, m_json = false;
};

}  // namespace
}  // namespace sparsight::cli

namespace sparsight {
const CommandInfo& map_command() {
  static const CommandInfo info{"map", "Pooled exact attention probabilities of one head as array, picture or HDF5",
                                []() -> std::unique_ptr<cli::Command> { return std::make_unique<cli::MapCommand>(); }};
  return info;
}
}  // namespace sparsight
