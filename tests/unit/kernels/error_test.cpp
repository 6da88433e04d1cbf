// SPDX-License-Identifier: Apache-2.0
#include "sparsight/kernels/error.h"

#include <gtest/gtest.h>

#include <exception>
#include <set>
#include <string>
#include <type_traits>

namespace sparsight {
namespace {

TEST(Error, EveryCodeHasItsOwnName) {
  std::set<std::string_view> names;
  for (const ErrorCode code : {ErrorCode::Io, ErrorCode::Format, ErrorCode::Unsupported, ErrorCode::InvalidArgument,
                               ErrorCode::OutOfMemory, ErrorCode::Device, ErrorCode::Internal}) {
    EXPECT_TRUE(names.insert(errorCodeName(code)).second) << errorCodeName(code);
  }
}

TEST(Error, ContextGoesInFrontAndKeepsTheCode) {
  const Error error = Error(ErrorCode::Format, "rank 3, expected 2").withContext("a.h5:/q");
  EXPECT_STREQ(error.what(), "a.h5:/q: rank 3, expected 2");
  EXPECT_EQ(error.code(), ErrorCode::Format);
}

TEST(Error, CancellingIsNoException) { EXPECT_FALSE((std::is_base_of_v<std::exception, Cancelled>)); }

#ifdef NDEBUG
TEST(Error, AFailedAssertionThrowsInRelease) {
  try {
    SPARSIGHT_ASSERT(1 + 1 == 3);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::Internal);
    EXPECT_NE(std::string(error.what()).find("1 + 1 == 3"), std::string::npos);
  }
}
#endif

}  // namespace
}  // namespace sparsight
