/* Bytes of an input: a file, a pipe or standard input, unpacked where they are gzip or zstd (known by the first
 * bytes), with the digest of what was read. */
#ifndef SW_DATA_SOURCE_H
#define SW_DATA_SOURCE_H

#include "base/error.h"
#include "base/fileio.h"

#include <stdatomic.h>

typedef struct sw_source sw_source;

/* "-" is standard input. */
sw_source *sw_source_open(const char *path) SW_MUST_CHECK;
void sw_source_close(sw_source *s);
const char *sw_source_name(const sw_source *s); /* for messages */
/* Makes a read that waits for a pipe fail once *stop is true. NULL: none. */
void sw_source_stop_when(sw_source *s, const atomic_bool *stop);
/* Gives back what only reading needs, as the end of the file does: a run may have more inputs than a process may have
 * open files. */
void sw_source_release(sw_source *s);
/* Back to the first byte. Fails on a pipe. */
int sw_source_rewind(sw_source *s) SW_MUST_CHECK;
/* A file, which can be read again, that begins with these bytes. Nothing is taken from it. */
bool sw_source_is(const sw_source *s, const char *magic);
/* Appends some bytes to b: 1, or 0 at the end, or -1. */
int sw_source_read(sw_source *s, sw_buf *b) SW_MUST_CHECK;
/* Bytes taken from the file in this pass so far (packed ones, where it is), and the digest (as sw_digest_file) of what
 * was read in the first pass. */
int64_t sw_source_bytes(const sw_source *s);
sw_digest sw_source_digest(const sw_source *s);
/* Size of the file, or 0 where it is not known. */
int64_t sw_source_size(const sw_source *s);

#endif
