// Products of transposed int8 codes with float32 rows,
// y[k, n] = sum_m codes[m, k] scale[m] x[m, n],
// in integers, and the same for each place of a window: the gradients by the
// weights of quantized layers and convolutions.
//
// Of up to kChunk rows, the scaled floats of a column become integers of 24 bits:
// multiples of the power of two that makes the largest fit. Their three bytes are
// multiplied with the codes and summed in int32, exactly, four products of a byte
// an instruction, which takes three quarters of the time of float32. A scaled float
// is off by at most 2**-23 of the largest in its column and chunk, which is about
// what float32 loses after it has added that one up; sums of chunks are added in
// float32. Nothing depends on the threads.

#include <immintrin.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>
#include <new>

#include "tiles.h"
#include "xla/ffi/api/ffi.h"

#define BITNET_TARGET \
  __attribute__((target("avx512f,avx512bw,avx512dq,avx512vnni")))

namespace {

namespace ffi = xla::ffi;
using Codes = ffi::Buffer<ffi::S8>;
using Floats = ffi::Buffer<ffi::F32>;

constexpr int64_t kLanes = 16;           // columns of x in a register
constexpr int64_t kRows = 8;             // columns of the codes in a tile
constexpr int64_t kChunk = 512;          // terms that are summed as integers
constexpr int64_t kQuads = kChunk / 4;
constexpr int64_t kStrip = 64;           // columns of codes that are packed at once
constexpr int64_t kPacked = 1 << 22;     // bytes of codes that are packed at once
constexpr int64_t kBlock = 32;           // columns of x that a thread takes
constexpr int64_t kAhead = 24;           // rows that are fetched before they are read
constexpr int kBytes = 3;
constexpr int kBits = 23;                // of integers, beside their sign
constexpr int kMiddle = 1 << kBits;      // added, for bytes without a sign
constexpr float kLeastExponent = -126;   // of floats that are not subnormal

// Four codes of each column of a tile, beside one another.
using Quad = int8_t[kRows][4];

struct Product {
  const int8_t* codes;    // [inputs, width] for each example
  const float* scale;     // of `sharing` rows of x, one after the other
  const float* x;         // [terms, columns]
  const int32_t* places;  // [positions, taps], of inputs, negative for none
  float* y;               // [taps, width, columns]
  int64_t terms, width, columns, sharing;
  int64_t inputs, positions, taps;  // terms are `positions` for each example
  int64_t chunks, tiles;            // of terms, of the width
  int64_t group;                    // chunks that are packed at once
  Quad* packed;                     // [group, taps, tiles, kQuads]
  int32_t* sums;                    // [group, taps, tiles, kRows], of the codes
};

int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

int64_t Quads(const Product& p, int64_t chunk) {
  return CeilDiv(std::min(kChunk, p.terms - chunk * kChunk), 4);
}

// Those of a register of columns that are there.
__mmask16 Columns(const Product& p, int64_t first) {
  return (1u << std::min(kLanes, p.columns - first)) - 1;
}

int64_t Place(const Product& p, int64_t chunk, int64_t tap, int64_t tile) {
  return ((chunk % p.group) * p.taps + tap) * p.tiles + tile;
}

// The codes that meet one term after the other at a place of the window.
class Rows {
 public:
  Rows(const Product& p, int64_t term, int64_t tap)
      : p_(p), tap_(tap), position_(term % p.positions),
        codes_(p.codes + term / p.positions * p.inputs * p.width) {}

  // Returns those of the next term; null where there are none.
  const int8_t* Next() {
    int64_t place = position_;
    if (p_.places != nullptr) place = p_.places[position_ * p_.taps + tap_];
    const int8_t* found = place < 0 ? nullptr : codes_ + place * p_.width;
    if (++position_ == p_.positions) {
      position_ = 0;
      codes_ += p_.inputs * p_.width;
    }
    return found;
  }

 private:
  const Product& p_;
  int64_t tap_, position_;
  const int8_t* codes_;
};

// Turns bytes of 64 columns of four terms into four bytes for each column, 16
// columns in a register.
BITNET_TARGET inline void Interleave(const __m512i (&term)[4],
                                     __m512i (&columns)[4]) {
  const __m512i low01 = _mm512_unpacklo_epi8(term[0], term[1]);
  const __m512i high01 = _mm512_unpackhi_epi8(term[0], term[1]);
  const __m512i low23 = _mm512_unpacklo_epi8(term[2], term[3]);
  const __m512i high23 = _mm512_unpackhi_epi8(term[2], term[3]);
  // Of every 16 columns the first four, the second four and so on.
  const __m512i a = _mm512_unpacklo_epi16(low01, low23);
  const __m512i b = _mm512_unpackhi_epi16(low01, low23);
  const __m512i c = _mm512_unpacklo_epi16(high01, high23);
  const __m512i d = _mm512_unpackhi_epi16(high01, high23);
  const __m512i ab_first = _mm512_shuffle_i32x4(a, b, 0x44);
  const __m512i ab_last = _mm512_shuffle_i32x4(a, b, 0xee);
  const __m512i cd_first = _mm512_shuffle_i32x4(c, d, 0x44);
  const __m512i cd_last = _mm512_shuffle_i32x4(c, d, 0xee);
  columns[0] = _mm512_shuffle_i32x4(ab_first, cd_first, 0x88);
  columns[1] = _mm512_shuffle_i32x4(ab_first, cd_first, 0xdd);
  columns[2] = _mm512_shuffle_i32x4(ab_last, cd_last, 0x88);
  columns[3] = _mm512_shuffle_i32x4(ab_last, cd_last, 0xdd);
}

// Packs the codes of a chunk, a place of the window and kStrip columns, four terms
// side by side.
BITNET_TARGET void PackCodes(const Product& p, int64_t chunk, int64_t tap,
                             int64_t strip) {
  const int64_t first = strip * kStrip;
  const int64_t width = std::min(kStrip, p.width - first);
  const int64_t tiles = CeilDiv(width, kRows);
  const int64_t place = Place(p, chunk, tap, first / kRows);
  const __mmask64 there = ~0ull >> (kStrip - width);
  __m512i sums[4] = {};
  Rows rows(p, chunk * kChunk, tap);
  const int64_t quads = Quads(p, chunk);
  for (int64_t q = 0; q < quads; ++q) {
    __m512i term[4];
    for (int i = 0; i < 4; ++i) {
      term[i] = _mm512_setzero_si512();
      if (chunk * kChunk + 4 * q + i >= p.terms) continue;
      const int8_t* codes = rows.Next();
      if (codes == nullptr) continue;
      term[i] = _mm512_maskz_loadu_epi8(there, codes + first);
    }
    __m512i columns[4];
    Interleave(term, columns);
    for (int64_t t = 0; t < tiles; ++t) {
      Quad& to = p.packed[(place + t) * kQuads + q];
      const __m512i& of_tiles = columns[t / 2];
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(to),
                          t % 2 ? _mm512_extracti64x4_epi64(of_tiles, 1)
                                : _mm512_castsi512_si256(of_tiles));
    }
    for (int v = 0; v < 4; ++v) {
      sums[v] = _mm512_dpbusd_epi32(sums[v], _mm512_set1_epi8(1), columns[v]);
    }
  }
  alignas(64) int32_t of_columns[4][kLanes];
  for (int v = 0; v < 4; ++v) _mm512_store_si512(of_columns[v], sums[v]);
  std::copy_n(of_columns[0], tiles * kRows, p.sums + place * kRows);
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
          _mm512_set1_ps(p.scale[m / p.sharing]),
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
BITNET_TARGET void MultiplyTile(const Product& p, int64_t chunk, int64_t tap,
                                int64_t tile, int64_t first,
                                const Panel& panel) {
  const int64_t at = Place(p, chunk, tap, tile);
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
    if (row >= p.width) break;
    __m512 sum = _mm512_cvtepi32_ps(sums[i][2]);
    sum = _mm512_fmadd_ps(sum, next, _mm512_cvtepi32_ps(sums[i][1]));
    sum = _mm512_fmadd_ps(sum, next, _mm512_cvtepi32_ps(sums[i][0]));
    sum = _mm512_scalef_ps(sum, _mm512_sub_ps(_mm512_setzero_ps(), shift));
    float* y = p.y + (tap * p.width + row) * p.columns + first;
    if (chunk > 0) sum = _mm512_add_ps(sum, _mm512_maskz_loadu_ps(there, y));
    _mm512_mask_storeu_ps(y, there, sum);
  }
}

// Multiplies a share of the rows of y and a few columns, in a group of chunks.
void MultiplyBlock(const Product& p, int64_t begin, int64_t end, int64_t block,
                   int64_t share, int64_t shares) {
  Panel panel;
  const int64_t tiles = p.taps * p.tiles;
  for (int64_t chunk = begin; chunk < end; ++chunk) {
    const int64_t last = std::min((block + 1) * kBlock, p.columns);
    for (int64_t first = block * kBlock; first < last; first += kLanes) {
      PackPanel(p, chunk, first, panel);
      for (int64_t tile = share * tiles / shares;
           tile < (share + 1) * tiles / shares; ++tile) {
        MultiplyTile(p, chunk, tile / p.tiles, tile % p.tiles, first, panel);
      }
    }
  }
}

ffi::Error Multiply(ffi::ThreadPool& pool, Product p) {
  p.chunks = CeilDiv(p.terms, kChunk);
  p.tiles = CeilDiv(p.width, kRows);
  const int64_t tiles = p.taps * p.tiles;
  if (p.chunks == 0 || tiles == 0 || p.columns == 0) {
    std::fill_n(p.y, p.taps * p.width * p.columns, 0.0f);
    return ffi::Error::Success();
  }
  const int64_t at_once = kPacked / (tiles * kQuads * sizeof(Quad));
  p.group = std::clamp<int64_t>(at_once, 1, p.chunks);
  const std::unique_ptr<Quad[]> packed(
      new (std::nothrow) Quad[p.group * tiles * kQuads]);
  const std::unique_ptr<int32_t[]> sums(
      new (std::nothrow) int32_t[p.group * tiles * kRows]);
  if (packed == nullptr || sums == nullptr) {
    return ffi::Error(ffi::ErrorCode::kResourceExhausted,
                      "no memory for packed codes");
  }
  p.packed = packed.get();
  p.sums = sums.get();
  const int64_t strips = CeilDiv(p.width, kStrip);
  const int64_t blocks = CeilDiv(p.columns, kBlock);
  // Columns are packed once for each share of the rows.
  const int64_t wanted = CeilDiv(2 * pool.num_threads(), blocks);
  const int64_t shares = std::clamp<int64_t>(wanted, 1, tiles);
  for (int64_t begin = 0; begin < p.chunks; begin += p.group) {
    const int64_t end = std::min(begin + p.group, p.chunks);
    bitnet::RunTiles(pool, (end - begin) * p.taps * strips, [=](int64_t job) {
      PackCodes(p, begin + job / (p.taps * strips), job / strips % p.taps,
                job % strips);
    });
    bitnet::RunTiles(pool, blocks * shares, [=](int64_t job) {
      MultiplyBlock(p, begin, end, job / shares, job % shares, shares);
    });
  }
  return ffi::Error::Success();
}

ffi::Error TransposedDot(ffi::ThreadPool pool, Codes codes, Floats scale,
                         Floats x, ffi::ResultBuffer<ffi::F32> y) {
  const auto of_codes = codes.dimensions(), of_x = x.dimensions();
  const int64_t scales = scale.element_count();
  if (of_codes.size() != 2 || of_x.size() != 2 || of_codes[0] != of_x[0] ||
      (scales != 1 && scales != of_x[0])) {
    return ffi::Error::InvalidArgument("codes, scale and x differ in terms");
  }
  Product p{codes.typed_data(), scale.typed_data(), x.typed_data(),
            /*places=*/nullptr, y->typed_data()};
  p.terms = p.inputs = p.positions = of_x[0];
  p.width = of_codes[1];
  p.columns = of_x[1];
  p.sharing = scales == 1 ? std::max<int64_t>(p.terms, 1) : 1;
  p.taps = 1;
  return Multiply(pool, p);
}

ffi::Error TransposedConv(ffi::ThreadPool pool, Codes codes, Floats scale,
                          Floats x, ffi::Buffer<ffi::S32> places,
                          ffi::ResultBuffer<ffi::F32> y) {
  const auto of_codes = codes.dimensions(), of_x = x.dimensions();
  const auto of_places = places.dimensions();
  const int64_t scales = scale.element_count();
  if (of_codes.size() != 3 || of_x.size() != 3 || of_places.size() != 2 ||
      of_codes[0] != of_x[0] || of_x[1] != of_places[0] ||
      (scales != 1 && scales != of_x[0])) {
    return ffi::Error::InvalidArgument("shapes do not fit one another");
  }
  Product p{codes.typed_data(), scale.typed_data(), x.typed_data(),
            places.typed_data(), y->typed_data()};
  p.terms = of_x[0] * of_x[1];
  p.inputs = of_codes[1];
  p.positions = of_x[1];
  p.width = of_codes[2];
  p.columns = of_x[2];
  p.sharing = std::max<int64_t>(scales == 1 ? p.terms : p.positions, 1);
  p.taps = of_places[1];
  return Multiply(pool, p);
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(
    bitnet_transposed_dot, TransposedDot,
    ffi::Ffi::Bind().Ctx<ffi::ThreadPool>().Arg<Codes>()
        .Arg<Floats>().Arg<Floats>().Ret<Floats>());

XLA_FFI_DEFINE_HANDLER_SYMBOL(
    bitnet_transposed_conv, TransposedConv,
    ffi::Ffi::Bind().Ctx<ffi::ThreadPool>().Arg<Codes>()
        .Arg<Floats>().Arg<Floats>().Arg<ffi::Buffer<ffi::S32>>()
        .Ret<Floats>());
