#include "train.h"

#include "base/interrupt.h"

#include <stdlib.h>

/* Records in their order, --batch at a time; the sums make the mean over all labelled tokens, whatever the split. */
int train_evaluate(train_run *r, sw_loss *sum)
{
    *sum = (sw_loss){0};
    train_step_data d = {0};
    int rc = feed_seek(r->val, (feed_place){0, 0}), got = 1;
    while (!rc && got == 1 && !sw_interrupted()) {
        train_sample *s;
        got = feed_next(r->val, &s);
        if (got == 1)
            SW_PUSH(d, s);
        if (got < 0) {
            rc = -1;
        } else if (d.n && (got == 0 || d.n == (size_t)r->o->batch)) {
            sw_micro_batch b;
            rc = train_batch(&r->ctx, d.at, d.n, &b) ||
                 r->objective->run(&r->ctx, r->model, &b, &r->objective_options, 1, false, false, sum);
            train_step_free(&d);
        }
    }
    train_step_free(&d);
    free(d.at);
    if (!rc && !sw_interrupted() && !sum->labelled)
        return sw_fail("the validation shards hold no labelled tokens");
    return rc ? sw_fail_in("evaluation") : 0;
}
