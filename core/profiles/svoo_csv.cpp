// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <limits>

#include "profiles/profile_text.h"
#include "sparsight/core/files.h"
#include "sparsight/core/profile.h"
#include "sparsight/kernels/error.h"

namespace sparsight {
namespace {

constexpr std::array<std::string_view, 4> kColumns{"Step", "Layer", "Head", "Sparsity"};
constexpr std::string_view kHeader = "Step,Layer,Head,Sparsity";
constexpr int kIssuesOfAKind = 20;

struct Row {
  int step = 0, layer = 0, head = 0;
  double value = 0;
  int line = 0;
};

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
  return text;
}

bool equalIgnoringCase(std::string_view a, std::string_view b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](char x, char y) {
    return std::tolower(static_cast<unsigned char>(x)) == std::tolower(static_cast<unsigned char>(y));
  });
}

class CsvParser {
 public:
  CsvParser(std::string_view text, const std::string& name, ValueConvention convention)
      : m_text(text), m_name(name), m_convention(convention) {}

  CsvImport parse() {
    checkEncoding();
    readLines();
    return build();
  }

 private:
  [[noreturn]] void fail(int line, std::size_t column, const std::string& message) const {
    throw Error(ErrorCode::Format, fmt::format("{}: line {}, column {}: {}", m_name, line, column, message));
  }
  void warn(int line, std::size_t column, std::string message) {
    m_import.issues.push_back({line, static_cast<int>(column), false, std::move(message)});
  }
  /// The first of a kind one by one, the rest as a number: 80,000 equal lines help nobody.
  void warnCounted(int& count, int line, std::size_t column, const auto& message) {
    if (++count <= kIssuesOfAKind) warn(line, column, message());
  }

  void checkEncoding() {
    if (m_text.empty()) {
      throw Error(ErrorCode::Format,
                  fmt::format("{}: the file is empty; expected the header '{}' and one row per step, layer and head",
                              m_name, kHeader));
    }
    if (m_text.starts_with("\xFF\xFE") || m_text.starts_with("\xFE\xFF")) {
      fail(1, 1, "this is UTF-16 text; save it as UTF-8 without a byte order mark");
    }
    if (m_text.starts_with("\xEF\xBB\xBF")) {
      m_text.remove_prefix(3);

      warn(1, 1,
           "a byte order mark stands before the header: SVOO then does not find the column Step and silently runs "
           "without the "
           "profile; it is left out on saving");
    }
    const std::size_t nul = m_text.find('\0');
    if (nul != std::string_view::npos) {
      const auto at = detail::positionOf(m_text, nul);
      fail(at.line, static_cast<std::size_t>(at.column), "a NUL byte: this is no text file, so no CSV profile");
    }
    if (m_text.find('\n') == std::string_view::npos && m_text.find('\r') != std::string_view::npos) {
      fail(1, m_text.find('\r') + 1, "lines end with a lone CR; save the file with CRLF line ends");
    }
  }

  /// Splits off the next line without its ending; false at the end of the text.
  bool nextLine(std::string_view& line) {
    if (m_at >= m_text.size()) return false;
    ++m_line;
    const std::size_t end = m_text.find('\n', m_at);
    if (end == std::string_view::npos) {
      line = m_text.substr(m_at);
      m_at = m_text.size();
      m_lastLineOpen = true;
      return true;
    }
    line = m_text.substr(m_at, end - m_at);
    m_at = end + 1;
    if (line.ends_with('\r')) {
      line.remove_suffix(1);
      ++m_crlf;
    } else {
      ++m_lf;
      if (m_firstLf == 0) m_firstLf = m_line;
    }
    return true;
  }

  void readHeader(std::string_view line) {
    if (line.find('"') != std::string_view::npos) {
      fail(1, line.find('"') + 1, "quoted column names; write the header without quotes: Step,Layer,Head,Sparsity");
    }
    m_columnOf.fill(-1);
    int count = 0;
    std::size_t at = 0;
    std::string found;
    for (bool more = true; more; ++count) {
      const std::size_t comma = line.find(',', at);
      more = comma != std::string_view::npos;
      const std::string_view raw = line.substr(at, more ? comma - at : std::string_view::npos);
      const std::string_view name = trimmed(raw);
      if (!found.empty()) found += ", ";
      found += detail::quoted(name);
      bool known = false;
      for (std::size_t c = 0; c < kColumns.size(); ++c) {
        if (!equalIgnoringCase(name, kColumns[c])) continue;
        known = true;
        if (m_columnOf[c] >= 0) fail(1, at + 1, fmt::format("the column {} appears twice; remove one", kColumns[c]));
        m_columnOf[c] = count;
        if (raw != kColumns[c]) {
          warn(1, at + 1,
               fmt::format("SVOO only knows the column by the exact name {}, not {}; mended on saving", kColumns[c],
                           detail::quoted(raw)));
        }
      }
      if (!known)
        warn(1, at + 1, fmt::format("further column {} is ignored and not kept on saving", detail::quoted(name)));
      at = comma + 1;
      if (count > 1000) fail(1, at, "more than 1000 columns; expected Step,Layer,Head,Sparsity");
    }
    m_fields = count;
    for (std::size_t c = 0; c < kColumns.size(); ++c) {
      if (m_columnOf[c] >= 0) continue;
      std::string hint;
      if (count == 1 && line.find(';') != std::string_view::npos)
        hint = "; the fields are separated by ';', use commas";
      if (count == 1 && line.find('\t') != std::string_view::npos)
        hint = "; the fields are separated by tabs, use commas";
      fail(1, 1,
           fmt::format("the column {} is missing (found {}){}; the header must be {}", kColumns[c], found, hint,
                       kHeader));
    }
    const bool inOrder =
        m_columnOf[0] < m_columnOf[1] && m_columnOf[1] < m_columnOf[2] && m_columnOf[2] < m_columnOf[3];
    if (!inOrder) warn(1, 1, "the columns are in another order; they are sorted on saving");
  }

  int parseIndex(std::string_view raw, std::size_t column, std::string_view what) const {
    const std::string_view field = trimmed(raw);
    long long value = 0;
    const auto [end, error] = std::from_chars(field.data(), field.data() + field.size(), value);
    if (field.empty() || end != field.data() + field.size() || error == std::errc::invalid_argument) {
      fail(m_line, column,
           fmt::format("{} is {}; it must be a whole number", what,
                       field.empty() ? std::string("empty") : detail::quoted(field)));
    }
    if (error == std::errc::result_out_of_range || value > std::numeric_limits<int>::max()) {
      fail(m_line, column, fmt::format("{} {} is impossibly large", what, detail::quoted(field)));
    }
    const int lowest = what == kColumns[0] ? 1 : 0;
    if (value < lowest) {
      fail(m_line, column, fmt::format("{} {} is too small; {} counts from {}", what, value, what, lowest));
    }
    return static_cast<int>(value) - lowest;
  }

  double parseValue(std::string_view raw, std::size_t column) const {
    std::string_view field = trimmed(raw);
    if (field.starts_with('+')) field.remove_prefix(1);
    double value = 0;
    const auto [end, error] = std::from_chars(field.data(), field.data() + field.size(), value);
    if (field.empty() || end != field.data() + field.size() || error == std::errc::invalid_argument) {
      const bool percent = field.ends_with('%');
      fail(m_line, column,
           fmt::format("the value is {}; it must be a number between 0 and 1{}",
                       field.empty() ? std::string("empty") : detail::quoted(field),
                       percent ? ", without a percent sign" : ""));
    }
    if (error == std::errc::result_out_of_range) {
      // Too small for a double is 0 to everyone; too large is caught as outside 0..1.
      const bool tiny = field.find("e-") != std::string_view::npos || field.find("E-") != std::string_view::npos ||
                        field.starts_with("0.");
      return tiny ? 0.0 : std::numeric_limits<double>::max();
    }
    if (!std::isfinite(value)) {
      fail(m_line, column,
           fmt::format(
               "the value is {}; SVOO stops at the first use of it. Write a number between 0 and 1, or remove the row",
               detail::quoted(field)));
    }
    return value;
  }

  /// 1 - v in the decimals that the file has: 0.7 becomes 0.3, not 0.30000000000000004.
  static double keptOf(double skipped, std::string_view raw) {
    const std::size_t point = raw.find('.');
    const bool plain = raw.find_first_of("eE") == std::string_view::npos;
    const std::size_t decimals = point == std::string_view::npos ? 0 : trimmed(raw.substr(point + 1)).size();
    if (!plain || decimals > 15) return 1.0 - skipped;
    const double unit = std::pow(10.0, static_cast<double>(decimals));
    return std::round((1.0 - skipped) * unit) / unit;
  }

  void readRow(std::string_view line) {
    std::array<std::string_view, 4> fields{};
    std::array<std::size_t, 4> columns{};
    int count = 0;
    std::size_t at = 0;
    for (bool more = true; more; ++count) {
      const std::size_t comma = line.find(',', at);
      more = comma != std::string_view::npos;
      for (std::size_t c = 0; c < kColumns.size(); ++c) {
        if (m_columnOf[c] != count) continue;
        fields[c] = line.substr(at, more ? comma - at : std::string_view::npos);
        columns[c] = at + 1;
      }
      if (more) at = comma + 1;
    }
    const std::size_t quote = line.find('"');
    if (quote != std::string_view::npos) {
      fail(m_line, quote + 1, "quoted fields; SVOO's profiles have none: write the bare numbers");
    }
    if (count != m_fields) {
      fail(m_line, count > m_fields ? at + 1 : line.size() + 1,
           fmt::format("{} fields where the header has {}{}", count, m_fields,
                       count == m_fields + 1 ? "; is the decimal point a comma?" : ""));
    }
    Row row;
    row.line = m_line;
    row.step = parseIndex(fields[0], columns[0], kColumns[0]);
    row.layer = parseIndex(fields[1], columns[1], kColumns[1]);
    row.head = parseIndex(fields[2], columns[2], kColumns[2]);
    row.value = parseValue(fields[3], columns[3]);
    const Index steps = std::max<Index>(m_steps, Index{row.step} + 1);
    const Index layers = std::max<Index>(m_layers, Index{row.layer} + 1);
    const Index heads = std::max<Index>(m_heads, Index{row.head} + 1);
    if (!detail::fitsProfile(steps, layers, heads)) {
      fail(
          m_line, 1,
          fmt::format("with this row the profile would have {} steps x {} layers x {} heads, more than {} cells; is an "
                      "index wrong?",
                      steps, layers, heads, kMaxProfileCells));
    }
    m_steps = static_cast<int>(steps);
    m_layers = static_cast<int>(layers);
    m_heads = static_cast<int>(heads);
    if (m_convention == ValueConvention::Skipped && row.value >= 0 && row.value <= 1) {
      row.value = keptOf(row.value, fields[3]);
    }
    if (!(row.value >= 0 && row.value <= 1)) {
      m_worstOutside = std::max(m_worstOutside, std::abs(row.value));
      warnCounted(m_outside, m_line, columns[3], [&] {
        return fmt::format("the value {} is outside 0..1; the cell is left without a value",
                           detail::quoted(trimmed(fields[3])));
      });
    }
    if (!m_rows.empty()) {
      const Row& last = m_rows.back();
      if (CellId{row.step, row.layer, row.head} < CellId{last.step, last.layer, last.head} && m_firstUnsorted == 0) {
        m_firstUnsorted = m_line;
      }
    }
    m_rows.push_back(row);
  }

  void readLines() {
    std::string_view line;
    if (!nextLine(line)) {
      throw Error(ErrorCode::Format,
                  fmt::format("{}: nothing but a byte order mark; expected the header '{}'", m_name, kHeader));
    }
    readHeader(line);
    m_rows.reserve(m_text.size() / 12);
    int blank = 0;
    while (nextLine(line)) {
      if (line.empty()) {
        warnCounted(blank, m_line, 1, [] { return std::string("an empty line is ignored and not kept on saving"); });
        continue;
      }
      readRow(line);
    }
    warnRest(blank, "empty lines");
    if (m_rows.empty()) {
      throw Error(ErrorCode::Format,
                  fmt::format("{}: line {}: there is a header but not one row; the profile holds no values", m_name,
                              std::max(1, m_line)));
    }
    if (2 * static_cast<std::size_t>(m_outside) > m_rows.size()) {
      throw Error(
          ErrorCode::Format,
          fmt::format("{}: {} of {} values are outside 0..1 (up to {}){}; the column holds fractions of keys between "
                      "0 and 1",
                      m_name, m_outside, m_rows.size(), m_worstOutside,
                      m_worstOutside <= 100 ? "; these look like percentages, divide them by 100" : ""));
    }
    warnRest(m_outside, "values outside 0..1");
  }

  void warnRest(int count, std::string_view what) {
    if (count > kIssuesOfAKind) warn(m_line, 1, fmt::format("{} {} in all", count, what));
  }

  CsvImport build() {
    Profile& profile = m_import.profile;
    profile = Profile(m_steps, m_layers, m_heads, BudgetRole::KeptFloor);
    profile.provenance.source = "svoo-csv";
    profile.provenance.model = modelsOfGrid(m_layers, m_heads);
    if (m_convention == ValueConvention::Skipped) profile.provenance.parameters["convention"] = "skipped";
    std::vector<int> lineOf(static_cast<std::size_t>(profile.cellCount()), 0);
    int duplicates = 0;
    for (const Row& row : m_rows) {
      const CellId cell{row.step, row.layer, row.head};
      int& seen = lineOf[(static_cast<std::size_t>(row.step) * static_cast<std::size_t>(m_layers) +
                          static_cast<std::size_t>(row.layer)) *
                             static_cast<std::size_t>(m_heads) +
                         static_cast<std::size_t>(row.head)];
      if (seen != 0) {
        warnCounted(duplicates, row.line, 1, [&] {
          return fmt::format("{} was already given in line {}; the last one counts, as in SVOO", detail::cellText(cell),
                             seen);
        });
      }
      seen = row.line;
      const bool inside = row.value >= 0 && row.value <= 1;
      profile.set(cell, inside ? std::optional(row.value) : std::nullopt);
    }
    warnRest(duplicates, "repeated cells");
    if (m_firstUnsorted != 0) {
      warn(m_firstUnsorted, 1, "the rows are not sorted by step, layer and head; they are sorted on saving");
    }
    if (const Index holes = profile.holeCount(); holes > 0) {
      warn(m_line, 1,
           fmt::format("{}; SVOO uses its fallback for every step and layer with a missing head",
                       detail::holesText(profile)));
    }
    profile.lineEnding = m_lf > m_crlf ? "\n" : "\r\n";
    if (m_lf > 0 && m_crlf > 0) {
      warn(m_firstLf, 1,
           fmt::format("mixed line ends ({} CRLF, {} LF); all become {} on saving", m_crlf, m_lf,
                       m_lf > m_crlf ? "LF" : "CRLF"));
    } else if (m_lf > 0) {
      warn(1, 1, "lines end with LF where SVOO writes CRLF; it reads both, and saving keeps LF");
    }
    if (m_lastLineOpen) warn(m_line, 1, "the last line has no line end; one is added on saving");
    std::stable_sort(m_import.issues.begin(), m_import.issues.end(),
                     [](const CsvIssue& a, const CsvIssue& b) { return a.line < b.line; });
    return std::move(m_import);
  }

  std::string_view m_text;
  const std::string& m_name;
  ValueConvention m_convention;
  CsvImport m_import;
  std::size_t m_at = 0;
  int m_line = 0, m_crlf = 0, m_lf = 0, m_firstLf = 0;
  bool m_lastLineOpen = false;
  std::array<int, 4> m_columnOf{};
  int m_fields = 0;
  std::vector<Row> m_rows;
  int m_steps = 0, m_layers = 0, m_heads = 0;
  int m_outside = 0, m_firstUnsorted = 0;
  double m_worstOutside = 0;
};

}  // namespace

CsvImport parseSvooCsv(std::string_view text, const std::string& name, ValueConvention convention) {
  return CsvParser(text, name, convention).parse();
}

CsvImport readSvooCsv(const std::filesystem::path& path, ValueConvention convention) {
  return parseSvooCsv(readWholeFile(path, detail::kMaxProfileFileBytes), path.string(), convention);
}

std::string formatSvooCsv(const Profile& profile, bool leaveOutHoles) {
  if (profile.cellCount() == 0)
    throw Error(ErrorCode::InvalidArgument, "the profile is empty; there is nothing to write");
  if (profile.holeCount() == profile.cellCount()) {
    throw Error(ErrorCode::InvalidArgument, "the profile holds no value at all; there is nothing to write as CSV");
  }
  if (!leaveOutHoles && profile.holeCount() > 0) {
    throw Error(ErrorCode::InvalidArgument,
                detail::holesText(profile) + "; a CSV profile must be complete: fill the holes first, or save as JSON");
  }
  std::string out;
  out.reserve(static_cast<std::size_t>(profile.cellCount()) * 20 + 32);
  const std::string& end = profile.lineEnding;
  out += kHeader;
  out += end;
  const auto append = [&out](int number, char separator) {
    std::array<char, 16> buffer;
    out.append(buffer.data(), std::to_chars(buffer.data(), buffer.data() + buffer.size(), number).ptr);
    out += separator;
  };
  for (int s = 0; s < profile.steps(); ++s) {
    for (int l = 0; l < profile.layers(); ++l) {
      for (int h = 0; h < profile.heads(); ++h) {
        const auto value = profile.at({s, l, h});
        if (!value) continue;
        append(s + 1, ',');
        append(l, ',');
        append(h, ',');
        out += formatProfileValue(*value);
        out += end;
      }
    }
  }
  return out;
}

}  // namespace sparsight
