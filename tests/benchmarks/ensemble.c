/* The post's network in C, 16 networks to a vector: what one writes who wants speed without torch. */
enum { F = 3, H = 15, R = 7, V = 16 };
typedef float vec __attribute__((vector_size(4 * V)));
vec _ZGVeN16v_expf(vec); /* expf of 16 numbers at once, from glibc's libmvec */

static const float X[R][F] = {{0, 0, 0}, {0, 0, 1}, {0, 1, 0}, {0, 1, 1}, {1, 0, 0}, {1, 0, 1}, {1, 1, 0}};
static const float Y[R] = {1, 1, 0, 0, 0, 0, 1};

static inline vec sigmoid(vec z) { return 1 / (1 + _ZGVeN16v_expf(-z)); }

static void step(vec w[F + 1][H], float lr) {
    vec h[R][H], d[R];
    for (int r = 0; r < R; r++) {
        vec z = {0};
        for (int j = 0; j < H; j++) {
            h[r][j] = r == 0 ? (vec){} + 0.5f
                             : sigmoid(X[r][0] * w[0][j] + X[r][1] * w[1][j] + X[r][2] * w[2][j]);
            z += h[r][j] * w[F][j];
        }
        vec o = sigmoid(z);
        d[r] = (o - Y[r]) * (1 - o) * o;
    }
    for (int j = 0; j < H; j++) {
        vec g[F] = {0}, g1 = {0};
#pragma GCC unroll 7 /* so that the table's zeros and ones are known to the compiler */
        for (int r = 0; r < R; r++) {
            vec slope = d[r] * h[r][j] * (1 - h[r][j]);
#pragma GCC unroll 3
            for (int f = 0; f < F; f++) g[f] += X[r][f] * slope;
            g1 += d[r] * h[r][j];
        }
        for (int f = 0; f < F; f++) w[f][j] -= lr * g[f] * w[F][j];
        w[F][j] -= lr * g1;
    }
}

/* weights: (F + 1, H, count), starts innermost; count a multiple of 16. */
void advance(float *weights, long count, long steps, float lr) {
    for (long c = 0; c < count; c += V) {
        vec w[F + 1][H];
        for (int i = 0; i < (F + 1) * H; i++)
            for (int v = 0; v < V; v++) ((vec *)w)[i][v] = weights[i * count + c + v];
        for (long s = 0; s < steps; s++) step(w, lr);
        for (int i = 0; i < (F + 1) * H; i++)
            for (int v = 0; v < V; v++) weights[i * count + c + v] = ((vec *)w)[i][v];
    }
}
