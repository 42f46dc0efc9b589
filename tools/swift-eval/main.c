/* swift-eval: prompts of a task, scores of the answers, tables of scores. */
#include "eval.h"

#include <stdio.h>
#include <string.h>

static const sw_opt tasks_options[] = {SW_COMMON_OPTS_UNSEEDED, SW_OPT_END};
static const sw_example tasks_examples[] = {{"begin a task of one's own", "swift-eval tasks gsm8k > mine.json"}, {0}};
const sw_program eval_tasks_program = {"swift-eval tasks", "list the built-in tasks, or print their descriptions", "[TASK...]", tasks_options,
                                       tasks_examples};

static int print_task(const char *name)
{
    eval_task *t = eval_task_load(name);
    if (!t)
        return -1;
    sw_buf b = {0};
    sw_json_print_pretty(&b, t->tree);
    eval_task_free(t);
    return eval_put(&b);
}

int eval_tasks_body(int n, char **names)
{
    for (int i = 0; i < n; i++)
        if (print_task(names[i]))
            return -1;
    for (size_t i = 0; !n && eval_builtin_tasks[i]; i++) {
        cJSON *tree = sw_json_parse(eval_builtin_tasks[i], strlen(eval_builtin_tasks[i]));
        if (!tree)
            return -1;
        printf("%-12s %s\n", sw_json_get(tree, "name")->valuestring, sw_json_get(tree, "summary")->valuestring);
        cJSON_Delete(tree);
    }
    return SW_EXIT_OK;
}

int main(int argc, char **argv)
{
    static const sw_subprogram subs[] = {{&eval_prompts_program, eval_prompts_body},
                                         {&eval_score_program, eval_score_body},
                                         {&eval_compare_program, eval_compare_body},
                                         {&eval_tasks_program, eval_tasks_body},
                                         {0}};
    return sw_main_sub("swift-eval", "evaluate language models: prompts out, scores back, tables", subs, argc, argv);
}
