/* Models by name. "org/name[@revision][:file.gguf]" is looked for in the local caches of Hugging Face (HF_HUB_CACHE, HF_HOME, else
 * ~/.cache/huggingface) and ModelScope (MODELSCOPE_CACHE, else ~/.cache/modelscope), and else downloaded from HF_ENDPOINT into the
 * former, in its own layout, so that other programs find it there. HF_TOKEN is the token; HF_HUB_OFFLINE forbids the network.
 * A revision that is in a cache is used as it is, without asking the hub for news. */
#ifndef SW_STORE_HUB_H
#define SW_STORE_HUB_H

#include "base/error.h"

#include <stddef.h>

/* What the user named as a model, as a folder or file: itself when it exists, else of the hub. Caller frees; NULL with where was
 * looked and what would help. */
char *sw_model_path(const char *model) SW_MUST_CHECK;
/* Puts in the place of each name of an adapter or model its path, which lives as long as the program. */
int sw_model_paths(const char **names, size_t n) SW_MUST_CHECK;
/* The same for a tokenizer: of a model on the hub, everything but its weights. */
char *sw_tokenizer_path(const char *model) SW_MUST_CHECK;

#endif
