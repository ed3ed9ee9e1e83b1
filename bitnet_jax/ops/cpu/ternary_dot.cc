// Products of float32 rows with ternary codes,
// y[m, k] = scale * sum_n x[m, n] codes[k, n],
// and the same with blocks of columns added up at places: convolutions by their
// input, transposed.
//
// Three codes have 27 values, so three neighbours of a row have 27 sums, which fill
// two registers: one instruction looks up those of 16 columns of the result. With
// the addition that follows it does what takes three instructions that multiply and
// add. Sums are of float32, in an order that does not depend on the threads, nor on
// other rows or examples.

#include <immintrin.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <memory>
#include <new>

#include "tiles.h"
#include "xla/ffi/api/ffi.h"

#define BITNET_TARGET __attribute__((target("avx512f,avx512dq")))

namespace {

namespace ffi = xla::ffi;

constexpr int64_t kLanes = 16;     // columns of a register
constexpr int64_t kWidest = 1152;  // columns whose sums stay in the first cache
constexpr int64_t kTileRows = 32;  // rows of a tile
constexpr int64_t kPacked = 256;   // triples of a column that are packed at once
constexpr int64_t kStrip = 1024;   // rows of y that are worth a tile, at least
constexpr int kRows = 4;           // rows that share what is loaded
constexpr int kTriples = 3;        // triples between load and store of a sum

struct Product {
  const float* x;          // [rows, terms]
  const int8_t* codes;     // [columns, terms]
  uint8_t* triples;        // [groups, padded], where they are looked up
  int64_t rows, terms, columns;
  int64_t groups, padded;  // terms in threes, columns in whole registers
};

// Three codes as one number from -13 to 13, the first counting least.
int8_t TripleOf(const int8_t* codes) {
  return codes[0] + 3 * codes[1] + 9 * codes[2];
}

// Where the sum of a triple is looked up: those of negative triples are in the
// second register, and are those of the positive ones with the other sign.
uint8_t PlaceOf(int8_t triple) { return triple < 0 ? kLanes - triple : triple; }

// The codes of the triples from 0 on.
using Digits = std::array<std::array<float, kLanes>, 3>;
constexpr Digits DigitsOfTriples() {
  Digits digits{};
  for (int triple = 0; triple <= 13; ++triple) {
    digits[0][triple] = (triple + 1) % 3 - 1;
    digits[1][triple] = (triple + 4) / 3 % 3 - 1;
    digits[2][triple] = (triple + 13) / 9 - 1;
  }
  return digits;
}
alignas(64) constexpr Digits kDigits = DigitsOfTriples();

// Packs the codes of kLanes columns.
BITNET_TARGET void PackColumns(const Product& p, int64_t first) {
  const int64_t there = std::min(kLanes, p.columns - first);
  for (int64_t begin = 0; begin < p.groups; begin += kPacked) {
    const int64_t end = std::min(begin + kPacked, p.groups);
    uint8_t packed[kLanes][kPacked] = {};
    for (int64_t i = 0; i < there; ++i) {
      const int8_t* codes = p.codes + (first + i) * p.terms;
      const int64_t whole = std::min(end, p.terms / 3);
      for (int64_t q = begin; q < whole; ++q) {
        packed[i][q - begin] = PlaceOf(TripleOf(codes + 3 * q));
      }
      if (whole < end) {
        int8_t last[3] = {};
        std::copy(codes + 3 * whole, codes + p.terms, last);
        packed[i][whole - begin] = PlaceOf(TripleOf(last));
      }
    }
    for (int64_t q = begin; q < end; ++q) {
      uint8_t* triples = p.triples + q * p.padded + first;
      for (int64_t i = 0; i < kLanes; ++i) triples[i] = packed[i][q - begin];
    }
  }
}

// Sums of up to kRows rows. Rows that begin a power of two apart are slow.
using Sums = float[kRows][kWidest + kLanes];

// Adds a few triples of terms to the sums of kUsedRows rows. Values of x are
// `apart` from row to row; triples are those of the first column.
template <int kUsedRows, int kUsedTriples>
BITNET_TARGET void AddTriples(const Product& p, const float* x, int64_t apart,
                              const uint8_t* triples, int64_t width,
                              Sums& sums) {
  const __m512 negative = _mm512_set1_ps(-0.0f);
  __m512 low[kUsedRows][kUsedTriples], high[kUsedRows][kUsedTriples];
  for (int m = 0; m < kUsedRows; ++m) {
    for (int q = 0; q < kUsedTriples; ++q) {
      const float* values = x + m * apart + 3 * q;
      __m512 sum = _mm512_setzero_ps();
      for (int i = 0; i < 3; ++i) {
        sum = _mm512_fmadd_ps(_mm512_set1_ps(values[i]),
                              _mm512_load_ps(kDigits[i].data()), sum);
      }
      low[m][q] = sum;
      high[m][q] = _mm512_xor_ps(sum, negative);
    }
  }
  for (int64_t k = 0; k < width; k += kLanes) {
    __m512i triple[kUsedTriples];
    for (int q = 0; q < kUsedTriples; ++q) {
      triple[q] = _mm512_cvtepu8_epi32(_mm_loadu_si128(
          reinterpret_cast<const __m128i*>(triples + q * p.padded + k)));
    }
    for (int m = 0; m < kUsedRows; ++m) {
      __m512 sum = _mm512_load_ps(&sums[m][k]);
      for (int q = 0; q < kUsedTriples; ++q) {
        sum = _mm512_add_ps(
            sum, _mm512_permutex2var_ps(low[m][q], triple[q], high[m][q]));
      }
      _mm512_store_ps(&sums[m][k], sum);
    }
  }
}

// Calls put(row, first, end, sums) for each row and each run of columns.
template <int kUsedRows, typename Put>
BITNET_TARGET int64_t MultiplyRows(const Product& p, int64_t row, int64_t end,
                                   const Put& put) {
  alignas(64) Sums sums;
  const int64_t whole = p.terms / 3;
  for (; row + kUsedRows <= end; row += kUsedRows) {
    const float* x = p.x + row * p.terms;
    float last[kUsedRows][3] = {};  // what is left of each row, and zeros
    for (int m = 0; m < kUsedRows; ++m) {
      std::copy(x + m * p.terms + 3 * whole, x + (m + 1) * p.terms, last[m]);
    }
    for (int64_t first = 0; first < p.padded; first += kWidest) {
      const int64_t width = std::min(kWidest, p.padded - first);
      const uint8_t* triples = p.triples + first;
      for (int m = 0; m < kUsedRows; ++m) std::fill_n(sums[m], width, 0.0f);
      int64_t q = 0;
      for (; q + kTriples <= whole; q += kTriples) {
        AddTriples<kUsedRows, kTriples>(p, x + 3 * q, p.terms,
                                        triples + q * p.padded, width, sums);
      }
      for (; q < whole; ++q) {
        AddTriples<kUsedRows, 1>(p, x + 3 * q, p.terms, triples + q * p.padded,
                                 width, sums);
      }
      if (q < p.groups) {
        AddTriples<kUsedRows, 1>(p, last[0], 3, triples + q * p.padded, width,
                                 sums);
      }
      const int64_t last_column = std::min(first + width, p.columns);
      for (int m = 0; m < kUsedRows; ++m) {
        put(row + m, first, last_column, sums[m]);
      }
    }
  }
  return row;
}

template <typename Put>
void MultiplyTile(const Product& p, int64_t row, int64_t end, const Put& put) {
  row = MultiplyRows<kRows>(p, row, end, put);
  MultiplyRows<1>(p, row, end, put);
}

// Writes sums where they belong.
struct PutRow {
  float scale;
  float* y;  // [rows, columns]
  int64_t columns;

  BITNET_TARGET void operator()(int64_t row, int64_t first, int64_t end,
                                const float* sums) const {
    float* values = y + row * columns;
    for (int64_t k = first; k < end; ++k) values[k] = scale * sums[k - first];
  }
};

// Adds the sums of each block of columns to what is at its place.
struct AddBlocks {
  float scale;
  float* y;               // [.., size]
  const int32_t* places;  // [rows, blocks], of a row of y, negative for none
  int64_t begin, end;     // places that count
  int64_t blocks, size;

  BITNET_TARGET void operator()(int64_t row, int64_t first, int64_t last,
                                const float* sums) const {
    for (int64_t k = first, next; k < last; k = next) {
      const int64_t block = k / size;
      next = std::min(last, (block + 1) * size);
      const int64_t place = places[row * blocks + block];
      if (place < begin || place >= end) continue;
      float* values = y + place * size + k - block * size;
      for (int64_t i = 0; i < next - k; ++i) {
        values[i] += scale * sums[k - first + i];
      }
    }
  }

  bool Meets(int64_t row) const {
    const int32_t* of_row = places + row * blocks;
    return std::any_of(of_row, of_row + blocks, [this](int64_t place) {
      return begin <= place && place < end;
    });
  }
};

// Adds up what falls on some rows of y; rows of x that meet none are left out at
// both ends.
void AddStrip(const Product& p, const AddBlocks& add) {
  std::fill(add.y + add.begin * add.size, add.y + add.end * add.size, 0.0f);
  int64_t row = 0, end = p.rows;
  while (row < end && !add.Meets(row)) ++row;
  while (row < end && !add.Meets(end - 1)) --end;
  MultiplyTile(p, row, end, add);
}

// Packs the codes, and calls run(product) with them.
template <typename Run>
ffi::Error WithTriples(ffi::ThreadPool& pool, Product p, const Run& run) {
  p.groups = (p.terms + 2) / 3;
  p.padded = (p.columns + kLanes - 1) / kLanes * kLanes;
  const std::unique_ptr<uint8_t[]> triples(
      new (std::nothrow) uint8_t[p.groups * p.padded]);
  if (triples == nullptr) {
    return ffi::Error(ffi::ErrorCode::kResourceExhausted,
                      "no memory for packed codes");
  }
  p.triples = triples.get();
  bitnet::RunTiles(pool, p.padded / kLanes,
                   [p](int64_t tile) { PackColumns(p, tile * kLanes); });
  run(p);
  return ffi::Error::Success();
}

ffi::Error TernaryDot(ffi::ThreadPool pool, ffi::Buffer<ffi::F32> x,
                      ffi::Buffer<ffi::S8> codes, ffi::BufferR0<ffi::F32> scale,
                      ffi::ResultBuffer<ffi::F32> y) {
  const auto of_x = x.dimensions(), of_codes = codes.dimensions();
  if (of_x.size() != 2 || of_codes.size() != 2 || of_x[1] != of_codes[1]) {
    return ffi::Error::InvalidArgument("x and codes differ in their terms");
  }
  Product product{};
  product.x = x.typed_data();
  product.codes = codes.typed_data();
  product.rows = of_x[0];
  product.terms = of_x[1];
  product.columns = of_codes[0];
  const PutRow put{scale.typed_data()[0], y->typed_data(), product.columns};
  return WithTriples(pool, product, [&](const Product& p) {
    bitnet::RunTiles(
        pool, (p.rows + kTileRows - 1) / kTileRows, [p, put](int64_t tile) {
          const int64_t row = tile * kTileRows;
          MultiplyTile(p, row, std::min(row + kTileRows, p.rows), put);
        });
  });
}

ffi::Error TernaryConvTranspose(
    ffi::ThreadPool pool, ffi::Buffer<ffi::F32> x, ffi::Buffer<ffi::S8> codes,
    ffi::BufferR0<ffi::F32> scale, ffi::Buffer<ffi::S32> places,
    ffi::ResultBuffer<ffi::F32> y) {
  const auto of_x = x.dimensions(), of_codes = codes.dimensions();
  const auto of_places = places.dimensions(), of_y = y->dimensions();
  if (of_x.size() != 3 || of_codes.size() != 3 || of_places.size() != 2 ||
      of_y.size() != 3 || of_x[0] != of_y[0] || of_x[1] != of_places[0] ||
      of_x[2] != of_codes[2] || of_codes[0] != of_places[1] ||
      of_codes[1] != of_y[2]) {
    return ffi::Error::InvalidArgument("shapes do not fit one another");
  }
  Product product{};
  product.x = x.typed_data();
  product.codes = codes.typed_data();
  product.rows = of_x[1];
  product.terms = of_x[2];
  product.columns = of_codes[0] * of_codes[1];
  const float* of_scale = scale.typed_data();
  float* of_result = y->typed_data();
  const int32_t* table = places.typed_data();
  const int64_t blocks = of_codes[0], size = of_codes[1], inputs = of_y[1];
  const int64_t batch = of_x[0];
  // Strips cost their borders twice, so there are several where images are few.
  const int64_t wanted = 2 * pool.num_threads() / std::max<int64_t>(batch, 1);
  const int64_t strips = std::clamp<int64_t>(wanted, 1, inputs / kStrip + 1);
  return WithTriples(pool, product, [&](const Product& p) {
    bitnet::RunTiles(pool, batch * strips, [=](int64_t tile) {
      const int64_t example = tile / strips, strip = tile % strips;
      Product of_example = p;
      of_example.x += example * p.rows * p.terms;
      AddStrip(of_example, {*of_scale, of_result + example * inputs * size,
                            table, strip * inputs / strips,
                            (strip + 1) * inputs / strips, blocks, size});
    });
  });
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(bitnet_ternary_dot, TernaryDot,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<ffi::Buffer<ffi::F32>>()
                                  .Arg<ffi::Buffer<ffi::S8>>()
                                  .Arg<ffi::BufferR0<ffi::F32>>()
                                  .Ret<ffi::Buffer<ffi::F32>>());

XLA_FFI_DEFINE_HANDLER_SYMBOL(bitnet_ternary_conv_transpose,
                              TernaryConvTranspose,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<ffi::Buffer<ffi::F32>>()
                                  .Arg<ffi::Buffer<ffi::S8>>()
                                  .Arg<ffi::BufferR0<ffi::F32>>()
                                  .Arg<ffi::Buffer<ffi::S32>>()
                                  .Ret<ffi::Buffer<ffi::F32>>());
