// SPDX-License-Identifier: Apache-2.0
#include "ui/budget_edit.h"

#include <QCoreApplication>
#include <QLocale>
#include <QRegularExpression>
#include <QStringList>
#include <algorithm>
#include <cmath>
#include <limits>

#include "sparsight/kernels/error.h"

namespace sparsight::budget {
namespace {

QString tr(const char* text) { return QCoreApplication::translate("BudgetEdit", text); }

double rounded(double value) { return std::round(value * 1e4) / 1e4; }

template <class F>
void forEachCell(const CellRange& range, F&& f) {
  for (int s = range.step0; s <= range.step1; ++s) {
    for (int l = range.layer0; l <= range.layer1; ++l) {
      for (int h = range.head0; h <= range.head1; ++h) f(CellId{s, l, h});
    }
  }
}

void accumulate(const Profile& profile, const CellRange& range, ProfileSummary& out) {
  double sum = out.mean * static_cast<double>(out.count);
  forEachCell(range, [&](CellId cell) {
    const auto value = profile.at(cell);
    if (!value) {
      ++out.holes;
      return;
    }
    out.min = out.count == 0 ? *value : std::min(out.min, *value);
    out.max = out.count == 0 ? *value : std::max(out.max, *value);
    sum += *value;
    ++out.count;
  });
  out.mean = out.count > 0 ? sum / static_cast<double>(out.count) : 0;
}

/// Amount x such that the mean of clamp(move(value, x)) is the target; the clamped mean grows with x.
template <class Move>
double solveMean(const std::vector<double>& values, double target, double low, double high, Move move) {
  const auto mean = [&](double x) {
    double sum = 0;
    for (const double v : values) sum += std::clamp(move(v, x), 0.0, 1.0);
    return sum / static_cast<double>(values.size());
  };
  for (int i = 0; i < 60; ++i) {
    const double middle = 0.5 * (low + high);
    (mean(middle) < target ? low : high) = middle;
  }
  return 0.5 * (low + high);
}

}  // namespace

CellRange layerRange(const Profile& profile, int layer, const BudgetScope& scope) {
  CellRange range;
  range.step0 = scope.step.value_or(0);
  range.step1 = scope.step.value_or(profile.steps() - 1);
  range.layer0 = range.layer1 = layer;
  range.head0 = scope.head.value_or(0);
  range.head1 = scope.head.value_or(profile.heads() - 1);
  return range;
}

ProfileSummary summarise(const Profile& profile, int layer, const BudgetScope& scope) {
  ProfileSummary out;
  accumulate(profile, layerRange(profile, layer, scope), out);
  return out;
}

ProfileSummary summarise(const Profile& profile, const BudgetScope& scope) {
  ProfileSummary out;
  CellRange range = layerRange(profile, 0, scope);
  range.layer1 = profile.layers() - 1;
  accumulate(profile, range, out);
  return out;
}

LayerEdit setLayerMeans(const Profile& profile, const std::map<int, double>& targets, const BudgetScope& scope,
                        SpreadMode mode, const QString& label) {
  LayerEdit out;
  std::vector<int> edited;
  double common = std::numeric_limits<double>::quiet_NaN();
  bool sameTarget = true;
  for (const auto& [layer, wanted] : targets) {
    const double target = wanted;  // clang 14 does not capture structured bindings
    if (!(target >= 0 && target <= 1)) {
      throw Error(ErrorCode::InvalidArgument,
                  "layer " + std::to_string(layer) + ": a kept fraction must lie in 0 to 1 (0 to 100 %)");
    }
    if (profile.layerLocked(layer)) {
      out.lockedLayers.push_back(layer);
      continue;
    }
    edited.push_back(layer);
    sameTarget = sameTarget && (std::isnan(common) || common == target);
    common = target;

    const CellRange range = layerRange(profile, layer, scope);
    std::vector<double> values;
    forEachCell(range, [&](CellId cell) {
      if (const auto value = profile.at(cell)) values.push_back(*value);
    });
    double sum = 0;
    for (const double v : values) sum += v;
    const double mean = values.empty() ? 0 : sum / static_cast<double>(values.size());
    // A layer of zeros has no factor that lifts it, an empty one nothing to move.
    SpreadMode how = mode;
    if (values.empty()) how = SpreadMode::SetAll;
    if (how == SpreadMode::Scale && mean <= 0) how = SpreadMode::Shift;
    if (how == SpreadMode::Shift && values.size() == 1) how = SpreadMode::SetAll;
    if (how != SpreadMode::SetAll && std::abs(mean - target) < 1e-12) continue;
    double amount = 0;
    if (how == SpreadMode::Shift) {
      amount = solveMean(values, target, -1, 1, [](double v, double x) { return v + x; });
    } else if (how == SpreadMode::Scale) {
      const double smallest = *std::min_element(values.begin(), values.end(), [](double a, double b) {
        return (a > 0 ? a : 2) < (b > 0 ? b : 2);  // smallest above zero: the factor that brings it to 1 is enough
      });
      amount = solveMean(values, target, 0, 1 / std::max(smallest, 1e-4), [](double v, double x) { return v * x; });
    }
    const bool fillHoles = values.empty() || mode == SpreadMode::SetAll;
    forEachCell(range, [&](CellId cell) {
      const auto before = profile.at(cell);
      if (!before && !fillHoles) return;
      double after = target;
      if (how == SpreadMode::Shift) after = *before + amount;
      if (how == SpreadMode::Scale) after = *before * amount;
      if (after < -5e-5 || after > 1 + 5e-5) ++out.clampedCells;
      after = rounded(std::clamp(after, 0.0, 1.0));
      if (before != after) out.edit.cells.push_back({cell, before, after});
    });
  }
  QString text = label;
  if (text.isEmpty()) {
    text = sameTarget && !edited.empty()
               ? tr("Set kept of %1 to %2 %").arg(layerNames(edited), QString::number(rounded(common) * 100, 'g', 4))
               : tr("Change kept of %1").arg(layerNames(edited));
  }
  if (out.clampedCells > 0) text += tr(" (%1 cells at the limit)").arg(out.clampedCells);
  out.edit.label = text.toStdString();
  return out;
}

ProfileEdit toggleLocks(const Profile& profile, const std::vector<int>& layers) {
  const bool lock = std::any_of(layers.begin(), layers.end(), [&](int l) { return !profile.layerLocked(l); });
  ProfileEdit edit;
  edit.label = (lock ? tr("Lock %1") : tr("Unlock %1")).arg(layerNames(layers)).toStdString();
  for (const int layer : layers) {
    const std::string note = profile.layerNote(layer);
    if (profile.layerLocked(layer) != lock) edit.layers.push_back({layer, !lock, lock, note, note});
  }
  return edit;
}

std::map<int, double> smoothedMeans(const Profile& profile, int firstLayer, int lastLayer, const BudgetScope& scope,
                                    int passes) {
  std::vector<ProfileSummary> all;
  for (int l = 0; l < profile.layers(); ++l) all.push_back(summarise(profile, l, scope));
  std::vector<double> means;
  for (const auto& summary : all) means.push_back(summary.mean);
  const auto usable = [&](int l) {
    return l >= 0 && l < profile.layers() && all[static_cast<std::size_t>(l)].count > 0;
  };
  for (int pass = 0; pass < passes; ++pass) {
    std::vector<double> next = means;
    for (int l = firstLayer; l <= lastLayer; ++l) {
      if (!usable(l) || profile.layerLocked(l)) continue;
      const auto i = static_cast<std::size_t>(l);
      double sum = 2 * means[i], weight = 2;
      if (usable(l - 1)) sum += means[i - 1], weight += 1;
      if (usable(l + 1)) sum += means[i + 1], weight += 1;
      next[i] = sum / weight;
    }
    means = std::move(next);
  }
  std::map<int, double> out;
  for (int l = firstLayer; l <= lastLayer; ++l) {
    if (usable(l)) out[l] = std::clamp(means[static_cast<std::size_t>(l)], 0.0, 1.0);
  }
  return out;
}

QString layerNames(const std::vector<int>& layers) {
  std::vector<int> sorted = layers;
  std::sort(sorted.begin(), sorted.end());
  sorted.erase(std::unique(sorted.begin(), sorted.end()), sorted.end());
  QStringList parts;
  for (std::size_t i = 0; i < sorted.size();) {
    std::size_t j = i;
    while (j + 1 < sorted.size() && sorted[j + 1] == sorted[j] + 1) ++j;
    parts << (j == i ? QStringLiteral("L%1").arg(sorted[i]) : QStringLiteral("L%1-L%2").arg(sorted[i]).arg(sorted[j]));
    i = j + 1;
  }
  if (parts.size() > 4) {
    return tr("%1 layers (%2 ... %3)").arg(sorted.size()).arg(parts.first(), parts.last());
  }
  return parts.join(QStringLiteral(", "));
}

QString percentDigits(double fraction) {
  const double percent = fraction * 100;
  return QLocale::c().toString(percent, 'f', percent != 0 && std::abs(percent) < 0.995 ? 2 : 1);
}

TypedValue parseTyped(const QString& text, std::optional<double> current, std::optional<double> previous,
                      bool asFraction) {
  TypedValue out;
  QString body = text.trimmed();
  if (body.isEmpty()) {
    out.error = tr("Empty: type a number such as 24, or =prev, *1.1, +2");
    return out;
  }
  if (body.compare(QLatin1String("=prev"), Qt::CaseInsensitive) == 0) {
    if (!previous) {
      out.error = tr("=prev needs a layer above with a value");
    } else {
      out.fraction = previous;
    }
    return out;
  }
  QChar op;
  if (body.startsWith(QLatin1Char('='))) body = body.mid(1).trimmed();
  if (!body.isEmpty() && QStringLiteral("*/+-\u2212\u00d7").contains(body.front())) {
    op = body.front();
    if (op == QChar(0x2212)) op = QLatin1Char('-');
    if (op == QChar(0x00d7)) op = QLatin1Char('*');
    body = body.mid(1).trimmed();
  }
  bool percentSign = false;
  if (body.endsWith(QLatin1Char('%'))) {
    percentSign = true;
    body.chop(1);
    body = body.trimmed();
  }
  // Spreadsheets of many countries write 24,5. A comma with a point in the same number is thousands: refuse to guess.
  static const QRegularExpression kNumber(QStringLiteral("^[0-9]*([.,][0-9]*)?([eE][+-]?[0-9]+)?$"));
  if (body.isEmpty() || !body.contains(QRegularExpression(QStringLiteral("[0-9]"))) ||
      !kNumber.match(body).hasMatch()) {
    out.error = tr("\"%1\" is no number. Examples: 24, 24.5 %, =prev, *1.1, +2").arg(text.trimmed().left(24));
    return out;
  }
  const bool comma = body.contains(QLatin1Char(','));
  body.replace(QLatin1Char(','), QLatin1Char('.'));
  bool ok = false;
  const double number = QLocale::c().toDouble(body, &ok);
  if (!ok || !std::isfinite(number)) {
    out.error = tr("\"%1\" is no number").arg(text.trimmed().left(24));
    return out;
  }
  if (comma) out.note = tr("decimal comma: read as %1").arg(number, 0, 'g', 6);

  double value = 0;
  if (op.isNull()) {
    value = asFraction && !percentSign ? number : number / 100;
  } else if (!current) {
    out.error = tr("%1 needs a value to start from; this layer has none").arg(text.trimmed().left(24));
    return out;
  } else if (op == QLatin1Char('*')) {
    value = *current * number;
  } else if (op == QLatin1Char('/')) {
    if (number == 0) {
      out.error = tr("Division by zero");
      return out;
    }
    value = *current / number;
  } else {
    const double delta = asFraction && !percentSign ? number : number / 100;
    value = op == QLatin1Char('+') ? *current + delta : *current - delta;
  }
  // 1e-12: 0.24 + 0.76 in binary is a hair above 1.
  if (value < -1e-12 || value > 1 + 1e-12) {
    out.error = tr("%1 % is outside 0 to 100 %").arg(value * 100, 0, 'g', 5);
    return out;
  }
  out.fraction = std::clamp(value, 0.0, 1.0);
  return out;
}

}  // namespace sparsight::budget
