/* One view over a model's files: a Hugging Face folder (safetensors, or pytorch_model.bin as torch.save wrote it; one file, or
 * several with an index), a single such file, a GGUF file (also one in several parts), or a hub id (store/hub.h). Opening maps
 * and checks: no tensor is copied, except those of torch files that cannot be used as they lie. */
#ifndef SW_STORE_CHECKPOINT_H
#define SW_STORE_CHECKPOINT_H

#include "base/memory.h"
#include "store/gguf.h"
#include "store/hub.h"
#include "store/safetensors.h"

typedef struct sw_checkpoint {
    char *path;             /* folder or file that was opened */
    cJSON *config;          /* config.json, or NULL (GGUF, bare file) */
    sw_gguf *gguf;          /* or NULL */
    char **shard_names;     /* of files within the folder, in order; as a writer of safetensors calls them */
    size_t n_shards;
    struct sw_checkpoint_files *files;
} sw_checkpoint;

sw_checkpoint *sw_checkpoint_open(const char *model) SW_MUST_CHECK;
void sw_checkpoint_close(sw_checkpoint *c);
size_t sw_checkpoint_count(const sw_checkpoint *c);
const sw_entry *sw_checkpoint_at(const sw_checkpoint *c, size_t i);            /* shard by shard, in file order */
const sw_entry *sw_checkpoint_find(const sw_checkpoint *c, const char *name);  /* NULL: none (no error set) */
size_t sw_checkpoint_shard_of(const sw_checkpoint *c, size_t i);               /* of entry i */
/* Lets it show other tensors than those that lie in its files: the same ones by other names, or made from them. What they
 * consist of lives in *arena, which becomes c's. */
void sw_checkpoint_show(sw_checkpoint *c, const sw_entry *entries, size_t n, sw_arena *arena);

/* Writes a Hugging Face folder's tensors: model.safetensors, or shards with an index when a limit is set and passed.
 * Declare all, then write each tensor's bytes in that order. `dir` is a folder being built (sw_outdir). */
typedef struct sw_checkpoint_writer sw_checkpoint_writer;
sw_checkpoint_writer *sw_checkpoint_writer_new(const char *dir, size_t max_shard_bytes); /* 0: one file */
/* shard: a file name to put the tensor in ("model-00002-of-00003.safetensors"), or NULL to fill shards in order. */
void sw_checkpoint_declare(sw_checkpoint_writer *w, const char *name, sw_dtype dtype, int ndim, const int64_t *shape, const char *shard);
int sw_checkpoint_write(sw_checkpoint_writer *w, const void *bytes, size_t n) SW_MUST_CHECK; /* one whole tensor */
int sw_checkpoint_writer_finish(sw_checkpoint_writer *w) SW_MUST_CHECK; /* frees w, also on failure */
void sw_checkpoint_writer_abort(sw_checkpoint_writer *w);
/* Copies the files beside the weights (tokenizer, generation config, chat template) that exist. config.json too when
 * with_config. */
int sw_checkpoint_copy_companions(const char *from, const char *to, bool with_config) SW_MUST_CHECK;

#endif
