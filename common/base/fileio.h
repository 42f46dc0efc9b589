/* Files: whole reads, memory maps, and outputs that appear whole or not at all. */
#ifndef SW_BASE_FILEIO_H
#define SW_BASE_FILEIO_H

#include "base/error.h"
#include "base/strbuf.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

/* Appends a whole file ("-" is standard input) to b. */
int sw_read_file(const char *path, sw_buf *b) SW_MUST_CHECK;
bool sw_is_dir(const char *path);
bool sw_is_file(const char *path);
/* Folder and its parents; existing ones are fine. */
int sw_mkdirs(const char *path) SW_MUST_CHECK;
/* Removes a file or a folder with all in it; a missing one is fine. */
int sw_remove_tree(const char *path) SW_MUST_CHECK;
/* dir + "/" + name; caller frees. */
char *sw_path_join(const char *dir, const char *name);
/* flush of a folder's entry list, so that a rename in it survives a power cut */
int sw_sync_dir(const char *path) SW_MUST_CHECK;

/* A read-only map of a whole file. Zero value is none. */
typedef struct sw_mapping {
    const uint8_t *at;
    size_t n;
} sw_mapping;
int sw_map_file(const char *path, sw_mapping *m) SW_MUST_CHECK;
void sw_unmap_file(sw_mapping *m);

/* A file written under "<path>.tmp.<pid>" and renamed to path by _commit, after everything reached the disk.
 * _abort (or the process's death) leaves no file under path. "-" writes to standard output. */
typedef struct sw_outfile {
    FILE *f;
    char *path, *temporary; /* both NULL for standard output */
} sw_outfile;
int sw_out_open(sw_outfile *o, const char *path) SW_MUST_CHECK;
int sw_out_write(sw_outfile *o, const void *bytes, size_t n) SW_MUST_CHECK;
int sw_out_commit(sw_outfile *o) SW_MUST_CHECK;
void sw_out_abort(sw_outfile *o);
/* All three in one. */
/* All of n bytes to a descriptor, whatever signals come. -1 with errno. */
int sw_write_all(int fd, const void *bytes, size_t n) SW_MUST_CHECK;
int sw_write_file(const char *path, const void *bytes, size_t n) SW_MUST_CHECK;
/* Fails where an output (NULL: none) is the file that an input is read from, whatever they are called: it would be lost. */
int sw_out_spares(const char *out, const char *input) SW_MUST_CHECK;

/* A folder built under a temporary name beside its final one. begin creates it and gives the name to write in;
 * commit flushes every file and puts it in place of an older folder of that name, if any, at once; abort removes it. */
typedef struct sw_outdir {
    char *path, *temporary;
} sw_outdir;
int sw_outdir_begin(sw_outdir *o, const char *path) SW_MUST_CHECK;
int sw_outdir_commit(sw_outdir *o) SW_MUST_CHECK;
void sw_outdir_abort(sw_outdir *o);
/* Keeps other processes out of a folder until this one ends: fails where one is in it. Nothing is kept out where the file
 * system has no such locks. */
int sw_lock_dir(const char *path) SW_MUST_CHECK;
/* Removes from a folder what killed processes of this machine left half written in it ("<name>.tmp.<pid>"). */
int sw_sweep_temporaries(const char *dir) SW_MUST_CHECK;

/* 128-bit content digest (XXH3) of a file's or buffer's bytes as 32 hex digits. For identity, not security. */
typedef struct sw_digest {
    char hex[33];
} sw_digest;
sw_digest sw_digest_bytes(const void *bytes, size_t n);
int sw_digest_file(const char *path, sw_digest *out) SW_MUST_CHECK;

#endif
