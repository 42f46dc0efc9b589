/* A file of named tensors, whichever of the two kinds it is of: safetensors, or torch.save's by its ending. */
#ifndef SW_STORE_WEIGHTS_FILE_H
#define SW_STORE_WEIGHTS_FILE_H

#include "store/safetensors.h"

#include <stdbool.h>

typedef struct sw_weights_file sw_weights_file;
bool sw_is_torch_name(const char *name); /* .bin, .pt, .pth */
sw_weights_file *sw_weights_open(const char *path) SW_MUST_CHECK;
void sw_weights_close(sw_weights_file *w);
size_t sw_weights_count(const sw_weights_file *w);
const sw_entry *sw_weights_at(const sw_weights_file *w, size_t i);             /* in file order */
const sw_entry *sw_weights_find(const sw_weights_file *w, const char *name); /* NULL: none (no error set) */

#endif
