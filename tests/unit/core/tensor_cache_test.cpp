// SPDX-License-Identifier: Apache-2.0
#include "core/trace/tensor_cache.h"

#include <gtest/gtest.h>

#include <cstring>

namespace sparsight::trace {
namespace {

constexpr Index kTensor = Index{1} << 20;

std::shared_ptr<Tensor> fill(TensorCache& cache, Index head, int value, Index bytes = kTensor) {
  auto tensor = std::make_shared<Tensor>();
  tensor->buffer = cache.newBuffer(bytes);
  std::memset(tensor->buffer.data(), value, tensor->buffer.size());
  cache.insert({0, 'q', head}, tensor, bytes);
  return tensor;
}

TEST(TensorCache, MemoryOfATensorThatGoesServesTheNext) {
  TensorCache cache(2 * kTensor);
  const std::byte* first = fill(cache, 0, 1)->buffer.data();
  fill(cache, 1, 2);
  EXPECT_EQ(fill(cache, 2, 3)->buffer.data(), first);
  EXPECT_EQ(cache.find<Tensor>({0, 'q', 0}), nullptr);
  ASSERT_NE(cache.find<Tensor>({0, 'q', 1}), nullptr);
  EXPECT_EQ(cache.find<Tensor>({0, 'q', 1})->buffer.data()[kTensor - 1], std::byte{2});
}

TEST(TensorCache, ATensorInUseKeepsItsMemory) {
  TensorCache cache(2 * kTensor);
  const auto used = fill(cache, 0, 1);
  fill(cache, 1, 2);
  const auto next = fill(cache, 2, 3);
  EXPECT_NE(next->buffer.data(), used->buffer.data());
  EXPECT_EQ(used->buffer.data()[0], std::byte{1});
  EXPECT_EQ(used->buffer.data()[kTensor - 1], std::byte{1});
}

TEST(TensorCache, CachedAndWaitingMemoryAreOneBudget) {
  TensorCache cache(3 * kTensor);
  for (Index head = 0; head < 3; ++head) fill(cache, head, 1);
  auto large = fill(cache, 3, 2, 2 * kTensor);  // two of the three go; another size: their memory is given back
  EXPECT_LE(cache.bytes() + cache.waitingBytes(), 3 * kTensor);
  EXPECT_EQ(cache.waitingBytes(), 0);
  std::vector<std::shared_ptr<Tensor>> used;
  for (Index head = 4; head < 9; ++head) used.push_back(fill(cache, head, 3));
  large.reset();
  used.clear();  // all at once, with a full cache
  EXPECT_LE(cache.bytes() + cache.waitingBytes(), 3 * kTensor);
}

TEST(TensorCache, WithoutABudgetNothingWaits) {
  TensorCache cache(0);
  fill(cache, 0, 1);
  EXPECT_EQ(cache.bytes(), 0);
  EXPECT_EQ(cache.waitingBytes(), 0);
}

TEST(TensorCache, ATensorMayOutliveTheCache) {
  std::shared_ptr<Tensor> tensor;
  {
    TensorCache cache(4 * kTensor);
    tensor = fill(cache, 0, 7);
  }
  EXPECT_EQ(tensor->buffer.data()[kTensor - 1], std::byte{7});
}

}  // namespace
}  // namespace sparsight::trace
