// Products of int8 rows with ternary codes that are packed four to a byte.
//
// A byte holds four neighbours along the contracted axis, each one more than its
// code, so that y = sum_k x[k] * digit[k] - sum_k x[k]. The four digits of a byte
// become the four bytes of a lane, which one instruction multiplies with four
// values of x and adds up.

#include <immintrin.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include "tiles.h"
#include "xla/ffi/api/ffi.h"

#define BITNET_TARGET \
  __attribute__((target("avx512f,avx512bw,avx512vl,avx512vbmi,avx512vnni")))

namespace {

namespace ffi = xla::ffi;

constexpr int64_t kLanes = 16;      // columns of a register
constexpr int64_t kWidest = 256;    // columns of a tile
constexpr int64_t kAhead = 8;       // rows that are fetched early

struct Product {
  const int8_t* x;       // [rows, 4 * quads]
  const uint8_t* w;      // [quads, columns]
  const int32_t* sums;   // [rows], of x
  int32_t* y;            // [rows, columns]
  int64_t rows, quads, columns;
};

// Multiplies kRows rows with kRegisters * kLanes columns, or as many as there
// are.
template <int kRows, int kRegisters>
BITNET_TARGET void MultiplyBlock(const Product& p, int64_t row, int64_t column) {
  const __m512i places = _mm512_set1_epi64(0x2624222006040200);
  const __m512i digit = _mm512_set1_epi8(3);
  __m512i sums[kRows][kRegisters];
  __mmask16 there[kRegisters];
  for (int c = 0; c < kRegisters; ++c) {
    const int64_t left = p.columns - column - c * kLanes;
    const int64_t used = std::clamp<int64_t>(left, 0, kLanes);
    there[c] = static_cast<__mmask16>((1u << used) - 1);
    for (int r = 0; r < kRows; ++r) {
      sums[r][c] = _mm512_set1_epi32(-p.sums[row + r]);
    }
  }
  const uint8_t* w = p.w + column;
  const int8_t* x = p.x + row * 4 * p.quads;
  for (int64_t q = 0; q < p.quads; ++q, w += p.columns) {
    for (int c = 0; c < kRegisters; c += 4) {
      _mm_prefetch(reinterpret_cast<const char*>(
                       w + kAhead * p.columns + c * kLanes),
                   _MM_HINT_T0);
    }
    __m512i four[kRows];
    for (int r = 0; r < kRows; ++r) {
      int32_t values;
      std::memcpy(&values, x + (r * p.quads + q) * 4, sizeof(values));
      four[r] = _mm512_set1_epi32(values);
    }
    for (int c = 0; c < kRegisters; ++c) {
      const __m128i bytes = _mm_maskz_loadu_epi8(there[c], w + c * kLanes);
      const __m512i digits = _mm512_and_si512(
          _mm512_multishift_epi64_epi8(places, _mm512_cvtepu8_epi32(bytes)),
          digit);
      for (int r = 0; r < kRows; ++r) {
        sums[r][c] = _mm512_dpbusd_epi32(sums[r][c], digits, four[r]);
      }
    }
  }
  for (int r = 0; r < kRows; ++r) {
    int32_t* y = p.y + (row + r) * p.columns + column;
    for (int c = 0; c < kRegisters; ++c) {
      _mm512_mask_storeu_epi32(y + c * kLanes, there[c], sums[r][c]);
    }
  }
}

// Multiplies rows with the columns of a tile, kRows at a time. Fewer rows leave
// registers for more columns; sixteen sums are kept in any case.
template <int kRows>
int64_t MultiplyRows(const Product& p, int64_t row, int64_t first, int64_t end) {
  constexpr int kRegisters = 16 / kRows;
  for (; row + kRows <= p.rows; row += kRows) {
    for (int64_t c = first; c < end; c += kRegisters * kLanes) {
      MultiplyBlock<kRows, kRegisters>(p, row, c);
    }
  }
  return row;
}

void MultiplyTile(const Product& p, int64_t tile) {
  const int64_t first = tile * kWidest;
  const int64_t end = std::min(first + kWidest, p.columns);
  int64_t row = MultiplyRows<4>(p, 0, first, end);
  row = MultiplyRows<2>(p, row, first, end);
  MultiplyRows<1>(p, row, first, end);
}

ffi::Error PackedDot(ffi::ThreadPool pool, ffi::Buffer<ffi::S8> x,
                     ffi::Buffer<ffi::U8> w,
                     ffi::ResultBuffer<ffi::S32> y) {
  const auto rows = x.dimensions(), packed = w.dimensions();
  if (rows.size() != 2 || packed.size() != 2 || rows[1] != 4 * packed[0]) {
    return ffi::Error::InvalidArgument("x is not [rows, 4 * quads]");
  }
  Product p{x.typed_data(), w.typed_data(), nullptr,  y->typed_data(),
            rows[0],        packed[0],      packed[1]};
  std::vector<int32_t> sums(p.rows, 0);
  for (int64_t r = 0; r < p.rows; ++r) {
    const int8_t* values = p.x + r * 4 * p.quads;
    for (int64_t k = 0; k < 4 * p.quads; ++k) sums[r] += values[k];
  }
  p.sums = sums.data();
  const int64_t tiles = (p.columns + kWidest - 1) / kWidest;
  bitnet::RunTiles(pool, tiles, [p](int64_t tile) { MultiplyTile(p, tile); });
  return ffi::Error::Success();
}

}  // namespace

// Whether this processor has the instructions of all kernels.
extern "C" int bitnet_runs_here() {
  return __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("avx512vbmi") &&
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
                                  .Ret<ffi::Buffer<ffi::S32>>());
