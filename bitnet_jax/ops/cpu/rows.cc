// Rows of float32 that are normalized and rounded to int8, and the gradient of the
// norm: a row is read from memory once and stays in the first cache for the rest.

#include <immintrin.h>

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "tiles.h"
#include "xla/ffi/api/ffi.h"

#define BITNET_TARGET \
  __attribute__((target("avx512f,avx512dq")))

namespace {

namespace ffi = xla::ffi;

constexpr int64_t kLanes = 16;
constexpr int64_t kTile = 1 << 14;  // values that are worth a tile, at least
constexpr int kSums = 4;            // that a row is added up in
constexpr float kLargestScale = 0x1p126f;  // with a normal reciprocal

enum class Norm : int64_t { kNone, kLayer, kRms };

__mmask16 There(int64_t left) {
  return left < kLanes ? (1u << left) - 1 : 0xffff;
}

// Sums of a row, or of two, in kSums registers that are added up at the end. The
// order depends on nothing but the length.
struct Sum {
  __m512 parts[kSums];

  BITNET_TARGET Sum() {
    for (__m512& part : parts) part = _mm512_setzero_ps();
  }

  BITNET_TARGET float Total() const {
    return _mm512_reduce_add_ps(
        _mm512_add_ps(_mm512_add_ps(parts[0], parts[1]),
                      _mm512_add_ps(parts[2], parts[3])));
  }
};

BITNET_TARGET float Mean(const float* x, int64_t n) {
  Sum sum;
  for (int64_t i = 0; i < n; i += kSums * kLanes) {
#pragma GCC unroll 4
    for (int j = 0; j < kSums; ++j) {
      const int64_t at = i + j * kLanes;
      if (at >= n) break;
      sum.parts[j] = _mm512_add_ps(
          sum.parts[j], _mm512_maskz_loadu_ps(There(n - at), x + at));
    }
  }
  return sum.Total() / n;
}

BITNET_TARGET float MeanSquare(const float* x, int64_t n, float mean) {
  Sum sum;
  for (int64_t i = 0; i < n; i += kSums * kLanes) {
#pragma GCC unroll 4
    for (int j = 0; j < kSums; ++j) {
      const int64_t at = i + j * kLanes;
      if (at >= n) break;
      const __mmask16 there = There(n - at);
      const __m512 value = _mm512_maskz_sub_ps(
          there, _mm512_maskz_loadu_ps(there, x + at), _mm512_set1_ps(mean));
      sum.parts[j] = _mm512_fmadd_ps(value, value, sum.parts[j]);
    }
  }
  return sum.Total() / n;
}

// The largest |x - mean|; what is not finite is larger than anything.
BITNET_TARGET float Largest(const float* x, int64_t n, float mean) {
  __m512i largest = _mm512_setzero_si512();
  for (int64_t i = 0; i < n; i += kLanes) {
    const __mmask16 there = There(n - i);
    const __m512 value = _mm512_maskz_sub_ps(
        there, _mm512_maskz_loadu_ps(there, x + i), _mm512_set1_ps(mean));
    largest =
        _mm512_max_epi32(largest, _mm512_castps_si512(_mm512_abs_ps(value)));
  }
  const int32_t bits = _mm512_reduce_max_epi32(largest);
  float found;
  __builtin_memcpy(&found, &bits, sizeof found);
  return found;
}

struct Codes {
  float factor, per_unit;  // a value is multiplied with one after the other
  int32_t low, high;
};

BITNET_TARGET void Round(const float* x, int64_t n, float mean,
                         const Codes& how, int8_t* codes) {
  for (int64_t i = 0; i < n; i += kLanes) {
    const __mmask16 there = There(n - i);
    const __m512 value = _mm512_mul_ps(
        _mm512_sub_ps(_mm512_maskz_loadu_ps(there, x + i),
                      _mm512_set1_ps(mean)),
        _mm512_set1_ps(how.factor));
    const __m512i rounded = _mm512_cvtps_epi32(
        _mm512_mul_ps(value, _mm512_set1_ps(how.per_unit)));
    const __m512i code = _mm512_min_epi32(
        _mm512_max_epi32(rounded, _mm512_set1_epi32(how.low)),
        _mm512_set1_epi32(how.high));
    _mm512_mask_cvtepi32_storeu_epi8(codes + i, there, code);
  }
}

struct Quantizer {
  Norm norm;
  int32_t low, high;
  float norm_eps, eps;

  // What a row is multiplied by. Squares that overflow would make it zero.
  float Factor(float mean_square) const {
    return std::isfinite(mean_square) ? 1.0f / std::sqrt(mean_square + norm_eps)
                                      : NAN;
  }

  // Returns mean, factor and scale of a row.
  BITNET_TARGET void operator()(const float* x, int64_t n, int8_t* codes,
                                float* mean, float* factor,
                                float* scale) const {
    *mean = norm == Norm::kLayer ? Mean(x, n) : 0.0f;
    *factor = norm == Norm::kNone ? 1.0f : Factor(MeanSquare(x, n, *mean));
    const float most = std::max(-low, high);
    const float largest = Largest(x, n, *mean) * *factor;
    if (!std::isfinite(largest) || largest / most > kLargestScale) {
      *scale = NAN;
      std::fill_n(codes, n, 0);
      return;
    }
    const float measure = std::max(largest, eps);
    *scale = measure / most;
    Round(x, n, *mean, {*factor, most / measure, low, high}, codes);
  }
};

// The gradient by a row that was normalized.
BITNET_TARGET void NormGradient(const float* x, const float* g, int64_t n,
                                Norm norm, float mean, float factor,
                                float* dx) {
  Sum of_g, of_gx;
  for (int64_t i = 0; i < n; i += kSums * kLanes) {
#pragma GCC unroll 4
    for (int j = 0; j < kSums; ++j) {
      const int64_t at = i + j * kLanes;
      if (at >= n) break;
      const __mmask16 there = There(n - at);
      const __m512 gradient = _mm512_maskz_loadu_ps(there, g + at);
      const __m512 value = _mm512_sub_ps(
          _mm512_maskz_loadu_ps(there, x + at), _mm512_set1_ps(mean));
      of_g.parts[j] = _mm512_add_ps(of_g.parts[j], gradient);
      of_gx.parts[j] = _mm512_fmadd_ps(gradient, value, of_gx.parts[j]);
    }
  }
  const float mean_g = norm == Norm::kLayer ? of_g.Total() / n : 0.0f;
  const float slope = of_gx.Total() / n * factor * factor;
  for (int64_t i = 0; i < n; i += kLanes) {
    const __mmask16 there = There(n - i);
    const __m512 value = _mm512_sub_ps(_mm512_maskz_loadu_ps(there, x + i),
                                       _mm512_set1_ps(mean));
    const __m512 gradient = _mm512_fnmadd_ps(
        value, _mm512_set1_ps(slope),
        _mm512_sub_ps(_mm512_maskz_loadu_ps(there, g + i),
                      _mm512_set1_ps(mean_g)));
    _mm512_mask_storeu_ps(dx + i, there,
                          _mm512_mul_ps(gradient, _mm512_set1_ps(factor)));
  }
}

// Calls run(row) for each of some rows of n values.
template <typename Run>
void RunRows(ffi::ThreadPool& pool, int64_t rows, int64_t n, const Run& run) {
  const int64_t of_tile = std::max<int64_t>(kTile / std::max<int64_t>(n, 1), 1);
  bitnet::RunTiles(pool, (rows + of_tile - 1) / of_tile, [=](int64_t tile) {
    const int64_t end = std::min((tile + 1) * of_tile, rows);
    for (int64_t row = tile * of_tile; row < end; ++row) run(row);
  });
}

ffi::Error QuantizeRows(ffi::ThreadPool pool, ffi::Buffer<ffi::F32> x,
                        ffi::ResultBuffer<ffi::S8> codes,
                        ffi::ResultBuffer<ffi::F32> scale,
                        ffi::ResultBuffer<ffi::F32> mean,
                        ffi::ResultBuffer<ffi::F32> factor, int64_t norm,
                        int64_t low, int64_t high, float norm_eps, float eps) {
  const int64_t n = x.dimensions().back();
  const float* values = x.typed_data();
  const Quantizer quantize{static_cast<Norm>(norm), static_cast<int32_t>(low),
                           static_cast<int32_t>(high), norm_eps, eps};
  const auto put = [=, to = codes->typed_data(), of_mean = mean->typed_data(),
                    of_factor = factor->typed_data(),
                    of_scale = scale->typed_data()](int64_t row) {
    quantize(values + row * n, n, to + row * n, of_mean + row, of_factor + row,
             of_scale + row);
  };
  RunRows(pool, mean->element_count(), n, put);
  return ffi::Error::Success();
}

ffi::Error NormGradients(ffi::ThreadPool pool, ffi::Buffer<ffi::F32> x,
                         ffi::Buffer<ffi::F32> mean,
                         ffi::Buffer<ffi::F32> factor, ffi::Buffer<ffi::F32> g,
                         ffi::ResultBuffer<ffi::F32> dx, int64_t norm) {
  const int64_t n = x.dimensions().back();
  const auto put = [=, of_x = x.typed_data(), of_g = g.typed_data(),
                    of_mean = mean.typed_data(),
                    of_factor = factor.typed_data(),
                    to = dx->typed_data()](int64_t row) {
    NormGradient(of_x + row * n, of_g + row * n, n, static_cast<Norm>(norm),
                 of_mean[row], of_factor[row], to + row * n);
  };
  RunRows(pool, mean.element_count(), n, put);
  return ffi::Error::Success();
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(bitnet_quantize_rows, QuantizeRows,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<ffi::Buffer<ffi::F32>>()
                                  .Ret<ffi::Buffer<ffi::S8>>()
                                  .Ret<ffi::Buffer<ffi::F32>>()
                                  .Ret<ffi::Buffer<ffi::F32>>()
                                  .Ret<ffi::Buffer<ffi::F32>>()
                                  .Attr<int64_t>("norm")
                                  .Attr<int64_t>("low")
                                  .Attr<int64_t>("high")
                                  .Attr<float>("norm_eps")
                                  .Attr<float>("eps"));

XLA_FFI_DEFINE_HANDLER_SYMBOL(bitnet_norm_gradients, NormGradients,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<ffi::Buffer<ffi::F32>>()
                                  .Arg<ffi::Buffer<ffi::F32>>()
                                  .Arg<ffi::Buffer<ffi::F32>>()
                                  .Arg<ffi::Buffer<ffi::F32>>()
                                  .Ret<ffi::Buffer<ffi::F32>>()
                                  .Attr<int64_t>("norm"));
