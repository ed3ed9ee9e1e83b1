// Products of int8 rows with ternary codes that are packed four to a byte.
//
// A byte holds four neighbours along the contracted axis, each one more than its
// code, so that y = sum_k x[k] * digit[k] - sum_k x[k]. Bytes of four rows of w are
// interleaved, so that a lane holds those of one column. Shifted and masked, they
// are four digits, which one instruction multiplies with four values of x and adds
// up. For few rows of x, reading w from memory takes the time.

#include <immintrin.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>

#include "tiles.h"
#include "xla/ffi/api/ffi.h"

#define BITNET_TARGET \
  __attribute__((target("avx512f,avx512bw,avx512vl,avx512vnni")))

namespace {

namespace ffi = xla::ffi;

constexpr int64_t kColumns = 64;  // of a block: bytes of a register
constexpr int64_t kLanes = 16;    // int32 of a register
constexpr int kParts = 4;         // registers of the sums of a block
constexpr int64_t kQuads = 4;     // rows of w that are interleaved
constexpr int64_t kTile = 128;    // columns of a tile
constexpr int64_t kAhead = 64;    // rows of w that are fetched early, at most

struct Product {
  const int32_t* x;     // [rows, groups, 4], four values each
  const int32_t* sums;  // [rows], of x
  const uint8_t* w;     // [quads, columns]
  int32_t* y;           // [rows, columns]
  int64_t rows, quads, columns;
  int64_t groups;       // of rows of w
};

// The sums of some rows of x and a block of columns.
template <int kRows>
using Sums = __m512i[kRows][kParts];

// Exchanges the lanes of four registers, in fours, with registers.
BITNET_TARGET inline void Transpose(__m512i (&part)[kParts]) {
  const __m512i ab_low = _mm512_shuffle_i32x4(part[0], part[1], 0x44);
  const __m512i ab_high = _mm512_shuffle_i32x4(part[0], part[1], 0xee);
  const __m512i cd_low = _mm512_shuffle_i32x4(part[2], part[3], 0x44);
  const __m512i cd_high = _mm512_shuffle_i32x4(part[2], part[3], 0xee);
  part[0] = _mm512_shuffle_i32x4(ab_low, cd_low, 0x88);
  part[1] = _mm512_shuffle_i32x4(ab_low, cd_low, 0xdd);
  part[2] = _mm512_shuffle_i32x4(ab_high, cd_high, 0x88);
  part[3] = _mm512_shuffle_i32x4(ab_high, cd_high, 0xdd);
}

// Adds the products with a block of some rows of w: four, or those that are left.
// Part i of the sums is that of the columns 4 * i to 4 * i + 3 of each sixteen.
template <int kRows>
BITNET_TARGET inline void AddBlock(const uint8_t* w, int64_t columns,
                                   int64_t quads, __mmask64 there,
                                   const int32_t* x, int64_t apart,
                                   Sums<kRows>& sums) {
  __m512i row[kQuads];
  for (int64_t q = 0; q < kQuads; ++q) {
    row[q] = _mm512_maskz_loadu_epi8(q < quads ? there : 0, w + q * columns);
  }
  const __m512i ab_low = _mm512_unpacklo_epi8(row[0], row[1]);
  const __m512i ab_high = _mm512_unpackhi_epi8(row[0], row[1]);
  const __m512i cd_low = _mm512_unpacklo_epi8(row[2], row[3]);
  const __m512i cd_high = _mm512_unpackhi_epi8(row[2], row[3]);
  const __m512i bytes[kParts] = {_mm512_unpacklo_epi16(ab_low, cd_low),
                                 _mm512_unpackhi_epi16(ab_low, cd_low),
                                 _mm512_unpacklo_epi16(ab_high, cd_high),
                                 _mm512_unpackhi_epi16(ab_high, cd_high)};
  const __m512i mask = _mm512_set1_epi8(3);
#pragma GCC unroll 4
  for (int d = 0; d < 4; ++d) {
#pragma GCC unroll 4
    for (int i = 0; i < kParts; ++i) {
      const __m512i digits =
          _mm512_and_si512(_mm512_srli_epi16(bytes[i], 2 * d), mask);
#pragma GCC unroll 4
      for (int r = 0; r < kRows; ++r) {
        sums[r][i] = _mm512_dpbusd_epi32(sums[r][i], digits,
                                         _mm512_set1_epi32(x[r * apart + d]));
      }
    }
  }
}

// Multiplies kRows rows with kBlocks blocks of columns, or as many as there are.
template <int kRows, int kBlocks>
BITNET_TARGET void MultiplyBlocks(const Product& p, int64_t row,
                                  int64_t column) {
  Sums<kRows> sums[kBlocks];
  __mmask64 there[kBlocks];
  for (int b = 0; b < kBlocks; ++b) {
    const int64_t left = std::clamp<int64_t>(
        p.columns - column - b * kColumns, 0, kColumns);
    there[b] = left == 0 ? 0 : ~uint64_t{0} >> (kColumns - left);
    for (int r = 0; r < kRows; ++r) {
      for (__m512i& part : sums[b][r]) {
        part = _mm512_set1_epi32(-p.sums[row + r]);
      }
    }
  }
  const int64_t apart = 4 * p.groups;
  const int32_t* x = p.x + row * apart;
  const uint8_t* w = p.w + column;
  const int64_t whole = p.quads / kQuads;
  const int64_t ahead = std::min(p.quads / 4, kAhead) * p.columns;
  for (int64_t group = 0; group < whole; ++group) {
#pragma GCC unroll 2
    for (int b = 0; b < kBlocks; ++b) {
      const uint8_t* block = w + b * kColumns;
      for (int64_t q = 0; q < kQuads; ++q) {
        const uint8_t* later = block + ahead + q * p.columns;
        _mm_prefetch(reinterpret_cast<const char*>(later), _MM_HINT_T1);
      }
      AddBlock<kRows>(block, p.columns, kQuads, there[b], x, apart, sums[b]);
    }
    x += 4;
    w += kQuads * p.columns;
  }
  if (whole < p.groups) {
    for (int b = 0; b < kBlocks; ++b) {
      AddBlock<kRows>(w + b * kColumns, p.columns, p.quads % kQuads, there[b],
                      x, apart, sums[b]);
    }
  }
  for (int b = 0; b < kBlocks; ++b) {
    for (int r = 0; r < kRows; ++r) {
      Transpose(sums[b][r]);
      int32_t* y = p.y + (row + r) * p.columns + column + b * kColumns;
      for (int i = 0; i < kParts; ++i) {
        const __mmask16 lanes = there[b] >> (i * kLanes);
        _mm512_mask_storeu_epi32(y + i * kLanes, lanes, sums[b][r][i]);
      }
    }
  }
}

// Multiplies rows with the columns of a tile, kRows at a time. Fewer rows leave
// registers for more columns.
template <int kRows>
int64_t MultiplyRows(const Product& p, int64_t row, int64_t first,
                     int64_t end) {
  constexpr int kBlocks = kRows > 2 ? 1 : 2;
  for (; row + kRows <= p.rows; row += kRows) {
    for (int64_t c = first; c < end; c += kBlocks * kColumns) {
      MultiplyBlocks<kRows, kBlocks>(p, row, c);
    }
  }
  return row;
}

void MultiplyTile(const Product& p, int64_t tile) {
  const int64_t first = tile * kTile;
  const int64_t end = std::min(first + kTile, p.columns);
  int64_t row = MultiplyRows<4>(p, 0, first, end);
  row = MultiplyRows<2>(p, row, first, end);
  MultiplyRows<1>(p, row, first, end);
}

// Arranges a row: of sixteen values, the four that meet the same digits of
// neighbouring bytes come together. Returns the sum.
BITNET_TARGET int32_t Arrange(const int8_t* x, int64_t terms, int64_t groups,
                              int32_t* arranged) {
  const __m128i places = _mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3,
                                       7, 11, 15);
  __m512i sums = _mm512_setzero_si512();
  for (int64_t g = 0; g < groups; ++g) {
    const int64_t left = std::clamp<int64_t>(terms - 16 * g, 0, 16);
    const __m128i values = _mm_maskz_loadu_epi8((1u << left) - 1, x + 16 * g);
    sums = _mm512_add_epi32(sums, _mm512_cvtepi8_epi32(values));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(arranged + 4 * g),
                     _mm_shuffle_epi8(values, places));
  }
  return _mm512_reduce_add_epi32(sums);
}

ffi::Error PackedDot(ffi::ThreadPool pool, ffi::Buffer<ffi::S8> x,
                     ffi::Buffer<ffi::U8> w, ffi::BufferR0<ffi::S32> index,
                     ffi::ResultBuffer<ffi::S32> y) {
  const auto rows = x.dimensions(), stack = w.dimensions();
  if (rows.size() != 2 || stack.size() != 3 || rows[1] > 4 * stack[1]) {
    return ffi::Error::InvalidArgument("x is not [rows, up to 4 * quads]");
  }
  Product p{};
  p.rows = rows[0];
  p.quads = stack[1];
  p.columns = stack[2];
  p.groups = (p.quads + kQuads - 1) / kQuads;
  const int64_t number =
      std::clamp<int64_t>(index.typed_data()[0], 0, stack[0] - 1);
  p.w = w.typed_data() + number * p.quads * p.columns;
  p.y = y->typed_data();
  const int64_t words = p.rows * p.groups * 4;
  const std::unique_ptr<int32_t[]> arranged(new int32_t[words + p.rows]);
  int32_t* sums = arranged.get() + words;
  for (int64_t r = 0; r < p.rows; ++r) {
    sums[r] = Arrange(x.typed_data() + r * rows[1], rows[1], p.groups,
                      arranged.get() + r * p.groups * 4);
  }
  p.x = arranged.get();
  p.sums = sums;
  bitnet::RunTiles(pool, (p.columns + kTile - 1) / kTile,
                   [p](int64_t tile) { MultiplyTile(p, tile); });
  return ffi::Error::Success();
}

}  // namespace

// Whether this processor has the instructions of all kernels.
extern "C" int bitnet_runs_here() {
  return __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("avx512vnni");
}

// The version of the headers; older versions than those of the caller will do.
extern "C" int bitnet_ffi_major() { return XLA_FFI_API_MAJOR; }
extern "C" int bitnet_ffi_minor() { return XLA_FFI_API_MINOR; }

XLA_FFI_DEFINE_HANDLER_SYMBOL(bitnet_packed_dot, PackedDot,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<ffi::Buffer<ffi::S8>>()
                                  .Arg<ffi::Buffer<ffi::U8>>()
                                  .Arg<ffi::BufferR0<ffi::S32>>()
                                  .Ret<ffi::Buffer<ffi::S32>>());
