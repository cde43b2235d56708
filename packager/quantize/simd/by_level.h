/* make_q3_quants in ggml-quants.c, with do_rmse: one level after the other is moved to where it
 * fits best, in up to five rounds. See search.h for what is ggml's.
 *
 * Four of five blocks are done after one round, so the blocks that still change are gathered into
 * full lanes again for the next. Each move waits for the sums of the last: several groups of lanes
 * take turns to use that time.
 */
#pragma once

#include "batch.h"

#define BLOCK 16 /* weights */
#define COUNT (BATCH * SUPER / BLOCK)
#define NMAX 4

struct by_level {
    float levels[COUNT][BLOCK]; /* -NMAX..NMAX-1, or all -NMAX for a block of zeros */
    float sumlx[COUNT], suml2[COUNT];
    int active[COUNT + 4 * LANES], count; /* the blocks that changed in the last round */
};

/* One group of lanes. */
struct group {
    int blocks[LANES];
    floats x[BLOCK], levels[BLOCK], sumlx, suml2;
    mask zero, changed;
};

INLINE void start(struct group *group, const float *x, int first) {
    load_lanes(group->x, x + first * BLOCK, BLOCK, BLOCK);
    struct peak peak = find_peak(group->x, BLOCK);
    floats step = all(-NMAX) / peak.value;
    group->zero = less(peak.magnitude, all(GROUP_MAX_EPS));
    group->sumlx = group->suml2 = all(0);
    for (int k = 0; k < LANES; k++) group->blocks[k] = first + k;
    for (int i = 0; i < BLOCK; i++) {
        floats l = symmetric_level(group->x[i], step, NMAX), w = group->x[i] * group->x[i];
        group->levels[i] = l;
        group->sumlx += w * group->x[i] * l;
        group->suml2 += w * l * l;
    }
    group->sumlx = choose(group->zero, all(-INFINITY), group->sumlx); /* so nothing moves */
}

INLINE void resume(struct group *group, const float *x, const struct by_level *all_blocks,
                   const int *blocks) {
    const float *xs[LANES], *levels[LANES];
    float sumlx[LANES], suml2[LANES];
    for (int k = 0; k < LANES; k++) {
        group->blocks[k] = blocks[k];
        xs[k] = x + blocks[k] * BLOCK;
        levels[k] = all_blocks->levels[blocks[k]];
        sumlx[k] = all_blocks->sumlx[blocks[k]];
        suml2[k] = all_blocks->suml2[blocks[k]];
    }
    load_rows(group->x, xs, BLOCK);
    load_rows(group->levels, levels, BLOCK);
    group->sumlx = load(sumlx);
    group->suml2 = load(suml2);
    group->zero = none();
}

/* Move weight i's level to where it fits best, if that makes the whole fit better. */
INLINE void improve(struct group *group, int i) {
    floats x = group->x[i], l = group->levels[i], w = x * x, wx = w * x;
    floats slx = group->sumlx - wx * l;
    floats sl2 = group->suml2 - w * l * l;
    ints nearest = nearest_int(x * sl2 / slx);
    floats new_l = to_floats(clamped_int(nearest, -NMAX, NMAX - 1));
    mask better = less(all(0), slx) & not_equal(new_l, l);
    slx += wx * new_l;
    sl2 += w * new_l * new_l;
    better &= less(all(0), sl2) & less(group->sumlx * group->sumlx * sl2,
                                       slx * slx * group->suml2);
    group->levels[i] = choose(better, new_l, l);
    group->sumlx = choose(better, slx, group->sumlx);
    group->suml2 = choose(better, sl2, group->suml2);
    group->changed |= better;
}

/* Keep what the first `used` lanes of the group found. */
INLINE void keep(const struct group *group, struct by_level *blocks, int used) {
    float sumlx[LANES], suml2[LANES];
    float *rows[LANES];
    store(sumlx, choose(group->zero, all(0), group->sumlx));
    store(suml2, choose(group->zero, all(0), group->suml2));
    unsigned changed = bits_of(group->changed);
    for (int k = 0; k < LANES; k++) {
        int block = group->blocks[k];
        rows[k] = blocks->levels[block];
        blocks->sumlx[block] = sumlx[k];
        blocks->suml2[block] = suml2[k];
        if (k < used && changed >> k & 1) blocks->active[blocks->count++] = block;
    }
    floats levels[BLOCK];
    for (int i = 0; i < BLOCK; i++)
        levels[i] = choose(group->zero, all(-NMAX), group->levels[i]);
    store_rows(rows, levels, BLOCK);
}

INLINE void round_of(struct group *groups, int n) {
    for (int g = 0; g < n; g++) groups[g].changed = none();
    for (int i = 0; i < BLOCK; i++)
        for (int g = 0; g < n; g++) improve(groups + g, i);
}

/* A round of the `n` groups of lanes at `blocks`, of which `used` blocks are not repeated. */
INLINE void next_round(const float *x, struct by_level *found, const int *blocks, int n, int used) {
    struct group groups[4];
    for (int g = 0; g < n; g++) resume(groups + g, x, found, blocks + g * LANES);
    round_of(groups, n);
    for (int g = 0; g < n; g++) keep(groups + g, found, used - g * LANES);
}

static void search_by_level(const float *x, struct by_level *found) {
    found->count = 0;
    for (int first = 0; first < COUNT; first += 4 * LANES) {
        struct group groups[4];
        for (int g = 0; g < 4; g++) start(groups + g, x, first + g * LANES);
        round_of(groups, 4);
        for (int g = 0; g < 4; g++) keep(groups + g, found, LANES);
    }
    for (int round = 1; round < 5 && found->count; round++) {
        int count = found->count, done = 0;
        for (int k = 0; k < 4 * LANES; k++) found->active[count + k] = found->active[count - 1];
        found->count = 0;
        for (; count - done > LANES; done += 4 * LANES)
            next_round(x, found, found->active + done, 4, count - done);
        if (count > done) next_round(x, found, found->active + done, 1, count - done);
    }
}
