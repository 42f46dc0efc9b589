/* The table of a comparison, and how it is shown. */
#ifndef SWIFT_EVAL_EVAL_COMPARE_H
#define SWIFT_EVAL_EVAL_COMPARE_H

#include "base/strbuf.h"
#include "eval_report.h"

typedef struct eval_column {
    const char *task, *group, *metric; /* group NULL: all records; of the first report that has the column */
    bool lower_is_better;
} eval_column;

typedef struct eval_cell {
    const eval_figure *figure; /* NULL: the row has no such figure */
    const eval_report *report;
    size_t metric;
    bool whole, best;
    bool paired; /* the difference from the first row is known, by a paired bootstrap */
    double difference;
    eval_interval difference_interval;
} eval_cell;

typedef struct eval_table {
    eval_report *reports;
    size_t n_reports;
    struct { char **at; size_t n, cap; } rows; /* names */
    struct { eval_column *at; size_t n, cap; } columns;
    eval_cell *cells; /* [rows][columns] */
} eval_table;

void eval_table_text(const eval_table *t, sw_buf *out);
void eval_table_markdown(const eval_table *t, sw_buf *out);
void eval_table_json(const eval_table *t, sw_buf *out);
/* A panel a column, a point with an error bar a row. */
int eval_table_plot(const eval_table *t, const char *path) SW_MUST_CHECK;

#endif
