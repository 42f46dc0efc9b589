/* What hub.c (names and caches), hub_fetch.c (what is needed of a repository) and hub_transfer.c (getting it) share. */
#ifndef SW_STORE_HUB_INTERNAL_H
#define SW_STORE_HUB_INTERNAL_H

#include "store/http.h"

#include <stdbool.h>
#include <stdint.h>

enum { SW_HUB_MODEL, SW_HUB_TOKENIZER };

/* A name taken apart, and where its files are or go. */
typedef struct sw_hub_repo {
    char *id;       /* org/name */
    char *revision; /* "main" unless said */
    char *file;     /* after the colon, or NULL: a GGUF file, or a part of its name */
    char *cache;    /* of all repositories */
    char *folder;   /* cache/models--org--name */
    int want;
} sw_hub_repo;

/* A file of the repository. */
typedef struct sw_hub_file {
    char *name; /* relative path, checked */
    char *id;   /* digest (content_hash.h), or NULL until asked for */
    int64_t size; /* -1: unknown */
} sw_hub_file;

/* Gets what is wanted of a repository into the cache; the path of its snapshot, or of a file in it. */
char *sw_hub_fetch(const sw_hub_repo *repo) SW_MUST_CHECK;

typedef struct sw_hub_files {
    sw_hub_file **at;
    size_t n, cap;
} sw_hub_files;
/* Gets files of one commit side by side and links them into its snapshot. */
int sw_hub_transfer(const sw_hub_repo *repo, sw_http *h, const char *endpoint, const char *token, const char *commit,
                    const sw_hub_files *files) SW_MUST_CHECK;
/* Says what an answer of the hub means: which token is needed, what does not exist. */
int sw_hub_explain(const sw_hub_repo *repo, const char *endpoint, bool with_token, const char *url, const sw_http_reply *reply) SW_MUST_CHECK;

/* Whether a folder has all that loading needs: weights with every shard of their index, or a tokenizer's files. */
bool sw_hub_complete(const char *dir, int want);
/* The file names of an index's weight_map, each once; -1 where the index is broken. */
typedef struct sw_hub_names {
    char **at;
    size_t n, cap;
} sw_hub_names;
int sw_hub_index_names(const char *index_path, sw_hub_names *out) SW_MUST_CHECK;
void sw_hub_names_free(sw_hub_names *names);

#endif
