/* Q2_K: quantize_row_q2_K_ref in ggml-quants.c, and with an importance matrix
 * quantize_row_q2_K_impl. Sixteen blocks of 16 weights make a super-block. See search.h for what
 * is ggml's. */
#include "batch.h"

#define BLOCKS 16 /* of a super-block */
#define BLOCK 16  /* weights */

struct q2_K {
    uint8_t scales[BLOCKS];
    uint8_t qs[SUPER / 4];
    uint16_t d, dmin;
};

static unsigned search(const float *x, struct affine_blocks *blocks) {
    unsigned odd = 0;
    for (int first = 0; first < BATCH * BLOCKS; first += LANES) {
        floats xs[BLOCK], ws[BLOCK];
        load_lanes(xs, x + first * BLOCK, BLOCK, BLOCK);
        for (int i = 0; i < BLOCK; i++) ws[i] = magnitude(xs[i]);
        struct affine found = search_affine(xs, ws, BLOCK, 3, -0.5f, 0.1f, 15, true);
        keep_affine(blocks, first, found);
        odd |= odd_supers(found.odd, first, BLOCKS);
    }
    return odd;
}

/* Four bits for each scale or minimum, of the largest of the super-block. */
static void share_largest(const float *values, uint8_t *shares, float *d) {
    for (int b = 0; b < BATCH; b++, values += BLOCKS, shares += BLOCKS) {
        float largest = 0;
        for (int j = 0; j < BLOCKS; j++)
            if (values[j] > largest) largest = values[j];
        float iscale = 15.f / largest;
        for (int j = 0; j < BLOCKS; j++)
            shares[j] = largest > 0 ? (uint8_t)scalar_nearest_int(iscale * values[j]) : 0;
        d[b] = largest / 15.f;
    }
}

static unsigned convert(const float *x, const float *w, void *y) {
    struct affine_blocks blocks;
    struct q2_K *to = y;
    uint8_t scale[BATCH * BLOCKS], minimum[BATCH * BLOCKS], levels[SUPER];
    float d[BATCH], dmin[BATCH];
    unsigned odd;
    if (w) {
        odd = search_affine_weighted(x, w, &blocks, BLOCK, 3, 1);
        share_fitted(blocks.scale, blocks.sum_w, BLOCKS, 15, scale, d);
        share_fitted(blocks.minimum, blocks.sum_w, BLOCKS, 15, minimum, dmin);
    } else {
        odd = search(x, &blocks);
        share_largest(blocks.scale, scale, d);
        share_largest(blocks.minimum, minimum, dmin);
    }
    for (int b = 0; b < BATCH; b++) {
        to[b].d = to_half(d[b]);
        to[b].dmin = to_half(dmin[b]);
        for (int j = 0; j < BLOCKS; j++) {
            int k = b * BLOCKS + j;
            to[b].scales[j] = scale[k] | (minimum[k] << 4);
            affine_levels(x + k * BLOCK, BLOCK, from_half(to[b].d) * (to[b].scales[j] & 0xF),
                          from_half(to[b].dmin) * (to[b].scales[j] >> 4), blocks.step[k],
                          blocks.base[k], 3, levels + j * BLOCK);
        }
        pack_two_bits(levels, to[b].qs);
    }
    return odd;
}

void airpack_q2_k(chunk_function ggml, const float *x, void *y, int64_t rows, int64_t columns,
                  const float *matrix) {
    quantize_in_batches(x, y, rows, columns, matrix, ggml, 10, sizeof(struct q2_K), convert);
}
