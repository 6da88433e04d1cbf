// SPDX-License-Identifier: Apache-2.0
// The CUDA backend's host code and kernel bodies against the oracle, on the emulated machine.
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <numeric>
#include <random>

#include "sparsight/kernels/backend.h"
#include "tests/support/backend_ops_cases.h"
#include "tests/support/emulated_cuda.h"

namespace sparsight {
namespace {

std::uint16_t toBf16(float value) { return static_cast<std::uint16_t>(std::bit_cast<std::uint32_t>(value) >> 16U); }
// Values of a few bits only, so that the conversion to binary16 is exact without rounding rules.
std::uint16_t toHalf(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  if (value == 0.0F) return static_cast<std::uint16_t>(bits >> 16U);
  const std::uint32_t exponent = ((bits >> 23U) & 0xFFU) - 112U;
  return static_cast<std::uint16_t>(((bits >> 16U) & 0x8000U) | (exponent << 10U) | ((bits >> 13U) & 0x3FFU));
}

struct Shape {
  Index nq = 100, nk = 150, d = 16, dv = 16;
  DType dtype = DType::F32;
  double scale = 0.3;
  float amplitude = 1.0F;
  bool keyPadding = false, queryPadding = false, denseMask = false;
  std::uint32_t seed = 1;
};

// A head with its own storage; rows lie farther apart than they are long, as in an interleaved trace.
class TestHead {
 public:
  explicit TestHead(const Shape& s) : m_random(s.seed) {
    in.q = matrix(s.nq, s.d, s.dtype, s.amplitude);
    in.k = matrix(s.nk, s.d, s.dtype, s.amplitude);
    if (s.dv > 0) in.v = matrix(s.nk, s.dv, s.dtype, 1.0F);
    in.scale = s.scale;
    if (s.keyPadding) in.keyValid = flags(s.nk, 4);
    if (s.queryPadding) in.queryValid = flags(s.nq, 5);
    if (s.denseMask) in.denseMask = flags(s.nq * s.nk, 3);
  }
  AttentionIn in;

 private:
  MatrixView matrix(Index rows, Index cols, DType dtype, float amplitude) {
    const Index stride = (cols + 3) * static_cast<Index>(itemSize(dtype));
    m_data.emplace_back(static_cast<std::size_t>(rows * stride), std::byte{0x7F});
    std::uniform_int_distribution<int> level(-64, 64);
    for (Index r = 0; r < rows; ++r) {
      for (Index c = 0; c < cols; ++c) {
        const float value = amplitude * static_cast<float>(level(m_random)) / 64.0F;
        std::byte* at = m_data.back().data() + r * stride + c * static_cast<Index>(itemSize(dtype));
        if (dtype == DType::F32) {
          std::memcpy(at, &value, sizeof value);
        } else {
          const std::uint16_t bits = dtype == DType::F16 ? toHalf(value) : toBf16(value);
          std::memcpy(at, &bits, sizeof bits);
        }
      }
    }
    return {m_data.back().data(), rows, cols, stride, dtype};
  }
  std::span<const std::uint8_t> flags(Index count, int oneZeroIn) {
    m_flags.emplace_back(static_cast<std::size_t>(count));
    std::uniform_int_distribution<int> draw(1, oneZeroIn);
    for (auto& flag : m_flags.back()) flag = draw(m_random) == 1 ? 0 : 1;
    return m_flags.back();
  }

  std::mt19937 m_random;
  std::vector<std::vector<std::byte>> m_data;
  std::vector<std::vector<std::uint8_t>> m_flags;
};

void expectClose(std::span<const float> actual, std::span<const float> expected, double relative, double absolute,
                 const char* what) {
  ASSERT_EQ(actual.size(), expected.size()) << what;
  for (std::size_t i = 0; i < actual.size(); ++i) {
    if (std::isnan(expected[i])) {
      ASSERT_TRUE(std::isnan(actual[i])) << what << " " << i << ": " << actual[i] << ", expected NaN";
    } else if (std::isinf(expected[i])) {
      ASSERT_EQ(actual[i], expected[i]) << what << " " << i;
    } else {
      const double tolerance = absolute + relative * std::abs(static_cast<double>(expected[i]));
      ASSERT_NEAR(static_cast<double>(actual[i]), static_cast<double>(expected[i]), tolerance) << what << " " << i;
    }
  }
}

class CudaEmulated : public ::testing::Test {
 protected:
  void SetUp() override {
    resetEmulatedCuda();
    m_cuda = createEmulatedCudaBackend(m_executor);
  }
  void TearDown() override {
    m_cuda.reset();
    resetEmulatedCuda();
  }

  // The device of the backend under test; tensor cores from 8.0.
  void usePath(int major, int minor) {
    emulated::machine().major = major;
    emulated::machine().minor = minor;
    m_cuda = createEmulatedCudaBackend(m_executor);
  }

  void compareLseMap(const Shape& shape, std::vector<Index> rowBounds, std::vector<Index> colBounds) {
    const TestHead head(shape);
    const auto onCuda = m_cuda->prepare(head.in, nullptr, {});
    const auto onOracle = m_oracle->prepare(head.in, nullptr, {});
    LseMapRequest request;
    request.rowBounds = rowBounds;
    request.colBounds = colBounds;
    const LseMapResult actual = m_cuda->lseMap(*onCuda, request, {});
    const LseMapResult expected = m_oracle->lseMap(*onOracle, request, {});
    expectClose(actual.lse, expected.lse, 1e-6, 1e-5, "lse");
    expectClose(actual.mean, expected.mean, 1e-4, 1e-12, "mean");
    expectClose(actual.max, expected.max, 1e-4, 1e-12, "max");
  }

  static std::vector<Index> even(Index size, Index blocks) {
    std::vector<Index> bounds;
    for (Index i = 0; i <= blocks; ++i) bounds.push_back(i * size / blocks);
    return bounds;
  }

  Executor m_executor{2};
  std::unique_ptr<Backend> m_cuda;
  std::unique_ptr<Backend> m_oracle = createReferenceBackend();
};

// The emulated device is a Hopper: float16 and bfloat16 cases run on its kernels where they take them, else on tensor
// cores.
TEST_F(CudaEmulated, OperationTable) {
  for (const testing::OpCase& opCase : testing::opCases()) {
    SCOPED_TRACE(opCase.name);
    testing::checkAllOps(*m_cuda, opCase);
  }
}

TEST_F(CudaEmulated, OperationTableOnTensorCores) {
  usePath(8, 0);
  for (const testing::OpCase& opCase : testing::opCases()) {
    if (opCase.dtype == DType::F32) continue;  // float32 has one path only
    SCOPED_TRACE(opCase.name);
    testing::checkAllOps(*m_cuda, opCase);
  }
}

TEST_F(CudaEmulated, OperationTableOnAnOldDevice) {
  usePath(7, 5);
  for (const testing::OpCase& opCase : testing::opCases()) {
    if (opCase.dtype == DType::F32) continue;  // float32 has one path only
    SCOPED_TRACE(opCase.name);
    testing::checkAllOps(*m_cuda, opCase);
  }
}

TEST_F(CudaEmulated, LseWithoutMap) {
  for (const Index n : {1, 3, 63, 64, 65, 200}) {
    Shape shape;
    shape.nq = n;
    shape.nk = 2 * n + 1;
    compareLseMap(shape, {}, {});
  }
}

TEST_F(CudaEmulated, EveryTypeAndHeadDim) {
  for (const DType dtype : {DType::F32, DType::F16, DType::BF16}) {
    for (const Index d : {1, 8, 10, 12, 16, 17, 64, 80, 128, 256}) {
      Shape shape;
      shape.dtype = dtype;
      shape.d = d;
      shape.seed = static_cast<std::uint32_t>(d);
      SCOPED_TRACE(::testing::Message() << dtypeName(dtype) << " head_dim " << d);
      compareLseMap(shape, even(shape.nq, 7), even(shape.nk, 9));
    }
  }
}

TEST_F(CudaEmulated, PartitionsOfEverySize) {
  Shape shape;
  compareLseMap(shape, even(100, 100), even(150, 150));  // one token per cell
  compareLseMap(shape, even(100, 1), even(150, 1));      // one cell
  compareLseMap(shape, {0, 0, 1, 64, 64, 65, 100, 100}, {0, 0, 63, 64, 65, 65, 65, 130, 150, 150});  // empty blocks
  compareLseMap(shape, even(100, 170), even(150, 333));  // more blocks than tokens
}

TEST_F(CudaEmulated, ColumnsWiderThanASubBlock) {
  Shape shape;
  shape.nq = 70;
  shape.nk = 5000;
  shape.d = 8;
  compareLseMap(shape, even(70, 3), {0, 4500, 4500, 5000});
}

TEST_F(CudaEmulated, PaddingAndMasks) {
  for (int bits = 1; bits < 8; ++bits) {
    Shape shape;
    shape.keyPadding = (bits & 1) != 0;
    shape.queryPadding = (bits & 2) != 0;
    shape.denseMask = (bits & 4) != 0;
    SCOPED_TRACE(::testing::Message() << "key padding, query padding, dense mask: bits " << bits);
    compareLseMap(shape, even(100, 9), {0, 5, 5, 64, 100, 149, 150});
    compareLseMap(shape, {}, {});
  }
}

TEST_F(CudaEmulated, ScaleOfAnySignAndExtremeLogits) {
  for (const double scale : {0.0, -0.5, 1e4, -1e4, 1e-6}) {
    Shape shape;
    shape.scale = scale;
    SCOPED_TRACE(::testing::Message() << "scale " << scale);
    compareLseMap(shape, even(100, 5), even(150, 6));
  }
}

TEST_F(CudaEmulated, ManyLaunches) {
  Shape shape;
  shape.nq = 300;
  for (const bool masked : {false, true}) {
    shape.keyPadding = masked;
    shape.denseMask = masked;
    for (const bool byWork : {false, true}) {
      m_cuda = createEmulatedCudaBackend(byWork ? 1.0 : 1e12, byWork ? 1 << 30 : 1);
      const int before = emulated::machine().launches;
      compareLseMap(shape, {0, 10, 63, 64, 64, 129, 300}, even(150, 20));
      EXPECT_EQ(emulated::machine().launches - before, 5 * 3);  // 5 panels of 64 rows, 3 kernels each
      const TestHead head(shape);
      std::vector<Index> rows(300);
      std::iota(rows.rbegin(), rows.rend(), 0);
      const AttendResult actual = m_cuda->attend(*m_cuda->prepare(head.in, nullptr, {}), rows, {}, {});
      const AttendResult expected = m_oracle->attend(*m_oracle->prepare(head.in, nullptr, {}), rows, {}, {});
      EXPECT_EQ(actual.count, expected.count);
      expectClose(actual.out, expected.out, 1e-4, 2e-6, "out");
    }
  }
}

TEST_F(CudaEmulated, NoValidKeyAnywhere) {
  Shape shape;
  TestHead head(shape);
  const std::vector<std::uint8_t> none(150, 0);
  head.in.keyValid = none;
  const auto prepared = m_cuda->prepare(head.in, nullptr, {});
  const std::vector<Index> rows = even(100, 2);
  const std::vector<Index> cols = even(150, 2);
  LseMapRequest request;
  request.rowBounds = rows;
  request.colBounds = cols;
  const LseMapResult result = m_cuda->lseMap(*prepared, request, {});
  for (const float lse : result.lse) EXPECT_EQ(lse, -INFINITY);
  for (const float mean : result.mean) EXPECT_TRUE(std::isnan(mean));
  for (const float max : result.max) EXPECT_TRUE(std::isnan(max));
}

TEST_F(CudaEmulated, TypesMayDiffer) {
  Shape half;
  half.dtype = DType::F16;
  Shape wide;
  const TestHead a(half);
  const TestHead b(wide);
  AttentionIn in = a.in;
  in.k = b.in.k;
  const auto actual = m_cuda->lseMap(*m_cuda->prepare(in, nullptr, {}), {}, {});
  const auto expected = m_oracle->lseMap(*m_oracle->prepare(in, nullptr, {}), {}, {});
  expectClose(actual.lse, expected.lse, 1e-6, 1e-5, "lse");
}

TEST_F(CudaEmulated, TileOfARegion) {
  for (const bool masked : {false, true}) {
    Shape shape;
    shape.keyPadding = masked;
    shape.queryPadding = masked;
    shape.denseMask = masked;
    const TestHead head(shape);
    const auto onCuda = m_cuda->prepare(head.in, nullptr, {});
    const auto onOracle = m_oracle->prepare(head.in, nullptr, {});
    const LseMapResult whole = m_oracle->lseMap(*onOracle, {}, {});
    for (const TileRect& rect : {TileRect{0, 100, 0, 150, 10, 10}, TileRect{17, 90, 33, 120, 73, 87},
                                 TileRect{99, 100, 149, 150, 1, 1}, TileRect{5, 8, 60, 70, 9, 4}}) {
      for (const Reduce reduce : {Reduce::Mean, Reduce::Max}) {
        expectClose(m_cuda->tile(*onCuda, whole.lse, rect, reduce, {}),
                    m_oracle->tile(*onOracle, whole.lse, rect, reduce, {}), 1e-4, 1e-12, "tile");
      }
    }
  }
}

TEST_F(CudaEmulated, AttendDenseAndIntervals) {
  for (const Index dv : {0, 1, 16, 64, 80, 128, 200, 256}) {
    for (const bool masked : {false, true}) {
      Shape shape;
      shape.dv = dv;
      shape.nk = 300;
      shape.keyPadding = masked;
      shape.queryPadding = masked;
      shape.denseMask = masked;
      shape.dtype = dv % 3 == 0 ? DType::F32 : dv % 3 == 1 ? DType::BF16 : DType::F16;
      SCOPED_TRACE(::testing::Message() << "values of dimension " << dv << (masked ? ", masked" : ""));
      const TestHead head(shape);
      const auto onCuda = m_cuda->prepare(head.in, nullptr, {});
      const auto onOracle = m_oracle->prepare(head.in, nullptr, {});
      std::vector<Index> rows;
      for (Index i = 0; i < 99; ++i) rows.push_back((i * 37) % 100);
      const std::vector<Interval> intervals{{0, 1},     {5, 64},   {64, 65}, {100, 300},  // group 0
                                            {299, 300},                                   // group 2
                                            {63, 64},   {130, 140}};                      // group 3
      const std::vector<Index> ptr{0, 4, 4, 5, 7};
      std::vector<Index> group;
      for (Index i = 0; i < 99; ++i) group.push_back(i % 4);
      for (const RowKeep& keep : {RowKeep{}, RowKeep{ptr, intervals, group}}) {
        const AttendResult actual = m_cuda->attend(*onCuda, rows, keep, {});
        const AttendResult expected = m_oracle->attend(*onOracle, rows, keep, {});
        EXPECT_EQ(actual.count, expected.count);
        expectClose(actual.lse, expected.lse, 1e-6, 1e-5, "lse");
        expectClose(actual.out, expected.out, 1e-4, 2e-6, "out");
      }
    }
  }
}

TEST_F(CudaEmulated, PaddingValuesMayBeAnything) {
  Shape shape;
  TestHead head(shape);
  std::vector<float> values(150 * 16, 1.0F);
  std::vector<std::uint8_t> valid(150, 1);
  valid[7] = 0;
  for (std::size_t c = 0; c < 16; ++c) values[7 * 16 + c] = NAN;
  head.in.v = viewOf(values, 150, 16);
  head.in.keyValid = valid;
  const std::vector<Index> rows{0, 1, 2};
  const AttendResult result = m_cuda->attend(*m_cuda->prepare(head.in, nullptr, {}), rows, {}, {});
  for (const float value : result.out) EXPECT_NEAR(static_cast<double>(value), 1.0, 1e-5);
}

TEST_F(CudaEmulated, SameBitsEveryTime) {
  Shape shape;
  shape.nk = 3000;
  const TestHead head(shape);
  const auto prepared = m_cuda->prepare(head.in, nullptr, {});
  const std::vector<Index> rows = even(100, 9);
  const std::vector<Index> cols = even(3000, 11);
  LseMapRequest request;
  request.rowBounds = rows;
  request.colBounds = cols;
  const LseMapResult first = m_cuda->lseMap(*prepared, request, {});
  const LseMapResult second = m_cuda->lseMap(*prepared, request, {});
  EXPECT_EQ(first.lse, second.lse);
  EXPECT_EQ(first.mean, second.mean);
  EXPECT_EQ(first.max, second.max);
}

TEST_F(CudaEmulated, DeviceMemoryIsGivenBack) {
  const std::size_t before = emulated::machine().allocatedBytes;
  {
    const TestHead head(Shape{});
    const auto prepared = m_cuda->prepare(head.in, nullptr, {});
    EXPECT_GE(prepared->bytes(), 2 * 100 * 16 * 4);
    static_cast<void>(m_cuda->lseMap(*prepared, {}, {}));
  }
  m_cuda.reset();
  EXPECT_EQ(emulated::machine().allocatedBytes, before);
  EXPECT_TRUE(emulated::machine().allocations.empty());
}

TEST_F(CudaEmulated, OutOfMemoryLeavesTheDeviceUsable) {
  m_cuda.reset();
  emulated::machine().freeBytes = 200'000;  // budget: 160,000
  m_cuda = createEmulatedCudaBackend(m_executor);
  Shape large;
  large.nk = 4000;
  const TestHead big(large);
  try {
    static_cast<void>(m_cuda->prepare(big.in, nullptr, {}));
    FAIL() << "4000 keys of 64 bytes must not fit";
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::OutOfMemory);
    EXPECT_NE(std::string(e.what()).find("memory budget"), std::string::npos) << e.what();
  }
  const TestHead small(Shape{});
  EXPECT_EQ(m_cuda->lseMap(*m_cuda->prepare(small.in, nullptr, {}), {}, {}).lse.size(), 100U);
}

TEST_F(CudaEmulated, StickyErrorIsRemembered) {
  const TestHead head(Shape{});
  const auto prepared = m_cuda->prepare(head.in, nullptr, {});
  emulated::machine().launchesUntilFailure = 1;
  for (int attempt = 0; attempt < 2; ++attempt) {
    try {
      static_cast<void>(m_cuda->lseMap(*prepared, {}, {}));
      FAIL() << "the device is lost";
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::Device);
      EXPECT_NE(std::string(e.what()).find("cudaErrorIllegalAddress"), std::string::npos) << e.what();
    }
  }
  std::string why;
  EXPECT_FALSE(probeEmulatedCuda(why));
  EXPECT_NE(why.find("restart the program"), std::string::npos) << why;
}

TEST_F(CudaEmulated, StopsBeforeTheNextLaunch) {
  const TestHead head(Shape{});
  const auto prepared = m_cuda->prepare(head.in, nullptr, {});
  std::stop_source source;
  source.request_stop();
  Control control;
  control.stop = source.get_token();
  const int before = emulated::machine().launches;
  EXPECT_THROW(static_cast<void>(m_cuda->lseMap(*prepared, {}, control)), Cancelled);
  EXPECT_EQ(emulated::machine().launches, before);
}

TEST_F(CudaEmulated, RefusesForeignHeadsAndWideOnes) {
  const TestHead head(Shape{});
  const auto foreign = m_oracle->prepare(head.in, nullptr, {});
  EXPECT_THROW(static_cast<void>(m_cuda->lseMap(*foreign, {}, {})), Error);
  for (const Op op : {Op::LseMap, Op::Tile, Op::Attend, Op::AttendTop, Op::RowStats, Op::GlobalTop, Op::Cluster,
                      Op::PermuteKeys, Op::ScoreClusters, Op::SelectLargest}) {
    EXPECT_TRUE(m_cuda->supports(op, DType::F16, 256));
    EXPECT_FALSE(m_cuda->supports(op, DType::F16, 257));
  }
}

TEST(CudaEmulatedProbe, SaysWhatIsMissing) {
  struct Case {
    int driver, devices, major, minor;
    const char* wanted;
  };
  for (const Case& c : {Case{0, 0, 9, 0, "no NVIDIA driver"}, Case{12040, 1, 9, 0, "supports CUDA 12.4"},
                        Case{13000, 0, 9, 0, "reports no device"}, Case{13000, 1, 7, 0, "compute capability 7.0"}}) {
    resetEmulatedCuda();
    emulated::machine().driverVersion = c.driver;
    emulated::machine().devices = c.devices;
    emulated::machine().major = c.major;
    emulated::machine().minor = c.minor;
    std::string why;
    EXPECT_FALSE(probeEmulatedCuda(why));
    EXPECT_NE(why.find(c.wanted), std::string::npos) << why;
    EXPECT_EQ(why.find('\n'), std::string::npos);
  }
  resetEmulatedCuda();
  emulated::machine().launchesUntilFailure = 0;
  emulated::machine().launchError = cudaErrorNoKernelImageForDevice;
  std::string why;
  EXPECT_FALSE(probeEmulatedCuda(why));
  EXPECT_NE(why.find("SPARSIGHT_CUDA_ARCHITECTURES=90-real"), std::string::npos) << why;
  resetEmulatedCuda();
  EXPECT_TRUE(probeEmulatedCuda(why)) << why;
  EXPECT_TRUE(why.empty());
}

}  // namespace
}  // namespace sparsight
