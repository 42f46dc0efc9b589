/* SHA-1 and SHA-256 of content, by libcrypto, which is loaded at the first use. The digests by which hubs name what they
 * hold: sha256 of a large file, git's blob id (SHA-1 of "blob <size>\0" and the bytes) of a small one. */
#ifndef SW_STORE_CONTENT_HASH_H
#define SW_STORE_CONTENT_HASH_H

#include "base/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct sw_content_hash sw_content_hash;
/* id: 64 hex digits for sha256, 40 for a git blob of `size` bytes. NULL where libcrypto cannot be loaded or id is no digest. */
sw_content_hash *sw_content_hash_new(const char *id, int64_t size) SW_MUST_CHECK;
void sw_content_hash_add(sw_content_hash *h, const void *bytes, size_t n);
/* Frees h. True where the content is what id says; hex: what it is. */
bool sw_content_hash_matches(sw_content_hash *h, char hex[65]);
void sw_content_hash_free(sw_content_hash *h);
/* 40 or 64 hex digits in lower case. */
bool sw_content_id_valid(const char *id);

#endif
