/* Plots by the program gnuplot, where it is installed. */
#ifndef SW_BASE_GNUPLOT_H
#define SW_BASE_GNUPLOT_H

#include "base/error.h"
#include "base/strbuf.h"

#include <stdbool.h>

/* Whether a plot can have this name: it ends in .svg or .png. */
bool sw_plot_name(const char *out);
/* Runs script (data as here-documents in it) and puts the picture under out, whole or not at all. The script sets no
 * terminal and no output; these are width x height pixels, by the name's ending. */
int sw_gnuplot(sw_span script, int width, int height, const char *out) SW_MUST_CHECK;
/* Appends a text in quotes, safe in a script and without gnuplot's markup. */
void sw_gnuplot_text(sw_buf *script, const char *text);

#endif
