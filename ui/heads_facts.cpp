// SPDX-License-Identifier: Apache-2.0
#include "ui/heads_facts.h"

#include <algorithm>
#include <utility>

namespace sparsight {
namespace {

HeadFacts computeFacts(const Trace& trace, const HeadId& id, JobContext& context) {
  HeadFacts facts;
  const Control control{context.stop(), {}};
  const HeadData head = trace.load(id, context.stop());
  Backend& backend = context.backend();
  const std::shared_ptr<const PreparedHead> prepared = backend.prepare(head.input, head.keepAlive, control);

  StatsOptions options;
  options.evaluate.rows = HeadFactsStore::kSampledRows;
  facts.stats = computeStats(head, *prepared, options, backend, control);

  const Method& svg = methodById("svg");
  const TraceInfo& info = trace.info();
  ParamSet params = ParamSet::parse(svg.params(), {});
  auto defaults = svg.defaultsFor(info, params);
  for (const ParamSpec& spec : svg.params()) defaults.try_emplace(spec.name, spec.defaultValue);
  params.setDefaults(std::move(defaults));
  const std::vector<int> steps = info.steps();
  const auto ordinal = static_cast<int>(std::lower_bound(steps.begin(), steps.end(), id.call.step) - steps.begin());
  const MethodInput input{
      head,    *prepared, params, 0, 0, ordinal, info.run.numInferenceSteps, info.model.numLayers, info.run.timesteps,
      nullptr, false};
  try {
    const std::unique_ptr<MethodState> state = svg.newState();
    const Plan plan = svg.plan(input, state.get(), backend, control);
    facts.headClass = plan.headClass;
    facts.margin = plan.margin;
  } catch (const Error& error) {
    // No value tensor, no video grid: the statistics still stand, the class is not known.
    facts.error = error.what();
  }
  return facts;
}

}  // namespace

HeadFactsStore::HeadFactsStore(JobQueue& queue, QObject* parent) : QObject(parent), m_queue(queue) {}
HeadFactsStore::~HeadFactsStore() = default;

void HeadFactsStore::setTrace(std::shared_ptr<const Trace> trace) {
  if (trace == m_trace) return;
  m_job.cancel();
  m_job = {};
  m_busy = false;
  m_trace = std::move(trace);
  m_facts.clear();
  m_wanted.clear();
  m_next = 0;
}

void HeadFactsStore::request(std::vector<HeadId> heads) {
  std::erase_if(heads, [this](const HeadId& id) { return m_facts.contains(id); });
  m_wanted = std::move(heads);
  m_next = 0;
  if (m_busy) {
    // The one in work is either wanted again (it will be skipped when it is there) or is finished for later.
    return;
  }
  startNext();
}

void HeadFactsStore::setPaused(bool paused) {
  m_paused = paused;
  if (!paused && !m_busy) startNext();
  Q_EMIT updated();
}

const HeadFacts* HeadFactsStore::find(const HeadId& id) const {
  const auto it = m_facts.find(id);
  return it == m_facts.end() ? nullptr : &it->second;
}

void HeadFactsStore::startNext() {
  while (m_next < m_wanted.size() && m_facts.contains(m_wanted[m_next])) ++m_next;
  if (m_paused || !m_trace || m_next >= m_wanted.size()) {
    m_busy = false;
    Q_EMIT updated();
    return;
  }
  const HeadId id = m_wanted[m_next++];
  m_busy = true;
  JobSpec spec;
  spec.name = "Look at layer " + std::to_string(id.call.layer) + " head " + std::to_string(id.head);
  spec.lane = Lane::Compute;
  spec.priority = -10;
  m_job = m_queue.submit<HeadFacts>(
      std::move(spec), [trace = m_trace, id](JobContext& context) { return computeFacts(*trace, id, context); },
      [this, trace = m_trace, id](Outcome<HeadFacts> outcome) {
        if (trace != m_trace) return;
        m_busy = false;
        if (HeadFacts* facts = std::get_if<HeadFacts>(&outcome)) {
          m_facts.insert_or_assign(id, std::move(*facts));
        } else if (const Error* error = std::get_if<Error>(&outcome)) {
          HeadFacts failed;
          failed.error = error->what();
          m_facts.insert_or_assign(id, std::move(failed));
        }
        startNext();
        Q_EMIT updated();
      });
}

}  // namespace sparsight
