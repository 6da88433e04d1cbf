// SPDX-License-Identifier: Apache-2.0
#include "app/cli/png_writer.h"

#include <fmt/format.h>
#include <png.h>

#include <csetjmp>

#include "sparsight/kernels/error.h"

namespace sparsight::cli {
namespace {

void append(png_structp png, png_bytep data, png_size_t size) {
  static_cast<std::string*>(png_get_io_ptr(png))->append(reinterpret_cast<const char*>(data), size);
}
void flush(png_structp) {}
void warn(png_structp, png_const_charp) {}

// libpng leaves by longjmp, which must not skip destructors: this frame owns nothing.
bool writePng(png_structp png, png_infop info, std::string* out, const Rgb* pixels, Index height, Index width,
              png_textp text, int textCount) {
  if (setjmp(png_jmpbuf(png)) != 0) return false;
  png_set_write_fn(png, out, append, flush);
  png_set_IHDR(png, info, static_cast<png_uint_32>(width), static_cast<png_uint_32>(height), 8, PNG_COLOR_TYPE_RGB,
               PNG_INTERLACE_NONE, PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
  png_set_sRGB(png, info, PNG_sRGB_INTENT_PERCEPTUAL);
  png_set_text(png, info, text, textCount);
  png_write_info(png, info);
  for (Index y = 0; y < height; ++y) png_write_row(png, reinterpret_cast<png_const_bytep>(pixels + y * width));
  png_write_end(png, info);
  return true;
}

}  // namespace

std::string encodePng(std::span<const Rgb> pixels, Index height, Index width,
                      const std::vector<std::pair<std::string, std::string>>& text) {
  static_assert(sizeof(Rgb) == 3, "rows are handed to libpng as they lie");
  std::string out;
  std::vector<std::pair<std::string, std::string>> copies = text;
  std::vector<png_text> chunks;
  for (auto& [key, value] : copies) {
    png_text chunk{};
    chunk.compression = PNG_ITXT_COMPRESSION_NONE;  // UTF-8
    chunk.key = key.data();
    chunk.text = value.data();
    chunk.text_length = 0;
    chunk.itxt_length = value.size();
    static char none[] = "";
    chunk.lang = none;
    chunk.lang_key = none;
    chunks.push_back(chunk);
  }
  png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, nullptr, nullptr, warn);
  png_infop info = png != nullptr ? png_create_info_struct(png) : nullptr;
  const bool ok = info != nullptr && writePng(png, info, &out, pixels.data(), height, width, chunks.data(),
                                              static_cast<int>(chunks.size()));
  png_destroy_write_struct(&png, &info);
  if (!ok) {
    throw Error(ErrorCode::Internal,
                fmt::format("PNG of {} x {} pixels could not be made; use --out F.npy", height, width));
  }
  return out;
}

}  // namespace sparsight::cli
