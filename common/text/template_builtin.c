/* The built-in chat templates. Each is Jinja that any reader of chat templates takes: no generation blocks, no macros
 * beyond one. What a template has no place for (tools, parts that are no text) it refuses. */
#include "text/template_builtin.h"

/* text(m): the content of a message, of which a list keeps its text parts. */
#define TEXT                                                                                                        \
    "{%- macro text(m) -%}\n"                                                                                       \
    "{%- if m.content is string -%}{{ m.content }}\n"                                                               \
    "{%- elif m.content is none or m.content is undefined -%}\n"                                                    \
    "{%- else -%}{%- for part in m.content -%}\n"                                                                   \
    "{%- if part.type != 'text' -%}{{ raise_exception('this chat template takes text only, not ' ~ part.type) }}\n" \
    "{%- endif -%}{{ part.text }}{%- endfor -%}{%- endif -%}\n"                                                     \
    "{%- endmacro -%}\n"

#define NO_TOOLS "{%- if tools -%}{{ raise_exception('this chat template has no place for tools') }}{%- endif -%}\n"

/* A system message only at the start; after it, user and assistant in turn. */
#define SYSTEM_FIRST                                                                                                \
    "{%- set system = text(messages[0]) if messages and messages[0].role == 'system' else '' -%}\n"                 \
    "{%- set turns = messages[1:] if messages and messages[0].role == 'system' else messages -%}\n"

#define UNKNOWN_ROLE "{{ raise_exception('this chat template has no role ' ~ m.role) }}"

const sw_builtin_template sw_builtin_templates[] = {
    {"chatml", TEXT NO_TOOLS "{%- for m in messages -%}\n"
                             "{{ '<|im_start|>' ~ m.role ~ '\\n' ~ text(m) ~ '<|im_end|>\\n' }}\n"
                             "{%- endfor -%}\n"
                             "{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}{%- endif -%}\n"},
    {"llama3",
     TEXT NO_TOOLS "{{- bos_token }}\n"
                   "{%- for m in messages -%}\n"
                   "{{ '<|start_header_id|>' ~ m.role ~ '<|end_header_id|>\\n\\n' ~ text(m) | trim ~ '<|eot_id|>' }}\n"
                   "{%- endfor -%}\n"
                   "{%- if add_generation_prompt -%}\n"
                   "{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif -%}\n"},
    {"llama2", TEXT NO_TOOLS SYSTEM_FIRST
     "{%- for m in turns -%}\n"
     "{%- if m.role == 'user' -%}{{ bos_token ~ '[INST] ' }}\n"
     "{%- if loop.first and system -%}{{ '<<SYS>>\\n' ~ system ~ '\\n<</SYS>>\\n\\n' }}{%- endif -%}\n"
     "{{ text(m) | trim ~ ' [/INST]' }}\n"
     "{%- elif m.role == 'assistant' -%}{{ ' ' ~ text(m) | trim ~ ' ' ~ eos_token }}\n"
     "{%- else -%}" UNKNOWN_ROLE "{%- endif -%}\n"
     "{%- endfor -%}\n"},
    {"mistral", TEXT NO_TOOLS SYSTEM_FIRST
     "{{- bos_token }}\n"
     "{%- for m in turns -%}\n"
     "{%- if m.role == 'user' -%}{{ '[INST] ' }}\n"
     "{%- if loop.first and system -%}{{ system ~ '\\n\\n' }}{%- endif -%}\n"
     "{{ text(m) ~ ' [/INST]' }}\n"
     "{%- elif m.role == 'assistant' -%}{{ ' ' ~ text(m) | trim ~ eos_token }}\n"
     "{%- else -%}" UNKNOWN_ROLE "{%- endif -%}\n"
     "{%- endfor -%}\n"},
    {"gemma", TEXT NO_TOOLS SYSTEM_FIRST
     "{{- bos_token }}\n"
     "{%- for m in turns -%}\n"
     "{%- if m.role not in ['user', 'assistant'] -%}" UNKNOWN_ROLE "{%- endif -%}\n"
     "{{ '<start_of_turn>' ~ ('model' if m.role == 'assistant' else 'user') ~ '\\n' }}\n"
     "{%- if loop.first and system -%}{{ system ~ '\\n\\n' }}{%- endif -%}\n"
     "{{ text(m) | trim ~ '<end_of_turn>\\n' }}\n"
     "{%- endfor -%}\n"
     "{%- if add_generation_prompt -%}{{ '<start_of_turn>model\\n' }}{%- endif -%}\n"},
    {"phi3", TEXT NO_TOOLS "{%- for m in messages -%}\n"
                           "{{ '<|' ~ m.role ~ '|>\\n' ~ text(m) ~ '<|end|>\\n' }}\n"
                           "{%- endfor -%}\n"
                           "{%- if add_generation_prompt -%}{{ '<|assistant|>\\n' }}{%- endif -%}\n"},
    {"zephyr", TEXT NO_TOOLS "{%- for m in messages -%}\n"
                             "{{ '<|' ~ m.role ~ '|>\\n' ~ text(m) ~ eos_token ~ '\\n' }}\n"
                             "{%- endfor -%}\n"
                             "{%- if add_generation_prompt -%}{{ '<|assistant|>\\n' }}{%- endif -%}\n"},
    {"plain", TEXT NO_TOOLS "{%- if bos_token is defined -%}{{ bos_token }}{%- endif -%}\n"
                            "{%- for m in messages -%}\n"
                            "{%- if m.role == 'assistant' -%}{{ text(m) ~ eos_token }}{%- if not loop.last -%}{{ '\\n' }}{%- endif -%}\n"
                            "{%- else -%}{{ text(m) ~ '\\n' }}{%- endif -%}\n"
                            "{%- endfor -%}\n"},
    {0, 0},
};
