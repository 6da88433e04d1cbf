# SPDX-License-Identifier: Apache-2.0
# xxhash as its header alone (XXH_INLINE_ALL); the distribution's package has no CMake file. Target: xxhash::xxhash.
find_path(xxhash_INCLUDE_DIR xxhash.h)
mark_as_advanced(xxhash_INCLUDE_DIR)
include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(xxhash REQUIRED_VARS xxhash_INCLUDE_DIR
  REASON_FAILURE_MESSAGE "install libxxhash-dev, or run ./dev install")
if(xxhash_FOUND AND NOT TARGET xxhash::xxhash)
  add_library(xxhash::xxhash INTERFACE IMPORTED)
  set_property(TARGET xxhash::xxhash PROPERTY INTERFACE_INCLUDE_DIRECTORIES ${xxhash_INCLUDE_DIR})
endif()
