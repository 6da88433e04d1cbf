// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>
#include <png.h>

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <nlohmann/json.hpp>
#include <optional>

#include "sparsight/core/attention_map.h"
#include "sparsight/core/palette.h"
#include "sparsight/core/run.h"
#include "sparsight/core/trace.h"
#include "tests/cli/method_command.h"

namespace sparsight {
namespace {

using test::Program;
using test::runProgram;

std::string fileText(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream all;
  all << file.rdbuf();
  return all.str();
}

class MapTest : public testing::Test {
 protected:
  void SetUp() override {
    if (const char* old = std::getenv("XDG_CACHE_HOME"); old != nullptr) m_oldCache = old;
    ::setenv("XDG_CACHE_HOME", m_folder.path().c_str(), 1);
  }
  void TearDown() override {
    if (m_oldCache)
      ::setenv("XDG_CACHE_HOME", m_oldCache->c_str(), 1);
    else
      ::unsetenv("XDG_CACHE_HOME");
  }
  std::optional<std::string> m_oldCache;
  test::ScratchFolder m_folder;
  std::string m_trace = test::writeSmallTrace(m_folder.path() / "trace.h5");

  [[nodiscard]] std::string file(const char* name) const { return (m_folder.path() / name).string(); }
  [[nodiscard]] Program map(std::vector<std::string> more) const {
    std::vector<std::string> arguments{"map", m_trace, "--quiet", "--head", "1"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return runProgram(arguments);
  }
  [[nodiscard]] std::vector<float> expected(const TileRect& rect, Reduce reduce, const std::vector<Index>& qOrder = {},
                                            const std::vector<Index>& kOrder = {}) const {
    const auto trace = openTrace(m_trace);
    HeadSelection selection;
    selection.heads = Selector::parse("1");
    const HeadData head = trace->load(selectHeads(trace->info(), selection).front());
    const auto backend = createReferenceBackend();
    return mapRegion(head, rect, reduce, qOrder, kOrder, *backend, Control{});
  }
  static std::vector<float> npyCells(const std::string& text, const std::string& shape) {
    EXPECT_EQ(text.substr(0, 8), std::string("\x93NUMPY\x01\x00", 8));
    const std::size_t header = static_cast<unsigned char>(text[8]) + 256U * static_cast<unsigned char>(text[9]);
    EXPECT_EQ((10 + header) % 64, 0U);
    EXPECT_NE(text.find("'descr': '<f4', 'fortran_order': False, 'shape': " + shape), std::string::npos);
    std::vector<float> cells((text.size() - 10 - header) / sizeof(float));
    std::memcpy(cells.data(), text.data() + 10 + header, cells.size() * sizeof(float));
    return cells;
  }
  static void expectSame(const std::vector<float>& got, const std::vector<float>& want) {
    ASSERT_EQ(got.size(), want.size());
    for (std::size_t i = 0; i < want.size(); ++i) EXPECT_NEAR(got[i], want[i], 1e-5F * want[i] + 1e-9F) << i;
  }
};

TEST_F(MapTest, WholeMapIsWrittenAtOneCellPerTokenByDefault) {
  const Program done = map({"--out", file("whole.npy"), "--json"});
  ASSERT_EQ(done.exitCode, 0) << done.err;
  const auto json = nlohmann::json::parse(done.out);
  EXPECT_EQ(json["cells"], (nlohmann::json{240, 240}));
  EXPECT_EQ(json["reduce"], "max");
  EXPECT_EQ(json["head"], 1);
  const auto cells = npyCells(fileText(file("whole.npy")), "(240, 240)");
  expectSame(cells, expected({0, 240, 0, 240, 240, 240}, Reduce::Max));
  double rowSum = 0;
  for (std::size_t c = 0; c < 240; ++c) rowSum += static_cast<double>(cells[7 * 240 + c]);
  EXPECT_NEAR(rowSum, 1.0, 1e-4) << "cells of one pair each are probabilities";
}

TEST_F(MapTest, ARegionUsesTheRowLseThatAnEarlierPassLeftOnDisk) {
  const auto region = [this](const char* name, std::vector<std::string> more = {}) {
    std::vector<std::string> arguments{"--rows", "10:97",  "--cols", "30:120",  "--cells",
                                       "29x30",  "--json", "--out",  file(name)};
    arguments.insert(arguments.end(), more.begin(), more.end());
    const Program done = map(arguments);
    EXPECT_EQ(done.exitCode, 0) << done.err;
    return nlohmann::json::parse(done.out)["row_lse"].get<std::string>();
  };
  const std::filesystem::path maps = m_folder.path() / "sparsight" / "maps";
  EXPECT_EQ(region("a.npy"), "computed");
  ASSERT_EQ(map({"--out", file("whole.npy"), "--no-cache"}).exitCode, 0);
  EXPECT_FALSE(std::filesystem::exists(maps)) << "--no-cache leaves nothing";
  ASSERT_EQ(map({"--out", file("whole.npy")}).exitCode, 0);
  EXPECT_TRUE(std::filesystem::exists(maps));
  EXPECT_EQ(region("b.npy"), "disk cache");
  EXPECT_EQ(region("c.npy", {"--no-cache"}), "computed");
  EXPECT_EQ(region("d.h5"), "disk cache");
  const auto want = expected({10, 97, 30, 120, 29, 30}, Reduce::Max);
  for (const char* name : {"a.npy", "b.npy", "c.npy"}) expectSame(npyCells(fileText(file(name)), "(29, 30)"), want);
  EXPECT_EQ(fileText(file("a.npy")), fileText(file("c.npy")));
  EXPECT_EQ(h5::File::openRead(file("d.h5")).readString("row_lse"), "disk cache");
  // The window's limit holds here too: none means that nothing is looked up.
  std::ofstream(maps / "limit") << "0\n";
  EXPECT_EQ(region("g.npy"), "computed");
  std::filesystem::remove_all(maps);
  EXPECT_EQ(region("h.npy"), "computed");
}

TEST_F(MapTest, RegionCellsAndPoolingAreHonoured) {
  const Program done =
      map({"--rows", "10:97", "--cols", "5:", "--cells", "7x11", "--reduce", "mean", "--out", file("r.npy")});
  ASSERT_EQ(done.exitCode, 0) << done.err;
  EXPECT_TRUE(done.out.empty());
  expectSame(npyCells(fileText(file("r.npy")), "(7, 11)"), expected({10, 97, 5, 240, 7, 11}, Reduce::Mean));
}

TEST_F(MapTest, Hdf5CarriesWhatItIs) {
  const Program done = map({"--cells", "8x6", "--out", file("m.h5")});
  ASSERT_EQ(done.exitCode, 0) << done.err;
  const h5::File map = h5::File::openRead(file("m.h5"));
  EXPECT_EQ(map.readString("format"), "sparsight-map");
  EXPECT_EQ(map.readString("reduce"), "max");
  EXPECT_EQ(map.readString("order"), "model");
  EXPECT_EQ(map.readString("trace_uuid"), "small");
  EXPECT_EQ(map.readInt("head"), 1);
  EXPECT_EQ(map.readInt("step"), 1);
  EXPECT_EQ(map.readInts("rows"), (std::vector<std::int64_t>{0, 240}));
  const h5::Dataset cells = map.openDataset("map");
  EXPECT_EQ(cells.info().shape, (std::vector<Index>{8, 6}));
  expectSame(cells.read<float>(), expected({0, 240, 0, 240, 8, 6}, Reduce::Max));
}

TEST_F(MapTest, PngHasTheColoursOfItsValues) {
  const Program done =
      map({"--cells", "12x16", "--palette", "magma", "--range", "1e-4", "0.5", "--out", file("m.png")});
  ASSERT_EQ(done.exitCode, 0) << done.err;
  png_image image{};
  image.version = PNG_IMAGE_VERSION;
  ASSERT_NE(png_image_begin_read_from_file(&image, file("m.png").c_str()), 0) << image.message;
  image.format = PNG_FORMAT_RGB;
  ASSERT_EQ(image.width, 16U);
  ASSERT_EQ(image.height, 12U);
  std::vector<std::uint8_t> pixels(PNG_IMAGE_SIZE(image));
  ASSERT_NE(png_image_finish_read(&image, nullptr, pixels.data(), 0, nullptr), 0);
  const auto want = expected({0, 240, 0, 240, 12, 16}, Reduce::Max);
  const ValueRange range{1e-4, 0.5, ValueScale::Log};
  const auto table = extendedTable(Palette::Magma, {0xC9, 0xCD, 0xD4});
  for (std::size_t i = 0; i < want.size(); ++i) {
    const Rgb color = table[static_cast<std::size_t>(paletteEntry(static_cast<double>(want[i]), range))];
    EXPECT_NEAR(pixels[3 * i], color.r, 2) << i;
    EXPECT_NEAR(pixels[3 * i + 1], color.g, 2) << i;
    EXPECT_NEAR(pixels[3 * i + 2], color.b, 2) << i;
  }
  EXPECT_NE(fileText(file("m.png")).find("max-pooled"), std::string::npos) << "the picture says what it shows";
}

TEST_F(MapTest, PlanFileGivesTheOrder) {
  const Program planned = runProgram({"run", m_trace, "--method", "svg", "--param", "force_class=temporal", "--head",
                                      "1", "--plan", file("plan.h5"), "--quiet"});
  ASSERT_EQ(planned.exitCode, 0) << planned.err;
  const auto plans = readPlanFile(file("plan.h5"));
  ASSERT_EQ(plans.size(), 1U);
  ASSERT_FALSE(plans.front().plan.qOrder.empty()) << "a temporal head is laid out token by token";
  const Program done = map({"--cells", "20x20", "--order", file("plan.h5"), "--out", file("o.npy")});
  ASSERT_EQ(done.exitCode, 0) << done.err;
  const auto cells = npyCells(fileText(file("o.npy")), "(20, 20)");
  const TileRect rect{0, 240, 0, 240, 20, 20};
  expectSame(cells, expected(rect, Reduce::Max, plans.front().plan.qOrder, plans.front().plan.kOrder));
  EXPECT_NE(cells, expected(rect, Reduce::Max));
  const Program other =
      runProgram({"map", m_trace, "--head", "0", "--order", file("plan.h5"), "--out", file("x.npy"), "--quiet"});
  EXPECT_EQ(other.exitCode, 2);
  EXPECT_NE(other.err.find("no plan of"), std::string::npos) << other.err;
}

TEST_F(MapTest, MistakesAreNamedAndLeaveNoFile) {
  struct Case {
    std::vector<std::string> arguments;
    int code;
    const char* says;
  };
  const std::string out = file("no.npy");
  for (const Case& c : std::vector<Case>{{{"--out", file("no.tiff")}, 2, ".npy, .png or .h5"},
                                         {{"--rows", "5:5", "--out", out}, 2, "--rows"},
                                         {{"--cols", "0:241", "--out", out}, 2, "--cols"},
                                         {{"--cols", "abc", "--out", out}, 2, "--cols"},
                                         {{"--cells", "0x4", "--out", out}, 2, "cells"},
                                         {{"--cells", "99999999x99999999", "--out", out}, 2, "cells"},
                                         {{"--reduce", "sum", "--out", out}, 2, "reduce"},
                                         {{"--range", "1", "0.5", "--out", out}, 2, "--range"},
                                         {{"--order", file("none.h5"), "--out", out}, 3, "none.h5"},
                                         {{"--layer", "9", "--out", out}, 2, "9"},
                                         {{"--out", file("missing/dir.npy")}, 3, "missing"}}) {
    const Program done = map(c.arguments);
    EXPECT_EQ(done.exitCode, c.code) << done.err;
    EXPECT_NE(done.err.find(c.says), std::string::npos) << done.err;
    EXPECT_EQ(std::count(done.err.begin(), done.err.end(), '\n'), 1) << done.err;
    EXPECT_FALSE(std::filesystem::exists(out));
  }
  const Program two = runProgram({"map", m_trace, "--out", out, "--quiet"});
  EXPECT_EQ(two.exitCode, 2);
  EXPECT_NE(two.err.find("one head"), std::string::npos) << two.err;
}

}  // namespace
}  // namespace sparsight
