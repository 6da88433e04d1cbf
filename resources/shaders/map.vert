#version 330 core
// SPDX-License-Identifier: Apache-2.0
// A rectangle of whole device pixels, origin top left.
layout(location = 0) in vec2 corner;   // 0..1
uniform vec4 area;                      // left, top, width, height in device pixels
uniform vec2 surface;                   // size in device pixels
void main() {
  vec2 p = area.xy + corner * area.zw;
  gl_Position = vec4(p.x / surface.x * 2.0 - 1.0, 1.0 - p.y / surface.y * 2.0, 0.0, 1.0);
}
