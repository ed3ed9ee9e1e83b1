// Products of transposed int8 codes with float32 rows,
// y[k, n] = sum_m codes[m, k] scale[m] x[m, n],
// in integers: what a gradient by the weight of a quantized layer is.
//
// Of up to kChunk rows, the scaled floats of a column become integers of 24 bits:
// multiples of the power of two that makes the largest fit. Their three bytes are
// multiplied with the codes and summed in int32, exactly, four products of a byte
// an instruction, which takes three quarters of the time of float32. A term is off
// by 2**-23 of the largest in its column and chunk at most, which is what float32
// loses when it adds that one up; sums of chunks are added in float32. Nothing
// depends on the threads.

#include <immintrin.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>
#include <new>

#include "tiles.h"
#include "xla/ffi/api/ffi.h"

#define BITNET_TARGET \
  __attribute__((target("avx512f,avx512bw,avx512dq,avx512vnni,avx512vbmi")))

namespace {

namespace ffi = xla::ffi;

constexpr int64_t kLanes = 16;   // columns of x in a register
constexpr int64_t kRows = 8;     // columns of the codes in a tile
constexpr int64_t kChunk = 512;  // terms that are summed as integers
constexpr int64_t kQuads = kChunk / 4;
constexpr int64_t kStrip = 64;   // columns of codes that are packed at once
constexpr int64_t kPanels = 2;   // registers of columns that a thread takes
constexpr int64_t kAhead = 24;   // rows that are fetched before they are read
constexpr int kBytes = 3;
constexpr int kBits = 23;              // of integers, beside their sign
constexpr int kMiddle = 1 << kBits;    // added, for bytes without a sign
constexpr float kLeastExponent = -126; // of floats that are not subnormal

// Four codes of each column of a tile, beside one another.
using Quad = int8_t[kRows][4];

struct Product {
  const int8_t* codes;  // [terms, rows]
  const float* scale;   // [terms], or one
  const float* x;       // [terms, columns]
  float* y;             // [rows, columns]
  int64_t terms, rows, columns;
  bool one_scale;
  int64_t chunks, tiles;  // of terms, of rows
  Quad* packed;           // [chunks, tiles, kQuads]
  int32_t* sums;          // [chunks, tiles, kRows], of the codes
};

int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

int64_t Quads(const Product& p, int64_t chunk) {
  return CeilDiv(std::min(kChunk, p.terms - chunk * kChunk), 4);
}

// Those of a register of columns that are there.
__mmask16 Columns(const Product& p, int64_t first) {
  return (1u << std::min(kLanes, p.columns - first)) - 1;
}

// Packs the codes of a chunk and of kStrip columns, four terms side by side.
BITNET_TARGET void PackCodes(const Product& p, int64_t chunk, int64_t strip) {
  const int64_t first = strip * kStrip, tile = first / kRows;
  const int64_t width = std::min(kStrip, p.rows - first);
  const int64_t tiles = CeilDiv(width, kRows);
  const __mmask64 there = ~0ull >> (kStrip - width);
  const __m512i ones = _mm512_set1_epi8(1);
  __m512i sums[4] = {};
  const int64_t quads = Quads(p, chunk);
  for (int64_t q = 0; q < quads; ++q) {
    __m512i term[4];
    for (int i = 0; i < 4; ++i) {
      const int64_t m = chunk * kChunk + 4 * q + i;
      term[i] = m < p.terms ? _mm512_maskz_loadu_epi8(
                                  there, p.codes + m * p.rows + first)
                            : _mm512_setzero_si512();
    }
    const __m512i low01 = _mm512_unpacklo_epi8(term[0], term[1]);
    const __m512i high01 = _mm512_unpackhi_epi8(term[0], term[1]);
    const __m512i low23 = _mm512_unpacklo_epi8(term[2], term[3]);
    const __m512i high23 = _mm512_unpackhi_epi8(term[2], term[3]);
    // Part j has columns 4 j to 4 j + 3 of every 16.
    const __m512i parts[4] = {_mm512_unpacklo_epi16(low01, low23),
                              _mm512_unpackhi_epi16(low01, low23),
                              _mm512_unpacklo_epi16(high01, high23),
                              _mm512_unpackhi_epi16(high01, high23)};
    alignas(64) int8_t of_parts[4][kStrip];
    for (int j = 0; j < 4; ++j) {
      sums[j] = _mm512_dpbusd_epi32(sums[j], ones, parts[j]);
      _mm512_store_si512(of_parts[j], parts[j]);
    }
    for (int64_t i = 0; i < tiles * kRows; i += 4) {
      Quad* to = &p.packed[(chunk * p.tiles + tile + i / kRows) * kQuads + q];
      std::copy_n(of_parts[i % 16 / 4] + i / 16 * 16, 16,
                  (*to)[i % kRows]);
    }
  }
  alignas(64) int32_t of_parts[4][kStrip / 4];
  for (int j = 0; j < 4; ++j) _mm512_store_si512(of_parts[j], sums[j]);
  int32_t* to = p.sums + (chunk * p.tiles + tile) * kRows;
  for (int64_t i = 0; i < tiles * kRows; ++i) {
    to[i] = of_parts[i % 16 / 4][i / 16 * 4 + i % 4];
  }
}

// The bytes of the integers that columns became, which are 2**shift of a unit.
struct Panel {
  alignas(64) uint8_t bytes[kQuads][kBytes][4 * kLanes];
  alignas(64) float shift[kLanes];
};

constexpr __mmask64 kOddBytes = 0xaaaaaaaaaaaaaaaa;
constexpr __mmask32 kOddPairs = 0xaaaaaaaa;

// Bytes 0 and 2 of each integer, those of a before those of b.
BITNET_TARGET inline __m512i EvenBytes(__m512i a, __m512i b) {
  return _mm512_mask_blend_epi8(kOddBytes, a, _mm512_slli_epi16(b, 8));
}

BITNET_TARGET inline __m512i OddBytes(__m512i a, __m512i b) {
  return _mm512_mask_blend_epi8(kOddBytes, _mm512_srli_epi16(a, 8), b);
}

// Stores bytes 0, 1 and 2 of four terms, each side by side.
BITNET_TARGET inline void StoreBytes(const __m512i (&term)[4],
                                     uint8_t (&bytes)[kBytes][4 * kLanes]) {
  const __m512i even01 = EvenBytes(term[0], term[1]);
  const __m512i even23 = EvenBytes(term[2], term[3]);
  const __m512i odd01 = OddBytes(term[0], term[1]);
  const __m512i odd23 = OddBytes(term[2], term[3]);
  _mm512_store_si512(bytes[0],
                     _mm512_mask_blend_epi16(kOddPairs, even01,
                                             _mm512_slli_epi32(even23, 16)));
  _mm512_store_si512(bytes[1],
                     _mm512_mask_blend_epi16(kOddPairs, odd01,
                                             _mm512_slli_epi32(odd23, 16)));
  _mm512_store_si512(
      bytes[2], _mm512_mask_blend_epi16(
                    kOddPairs, _mm512_srli_epi32(even01, 16), even23));
}

// Makes integers of a chunk of a panel of columns.
BITNET_TARGET void PackPanel(const Product& p, int64_t chunk, int64_t first,
                             Panel& panel) {
  const int64_t begin = chunk * kChunk, quads = Quads(p, chunk);
  const __mmask16 there = Columns(p, first);
  alignas(64) float values[kChunk][kLanes];
  // The largest magnitude, as integers, to find what is not finite, too.
  __m512i bits = _mm512_setzero_si512();
  for (int64_t i = 0; i < 4 * quads; ++i) {
    const int64_t m = begin + i;
    __m512 value = _mm512_setzero_ps();
    if (m < p.terms) {
      _mm_prefetch(p.x + (m + kAhead) * p.columns + first, _MM_HINT_T0);
      value = _mm512_mul_ps(
          _mm512_set1_ps(p.scale[p.one_scale ? 0 : m]),
          _mm512_maskz_loadu_ps(there, p.x + m * p.columns + first));
    }
    _mm512_store_ps(values[i], value);
    bits = _mm512_max_epi32(
        bits, _mm512_castps_si512(_mm512_abs_ps(value)));
  }
  const __m512 largest = _mm512_castsi512_ps(bits);
  const __m512 exponent = _mm512_max_ps(
      _mm512_getexp_ps(largest), _mm512_set1_ps(kLeastExponent));
  const __m512 shift = _mm512_sub_ps(_mm512_set1_ps(kBits - 1), exponent);
  // What is not finite makes its column NaN.
  const __mmask16 finite = _mm512_cmplt_epi32_mask(
      bits, _mm512_castps_si512(_mm512_set1_ps(INFINITY)));
  _mm512_store_ps(panel.shift,
                  _mm512_mask_blend_ps(finite, _mm512_set1_ps(NAN), shift));
  for (int64_t q = 0; q < quads; ++q) {
    __m512i term[4];
    for (int i = 0; i < 4; ++i) {
      const __m512i rounded = _mm512_cvtps_epi32(
          _mm512_scalef_ps(_mm512_load_ps(values[4 * q + i]), shift));
      term[i] = _mm512_add_epi32(
          _mm512_min_epi32(rounded, _mm512_set1_epi32(kMiddle - 1)),
          _mm512_set1_epi32(kMiddle));
    }
    StoreBytes(term, panel.bytes[q]);
  }
}

// Adds the products of bytes and four codes, the same for all columns. GCC copies
// registers around the intrinsic that does it.
BITNET_TARGET inline void AddProducts(__m512i bytes, const int8_t (&codes)[4],
                                      __m512i& sum) {
  asm("vpdpbusd %2%{1to16%}, %1, %0" : "+v"(sum) : "v"(bytes), "m"(codes));
}

// Adds up the products of a chunk for a tile of y.
BITNET_TARGET void MultiplyTile(const Product& p, int64_t chunk, int64_t tile,
                                int64_t first, const Panel& panel) {
  const int64_t at = chunk * p.tiles + tile;
  const int64_t quads = Quads(p, chunk);
  const auto* codes = p.packed + at * kQuads;
  __m512i sums[kRows][kBytes];
#pragma GCC unroll 8
  for (int i = 0; i < kRows; ++i) {
    sums[i][0] = sums[i][1] = _mm512_setzero_si512();
    sums[i][2] = _mm512_set1_epi32(-(kMiddle >> 16) * p.sums[at * kRows + i]);
  }
  for (int64_t q = 0; q < quads; ++q) {
#pragma GCC unroll 8
    for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 3
      for (int b = 0; b < kBytes; ++b) {
        AddProducts(_mm512_load_si512(panel.bytes[q][b]), codes[q][i],
                    sums[i][b]);
      }
    }
  }
  const __mmask16 there = Columns(p, first);
  const __m512 shift = _mm512_load_ps(panel.shift);
  const __m512 next = _mm512_set1_ps(256.0f);
#pragma GCC unroll 8
  for (int i = 0; i < kRows; ++i) {
    const int64_t row = tile * kRows + i;
    if (row >= p.rows) break;
    __m512 sum = _mm512_cvtepi32_ps(sums[i][2]);
    sum = _mm512_fmadd_ps(sum, next, _mm512_cvtepi32_ps(sums[i][1]));
    sum = _mm512_fmadd_ps(sum, next, _mm512_cvtepi32_ps(sums[i][0]));
    sum = _mm512_scalef_ps(sum, _mm512_sub_ps(_mm512_setzero_ps(), shift));
    float* y = p.y + row * p.columns + first;
    if (chunk > 0) sum = _mm512_add_ps(sum, _mm512_maskz_loadu_ps(there, y));
    _mm512_mask_storeu_ps(y, there, sum);
  }
}

ffi::Error TransposedDot(ffi::ThreadPool pool, ffi::Buffer<ffi::S8> codes,
                          ffi::Buffer<ffi::F32> scale, ffi::Buffer<ffi::F32> x,
                          ffi::ResultBuffer<ffi::F32> y) {
  const auto of_codes = codes.dimensions(), of_x = x.dimensions();
  const int64_t scales = scale.element_count();
  if (of_codes.size() != 2 || of_x.size() != 2 || of_codes[0] != of_x[0] ||
      (scales != 1 && scales != of_x[0])) {
    return ffi::Error::InvalidArgument("codes, scale and x differ in terms");
  }
  Product p{};
  p.codes = codes.typed_data();
  p.scale = scale.typed_data();
  p.x = x.typed_data();
  p.y = y->typed_data();
  p.terms = of_x[0];
  p.rows = of_codes[1];
  p.columns = of_x[1];
  p.one_scale = scales == 1;
  p.chunks = CeilDiv(p.terms, kChunk);
  p.tiles = CeilDiv(p.rows, kRows);
  if (p.chunks == 0) {
    std::fill_n(p.y, p.rows * p.columns, 0.0f);
    return ffi::Error::Success();
  }
  const std::unique_ptr<Quad[]> packed(
      new (std::nothrow) Quad[p.chunks * p.tiles * kQuads]);
  const std::unique_ptr<int32_t[]> sums(
      new (std::nothrow) int32_t[p.chunks * p.tiles * kRows]);
  if (packed == nullptr || sums == nullptr) {
    return ffi::Error(ffi::ErrorCode::kResourceExhausted,
                      "no memory for packed codes");
  }
  p.packed = packed.get();
  p.sums = sums.get();
  const int64_t strips = CeilDiv(p.rows, kStrip);
  bitnet::RunTiles(pool, p.chunks * strips, [p, strips](int64_t job) {
    PackCodes(p, job / strips, job % strips);
  });
  const int64_t width = kPanels * kLanes;
  bitnet::RunTiles(pool, CeilDiv(p.columns, width), [p, width](int64_t job) {
    Panel panel;
    for (int64_t chunk = 0; chunk < p.chunks; ++chunk) {
      const int64_t end = std::min((job + 1) * width, p.columns);
      for (int64_t first = job * width; first < end; first += kLanes) {
        PackPanel(p, chunk, first, panel);
        for (int64_t tile = 0; tile < p.tiles; ++tile) {
          MultiplyTile(p, chunk, tile, first, panel);
        }
      }
    }
  });
  return ffi::Error::Success();
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(bitnet_transposed_dot, TransposedDot,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<ffi::Buffer<ffi::S8>>()
                                  .Arg<ffi::Buffer<ffi::F32>>()
                                  .Arg<ffi::Buffer<ffi::F32>>()
                                  .Ret<ffi::Buffer<ffi::F32>>());
