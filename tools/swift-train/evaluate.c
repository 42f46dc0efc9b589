#include "train.h"

#include <stdlib.h>

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
            rc = train_run_part(r, d.at, d.n, 1, false, sum);
    }
    train_step_free(&d);
    free(d.at);
    if (rc)
        return sw_fail_in("evaluation");
    if (r->stopping)
        return 0;
    double sums[] = {sum->loss, sum->weight, sum->correct, sum->labelled};
    if (parallel_sum(&r->parallel, sums, 4))
        return -1;
    *sum = (sw_loss){sums[0], sums[1], sums[2], sums[3]};
    if (sum->labelled)
        return 0;
    r->comm->agreed = true;
    return sw_fail("the validation shards hold no label%s", r->objective->of_records ? "" : "led tokens");
}
