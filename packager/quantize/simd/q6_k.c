/* Q6_K: quantize_row_q6_K_ref in ggml-quants.c, and with an importance matrix
 * quantize_row_q6_K_impl. Sixteen blocks of 16 weights make a super-block. See search.h for what
 * is ggml's. */
#include "batch.h"

#define BLOCKS 16 /* of a super-block */
#define BLOCK 16  /* weights */

struct q6_K {
    uint8_t ql[SUPER / 2];
    uint8_t qh[SUPER / 4];
    int8_t scales[BLOCKS];
    uint16_t d;
};

static unsigned search(const float *x, const float *w, struct symmetric_blocks *blocks) {
    unsigned odd = 0;
    for (int first = 0; first < BATCH * BLOCKS; first += LANES) {
        floats xs[BLOCK], ws[BLOCK];
        load_lanes(xs, x + first * BLOCK, BLOCK, BLOCK);
        if (w)
            load_lanes(ws, w + first * BLOCK, BLOCK, BLOCK);
        else
            for (int i = 0; i < BLOCK; i++) ws[i] = xs[i] * xs[i];
        struct symmetric found = search_symmetric(xs, ws, BLOCK, 32);
        keep_symmetric(blocks, first, found);
        odd |= odd_supers(found.odd, first, BLOCKS);
    }
    return odd;
}

static void pack(const uint8_t *levels, struct q6_K *to) {
    const eight *l = (const eight *)levels, low = IN_EACH_BYTE(15), two = IN_EACH_BYTE(3);
    eight *ql = (eight *)to->ql, *qh = (eight *)to->qh;
    for (int j = 0; j < 2; j++, l += 16, ql += 8, qh += 4)
        for (int i = 0; i < 4; i++) {
            ql[i] = (l[i] & low) | (l[i + 8] & low) << 4;
            ql[i + 4] = (l[i + 4] & low) | (l[i + 12] & low) << 4;
            qh[i] = (l[i] >> 4 & two) | (l[i + 4] >> 4 & two) << 2 | (l[i + 8] >> 4 & two) << 4 |
                    (l[i + 12] >> 4 & two) << 6;
        }
}

/* A super-block, its blocks' scales and steps found. */
static void finish(const float *x, const float *scale, const float *step, struct q6_K *to) {
    float max_scale = largest_magnitude(scale, BLOCKS);
    if (fabsf(max_scale) < GROUP_MAX_EPS) {
        memset(to, 0, sizeof *to);
        return;
    }
    float iscale = -128.f / max_scale;
    uint8_t levels[SUPER];
    to->d = to_half(1 / iscale);
    for (int j = 0; j < BLOCKS; j++) {
        int nearest = scalar_nearest_int(iscale * scale[j]);
        to->scales[j] = (int8_t)(nearest < 127 ? nearest : 127);
        symmetric_levels(x + j * BLOCK, from_half(to->d) * to->scales[j], step[j], 32,
                         levels + j * BLOCK);
    }
    pack(levels, to);
}

static unsigned convert(const float *x, const float *w, void *y) {
    struct symmetric_blocks blocks;
    struct q6_K *to = y;
    unsigned odd = search(x, w, &blocks);
    for (int b = 0; b < BATCH; b++)
        finish(x + b * SUPER, blocks.scale + b * BLOCKS, blocks.step + b * BLOCKS, to + b);
    return odd;
}

void airpack_q6_k(chunk_function ggml, const float *x, void *y, int64_t rows, int64_t columns,
                  const float *matrix) {
    quantize_in_batches(x, y, rows, columns, matrix, ggml, 14, sizeof(struct q6_K), convert);
}
