#version 330 core
// SPDX-License-Identifier: Apache-2.0
// Value code -> colour by table; skipped cells blend towards the dimmed table. The arithmetic is that of the raster
// painter, so that both show the same picture.
uniform vec2 surface;
uniform vec2 origin;        // device pixel where cell (0, 0) of the tile starts
uniform vec2 cellSize;      // device pixels
uniform ivec2 cells;        // columns, rows of the tile
uniform usampler2D codes;   // one 16-bit value code per cell
uniform sampler2D colors;   // 256 x 256: colour of every code
uniform sampler2D dimmed;   // the same for skipped cells
uniform usampler2D kept;    // kept share of every cell, 0..255
uniform bool overlay;
out vec4 color;
void main() {
  vec2 pixel = vec2(gl_FragCoord.x, surface.y - gl_FragCoord.y);  // already at pixel centres
  ivec2 cell = clamp(ivec2(floor((pixel - origin) / cellSize)), ivec2(0), cells - 1);
  uint code = texelFetch(codes, cell, 0).r;
  ivec2 entry = ivec2(int(code & 255u), int(code >> 8u));
  color = texelFetch(colors, entry, 0);
  if (overlay) {
    float share = float(texelFetch(kept, cell, 0).r) / 255.0;
    color.rgb = mix(texelFetch(dimmed, entry, 0).rgb, color.rgb, share);
  }
}
