/* F16: ggml_fp32_to_fp16_row and ggml_fp16_to_fp32_row in ggml.c, ggml_validate_row_data. */
#include "scalars.h"

/* ggml gives every NaN the same payload. */
INLINE uint16_t to_half_as_ggml(float v) {
    uint32_t bits;
    memcpy(&bits, &v, sizeof bits);
    return v != v ? (uint16_t)(bits >> 16 & 0x8000) | 0x7E00 : to_half(v);
}

void airpack_f16(chunk_function ggml, const float *x, void *y, int64_t rows, int64_t columns,
                 const float *matrix) {
    (void)matrix, (void)ggml;
    uint16_t *to = y;
    int64_t count = rows * columns, i = 0;
    for (; i + 8 <= count; i += 8) {
        __m256 v = _mm256_loadu_ps(x + i);
        if (_mm256_movemask_ps(_mm256_cmp_ps(v, v, _CMP_UNORD_Q)))
            for (int k = 0; k < 8; k++) to[i + k] = to_half_as_ggml(x[i + k]);
        else
            _mm_storeu_si128((__m128i *)(to + i),
                             _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
    }
    for (; i < count; i++) to[i] = to_half_as_ggml(x[i]);
}

void airpack_widen_f16(const uint16_t *x, float *y, int64_t count) {
    int64_t i = 0;
    for (; i + 8 <= count; i += 8)
        _mm256_storeu_ps(y + i, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(x + i))));
    for (; i < count; i++) y[i] = from_half(x[i]);
}

bool airpack_f16_are_finite(const uint16_t *x, int64_t count) {
    uint16_t largest = 0;
    for (int64_t i = 0; i < count; i++) {
        uint16_t magnitude = x[i] & 0x7FFF;
        largest = magnitude > largest ? magnitude : largest;
    }
    return largest < 0x7C00;
}
