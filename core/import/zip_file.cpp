// SPDX-License-Identifier: Apache-2.0
#include "import/zip_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>
#include <zlib.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <system_error>

#include "sparsight/kernels/error.h"

namespace sparsight::import {
namespace {

constexpr std::uint64_t kMostDirectory = std::uint64_t{64} << 20;
constexpr std::uint64_t kMostMembers = 1U << 20U;
// Deflate cannot shrink by more than this; a member that claims more is a bomb or damaged.
constexpr std::uint64_t kMostDeflate = 1040;

std::uint64_t little(std::string_view text, std::size_t at, std::size_t count) {
  std::uint64_t value = 0;
  for (std::size_t i = count; i > 0; --i) value = value << 8U | static_cast<unsigned char>(text[at + i - 1]);
  return value;
}

/// zlib's state, ended whatever happens.
class Inflater {
 public:
  Inflater() {
    if (inflateInit2(&m_stream, -MAX_WBITS) != Z_OK) throw Error(ErrorCode::OutOfMemory, "zlib: out of memory");
  }
  ~Inflater() { inflateEnd(&m_stream); }
  Inflater(const Inflater&) = delete;
  Inflater& operator=(const Inflater&) = delete;
  z_stream& stream() noexcept { return m_stream; }

 private:
  z_stream m_stream{};
};

/// Unpacks up to `limit` bytes and hands them on piece by piece. Returns how many came.
template <class Take>
std::uint64_t inflateMember(const FileBytes& bytes, const ZipMember& member, std::uint64_t limit, Take&& take) {
  Inflater inflater;
  z_stream& stream = inflater.stream();
  std::vector<std::byte> in(1U << 18U), out(1U << 20U);
  std::uint64_t consumed = 0, produced = 0;
  int state = Z_OK;
  while (state != Z_STREAM_END && produced < limit) {
    if (stream.avail_in == 0 && consumed < member.stored) {
      const auto n = static_cast<std::size_t>(std::min<std::uint64_t>(in.size(), member.stored - consumed));
      bytes.read(member.offset + consumed, std::span(in).first(n));
      consumed += n;
      stream.next_in = reinterpret_cast<Bytef*>(in.data());
      stream.avail_in = static_cast<uInt>(n);
    }
    const auto room = static_cast<std::size_t>(std::min<std::uint64_t>(out.size(), limit - produced));
    stream.next_out = reinterpret_cast<Bytef*>(out.data());
    stream.avail_out = static_cast<uInt>(room);
    state = inflate(&stream, Z_NO_FLUSH);
    const std::size_t came = room - stream.avail_out;
    if ((state != Z_OK && state != Z_STREAM_END && state != Z_BUF_ERROR) ||
        (came == 0 && state != Z_STREAM_END && consumed == member.stored && stream.avail_in == 0)) {
      bytes.fail(fmt::format("member {}: its compressed data is damaged; copy the file again", printable(member.name)));
    }
    take(std::span<const std::byte>(out).first(came));
    produced += came;
  }
  return produced;
}

}  // namespace

bool looksLikeZip(const SourceHead& head) { return head.startsWith("PK\x03\x04") || head.startsWith("PK\x05\x06"); }

ZipFile::ZipFile(const std::filesystem::path& path) : m_bytes(std::make_shared<FileBytes>(path)) {
  const FileBytes& file = *m_bytes;
  // The end record is the last thing, before a comment of at most 65,535 bytes.
  const auto tailSize = static_cast<std::size_t>(std::min<std::uint64_t>(file.size(), 22 + 65535));
  const std::uint64_t tailAt = file.size() - tailSize;
  const std::string tail = file.readText(tailAt, tailSize);
  const std::size_t end = tail.rfind("PK\x05\x06");
  if (end == std::string::npos || end + 22 > tail.size()) {
    file.fail("is no complete zip file (its directory at the end is missing); copy it again");
  }
  std::uint64_t count = little(tail, end + 10, 2), size = little(tail, end + 12, 4), at = little(tail, end + 16, 4);
  if ((count == 0xffff || size == 0xffffffff || at == 0xffffffff) && tailAt + end >= 20) {
    const std::string locator = file.readText(tailAt + end - 20, 20);
    if (locator.starts_with("PK\x06\x07")) {
      const std::string record = file.readText(little(locator, 8, 8), 56);
      if (!record.starts_with("PK\x06\x06")) file.fail("has a damaged zip directory; copy it again");
      count = little(record, 32, 8);
      size = little(record, 40, 8);
      at = little(record, 48, 8);
    }
  }
  if (size > kMostDirectory || count > kMostMembers) {
    file.fail(fmt::format("lists {} members in {} bytes, more than any file of tensors; it is damaged", count, size));
  }
  const std::string directory = file.readText(at, static_cast<std::size_t>(size));
  std::size_t pos = 0;
  for (std::uint64_t i = 0; i < count; ++i) {
    if (pos + 46 > directory.size() || directory.compare(pos, 4, "PK\x01\x02") != 0) {
      file.fail("has a damaged zip directory; copy it again");
    }
    const std::size_t nameSize = little(directory, pos + 28, 2), extraSize = little(directory, pos + 30, 2);
    const std::size_t commentSize = little(directory, pos + 32, 2);
    if (pos + 46 + nameSize + extraSize + commentSize > directory.size()) {
      file.fail("has a damaged zip directory; copy it again");
    }
    ZipMember member;
    member.name = directory.substr(pos + 46, nameSize);
    member.method = static_cast<std::uint16_t>(little(directory, pos + 10, 2));
    member.checksum = static_cast<std::uint32_t>(little(directory, pos + 16, 4));
    member.stored = little(directory, pos + 20, 4);
    member.size = little(directory, pos + 24, 4);
    std::uint64_t header = little(directory, pos + 42, 4);
    const std::string_view extra = std::string_view(directory).substr(pos + 46 + nameSize, extraSize);
    for (std::size_t e = 0; e + 4 <= extra.size();) {
      const std::size_t fieldSize = little(extra, e + 2, 2);
      if (e + 4 + fieldSize > extra.size()) break;
      if (little(extra, e, 2) == 1) {  // ZIP64: those that are saturated above, in this order
        std::size_t f = e + 4;
        for (std::uint64_t* value : {&member.size, &member.stored, &header}) {
          if (*value != 0xffffffff || f + 8 > e + 4 + fieldSize) continue;
          *value = little(extra, f, 8);
          f += 8;
        }
      }
      e += 4 + fieldSize;
    }
    if ((little(directory, pos + 8, 2) & 1U) != 0) {
      file.fail(fmt::format("member {} is encrypted; save it without a password", printable(member.name)));
    }
    const std::string local = file.readText(header, 30);
    if (!local.starts_with("PK\x03\x04")) file.fail("has a damaged zip directory; copy it again");
    member.offset = header + 30 + little(local, 26, 2) + little(local, 28, 2);
    if (member.offset > file.size() || member.stored > file.size() - member.offset) {
      file.fail(fmt::format("member {} reaches beyond the end of the file; copy it again", printable(member.name)));
    }
    if (member.method == 0 && member.stored != member.size) {
      file.fail(fmt::format("member {} states two sizes; the file is damaged", printable(member.name)));
    }
    if (member.method == 8 && member.size / kMostDeflate > member.stored) {
      file.fail(fmt::format("member {} claims {} bytes from {} compressed ones, which no data gives; refused",
                            printable(member.name), member.size, member.stored));
    }
    m_members.push_back(std::move(member));
    pos += 46 + nameSize + extraSize + commentSize;
  }
}

const ZipMember* ZipFile::find(std::string_view name) const noexcept {
  const auto found =
      std::find_if(m_members.begin(), m_members.end(), [&](const ZipMember& m) { return m.name == name; });
  return found == m_members.end() ? nullptr : &*found;
}

std::string ZipFile::readPrefix(const ZipMember& member, std::size_t count) const {
  count = static_cast<std::size_t>(std::min<std::uint64_t>(count, member.size));
  if (member.method == 0) return m_bytes->readText(member.offset, count);
  if (member.method != 8) {
    throw Error(ErrorCode::Unsupported, fmt::format("{}: member {} is packed with method {}; only stored and deflated "
                                                    "ones can be read, save it again",
                                                    m_bytes->name(), printable(member.name), member.method));
  }
  std::string text;
  inflateMember(*m_bytes, member, count, [&](std::span<const std::byte> piece) {
    text.append(reinterpret_cast<const char*>(piece.data()), piece.size());
  });
  return text;
}

std::shared_ptr<const FileBytes> ZipFile::unpack(const ZipMember& member, const std::filesystem::path& folder,
                                                 const Control& control) const {
  const std::string where = folder.empty() ? std::string(".") : folder.string();
  int descriptor = ::open(where.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
  if (descriptor < 0) {  // file systems without nameless files
    std::string pattern = where + "/.sparsight-unpack-XXXXXX";
    descriptor = ::mkostemp(pattern.data(), O_CLOEXEC);
    if (descriptor >= 0) ::unlink(pattern.c_str());
  }
  if (descriptor < 0) {
    throw Error(ErrorCode::Io,
                fmt::format("cannot unpack into '{}': {}", where, std::generic_category().message(errno)));
  }
  auto unpacked =
      std::make_shared<FileBytes>(descriptor, fmt::format("{}: {}", m_bytes->name(), member.name), member.size);
  if (member.size > 0) {
    const int error = ::posix_fallocate(descriptor, 0, static_cast<off_t>(member.size));
    if (error == ENOSPC || error == EFBIG || error == EDQUOT) {
      throw Error(ErrorCode::Io,
                  fmt::format("{}: unpacking {} takes {} bytes in '{}', which are not free there; free some space or "
                              "save the arrays uncompressed",
                              m_bytes->name(), printable(member.name), member.size, where));
    }
  }
  std::uint64_t at = 0;
  uLong checksum = crc32(0, nullptr, 0);
  const std::uint64_t came = inflateMember(*m_bytes, member, member.size, [&](std::span<const std::byte> piece) {
    control.checkpoint();
    checksum = crc32(checksum, reinterpret_cast<const Bytef*>(piece.data()), static_cast<uInt>(piece.size()));
    while (!piece.empty()) {
      const ssize_t n = ::pwrite(descriptor, piece.data(), piece.size(), static_cast<off_t>(at));
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) {
        throw Error(ErrorCode::Io,
                    fmt::format("cannot unpack into '{}': {}", where, std::generic_category().message(errno)));
      }
      at += static_cast<std::uint64_t>(n);
      piece = piece.subspan(static_cast<std::size_t>(n));
    }
  });
  if (came != member.size || checksum != member.checksum) {
    m_bytes->fail(fmt::format("member {}: its data does not have the stated size and checksum; copy the file again",
                              printable(member.name)));
  }
  return unpacked;
}

}  // namespace sparsight::import
