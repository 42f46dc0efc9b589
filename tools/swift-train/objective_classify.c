/* Classification of whole texts by the score head, as transformers has it: cross entropy of one class, binary cross entropy
 * of each of several, or squared error of values. A text's loss is a mean over its labels; their sum is over the divisor. */
#include "objective.h"

#include "base/memory.h"

#include <math.h>
#include <string.h>

static const struct {
    const char *name;
    sw_problem problem;
} problems[] = {{"single_label_classification", SW_PROBLEM_CLASS}, {"multi_label_classification", SW_PROBLEM_CLASSES}, {"regression", SW_PROBLEM_VALUE}};

int sw_problem_of(const char *name, int64_t labels, sw_problem *out)
{
    *out = labels == 1 ? SW_PROBLEM_VALUE : SW_PROBLEM_CLASS;
    for (size_t i = 0; name && i < SW_COUNT(problems); i++)
        if (!strcmp(problems[i].name, name)) {
            *out = problems[i].problem;
            return 0;
        }
    return name ? sw_fail("\"problem_type\": '%s' is not known; known are single_label_classification, multi_label_classification and regression", name)
                : 0;
}

/* What the head is to say of a text: want [k], for one class or several 0 or 1. */
static int target_of(sw_problem problem, const float *label, int64_t n, int64_t k, float *want)
{
    if (problem == SW_PROBLEM_VALUE) {
        if (n != k)
            return sw_fail("a record has %lld values as its label, the model gives %lld", (long long)n, (long long)k);
        memcpy(want, label, (size_t)k * sizeof *want);
        return 0;
    }
    if (problem == SW_PROBLEM_CLASS && n != 1)
        return sw_fail("a record has %lld classes as its label; where a text may have several, give --problem multi", (long long)n);
    memset(want, 0, (size_t)k * sizeof *want);
    for (int64_t i = 0; i < n; i++) {
        if (!(label[i] >= 0 && label[i] < (float)k && label[i] == floorf(label[i])))
            return sw_fail("a record's label is %g; the model has the classes 0 to %lld", (double)label[i], (long long)k - 1);
        want[(int64_t)label[i]] = 1;
    }
    return 0;
}

/* Loss of one text, and its slope by each score. */
static double loss_of(sw_problem problem, const float *score, const float *want, int64_t k, float *slope, bool *right)
{
    double loss = 0, top = -INFINITY, sum = 0;
    int64_t best = 0;
    *right = problem != SW_PROBLEM_VALUE;
    for (int64_t j = 0; j < k; j++)
        if (score[j] > top) {
            top = score[j];
            best = j;
        }
    for (int64_t j = 0; problem == SW_PROBLEM_CLASS && j < k; j++)
        sum += exp(score[j] - top);
    for (int64_t j = 0; j < k; j++) {
        double x = score[j], w = want[j];
        if (problem == SW_PROBLEM_CLASS) {
            loss -= w * (x - top - log(sum));
            slope[j] = (float)(exp(x - top) / sum - w);
        } else if (problem == SW_PROBLEM_CLASSES) {
            loss += (fmax(x, 0) - x * w + log1p(exp(-fabs(x)))) / (double)k;
            slope[j] = (float)((1 / (1 + exp(-x)) - w) / (double)k);
            *right &= (x > 0) == (w > 0);
        } else {
            loss += (x - w) * (x - w) / (double)k;
            slope[j] = (float)(2 * (x - w) / (double)k);
        }
    }
    if (problem == SW_PROBLEM_CLASS)
        *right = want[best] > 0;
    return loss;
}

static int classify(sw_ctx *c, sw_model *m, const sw_micro_batch *b, const sw_objective_options *o, double divisor, bool backward, bool recompute,
                    sw_loss *sum)
{
    int64_t k = m->spec.labels, shape[] = {b->n_seqs, k};
    float *score = sw_ctx_alloc(c, (size_t)(b->n_seqs * k) * sizeof *score), *slope = sw_ctx_alloc(c, (size_t)(b->n_seqs * k) * sizeof *slope);
    float *want = sw_ctx_alloc(c, (size_t)k * sizeof *want);
    c->recording = c->training = backward;
    sw_batch batch = {.n = b->n, .n_seqs = b->n_seqs, .ids = b->ids, .lengths = b->lengths, .keys = b->keys};
    sw_micro_batch there = *b;
    sw_var *h = sw_micro_prepare(c, m, &there) ? NULL : sw_model_run(c, there.pass, recompute && backward);
    sw_var *x = h ? sw_model_pool(c, m, &batch, h) : NULL;
    sw_var *y = x ? sw_model_score(c, m, x) : NULL;
    y = y ? sw_cast(c, y, SW_F32) : NULL;
    int rc = !y || sw_to_host(c, y, score) ? -1 : 0;
    const float *label = b->labels;
    memset(slope, 0, (size_t)(b->n_seqs * k) * sizeof *slope);
    for (int64_t i = 0; !rc && i < b->n_seqs; i++) {
        int64_t n = b->n_labels ? b->n_labels[i] : -1;
        bool right;
        if (n < 0)
            continue;
        rc = target_of(o->problem, label, n, k, want);
        label += n;
        if (rc)
            break;
        sum->loss += loss_of(o->problem, score + i * k, want, k, slope + i * k, &right) / divisor;
        sum->weight++;
        sum->labelled++;
        sum->correct += right;
        for (int64_t j = 0; j < k; j++)
            slope[i * k + j] /= (float)divisor;
    }
    sw_var *seed = !rc && backward ? sw_from_host(c, SW_F32, 2, shape, slope) : NULL;
    if (!rc && backward)
        rc = seed ? sw_backward(c, y, &seed->t) : -1;
    if (!rc && b->meanwhile)
        b->meanwhile(b->meanwhile_arg);
    sw_ctx_reset(c);
    c->recording = c->training = false;
    return rc;
}

static const char *const columns[] = {"label", NULL};
const sw_objective sw_objective_classify = {.name = "classify", .columns = columns, .run = classify, .of_records = true};
