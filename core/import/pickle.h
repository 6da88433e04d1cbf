// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "sparsight/kernels/types.h"

// The pickles that torch.save writes, as data. Nothing is ever called: a handful of globals (storages, dtypes, the
// functions that rebuild tensors) have a meaning here, every other one is refused by name.
namespace sparsight::import {

/// Where a storage lies and what its elements are, as its persistent id says.
struct PickledStorage {
  std::string key;    ///< member data/<key>
  std::string dtype;  ///< "float16", "int64", ...; "" for untyped bytes
  Index elements = 0;
};

struct PickledTensor {
  PickledStorage storage;
  Index offset = 0;  ///< in elements
  std::vector<Index> shape, strides;
};

struct PickleValue {
  enum class Kind : std::uint8_t {
    None,
    Bool,
    Integer,
    Real,
    Text,
    Bytes,
    Tuple,
    List,
    Dict,
    Global,
    Storage,
    Tensor,
    Opaque
  };
  Kind kind = Kind::None;
  std::int64_t integer = 0;
  double real = 0;
  std::string text;                  ///< Text, Global ("module name")
  std::vector<std::uint32_t> items;  ///< Tuple, List; Dict: key, value, key, value, ...
  std::uint32_t tensor = 0;          ///< in Pickle::tensors; Storage: in storages
};

struct Pickle {
  std::vector<PickleValue> values;  ///< an arena, since values refer to each other
  std::vector<PickledStorage> storages;
  std::vector<PickledTensor> tensors;
  std::uint32_t root = 0;
};

/// Throws Error{Unsupported} naming a global or opcode that is not data, Error{Format} for malformed pickles. `name` is
/// of the file, for messages. Memory is bounded by the text's length.
[[nodiscard]] Pickle parsePickle(std::string_view text, const std::string& name);

}  // namespace sparsight::import
