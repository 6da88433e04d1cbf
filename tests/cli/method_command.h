// SPDX-License-Identifier: Apache-2.0
#pragma once

// Runs the built program and writes a small trace for it, for the tests of run, stats and methods.
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <array>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <random>
#include <sstream>
#include <string>
#include <vector>

#include "trace/hdf5_file.h"

namespace sparsight::test {

class ScratchFolder {
 public:
  ScratchFolder() {
    std::string pattern = (std::filesystem::temp_directory_path() / "sparsight-cli-XXXXXX").string();
    if (mkdtemp(pattern.data()) == nullptr) throw std::runtime_error("mkdtemp failed");
    m_path = pattern;
  }
  ~ScratchFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(m_path, ignored);
  }
  ScratchFolder(const ScratchFolder&) = delete;
  ScratchFolder& operator=(const ScratchFolder&) = delete;
  [[nodiscard]] const std::filesystem::path& path() const { return m_path; }

 private:
  std::filesystem::path m_path;
};

struct Program {
  int exitCode = -1;
  std::string out, err;
};

inline Program runProgram(const std::vector<std::string>& arguments) {
  const ScratchFolder folder;
  const auto quoted = [](const std::string& text) {
    std::string safe(1, '\'');
    for (const char c : text) {
      if (c == '\'') safe.append("'\\'");
      safe.push_back(c);
    }
    safe.push_back('\'');
    return safe;
  };
  std::ostringstream command;
  command << quoted(SPARSIGHT_CLI);
  for (const std::string& argument : arguments) command << ' ' << quoted(argument);
  const auto out = folder.path() / "out", err = folder.path() / "err";
  command << " >" << quoted(out.string()) << " 2>" << quoted(err.string());
  const int status = std::system(command.str().c_str());
  const auto text = [](const std::filesystem::path& path) {
    std::ifstream file(path, std::ios::binary);
    std::ostringstream all;
    all << file.rdbuf();
    return all.str();
  };
  return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, text(out), text(err)};
}

/// A float32 trace of one call: step 1 of 10, layer 0 of 4, 2 heads, grid 3 x 8 x 10, family wan2.1.
inline std::string writeSmallTrace(const std::filesystem::path& path, bool withV = true) {
  h5::File file = h5::File::create(path);
  file.writeString("format", "sparsight-trace");
  file.writeArray("format_version", std::vector<std::int32_t>{1, 1});
  file.writeByte("complete", 1);
  file.writeString("writer", "test");
  file.writeString("uuid", "small");
  file.writeString("created_utc", "2026-01-01T00:00:00Z");
  file.writeString("software", "{}");
  h5::Group model = file.createGroup("model");
  for (const char* name : {"class_name", "repo_id", "revision"}) model.writeString(name, "");
  model.writeString("family", "wan2.1");
  model.writeString("attention", "self");
  model.writeString("qk_norm", "none");
  model.writeString("rope", "none");
  model.writeInt32("num_layers", 4);
  model.writeInt32("num_heads", 2);
  model.writeInt32("num_kv_heads", 2);
  model.writeInt32("head_dim", 16);
  h5::Group run = file.createGroup("run");
  run.writeInt32("num_inference_steps", 10);
  std::vector<double> timesteps;
  for (int i = 0; i < 10; ++i) timesteps.push_back(1000.0 - 100.0 * i);
  run.writeDataset<double>("timesteps", timesteps);
  h5::Group tokens = file.createGroup("tokens");
  tokens.writeInt("n_tokens", 240);
  tokens.writeArray("grid", std::vector<std::int32_t>{3, 8, 10});
  tokens.writeInt("video_start", 0);
  tokens.writeInt("video_len", 240);
  tokens.writeInt("text_start", 240);
  tokens.writeInt("text_len", 0);
  tokens.writeString("order", "thw");
  h5::Group capture = file.createGroup("capture");
  capture.writeString("stage", "post_rope");
  capture.writeArray("steps", std::vector<std::int32_t>{1});
  capture.writeArray("layers", std::vector<std::int32_t>{0});
  capture.writeArray("heads", std::vector<std::int32_t>{0, 1});
  const std::vector<std::string> branches{"cond"}, kinds{"self"};
  capture.writeStrings("branches", branches);
  capture.writeStrings("kinds", kinds);
  capture.writeString("q_mode", "all");
  capture.writeString("k_mode", "all");
  capture.writeByte("has_v", withV ? 1 : 0);
  capture.writeByte("has_out", 0);
  capture.writeByte("has_lse", 0);
  h5::Group call = file.createGroup("data/step_0001/cond/layer_000/self");
  call.writeInt32("step", 1);
  call.writeReal("timestep", 900);
  call.writeReal("sigma", 0.9);
  call.writeString("branch", "cond");
  call.writeInt32("layer", 0);
  call.writeString("module", "blocks.0.attn1");
  call.writeString("component", "transformer");
  call.writeString("kind", "self");
  call.writeInt32("call", 0);
  call.writeReal("scale", 0.25);
  call.writeArray("heads", std::vector<std::int32_t>{0, 1});
  call.writeString("mask", "none");
  call.writeInt("n_q", 240);
  call.writeInt("n_k", 240);
  std::mt19937 engine(5);
  for (const char* name : {"q", "k", "v"}) {
    if (!withV && std::string(name) == "v") continue;
    std::vector<float> values(2 * 240 * 16);
    for (float& x : values) x = static_cast<float>(engine()) / 1.0e9F - 2.0F;
    h5::Dataset dataset =
        call.writeDataset<float>(name, std::span<const float>(values), std::vector<Index>{2, 240, 16});
    dataset.writeString("dims", "head,token,channel");
    dataset.writeString("dtype", "float32");
  }
  file.close();
  return path.string();
}

}  // namespace sparsight::test
