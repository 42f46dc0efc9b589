/* Chat templates that come with the suite, for checkpoints without one. Data only. */
#ifndef SW_TEXT_TEMPLATE_BUILTIN_H
#define SW_TEXT_TEMPLATE_BUILTIN_H

typedef struct sw_builtin_template {
    const char *name, *jinja;
} sw_builtin_template;
extern const sw_builtin_template sw_builtin_templates[]; /* ends with {0} */

#endif
