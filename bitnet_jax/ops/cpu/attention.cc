// Attention of one query for each head to the keys in a cache, in float32.
//
// Keys and values of a head lie one after the other, and are read where they are,
// up to the last that is seen. Sums of a head depend on no other.

#include <immintrin.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>

#include "tiles.h"
#include "xla/ffi/api/ffi.h"

#define BITNET_TARGET \
  __attribute__((target("avx512f,avx512dq,avx512bw,avx512vl")))

namespace {

namespace ffi = xla::ffi;

constexpr int64_t kLanes = 16;
constexpr int kParts = 8;            // registers of a sum of values
constexpr int64_t kTile = 1 << 15;  // floats that are worth a tile, at least

struct Heads {
  const float* query;   // [examples, heads, groups, size]
  const float* keys;    // [examples, heads, places, size]
  const float* values;  // likewise
  const bool* mask;     // [examples, places]
  float* y;             // [examples, heads, groups, size]
  float* weights;       // [examples, heads, groups, places]
  int64_t examples, heads, groups, places, size;
};

__mmask16 There(int64_t left) {
  return left <= 0 ? 0 : left < kLanes ? (1u << left) - 1 : 0xffff;
}

BITNET_TARGET float Dot(const float* x, const float* y, int64_t n) {
  __m512 sums[2] = {_mm512_setzero_ps(), _mm512_setzero_ps()};
  for (int64_t i = 0; i < n; i += 2 * kLanes) {
#pragma GCC unroll 2
    for (int j = 0; j < 2; ++j) {
      const int64_t at = i + j * kLanes;
      const __mmask16 there = There(n - at);
      sums[j] = _mm512_fmadd_ps(_mm512_maskz_loadu_ps(there, x + at),
                                _mm512_maskz_loadu_ps(there, y + at), sums[j]);
    }
  }
  return _mm512_reduce_add_ps(_mm512_add_ps(sums[0], sums[1]));
}

// e to a power of at most 0, to a unit or two in the last place: a power of two
// times a polynomial in what is left of it.
BITNET_TARGET __m512 Exp(__m512 x) {
  const __m512 power = _mm512_roundscale_ps(
      _mm512_mul_ps(x, _mm512_set1_ps(1.44269504f)),
      _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  __m512 rest = _mm512_fnmadd_ps(power, _mm512_set1_ps(0.693359375f), x);
  rest = _mm512_fnmadd_ps(power, _mm512_set1_ps(-2.12194440e-4f), rest);
  __m512 sum = _mm512_set1_ps(1.0f / 5040);
  for (const float term : {1.0f / 720, 1.0f / 120, 1.0f / 24, 1.0f / 6, 0.5f,
                           1.0f, 1.0f}) {
    sum = _mm512_fmadd_ps(sum, rest, _mm512_set1_ps(term));
  }
  return _mm512_scalef_ps(sum, power);
}

// Makes weights of scores, for the first n places. Without a place that is seen,
// all weigh the same.
BITNET_TARGET void Softmax(float* scores, const bool* mask, int64_t n) {
  float largest = -INFINITY;
  for (int64_t s = 0; s < n; ++s) {
    if (mask[s]) largest = scores[s] > largest ? scores[s] : largest;
  }
  float total = 0;
  for (int64_t s = 0; s < n; s += kLanes) {
    const __mmask16 there = There(n - s);
    const __mmask16 seen =
        there & _mm512_test_epi32_mask(
                    _mm512_cvtepu8_epi32(_mm_maskz_loadu_epi8(there, mask + s)),
                    _mm512_set1_epi32(1));
    const __m512 weight = _mm512_maskz_mov_ps(
        seen, Exp(_mm512_sub_ps(_mm512_maskz_loadu_ps(there, scores + s),
                                _mm512_set1_ps(largest))));
    total += _mm512_reduce_add_ps(weight);
    _mm512_mask_storeu_ps(scores + s, there, weight);
  }
  for (int64_t s = 0; s < n; ++s) scores[s] /= total;
}

// Adds up weighted values.
BITNET_TARGET void Average(const float* weights, const float* values,
                           int64_t places, int64_t size, float* y) {
  for (int64_t first = 0; first < size; first += kParts * kLanes) {
    __m512 sums[kParts];
    __mmask16 there[kParts];
    for (int i = 0; i < kParts; ++i) {
      sums[i] = _mm512_setzero_ps();
      there[i] = There(size - first - i * kLanes);
    }
    for (int64_t s = 0; s < places; ++s) {
      const __m512 weight = _mm512_set1_ps(weights[s]);
      const float* value = values + s * size + first;
#pragma GCC unroll 8
      for (int i = 0; i < kParts; ++i) {
        sums[i] = _mm512_fmadd_ps(
            weight, _mm512_maskz_loadu_ps(there[i], value + i * kLanes),
            sums[i]);
      }
    }
    for (int i = 0; i < kParts; ++i) {
      _mm512_mask_storeu_ps(y + first + i * kLanes, there[i], sums[i]);
    }
  }
}

// Computes the queries that share keys.
void Attend(const Heads& h, int64_t head) {
  const bool* mask = h.mask + head / h.heads * h.places;
  int64_t seen = h.places;
  while (seen > 0 && !mask[seen - 1]) --seen;
  const float* keys = h.keys + head * h.places * h.size;
  const float* values = h.values + head * h.places * h.size;
  const float scale = 1.0f / std::sqrt(static_cast<float>(h.size));
  for (int64_t g = head * h.groups; g < (head + 1) * h.groups; ++g) {
    const float* query = h.query + g * h.size;
    float* weights = h.weights + g * h.places;
    if (seen == 0) {
      std::fill_n(weights, h.places, 1.0f / h.places);
      Average(weights, values, h.places, h.size, h.y + g * h.size);
      continue;
    }
    for (int64_t s = 0; s < seen; ++s) {
      weights[s] = scale * Dot(query, keys + s * h.size, h.size);
    }
    Softmax(weights, mask, seen);
    Average(weights, values, seen, h.size, h.y + g * h.size);
  }
}

ffi::Error AttendCached(ffi::ThreadPool pool, ffi::Buffer<ffi::F32> query,
                        ffi::Buffer<ffi::F32> keys,
                        ffi::Buffer<ffi::F32> values,
                        ffi::BufferR0<ffi::S32> layer,
                        ffi::Buffer<ffi::PRED> mask,
                        ffi::ResultBuffer<ffi::F32> y) {
  const auto of_query = query.dimensions(), of_keys = keys.dimensions();
  if (of_query.size() != 4 || of_keys.size() != 5 ||
      of_query[0] != of_keys[1] || of_query[1] != of_keys[2] ||
      of_query[3] != of_keys[4] ||
      values.element_count() != keys.element_count() ||
      mask.element_count() !=
          static_cast<size_t>(of_keys[1] * of_keys[3])) {
    return ffi::Error::InvalidArgument("shapes do not fit one another");
  }
  Heads h{};
  h.examples = of_keys[1];
  h.heads = of_keys[2];
  h.groups = of_query[2];
  h.places = of_keys[3];
  h.size = of_keys[4];
  const int64_t of_layer = h.examples * h.heads * h.places * h.size;
  const int64_t number =
      std::clamp<int64_t>(layer.typed_data()[0], 0, of_keys[0] - 1);
  h.query = query.typed_data();
  h.keys = keys.typed_data() + number * of_layer;
  h.values = values.typed_data() + number * of_layer;
  h.mask = mask.typed_data();
  h.y = y->typed_data();
  const int64_t count = h.examples * h.heads;
  const std::unique_ptr<float[]> weights(
      new float[count * h.groups * h.places]);
  h.weights = weights.get();
  const int64_t of_head = std::max<int64_t>(h.places * h.size * h.groups, 1);
  const int64_t of_tile = std::max<int64_t>(kTile / of_head, 1);
  bitnet::RunTiles(
      pool, (count + of_tile - 1) / of_tile, [h, count, of_tile](int64_t tile) {
        const int64_t end = std::min((tile + 1) * of_tile, count);
        for (int64_t head = tile * of_tile; head < end; ++head) Attend(h, head);
      });
  return ffi::Error::Success();
}

}  // namespace

XLA_FFI_DEFINE_HANDLER_SYMBOL(bitnet_attend_cached, AttendCached,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<ffi::Buffer<ffi::F32>>()
                                  .Arg<ffi::Buffer<ffi::F32>>()
                                  .Arg<ffi::Buffer<ffi::F32>>()
                                  .Arg<ffi::BufferR0<ffi::S32>>()
                                  .Arg<ffi::Buffer<ffi::PRED>>()
                                  .Ret<ffi::Buffer<ffi::F32>>());
