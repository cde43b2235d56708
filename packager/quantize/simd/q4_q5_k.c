/* Q4_K and Q5_K: quantize_row_q4_K_ref and quantize_row_q5_K_ref in ggml-quants.c, and with an
 * importance matrix quantize_row_q4_K_impl and quantize_row_q5_K_impl. Eight blocks of 32 weights
 * make a super-block. See search.h for what is ggml's. */
#include "batch.h"

#define BLOCKS 8 /* of a super-block */
#define BLOCK 32 /* weights */

struct scales {
    uint8_t scale[BATCH * BLOCKS], minimum[BATCH * BLOCKS];
    float d[BATCH], dmin[BATCH];
};

INLINE unsigned search(const float *x, struct affine_blocks *blocks, int nmax, float rmin,
                       int nstep) {
    unsigned odd = 0;
    for (int first = 0; first < BATCH * BLOCKS; first += LANES) {
        floats xs[BLOCK], ws[BLOCK], sum_x2 = all(0);
        load_lanes(xs, x + first * BLOCK, BLOCK, BLOCK);
        for (int i = 0; i < BLOCK; i++) sum_x2 += xs[i] * xs[i];
        floats av_x = root(sum_x2 / BLOCK);
        for (int i = 0; i < BLOCK; i++) ws[i] = av_x + magnitude(xs[i]);
        struct affine found = search_affine(xs, ws, BLOCK, nmax, rmin, 0.1f, nstep, false);
        keep_affine(blocks, first, found);
        odd |= odd_supers(found.odd, first, BLOCKS);
    }
    return odd;
}

/* Six bits for each scale and minimum, of the largest of the super-block. */
static void share_largest(const float *values, uint8_t *levels, float *d) {
    for (int b = 0; b < BATCH; b++, values += BLOCKS, levels += BLOCKS) {
        float largest = 0;
        for (int j = 0; j < BLOCKS; j++)
            if (values[j] > largest) largest = values[j];
        float inverse = largest > 0 ? 63.f / largest : 0.f;
        for (int j = 0; j < BLOCKS; j++) {
            uint8_t level = (uint8_t)scalar_nearest_int(inverse * values[j]);
            levels[j] = level < 63 ? level : 63;
        }
        d[b] = largest / 63.f;
    }
}

/* scales and minimums of six bits in twelve bytes */
static void pack_scales(const uint8_t *scale, const uint8_t *minimum, uint8_t *packed) {
    for (int j = 0; j < 4; j++) {
        packed[j] = scale[j];
        packed[j + 4] = minimum[j];
    }
    for (int j = 4; j < 8; j++) {
        packed[j + 4] = (scale[j] & 0xF) | ((minimum[j] & 0xF) << 4);
        packed[j - 4] |= (scale[j] >> 4) << 6;
        packed[j] |= (minimum[j] >> 4) << 6;
    }
}

static void at_most_63(uint8_t *levels) {
    for (int i = 0; i < BATCH * BLOCKS; i++) levels[i] = levels[i] < 63 ? levels[i] : 63;
}

/* `limit`: Q5_K cuts off what fitting pushes out of range, Q4_K lets it spill. */
INLINE unsigned quantize_batch(const float *x, const float *w, int nmax, float rmin, int nstep,
                               bool limit, struct affine_blocks *blocks, struct scales *scales) {
    if (!w) {
        unsigned odd = search(x, blocks, nmax, rmin, nstep);
        share_largest(blocks->scale, scales->scale, scales->d);
        share_largest(blocks->minimum, scales->minimum, scales->dmin);
        return odd;
    }
    unsigned odd = search_affine_weighted(x, w, blocks, BLOCK, nmax, 2);
    share_fitted(blocks->scale, blocks->sum_w, BLOCKS, 63, scales->scale, scales->d);
    share_fitted(blocks->minimum, blocks->sum_w, BLOCKS, 63, scales->minimum, scales->dmin);
    if (limit) {
        at_most_63(scales->scale);
        at_most_63(scales->minimum);
    }
    return odd;
}

struct head {
    uint16_t d, dmin;
    uint8_t scales[12];
};

/* get_scale_min_k4 */
INLINE int unpacked_scale(const uint8_t *packed, int j) {
    return j < 4 ? packed[j] & 63 : (packed[j + 4] & 0xF) | (packed[j - 4] >> 6 << 4);
}
INLINE int unpacked_minimum(const uint8_t *packed, int j) {
    return j < 4 ? packed[j + 4] & 63 : (packed[j + 4] >> 4) | (packed[j] >> 6 << 4);
}

/* The first bytes of super-block b, and its 256 levels. */
INLINE void finish(const float *x, int b, int nmax, const struct affine_blocks *blocks,
                   const struct scales *scales, struct head *head, uint8_t *levels) {
    head->d = to_half(scales->d[b]);
    head->dmin = to_half(scales->dmin[b]);
    pack_scales(scales->scale + b * BLOCKS, scales->minimum + b * BLOCKS, head->scales);
    for (int j = 0; j < BLOCKS; j++) {
        int k = b * BLOCKS + j;
        float d = from_half(head->d) * unpacked_scale(head->scales, j);
        float m = from_half(head->dmin) * unpacked_minimum(head->scales, j);
        affine_levels(x + k * BLOCK, BLOCK, d, m, blocks->step[k], blocks->base[k], nmax,
                      levels + j * BLOCK);
    }
}

struct q4_K {
    struct head head;
    uint8_t qs[SUPER / 2];
};

static void pack_q4(const uint8_t *levels, uint8_t *qs) {
    const eight *l = (const eight *)levels;
    eight *q = (eight *)qs;
    for (int j = 0; j < 4; j++, l += 8, q += 4)
        for (int i = 0; i < 4; i++) q[i] = l[i] | l[i + 4] << 4;
}

static unsigned convert_q4_K(const float *x, const float *w, void *y) {
    struct affine_blocks blocks;
    struct scales scales;
    struct q4_K *to = y;
    unsigned odd = quantize_batch(x, w, 15, -1.f, 20, false, &blocks, &scales);
    for (int b = 0; b < BATCH; b++) {
        uint8_t levels[SUPER];
        finish(x, b, 15, &blocks, &scales, &to[b].head, levels);
        pack_q4(levels, to[b].qs);
    }
    return odd;
}

struct q5_K {
    struct head head;
    uint8_t qh[SUPER / 8];
    uint8_t qs[SUPER / 2];
};

static void pack_q5(const uint8_t *levels, uint8_t *qs, uint8_t *qh) {
    const eight *l = (const eight *)levels, low = IN_EACH_BYTE(15), one = IN_EACH_BYTE(1);
    eight *q = (eight *)qs, *high = (eight *)qh;
    for (int i = 0; i < 4; i++) high[i] = 0;
    for (int j = 0; j < 4; j++, l += 8, q += 4)
        for (int i = 0; i < 4; i++) {
            q[i] = (l[i] & low) | (l[i + 4] & low) << 4;
            high[i] |= ((l[i] >> 4 & one) | (l[i + 4] >> 4 & one) << 1) << 2 * j;
        }
}

static unsigned convert_q5_K(const float *x, const float *w, void *y) {
    struct affine_blocks blocks;
    struct scales scales;
    struct q5_K *to = y;
    unsigned odd = quantize_batch(x, w, 31, -0.5f, 15, true, &blocks, &scales);
    for (int b = 0; b < BATCH; b++) {
        uint8_t levels[SUPER];
        finish(x, b, 31, &blocks, &scales, &to[b].head, levels);
        pack_q5(levels, to[b].qs, to[b].qh);
    }
    return odd;
}

void airpack_q4_k(chunk_function ggml, const float *x, void *y, int64_t rows, int64_t columns,
                  const float *matrix) {
    quantize_in_batches(x, y, rows, columns, matrix, ggml, 12, sizeof(struct q4_K), convert_q4_K);
}

void airpack_q5_k(chunk_function ggml, const float *x, void *y, int64_t rows, int64_t columns,
                  const float *matrix) {
    quantize_in_batches(x, y, rows, columns, matrix, ggml, 13, sizeof(struct q5_K), convert_q5_K);
}
