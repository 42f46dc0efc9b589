/* What the parts of swift-eval share: tasks, the scorers that a task is made with, and the rows of data files. */
#ifndef SWIFT_EVAL_EVAL_H
#define SWIFT_EVAL_EVAL_H

#include "base/error.h"
#include "base/json.h"
#include "base/map.h"
#include "base/option.h"
#include "extract.h"
#include "statistics.h"
#include "text/jinja.h"

typedef struct eval_metric {
    const char *name; /* in the task's tree, or static */
    eval_scale scale;
    bool lower_is_better;
    eval_rules extract; /* of the scorer "match" */
    unsigned normalise;
} eval_metric;

typedef struct eval_task eval_task;

/* How the prompts of a task ask, and how what came back is counted. A scorer is one file and one line in eval_scorers;
 * what differs between tasks of the same scorer is in their descriptions. */
typedef struct eval_scorer {
    const char *name;
    const char *result;         /* field that a result must have: "text" or "scores" */
    const eval_metric *metrics; /* that its tasks have; NULL: the description lists them. Ends with name NULL */
    /* Completes out, which has id, task, group and the prompt, by what is asked; vars is the row. Prints out by emit,
     * once or several times. */
    int (*ask)(const eval_task *t, const cJSON *vars, cJSON *out, int (*emit)(const cJSON *));
    /* One result: amounts of each metric (zeroed before), and fields for --details. */
    int (*score)(const eval_task *t, const cJSON *result, eval_amount *amounts, cJSON *details);
} eval_scorer;

extern const eval_scorer eval_match, eval_choice, eval_perplexity;
extern const eval_scorer *const eval_scorers[]; /* ends with NULL */

struct eval_task {
    cJSON *tree; /* the description; strings below point into it */
    const char *name, *summary, *rows, *group_of, *messages, *choices, *labels, *text;
    const eval_scorer *scorer;
    const cJSON *needs, *stop; /* NULL: none */
    sw_jinja *id, *group, *input, *output, *answer, *continuation; /* NULL: none */
    const char *separator, *between, *system;
    bool chat;
    int64_t max_tokens, part_bytes, context_bytes;
    eval_rules answer_extract;
    eval_metric *metrics;
    size_t n_metrics;
};

/* A built-in task's name, or a file that ends in .json. */
eval_task *eval_task_load(const char *name) SW_MUST_CHECK;
void eval_task_free(eval_task *t);
/* Descriptions of the built-in tasks, JSON; ends with NULL. */
extern const char *const eval_builtin_tasks[];

/* Appends a template's text for these variables. A NULL template gives nothing. what: for the message. */
int eval_render(const sw_jinja *j, const cJSON *vars, const char *what, sw_buf *out) SW_MUST_CHECK;
/* Member by a path with points ("choices.text"), or NULL. */
const cJSON *eval_member(const cJSON *o, const char *path);
/* The answer that row vars says is right, as the task extracts it. */
int eval_right_answer(const eval_task *t, const cJSON *vars, sw_buf *out) SW_MUST_CHECK;

/* Place of the right choice in the list that the task's "choices" names. */
int eval_choice_place(const eval_task *t, const cJSON *vars, int *place) SW_MUST_CHECK;

/* Adds a string member that may hold any valid UTF-8, U+0000 too. */
void eval_add_text(cJSON *o, const char *key, sw_span text);

/* Writes b to standard output and frees it. */
int eval_put(sw_buf *b) SW_MUST_CHECK;

/* Calls each for every row of the files (standard input when there are none), which takes the row. where is
 * "FILE: line N"; limit: rows of each file at most, 0 is all. The row gets "file" (the name without folder and ending)
 * and "index" (from 1) where it has no such fields. member: see eval_task.rows. digests: NULL, or an array that gets
 * {"file", "digest"} of each. */
int eval_each_row(char *const *files, int n, const char *member, int64_t limit, cJSON *digests,
                  int (*each)(void *context, cJSON *row, const char *where), void *context) SW_MUST_CHECK;

/* The commands. */
int eval_prompts_body(int n, char **files);
int eval_score_body(int n, char **files);
int eval_compare_body(int n, char **files);
int eval_tasks_body(int n, char **names);
extern const sw_program eval_prompts_program, eval_score_program, eval_compare_program, eval_tasks_program;

#endif
