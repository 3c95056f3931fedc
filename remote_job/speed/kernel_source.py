"""C source of the fused normalisation kernel."""

PREAMBLE = r"""
#include <stddef.h>
#include <string.h>
#include <math.h>
extern int omp_get_thread_num(void);
extern int omp_get_num_threads(void);

/* exp to 2 ulp by a polynomial of degree 5 on [-ln2/2, ln2/2]; the C library's would not be vectorised. */
static inline float expf_(float x) {
  x = x > 88.0f ? 88.0f : x;
  x = x < -87.0f ? -87.0f : x;
  float n = __builtin_rintf(x * 1.44269504088896341f);
  float r = x - n * 0.693359375f + n * 2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  int bits = ((int)n + 127) << 23;
  float scale;
  __builtin_memcpy(&scale, &bits, 4);
  return p * scale;
}

static inline float silu_grad(float g, float y) {
  float s = 1.0f / (1.0f + expf_(-y));
  return g * s * (1.0f + y * (1.0f - s));
}

/* Values of 16 bits are the upper half of a float's, rounded to nearest, ties to even; NaN stays one. */
static inline float from_bfloat16(unsigned short v) {
  unsigned bits = (unsigned)v << 16;
  float x;
  __builtin_memcpy(&x, &bits, 4);
  return x;
}

static inline unsigned short to_bfloat16(float x) {
  unsigned bits;
  __builtin_memcpy(&bits, &x, 4);
  unsigned rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  return x != x ? 0x7fc0 : (unsigned short)rounded;
}

/* Rows of few channels are taken k at a time, so that the vector units are filled: parameters repeat k times. */
static void repeat(float *to, const float *from, int C, int k) {
  for (int j = 0; j < k; j++)
    for (int c = 0; c < C; c++) to[j * C + c] = from[c];
}
"""

BODY = r"""static void NAME(apply)(const value *x, value *z, long R, int C, int T, const float *restrict scale,
                  const float *restrict shift, int act) {
#pragma omp parallel num_threads(T)
  {
    int t = omp_get_thread_num(), n = omp_get_num_threads();
    for (long r = R * t / n; r < R * (t + 1) / n; r++) {
      const value *p = x + (size_t)r * C;
      value *o = z + (size_t)r * C;
      if (act) {
#pragma omp simd
        for (int c = 0; c < C; c++) {
          float y = LOAD(p[c]) * scale[c] + shift[c];
          o[c] = STORE(y / (1.0f + expf_(-y)));
        }
      } else {
#pragma omp simd
        for (int c = 0; c < C; c++) o[c] = STORE(LOAD(p[c]) * scale[c] + shift[c]);
      }
    }
  }
}

void NAME(bn_act_infer)(const value *x, value *z, long rows, int channels, int k, int T, const float *w, const float *b,
                  const float *mean, const float *var, double eps, int act, float *buffer) {
  int C = channels * k;
  float *scale = buffer, *shift = buffer + C;
  for (int c = 0; c < channels; c++) {
    double s = w[c] / sqrt((double)var[c] + eps);
    scale[c] = (float)s;
    shift[c] = (float)(b[c] - mean[c] * s);
  }
  repeat(scale, scale, channels, k);
  repeat(shift, shift, channels, k);
  NAME(apply)(x, z, rows / k, C, T, scale, shift, act);
}

/* Sums are taken around the first row, in single precision over 64 rows and in double precision over those:
   as exact as a second pass over the data, without the second pass. */
void NAME(bn_act_forward)(const value *x, value *z, long rows, int channels, int k, int T, const float *w, const float *b,
                    float *running_mean, float *running_var, double momentum, double eps, int act, float *saved,
                    double *work) {
  int C = channels * k;
  long R = rows / k;
  float *scratch = (float *)(work + (size_t)T * 2 * C);
  float *base = scratch + (size_t)T * 2 * C, *scale = base + C, *shift = scale + C;
  for (int c = 0; c < C; c++) base[c] = LOAD(x[c % channels]);
  memset(work, 0, (size_t)T * 2 * C * sizeof(double));
#pragma omp parallel num_threads(T)
  {
    int t = omp_get_thread_num(), n = omp_get_num_threads();
    double *s = work + (size_t)t * 2 * C;
    float *restrict fs = scratch + (size_t)t * 2 * C, *restrict fq = fs + C;
    const float *restrict k0 = base;
    long end = R * (t + 1) / n;
    for (long r = R * t / n; r < end;) {
      long stop = r + 64 < end ? r + 64 : end;
      for (int c = 0; c < 2 * C; c++) fs[c] = 0;
      for (; r < stop; r++) {
        const value *restrict p = x + (size_t)r * C;
#pragma omp simd
        for (int c = 0; c < C; c++) {
          float d = LOAD(p[c]) - k0[c];
          fs[c] += d;
          fq[c] += d * d;
        }
      }
      for (int c = 0; c < 2 * C; c++) s[c] += fs[c];
    }
  }
  for (int c = 0; c < channels; c++) {
    double sum = 0, square = 0;
    for (int t = 0; t < T; t++)
      for (int j = 0; j < k; j++) {
        sum += work[(size_t)t * 2 * C + j * channels + c];
        square += work[(size_t)t * 2 * C + C + j * channels + c];
      }
    double d = sum / rows, var = square / rows - d * d, mean = base[c] + d;
    var = var > 0 ? var : 0;
    double invstd = 1.0 / sqrt(var + eps), s = w[c] * invstd;
    running_mean[c] = (float)((1 - momentum) * running_mean[c] + momentum * mean);
    running_var[c] = (float)((1 - momentum) * running_var[c] + momentum * var * rows / (rows - 1));
    saved[c] = (float)s;
    saved[channels + c] = (float)(b[c] - mean * s);
    saved[2 * channels + c] = (float)mean;
    saved[3 * channels + c] = (float)invstd;
  }
  repeat(scale, saved, channels, k);
  repeat(shift, saved + channels, channels, k);
  NAME(apply)(x, z, R, C, T, scale, shift, act);
}

/* g may be a slice of wider rows, ld values apart, as a concatenation's gradient is. */
void NAME(bn_act_backward)(const value *x, const value *g, long ld, value *gx, long rows, int channels, int k, int T,
                     int act, const float *saved, float *gw, float *gb, double *work) {
  int C = channels * k;
  long R = rows / k;
  ld *= k;
  float *scratch = (float *)(work + (size_t)T * 2 * C);
  float *scale = scratch + (size_t)T * 2 * C, *shift = scale + C, *mean = shift + C, *slope = mean + C,
        *offset = slope + C;
  repeat(scale, saved, channels, k);
  repeat(shift, saved + channels, channels, k);
  repeat(mean, saved + 2 * channels, channels, k);
  memset(work, 0, (size_t)T * 2 * C * sizeof(double));
#pragma omp parallel num_threads(T)
  {
    int t = omp_get_thread_num(), n = omp_get_num_threads();
    double *s = work + (size_t)t * 2 * C;
    float *restrict fs = scratch + (size_t)t * 2 * C, *restrict fq = fs + C;
    const float *restrict a = scale, *restrict b = shift, *restrict m = mean;
    long end = R * (t + 1) / n;
    for (long r = R * t / n; r < end;) {
      long stop = r + 64 < end ? r + 64 : end;
      for (int c = 0; c < 2 * C; c++) fs[c] = 0;
      for (; r < stop; r++) {
        const value *restrict p = x + (size_t)r * C, *restrict h = g + (size_t)r * ld;
        if (act) {
#pragma omp simd
          for (int c = 0; c < C; c++) {
            float v = LOAD(p[c]), d = silu_grad(LOAD(h[c]), v * a[c] + b[c]);
            fs[c] += d;
            fq[c] += d * (v - m[c]);
          }
        } else {
#pragma omp simd
          for (int c = 0; c < C; c++) {
            float d = LOAD(h[c]);
            fs[c] += d;
            fq[c] += d * (LOAD(p[c]) - m[c]);
          }
        }
      }
      for (int c = 0; c < 2 * C; c++) s[c] += fs[c];
    }
  }
  for (int c = 0; c < channels; c++) {
    double sum = 0, dot = 0, invstd = saved[3 * channels + c];
    for (int t = 0; t < T; t++)
      for (int j = 0; j < k; j++) {
        sum += work[(size_t)t * 2 * C + j * channels + c];
        dot += work[(size_t)t * 2 * C + C + j * channels + c];
      }
    gb[c] = (float)sum;
    gw[c] = (float)(dot * invstd);
    double m = -(double)saved[c] * invstd * invstd * dot / rows;
    slope[c] = (float)m;
    offset[c] = (float)(-saved[c] * sum / rows - m * saved[2 * channels + c]);
  }
  repeat(slope, slope, channels, k);
  repeat(offset, offset, channels, k);
#pragma omp parallel num_threads(T)
  {
    int t = omp_get_thread_num(), n = omp_get_num_threads();
    const float *restrict a = scale, *restrict b = shift, *restrict m = slope, *restrict o0 = offset;
    for (long r = R * t / n; r < R * (t + 1) / n; r++) {
      const value *restrict p = x + (size_t)r * C, *restrict h = g + (size_t)r * ld;
      value *restrict o = gx + (size_t)r * C;
      if (act) {
#pragma omp simd
        for (int c = 0; c < C; c++) {
          float v = LOAD(p[c]);
          o[c] = STORE(a[c] * silu_grad(LOAD(h[c]), v * a[c] + b[c]) + v * m[c] + o0[c]);
        }
      } else {
#pragma omp simd
        for (int c = 0; c < C; c++) o[c] = STORE(a[c] * LOAD(h[c]) + LOAD(p[c]) * m[c] + o0[c]);
      }
    }
  }
}
"""
"""Written once for both types of value; sums and parameters are single and double precision in either."""

TYPES = {
    "float": "#define value float\n#define LOAD(x) (x)\n#define STORE(x) (x)\n#define NAME(x) x##_float\n",
    "bfloat16": "#define value unsigned short\n#define LOAD(x) from_bfloat16(x)\n#define STORE(x) to_bfloat16(x)\n"
    "#define NAME(x) x##_bfloat16\n",
}
"""What the macros stand for, by the type of the values that convolutions give and take."""

SOURCE = PREAMBLE + "".join(
    macros + BODY + "#undef value\n#undef LOAD\n#undef STORE\n#undef NAME\n" for macros in TYPES.values()
)
