// SPDX-License-Identifier: Apache-2.0
#include "import/pickle.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <charconv>
#include <unordered_map>

#include "import/byte_source.h"
#include "sparsight/kernels/error.h"

namespace sparsight::import {
namespace {

using Ref = std::uint32_t;
using Kind = PickleValue::Kind;

constexpr std::size_t kMostValues = 1'000'000, kMostArguments = 64, kMostCopied = 4'000'000;
constexpr std::size_t kMostTensors = 200'000, kMostAxes = 16, kLongestKey = 256;

struct StorageClass {
  const char* global;
  const char* dtype;
};
constexpr StorageClass kStorages[] = {{"torch HalfStorage", "float16"},
                                      {"torch BFloat16Storage", "bfloat16"},
                                      {"torch FloatStorage", "float32"},
                                      {"torch DoubleStorage", "float64"},
                                      {"torch LongStorage", "int64"},
                                      {"torch IntStorage", "int32"},
                                      {"torch ShortStorage", "int16"},
                                      {"torch CharStorage", "int8"},
                                      {"torch ByteStorage", "uint8"},
                                      {"torch BoolStorage", "bool"},
                                      {"torch ComplexFloatStorage", "complex64"},
                                      {"torch ComplexDoubleStorage", "complex128"},
                                      {"torch.storage UntypedStorage", ""},
                                      {"torch UntypedStorage", ""}};

// Written as they are in the stream and worth nothing to us but their name.
bool isDtype(std::string_view global) {
  constexpr std::array kNames{
      "torch float16",     "torch bfloat16",        "torch float32",        "torch float64",
      "torch int64",       "torch int32",           "torch int16",          "torch int8",
      "torch uint8",       "torch uint16",          "torch uint32",         "torch uint64",
      "torch bool",        "torch complex64",       "torch complex128",     "torch float8_e4m3fn",
      "torch float8_e5m2", "torch float8_e4m3fnuz", "torch float8_e5m2fnuz"};
  return std::find(kNames.begin(), kNames.end(), global) != kNames.end();
}

bool isBuilder(std::string_view global) {
  constexpr std::array kNames{"torch._utils _rebuild_tensor",
                              "torch._utils _rebuild_tensor_v2",
                              "torch._utils _rebuild_tensor_v3",
                              "torch._utils _rebuild_parameter",
                              "collections OrderedDict",
                              "torch Size",
                              "torch device"};
  return std::find(kNames.begin(), kNames.end(), global) != kNames.end();
}

const StorageClass* storageClass(std::string_view global) {
  const auto found = std::find_if(std::begin(kStorages), std::end(kStorages),
                                  [&](const StorageClass& s) { return global == s.global; });
  return found == std::end(kStorages) ? nullptr : found;
}

class Machine {
 public:
  Machine(std::string_view text, const std::string& name) : m_text(text), m_name(name) {}

  Pickle run() {
    for (;;) {
      const auto op = static_cast<unsigned char>(take(1)[0]);
      if (op == '.') break;
      step(op);
    }
    m_pickle.root = pop();
    return std::move(m_pickle);
  }

 private:
  [[noreturn]] void damaged(const char* why = "its pickle is malformed") const {
    throw Error(ErrorCode::Format,
                fmt::format("{}: {} (byte {}); the file is damaged, save it again", m_name, why, m_at));
  }
  [[noreturn]] void refused(const std::string& what) const {
    throw Error(ErrorCode::Unsupported,
                fmt::format("{}: its pickle {}, which is no tensor data; nothing was run. Save plain tensors: "
                            "torch.save({{\"q\": q, \"k\": k, \"v\": v}}, path)",
                            m_name, what));
  }

  std::string_view take(std::uint64_t count) {
    if (count > m_text.size() - m_at) damaged("its pickle ends too early");
    const std::string_view piece = m_text.substr(m_at, static_cast<std::size_t>(count));
    m_at += static_cast<std::size_t>(count);
    return piece;
  }
  std::string_view line() {
    const std::size_t end = m_text.find('\n', m_at);
    if (end == std::string_view::npos) damaged("its pickle ends too early");
    const std::string_view text = m_text.substr(m_at, end - m_at);
    m_at = end + 1;
    return text;
  }
  std::uint64_t number(std::size_t bytes) {
    const std::string_view raw = take(bytes);
    std::uint64_t value = 0;
    for (std::size_t i = bytes; i > 0; --i) value = value << 8U | static_cast<unsigned char>(raw[i - 1]);
    return value;
  }

  Ref make(PickleValue value) {
    if (m_pickle.values.size() >= kMostValues) damaged("it holds far more values than tensors need");
    m_pickle.values.push_back(std::move(value));
    return static_cast<Ref>(m_pickle.values.size() - 1);
  }
  void push(PickleValue value) { m_stack.push_back(make(std::move(value))); }
  void pushInteger(std::int64_t value) {
    PickleValue v;
    v.kind = Kind::Integer;
    v.integer = value;
    push(std::move(v));
  }
  void pushText(Kind kind, std::string_view text) {
    PickleValue v;
    v.kind = kind;
    v.text = std::string(text);
    push(std::move(v));
  }
  PickleValue& at(Ref ref) { return m_pickle.values[ref]; }
  Ref top() {
    if (m_stack.empty() || (!m_marks.empty() && m_marks.back() >= m_stack.size())) damaged();
    return m_stack.back();
  }
  Ref pop() {
    const Ref ref = top();
    m_stack.pop_back();
    return ref;
  }
  std::vector<Ref> popMark() {
    if (m_marks.empty()) damaged();
    const std::size_t from = m_marks.back();
    m_marks.pop_back();
    std::vector<Ref> items(m_stack.begin() + static_cast<std::ptrdiff_t>(from), m_stack.end());
    m_stack.resize(from);
    return items;
  }
  void pushItems(Kind kind, std::vector<Ref> items) {
    if (kind == Kind::Dict && items.size() % 2 != 0) damaged();
    PickleValue v;
    v.kind = kind;
    v.items = std::move(items);
    push(std::move(v));
  }
  void append(Ref list, const std::vector<Ref>& items, Kind kind) {
    if (at(list).kind != kind || (kind == Kind::Dict && items.size() % 2 != 0)) damaged();
    at(list).items.insert(at(list).items.end(), items.begin(), items.end());
  }
  void remember(std::uint64_t slot) {
    m_memo[slot] = top();
    if (m_memo.size() > kMostValues) damaged("it remembers far more values than tensors need");
  }
  void recall(std::uint64_t slot) {
    const auto found = m_memo.find(slot);
    if (found == m_memo.end()) damaged();
    m_stack.push_back(found->second);
  }

  void global(std::string_view module, std::string_view name) {
    const std::string full = fmt::format("{} {}", module, name);
    if (storageClass(full) == nullptr && !isDtype(full) && !isBuilder(full)) {
      refused(fmt::format("names {}", import::printable(fmt::format("{}.{}", module, name))));
    }
    pushText(Kind::Global, full);
  }

  [[nodiscard]] Index whole(Ref ref) const {
    const PickleValue& v = m_pickle.values[ref];
    if (v.kind != Kind::Integer) damaged("a tensor's size is no number");
    return v.integer;
  }
  [[nodiscard]] std::vector<Index> wholes(Ref ref) const {
    const PickleValue& v = m_pickle.values[ref];
    if ((v.kind != Kind::Tuple && v.kind != Kind::List) || v.items.size() > kMostAxes)
      damaged("a tensor's size is no tuple of at most 16 numbers");
    std::vector<Index> values;
    for (const Ref item : v.items) values.push_back(whole(item));
    return values;
  }

  // ("storage", class, key, location, elements)
  void persistent() {
    const Ref idRef = pop();
    if (at(idRef).items.size() > kMostArguments) damaged("a storage's name is malformed");
    const PickleValue id = at(idRef);
    if (id.kind != Kind::Tuple || id.items.size() < 5 || at(id.items[0]).text != "storage" ||
        at(id.items[1]).kind != Kind::Global || at(id.items[2]).kind != Kind::Text) {
      damaged("a storage's name is malformed");
    }
    const StorageClass* type = storageClass(at(id.items[1]).text);
    if (type == nullptr) damaged("a storage has no type");
    if (at(id.items[2]).text.size() > kLongestKey) damaged("a storage's name is malformed");
    m_pickle.storages.push_back({at(id.items[2]).text, type->dtype, whole(id.items[4])});
    PickleValue v;
    v.kind = Kind::Storage;
    v.tensor = static_cast<Ref>(m_pickle.storages.size() - 1);
    push(std::move(v));
  }

  // Copies of the same long list again and again would outgrow any memory.
  void countCopies(std::size_t items) {
    m_copied += items;
    if (m_copied > kMostCopied) damaged("it holds far more values than tensors need");
  }

  void reduce() {
    const Ref argumentsRef = pop(), functionRef = pop();
    if (at(functionRef).kind != Kind::Global || at(argumentsRef).kind != Kind::Tuple) {
      refused("calls something that is no function");
    }
    if (at(argumentsRef).items.size() > kMostArguments) damaged("a tensor has too many facts");
    const PickleValue function = at(functionRef), arguments = at(argumentsRef);
    const auto argument = [&](std::size_t i) -> Ref {
      if (i >= arguments.items.size()) damaged("a tensor lacks facts");
      return arguments.items[i];
    };
    const std::string& name = function.text;
    if (name.starts_with("torch._utils _rebuild_tensor")) {
      if (at(argument(0)).kind != Kind::Storage) damaged("a tensor has no storage");
      if (m_pickle.tensors.size() >= kMostTensors) damaged("it holds far more tensors than a capture has");
      PickledTensor tensor;
      tensor.storage = m_pickle.storages[at(argument(0)).tensor];
      tensor.offset = whole(argument(1));
      tensor.shape = wholes(argument(2));
      tensor.strides = wholes(argument(3));
      if (name.ends_with("_v3")) {
        const PickleValue& dtype = at(argument(6));
        if (dtype.kind != Kind::Global || !isDtype(dtype.text)) damaged("a tensor has no type");
        tensor.storage.dtype = dtype.text.substr(6);
      }
      m_pickle.tensors.push_back(std::move(tensor));
      PickleValue v;
      v.kind = Kind::Tensor;
      v.tensor = static_cast<Ref>(m_pickle.tensors.size() - 1);
      push(std::move(v));
    } else if (name == "torch._utils _rebuild_parameter") {
      m_stack.push_back(argument(0));
    } else if (name == "collections OrderedDict") {
      PickleValue v;
      v.kind = Kind::Dict;
      if (!arguments.items.empty()) {  // a list of pairs
        countCopies(at(arguments.items[0]).items.size());
        const PickleValue pairs = at(arguments.items[0]);
        for (const Ref pair : pairs.items) {
          if (at(pair).items.size() != 2) damaged();
          v.items.insert(v.items.end(), at(pair).items.begin(), at(pair).items.end());
        }
      }
      push(std::move(v));
    } else if (name == "torch Size") {
      PickleValue v;
      v.kind = Kind::Tuple;
      countCopies(at(argument(0)).items.size());
      v.items = at(argument(0)).items;
      push(std::move(v));
    } else if (name == "torch device") {
      PickleValue v;
      v.kind = Kind::Opaque;
      push(std::move(v));
    } else {
      refused(fmt::format("calls {}", import::printable(name)));
    }
  }

  void step(unsigned char op) {
    switch (op) {
      case 0x80:  // PROTO
        if (const std::uint64_t protocol = number(1); protocol < 2 || protocol > 5) {
          refused(fmt::format("has protocol {}", protocol));
        }
        return;
      case 0x95:  // FRAME
        number(8);
        return;
      case '(':
        if (m_marks.size() >= kMostValues) damaged("it is nested deeper than tensors ever are");
        m_marks.push_back(m_stack.size());
        return;
      case '0':
        pop();
        return;
      case '1':
        popMark();
        return;
      case '2':
        m_stack.push_back(top());
        return;
      case 'N':
        return push({});
      case 0x88:
      case 0x89: {
        PickleValue v;
        v.kind = Kind::Bool;
        v.integer = op == 0x88 ? 1 : 0;
        return push(std::move(v));
      }
      case 'J':
        return pushInteger(static_cast<std::int32_t>(number(4)));
      case 'K':
        return pushInteger(static_cast<std::int64_t>(number(1)));
      case 'M':
        return pushInteger(static_cast<std::int64_t>(number(2)));
      case 0x8a:    // LONG1
      case 0x8b: {  // LONG4
        const std::uint64_t size = number(op == 0x8a ? 1 : 4);
        if (size > 8) damaged("a number is too long");
        std::uint64_t value = number(static_cast<std::size_t>(size));
        if (size > 0 && size < 8 && (value >> (size * 8 - 1) & 1U) != 0) value |= ~std::uint64_t{0} << (size * 8);
        return pushInteger(static_cast<std::int64_t>(value));
      }
      case 'G': {  // big-endian
        std::uint64_t bits = 0;
        for (const char c : take(8)) bits = bits << 8U | static_cast<unsigned char>(c);
        PickleValue v;
        v.kind = Kind::Real;
        v.real = std::bit_cast<double>(bits);
        return push(std::move(v));
      }
      case 'X':
        return pushText(Kind::Text, take(number(4)));
      case 0x8c:
        return pushText(Kind::Text, take(number(1)));
      case 0x8d:
        return pushText(Kind::Text, take(number(8)));
      case 'U':
        return pushText(Kind::Text, take(number(1)));
      case 'T':
        return pushText(Kind::Text, take(number(4)));
      case 'C':
        return pushText(Kind::Bytes, take(number(1)));
      case 'B':
        return pushText(Kind::Bytes, take(number(4)));
      case 0x8e:
        return pushText(Kind::Bytes, take(number(8)));
      case ']':
        return pushItems(Kind::List, {});
      case ')':
        return pushItems(Kind::Tuple, {});
      case '}':
        return pushItems(Kind::Dict, {});
      case 'l':
        return pushItems(Kind::List, popMark());
      case 't':
        return pushItems(Kind::Tuple, popMark());
      case 'd':
        return pushItems(Kind::Dict, popMark());
      case 0x85:
      case 0x86:
      case 0x87: {
        std::vector<Ref> items(static_cast<std::size_t>(op - 0x84));
        for (std::size_t i = items.size(); i > 0; --i) items[i - 1] = pop();
        return pushItems(Kind::Tuple, std::move(items));
      }
      case 'a': {
        const Ref item = pop();
        return append(top(), {item}, Kind::List);
      }
      case 'e': {
        const std::vector<Ref> items = popMark();
        return append(top(), items, Kind::List);
      }
      case 's': {
        const Ref value = pop(), key = pop();
        return append(top(), {key, value}, Kind::Dict);
      }
      case 'u': {
        const std::vector<Ref> items = popMark();
        return append(top(), items, Kind::Dict);
      }
      case 'q':
        return remember(number(1));
      case 'r':
        return remember(number(4));
      case 0x94:
        return remember(m_memo.size());
      case 'h':
        return recall(number(1));
      case 'j':
        return recall(number(4));
      case 'c': {
        const std::string_view module = line();
        return global(module, line());
      }
      case 0x93: {
        const Ref name = pop(), module = pop();
        if (at(name).kind != Kind::Text || at(module).kind != Kind::Text) damaged();
        const std::string m = at(module).text, n = at(name).text;
        return global(m, n);
      }
      case 'Q':
        return persistent();
      case 'R':
        return reduce();
      case 'b':  // a state_dict's metadata
        pop();
        if (at(top()).kind != Kind::Dict) refused("sets an object's state");
        return;
      default:
        refused(op >= 0x20 && op < 0x7f ? fmt::format("has opcode '{}'", static_cast<char>(op))
                                        : fmt::format("has opcode 0x{:02x}", op));
    }
  }

  std::string_view m_text;
  const std::string& m_name;
  std::size_t m_at = 0, m_copied = 0;
  Pickle m_pickle;
  std::vector<Ref> m_stack;
  std::vector<std::size_t> m_marks;
  std::unordered_map<std::uint64_t, Ref> m_memo;
};

}  // namespace

Pickle parsePickle(std::string_view text, const std::string& name) { return Machine(text, name).run(); }

}  // namespace sparsight::import
