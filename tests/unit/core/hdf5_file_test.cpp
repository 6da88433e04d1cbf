// SPDX-License-Identifier: Apache-2.0
#include "trace/hdf5_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <filesystem>
#include <fstream>
#include <limits>
#include <numeric>
#include <thread>

#include "sparsight/kernels/error.h"
#include "tests/support/trace_builder.h"

namespace sparsight::h5 {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing_support::Hdf5Editor;
using testing_support::TemporaryFolder;

template <class F>
std::string messageOf(F&& f) {
  try {
    f();
  } catch (const Error& error) {
    return error.what();
  }
  ADD_FAILURE() << "no error";
  return {};
}

TEST(Hdf5File, AttributesComeBackAsWritten) {
  const TemporaryFolder folder;
  {
    File file = File::create(folder / "a.h5");
    Group g = file.createGroup("deep/er");
    g.writeInt("i", std::numeric_limits<std::int64_t>::min());
    g.writeInt32("i32", -7);
    g.writeByte("b", 255);
    g.writeReal("r", 0.1);
    g.writeString("s", "caf\xc3\xa9");
    g.writeString("empty", "");
    g.writeStrings("list", std::vector<std::string>{"x", "", "zz"});
    g.writeArray("a", std::vector<float>{1.5F, -2.0F});
    g.writeInt("i", 5);  // again: replaced
    g.writeStrings("none", {});
  }
  const File file = File::openRead(folder / "a.h5");
  const Group g = file.openGroup("deep/er");
  EXPECT_EQ(g.path(), "/deep/er");
  EXPECT_EQ(g.readInt("i"), 5);
  EXPECT_EQ(g.readInt("i32"), -7);
  EXPECT_EQ(g.readInt("b"), 255);
  EXPECT_EQ(g.readReal("r"), 0.1);
  EXPECT_EQ(g.readReal("i32"), -7.0);  // integers are numbers too
  EXPECT_EQ(g.readString("s"), "caf\xc3\xa9");
  EXPECT_EQ(g.readString("empty"), "");
  EXPECT_THAT(g.readStrings("list"), ElementsAre("x", "", "zz"));
  EXPECT_THAT(g.readReals("a"), ElementsAre(1.5, -2.0));
  EXPECT_TRUE(g.readStrings("none").empty());
  EXPECT_EQ(g.tryInt("absent"), std::nullopt);
  EXPECT_THAT(messageOf([&] { (void)g.readInt("absent", "write it"); }),
              HasSubstr("/deep/er: attribute 'absent' is missing; write it"));
  EXPECT_THAT(messageOf([&] { (void)g.readInt("r"); }), HasSubstr("holds floats, expected integers"));
  EXPECT_THAT(messageOf([&] { (void)g.readString("i"); }), HasSubstr("holds integers, expected text"));
}

TEST(Hdf5File, DatasetsOfEveryElementAndStorage) {
  const TemporaryFolder folder;
  const std::vector<std::int64_t> big{1, -2, std::numeric_limits<std::int64_t>::max()};
  const std::array<Index, 2> shape{40, 30};
  std::vector<float> values(1200);
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i);
  {
    File file = File::create(folder / "a.h5");
    file.writeDataset("big", big);
    file.writeDataset("bytes", std::vector<std::uint8_t>{0, 255});
    file.writeDataset("empty", std::vector<std::int32_t>{});
    StorageOptions storage;
    storage.chunk = {16, 30};
    storage.deflate = 4;
    storage.shuffle = true;
    file.writeDataset<float>("packed", values, shape, storage);
    file.writeDataset<float>("a/b/plain", values, shape);
    file.close();
  }
  const File file = File::openRead(folder / "a.h5");
  EXPECT_EQ(file.openDataset("big").read<std::int64_t>(), big);
  EXPECT_EQ(file.openDataset("bytes").read<std::int32_t>(), (std::vector<std::int32_t>{0, 255}));
  EXPECT_TRUE(file.openDataset("empty").read<std::int64_t>().empty());
  const Dataset packed = file.openDataset("packed");
  EXPECT_EQ(packed.info().layout, Layout::Chunked);
  ASSERT_EQ(packed.info().filters.size(), 2U);
  EXPECT_TRUE(packed.info().filters[1].available);
  EXPECT_LT(packed.info().storageBytes, 4800);
  for (const char* name : {"packed", "a/b/plain"}) {
    std::vector<float> part(3 * 5);
    file.openDataset(name).readRaw(std::array<Index, 2>{15, 7}, std::array<Index, 2>{3, 5},
                                   std::as_writable_bytes(std::span(part)));
    for (std::size_t r = 0; r < 3; ++r) {
      for (std::size_t c = 0; c < 5; ++c) EXPECT_EQ(part[r * 5 + c], static_cast<float>((15 + r) * 30 + 7 + c));
    }
  }
  EXPECT_THAT(messageOf([&] { (void)packed.read<float>(1000); }), HasSubstr("1200 elements, more than the 1000"));
  EXPECT_THAT(messageOf([&] { (void)packed.read<std::int64_t>(); }), HasSubstr("holds float32, expected integers"));
  EXPECT_THAT(messageOf([&] { (void)file.openDataset("nope"); }), HasSubstr("/nope: no such dataset"));
  EXPECT_FALSE(file.tryDataset("a").has_value());
  EXPECT_FALSE(file.tryGroup("big").has_value());
  EXPECT_TRUE(file.tryGroup("a").has_value());
}

TEST(Hdf5File, LinksAreListedAndExternalOnesNotFollowed) {
  const TemporaryFolder folder;
  File::create(folder / "other.h5").writeDataset("d", std::vector<float>{1});
  {
    File file = File::create(folder / "a.h5");
    file.writeDataset("d", std::vector<float>{2});
    file.createExternalLink("x", "other.h5", "/d");
  }
  {
    Hdf5Editor edit(folder / "a.h5");
    edit.softLink("/through", "/x");
    edit.softLink("/soft", "/d");
    edit.softLink("/loop", "/loop");
  }
  const File file = File::openRead(folder / "a.h5");
  const auto links = file.links();
  ASSERT_EQ(links.size(), 5U);
  EXPECT_EQ(links[4].kind, LinkKind::External);
  EXPECT_EQ(links[4].targetFile, "other.h5");
  EXPECT_EQ(links[4].targetPath, "/d");
  EXPECT_TRUE(file.tryDataset("soft").has_value());
  EXPECT_FALSE(file.tryDataset("x").has_value());
  EXPECT_FALSE(file.tryDataset("through").has_value());  // a soft link does not smuggle it in
  EXPECT_FALSE(file.tryDataset("loop").has_value());
  EXPECT_THROW((void)file.openDataset("through"), Error);
  EXPECT_EQ(file.link("none").kind, LinkKind::Missing);
}

TEST(Hdf5File, CheckedSizes) {
  EXPECT_EQ(checkedMultiply(3, 4, "x"), 12);
  EXPECT_EQ(elementCount(std::vector<Index>{2, 3, 4}, "x"), 24);
  EXPECT_EQ(elementCount({}, "x"), 1);
  EXPECT_THAT(messageOf([] { (void)checkedMultiply(Index{1} << 40, Index{1} << 40, "q"); }), HasSubstr("q: a size of"));
  EXPECT_THROW((void)elementCount(std::vector<Index>{2, -3}, "x"), Error);
  EXPECT_EQ(shapeText(std::vector<Index>{2, 28, 8}), "[2, 28, 8]");
}

TEST(Hdf5File, FoundBehindAUserBlock) {
  const TemporaryFolder folder;
  File::create(folder / "a.h5").writeDataset("d", std::vector<float>{2});
  EXPECT_TRUE(looksLikeHdf5(folder / "a.h5"));
  EXPECT_FALSE(looksLikeHdf5(folder / "none.h5"));
  EXPECT_FALSE(looksLikeHdf5(folder.path()));
}

// The same numbers in one run and in chunks as wide as the array, read past the library, and in others and compressed,
// read by it. "partly": chunks of which only one was written.
void writeTwins(File file, Index a, Index b, Index c) {
  std::vector<std::int32_t> values(static_cast<std::size_t>(a * b * c));
  std::iota(values.begin(), values.end(), 7);
  const std::vector<Index> shape{a, b, c};
  StorageOptions chunked, blocks, narrow, deflated;
  chunked.chunk = deflated.chunk = {1, 2, c};
  deflated.deflate = 1;
  blocks.chunk = {2, 3, c};
  narrow.chunk = {1, 2, 2};
  for (const auto& [name, storage] : {std::pair{"plain", StorageOptions{}},
                                      {"chunked", chunked},
                                      {"blocks", blocks},
                                      {"narrow", narrow},
                                      {"deflated", deflated}}) {
    file.createDataset(name, Element::I32, shape, storage)
        .writeRaw(std::vector<Index>{0, 0, 0}, shape, std::as_bytes(std::span(values)));
  }
  file.createDataset("partly", Element::I32, shape, chunked)
      .writeRaw(std::vector<Index>{1, 2, 0}, std::vector<Index>{1, 2, c},
                std::as_bytes(std::span(values).first(static_cast<std::size_t>(2 * c))));
  file.close();
}
std::vector<std::int32_t> slabOf(const Dataset& dataset, const std::vector<Index>& start,
                                 const std::vector<Index>& count) {
  std::vector<std::int32_t> out(static_cast<std::size_t>(elementCount(count, "slab")));
  dataset.readRaw(start, count, std::as_writable_bytes(std::span(out)));
  return out;
}

TEST(Hdf5File, RangesReadPastTheLibraryAreWhatItReads) {
  const TemporaryFolder folder;
  constexpr Index kA = 3, kB = 7, kC = 5;
  writeTwins(File::create(folder / "a.h5"), kA, kB, kC);
  {
    // A user block before the file moves every address.
    std::ifstream in(folder / "a.h5", std::ios::binary);
    std::ofstream out(folder / "b.h5", std::ios::binary);
    out << std::string(1024, '#') << in.rdbuf();
  }
  for (const char* name : {"a.h5", "b.h5"}) {
    const File file = File::openRead(folder / name);
    const Dataset plain = file.openDataset("plain"), narrow = file.openDataset("narrow");
    const Dataset chunked = file.openDataset("chunked"), blocks = file.openDataset("blocks");
    EXPECT_TRUE(plain.readsDirectly()) << name;
    // Whether the address of a chunk counts the user block depends on the library's version.
    const bool noUserBlock = std::string_view(name) == "a.h5";
    EXPECT_EQ(chunked.readsDirectly(), noUserBlock) << name;
    EXPECT_EQ(blocks.readsDirectly(), noUserBlock) << name;
    EXPECT_FALSE(narrow.readsDirectly()) << name;
    EXPECT_FALSE(file.openDataset("deflated").readsDirectly()) << name;
    // Every slab of the array: whole rows, single elements, and those that are no one range of bytes.
    for (Index a = 0; a < kA; ++a)
      for (Index na = 1; na <= kA - a; ++na)
        for (Index b = 0; b < kB; ++b)
          for (Index nb = 1; nb <= kB - b; ++nb)
            for (Index c = 0; c < kC; c += 2)
              for (Index nc = 1; nc <= kC - c; ++nc) {
                const std::vector<Index> start{a, b, c}, count{na, nb, nc};
                const std::vector<std::int32_t> wanted = slabOf(narrow, start, count);
                for (const Dataset* each : {&plain, &chunked, &blocks})
                  ASSERT_EQ(slabOf(*each, start, count), wanted)
                      << name << each->where() << " " << shapeText(start) << " + " << shapeText(count);
              }
    std::vector<std::int32_t> partly(kB * kC);
    std::iota(partly.begin() + 2 * kC, partly.begin() + 4 * kC, 7);
    EXPECT_EQ(slabOf(file.openDataset("partly"), {1, 0, 0}, {1, kB, kC}), partly) << "what was never written is zero";
    EXPECT_THROW((void)slabOf(plain, {0, 0, 0}, {kA + 1, kB, kC}), Error) << "beyond the array";
    EXPECT_THROW((void)slabOf(plain, {2, kB, 0}, {1, 1, kC}), Error) << "beyond the array";
    EXPECT_THROW((void)slabOf(chunked, {2, kB - 1, 0}, {1, 2, kC}), Error) << "beyond the array";
    EXPECT_THROW((void)slabOf(chunked, {kA, 0, 0}, {1, 1, kC}), Error) << "beyond the array";
  }
  // A file being written may still hold back what was written to it.
  File written = File::create(folder / "c.h5");
  written.writeDataset("d", std::vector<float>(64, 1.0F));
  EXPECT_FALSE(written.openDataset("d").readsDirectly());
}

TEST(Hdf5File, FileCutWhileOpenIsAnError) {
  const TemporaryFolder folder;
  writeTwins(File::create(folder / "a.h5"), 4, 4096, 16);
  const File file = File::openRead(folder / "a.h5");
  const Dataset plain = file.openDataset("plain");
  std::filesystem::resize_file(folder / "a.h5", static_cast<std::uintmax_t>(plain.info().fileOffset) + 10000);
  EXPECT_EQ(slabOf(plain, {0, 0, 0}, {1, 1, 16})[15], 7 + 15);
  EXPECT_THAT(messageOf([&] {
                (void)slabOf(plain, {0, 0, 0}, {4, 4096, 16});
              }),
              HasSubstr("/plain: cannot read [4, 4096, 16] at [0, 0, 0] (the file ends before it); the file may be "
                        "truncated"));
  const Dataset chunked = file.openDataset("chunked");  // written after "plain": nothing of it is left
  EXPECT_THAT(messageOf([&] { (void)slabOf(chunked, {3, 0, 0}, {1, 4096, 16}); }), HasSubstr("/chunked: "));
}

TEST(Hdf5File, FilesOfSeveralThreadsDoNotMix) {
  const TemporaryFolder folder;
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      const std::string name = std::string(1, static_cast<char>('a' + t)) + ".h5";
      for (int i = 0; i < 10; ++i) {
        File file = File::create(folder / name);
        for (int d = 0; d < 5; ++d)
          file.writeDataset(std::string("g/d") += static_cast<char>('0' + d),
                            std::vector<float>(100, static_cast<float>(t * 10 + d)));
        file.close();
      }
    });
  }
  for (auto& thread : threads) thread.join();
  for (int t = 0; t < 4; ++t) {
    const File file = File::openRead(folder / (std::string(1, static_cast<char>('a' + t)) + ".h5"));
    EXPECT_EQ(file.openDataset("g/d3").read<float>()[99], static_cast<float>(t * 10 + 3));
  }
}

}  // namespace
}  // namespace sparsight::h5
