/* What models there are, for people and programs: the registry of families (family.h) with the published models known to
 * use each (release.h). */
#ifndef SW_MODEL_MODEL_LIST_H
#define SW_MODEL_MODEL_LIST_H

#include "base/strbuf.h"

/* A line a family, with tabs between name, model types, architectures, test cases and number of published models. With
 * `aligned`: columns under a heading, and a last line with the totals. */
void sw_model_list_table(sw_buf *out, bool aligned);
/* An object a line. */
void sw_model_list_json(sw_buf *out);
/* The manual page swift-models(7), as mdoc. */
void sw_model_list_man(sw_buf *out);

#endif
