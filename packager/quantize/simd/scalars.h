/* One value at a time: the conversions of ggml-impl.h and ggml-quants.c, and the call of ggml. */
#pragma once

#include <math.h>
#include <stddef.h>

#include "lanes.h"

/* ggml_quantize_chunk: type, source, target, first element, rows, columns, importance matrix. */
typedef size_t (*chunk_function)(int, const float *, void *, int64_t, int64_t, int64_t,
                                 const float *);

/* F16C rounds as ggml's conversion in software does, for all but NaN's payload. */
INLINE uint16_t to_half(float v) {
    return (uint16_t)_cvtss_sh(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
INLINE float from_half(uint16_t v) { return _cvtsh_ss(v); }

INLINE int scalar_nearest_int(float v) {
    float shifted = v + ROUNDING;
    int bits;
    memcpy(&bits, &shifted, sizeof bits);
    return (bits & 0x007fffff) - 0x00400000;
}

INLINE int within(int v, int low, int high) { return v < low ? low : v > high ? high : v; }

/* Eight levels of a byte each, taken together: no shift below moves a set bit into its neighbour. */
typedef uint64_t eight __attribute__((may_alias, aligned(1)));

#define IN_EACH_BYTE(bits) ((bits) * 0x0101010101010101u)

/* The largest magnitude among 32 floats; NaN where one of them is. */
INLINE float block_peak(const float *x) {
    __m256i without_sign = _mm256_set1_epi32(0x7fffffff), peak = _mm256_setzero_si256();
    for (int i = 0; i < 32; i += 8) /* as integers, magnitudes keep their order, NaN above all */
        peak = _mm256_max_epi32(
            peak, _mm256_and_si256(_mm256_loadu_si256((const __m256i *)(x + i)), without_sign));
    __m128i four = _mm_max_epi32(_mm256_castsi256_si128(peak), _mm256_extracti128_si256(peak, 1));
    four = _mm_max_epi32(four, _mm_shuffle_epi32(four, 0x4E));
    four = _mm_max_epi32(four, _mm_shuffle_epi32(four, 0xB1));
    return _mm_cvtss_f32(_mm_castsi128_ps(four));
}

/* Whether nothing can overflow on the way from a block with this peak to its levels. */
INLINE bool is_usual(float peak) { return peak == 0 || (peak > 1e-30f && peak < 1e30f); }
