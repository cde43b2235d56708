/* The searches for a block's scale in ggml's ggml-quants.c, a block in each lane.
 *
 * ggml (https://github.com/ggml-org/ggml), Copyright (c) 2023-2026 The ggml authors, MIT licence:
 * see NOTICE. The order of operations here is theirs, expression by expression; only the bits
 * that it gives count, so nothing may be simplified that rounds.
 *
 * A lane whose values leave the range where that is certain (NaN, infinity, overflow, levels that
 * nearest_int would wrap) is marked `odd`, and the block it belongs to is left to ggml.
 */
#pragma once

#include "lanes.h"

#define GROUP_MAX_EPS 1e-15f
#define LARGEST 1e10f /* of values and weights that are searched here */

INLINE mask beyond(floats v, float limit) {
    return not(less(magnitude(v), all(limit))); /* true for NaN, too */
}

/* Make ggml's weights of the matrix's: greater ones count for more. The result is their sum. */
INLINE floats weigh(const floats *x, floats *w, int n, floats sigma2) {
    floats sum_w = all(0);
    for (int i = 0; i < n; i++) {
        w[i] = w[i] * root(sigma2 + x[i] * x[i]);
        sum_w += w[i];
    }
    return sum_w;
}

INLINE floats deviation(floats difference, bool use_mad) {
    if (use_mad) return magnitude(difference);
    return difference * difference;
}

/* x is about scale * level - minimum, and level = nearest((x - base) * step) within 0..nmax. */
struct affine {
    floats scale, minimum, step, base;
    unsigned odd;
};

/* make_qkx2_quants and make_qkx3_quants, which differ in nothing that their callers use.
 *
 * The levels are not kept: they follow from step and base, and only a block whose scale rounds to
 * zero needs them.
 */
INLINE struct affine search_affine(const floats *x, const floats *w, int n, int nmax, float rmin,
                                   float rdelta, int nstep, bool use_mad) {
    floats low = x[0], high = x[0], sum_w = w[0], sum_x = sum_w * x[0];
    for (int i = 1; i < n; i++) {
        low = min_of(x[i], low);
        high = max_of(x[i], high);
        sum_w += w[i];
        sum_x += w[i] * x[i];
    }
    floats min = min_of(all(0), low);
    mask flat = equal(high, min);
    mask odd = beyond(low, LARGEST) | beyond(high, LARGEST) | beyond(sum_w, LARGEST * n) |
               beyond(sum_x, LARGEST * LARGEST * n);

    floats step = all(nmax) / (high - min), scale = all(1) / step;
    odd |= beyond(step * (high - min), ROUNDING_REACH) & not(flat);
    floats best_error = all(0);
    for (int i = 0; i < n; i++) {
        floats l = clamped(rounded(step * (x[i] - min)), 0, nmax);
        floats diff = scale * l + min - x[i];
        best_error += w[i] * deviation(diff, use_mad);
    }
    floats best_step = step, base = min;

    for (int is = 0; is <= nstep; is++) {
        floats levels[32];
        step = all(rmin + rdelta * is + nmax) / (high - min);
        floats reach = max_of(magnitude(high - min), magnitude(low - min));
        odd |= beyond(step * reach, ROUNDING_REACH) & not(flat);
        floats sum_l = all(0), sum_l2 = all(0), sum_xl = all(0);
        for (int i = 0; i < n; i++) {
            floats l = clamped(rounded(step * (x[i] - min)), 0, nmax);
            floats wl = w[i] * l;
            levels[i] = l;
            sum_l += wl;
            sum_l2 += wl * l;
            sum_xl += wl * x[i];
        }
        floats determinant = sum_w * sum_l2 - sum_l * sum_l;
        floats this_scale = (sum_w * sum_xl - sum_x * sum_l) / determinant;
        floats this_min = (sum_l2 * sum_x - sum_l * sum_xl) / determinant;
        mask positive = less(all(0), this_min);
        if (any(positive)) {
            this_min = choose(positive, all(0), this_min);
            this_scale = choose(positive, sum_xl / sum_l2, this_scale);
        }
        floats error = all(0);
        for (int i = 0; i < n; i++) {
            floats diff = this_scale * levels[i] + this_min - x[i];
            error += w[i] * deviation(diff, use_mad);
        }
        mask better = less(all(0), determinant) & less(error, best_error);
        best_error = choose(better, error, best_error);
        best_step = choose(better, step, best_step);
        base = choose(better, min, base);
        scale = choose(better, this_scale, scale);
        min = choose(better, this_min, min);
    }
    odd |= (beyond(scale, LARGEST) | beyond(min, LARGEST)) & not(flat);
    return (struct affine){
        .scale = choose(flat, all(0), scale),
        .minimum = -min,
        .step = choose(flat, all(0), best_step),
        .base = choose(flat, all(0), base),
        .odd = bits_of(odd),
    };
}

/* x is about scale * (level - nmax), and level - nmax = nearest(x * step) within -nmax..nmax-1.
 * A lane of zeros has step 0, and all its levels are 0. */
struct symmetric {
    floats scale, step;
    unsigned odd;
};

struct peak {
    floats value, magnitude;
};

/* The first value of the largest magnitude. */
INLINE struct peak find_peak(const floats *x, int n) {
    struct peak peak = {all(0), all(0)};
    for (int i = 0; i < n; i++) {
        floats ax = magnitude(x[i]);
        mask larger = less(peak.magnitude, ax);
        peak.magnitude = choose(larger, ax, peak.magnitude);
        peak.value = choose(larger, x[i], peak.value);
    }
    return peak;
}

/* The level, less nmax, that make_qx_quants and make_q3_quants begin with. */
INLINE floats symmetric_level(floats x, floats step, int nmax) {
    return clamped(rounded(step * x), -nmax, nmax - 1);
}

/* make_qx_quants with rmse_type 1, the weights given. */
INLINE struct symmetric search_symmetric(const floats *x, const floats *w, int n, int nmax) {
    struct peak peak = find_peak(x, n);
    mask zero = less(peak.magnitude, all(GROUP_MAX_EPS));
    floats step = all(-nmax) / peak.value;
    floats sumlx = all(0), suml2 = all(0);
    floats wx[32];
    for (int i = 0; i < n; i++) {
        floats l = symmetric_level(x[i], step, nmax);
        wx[i] = w[i] * x[i];
        sumlx += wx[i] * l;
        suml2 += w[i] * l * l;
    }
    mask odd = beyond(peak.magnitude, LARGEST) | beyond(sumlx, LARGEST * LARGEST * LARGEST) |
               beyond(suml2, LARGEST * LARGEST * LARGEST);
    floats scale = choose(not_equal(suml2, all(0)), sumlx / suml2, all(0));
    floats best = scale * sumlx;
    floats best_step = step;
    for (int is = -9; is <= 9; is++) {
        if (is == 0) continue;
        step = all(-(nmax + 0.1f * is)) / peak.value;
        sumlx = suml2 = all(0);
        for (int i = 0; i < n; i++) {
            floats l = symmetric_level(x[i], step, nmax);
            sumlx += wx[i] * l;
            suml2 += w[i] * l * l;
        }
        mask better = less(all(0), suml2) & less(best * suml2, sumlx * sumlx);
        floats this_scale = sumlx / suml2;
        scale = choose(better, this_scale, scale);
        best = choose(better, this_scale * sumlx, best);
        best_step = choose(better, step, best_step);
    }
    odd |= beyond(scale, LARGEST);
    return (struct symmetric){
        .scale = choose(zero, all(0), scale),
        .step = choose(zero, all(0), best_step),
        .odd = bits_of(odd & not(zero)),
    };
}

/* The integer kept in eight bits, as ggml's L does between its rounds. */
INLINE floats in_a_byte(ints l) { return to_floats(l & 0xff); }

/* make_qp_quants: x is about the result * level, `levels` within 0..nmax (n of them). */
INLINE floats fit_positive(const floats *x, const floats *w, int n, int nmax, floats *levels) {
    floats max = all(0);
    for (int i = 0; i < n; i++) max = max_of(max, x[i]);
    mask zero = less(max, all(GROUP_MAX_EPS));
    floats step = all(nmax) / max, scale = all(1) / step;
    floats best_error = all(0);
    for (int i = 0; i < n; i++) {
        floats diff = x[i] - scale * in_a_byte(nearest_int(step * x[i]));
        best_error += w[i] * diff * diff;
    }
    for (int is = -4; is <= 4; is++) {
        if (is == 0) continue;
        floats this_step = all(0.1f * is + nmax) / max, this_scale = all(1) / this_step;
        floats error = all(0);
        for (int i = 0; i < n; i++) {
            floats l = to_floats(min_int(nearest_int(this_step * x[i]), nmax));
            floats diff = x[i] - this_scale * l;
            error += w[i] * diff * diff;
        }
        mask better = less(error, best_error);
        best_error = choose(better, error, best_error);
        step = choose(better, this_step, step);
    }
    floats sumlx = all(0), suml2 = all(0);
    for (int i = 0; i < n; i++) {
        ints nearest = min_int(nearest_int(step * x[i]), nmax);
        floats l = to_floats(nearest);
        levels[i] = in_a_byte(nearest);
        sumlx += w[i] * x[i] * l;
        suml2 += w[i] * l * l;
    }
    for (int round = 0; round < 5; round++) {
        mask changed = none();
        for (int i = 0; i < n; i++) {
            floats l = levels[i];
            floats slx = sumlx - w[i] * x[i] * l;
            floats sl2 = suml2 - w[i] * l * l;
            mask better = less(all(0), slx) & less(all(0), sl2) & not(zero);
            ints nearest = min_int(nearest_int(x[i] * sl2 / slx), nmax);
            floats new_l = to_floats(nearest);
            slx += w[i] * x[i] * new_l;
            sl2 += w[i] * new_l * new_l;
            better &= not_equal(new_l, l) & less(sumlx * sumlx * sl2, slx * slx * suml2);
            levels[i] = choose(better, in_a_byte(nearest), l);
            sumlx = choose(better, slx, sumlx);
            suml2 = choose(better, sl2, suml2);
            changed |= better;
        }
        if (!any(changed)) break;
    }
    for (int i = 0; i < n; i++) levels[i] = choose(zero, all(0), levels[i]);
    return choose(zero | not(less(all(0), suml2)), all(0), sumlx / suml2);
}
