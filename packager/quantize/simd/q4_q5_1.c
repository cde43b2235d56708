/* Q4_1 and Q5_1 with an importance matrix: quantize_row_q4_1_impl and quantize_row_q5_1_impl in
 * ggml-quants.c. Without one, ggml itself is fast. See search.h for what is ggml's. */
#include "lone.h"

struct q4_1 {
    uint16_t d, m;
    uint8_t qs[BLOCK / 2];
};

struct q5_1 {
    uint16_t d, m;
    uint8_t qh[4];
    uint8_t qs[BLOCK / 2];
};

INLINE unsigned convert(const struct lone *blocks, const floats *x, const floats *w, int nmax,
                        int qs, int qh) {
    struct affine found = search_affine(x, w, BLOCK, nmax, -0.9f, 0.05f, 36, false);
    floats levels[BLOCK];
    for (int i = 0; i < BLOCK; i++)
        levels[i] = clamped(rounded(found.step * (x[i] - found.base)), 0, nmax);
    put_halves(blocks, found.scale, 0);
    put_halves(blocks, -found.minimum, offsetof(struct q4_1, m));
    pack_levels(blocks, levels, qs, qh);
    return found.odd;
}

static unsigned convert_q4_1(const struct lone *blocks, const floats *x, const floats *w) {
    return convert(blocks, x, w, 15, offsetof(struct q4_1, qs), 0);
}

static unsigned convert_q5_1(const struct lone *blocks, const floats *x, const floats *w) {
    return convert(blocks, x, w, 31, offsetof(struct q5_1, qs), offsetof(struct q5_1, qh));
}

void airpack_q4_1(chunk_function ggml, const float *x, void *y, int64_t rows, int64_t columns,
                  const float *matrix) {
    if (matrix)
        quantize_weighted(ggml, x, y, rows, columns, matrix, 3, sizeof(struct q4_1), convert_q4_1);
    else
        ggml(3, x, y, 0, rows, columns, NULL);
}

void airpack_q5_1(chunk_function ggml, const float *x, void *y, int64_t rows, int64_t columns,
                  const float *matrix) {
    if (matrix)
        quantize_weighted(ggml, x, y, rows, columns, matrix, 7, sizeof(struct q5_1), convert_q5_1);
    else
        ggml(7, x, y, 0, rows, columns, NULL);
}
