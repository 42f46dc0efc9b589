#include "train.h"

#include <stdlib.h>

int train_sum(train_run *r, sw_loss *sum, double *tokens)
{
    struct {
        sw_loss sum;
        double tokens;
    } all = {*sum, *tokens};
    _Static_assert(sizeof all == 8 * sizeof(double), "sums and nothing else");
    int rc = parallel_sum(&r->parallel, (double *)&all, sizeof all / sizeof(double));
    *sum = all.sum;
    *tokens = all.tokens;
    return rc;
}

const char *train_labels_name(const sw_objective *o) { return o->of_records ? "label" : o->of_words ? "classes of words" : "labelled tokens"; }

/* Records in their order, --batch at a time on each rank; the sums make the mean over all labelled tokens, whatever the
 * split. */
int train_evaluate(train_run *r, sw_loss *sum)
{
    *sum = (sw_loss){0};
    train_step_data d = {0};
    int rc = feed_seek(r->val, (feed_place){0, 0});
    for (int64_t got = 1, done = 0; !rc && got; done += got) {
        rc = train_poll(r);
        if (rc || r->stopping)
            break;
        rc = feed_take(r->val, r->o->batch * r->comm->ranks, r->o->batch, &d, &got);
        if (!rc)
            train_mask(r, &d, 0, done + r->comm->rank * r->o->batch, "mask of evaluation");
        if (!rc && got)
            rc = train_run_part(r, &(train_part){.samples = d.at, .n = d.n, .divisor = 1}, sum);
    }
    train_step_free(&d);
    free(d.at);
    if (rc)
        return sw_fail_in("evaluation");
    if (r->stopping)
        return 0;
    double tokens = 0;
    if (train_sum(r, sum, &tokens))
        return -1;
    if (sum->labelled)
        return 0;
    r->comm->agreed = true;
    return sw_fail("the validation shards hold no %s", train_labels_name(r->objective));
}
