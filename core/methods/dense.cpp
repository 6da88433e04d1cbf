// SPDX-License-Identifier: Apache-2.0
#include "sparsight/core/method.h"

namespace sparsight {
namespace {

class DenseMethod final : public Method {
 public:
  [[nodiscard]] std::string_view id() const noexcept override { return "dense"; }
  [[nodiscard]] std::string_view title() const noexcept override { return "Dense"; }
  [[nodiscard]] std::string_view summary() const noexcept override {
    return "Keeps every key: the baseline that the others are measured against.";
  }
  [[nodiscard]] std::span<const ParamSpec> params() const noexcept override { return m_params; }
  [[nodiscard]] Plan plan(const MethodInput& input, MethodState*, Backend&, const Control& control) const override {
    control.checkpoint();
    return densePlan(input.head.input.q.rows, input.head.input.k.rows);
  }

 private:
  std::vector<ParamSpec> m_params = withCommonParams({});
};

}  // namespace

const Method& dense_method() {
  static const DenseMethod method;
  return method;
}

}  // namespace sparsight
