// SPDX-License-Identifier: Apache-2.0
// The map with oneDNN's bf16 product, which leaves the scores in fp32 (torch rounds them to bf16), then the epilogue.
// Compiled where oneDNN is found.
#include <fmt/format.h>
#include <omp.h>

#include <map>
#include <oneapi/dnnl/dnnl.hpp>
#include <vector>

#include "baselines_common.h"

namespace sparsight::bench {
namespace {

/// Products of one thread: primitives are made once per number of rows.
class Products {
 public:
  Products(const BenchHead& head, const dnnl::engine& engine) : m_head(head), m_engine(engine), m_stream(engine) {}

  void run(Index first, Index rows, float* scores) {
    const dnnl::memory::dim tokens = m_head.in.k.rows;
    const dnnl::memory::dim dim = m_head.in.k.cols;
    const auto bytes = [](const std::byte* data) { return const_cast<std::byte*>(data); };  // the API reads only
    Product& product = productOf(rows, tokens, dim);
    const dnnl::memory q(product.q, m_engine, bytes(m_head.q.data()) + first * dim * 2);
    const dnnl::memory k(product.k, m_engine, bytes(m_head.k.data()));
    const dnnl::memory s(product.s, m_engine, scores);
    product.matmul.execute(m_stream, {{DNNL_ARG_SRC, q}, {DNNL_ARG_WEIGHTS, k}, {DNNL_ARG_DST, s}});
    m_stream.wait();
    const auto scale = static_cast<float>(m_head.in.scale);
    for (Index i = 0; i < rows * tokens; ++i) scores[i] *= scale;
  }

 private:
  struct Product {
    dnnl::memory::desc q, k, s;
    dnnl::matmul matmul;
  };

  Product& productOf(Index rows, dnnl::memory::dim tokens, dnnl::memory::dim dim) {
    const auto found = m_products.find(rows);
    if (found != m_products.end()) return found->second;
    using Type = dnnl::memory::data_type;
    using Tag = dnnl::memory::format_tag;
    Product product;
    product.q = {{rows, dim}, Type::bf16, Tag::ab};
    product.k = {{dim, tokens}, Type::bf16, Tag::ba};  // the keys as they lie, read transposed
    product.s = {{rows, tokens}, Type::f32, Tag::ab};
#if DNNL_VERSION_MAJOR >= 3
    product.matmul = dnnl::matmul(dnnl::matmul::primitive_desc(m_engine, product.q, product.k, product.s));
#else
    product.matmul =
        dnnl::matmul(dnnl::matmul::primitive_desc(dnnl::matmul::desc(product.q, product.k, product.s), m_engine));
#endif
    return m_products.emplace(rows, std::move(product)).first->second;
  }

  const BenchHead& m_head;
  const dnnl::engine& m_engine;
  dnnl::stream m_stream;
  std::map<Index, Product> m_products;
};

void onednnMap(benchmark::State& state, Index tokens, Index dim) {
  const auto head = makeBenchHead(tokens, dim, DType::BF16);
  const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  std::vector<Products> products;
  for (int t = 0; t < allCores(); ++t) products.emplace_back(*head, engine);
  measureBaselineMap(state, *head, allCores(), [&](int thread, Index first, Index rows, float* scores) {
    omp_set_num_threads(1);  // of this thread: our threads, one product each
    products[static_cast<std::size_t>(thread)].run(first, rows, scores);
  });
}

const bool kRegistered = [] {
  for (const Index tokens : baselineTokens()) {
    const std::string name = fmt::format("baseline/onednn/map/bf16/d128/{}/threads:{}", tokens, allCores());
    benchmark::RegisterBenchmark(name.c_str(), [=](benchmark::State& state) {
      onednnMap(state, tokens, 128);
    })->Unit(benchmark::kMillisecond);
  }
  return true;
}();

}  // namespace
}  // namespace sparsight::bench
